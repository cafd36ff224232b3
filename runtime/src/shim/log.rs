//! The container's log: CRI lines (`2026-11-20T22:30:00.123456789Z stdout F text`), rotated by size, kept going when
//! the disk is not.
//!
//! A line of more than 16 KiB is split in parts tagged `P`, of which the last has `F`. What cannot be written is
//! dropped and counted, and the count is logged when writing works again: a full disk must not stop the program.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Longest text of one log line (CRI and Docker).
const PART: usize = 16 << 10;

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The files.
pub(super) struct Log {
    path: PathBuf,
    max_size: u64,
    max_files: u32,
    file: Option<File>,
    size: u64,
    dropped: u64,
    /// Unfinished line of each stream.
    partial: [Vec<u8>; 2],
    /// Whole lines that are written next.
    buffer: Vec<u8>,
    /// How many.
    lines: u64,
}

impl Log {
    pub(super) fn new(path: &Path, max_size: u64, max_files: u32) -> Self {
        let mut log = Self {
            path: path.to_owned(),
            max_size: if max_size == 0 { 10 << 20 } else { max_size },
            max_files: if max_files == 0 { 5 } else { max_files },
            file: None,
            size: 0,
            dropped: 0,
            partial: [Vec::new(), Vec::new()],
            buffer: Vec::new(),
            lines: 0,
        };
        log.open();
        log
    }

    fn open(&mut self) {
        if let Some(dir) = self.path.parent() {
            let _ = fs::create_dir_all(dir);
        }
        self.file = File::options().create(true).append(true).open(&self.path).ok();
        self.size = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
    }

    fn rotated(&self, number: u32) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }

    /// Moves `log` to `log.1`, `log.1` to `log.2` and so on; the oldest goes.
    fn rotate(&mut self) {
        let last = self.max_files.saturating_sub(1);
        if last == 0 {
            if let Some(file) = &self.file {
                let _ = file.set_len(0);
            }
            self.size = 0;
            return;
        }
        for number in (1..last).rev() {
            let _ = fs::rename(self.rotated(number), self.rotated(number + 1));
        }
        let _ = fs::rename(&self.path, self.rotated(1));
        self.open();
    }

    /// Removes all but the `keep` newest files. With 0 the one that is written goes as well and a new one begins, with
    /// a line that says so: its readers keep what they have open.
    pub(super) fn cut(&mut self, keep: u32) {
        // Beyond what is kept by number there may be files of a time when more were.
        for number in keep.max(1).. {
            if fs::remove_file(self.rotated(number)).is_err() {
                break;
            }
        }
        if keep == 0 && self.size > 0 {
            let _ = fs::remove_file(&self.path);
            self.open();
            let text = b"[mainstay] older lines were removed: the logs of this host were above their limit";
            self.line(&timestamp(), Stream::Stderr, 'F', text);
            self.flush();
        }
    }

    /// Takes output of the program.
    pub(super) fn write(&mut self, stream: Stream, mut bytes: &[u8]) {
        let time = timestamp();
        let mut pending = std::mem::take(&mut self.partial[stream as usize]);
        while !bytes.is_empty() {
            let room = PART - pending.len();
            let window = bytes.get(..room.min(bytes.len())).unwrap_or(bytes);
            match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    pending.extend_from_slice(bytes.get(..end).unwrap_or_default());
                    bytes = bytes.get(end + 1..).unwrap_or_default();
                    self.line(&time, stream, 'F', &pending);
                    pending.clear();
                }
                None => {
                    pending.extend_from_slice(window);
                    bytes = bytes.get(window.len()..).unwrap_or_default();
                    // A full part goes out when more follows, so that a line of just that length stays whole.
                    if pending.len() == PART && bytes.first().is_some_and(|next| *next != b'\n') {
                        self.line(&time, stream, 'P', &pending);
                        pending.clear();
                    } else if pending.len() == PART && bytes.is_empty() {
                        break;
                    }
                }
            }
        }
        if pending.len() == PART {
            self.line(&time, stream, 'P', &pending);
            pending.clear();
        }
        // An empty vector frees the memory of streams that are quiet.
        self.partial[stream as usize] = if pending.is_empty() { Vec::new() } else { pending };
        self.flush();
    }

    /// Logs what is left of unfinished lines, at the end.
    pub(super) fn finish(&mut self) {
        let time = timestamp();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.partial[stream as usize]);
            if !rest.is_empty() {
                self.line(&time, stream, 'P', &rest);
                self.flush();
            }
        }
    }

    fn line(&mut self, time: &str, stream: Stream, tag: char, text: &[u8]) {
        let head = format!("{time} {} {tag} ", stream.name());
        let more = (self.buffer.len() + head.len() + text.len() + 1) as u64;
        if self.buffer.len() >= 4 * PART || self.size + more > self.max_size {
            self.flush();
        }
        self.buffer.extend_from_slice(head.as_bytes());
        self.buffer.extend_from_slice(text);
        self.buffer.push(b'\n');
        self.lines += 1;
    }

    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        if self.dropped > 0 {
            let note = format!("{} stderr F [mainstay] {} log lines were dropped\n", timestamp(), self.dropped);
            let mut with_note = note.into_bytes();
            with_note.extend_from_slice(&self.buffer);
            self.buffer = with_note;
        }
        if self.size > 0 && self.size + self.buffer.len() as u64 > self.max_size {
            self.rotate();
        }
        if self.file.is_none() {
            self.open();
        }
        let done = match &mut self.file {
            Some(file) => match file.write_all(&self.buffer) {
                Ok(()) => true,
                Err(_) => {
                    // No half lines: back to where the last whole one ended.
                    let _ = file.set_len(self.size);
                    false
                }
            },
            None => false,
        };
        if done {
            self.size += self.buffer.len() as u64;
            self.dropped = 0;
        } else {
            self.dropped += self.lines;
        }
        self.lines = 0;
        self.buffer.clear();
        self.buffer.shrink_to(PART);
    }
}

