//! Arbitrary bytes as a layer, unpacked below the temporary directory by root: a finding is a panic, or anything that
//! changes outside of the layer.
//!
//! A finding may write anywhere, hence before the first layer this process gets a mount namespace of its own, in which
//! everything is read-only except for an empty `/tmp` in memory and the directories that libFuzzer was given.
#![no_main]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

libfuzzer_sys::fuzz_target!(init: isolate(), |bytes: &[u8]| {
    let before = outside();
    runtime::image::unpack::fuzz_one(bytes);
    assert_eq!(outside(), before, "something outside of the layer has changed");
});

/// What attacks aim at, beside the layer's own directory.
const VICTIM: &str = "/tmp/victim";
const VICTIMS: [&str; 6] = ["", "file", "dir", "dir/inner", "link", "fifo"];

fn isolate() {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace: run this as root");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    // Directories of inputs, and where libFuzzer puts what it found. They are mounts of their own, which stay writable.
    let given: Vec<PathBuf> = std::env::args()
        .skip(1)
        .map(|argument| argument.trim_start_matches("-artifact_prefix=").to_owned())
        .filter(|argument| !argument.starts_with('-') && Path::new(argument).is_dir())
        .filter_map(|path| fs::canonicalize(path).ok())
        .collect();
    assert!(given.iter().all(|path| !path.starts_with("/tmp")), "/tmp is hidden here: inputs have to be elsewhere");
    for path in &given {
        mount(Some(path), path, none, MsFlags::MS_BIND, none).expect("a mount of the inputs");
    }
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the table of mounts");
    for line in table.lines() {
        let point = line.split(' ').nth(4).unwrap_or_default();
        if given.iter().any(|path| path == Path::new(point)) {
            continue;
        }
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        // One that lies below another mount cannot be reached to be changed, or to be written to.
        let _ = mount(none, point, none, flags, none);
    }
    let size = Some("size=512m,mode=1777");
    mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::empty(), size).expect("an empty /tmp");
    for place in ["/", "/etc", "/dev", "/run", "/var", "/root", "/home"] {
        let file = Path::new(place).join("mainstay-fuzz-must-not-be");
        assert!(fs::write(&file, "x").is_err(), "{} can be written to", place);
    }
    let victim = Path::new(VICTIM);
    fs::create_dir_all(victim.join("dir")).expect("made");
    fs::write(victim.join("file"), "precious").expect("written");
    fs::write(victim.join("dir/inner"), "precious").expect("written");
    symlink("file", victim.join("link")).expect("linked");
    nix::unistd::mkfifo(&victim.join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    assert_eq!(std::env::temp_dir(), Path::new("/tmp"), "TMPDIR leads elsewhere");
}

/// Everything that can be seen of the victim, and the names beside the layer's directory.
fn outside() -> Vec<String> {
    let mut seen: Vec<String> = VICTIMS
        .iter()
        .map(|name| {
            let meta = fs::symlink_metadata(Path::new(VICTIM).join(name)).expect("still there");
            let (mode, owner, links) = (meta.mode(), (meta.uid(), meta.gid()), meta.nlink());
            format!("{name} {} {mode:o} {owner:?} {links} {}.{}", meta.ino(), meta.ctime(), meta.ctime_nsec())
        })
        .collect();
    for place in ["/tmp", VICTIM, "/tmp/victim/dir"] {
        let mut names: Vec<_> =
            fs::read_dir(place).expect("listed").map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        seen.push(format!("{names:?}"));
    }
    seen
}
