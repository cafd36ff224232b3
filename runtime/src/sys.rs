//! System calls that no safe wrapper in the tree offers, each behind a safe function.
//!
//! The only module of this crate with `unsafe` in it. It decides nothing.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The caller, with the pid of its new child.
    Parent(u32),
    /// The new process.
    Child,
}

/// Whether this process was seen to have one thread. Those that fork never start another.
static SINGLE_THREAD: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Forks. Fails when the process has more than one thread, since the child could then only call
/// async-signal-safe functions. That is looked up once, since /proc may be another one later (in a container).
///
/// # Errors
/// More than one thread, or the kernel refuses.
pub fn fork() -> io::Result<Fork> {
    use std::sync::atomic::Ordering::Relaxed;
    if !SINGLE_THREAD.load(Relaxed) {
        assert_single_thread()?;
    }
    // SAFETY: there is one thread, so no lock can be held by a thread that is missing in the child.
    match check(unsafe { libc::fork() }.into())? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(u32::try_from(pid).map_err(io::Error::other)?)),
    }
}

/// Makes sure that [`fork`] is sound, while /proc is still that of this process.
///
/// # Errors
/// More than one thread.
pub fn assert_single_thread() -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the process has more than one thread"));
    }
    SINGLE_THREAD.store(true, std::sync::atomic::Ordering::Relaxed);
    Ok(())
}

/// Closes every descriptor from `first` on.
///
/// # Errors
/// The kernel has no `close_range` (before 5.9).
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: only called at the start of single-purpose processes, before any descriptor from `first` on is owned, and
    // by a reaper, which drops nothing that owns one any more.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
/// The kernel cannot do that (before 5.11).
pub fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: changes flags of descriptors only, closes none.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Makes descriptor `target` refer to what `fd` does; open across exec.
///
/// # Errors
/// Bad descriptors.
pub fn dup_onto(fd: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    // SAFETY: only used for descriptors 0 to 2, which nothing in these processes owns.
    check(unsafe { libc::dup2(fd.as_raw_fd(), target) }.into()).map(drop)
}

/// Closes descriptors 0 to 2, for a process that will never read or write anything.
pub fn close_standard() {
    for fd in 0..3 {
        // SAFETY: nothing in the process uses its standard streams any more.
        unsafe { libc::close(fd) };
    }
}

/// Overwrites the arguments of this process as others see them in /proc, as far as the text has room there.
///
/// # Errors
/// /proc does not tell where they are.
pub fn set_command_line(text: &str) -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // proc_pid_stat(5): arg_start and arg_end are the fields 48 and 49; the third one follows the name in brackets.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().skip(48 - 3);
    let mut number = || fields.next().and_then(|field| field.parse::<usize>().ok()).filter(|number| *number > 0);
    let (Some(start), Some(end)) = (number(), number()) else { return Err(io::ErrorKind::InvalidData.into()) };
    let Some(room) = end.checked_sub(start).filter(|room| (1..=1 << 20).contains(room)) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let count = text.len().min(room - 1);
    let place = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel has put the argument strings there, on this process' own stack above everything that runs. There
    // is one thread, and it looks at its arguments no more; every string stays ended, since the last byte is zero.
    unsafe {
        std::ptr::write_bytes(place, 0, room);
        std::ptr::copy_nonoverlapping(text.as_ptr(), place, count);
    }
    Ok(())
}

/// Sets whether a descriptor stays open when this process executes another program.
///
/// # Errors
/// There is no such descriptor.
pub fn keep_across_exec(fd: RawFd, keep: bool) -> io::Result<()> {
    let flags = if keep { 0 } else { libc::FD_CLOEXEC };
    // SAFETY: F_SETFD changes a flag and takes an integer.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, flags) }.into()).map(drop)
}

/// Takes over a descriptor that was handed down by number.
///
/// # Errors
/// There is no such descriptor.
pub fn take_fd(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD reads a flag.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) }.into())?;
    // SAFETY: it exists, and by contract of the caller nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Writes to a descriptor by number, for a process that only knows the number.
///
/// # Errors
/// The write fails.
pub fn write_raw(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length are those of a live slice.
    let written = check(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } as libc::c_long)?;
    usize::try_from(written).map_err(io::Error::other)
}

