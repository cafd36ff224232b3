//! Grammar of cron schedules as Kubernetes reads them (robfig/cron v3, `ParseStandard`): five fields with lists,
//! ranges, steps and names, or a macro. Times are computed elsewhere.

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MACROS: &[&str] = &["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

struct FieldRule {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const FIELDS: [FieldRule; 5] = [
    FieldRule { name: "minute", min: 0, max: 59, names: &[] },
    FieldRule { name: "hour", min: 0, max: 23, names: &[] },
    FieldRule { name: "day of month", min: 1, max: 31, names: &[] },
    FieldRule { name: "month", min: 1, max: 12, names: MONTHS },
    FieldRule { name: "day of week", min: 0, max: 6, names: DAYS },
];

/// What is wrong with a schedule, if anything.
#[must_use]
pub fn fault(text: &str) -> Option<String> {
    if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
        return Some("must not name a time zone; use `timeZone`".to_owned());
    }
    if let Some(every) = text.strip_prefix("@every ") {
        return (!is_go_duration(every.trim())).then(|| "has no duration such as `1h30m` after `@every`".to_owned());
    }
    if text.starts_with('@') {
        return (!MACROS.contains(&text)).then(|| format!("is not one of {}, `@every ...`", MACROS.join(", ")));
    }
    let parts: Vec<_> = text.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Some(format!("has {} fields, not five (minute hour day-of-month month day-of-week)", parts.len()));
    }
    FIELDS.iter().zip(parts).find_map(|(rule, part)| part.split(',').find_map(|item| rule.fault(item)))
}

impl FieldRule {
    fn fault(&self, item: &str) -> Option<String> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        if let Some(step) = step
            && number(step).is_none_or(|step| step == 0)
        {
            return Some(format!("has a bad step `{step}` for the {}", self.name));
        }
        if matches!(range, "*" | "?") {
            return None;
        }
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Some(from), Some(to)) = (self.value(first), self.value(last)) else {
            return Some(format!("has `{item}` for the {}, which is not {} to {}", self.name, self.min, self.max));
        };
        (from > to).then(|| format!("has the range `{range}` for the {}, which runs backwards", self.name))
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

/// A duration as Go writes it, such as `1h30m`.
fn is_go_duration(text: &str) -> bool {
    let mut rest = text;
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        if digits == 0 || rest[..digits].parse::<f64>().is_err() {
            return false;
        }
        rest = &rest[digits..];
        let Some(unit) = ["ns", "us", "µs", "ms", "s", "m", "h"].iter().find(|unit| {
            rest.strip_prefix(**unit)
                .is_some_and(|after| after.is_empty() || after.starts_with(|c: char| c.is_ascii_digit() || c == '.'))
        }) else {
            return false;
        };
        rest = &rest[unit.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in [
            "* * * * *",
            "*/5 0-6,12 1 JAN-mar mon-FRI",
            "0 0 31 12 0",
            "5/15 * ? * ?",
            "@daily",
            "@every 1h30m",
            "  0   3 * * 6 ",
            "0 0 1,15 * *",
        ] {
            assert_eq!(fault(good), None, "{good}");
        }
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "* * * * 7",
            "*/0 * * * *",
            "5-1 * * * *",
            "a * * * *",
            "@never",
            "TZ=UTC 0 0 * * *",
            "1, * * * *",
            "@every",
            "@every x",
            "-1 * * * *",
            "* * * * mon-",
            "1.5 * * * *",
        ] {
            assert!(fault(bad).is_some(), "{bad}");
        }
    }
}
