//! cgroups: where they are mounted, making them with their limits, emptying and removing them.
//!
//! Both versions, and the hybrid where some controllers are on each. Paths are given below the root of every
//! hierarchy (`/mainstay/pod1/web`). Owns nothing: whoever makes a cgroup removes it.

mod devices;
mod limits;
mod stats;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use spec::pod::Resources;

pub use devices::{DeviceRule, default_rules};
pub use limits::shares;
pub use stats::stats;

/// What can fail.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// mountinfo cannot be read.
    #[error("cannot read the mount table")]
    Mounts(#[source] io::Error),
    /// No cgroup file system at all.
    #[error("no cgroup file system is mounted")]
    NotMounted,
    /// A file could not be written.
    #[error("cannot write {value:?} to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory could not be made.
    #[error("cannot create cgroup {path}")]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory could not be removed.
    #[error("cannot remove cgroup {path}")]
    Remove {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A limit is asked for something that is no block device of this host.
    #[error("cannot limit the use of {path}: it is no block device of this host")]
    Device {
        /// What was named.
        path: String,
        /// Why it cannot be looked at, if it cannot.
        #[source]
        source: Option<io::Error>,
    },
    /// A limit is asked for that this host cannot enforce.
    #[error("cannot enforce {field}: this host has no `{controller}` cgroup controller")]
    NoController {
        /// The field of the manifest.
        field: &'static str,
        /// Its controller.
        controller: &'static str,
    },
    /// Processes would not go away.
    #[error("processes are left in cgroup {0} after SIGKILL")]
    NotEmpty(String),
    /// The device filter was refused.
    #[error("cannot attach the device filter")]
    Devices(#[source] io::Error),
}

type Result<T> = std::result::Result<T, CgroupError>;

/// Where the hierarchies are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// Mount points of version 1, by controller; named hierarchies as `name=x`.
    pub v1: BTreeMap<String, PathBuf>,
    /// Mount point of version 2.
    pub v2: Option<PathBuf>,
}

impl Layout {
    /// Looks at this process' mount table; once, since hierarchies stay where they were mounted at boot.
    ///
    /// # Errors
    /// It cannot be read, or there are no cgroups.
    pub fn detect() -> Result<Self> {
        static FOUND: OnceLock<Layout> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(found.clone());
        }
        let text = fs::read_to_string("/proc/self/mountinfo").map_err(CgroupError::Mounts)?;
        let layout = Self::parse(&text);
        if layout.v1.is_empty() && layout.v2.is_none() {
            return Err(CgroupError::NotMounted);
        }
        Ok(FOUND.get_or_init(|| layout).clone())
    }

    fn parse(mountinfo: &str) -> Self {
        let mut layout = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let (Some(point), mut right) = (left.split(' ').nth(4), right.split(' ')) else { continue };
            let (kind, options) = (right.next(), right.nth(1).unwrap_or_default());
            match kind {
                Some("cgroup2") => layout.v2 = layout.v2.or_else(|| Some(PathBuf::from(point))),
                Some("cgroup") => {
                    let controllers = options.split(',').filter(|option| {
                        option.starts_with("name=")
                            || !matches!(*option, "rw" | "ro" | "none" | "xattr" | "clone_children" | "noprefix")
                    });
                    for controller in controllers {
                        layout.v1.entry(controller.to_owned()).or_insert_with(|| PathBuf::from(point));
                    }
                }
                _ => {}
            }
        }
        layout
    }

    /// Whether version 2 alone is in use.
    #[must_use]
    pub fn is_unified(&self) -> bool {
        self.v1.keys().all(|name| name.starts_with("name="))
    }

    /// Directory of a cgroup in the hierarchy of a version 1 controller.
    fn v1_dir(&self, controller: &str, path: &str) -> Option<PathBuf> {
        self.v1.get(controller).map(|root| below(root, path))
    }

    /// Directory of a cgroup in version 2, when that is what limits are set in.
    fn v2_dir(&self, path: &str) -> Option<PathBuf> {
        self.v2.as_ref().filter(|_| self.is_unified()).map(|root| below(root, path))
    }

    /// Distinct roots of all hierarchies that containers are put in.
    fn roots(&self) -> Vec<&Path> {
        let mut roots: Vec<&Path> = match &self.v2 {
            Some(root) if self.is_unified() => vec![root],
            _ => self.v1.values().map(PathBuf::as_path).collect(),
        };
        roots.sort_unstable();
        roots.dedup();
        roots
    }

    /// Every directory of a cgroup, the unified one of a hybrid included.
    fn dirs(&self, path: &str) -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = self.roots().into_iter().map(|root| below(root, path)).collect();
        dirs.extend(self.v2.as_ref().map(|root| below(root, path)).filter(|dir| !dirs.contains(dir)));
        dirs
    }
}

