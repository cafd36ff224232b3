//! The last steps of a process before it becomes the program of a container: working directory, user, groups,
//! capabilities, system call filter, signals, environment, exec.
//!
//! Used by the first process of a container (inside libcontainer's executor) and by processes that join one.
//! Runs inside the container's namespaces and root as root with every capability that the shim has; what it does
//! here decides what the program is left with.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};

use serde_json::{Value, json};
use spec::pod::Seccomp;

use crate::container::ContainerConfig;
use crate::container::caps::{self, CapSet};
use crate::container::config::User;
use crate::container::lifecycle::Failure;
use crate::container::seccomp::{self, Filter};
use crate::sys::{self, CapMasks};

/// Where programs are looked for when the environment has no PATH (Docker's default).
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a process becomes.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: String,
    /// Make it when it is missing.
    pub make_cwd: bool,
    /// Who it runs as.
    pub user: User,
    /// What it may have.
    pub caps: CapSet,
    /// Whether setuid programs give it nothing.
    pub no_new_privs: bool,
    /// Which system calls it may make.
    pub filter: Option<Filter>,
    /// Run it as the child of a reaper.
    pub init: bool,
    /// It has a terminal.
    pub tty: bool,
    /// AppArmor profile to change to; libcontainer does that for a container's first process.
    pub apparmor: Option<String>,
}

fn failure(stage: &str, message: String, error: &io::Error) -> Failure {
    // What an image lacks stays so; anything else may be the host's passing trouble.
    let permanent = matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::EACCES | libc::ENOEXEC | libc::ENOTDIR | libc::EISDIR | libc::ELOOP | libc::EROFS)
    );
    Failure { stage: stage.to_owned(), message, permanent }
}

impl Launch {
    /// What a container's program becomes when this process can pass on `all`, with what it could not be given.
    pub(crate) fn of(config: &ContainerConfig, all: CapSet, warnings: &mut Vec<String>) -> Result<Self, Failure> {
        let permanent = |stage: &str, message: String| Failure { stage: stage.to_owned(), message, permanent: true };
        let security = &config.security;
        let wanted = caps::wanted(security).map_err(|error| permanent("create", error.to_string()))?;
        let missing = wanted.without(all);
        if !security.privileged && missing != CapSet::EMPTY {
            let names: Vec<&str> = missing.numbers().filter_map(caps::name).collect();
            warnings.push(format!("capabilities that this host does not let us pass on: {}", names.join(", ")));
        }
        let wanted = wanted.without(missing);
        let profile = if security.privileged { Some(Seccomp::Unconfined) } else { security.seccomp.clone() };
        let filter =
            seccomp::filter_for(profile.as_ref(), wanted).map_err(|e| permanent("seccomp", spec::causes::chain(&e)))?;
        Ok(Self {
            args: config.args.clone(),
            env: config.env.0.clone(),
            cwd: config.cwd.clone(),
            make_cwd: true,
            user: config.user.clone(),
            caps: wanted,
            no_new_privs: security.allow_privilege_escalation == Some(false) && !security.privileged,
            filter,
            init: config.init,
            tty: config.tty,
            apparmor: None,
        })
    }

