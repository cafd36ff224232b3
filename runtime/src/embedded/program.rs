//! Whether an image has the program that a container is to run: looked at before an old pod is touched.
//!
//! Says "missing" only where that is certain. What a volume brings is not known here, so neither is what lies below the
//! place where one is mounted.

use std::fs;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use spec::pod::ContainerSpec;

use crate::container::{ContainerConfig, Rootfs};
use crate::exec::launch::DEFAULT_PATH;
use crate::image::overlay;

/// What a look at one path came to.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Found,
    Missing,
    Unknown,
}

/// What is wrong with the program of a container, if it certainly is not there.
pub(super) fn fault(config: &ContainerConfig, container: &ContainerSpec) -> Option<String> {
    let Rootfs::Overlay { lowers, .. } = &config.rootfs else { return None };
    // The values of variables are not known here.
    let name = config.args.first().filter(|name| !name.is_empty() && !name.contains("$("))?;
    let (candidates, place) = if name.contains('/') {
        (vec![Path::new(&config.cwd).join(name)], String::new())
    } else {
        if container.env.iter().any(|variable| variable.name == "PATH") {
            return None;
        }
        let path = config.env.0.iter().rev().find(|(name, _)| name == "PATH").map_or(DEFAULT_PATH, |(_, path)| path);
        let candidate = |dir: &str| Path::new(&config.cwd).join(dir).join(name);
        (path.split(':').map(candidate).collect(), format!(" (PATH is {path})"))
    };
    let volumes = container.mounts.iter().map(|mount| &mount.path);
    let mounts: Vec<PathBuf> = volumes.chain(container.tmpfs.iter().map(|(path, _)| path)).map(PathBuf::from).collect();
    // An old kernel has no mount without a place: then nothing is said.
    let root = overlay::view(lowers).ok()?;
    let missing = candidates.iter().all(|candidate| look(&root, candidate, &mounts) == Look::Missing);
    missing.then(|| format!("container `{}`: no program {name:?} in the image{place}", container.name))
}

fn look(root: &OwnedFd, path: &Path, mounts: &[PathBuf]) -> Look {
    let covered = |path: &Path| mounts.iter().any(|mount| path.starts_with(mount));
    // These are always mounted.
    let special = ["/proc", "/dev", "/sys"].iter().any(|mount| path.starts_with(mount));
    if special || covered(path) {
        return Look::Unknown;
    }
    match open(root, path, OFlags::empty()) {
        Ok(_) => Look::Found,
        Err(Errno::NOENT | Errno::NOTDIR) => match (path.parent(), path.file_name()) {
            // Nothing can come in the way of the links on the path.
            _ if mounts.is_empty() => Look::Missing,
            (Some(parent), Some(name)) => match open(root, parent, OFlags::DIRECTORY) {
                // Where the links of its directory lead to, no volume is, and it is no link itself.
                Ok(parent) if !real(root, &parent).is_none_or(|parent| covered(&parent.join(name))) => {
                    match open(&parent, Path::new(name), OFlags::NOFOLLOW) {
                        Err(Errno::NOENT) => Look::Missing,
                        _ => Look::Unknown,
                    }
                }
                _ => Look::Unknown,
            },
            _ => Look::Unknown,
        },
        Err(_) => Look::Unknown,
    }
}

fn open(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | flags;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// The path of a directory inside of its root, without links.
fn real(root: &OwnedFd, directory: &OwnedFd) -> Option<PathBuf> {
    let name = |fd: &OwnedFd| fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).ok();
    Some(Path::new("/").join(name(directory)?.strip_prefix(name(root)?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_is_said_only_where_it_is_certain() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path();
        fs::create_dir_all(root.join("usr/bin")).expect("made");
        fs::create_dir_all(root.join("data")).expect("made");
        fs::write(root.join("usr/bin/app"), "").expect("written");
        for (target, link) in [("usr/bin", "bin"), ("/usr/bin/app", "start"), ("/data/tool", "tool"), ("data", "opt")] {
            std::os::unix::fs::symlink(target, root.join(link)).expect("a link");
        }
        let view = overlay::view(&[root.to_owned()]).expect("one layer is its own view");
        for (path, mounts, expected) in [
            ("/usr/bin/app", &[][..], Look::Found),
            ("/bin/app", &[], Look::Found),
            ("/start", &["/data"], Look::Found),
            ("/bin/nope", &[], Look::Missing),
            ("/bin/nope", &["/data"], Look::Missing),
            ("/nope/app", &[], Look::Missing),
            ("/usr/bin/app/x", &[], Look::Missing),
            // Each of these may be in a volume.
            ("/data/x", &["/data"], Look::Unknown),
            ("/opt/x", &["/data"], Look::Unknown),
            ("/tool", &["/data"], Look::Unknown),
            ("/bin/nope", &["/usr/bin"], Look::Unknown),
            ("/nope/app", &["/nope/app"], Look::Unknown),
            ("/proc/self/exe", &[], Look::Unknown),
            ("/tool", &[], Look::Missing),
        ] {
            let mounts: Vec<PathBuf> = mounts.iter().map(PathBuf::from).collect();
            assert_eq!(look(&view, Path::new(path), &mounts), expected, "{path} {mounts:?}");
        }
    }
}
