//! A pod's namespaces: made by a short-lived thread, kept alive as files, so that no process has to hold them.
//!
//! The files lie in the agent's mount namespace; pinning from another one would lose them with it. Entering a
//! namespace is only ever done by threads that end afterwards, never by threads of a pool.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::error::NetworkError;
use super::link::Links;
use super::users::{Holder, UserRange};

type Result<T> = std::result::Result<T, NetworkError>;

/// File name of the pinned network namespace.
const NET: &str = "net";
/// File name of the pinned IPC namespace.
const IPC: &str = "ipc";
/// File name of the pinned UTS namespace.
const UTS: &str = "uts";
/// File name of the pinned user namespace.
const USER: &str = "user";

/// Which namespaces a pod gets, and how they are set up.
#[derive(Debug, Clone, Default)]
pub struct NamespaceRequest {
    /// A network namespace with loopback up.
    pub net: bool,
    /// An IPC namespace.
    pub ipc: bool,
    /// A UTS namespace with these names.
    pub uts: bool,
    /// Host name, at most 64 bytes; needs `uts`.
    pub hostname: Option<String>,
    /// NIS domain name; needs `uts`.
    pub domainname: Option<String>,
    /// Kernel parameters by dotted name. Only those that belong to one of the new namespaces are set; others are
    /// refused, since they would change the host.
    pub sysctls: BTreeMap<String, String>,
}

/// Makes `dir` a mount, if it is none yet, below which namespaces are pinned.
///
/// # Errors
/// When it cannot be made or mounted.
pub fn mount_all(dir: &Path) -> Result<()> {
    // Held while it is looked and mounted: a second mount over the first would hide what is pinned there. Pods are made
    // at the same time, but by one process only, which holds the lock of the run directory.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if is_mount(dir) {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(NetworkError::namespace(format!("create {}", dir.display())))?;
    mount(Some("mainstay"), dir, Some("tmpfs"), MsFlags::empty(), Some("mode=0700,size=1m"))
        .map_err(|e| NetworkError::namespace(format!("mount {}", dir.display()))(e.into()))
}

/// Takes away what [`mount_all`] made; nothing there is a success.
///
/// # Errors
/// When it cannot be unmounted or removed.
pub fn unmount_all(dir: &Path) -> Result<()> {
    if is_mount(dir) {
        umount2(dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .map_err(|e| NetworkError::namespace(format!("unmount {}", dir.display()))(e.into()))?;
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(NetworkError::namespace(format!("remove {}", dir.display()))(e))
        }
        _ => Ok(()),
    }
}

/// Whether something is mounted at `dir`: it is on another file system than its parent.
fn is_mount(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| fs::metadata(path).ok().map(|meta| meta.dev());
    dir.parent().is_some_and(|parent| device(dir).is_some_and(|own| device(parent) != Some(own)))
}

/// Makes namespaces and pins them as files `net`, `ipc` and `uts` in `dir`. Those that are pinned already are
/// replaced: the caller asks only when it wants new ones. With `users` they belong to a new user namespace, pinned as
/// `user`.
///
/// # Errors
/// When a namespace cannot be made or pinned, or a parameter is not the namespaces' own. Nothing stays then.
pub fn create(dir: &Path, request: &NamespaceRequest, users: Option<&UserRange<'_>>) -> Result<()> {
    for name in request.sysctls.keys() {
        check_sysctl(name, request)?;
    }
    remove(dir)?;
    fs::create_dir_all(dir).map_err(NetworkError::namespace(format!("create {}", dir.display())))?;
    let made = in_thread(|| populate(dir, request, users));
    if made.is_err() {
        // The first error is the one worth telling.
        drop(remove(dir));
    }
    made
}

