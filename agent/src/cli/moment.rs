//! Times and numbers of lines as they are typed.

use std::time::{Duration, SystemTime};

/// A moment on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// So long ago.
    Ago(Duration),
    /// By the calendar.
    At(SystemTime),
}

impl Moment {
    /// The moment itself, at a time `now` after the epoch.
    pub(crate) fn at(self, now: Duration) -> SystemTime {
        match self {
            Self::Ago(time) => SystemTime::UNIX_EPOCH + now.saturating_sub(time),
            Self::At(moment) => moment,
        }
    }
}

/// A length of time or a moment.
pub(crate) fn moment(text: &str) -> Result<Moment, String> {
    let ago = humantime::parse_duration(text).map(Moment::Ago);
    ago.or_else(|_| humantime::parse_rfc3339_weak(text).map(Moment::At))
        .map_err(|_| "a time is a length, such as 10m, or a moment of UTC, such as 2026-11-21T14:00:00Z".to_owned())
}

/// A number of lines; all of them are `usize::MAX`.
pub(crate) fn lines(text: &str) -> Result<usize, String> {
    match text {
        "all" | "-1" => Ok(usize::MAX),
        number => number.parse().map_err(|_| "a number of lines, or `all`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_lengths_or_moments() {
        let now = Duration::from_secs(1_000_000);
        for (text, seconds) in [
            ("10m", Some(999_400)),
            ("1h30m", Some(994_600)),
            ("1970-01-01T00:01:00Z", Some(60)),
            ("100000h", Some(0)),
            ("yesterday", None),
            ("", None),
        ] {
            let wished = seconds.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(moment(text).ok().map(|moment| moment.at(now)), wished, "{text}");
        }
        assert_eq!(["7", "all", "-1"].map(|text| lines(text).ok()), [Some(7), Some(usize::MAX), Some(usize::MAX)]);
        assert!(lines("-2").is_err() && lines("many").is_err());
    }
}