/// Now, as RFC 3339 with nanoseconds in UTC.
fn timestamp() -> String {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    format_time(now.tv_sec, now.tv_nsec)
}

fn format_time(seconds: i64, nanos: i64) -> String {
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01, so that leap days end a year (civil_from_days).
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stream, tag and text of every line of a log file.
    fn read(path: &Path) -> Vec<(String, String, String)> {
        let text = fs::read_to_string(path).expect("a log");
        let part = |line: &str, at: usize| line.splitn(4, ' ').nth(at).unwrap_or_default().to_owned();
        text.lines().map(|line| (part(line, 1), part(line, 2), part(line, 3))).collect()
    }

    fn tags(path: &Path) -> Vec<(String, usize)> {
        read(path).into_iter().map(|(_, tag, text)| (tag, text.len())).collect()
    }

    #[test]
    fn times_are_written_as_people_read_them() {
        assert_eq!(format_time(0, 5), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(format_time(1_795_213_800, 123_456_789), "2026-11-20T22:30:00.123456789Z");
        assert_eq!(format_time(951_782_399, 0), "2000-02-28T23:59:59.000000000Z");
        assert_eq!(format_time(951_782_400, 0), "2000-02-29T00:00:00.000000000Z");
    }

    #[test]
    fn lines_are_put_together_and_long_ones_split() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("sub/log");
        let mut log = Log::new(&path, 0, 0);
        log.write(Stream::Stdout, b"he");
        log.write(Stream::Stderr, b"oops\n");
        log.write(Stream::Stdout, b"llo\n\nlast");
        log.finish();
        let line = |stream: &str, tag: &str, text: &str| (stream.to_owned(), tag.to_owned(), text.to_owned());
        let expected = [
            line("stderr", "F", "oops"),
            line("stdout", "F", "hello"),
            line("stdout", "F", ""),
            line("stdout", "P", "last"),
        ];
        assert_eq!(read(&path), expected);

        let split = dir.path().join("split");
        let mut log = Log::new(&split, 0, 0);
        let mut text = vec![b'x'; 2 * PART + 7];
        text.push(b'\n');
        log.write(Stream::Stdout, &text);
        assert_eq!(tags(&split), [("P".to_owned(), PART), ("P".to_owned(), PART), ("F".to_owned(), 7)]);
    }

    #[test]
    fn rotation_keeps_whole_lines_and_so_many_files() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        let mut log = Log::new(&path, 500, 3);
        for number in 0..100 {
            log.write(Stream::Stdout, format!("line {number}\n").as_bytes());
        }
        let names: Vec<PathBuf> = [path.clone(), log.rotated(1), log.rotated(2)].into();
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 3);
        let newest_first: Vec<String> =
            names.iter().flat_map(|name| read(name).into_iter().rev()).map(|(_, _, text)| text).collect();
        let expected: Vec<String> = (0..100).rev().map(|number| format!("line {number}")).collect();
        assert_eq!(newest_first, expected.get(..newest_first.len()).expect("no more than were written"));
        assert!(names.iter().all(|name| fs::metadata(name).is_ok_and(|meta| meta.len() <= 500)));
    }

    #[test]
    fn cutting_keeps_the_newest_files() {
        for keep in 0..4_u32 {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let path = dir.path().join("log");
            // Three lines a file, two in the last one, with room for one more.
            let mut log = Log::new(&path, 10_000, 3);
            for number in 0..11 {
                log.write(Stream::Stdout, format!("line {number} {}\n", "x".repeat(3000)).as_bytes());
            }
            log.cut(keep);
            log.write(Stream::Stdout, b"the next\n");
            let files = usize::try_from(keep.clamp(1, 3)).expect("few");
            assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), files, "{keep}");
            let texts: Vec<String> = read(&path).into_iter().map(|(_, _, text)| text).collect();
            assert_eq!(texts.last().map(String::as_str), Some("the next"), "{keep}");
            let told = texts.first().is_some_and(|text| text.contains("older lines were removed"));
            assert_eq!((told, texts.len() == 2), (keep == 0, keep == 0), "{texts:?}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        std::os::unix::fs::symlink("/dev/full", &path).expect("a link");
        let mut log = Log::new(&path, 0, 0);
        log.write(Stream::Stdout, b"a\nb\nc\n");
        fs::remove_file(&path).expect("removed");
        log.open();
        log.write(Stream::Stdout, b"d\n");
        let texts: Vec<String> = read(&path).into_iter().map(|(_, _, text)| text).collect();
        assert_eq!(texts, ["[mainstay] 3 log lines were dropped", "d"]);
    }
}
