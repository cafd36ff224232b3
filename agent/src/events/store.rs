//! Two files of JSON lines: `current.jsonl` grows; when it is full it becomes `previous.jsonl` and the one before
//! that goes. Together they stay within the limits. A line counts only with its line feed.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, ErrorKind, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Filter, JournalError, Record};

const CURRENT: &str = "current.jsonl";
const PREVIOUS: &str = "previous.jsonl";

/// When the current file is full. The journal holds at most twice of each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl Default for Limits {
    /// 10,000 records and 4 MiB in both files together.
    fn default() -> Self {
        Self { records: 5_000, bytes: 2 << 20 }
    }
}

/// The files, open for appending.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    limits: Limits,
    file: Arc<File>,
    bytes: u64,
    records: u64,
    next: u64,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> JournalError {
    move |source| JournalError { operation, path: path.to_owned(), source }
}

impl Store {
    pub(super) fn open(dir: &Path, limits: Limits) -> Result<Self, JournalError> {
        std::fs::create_dir_all(dir).map_err(failed("make the directory of", dir))?;
        let path = dir.join(CURRENT);
        let file = open(&path).map_err(failed("open", &path))?;
        let (bytes, records, last) = scan(&file).map_err(failed("read", &path))?;
        let length = file.metadata().map_err(failed("read", &path))?.len();
        if length > bytes {
            // The agent or the host ended in the middle of a line.
            file.set_len(bytes).map_err(failed("repair", &path))?;
        }
        let last = match last {
            Some(last) => Some(last),
            None => {
                let path = dir.join(PREVIOUS);
                let previous = existing(&path).map_err(failed("open", &path))?;
                previous.map(|file| scan(&file)).transpose().map_err(failed("read", &path))?.and_then(|scan| scan.2)
            }
        };
        let next = last.map_or(1, |last| last.saturating_add(1));
        Ok(Self { dir: dir.to_owned(), limits, file: Arc::new(file), bytes, records, next })
    }

    /// The number of the next event.
    pub(super) fn next_number(&mut self) -> u64 {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        number
    }

    /// The file that is written now.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    pub(super) fn append(&mut self, record: &Record) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let length = line.len() as u64;
        if self.records >= self.limits.records || self.bytes + length > self.limits.bytes {
            self.rotate()?;
        }
        if let Err(error) = self.file.as_ref().write_all(&line) {
            // Half a line would swallow the next one.
            drop(self.file.set_len(self.bytes));
            return Err(error);
        }
        self.bytes += length;
        self.records += 1;
        Ok(())
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        let current = self.dir.join(CURRENT);
        std::fs::rename(&current, self.dir.join(PREVIOUS))?;
        self.file = Arc::new(open(&current)?);
        self.bytes = 0;
        self.records = 0;
        Ok(())
    }

    /// Every write fails from now on, as on a full disk.
    #[cfg(test)]
    pub(super) fn read_only_for_test(&mut self) {
        self.file = Arc::new(File::open(self.dir.join(CURRENT)).expect("the file is there"));
    }

    /// A view of what is in the files now; reading it needs no lock.
    pub(super) fn reader(&self) -> Result<Reader, JournalError> {
        let mut reader = Reader::of_directory(&self.dir)?;
        if let Some((_, _, limit)) = reader.files.last_mut() {
            *limit = self.bytes;
        }
        Ok(reader)
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

fn existing(path: &Path) -> std::io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes and number of whole lines, and the number of the last event among them.
fn scan(file: &File) -> std::io::Result<(u64, u64, Option<u64>)> {
    let (mut bytes, mut lines, mut last) = (0, 0, None);
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        if line.last() != Some(&b'\n') {
            break;
        }
        bytes += line.len() as u64;
        lines += 1;
        last = serde_json::from_slice::<Record>(&line).ok().map(|record| record.number).or(last);
        line.clear();
    }
    Ok((bytes, lines, last))
}

/// A view of the files at one moment, older first.
pub(super) struct Reader {
    /// File, its path and the bytes of it that count.
    files: Vec<(File, PathBuf, u64)>,
}

impl Reader {
    pub(super) fn of_directory(dir: &Path) -> Result<Self, JournalError> {
        let mut files = Vec::new();
        for name in [PREVIOUS, CURRENT] {
            let path = dir.join(name);
            if let Some(file) = existing(&path).map_err(failed("open", &path))? {
                files.push((file, path, u64::MAX));
            }
        }
        Ok(Self { files })
    }

    pub(super) fn read(self, filter: &Filter) -> Result<Vec<Record>, JournalError> {
        let limit = filter.limit.unwrap_or(usize::MAX);
        let mut found = VecDeque::new();
        for (mut file, path, bytes) in self.files {
            file.seek(SeekFrom::Start(0)).map_err(failed("read", &path))?;
            let mut reader = BufReader::new(file.take(bytes));
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).map_err(failed("read", &path))? > 0 {
                // A line that cannot be read was damaged on the disk; the others are still worth something.
                if let Ok(record) = serde_json::from_slice::<Record>(&line)
                    && filter.matches(&record.event)
                {
                    found.push_back(record);
                    if found.len() > limit {
                        found.pop_front();
                    }
                }
                line.clear();
            }
        }
        Ok(found.into())
    }
}
