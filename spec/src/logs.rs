//! Which log files go when the logs of all containers together are above the limit of the host.
//!
//! Each container's log is rotated by itself already; this is about their sum. In this order, until the sum is a tenth
//! below the limit: rotated files of containers that have ended, oldest first; rotated files of containers that run,
//! from the one that takes the most; what ended containers wrote last, oldest first; and at the very end what running
//! containers wrote last, from the one that takes the most. Files of one container go from its oldest to its newest, so
//! that what is left of a log has no gap.

/// The log files of one attempt of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFiles {
    /// Whether somebody writes to it.
    pub live: bool,
    /// The files, newest first: the one that is, or was last, written, then the rotated ones.
    pub files: Vec<LogFile>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogFile {
    /// Bytes.
    pub size: u64,
    /// When it was written last, in seconds of Unix time. Only compared with others.
    pub modified: i64,
}

/// Files of one attempt that go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Which attempt, by its place in the list that was asked about.
    pub index: usize,
    /// So many of its newest files stay.
    pub keep: usize,
    /// So many bytes go.
    pub bytes: u64,
}

impl LogFiles {
    fn size(&self) -> u64 {
        sum(&self.files)
    }
}

fn sum(files: &[LogFile]) -> u64 {
    files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
}

/// Bytes of all of them.
#[must_use]
pub fn total(logs: &[LogFiles]) -> u64 {
    logs.iter().fold(0, |sum, log| sum.saturating_add(log.size()))
}

/// The limit of a host that names none: a tenth of the file system, at most 4 GiB.
///
/// A tenth leaves room for images, volumes and the 15 % above which images are removed; 4 GiB are eighty containers
/// whose logs are all full (5 files of 10 MiB), and more than anybody reads.
#[must_use]
pub fn default_limit(file_system: u64) -> u64 {
    (file_system / 10).min(4 << 30)
}

/// What goes; nothing while the sum is not above `limit`.
#[must_use]
pub fn make_room(logs: &[LogFiles], limit: u64) -> Vec<Cut> {
    let mut left = total(logs);
    if left <= limit {
        return Vec::new();
    }
    // A tenth below, so that the next lines do not need the next removal.
    let target = limit - limit / 10;
    let mut keep: Vec<usize> = logs.iter().map(|log| log.files.len()).collect();
    // Whether running ones, and whether the newest file of each, too.
    for (live, newest) in [(false, false), (true, false), (false, true), (true, true)] {
        while left > target {
            let candidates = logs.iter().enumerate().filter_map(|(index, log)| {
                let kept = *keep.get(index)?;
                let oldest = log.files.get(kept.checked_sub(1)?)?;
                let share = sum(log.files.get(..kept)?);
                let may_go = log.live == live && (kept > 1 || newest) && share > 0;
                may_go.then_some((index, *oldest, share))
            });
            // Of equals the first one, so that the same input gives the same answer.
            let chosen = if live {
                candidates.max_by_key(|(index, _, share)| (*share, std::cmp::Reverse(*index)))
            } else {
                candidates.min_by_key(|(index, oldest, _)| (oldest.modified, *index))
            };
            let Some((index, oldest, _)) = chosen else { break };
            left = left.saturating_sub(oldest.size);
            if let Some(kept) = keep.get_mut(index) {
                *kept -= 1;
            }
        }
    }
    let cut = |(index, (log, keep)): (usize, (&LogFiles, usize))| {
        let gone = log.files.get(keep..).filter(|gone| !gone.is_empty())?;
        Some(Cut { index, keep, bytes: sum(gone) })
    };
    logs.iter().zip(keep).enumerate().filter_map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `live` or `gone`, then sizes newest first; the file at place n was written at `time - n`.
    fn log(kind: &str, time: i64, sizes: &[u64]) -> LogFiles {
        let file = |(place, size): (usize, &u64)| LogFile {
            size: *size,
            modified: time - i64::try_from(place).expect("few files"),
        };
        LogFiles { live: kind == "live", files: sizes.iter().enumerate().map(file).collect() }
    }

    #[test]
    fn the_oldest_and_the_biggest_go_first() {
        type Case<'a> = (&'a str, &'a [LogFiles], u64, &'a [(usize, usize)]);
        let cases: &[Case<'_>] = &[
            ("nothing at the limit", &[log("live", 0, &[50, 50])], 100, &[]),
            ("no logs at all", &[], 0, &[]),
            (
                "rotated files of ended ones before those of running ones, whatever their age",
                &[log("live", 0, &[10, 50]), log("gone", 100, &[10, 50])],
                100,
                &[(1, 1)],
            ),
            (
                "the oldest of the ended ones",
                &[log("gone", 100, &[10, 30]), log("gone", 50, &[10, 30]), log("gone", 75, &[10, 30])],
                100,
                &[(1, 1)],
            ),
            (
                "of running ones the one that takes the most, until it is level with the next",
                &[log("live", 0, &[10, 10, 10]), log("live", 0, &[10, 10, 10, 10, 10, 10])],
                70,
                &[(1, 3)],
            ),
            ("a tenth below the limit", &[log("live", 0, &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])], 10, &[(0, 9)]),
            (
                "what ended ones wrote last before what running ones do",
                &[log("live", 0, &[90]), log("gone", 100, &[20]), log("gone", 50, &[5])],
                100,
                &[(1, 0), (2, 0)],
            ),
            (
                "the file that is written only when nothing else is left, from the biggest",
                &[log("live", 0, &[40, 1]), log("live", 0, &[90, 1]), log("gone", 0, &[1, 1])],
                50,
                &[(0, 1), (1, 0), (2, 0)],
            ),
            ("an empty file that is written stays", &[log("live", 0, &[0]), log("live", 0, &[7])], 0, &[(1, 0)]),
        ];
        for (what, logs, limit, expected) in cases {
            let found: Vec<(usize, usize)> = make_room(logs, *limit).iter().map(|cut| (cut.index, cut.keep)).collect();
            assert_eq!(found, *expected, "{what}");
        }
    }

    #[test]
    fn the_default_is_a_tenth_and_at_most_4_gib() {
        for (size, expected) in [(0, 0), (20 << 30, 2 << 30), (40 << 30, 4 << 30), (1 << 40, 4 << 30)] {
            assert_eq!(default_limit(size), expected, "{size}");
        }
    }

    proptest! {
        #[test]
        fn what_is_left_fits_and_running_ones_lose_what_they_write_only_for_want_of_others(
            logs in prop::collection::vec((any::<bool>(), 0..100_i64, prop::collection::vec(0..1000_u64, 1..6)), 0..12),
            limit in 0..5000_u64,
        ) {
            let logs: Vec<LogFiles> =
                logs.iter().map(|(live, time, sizes)| log(if *live { "live" } else { "gone" }, *time, sizes)).collect();
            let cuts = make_room(&logs, limit);
            let gone: u64 = cuts.iter().map(|cut| cut.bytes).sum();
            prop_assert!(total(&logs) - gone <= limit);
            let current_goes = cuts.iter().any(|cut| cut.keep == 0 && logs[cut.index].live);
            if current_goes {
                for (index, log) in logs.iter().enumerate() {
                    let keep = cuts.iter().find(|cut| cut.index == index).map_or(log.files.len(), |cut| cut.keep);
                    let rotated = log.files.get(1..keep).unwrap_or_default();
                    prop_assert!(sum(rotated) == 0, "a rotated file stays while one that is written goes");
                }
            }
        }
    }
}