/// Sets every signal to its default action and unblocks all.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL needs no handler; SIGKILL, SIGSTOP and glibc's own signals fail, which is fine.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: plain initialisation of a signal set on the stack.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
    // glibc's wrappers refuse to touch 32 and 33, which an exec'ed program may see ignored.
    for signal in [32, 33] {
        let default = [0u64; 4];
        // SAFETY: a zeroed kernel_sigaction is SIG_DFL without flags; 8 is the size of the kernel's signal set.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u8>(), 8) };
    }
}

/// Has a program start with the standard streams alone and every signal at its default, as [`reset_signals`]: what the
/// standard library (glibc's posix_spawn) starts sees signal 32 ignored, and so would a container that it makes.
pub fn with_clean_start(command: &mut std::process::Command) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt as _;
    let reset = || {
        reset_signals();
        cloexec_from(3)
    };
    // SAFETY: between fork and exec it makes system calls only and touches no memory but its own stack.
    unsafe { command.pre_exec(reset) }
}

/// Calls prctl(2) with up to two arguments.
///
/// # Errors
/// The kernel refuses.
pub fn prctl(option: i32, arg2: u64, arg3: u64) -> io::Result<i64> {
    // SAFETY: every option used in this crate takes integers, never pointers.
    check(unsafe { libc::prctl(option, arg2, arg3, 0u64, 0u64) }.into())
}

/// From now on the kernel writes no core dump of this process and of what it forks, whatever limits and
/// `kernel.core_pattern` say (prctl(2), `PR_SET_DUMPABLE`). A program that is executed begins anew: containers have the
/// core dumps that their own limits give them.
pub fn forbid_core_dump() {
    // It fails for values that do not exist only.
    let _ = prctl(libc::PR_SET_DUMPABLE, 0, 0);
}

/// Leaves the session keyring of the caller for a new and empty one.
///
/// # Errors
/// No keyrings in this kernel, or a quota.
pub fn new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) }).map(drop)
}

/// The permitted, effective and inheritable sets of this thread, as bit masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapMasks {
    /// Used for checks.
    pub effective: u64,
    /// What effective may become.
    pub permitted: u64,
    /// Kept over exec by files that say so.
    pub inheritable: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

const CAP_VERSION_3: u32 = 0x2008_0522;

/// Reads the capability sets of this thread.
///
/// # Errors
/// The kernel refuses.
pub fn capget() -> io::Result<CapMasks> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let mut data = [[0u32; 3]; 2];
    // SAFETY: header and data have the layout of version 3 and live over the call.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let join = |index: usize| u64::from(data[0][index]) | u64::from(data[1][index]) << 32;
    Ok(CapMasks { effective: join(0), permitted: join(1), inheritable: join(2) })
}

/// Writes the capability sets of this thread.
///
/// # Errors
/// A set grows beyond what is permitted.
pub fn capset(masks: CapMasks) -> io::Result<()> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let low = |mask: u64| (mask & 0xffff_ffff) as u32;
    let high = |mask: u64| (mask >> 32) as u32;
    let data = [
        [low(masks.effective), low(masks.permitted), low(masks.inheritable)],
        [high(masks.effective), high(masks.permitted), high(masks.inheritable)],
    ];
    // SAFETY: header and data have the layout of version 3 and live over the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// One instruction of classic BPF.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BpfInsn {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when the comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Constant.
    pub k: u32,
}

/// Installs a system call filter for this process by the raw call, which leaves `no_new_privs` as it is
/// (CAP_SYS_ADMIN is needed when that is off).
///
/// # Errors
/// The filter is invalid or the capability is missing.
pub fn seccomp_install(program: &[BpfInsn], flags: u64) -> io::Result<()> {
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const BpfInsn,
    }
    let program = Program { len: u16::try_from(program.len()).map_err(io::Error::other)?, filter: program.as_ptr() };
    // SAFETY: the program struct and the instructions it points to live over the call; the kernel copies both.
    check(unsafe { libc::syscall(libc::SYS_seccomp, 1u64, flags, &raw const program) }).map(drop)
}