/// Unpins namespaces: they end with their last process. Gone already is a success.
///
/// # Errors
/// When a file cannot be unmounted or removed; the others are removed all the same.
pub fn remove(dir: &Path) -> Result<()> {
    let mut errors = Vec::new();
    for name in [NET, IPC, UTS, USER] {
        let path = dir.join(name);
        // Several mounts can lie on each other when a run was cut off.
        loop {
            match umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                Ok(()) => {}
                Err(nix::Error::EINVAL | nix::Error::ENOENT) => break,
                Err(e) => {
                    errors.push(NetworkError::namespace(format!("unmount {}", path.display()))(e.into()));
                    break;
                }
            }
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                errors.push(NetworkError::namespace(format!("remove {}", path.display()))(e));
            }
            _ => {}
        }
    }
    match fs::remove_dir(dir) {
        Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            errors.push(NetworkError::namespace(format!("remove {}", dir.display()))(e));
        }
        _ => {}
    }
    NetworkError::collect(errors)
}

/// Whether a namespace is pinned at that path: after a reboot only an empty file is left.
#[must_use]
pub fn is_pinned(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|s| s.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

fn populate(dir: &Path, request: &NamespaceRequest, users: Option<&UserRange<'_>>) -> Result<()> {
    let wanted = [
        (request.net, NET, CloneFlags::CLONE_NEWNET),
        (request.ipc, IPC, CloneFlags::CLONE_NEWIPC),
        (request.uts, UTS, CloneFlags::CLONE_NEWUTS),
    ];
    let flags = wanted.iter().filter(|w| w.0).fold(CloneFlags::empty(), |flags, w| flags | w.2);
    let failed = |e: nix::Error| NetworkError::namespace("create namespaces")(e.into());
    let none = BTreeMap::new();
    let (holder, sysctls) = match users {
        None => {
            unshare(flags).map_err(failed)?;
            (None, &request.sysctls)
        }
        Some(users) => {
            let holder = Holder::start(users, flags, &request.sysctls)?;
            for (_, name, flag) in wanted.iter().filter(|w| w.0) {
                let file = fs::File::open(holder.file(name)).map_err(NetworkError::namespace("open a namespace"))?;
                setns(file, *flag).map_err(failed)?;
            }
            (Some(holder), &none)
        }
    };
    if request.uts {
        if let Some(name) = &request.hostname {
            nix::unistd::sethostname(name)
                .map_err(|e| NetworkError::namespace(format!("set host name `{name}`"))(e.into()))?;
        }
        if let Some(name) = &request.domainname {
            rustix::system::setdomainname(name.as_bytes())
                .map_err(|e| NetworkError::namespace(format!("set domain name `{name}`"))(e.into()))?;
        }
    }
    if request.net {
        Links::open()?.set_up(1, "lo")?;
        // Addresses are given out by us and work at once. Absent without IPv6.
        let _ = set_sysctl("net.ipv6.conf.default.accept_dad", "0");
        // No port of a namespace of one's own is anybody else's, and a ping does no harm (Docker since 20.10, containerd
        // since 2.0). Parameters of the manifest come after these.
        for (name, value) in
            [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")]
        {
            if !request.sysctls.contains_key(name) {
                let _ = set_sysctl(name, value);
            }
        }
    }
    for (name, value) in sysctls {
        set_sysctl(name, value)?;
    }
    for (_, name, _) in wanted.iter().filter(|w| w.0) {
        pin(&format!("/proc/thread-self/ns/{name}"), &dir.join(name))?;
    }
    holder.map_or(Ok(()), |holder| pin(&holder.file(USER), &dir.join(USER)))
}

fn pin(source: &str, path: &Path) -> Result<()> {
    let failed = || NetworkError::namespace(format!("pin a namespace at {}", path.display()));
    fs::File::create(path).map_err(failed())?;
    mount(Some(source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(|e| failed()(e.into()))
}

/// Pins the network namespace of one directory in another one too. It lasts as long as one of them does.
///
/// # Errors
/// There is none, or it cannot be pinned.
pub fn share_network(from: &Path, to: &Path) -> Result<()> {
    let (source, path) = (from.join(NET), to.join(NET));
    let failed = || NetworkError::namespace(format!("pin {} at {}", source.display(), path.display()));
    fs::File::create(&path).map_err(failed())?;
    mount(Some(&source), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(|e| failed()(e.into()))
}

/// Connects to a port of the loopback of a network namespace, IPv4 first. The connection works everywhere: a socket
/// belongs to the namespace that it was made in.
///
/// # Errors
/// There is no such namespace, or nobody listens.
pub fn connect_inside(netns: &Path, port: u16, limit: std::time::Duration) -> io::Result<std::net::TcpStream> {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
    let netns = fs::File::open(netns)?;
    let connect = || -> Result<io::Result<TcpStream>> {
        let first = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), limit);
        Ok(first.or_else(|error| {
            TcpStream::connect_timeout(&SocketAddr::from((Ipv6Addr::LOCALHOST, port)), limit).map_err(|_| error)
        }))
    };
    inside(&netns, connect).map_err(io::Error::other)?
}

/// Runs a function in a thread that has entered a network namespace, and ends.
pub(super) fn inside<T: Send>(netns: &fs::File, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    in_thread(|| {
        setns(netns, CloneFlags::CLONE_NEWNET)
            .map_err(|e| NetworkError::namespace("enter the pod's network namespace")(e.into()))?;
        work()
    })
}

fn in_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("namespace".to_owned())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, work)
            .map_err(NetworkError::namespace("start a thread"))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A parameter may be set when it belongs to a namespace that the pod does not share with the host
/// (Kubernetes: "Namespaced vs Node-level sysctls").
fn check_sysctl(name: &str, request: &NamespaceRequest) -> Result<()> {
    let refused = |why: &str| NetworkError::Config { what: format!("kernel parameter `{name}`"), why: why.to_owned() };
    let path = name.replace('/', ".");
    let well_formed =
        !path.split('.').any(str::is_empty) && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:@".contains(&b));
    if !well_formed {
        return Err(refused("it is no name of a parameter"));
    }
    let is_ipc = path.starts_with("kernel.shm")
        || path.starts_with("kernel.msg")
        || path == "kernel.sem"
        || path.starts_with("fs.mqueue.");
    match () {
        () if path.starts_with("net.") && request.net => Ok(()),
        () if is_ipc && request.ipc => Ok(()),
        () if path.starts_with("net.") || is_ipc => Err(refused("the pod shares that namespace with the host")),
        () => Err(refused("it is not the pod's own: it would change the whole host")),
    }
}

/// Sets a parameter in the namespaces of the calling thread.
pub(super) fn set_sysctl(name: &str, value: &str) -> Result<()> {
    let failed = |source| NetworkError::Sysctl { name: name.to_owned(), value: value.to_owned(), source };
    // `a/b.c` is sysctl(8)'s way to write names with dots in them, such as interface names.
    let relative = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    fs::write(Path::new("/proc/sys").join(relative), value).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_of_own_namespaces_are_accepted() {
        let all = NamespaceRequest { net: true, ipc: true, uts: true, ..NamespaceRequest::default() };
        let none = NamespaceRequest::default();
        for (name, own, shared) in [
            ("net.ipv4.ip_unprivileged_port_start", true, false),
            ("net/ipv4/conf/eth0.1/forwarding", true, false),
            ("kernel.shmmax", true, false),
            ("kernel.sem", true, false),
            ("fs.mqueue.msg_max", true, false),
            ("kernel.hostname", false, false),
            ("kernel.core_pattern", false, false),
            ("vm.swappiness", false, false),
            ("net..ipv4", false, false),
            ("net./../../kernel.core_pattern", false, false),
            ("net.ipv4/../../kernel/core_pattern", false, false),
            ("", false, false),
        ] {
            assert_eq!(check_sysctl(name, &all).is_ok(), own, "{name}");
            assert_eq!(check_sysctl(name, &none).is_ok(), shared, "{name}");
        }
    }
}
