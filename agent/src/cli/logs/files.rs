//! The files of an attempt's log: `log` is written, `log.1` came before it, and so on. They are read from the oldest
//! to the newest, and followed through rotations.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

fn rotated(log: &Path, number: u32) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The files that there are, oldest first, open: a rotation while reading loses nothing.
pub(crate) fn open_all(log: &Path) -> io::Result<Vec<File>> {
    // From the newest on: a rotation in between then shows a file twice instead of never.
    let mut files: Vec<File> = Vec::new();
    let numbers = std::iter::once(None).chain((1..).map(Some));
    for number in numbers {
        let path = number.map_or_else(|| log.to_owned(), |number| rotated(log, number));
        match File::open(&path) {
            Ok(file) => {
                let inode = file.metadata()?.ino();
                let known = files.iter().any(|other| other.metadata().is_ok_and(|meta| meta.ino() == inode));
                if !known {
                    files.push(file);
                }
            }
            // In the moment of a rotation there is no current file.
            Err(error) if error.kind() == ErrorKind::NotFound && number.is_none() => {}
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    files.reverse();
    Ok(files)
}

/// As many of the newest files as hold this number of whole lines.
pub(crate) fn newest(mut files: Vec<File>, lines: usize) -> io::Result<Vec<File>> {
    let mut found = 0;
    let mut keep = files.len();
    while keep > 0 && found <= lines {
        keep -= 1;
        let Some(file) = files.get_mut(keep) else { break };
        let mut reader = BufReader::new(&*file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            // The tag of a last part stands behind the second blank.
            let last = line.splitn(4, |byte| *byte == b' ').nth(2).is_some_and(|tag| tag.first() == Some(&b'F'));
            found += usize::from(last);
            line.clear();
        }
        file.seek(SeekFrom::Start(0))?;
    }
    Ok(files.split_off(keep))
}

/// Hands out the lines of a file without their line feeds; what has no line feed yet is left for later.
pub(crate) struct Lines {
    reader: BufReader<File>,
    begun: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(file: File) -> Self {
        Self { reader: BufReader::new(file), begun: Vec::new() }
    }

    /// The next whole line; `None` at the end of what was written so far.
    pub(crate) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.reader.read_until(b'\n', &mut self.begun)?;
        if self.begun.last() != Some(&b'\n') {
            return Ok(None);
        }
        self.begun.pop();
        Ok(Some(std::mem::take(&mut self.begun)))
    }

    fn inode(&self) -> io::Result<u64> {
        Ok(self.reader.get_ref().metadata()?.ino())
    }

    /// Starts again when the file was cut to nothing, as it is when only one file is kept.
    fn rewind_if_cut(&mut self) -> io::Result<()> {
        let length = self.reader.get_ref().metadata()?.len();
        if self.reader.stream_position()? > length {
            self.begun.clear();
            self.reader.seek(SeekFrom::Start(0))?;
        }
        Ok(())
    }

    /// The files that follow this one, when it was rotated away: to be read in order after the rest of this one.
    pub(crate) fn successors(&mut self, log: &Path) -> io::Result<Vec<File>> {
        self.rewind_if_cut()?;
        let own = self.inode()?;
        match std::fs::metadata(log) {
            Ok(meta) if meta.ino() == own => return Ok(Vec::new()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        let files = open_all(log)?;
        let at = files.iter().position(|file| file.metadata().is_ok_and(|meta| meta.ino() == own));
        // Gone already: everything that is there is newer.
        Ok(files.into_iter().skip(at.map_or(0, |at| at + 1)).collect())
    }
}

/// Reads a whole file; for tests and short files.
#[cfg(test)]
pub(crate) fn all_lines(file: File) -> Vec<String> {
    let mut lines = Lines::new(file);
    let mut all = Vec::new();
    while let Ok(Some(line)) = lines.next() {
        all.push(String::from_utf8_lossy(&line).into_owned());
    }
    all
}

/// What is left without a line feed at the very end.
pub(crate) fn unfinished(lines: &mut Lines) -> io::Result<Vec<u8>> {
    let mut rest = std::mem::take(&mut lines.begun);
    lines.reader.read_to_end(&mut rest)?;
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(tempfile::TempDir);

    impl Dir {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a temporary directory can be made"))
        }
        fn log(&self) -> PathBuf {
            self.0.path().join("log")
        }
        fn write(&self, lines: &[&str]) {
            use std::io::Write as _;
            let mut file = File::options().create(true).append(true).open(self.log()).expect("it opens");
            for line in lines {
                writeln!(file, "{line}").expect("it can be written");
            }
        }
        fn rotate(&self) {
            for number in (1..5).rev() {
                drop(std::fs::rename(rotated(&self.log(), number), rotated(&self.log(), number + 1)));
            }
            std::fs::rename(self.log(), rotated(&self.log(), 1)).expect("it can be renamed");
        }
    }

    fn drain(lines: &mut Lines) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(line) = lines.next().expect("it can be read") {
            all.push(String::from_utf8_lossy(&line).into_owned());
        }
        all
    }

    #[test]
    fn files_are_read_from_the_oldest_to_the_newest() {
        let dir = Dir::new();
        for name in ["a", "b", "c"] {
            dir.write(&[&format!("1Z stdout F {name}")]);
            if name != "c" {
                dir.rotate();
            }
        }
        let files = open_all(&dir.log()).expect("they open");
        let all: Vec<String> = files.into_iter().flat_map(all_lines).collect();
        assert_eq!(all, ["1Z stdout F a", "1Z stdout F b", "1Z stdout F c"]);
        let files = newest(open_all(&dir.log()).expect("they open"), 1).expect("they can be read");
        // One more than asked for, since the first line of the newest file may have begun in the one before.
        assert_eq!(files.into_iter().flat_map(all_lines).count(), 2);
    }

    #[test]
    fn a_follower_goes_through_any_number_of_rotations() {
        for rotations in 0..4 {
            let dir = Dir::new();
            dir.write(&["start"]);
            let mut lines = Lines::new(File::open(dir.log()).expect("it opens"));
            assert_eq!(drain(&mut lines), ["start"]);
            let mut expected = Vec::new();
            for number in 0..rotations {
                dir.write(&[&format!("late {number}")]);
                expected.push(format!("late {number}"));
                dir.rotate();
            }
            dir.write(&["newest"]);
            expected.push("newest".to_owned());
            let next = lines.successors(&dir.log()).expect("they can be found");
            let mut found = drain(&mut lines);
            for file in next {
                found.extend(all_lines(file));
            }
            assert_eq!(found, expected, "{rotations} rotations");
        }
    }

    #[test]
    fn a_line_without_its_end_waits_and_a_file_that_was_cut_is_read_anew() {
        use std::io::Write as _;
        let dir = Dir::new();
        dir.write(&["one"]);
        let mut file = File::options().append(true).open(dir.log()).expect("it opens");
        write!(file, "tw").expect("it can be written");
        let mut lines = Lines::new(File::open(dir.log()).expect("it opens"));
        assert_eq!(drain(&mut lines), ["one"]);
        writeln!(file, "o").expect("it can be written");
        assert_eq!(drain(&mut lines), ["two"]);
        file.set_len(0).expect("it can be cut");
        writeln!(file, "new").expect("it can be written");
        assert!(lines.successors(&dir.log()).expect("it can be found").is_empty());
        assert_eq!(drain(&mut lines), ["new"]);
    }
}
