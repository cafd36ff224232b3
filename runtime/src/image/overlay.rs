//! Stacks layers with overlayfs, hundreds of them.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, mount, move_mount,
};

/// Why layers could not be stacked.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// A directory that is part of it.
    #[error("cannot open layer `{}`", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The mount itself.
    #[error("cannot mount {layers} layers at `{}`", target.display())]
    Mount {
        /// How many.
        layers: usize,
        /// Where.
        target: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Layers that an old kernel's one page of options has no room for.
    #[error("cannot mount {layers} layers: this kernel takes about 180 (Linux 6.5 or later takes 500)")]
    TooMany {
        /// How many.
        layers: usize,
    },
}

/// Mounts `layers`, lowest first, at `target`: writable into `upper` with `work` beside it, else read-only.
///
/// Paths are handed to the kernel as descriptors (`/proc/self/fd/N`), so that neither their length (256 bytes for one
/// option, a page for all of them before Linux 6.5) nor a `:` or `,` in them matters. Works on any thread, changes
/// neither the working directory nor a namespace.
pub fn mount_overlay(layers: &[PathBuf], writable: Option<(&Path, &Path)>, target: &Path) -> Result<(), OverlayError> {
    let open_one = |path: &Path| {
        open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|source| OverlayError::Open { path: path.to_owned(), source: source.into() })
    };
    let lowers = layers.iter().rev().map(|path| open_one(path)).collect::<Result<Vec<_>, _>>()?;
    let writable = match writable {
        Some((upper, work)) => Some((open_one(upper)?, open_one(work)?)),
        None => None,
    };
    let failed =
        |source: Errno| OverlayError::Mount { layers: layers.len(), target: target.to_owned(), source: source.into() };
    match mount_new(&lowers, writable.as_ref(), target) {
        // Either the calls or `lowerdir+` are missing.
        Err(Errno::NOSYS | Errno::INVAL) => {}
        other => return other.map_err(failed),
    }
    let options = options(&lowers, writable.as_ref());
    if options.len() >= 4096 {
        return Err(OverlayError::TooMany { layers: layers.len() });
    }
    let options = CString::new(options).map_err(|_| failed(Errno::INVAL))?;
    mount("overlay", target, "overlay", MountFlags::empty(), options.as_c_str()).map_err(failed)
}

/// The read-only view of `layers`, lowest first, mounted nowhere; it ends with the descriptor (Linux 6.5).
pub fn view(layers: &[PathBuf]) -> std::io::Result<OwnedFd> {
    let open_one = |path: &PathBuf| open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    // overlayfs stacks two at least.
    if let [only] = layers {
        return Ok(open_one(only)?);
    }
    let lowers = layers.iter().rev().map(open_one).collect::<Result<Vec<_>, _>>()?;
    Ok(detached(&lowers, None)?)
}

fn name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// fsopen and `lowerdir+`, one option a layer (Linux 6.5), topmost first.
fn mount_new(lowers: &[OwnedFd], writable: Option<&(OwnedFd, OwnedFd)>, target: &Path) -> rustix::io::Result<()> {
    let mounted = detached(lowers, writable)?;
    move_mount(&mounted, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn detached(lowers: &[OwnedFd], writable: Option<&(OwnedFd, OwnedFd)>) -> rustix::io::Result<OwnedFd> {
    // By the version: an older one would write a line to the kernel's log each time it is tried.
    if !takes_single_layers(&rustix::system::uname().release().to_string_lossy()) {
        return Err(Errno::INVAL);
    }
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    for lower in lowers {
        fsconfig_set_string(&context, "lowerdir+", name(lower))?;
    }
    if let Some((upper, work)) = writable {
        fsconfig_set_string(&context, "upperdir", name(upper))?;
        fsconfig_set_string(&context, "workdir", name(work))?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Whether overlayfs of this kernel release knows `lowerdir+`; one that cannot be read is tried.
fn takes_single_layers(release: &str) -> bool {
    let mut numbers = release.split(['.', '-', '+']).map_while(|number| number.parse::<u32>().ok());
    numbers.next().zip(numbers.next()).is_none_or(|version| version >= (6, 5))
}

/// The options of mount(2).
fn options(lowers: &[OwnedFd], writable: Option<&(OwnedFd, OwnedFd)>) -> String {
    let lowers: Vec<String> = lowers.iter().map(name).collect();
    let mut options = format!("lowerdir={}", lowers.join(":"));
    if let Some((upper, work)) = writable {
        options.push_str(&format!(",upperdir={},workdir={}", name(upper), name(work)));
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::unpack::testkit::isolated;

    #[test]
    fn kernels_before_6_5_are_not_asked_for_single_layers() {
        for (release, expected) in [
            ("6.1.0-50-cloud-amd64", false),
            ("6.4.16", false),
            ("6.5.0", true),
            ("6.18.5+", true),
            ("7.0-rc1", true),
            ("odd", true),
        ] {
            assert_eq!(takes_single_layers(release), expected, "{release}");
        }
    }

    /// Layers with a file each, the same file in all, and every tenth hiding the file of the layer below.
    fn layers(work: &Path, count: usize) -> Vec<PathBuf> {
        let make = |n: usize| {
            let path = work.join(format!("a,long:name{}", "x".repeat(190))).join(n.to_string());
            std::fs::create_dir_all(&path).expect("made");
            std::fs::write(path.join(format!("f{n}")), n.to_string()).expect("written");
            std::fs::write(path.join("top"), n.to_string()).expect("written");
            path
        };
        (0..count).map(make).collect()
    }

    fn check(count: usize, stack: impl Fn(&[PathBuf], (&Path, &Path), &Path)) {
        let work = tempfile::tempdir_in("/tmp").expect("temporary directory");
        let layers = layers(work.path(), count);
        let [upper, inner, target] = ["upper", "work", "target"].map(|name| work.path().join(name));
        for path in [&upper, &inner, &target] {
            std::fs::create_dir(path).expect("made");
        }
        stack(&layers, (&upper, &inner), &target);
        let read = |name: &str| std::fs::read_to_string(target.join(name)).expect("read");
        assert_eq!(read("top"), (count - 1).to_string());
        assert_eq!((read("f0"), read(&format!("f{}", count - 1))), ("0".into(), (count - 1).to_string()));
        std::fs::write(target.join("f0"), "new").expect("written");
        assert_eq!(std::fs::read_to_string(upper.join("f0")).expect("in the upper directory"), "new");
        rustix::mount::unmount(&target, rustix::mount::UnmountFlags::empty()).expect("unmounted");
    }

    #[test]
    fn hundreds_of_layers_are_stacked() {
        isolated(|| {
            for count in [1, 120, 499] {
                check(count, |layers, (upper, work), target| {
                    mount_overlay(layers, Some((upper, work)), target).expect("mounted");
                });
            }
        });
    }

    #[test]
    fn old_kernels_stack_as_many_as_fit_in_a_page() {
        isolated(|| {
            check(120, |layers, (upper, work), target| {
                let open = |path: &Path| open(path, OFlags::PATH, Mode::empty()).expect("open");
                let lowers: Vec<OwnedFd> = layers.iter().rev().map(|path| open(path)).collect();
                let writable = (open(upper), open(work));
                let options = options(&lowers, Some(&writable));
                let options = CString::new(options).expect("no NUL");
                mount("overlay", target, "overlay", MountFlags::empty(), options.as_c_str()).expect("mounted");
            });
        });
    }
}
