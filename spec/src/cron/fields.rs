//! The five fields of a schedule as sets of numbers, and the readings of a wall clock that match them.

use jiff::civil::{Date, DateTime};

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MACROS: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

struct FieldRule {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const RULES: [FieldRule; 5] = [
    FieldRule { name: "minute", min: 0, max: 59, names: &[] },
    FieldRule { name: "hour", min: 0, max: 23, names: &[] },
    FieldRule { name: "day of month", min: 1, max: 31, names: &[] },
    FieldRule { name: "month", min: 1, max: 12, names: MONTHS },
    FieldRule { name: "day of week", min: 0, max: 6, names: DAYS },
];

/// Numbers below 64 as bits, and whether they were written as "any".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Set {
    bits: u64,
    any: bool,
}

impl Set {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.bits & (1 << number) != 0)
    }

    /// Its least number that is not below `from`.
    fn first(self, from: i8) -> Option<i8> {
        let from = u32::try_from(from).ok()?;
        let rest = self.bits.checked_shr(from).filter(|rest| *rest != 0)?;
        i8::try_from(from + rest.trailing_zeros()).ok()
    }

    /// Its greatest number that is not above `to`.
    fn last(self, to: i8) -> Option<i8> {
        let to = u32::try_from(to).ok()?;
        let rest = self.bits & (u64::MAX >> (63 - to.min(63)));
        (rest != 0).then(|| i8::try_from(63 - rest.leading_zeros()).ok()).flatten()
    }
}

/// The five fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    weekdays: Set,
}

impl Fields {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = match MACROS.iter().find(|(name, _)| *name == text) {
            Some((_, fields)) => fields,
            None if text.starts_with('@') => {
                let names: Vec<&str> = MACROS.iter().map(|(name, _)| *name).collect();
                return Err(format!("is not one of {}, `@every ...`", names.join(", ")));
            }
            None => text,
        };
        let parts: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts[..] else {
            return Err(format!("has {} fields, not five (minute hour day-of-month month day-of-week)", parts.len()));
        };
        let [minutes, hours, days, months, weekdays] = &RULES;
        Ok(Self {
            minutes: minutes.parse(minute)?,
            hours: hours.parse(hour)?,
            days: days.parse(day)?,
            months: months.parse(month)?,
            weekdays: weekdays.parse(weekday)?,
        })
    }

    /// The first reading that matches, from `from` on, not after `until`. Seconds count as part of a minute that has
    /// begun already.
    pub(super) fn first(&self, from: DateTime, until: DateTime) -> Option<DateTime> {
        let mut date = from.date();
        let (mut hour, mut minute) = (from.hour(), from.minute());
        if from.second() > 0 || from.subsec_nanosecond() > 0 {
            minute += 1;
        }
        while date <= until.date() {
            if self.is_day(date)
                && let Some((hour, minute)) = self.first_of_day(hour, minute)
            {
                return Some(date.at(hour, minute, 0, 0)).filter(|found| *found <= until);
            }
            (hour, minute) = (0, 0);
            // Months that do not match are left out whole.
            date = if self.months.has(date.month()) {
                date.tomorrow().ok()?
            } else {
                date.last_of_month().tomorrow().ok()?
            };
        }
        None
    }

    /// The last reading that matches, up to `to`, not before `since`.
    pub(super) fn last(&self, since: DateTime, to: DateTime) -> Option<DateTime> {
        let mut date = to.date();
        let (mut hour, mut minute) = (to.hour(), to.minute());
        while date >= since.date() {
            if self.is_day(date)
                && let Some((hour, minute)) = self.last_of_day(hour, minute)
            {
                return Some(date.at(hour, minute, 0, 0)).filter(|found| *found >= since);
            }
            (hour, minute) = (23, 59);
            date = if self.months.has(date.month()) {
                date.yesterday().ok()?
            } else {
                date.first_of_month().yesterday().ok()?
            };
        }
        None
    }

    fn first_of_day(&self, hour: i8, minute: i8) -> Option<(i8, i8)> {
        if self.hours.has(hour)
            && let Some(minute) = self.minutes.first(minute)
        {
            return Some((hour, minute));
        }
        Some((self.hours.first(hour.checked_add(1)?)?, self.minutes.first(0)?))
    }

    fn last_of_day(&self, hour: i8, minute: i8) -> Option<(i8, i8)> {
        if self.hours.has(hour)
            && let Some(minute) = self.minutes.last(minute)
        {
            return Some((hour, minute));
        }
        Some((self.hours.last(hour.checked_sub(1).filter(|hour| *hour >= 0)?)?, self.minutes.last(59)?))
    }

    /// Whether a day matches. With both a day of month and a day of week, either is enough (cron(5)).
    fn is_day(&self, date: Date) -> bool {
        let day = self.days.has(date.day());
        let weekday = self.weekdays.has(date.weekday().to_sunday_zero_offset());
        let right = if self.days.any || self.weekdays.any { day && weekday } else { day || weekday };
        right && self.months.has(date.month())
    }
}

impl FieldRule {
    fn parse(&self, text: &str) -> Result<Set, String> {
        let mut set = Set::default();
        for item in text.split(',') {
            self.add(item, &mut set)?;
        }
        Ok(set)
    }

    fn add(&self, item: &str, set: &mut Set) -> Result<(), String> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let stride = match step {
            Some(text) => number(text)
                .filter(|step| *step > 0)
                .ok_or_else(|| format!("has a bad step `{text}` for the {}", self.name))?,
            None => 1,
        };
        let (from, to) = if matches!(range, "*" | "?") {
            // `*/2` is a choice, `*` and `*/1` are none.
            set.any |= stride == 1;
            (self.min, self.max)
        } else {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (Some(from), Some(to)) = (self.value(first), self.value(last)) else {
                return Err(format!("has `{item}` for the {}, which is not {} to {}", self.name, self.min, self.max));
            };
            if from > to {
                return Err(format!("has the range `{range}` for the {}, which runs backwards", self.name));
            }
            // `5/15` is `5-59/15`.
            (from, if step.is_some() && !range.contains('-') { self.max } else { to })
        };
        let mut value = from;
        while value <= to {
            set.bits |= 1 << value;
            value = value.saturating_add(stride);
        }
        Ok(())
    }

    fn value(&self, text: &str) -> Option<u32> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let value = match named {
            Some(index) => u32::try_from(index).ok()? + self.min,
            None => number(text)?,
        };
        (self.min..=self.max).contains(&value).then_some(value)
    }
}

fn number(text: &str) -> Option<u32> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Whole seconds of a duration as Go writes it, such as `1h30m`.
pub(super) fn go_seconds(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let mut rest = text;
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (amount, after) = rest.split_at_checked(digits)?;
        let amount: f64 = amount.parse().ok()?;
        let (unit, length) = UNITS.iter().find(|(unit, _)| {
            after
                .strip_prefix(*unit)
                .is_some_and(|after| after.is_empty() || after.starts_with(|c: char| c.is_ascii_digit() || c == '.'))
        })?;
        seconds += amount * length;
        rest = after.strip_prefix(unit)?;
    }
    // Go's durations end at 292 years.
    if seconds > 9.2e9 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "positive and below 9.2e9")]
    Some(seconds as i64)
}