fn below(root: &Path, path: &str) -> PathBuf {
    // Never outside the root, whatever the path says.
    let parts = Path::new(path).components().filter_map(|part| match part {
        std::path::Component::Normal(name) => Some(name),
        _ => None,
    });
    root.join(parts.collect::<PathBuf>())
}

fn write(path: &Path, value: &str) -> Result<()> {
    let failed = |source| CgroupError::Write { path: path.to_owned(), value: value.to_owned(), source };
    let mut file = fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
    io::Write::write_all(&mut file, value.as_bytes()).map_err(failed)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })
}

fn make_dir(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError::Create { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Makes a cgroup in every hierarchy and sets its limits. One that exists is set anew.
/// Returns what could not be set and does not matter enough to fail (weights).
///
/// # Errors
/// A limit that this host cannot enforce, or a refused write.
pub fn create(
    layout: &Layout,
    path: &str,
    resources: &Resources,
    devices: Option<&[DeviceRule]>,
) -> Result<Vec<String>> {
    for root in layout.roots() {
        make_in(layout, root, path)?;
    }
    let warnings = limits::apply(layout, path, resources)?;
    if let Some(rules) = devices {
        devices::apply(layout, path, rules)?;
    }
    Ok(warnings)
}

/// Makes a cgroup whose children together have a part of the CPU beside its siblings (shares, version 1 scale).
///
/// # Errors
/// The cgroup cannot be made. A host without CPU controller knows no parts.
pub fn set_shares(layout: &Layout, path: &str, shares: u64) -> Result<()> {
    for root in layout.v2.iter().filter(|_| layout.is_unified()).chain(layout.v1.get("cpu")) {
        make_in(layout, root, path)?;
    }
    limits::apply_shares(layout, path, shares);
    Ok(())
}

/// Makes the directories of one hierarchy, with what their children need from them.
fn make_in(layout: &Layout, root: &Path, path: &str) -> Result<()> {
    let unified = layout.is_unified();
    let cpuset = layout.v1.get("cpuset").is_some_and(|mount| mount == root);
    let mut dir = root.to_owned();
    if unified {
        delegate(&dir)?;
    }
    let last = below(root, path);
    for part in last.strip_prefix(root).unwrap_or(Path::new("")).components() {
        let parent = dir.clone();
        dir.push(part);
        make_dir(&dir)?;
        if cpuset {
            // An empty set takes no process; the parent's is the widest that is allowed.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if read(&dir.join(file))?.trim().is_empty() {
                    write(&dir.join(file), read(&parent.join(file))?.trim())?;
                }
            }
        }
        if unified && dir != last {
            delegate(&dir)?;
        }
    }
    Ok(())
}

/// Controllers that limits or readings need.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];

/// Lets children of a version 2 cgroup have every controller that it has itself and that is of use.
fn delegate(dir: &Path) -> Result<()> {
    let available = read(&dir.join("cgroup.controllers"))?;
    let enabled = read(&dir.join("cgroup.subtree_control")).unwrap_or_default();
    for controller in available.split_ascii_whitespace() {
        let wanted = CONTROLLERS.contains(&controller);
        if wanted && !enabled.split_ascii_whitespace().any(|name| name == controller) {
            // One that cannot be delegated (a realtime process bars `cpu`) shows up where its limit is set.
            let _ = write(&dir.join("cgroup.subtree_control"), &format!("+{controller}"));
        }
    }
    Ok(())
}

/// Makes a cgroup without limits and moves a process into it.
///
/// # Errors
/// A refused write.
pub fn attach(layout: &Layout, path: &str, pid: u32) -> Result<()> {
    for root in layout.roots() {
        make_in(layout, root, path)?;
        write(&below(root, path).join("cgroup.procs"), &pid.to_string())?;
    }
    Ok(())
}

