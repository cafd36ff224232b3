//! Lines of a container's log: `time stream F|P text`. Parts tagged `P` belong to the line whose last part has `F`.
//! The format is the one of CRI (kubelet's `pkg/kubelet/kuberuntime/logs`).

/// A whole line of a container's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When it began, in RFC 3339 with nanoseconds.
    pub(crate) time: String,
    /// `stdout` or `stderr`.
    pub(crate) stream: Stream,
    /// What was written, as it is.
    pub(crate) text: Vec<u8>,
}

/// Where it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Longest line that is put together; a program that never ends its line is shown in pieces of this size.
const LONGEST: usize = 1 << 20;

/// Puts parts together, each stream for itself.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    pending: [Option<Entry>; 2],
}

impl Joiner {
    /// Takes a line of the file without its line feed; a whole line of output when it is complete. What is no such
    /// line (torn by a crash, written by hand) is passed over.
    pub(crate) fn line(&mut self, line: &[u8]) -> Option<Entry> {
        let (time, stream, last, text) = parse(line)?;
        let slot = self.pending.get_mut(stream as usize)?;
        let mut entry = match slot.take() {
            Some(mut entry) => {
                entry.text.extend_from_slice(text);
                entry
            }
            None => Entry { time: time.to_owned(), stream, text: text.to_vec() },
        };
        if last || entry.text.len() >= LONGEST {
            entry.text.shrink_to_fit();
            return Some(entry);
        }
        *slot = Some(entry);
        None
    }

    /// What has begun and will not go on.
    pub(crate) fn rest(&mut self) -> impl Iterator<Item = Entry> {
        let mut rest: Vec<Entry> = self.pending.iter_mut().filter_map(Option::take).collect();
        rest.sort_by(|a, b| a.time.cmp(&b.time));
        rest.into_iter()
    }
}

/// Time, stream, whether it is the last part, text.
fn parse(line: &[u8]) -> Option<(&str, Stream, bool, &[u8])> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok().filter(|time| time.starts_with(|c: char| c.is_ascii_digit()))?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // More tags may follow behind a colon.
    let last = match parts.next()?.split(|byte| *byte == b':').next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some((time, stream, last, parts.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[&str], expected: &[&str], rest: &[&str]) {
        let mut joiner = Joiner::default();
        let show =
            |entry: Entry| format!("{} {} {}", entry.time, entry.stream.name(), String::from_utf8_lossy(&entry.text));
        let found: Vec<String> = lines.iter().filter_map(|line| joiner.line(line.as_bytes())).map(show).collect();
        assert_eq!(found, expected, "{lines:?}");
        assert_eq!(joiner.rest().map(show).collect::<Vec<_>>(), rest, "{lines:?}");
    }

    #[test]
    fn parts_are_joined_by_stream() {
        check(&["1Z stdout F hello world"], &["1Z stdout hello world"], &[]);
        check(&["1Z stdout F "], &["1Z stdout "], &[]);
        check(&["1Z stdout F"], &["1Z stdout "], &[]);
        check(&["1Z stdout F  two  blanks "], &["1Z stdout  two  blanks "], &[]);
        check(&["1Z stdout P ab", "2Z stdout P cd", "3Z stdout F ef"], &["1Z stdout abcdef"], &[]);
        check(
            &["1Z stdout P out", "2Z stderr F err", "3Z stderr P more", "4Z stdout F put"],
            &["2Z stderr err", "1Z stdout output"],
            &["3Z stderr more"],
        );
        check(&["1Z stdout F:x:y tagged"], &["1Z stdout tagged"], &[]);
    }

    #[test]
    fn what_is_no_line_is_passed_over() {
        check(
            &["", "torn", "1Z nowhere F x", "1Z stdout X x", "x stdout F x", "1Z stdout F ok"],
            &["1Z stdout ok"],
            &[],
        );
    }
}
