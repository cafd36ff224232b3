mod corners;
mod hostile;
mod odd;

use super::testkit::*;
use super::*;

/// Unpacks into a fresh directory; answers it and the result.
fn run(bytes: &[u8], limits: &Limits) -> (tempfile::TempDir, Result<Unpacked, UnpackError>) {
    let work = tempfile::tempdir().expect("temporary directory");
    std::fs::create_dir(work.path().join("fs")).expect("make");
    let root = rustix::fs::open(
        work.path().join("fs"),
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .expect("open");
    let list = tempfile::tempfile_in(work.path()).expect("list");
    let mut reader = bytes;
    let result = unpack(&mut reader, root, list, limits, None);
    let result = result.map(|(unpacked, digest)| {
        if Compression::detect(bytes) == Compression::None {
            assert_eq!(digest, Digest::of(bytes), "every byte is hashed");
        }
        unpacked
    });
    (work, result)
}

#[test]
fn an_ordinary_layer_becomes_what_it_describes() {
    isolated(ordinary_layer);
}

fn ordinary_layer() {
    let bytes = tar(&[
        Item { mode: 0o700, ..dir("./") },
        dir("bin/"),
        Item { mode: 0o4755, uid: 3, gid: 4, ..file("bin/su", "binary") },
        symlink("bin/sh", "su"),
        hardlink("bin/hard", "bin/su"),
        file("implied/x", ""),
        Item { mode: 0o1777, mtime: 5, ..dir("tmp/") },
        file("tmp/.wh.gone", ""),
        file("bin/.wh..wh..opq", ""),
        pax(&[("mtime", "7.25")], file("time", "")),
    ]);
    for bytes in [bytes.clone(), gzip(&bytes), zstd::encode_all(bytes.as_slice(), 3).expect("memory")] {
        let (work, result) = run(&bytes, &Limits::default());
        result.expect("unpacked");
        assert_eq!(
            tree(&work.path().join("fs")),
            [
                "/ dir 700 0:0 1000000.0",
                "/bin dir 755 0:0 1000000.0 opaque",
                "/bin/hard file 2 binary 4755 3:4 1000000.0",
                "/bin/sh link -> su 777 0:0 1000000.0",
                "/bin/su file 2 binary 4755 3:4 1000000.0",
                "/implied dir 755 0:0 0.0",
                "/implied/x file 1  644 0:0 1000000.0",
                "/time file 1  644 0:0 7.250000000",
                "/tmp dir 1777 0:0 5.0",
                "/tmp/gone whiteout",
            ]
            .map(|line| line.to_owned())
        );
    }
}
