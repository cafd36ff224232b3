//! Gives memory back when nothing has happened for a while: free heap, and pages of the program that were mapped when it
//! had something to do. They come back from the page cache when they are needed; meanwhile the kernel may use them.
//!
//! Nothing else is done here, and nothing at all while nothing changes.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::status::Snapshot;

mod sys;

/// How long nothing must have changed.
const QUIET: Duration = Duration::from_secs(5);

/// Runs until the reconciler ends.
pub(crate) async fn run(mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    while snapshots.changed().await.is_ok() {
        while let Ok(changed) = tokio::time::timeout(QUIET, snapshots.changed()).await {
            if changed.is_err() {
                return;
            }
        }
        if let Err(error) = tokio::task::spawn_blocking(give_back).await {
            tracing::debug!(%error, "memory is not given back");
        }
    }
}

fn give_back() {
    runtime::sys::trim_heap();
    if let Err(error) = sys::forget_program() {
        tracing::debug!(%error, "pages of the program stay mapped");
    }
}

/// Where the program's file is mapped without a page that differs from it (proc(5), smaps): its code and constants, but
/// not what the dynamic linker has filled in.
fn unchanged(smaps: &str, program: &Path) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some((from, to)) = first.split_once('-') {
            let parsed = usize::from_str_radix(from, 16).ok().zip(usize::from_str_radix(to, 16).ok());
            let private = words.next().is_some_and(|mode| mode.starts_with("r-") && mode.ends_with('p'));
            let path = words.nth(3).unwrap_or_default();
            current = parsed.filter(|_| private && Path::new(path) == program).map(|(from, to)| from..to);
        } else if first == "Anonymous:" && words.next() == Some("0") {
            found.extend(current.take());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_the_file_is_forgotten() {
        let mapping =
            |head: &str, anonymous: u32| format!("{head}\nRss: 64 kB\nAnonymous: {anonymous} kB\nVmFlags: rd\n");
        let head = |range: &str, mode: &str, path: &str| format!("{range} {mode} 00000000 fe:00 12 {path}");
        for (head, anonymous, expected) in [
            (head("00200000-00300000", "r-xp", "/usr/bin/mainstay"), 0, Some(0x20_0000..0x30_0000)),
            (head("00200000-00300000", "r--p", "/usr/bin/mainstay"), 0, Some(0x20_0000..0x30_0000)),
            // Relocations, data, memory shared with others, another file, the heap.
            (head("00200000-00300000", "r--p", "/usr/bin/mainstay"), 40, None),
            (head("00200000-00300000", "rw-p", "/usr/bin/mainstay"), 0, None),
            (head("00200000-00300000", "r--s", "/usr/bin/mainstay"), 0, None),
            (head("00200000-00300000", "r-xp", "/usr/lib/libc.so.6"), 0, None),
            ("00200000-00300000 rw-p 00000000 00:00 0 ".to_owned(), 0, None),
        ] {
            let found = unchanged(&mapping(&head, anonymous), Path::new("/usr/bin/mainstay"));
            assert_eq!(found, Vec::from_iter(expected), "{head} {anonymous}");
        }
    }

    #[test]
    fn the_program_goes_on_afterwards() {
        sys::forget_program().expect("the kernel can");
        let text = std::fs::read_to_string("/proc/self/smaps").expect("it is ours");
        let program = std::fs::read_link("/proc/self/exe").expect("it is ours");
        assert!(!unchanged(&text, &program).is_empty(), "the code of the program is not found:\n{text}");
    }
}
