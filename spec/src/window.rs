//! Maintenance windows: `Mon-Fri 22:00-04:00 Europe/Berlin`. Days may be left out (all) and so may the zone (UTC). A
//! window that ends at or before its start ends on the next day. This is one of the two places where wall time decides
//! (the other is cron): a window is a promise about the clock on the wall.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// Annotation with the windows of one workload, `;` between them.
pub const ANNOTATION: &str = "mainstay/maintenance-window";

/// When changes are let through.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    text: String,
    /// From Monday.
    days: [bool; 7],
    start: Time,
    end: Time,
    zone: TimeZone,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is wrong with a window's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no maintenance window: {why}; write it as `Mon-Fri 22:00-04:00 Europe/Berlin`")]
pub struct WindowError {
    text: String,
    why: String,
}

const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

fn day(name: &str) -> Result<usize, String> {
    let lower = name.to_ascii_lowercase();
    NAMES.iter().position(|known| *known == lower).ok_or_else(|| format!("`{name}` is no day"))
}

fn days(text: &str) -> Result<[bool; 7], String> {
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        for offset in 0..7 {
            let at = (first + offset) % 7;
            if let Some(day) = days.get_mut(at) {
                *day = true;
            }
            if at == last {
                break;
            }
        }
    }
    Ok(days)
}

fn time(text: &str) -> Result<Time, String> {
    let wrong = || format!("`{text}` is no time of day");
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let (hour, minute) = (hour.parse().map_err(|_| wrong())?, minute.parse().map_err(|_| wrong())?);
    Time::new(hour, minute, 0, 0).map_err(|_| wrong())
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let fail = |why: String| WindowError { text: text.to_owned(), why };
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (day_words, rest) = match words.as_slice() {
            [first, rest @ ..] if first.contains(':') => (None, [&[*first], rest].concat()),
            [first, rest @ ..] => (Some(*first), rest.to_vec()),
            [] => return Err(fail("it is empty".to_owned())),
        };
        let (span, zone) = match rest.as_slice() {
            [span] => (*span, "UTC"),
            [span, zone] => (*span, *zone),
            _ => return Err(fail("it has days, a span of time and a zone".to_owned())),
        };
        let (start, end) = span.split_once('-').ok_or_else(|| fail(format!("`{span}` is no span of time")))?;
        Ok(Self {
            text: words.join(" "),
            days: day_words.map_or(Ok([true; 7]), days).map_err(fail)?,
            start: time(start).map_err(fail)?,
            end: time(end).map_err(fail)?,
            zone: TimeZone::get(zone).map_err(|_| fail(format!("`{zone}` is no time zone")))?,
        })
    }
}

/// Reads windows with `;` between them.
///
/// # Errors
/// One of them is none.
pub fn parse_all(text: &str) -> Result<Vec<Window>, WindowError> {
    text.split(';').map(str::trim).filter(|text| !text.is_empty()).map(str::parse).collect()
}

impl Window {
    /// Start and end of the window that begins on this day, when one does. Times that a change of the clocks skips
    /// are the next ones that exist.
    fn on(&self, date: Date) -> Option<(i64, i64)> {
        let index = match date.weekday() {
            Weekday::Monday => 0,
            Weekday::Tuesday => 1,
            Weekday::Wednesday => 2,
            Weekday::Thursday => 3,
            Weekday::Friday => 4,
            Weekday::Saturday => 5,
            Weekday::Sunday => 6,
        };
        if !self.days.get(index).copied().unwrap_or_default() {
            return None;
        }
        let last = if self.end <= self.start { date.tomorrow().ok()? } else { date };
        let unix = |date: Date, time: Time| {
            Some(date.to_datetime(time).to_zoned(self.zone.clone()).ok()?.timestamp().as_second())
        };
        Some((unix(date, self.start)?, unix(last, self.end)?))
    }

