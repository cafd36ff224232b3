//! Cron schedules: their grammar, and which moments they mean in a time zone. Pure: moments are seconds of Unix time
//! that are handed in, zones come from the database that is part of the binary.
//!
//! Grammar and meaning are those of Kubernetes (robfig/cron v3, `ParseStandard`): five fields with lists, ranges, steps
//! and names, a macro, or `@every` and a length of time. A run is due at each minute at which a wall clock in the zone
//! shows a reading that matches. So a reading that a clock change leaves out is not due on that day, and one that it
//! repeats is due twice, as in Kubernetes. Neither direction counts runs one by one: the work is bounded by the number
//! of clock changes and days, never by how long ago the last run was.

mod fields;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use fields::Fields;

/// How far a search goes: a 29th of February may be eight years away (1896 to 1904, 2096 to 2104).
const HORIZON: i64 = 9 * 366 * 86_400;

/// A schedule that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Rule);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// Seconds between two runs (`@every`).
    Every(i64),
    /// Readings of a wall clock.
    Clock(Fields),
}

/// A time zone of the database in the binary.
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

impl Zone {
    /// The zone of that IANA name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        TimeZone::get(name).ok().map(Self)
    }

    /// UTC.
    #[must_use]
    pub const fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// That moment as people in the zone write it: `2026-03-29T03:00:00+02:00`.
    #[must_use]
    pub fn show(&self, unix: i64) -> String {
        let Some((at, offset)) = self.at(unix) else { return format!("{unix} s of Unix time") };
        at.display_with_offset(offset).to_string()
    }

    fn at(&self, unix: i64) -> Option<(Timestamp, jiff::tz::Offset)> {
        let at = Timestamp::from_second(unix).ok()?;
        Some((at, self.0.to_offset(at)))
    }
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    ///
    /// What is wrong, as the end of a sentence that begins with the schedule.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
            return Err("must not name a time zone; use `timeZone`".to_owned());
        }
        if let Some(every) = text.strip_prefix("@every ") {
            let seconds = fields::go_seconds(every.trim())
                .ok_or_else(|| "has no duration such as `1h30m` after `@every`".to_owned())?;
            // A shorter wait counts as a second (robfig/cron, `Every`).
            return Ok(Self(Rule::Every(seconds.max(1))));
        }
        Fields::parse(text).map(|fields| Self(Rule::Clock(fields)))
    }

    /// The first moment after `after`; `@every` counts from `since`. `None` when there is none within nine years, as
    /// with the 30th of February.
    #[must_use]
    pub fn next(&self, zone: &Zone, since: i64, after: i64) -> Option<i64> {
        match &self.0 {
            Rule::Every(every) => {
                let steps = after.checked_sub(since)?.max(0) / every + 1;
                since.checked_add(steps.checked_mul(*every)?)
            }
            Rule::Clock(fields) => forwards(fields, zone, after),
        }
    }

    /// The last moment that is later than `since` and not later than `until`; `@every` counts from `since`.
    #[must_use]
    pub fn latest(&self, zone: &Zone, since: i64, until: i64) -> Option<i64> {
        if until <= since {
            return None;
        }
        match &self.0 {
            Rule::Every(every) => {
                let steps = until.checked_sub(since)? / every;
                (steps > 0).then(|| since + steps * every)
            }
            Rule::Clock(fields) => backwards(fields, zone, since.max(until.saturating_sub(HORIZON)), until),
        }
    }
}

/// The first match after `after`: stretches without a clock change are searched as plain readings, one after the other.
fn forwards(fields: &Fields, zone: &Zone, after: i64) -> Option<i64> {
    let end = after.checked_add(HORIZON)?;
    let mut from = after.checked_add(1)?;
    while from < end {
        let (at, offset) = zone.at(from)?;
        let change = zone.0.following(at).next().map_or(end, |change| change.timestamp().as_second()).min(end);
        let first = reading(at, offset)?;
        let last = reading(Timestamp::from_second(change - 1).ok()?, offset)?;
        if let Some(found) = fields.first(first, last) {
            return unix(found, offset);
        }
        from = change;
    }
    None
}

/// The last match later than `since` and not later than `until`.
fn backwards(fields: &Fields, zone: &Zone, since: i64, until: i64) -> Option<i64> {
    let mut to = until;
    while to > since {
        let (at, offset) = zone.at(to)?;
        // The change that began this stretch; one at `to` itself counts.
        let later = Timestamp::from_second(to.checked_add(1)?).ok()?;
        let change = zone.0.preceding(later).next().map_or(i64::MIN, |change| change.timestamp().as_second());
        let from = change.max(since + 1);
        let first = reading(Timestamp::from_second(from).ok()?, offset)?;
        if let Some(found) = fields.last(first, reading(at, offset)?) {
            return unix(found, offset);
        }
        to = from - 1;
    }
    None
}

fn reading(at: Timestamp, offset: jiff::tz::Offset) -> Option<DateTime> {
    Some(offset.to_datetime(at))
}

fn unix(reading: DateTime, offset: jiff::tz::Offset) -> Option<i64> {
    offset.to_timestamp(reading).ok().map(Timestamp::as_second)
}

#[cfg(test)]
mod tests;