/// Replaces this process by a program. Returns only when that failed.
pub fn execve(program: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|item| item.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both lists end with null and their strings live until the call returns.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Sets real, effective and saved user and group, and the supplementary groups, of this process.
///
/// # Errors
/// Not permitted, or an id that is not mapped in the user namespace.
pub fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length are those of a live slice.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    // SAFETY: plain integers. The process has one thread, so the raw calls change all of it.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: see above.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Sends a signal by number, realtime ones included, to the process of a pidfd.
///
/// # Errors
/// The process is gone, or there is no such signal.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: takes a descriptor and integers; a null siginfo makes the kernel fill it in as kill(2) does.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) }).map(drop)
}

/// Moves this process into namespaces: `fd` is a pidfd with several `flags`, or a namespace file.
///
/// # Errors
/// Not permitted.
pub fn setns(fd: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    // SAFETY: takes a descriptor and flags only.
    check(unsafe { libc::setns(fd.as_raw_fd(), flags) }.into()).map(drop)
}

/// Sets the size of a terminal.
///
/// # Errors
/// Not a terminal.
pub fn set_window_size(fd: BorrowedFd<'_>, rows: u16, cols: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into()).map(drop)
}

/// The size of a terminal: rows and columns.
///
/// # Errors
/// Not a terminal.
pub fn window_size(fd: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) }.into())?;
    Ok((size.ws_row, size.ws_col))
}

/// Makes a terminal the controlling one of this session.
///
/// # Errors
/// This process leads no session or has a terminal.
pub fn set_controlling_terminal(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// Makes a mount and all below it read-only.
///
/// # Errors
/// It is no mount, or the kernel is older than 5.12.
pub fn mount_read_only(path: &CStr) -> io::Result<()> {
    const READ_ONLY: u64 = 1;
    const RECURSIVE: u32 = 0x8000;
    // attr_set, attr_clr, propagation, userns_fd
    let attributes = [READ_ONLY, 0, 0, 0];
    // SAFETY: the path ends with NUL and the attributes have the layout and size of `struct mount_attr`.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            RECURSIVE,
            attributes.as_ptr(),
            std::mem::size_of_val(&attributes),
        )
    })
    .map(drop)
}

/// Maps the ids of a detached copy of a mount (open_tree(2)) as a user namespace maps those of its processes; with
/// `below` those of the mounts below it too.
///
/// # Errors
/// The file system cannot be mapped, or has been.
pub fn mount_map_ids(tree: BorrowedFd<'_>, users: BorrowedFd<'_>, below: bool) -> io::Result<()> {
    const ID_MAP: u64 = 0x0010_0000;
    const RECURSIVE: libc::c_int = 0x8000;
    // attr_set, attr_clr, propagation, userns_fd
    let attributes = [ID_MAP, 0, 0, u64::try_from(users.as_raw_fd()).map_err(io::Error::other)?];
    // SAFETY: the path is an empty string and the attributes have the layout and size of `struct mount_attr`.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | if below { RECURSIVE } else { 0 },
            attributes.as_ptr(),
            std::mem::size_of_val(&attributes),
        )
    })
    .map(drop)
}

/// Lets this thread make and reach files as another user and group would, with the capabilities that it has.
///
/// # Errors
/// The kernel refuses.
pub fn act_as(id: u32) -> io::Result<()> {
    let before = capget()?;
    for call in [libc::SYS_setfsgid, libc::SYS_setfsuid] {
        // SAFETY: plain integers; the calls change this thread alone and tell the id before.
        unsafe { libc::syscall(call, id) };
        // SAFETY: an id that is none changes nothing, and what is there is told.
        let now = unsafe { libc::syscall(call, -1) };
        if now != libc::c_long::from(id) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
    }
    // A user other than root loses those for files.
    capset(before)
}

/// Calls bpf(2) with an attribute block.
///
/// # Errors
/// The kernel refuses.
pub fn bpf(command: u32, attributes: &mut [u64]) -> io::Result<i64> {
    // SAFETY: the kernel reads at most the given size; every pointer in the block points to memory that the caller
    // keeps alive over the call.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), std::mem::size_of_val(attributes)) })
}

/// Lets the allocator make no more than so many arenas. Each keeps free memory of its own, and threads that come and go
/// would each leave one behind.
pub fn limit_arenas(count: i32) {
    #[cfg(target_env = "gnu")]
    // SAFETY: only tunes the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, count);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = count;
}

/// Returns the free memory of this process' heap to the kernel.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: only tunes the allocator.
    unsafe {
        libc::malloc_trim(0);
    }
}