    /// Becomes the program. Returns only when that failed. `started` is called by the process that will be a
    /// reaper, right before it waits for its child.
    pub(crate) fn run(&self, started: &dyn Fn()) -> Failure {
        match self.try_run(started) {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    fn try_run(&self, started: &dyn Fn()) -> Result<std::convert::Infallible, Failure> {
        let step =
            |name: &'static str| move |error: io::Error| failure("exec", format!("cannot {name}: {error}"), &error);
        let (args, env) = self.strings()?;
        sys::reset_signals();
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        self.enter_cwd()?;
        sys::cloexec_from(3).map_err(step("mark descriptors close-on-exec"))?;
        // Keys of the host's session are none of the container's (runc does the same; a kernel may have none).
        let _ = sys::new_session_keyring();
        let capabilities = step("set capabilities");

        self.give_streams();
        // While the user changes, what is permitted is kept; the exec takes away what is not meant to stay.
        sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0).map_err(capabilities)?;
        sys::set_ids(self.user.uid, self.user.gid, &groups(&self.user)).map_err(step("set user and groups"))?;
        sys::prctl(libc::PR_SET_KEEPCAPS, 0, 0).map_err(capabilities)?;
        if self.user.uid != 0 {
            // The kernel cleared the effective set; it is needed for what follows.
            let now = sys::capget().map_err(capabilities)?;
            sys::capset(CapMasks { effective: now.permitted, ..now }).map_err(capabilities)?;
        }
        sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0).map_err(capabilities)?;
        for number in crate::container::caps::bounding().without(self.caps).numbers() {
            sys::prctl(libc::PR_CAPBSET_DROP, number.into(), 0).map_err(capabilities)?;
        }
        // Root has its capabilities; another user gets them only through setuid or file capabilities (as in Docker),
        // and must not use them for the exec itself.
        let held = match self.user.uid {
            0 => self.caps.0 & sys::capget().map_err(capabilities)?.permitted,
            _ => 0,
        };
        let last = CapMasks { effective: held, permitted: held, inheritable: 0 };
        if self.no_new_privs {
            sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map_err(step("set no_new_privs"))?;
        }

        if self.init {
            return self.reap(&args, &env, last, started);
        }
        self.become_program(&args, &env, last)
    }

    /// Filter, last capabilities, exec.
    fn become_program(
        &self,
        args: &[CString],
        env: &[CString],
        last: CapMasks,
    ) -> Result<std::convert::Infallible, Failure> {
        self.change_profile()?;
        self.confine(last)?;
        Err(self.exec(args, env))
    }

    /// Names the AppArmor profile that the exec changes to.
    fn change_profile(&self) -> Result<(), Failure> {
        let step =
            |name: &'static str| move |error: io::Error| failure("exec", format!("cannot {name}: {error}"), &error);
        if let Some(profile) = &self.apparmor {
            let path = ["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"].into_iter();
            path.map(|path| fs::write(path, format!("exec {profile}")))
                .reduce(|first, second| first.or(second))
                .unwrap_or(Ok(()))
                .map_err(step("apply the AppArmor profile"))?;
        }
        Ok(())
    }

    /// The system call filter, and the last of the capabilities.
    fn confine(&self, last: CapMasks) -> Result<(), Failure> {
        let step =
            |name: &'static str| move |error: io::Error| failure("exec", format!("cannot {name}: {error}"), &error);
        if let Some(filter) = &self.filter {
            // Installing a filter without no_new_privs takes CAP_SYS_ADMIN, which therefore goes after it.
            let before = CapSet(last.permitted).with(if self.no_new_privs { CapSet::EMPTY } else { CapSet::SYS_ADMIN });
            sys::capset(CapMasks { effective: before.0, permitted: before.0, inheritable: 0 })
                .map_err(step("set capabilities"))?;
            sys::seccomp_install(&filter.program, filter.flags).map_err(step("install the system call filter"))?;
        }
        // With no_new_privs the sets are final already, so that a filter needs not allow capset.
        if self.filter.is_none() || !self.no_new_privs {
            sys::capset(last).map_err(step("set capabilities"))?;
        }
        Ok(())
    }

