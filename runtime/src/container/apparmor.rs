//! The AppArmor profile of containers: the one that a manifest names, else `mainstay-default`, which the agent loads.
//!
//! Loading needs `apparmor_parser` (package `apparmor`), as with Docker, containerd and Podman: only it can compile for the
//! running kernel. A host with AppArmor and without the program runs containers unconfined, and says so once. What the
//! profile forbids is forbidden already by capabilities, masked paths and the system call filter; it is a second wall.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use super::config::ContainerConfig;

/// The name of the profile of containers that name none.
const DEFAULT: &str = "mainstay-default";
/// Where the parser is; the agent's PATH may lack these directories.
const PARSERS: [&str; 2] = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"];
/// What the kernel has loaded, a line `NAME (MODE)` each.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// As wide as Docker's: everything that capabilities allow, but no mounting and nothing of the kernel's own settings.
/// Signals come from the host and from OCI runtimes that some distributions confine, and go to other containers only.
const PROFILE: &str = "
profile mainstay-default flags=(attach_disconnected,mediate_deleted) {
  file,
  network,
  unix,
  capability,
  umount,
  signal (receive) peer=unconfined,
  signal (receive) peer={runc,crun},
  signal (send,receive) peer=mainstay-default,
  ptrace (trace,read,tracedby,readby) peer=mainstay-default,
  ptrace (readby,tracedby) peer=unconfined,

  deny mount,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,
  deny /proc/* w,
  deny /proc/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/kernel/{?,??,[^s][^h][^m]**} w,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
";

/// Why the default profile could not be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The program that compiles profiles is not installed.
    #[error("apparmor_parser is not installed")]
    NoParser,
    /// It could not be run.
    #[error("cannot run apparmor_parser")]
    Run(#[source] io::Error),
    /// It refused the profile.
    #[error("apparmor_parser refused the profile: {0}")]
    Refused(String),
    /// What was loaded could not be noted.
    #[error("cannot write {}", .0.display())]
    Record(std::path::PathBuf, #[source] io::Error),
}

/// Whether the kernel enforces AppArmor profiles.
fn enabled() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

fn loaded() -> bool {
    let is_default = |line: &str| line.strip_prefix(DEFAULT).is_some_and(|rest| rest.starts_with(' '));
    fs::read_to_string(LOADED).is_ok_and(|text| text.lines().any(is_default))
}

/// Loads the default profile where the host has AppArmor, unless this very text is loaded: `record` says what was, in a
/// directory that does not outlive the boot.
pub(crate) fn load_default(record: &Path) -> Result<(), LoadError> {
    if !enabled() || (loaded() && fs::read_to_string(record).is_ok_and(|text| text == PROFILE)) {
        return Ok(());
    }
    let parser = PARSERS.iter().find(|path| Path::new(path).exists()).ok_or(LoadError::NoParser)?;
    let mut child = Command::new(parser)
        // Replaces one that is loaded; containers that have it go on under the new one.
        .args(["--replace", "--skip-cache"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(LoadError::Run)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(PROFILE.as_bytes()).map_err(LoadError::Run)?;
    }
    let output = child.wait_with_output().map_err(LoadError::Run)?;
    if !output.status.success() {
        return Err(LoadError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    fs::write(record, PROFILE).map_err(|error| LoadError::Record(record.to_owned(), error))
}

/// The profile that a container is to have; `None` is unconfined. The error is why it cannot be had.
///
/// Kubernetes API: `appArmorProfile`, whose default is the runtime's own profile; privileged containers have none.
pub(crate) fn profile(config: &ContainerConfig) -> Result<Option<String>, String> {
    match config.security.apparmor.as_deref() {
        None if config.security.privileged => Ok(None),
        None | Some("runtime/default") => Ok((enabled() && loaded()).then(|| DEFAULT.to_owned())),
        Some("unconfined") => Ok(None),
        Some(name) if enabled() => Ok(Some(name.strip_prefix("localhost/").unwrap_or(name).to_owned())),
        Some(name) => Err(format!("profile {name} cannot be applied: AppArmor is not enabled on this host")),
    }
}

/// The profile of a running process, which programs run beside it get, too; `None` is unconfined.
pub(crate) fn of_process(pid: u32) -> Option<String> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/attr/{file}")).ok();
    let text = read("apparmor/current").or_else(|| if enabled() { read("current") } else { None })?;
    let name = text.trim_end_matches(['\n', '\0']).rsplit_once(" (").map_or("unconfined", |(name, _)| name);
    (name != "unconfined").then(|| name.to_owned())
}