    /// Whether it is open at this moment of Unix time, and when that changes next, both in seconds.
    #[must_use]
    pub fn state(&self, unix: i64) -> (bool, Option<i64>) {
        let Ok(now) = Timestamp::from_second(unix) else { return (false, None) };
        let today = now.to_zoned(self.zone.clone()).date();
        // Yesterday's may reach into today; eight days ahead each day of the week comes again.
        let spans = (-1i64..=8).filter_map(|offset| self.on(today.checked_add(Span::new().days(offset)).ok()?));
        let (mut open, mut next) = (false, None);
        for (start, end) in spans {
            open |= start <= unix && unix < end;
            for moment in [start, end].into_iter().filter(|moment| *moment > unix) {
                next = Some(next.map_or(moment, |known: i64| known.min(moment)));
            }
        }
        (open, next)
    }
}

/// Whether one of the windows is open, and when that may change. No window at all is always open.
#[must_use]
pub fn any_open(windows: &[Window], unix: i64) -> (bool, Option<i64>) {
    let states: Vec<(bool, Option<i64>)> = windows.iter().map(|window| window.state(unix)).collect();
    (states.is_empty() || states.iter().any(|(open, _)| *open), states.iter().filter_map(|(_, next)| *next).min())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("a time").as_second()
    }

    #[test]
    fn windows_open_and_close_by_the_clock_on_the_wall() {
        // 2026-11-16 is a Monday; Berlin is at +01 in winter and +02 in summer.
        for (window, at, open) in [
            ("22:00-04:00", "2026-11-16T23:00:00Z", true),
            ("22:00-04:00", "2026-11-16T03:59:59Z", true),
            ("22:00-04:00", "2026-11-16T04:00:00Z", false),
            ("Mon 22:00-04:00", "2026-11-17T03:00:00Z", true),
            ("Mon 22:00-04:00", "2026-11-16T03:00:00Z", false),
            ("Fri-Mon 10:00-11:00", "2026-11-15T10:30:00Z", true),
            ("Fri-Mon 10:00-11:00", "2026-11-17T10:30:00Z", false),
            ("Sat,Tue 10:00-11:00", "2026-11-17T10:30:00Z", true),
            ("mon 10:00-11:00 Europe/Berlin", "2026-11-16T09:30:00Z", true),
            ("mon 10:00-11:00 Europe/Berlin", "2026-11-16T10:30:00Z", false),
            ("10:00-11:00 Europe/Berlin", "2026-07-06T08:30:00Z", true),
            ("00:00-00:00", "2026-11-16T12:00:00Z", true),
            // 02:30 does not exist on that night: it is 03:30 then.
            ("02:30-05:00 Europe/Berlin", "2026-03-29T01:45:00Z", true),
            // A boot in 1970 finds a clock, too.
            ("00:00-01:00", "1970-01-01T00:00:10Z", true),
        ] {
            let window: Window = window.parse().expect("a window");
            assert_eq!(window.state(unix(at)).0, open, "{window} at {at}");
        }
    }

    #[test]
    fn the_next_change_is_known() {
        for (window, at, next) in [
            ("22:00-04:00", "2026-11-16T21:00:00Z", "2026-11-16T22:00:00Z"),
            ("22:00-04:00", "2026-11-16T23:00:00Z", "2026-11-17T04:00:00Z"),
            ("Sun 10:00-11:00", "2026-11-15T11:00:00Z", "2026-11-22T10:00:00Z"),
        ] {
            let parsed: Window = window.parse().expect("a window");
            assert_eq!(parsed.state(unix(at)).1, Some(unix(next)), "{window} at {at}");
        }
        assert_eq!(any_open(&[], 0), (true, None));
    }

    #[test]
    fn what_is_no_window_says_why() {
        for (text, why) in [
            ("", "empty"),
            ("Mon", "span"),
            ("Mo 10:00-11:00", "`Mo` is no day"),
            ("10:00", "no span"),
            ("10:00-25:00", "`25:00` is no time"),
            ("10:00-11:00 Mars/Base", "`Mars/Base` is no time zone"),
        ] {
            let error = text.parse::<Window>().expect_err("no window").to_string();
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(parse_all("Mon 1:00-2:00; Tue 1:00-2:00;").expect("two").len(), 2);
    }
}