    /// Gives the terminal and pipes without a name to the user, who may open /dev/stdout and the like then (runc,
    /// `fixStdioPermissions`). Files, sockets and named pipes of whoever runs `exec` stay as they are.
    fn give_streams(&self) {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        for stream in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
            let is_terminal = self.tty && rustix::termios::isatty(stream);
            if is_pipe(stream) || is_terminal {
                // The group of a terminal is `tty`, for write(1).
                let group = (!is_terminal).then(|| rustix::fs::Gid::from_raw(self.user.gid));
                let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(self.user.uid)), group);
            }
        }
    }

    /// The same as the `process` of an OCI configuration, for a runtime that does all of it by itself.
    pub(crate) fn oci_process(&self) -> Result<Value, Failure> {
        let (_, env) = self.strings()?;
        let env: Vec<String> = env.into_iter().map(|entry| entry.to_string_lossy().into_owned()).collect();
        let caps: Vec<String> = self.caps.numbers().filter_map(caps::name).map(|name| format!("CAP_{name}")).collect();
        let cwd = if self.cwd.is_empty() { "/" } else { &self.cwd };
        let mut process = json!({
            "terminal": self.tty,
            "user": {
                "uid": self.user.uid, "gid": self.user.gid, "additionalGids": groups(&self.user), "umask": 0o022,
            },
            "args": self.args,
            "env": env,
            "cwd": cwd,
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "noNewPrivileges": self.no_new_privs,
        });
        if let Some(profile) = &self.apparmor {
            process["apparmorProfile"] = json!(profile);
        }
        Ok(process)
    }

    fn strings(&self) -> Result<(Vec<CString>, Vec<CString>), Failure> {
        let nul = |what: &str| Failure {
            stage: "exec".to_owned(),
            message: format!("{what} has a NUL byte in it"),
            permanent: true,
        };
        if self.args.first().is_none_or(String::is_empty) {
            let message = "no command: neither the image nor the manifest names a program".to_owned();
            return Err(Failure { stage: "exec".to_owned(), message, permanent: true });
        }
        let args = self.args.iter().map(|arg| CString::new(arg.as_str()).map_err(|_| nul("an argument")));
        let args = args.collect::<Result<_, _>>()?;
        // The last value of a name wins, at the place of its first.
        let mut unique: Vec<(&str, &str)> = Vec::new();
        for (name, value) in &self.env {
            match unique.iter_mut().find(|(known, _)| known == name) {
                Some(entry) => entry.1 = value,
                None => unique.push((name, value)),
            }
        }
        let home = self.user.home.as_deref().unwrap_or("/");
        for (name, value, needed) in [("PATH", DEFAULT_PATH, true), ("TERM", "xterm", self.tty), ("HOME", home, true)] {
            let unset = !unique.iter().any(|(known, value)| *known == name && !(name == "HOME" && value.is_empty()));
            if needed && unset {
                unique.retain(|(known, _)| *known != name);
                unique.push((name, value));
            }
        }
        let env = unique
            .iter()
            .map(|(name, value)| CString::new(format!("{name}={value}")).map_err(|_| nul(&format!("variable {name}"))))
            .collect::<Result<_, _>>()?;
        Ok((args, env))
    }

    fn enter_cwd(&self) -> Result<(), Failure> {
        let cwd = if self.cwd.is_empty() { "/" } else { &self.cwd };
        let fail = |error: &io::Error| failure("exec", format!("cannot use working directory {cwd}: {error}"), error);
        if !cwd.starts_with('/') {
            return Err(fail(&io::Error::from_raw_os_error(libc::ENOTDIR)));
        }
        if self.make_cwd && fs::metadata(cwd).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(cwd).map_err(|error| fail(&error))?;
        }
        std::env::set_current_dir(cwd).map_err(|error| fail(&error))?;
        // A directory descriptor of the host must not have become the working directory (CVE-2024-21626).
        let real = std::env::current_dir().map_err(|error| fail(&error))?;
        if real.is_absolute() && !real.starts_with("/(unreachable)") {
            Ok(())
        } else {
            Err(fail(&io::Error::from_raw_os_error(libc::ENOENT)))
        }
    }

    /// Executes the program, looked for like execvp does, with the permissions of the user it now is.
    fn exec(&self, args: &[CString], env: &[CString]) -> Failure {
        let name = self.args.first().map_or("", String::as_str);
        if name.contains('/') {
            let error = args.first().map_or_else(io::Error::last_os_error, |path| sys::execve(path, args, env));
            return self.explain(name, &error, name);
        }
        let path = env.iter().find_map(|entry| entry.to_str().ok()?.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
        let mut denied = None;
        for dir in path.split(':') {
            let candidate = if dir.is_empty() { format!("./{name}") } else { format!("{dir}/{name}") };
            let Ok(candidate_c) = CString::new(candidate.as_str()) else { continue };
            let error = sys::execve(&candidate_c, args, env);
            match error.raw_os_error() {
                Some(libc::ENOENT) if fs::metadata(&candidate).is_ok() => {
                    return self.explain(name, &error, &candidate);
                }
                Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG | libc::ELOOP) => {}
                // Like a shell: a file that may not be executed does not hide one further on.
                Some(libc::EACCES) => denied = denied.or(Some((error, candidate))),
                _ => return self.explain(name, &error, &candidate),
            }
        }
        match denied {
            Some((error, candidate)) => self.explain(name, &error, &candidate),
            None => {
                let error = io::Error::from_raw_os_error(libc::ENOENT);
                failure("exec", format!("no program {name:?} in the image (PATH is {path})"), &error)
            }
        }
    }

    fn explain(&self, name: &str, error: &io::Error, path: &str) -> Failure {
        let exists = fs::metadata(path);
        let uid = self.user.uid;
        let message = match error.raw_os_error() {
            Some(libc::ENOENT) if exists.is_ok() => match interpreter(path) {
                Some(interpreter) => {
                    format!("cannot execute {path}: its interpreter {interpreter} is not in the image")
                }
                None => format!("cannot execute {path}: its loader is not in the image"),
            },
            Some(libc::ENOENT) => format!("no program {name:?} in the image"),
            Some(libc::EACCES) if exists.as_ref().is_ok_and(fs::Metadata::is_dir) => {
                format!("cannot execute {path}: it is a directory")
            }
            Some(libc::EACCES) => {
                format!("cannot execute {path}: user {uid} may not (not executable, or on a noexec mount)")
            }
            Some(libc::ENOEXEC) => {
                format!("cannot execute {path}: not a program for this machine, and no script with a #! line")
            }
            _ => format!("cannot execute {path}: {error}"),
        };
        failure("exec", message, error)
    }

    /// Starts the program as a child, forwards signals to it, reaps whatever is orphaned, and ends as it does.
    fn reap(
        &self,
        args: &[CString],
        env: &[CString],
        last: CapMasks,
        started: &dyn Fn(),
    ) -> Result<std::convert::Infallible, Failure> {
        use nix::sys::signal::{SigSet, Signal, kill};
        use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
        let step =
            |name: &'static str| move |error: io::Error| failure("exec", format!("cannot {name}: {error}"), &error);
        let all = SigSet::all();
        all.thread_block().map_err(|error| step("block signals")(error.into()))?;
        // The reaper is as confined as the program: who may trace it inside must gain nothing by that.
        self.confine(last)?;
        let child = match sys::fork().map_err(step("fork"))? {
            sys::Fork::Child => {
                sys::reset_signals();
                let _ = nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0));
                if self.tty {
                    // In the foreground of the terminal; SIGTTOU would stop it here.
                    let _ = all.thread_block();
                    let _ = nix::unistd::tcsetpgrp(io::stdin(), nix::unistd::getpid());
                    sys::reset_signals();
                }
                self.change_profile()?;
                return Err(self.exec(args, env));
            }
            sys::Fork::Parent(child) => nix::unistd::Pid::from_raw(child.cast_signed()),
        };
        let _ = nix::sys::prctl::set_name(c"mainstay-init");
        // It never executes anything, so nothing else would take paths of the host and descriptors away from here.
        let _ = sys::set_command_line("mainstay-init");
        started();
        let _ = sys::close_from(3);
        loop {
            let Ok(signal) = all.wait() else { continue };
            if signal != Signal::SIGCHLD {
                let _ = kill(child, signal);
                continue;
            }
            loop {
                match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::Exited(pid, code)) if pid == child => std::process::exit(code),
                    Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => std::process::exit(128 + signal as i32),
                    Ok(WaitStatus::StillAlive) | Err(_) => break,
                    Ok(_) => {}
                }
            }
        }
    }
}

/// Whether a descriptor is a pipe without a name.
pub(super) fn is_pipe(stream: BorrowedFd<'_>) -> bool {
    const PIPEFS: u64 = 0x5049_5045;
    rustix::fs::fstatfs(stream).is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(PIPEFS))
}

/// The supplementary groups, the user's own among them: a program that changes its group must not shed what files deny
/// to that one (CVE-2022-36109; Docker since 20.10.18, containerd since 1.6.18).
fn groups(user: &User) -> Vec<u32> {
    let mut groups = vec![user.gid];
    groups.extend(user.additional_gids.iter().filter(|group| **group != user.gid));
    groups
}

/// What a script asks to be run by.
fn interpreter(path: &str) -> Option<String> {
    let mut start = [0; 256];
    let mut file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let count = file.read(&mut start).ok()?;
    let line = start.get(..count)?.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    String::from_utf8_lossy(line).split_ascii_whitespace().next().map(str::to_owned)
}
