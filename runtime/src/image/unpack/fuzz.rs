//! The entry point for fuzzing.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{Limits, UnpackError, header, remove_path, unpack};

/// Unpacks arbitrary bytes into a fresh directory below the system's temporary one, and removes it.
///
/// The first byte chooses: with bit 0, headers get their right checksum, without which nearly all would end there; with bit
/// 1, hard links may lead to a layer below.
///
/// # Panics
/// A panic is a finding: one of the unpacker itself, a try to write where nobody can, something new beside the layer, or
/// a layer that cannot be removed.
pub fn fuzz_one(bytes: &[u8]) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if choice & 1 == 1 {
        header::seal_all(&mut bytes);
    }
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let work = std::env::temp_dir().join(format!("mainstay-fuzz-{}-{number}", std::process::id()));
    let limits = Limits { archive_bytes: 16 << 20, file_bytes: 16 << 20, entries: 1000, ..Limits::default() };
    match prepare(&work) {
        Ok((root, list, below)) => {
            let below = (choice & 2 == 2).then(|| below.as_fd());
            let outcome = unpack(&mut bytes.as_slice(), root, list, &limits, below);
            if let Err(UnpackError::Entry { operation, path, source }) = &outcome {
                assert_ne!(source.raw_os_error(), Some(libc::EROFS), "it tried to {operation} `{path}` outside");
            }
            let mut names: Vec<_> = std::fs::read_dir(&work).into_iter().flatten().flatten().collect();
            names.sort_by_key(std::fs::DirEntry::file_name);
            let names: Vec<_> = names.iter().map(std::fs::DirEntry::file_name).collect();
            assert_eq!(names, ["below", "fs", "list"], "something is beside the layer, or has gone");
        }
        // Not the bytes' fault: no finding, and no coverage either.
        Err(error) => panic!("cannot prepare {}: {error}", work.display()),
    }
    if let Err(error) = remove_path(&work) {
        panic!("cannot remove the layer: {error}");
    }
}

/// The layer's directory, its list, and the layer below it.
fn prepare(work: &Path) -> std::io::Result<(OwnedFd, File, OwnedFd)> {
    let open = |path: &Path| openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let (fs, below) = (work.join("fs"), work.join("below"));
    std::fs::create_dir_all(below.join("d"))?;
    std::fs::write(below.join("d/f"), "f")?;
    std::fs::write(below.join("f"), "f")?;
    std::os::unix::fs::symlink("../../..", below.join("l"))?;
    std::fs::create_dir(&fs)?;
    let list = File::options().read(true).write(true).create_new(true).open(work.join("list"))?;
    Ok((open(&fs)?, list, open(&below)?))
}