/// Moves a process into a cgroup that exists. In hierarchies without a controller (version 1, `name=systemd`) it goes
/// where `first`, the container's first process, is: those tell which service a process is of, and limit nothing.
///
/// # Errors
/// It does not, or a refused write.
pub fn enter(layout: &Layout, path: &str, pid: u32, first: u32) -> Result<()> {
    let named: Vec<(&str, &Path)> =
        layout.v1.iter().filter(|(name, _)| name.starts_with("name=")).map(|(name, root)| (&**name, &**root)).collect();
    let own = fs::read_to_string(format!("/proc/{first}/cgroup")).unwrap_or_default();
    for root in layout.roots() {
        let place = match named.iter().find(|(_, at)| *at == root) {
            Some((name, _)) => {
                own.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(name)?.strip_prefix(':'))
            }
            None => Some(path),
        };
        if let Some(place) = place {
            write(&below(root, place).join("cgroup.procs"), &pid.to_string())?;
        }
    }
    Ok(())
}

/// Every process in a cgroup and those below it.
fn pids(dir: &Path) -> Vec<u32> {
    let own = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let mut all: Vec<u32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    let children = fs::read_dir(dir).into_iter().flatten().flatten();
    children.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).for_each(|entry| {
        all.extend(pids(&entry.path()));
    });
    all
}

/// Whether a cgroup holds no process. One that does not exist holds none.
#[must_use]
pub fn is_empty(layout: &Layout, path: &str) -> bool {
    layout.dirs(path).iter().all(|dir| pids(dir).is_empty())
}

/// Sends SIGKILL to every process of a cgroup and those below it, and waits until they are gone.
///
/// # Errors
/// Some are left after `limit` (in uninterruptible sleep).
pub fn kill_all(layout: &Layout, path: &str, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let dirs = layout.dirs(path);
    let mut wait = Duration::from_micros(200);
    let freezer = layout.v1_dir("freezer", path).map(|dir| dir.join("freezer.state"));
    for round in 0_u32.. {
        let mut left = false;
        // Whoever forks faster than it is killed is stopped first (version 1; `cgroup.kill` needs no help).
        let frozen = round > 10 && freezer.as_ref().is_some_and(|file| fs::write(file, "FROZEN").is_ok());
        for dir in &dirs {
            // Not there on version 1 and before 5.14; the loop then does it.
            let killed_at_once = fs::write(dir.join("cgroup.kill"), "1").is_ok();
            for pid in pids(dir) {
                left = true;
                if !killed_at_once {
                    kill_member(pid, path);
                }
            }
        }
        if frozen && let Some(file) = &freezer {
            let _ = fs::write(file, "THAWED");
        }
        if !left {
            return Ok(());
        }
        if Instant::now() > deadline {
            break;
        }
        std::thread::sleep(wait);
        wait = (wait * 2).min(Duration::from_millis(20));
    }
    Err(CgroupError::NotEmpty(path.to_owned()))
}

/// Whether a cgroup is another one or below it.
fn is_in(own: &str, path: &str) -> bool {
    own.strip_prefix(path.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Kills a process if it still is in the cgroup: the number may have been given to another one meanwhile.
fn kill_member(pid: u32, path: &str) {
    let Some(raw) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return };
    let Ok(handle) = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()) else { return };
    let member = fs::read_to_string(format!("/proc/{pid}/cgroup"))
        .is_ok_and(|text| text.lines().any(|line| line.splitn(3, ':').nth(2).is_some_and(|own| is_in(own, path))));
    if member {
        let _ = rustix::process::pidfd_send_signal(&handle, rustix::process::Signal::KILL);
    }
}

/// Removes a cgroup and those below it in every hierarchy. One that is not there is fine.
///
/// # Errors
/// It is still in use after a while.
pub fn remove(layout: &Layout, path: &str) -> Result<()> {
    if below(Path::new("/"), path) == Path::new("/") {
        return Ok(());
    }
    layout.dirs(path).iter().try_for_each(|dir| remove_tree(dir))
}

fn remove_tree(dir: &Path) -> Result<()> {
    let children = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|source| CgroupError::Read { path: dir.to_owned(), source })?,
    };
    for entry in children.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path())?;
    }
    // A process that has just died may still be charged to it for a moment.
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match fs::remove_dir(dir) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other.map_err(|source| CgroupError::Remove { path: dir.to_owned(), source }),
        }
    }
}

/// How often the kernel has killed a process of the cgroup for want of memory.
#[must_use]
pub fn oom_kills(layout: &Layout, path: &str) -> u64 {
    let file = match layout.v2_dir(path) {
        Some(dir) => Some(dir.join("memory.events")),
        None => layout.v1_dir("memory", path).map(|dir| dir.join("memory.oom_control")),
    };
    file.and_then(|file| fs::read_to_string(file).ok()).and_then(|text| keyed(&text, "oom_kill")).unwrap_or(0)
}

/// The number behind a key in a file of `key number` lines.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests;
