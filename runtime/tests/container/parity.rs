//! What a program inside can see, compared with Docker's defaults point by point.
//!
//! One container runs one script; every line of it is a check with the answer that Docker 27 gives for
//! `docker run --network none alpine` (Kubernetes with containerd differs in none of them). The answers were
//! written from moby's `oci/defaults.go`, its default seccomp profile and runc's source.

use crate::fixture::{Fixture, app};

/// A name, shell that prints, and what it prints.
type Check = (&'static str, &'static str, &'static str);

/// Options of the last mount at a path, `MISSING` when there is none.
const MOUNT: &str = r#"m() { awk -v p="$1" '$5 == p { split($0, a, " - "); split(a[2], b, " "); r = b[1] " " $6 } END { print r ? r : "MISSING" }' /proc/self/mountinfo; }
mode() { stat -c '%a %u:%g %F' "$1" 2>/dev/null || echo none; }
dev() { stat -c '%a %t:%T %F' "$1" 2>/dev/null || echo none; }
try() { "$@" >/dev/null 2>&1 && echo yes || echo no; }
sees() { n=$(head -c 8 "$1" 2>/dev/null | wc -c); [ "$n" -gt 0 ] && echo data || echo nothing; }
caps() { sed -n "s/^$1:[[:space:]]*//p" /proc/self/status; }
limit() { awk -v n="$1" 'index($0, n) == 1 { print "set" }' /proc/self/limits; }
"#;

const DEFAULT: &[Check] = &[
    // Mounts and their flags.
    ("mount /proc", "m /proc", "proc rw,nosuid,nodev,noexec,relatime"),
    ("mount /dev", "m /dev", "tmpfs rw,nosuid"),
    ("mount /dev/pts", "m /dev/pts", "devpts rw,nosuid,noexec,relatime"),
    ("mount /dev/shm", "m /dev/shm", "tmpfs rw,nosuid,nodev,noexec,relatime"),
    ("mount /dev/mqueue", "m /dev/mqueue", "mqueue rw,nosuid,nodev,noexec,relatime"),
    ("mount /sys", "m /sys", "sysfs ro,nosuid,nodev,noexec,relatime"),
    (
        "mount of the memory cgroup",
        "test -d /sys/fs/cgroup/memory && m /sys/fs/cgroup/memory || m /sys/fs/cgroup | sed s/2//",
        "cgroup ro,nosuid,nodev,noexec,relatime",
    ),
    ("mount /sys/fs/cgroup", "m /sys/fs/cgroup | cut -d' ' -f2", "ro,nosuid,nodev,noexec,relatime"),
    ("size of /dev/shm", "df -k /dev/shm | awk 'NR==2 {print $2}'", "65536"),
    ("size of /dev", "df -k /dev | awk 'NR==2 {print $2}'", "65536"),
    ("read-only /proc/sys", "m /proc/sys", "proc ro,nosuid,nodev,noexec,relatime"),
    ("read-only /proc/irq", "m /proc/irq", "proc ro,nosuid,nodev,noexec,relatime"),
    ("read-only /proc/bus", "m /proc/bus", "proc ro,nosuid,nodev,noexec,relatime"),
    ("read-only /proc/fs", "m /proc/fs", "proc ro,nosuid,nodev,noexec,relatime"),
    (
        "read-only sysrq",
        "test -e /proc/sysrq-trigger || echo 'proc ro,nosuid,nodev,noexec,relatime'; test -e /proc/sysrq-trigger && m /proc/sysrq-trigger",
        "proc ro,nosuid,nodev,noexec,relatime",
    ),
    ("masked /proc/kcore", "sees /proc/kcore", "nothing"),
    ("masked /proc/keys", "sees /proc/keys", "nothing"),
    ("masked /proc/timer_list", "sees /proc/timer_list", "nothing"),
    ("masked /proc/sched_debug", "sees /proc/sched_debug", "nothing"),
    ("masked /proc/interrupts", "sees /proc/interrupts", "nothing"),
    ("masked /proc/acpi", "ls /proc/acpi 2>/dev/null | wc -l", "0"),
    ("masked /proc/scsi", "ls /proc/scsi 2>/dev/null | wc -l", "0"),
    ("masked /sys/firmware", "ls /sys/firmware | wc -l", "0"),
    ("root is writable", "try touch /x", "yes"),
    ("/sys is not", "try touch /sys/x", "no"),
    ("no host mounts", "awk '{print $5}' /proc/self/mountinfo | grep -c -e '^/run/' -e '^/var/' -e '^/work'", "0"),
    ("no propagation", "grep -c -e 'shared:' -e 'master:' /proc/self/mountinfo", "0"),
    // Device nodes.
    ("/dev/null", "dev /dev/null", "666 1:3 character special file"),
    ("/dev/zero", "dev /dev/zero", "666 1:5 character special file"),
    ("/dev/full", "dev /dev/full", "666 1:7 character special file"),
    ("/dev/random", "dev /dev/random", "666 1:8 character special file"),
    ("/dev/urandom", "dev /dev/urandom", "666 1:9 character special file"),
    ("/dev/tty", "dev /dev/tty", "666 5:0 character special file"),
    ("/dev/ptmx", "readlink /dev/ptmx", "pts/ptmx"),
    ("/dev/pts/ptmx", "dev /dev/pts/ptmx", "666 5:2 character special file"),
    ("/dev/fd", "readlink /dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "readlink /dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "readlink /dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "readlink /dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "test -e /proc/kcore && readlink /dev/core || echo /proc/kcore", "/proc/kcore"),
    ("no console without a terminal", "dev /dev/console", "none"),
    (
        "nothing else in /dev",
        "ls /dev | grep -v core | tr '\\n' ' '",
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ",
    ),
    ("/dev mode", "mode /dev", "755 0:0 directory"),
    ("/dev/shm mode", "mode /dev/shm", "1777 0:0 directory"),
    ("null can be written", "try sh -c 'echo x > /dev/null'", "yes"),
    ("a disk can be made, not opened", "mknod /tmp/disk b 8 0 && try head -c1 /tmp/disk", "no"),
    ("kernel memory can be made, not opened", "mknod /tmp/mem c 1 1 && try head -c1 /tmp/mem", "no"),
    ("a null of one's own can be used", "mknod /tmp/null c 1 3 && try head -c1 /tmp/null", "yes"),
    // Capabilities and what they mean.
    ("CapEff", "caps CapEff", "00000000a80425fb"),
    ("CapPrm", "caps CapPrm", "00000000a80425fb"),
    ("CapBnd", "caps CapBnd", "00000000a80425fb"),
    ("CapInh", "caps CapInh", "0000000000000000"),
    ("CapAmb", "caps CapAmb", "0000000000000000"),
    ("Seccomp", "caps Seccomp", "2"),
    ("NoNewPrivs", "caps NoNewPrivs", "0"),
    ("no mount", "try mount -t tmpfs t /tmp", "no"),
    ("no remount of /proc/sys", "try mount -o remount,rw /proc/sys", "no"),
    ("no unshare", "try unshare -U true", "no"),
    ("no host name", "try hostname other", "no"),
    ("no clock", "date -s 2020-01-01 >/dev/null; date +%Y | grep -c 2020", "0"),
    ("no chroot escape tools", "try chroot / true", "yes"),
    ("no reboot switch", "try sh -c 'echo b > /proc/sysrq-trigger'", "no"),
    ("no sysctl", "try sh -c 'echo 1 > /proc/sys/kernel/panic'", "no"),
    ("no kernel log", "try dmesg", "no"),
    ("files can be given away", "touch /tmp/o && try chown 5:5 /tmp/o", "yes"),
    // Process.
    ("PID 1", "echo $$", "1"),
    ("parent is out of sight", "awk '/^PPid/ {print $2}' /proc/1/status", "0"),
    ("uid", "caps Uid | tr '\\t' ' '", "0 0 0 0"),
    ("the group is among the supplementary ones", "caps Groups", "0 "),
    ("gid", "caps Gid | tr '\\t' ' '", "0 0 0 0"),
    ("umask", "umask", "0022"),
    ("working directory", "pwd", "/"),
    ("PATH", "echo $PATH", "/bin"),
    ("HOME", "echo $HOME", "/root"),
    ("no TERM without a terminal", "echo ${TERM:-unset}", "unset"),
    ("host name", "hostname", "box"),
    ("blocked signals", "caps SigBlk", "0000000000000000"),
    ("pending signals", "caps SigPnd", "0000000000000000"),
    ("session of one's own", "awk '{print $6}' /proc/1/stat", "1"),
    ("no terminal", "awk '{print $7}' /proc/1/stat", "0"),
    ("stdin is empty", "readlink /proc/1/fd/0", "/dev/null"),
    ("stdout is a pipe", "readlink /proc/1/fd/1 | cut -d: -f1", "pipe"),
    ("stderr is a pipe", "readlink /proc/1/fd/2 | cut -d: -f1", "pipe"),
    ("no other processes", "ls -d /proc/[0-9]* | wc -l | awk '{print ($1 < 9) ? \"few\" : \"many\"}'", "few"),
    ("limits are there", "limit 'Max open files'", "set"),
    ("dumpable", "stat -c %u /proc/1/environ", "0"),
    ("personality", "cat /proc/1/personality", "00000000"),
    ("nothing of ours in the environment", "env | grep -ci -e mainstay -e listen_fds -e notify", "0"),
    // Namespaces and cgroup.
    ("cgroup namespace", "grep -c -v ':/$' /proc/self/cgroup | awk '{print ($1 <= 2) ? \"own\" : \"host\"}'", "own"),
    ("cgroups are read-only", "try mkdir /sys/fs/cgroup/memory/x /sys/fs/cgroup/x", "no"),
    (
        "own memory cgroup in sight",
        "test -e /sys/fs/cgroup/memory/memory.limit_in_bytes -o -e /sys/fs/cgroup/memory.max && echo yes",
        "yes",
    ),
    ("network of one's own", "awk 'NR>2 {print $1}' /proc/net/dev", "lo:"),
    ("user namespace of the host", "awk '{print $1, $2}' /proc/self/uid_map", "0 0"),
    ("IPC of one's own", "ipcs -m 2>/dev/null | grep -c 0x", "0"),
    ("sysctl of the network", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null", "0"),
    ("ping without a capability", "cat /proc/sys/net/ipv4/ping_group_range | tr '\\t' ' '", "0 2147483647"),
    ("pivoted away from the host", "try ls /proc/1/root/work", "no"),
    ("no way up", "cd / && cd ../../.. && pwd", "/"),
    ("adjusted badness", "cat /proc/1/oom_score_adj", "0"),
];

/// The same for a user that is not root.
const USER: &[Check] = &[
    ("CapEff", "caps CapEff", "0000000000000000"),
    ("CapBnd", "caps CapBnd", "00000000a80425fb"),
    ("Seccomp", "caps Seccomp", "2"),
    ("groups", "caps Groups | tr -d '\\n'", "1001 2000 "),
    ("HOME", "echo $HOME", "/home/app"),
    ("no write to the root", "try touch /x", "no"),
    ("write to /tmp", "try touch /tmp/x", "yes"),
    ("write to /dev/shm", "try touch /dev/shm/x", "yes"),
    ("write to stdout by name", "try sh -c 'echo > /dev/stdout'", "yes"),
    ("no read of root's files", "try cat /proc/1/../1/mem", "no"),
    ("low ports", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
];

fn run(f: &Fixture, checks: &[Check], change: impl FnOnce(&mut runtime::container::ContainerConfig)) {
    let mut script = String::from(MOUNT);
    for (number, (_, shell, _)) in checks.iter().enumerate() {
        script.push_str(&format!("echo \"{number}=$( ({shell}) 2>/dev/null)\"\n"));
    }
    let output = f.probe(&script, change);
    let mut wrong = Vec::new();
    for (number, (name, _, expected)) in checks.iter().enumerate() {
        let head = format!("{number}=");
        let got = output.lines().find_map(|line| line.strip_prefix(&head)).unwrap_or("(nothing)");
        // runc up to 1.1 leaves the empty directory above the hierarchies writable, as Docker with it does.
        let known = f.is_external() && *name == "mount /sys/fs/cgroup";
        if !known && got != expected.trim_end_matches('\n') {
            wrong.push(format!("{name}: {got:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), checks.len(), wrong.join("\n"));
}

pub(crate) fn defaults(f: &Fixture) {
    run(f, DEFAULT, |config| {
        config.user.home = Some("/root".into());
        // What Docker and containerd set in a network namespace of the container's own.
        config.sysctls = [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
    });
}

pub(crate) fn user(f: &Fixture) {
    run(f, USER, |config| {
        config.user = app();
        config.sysctls = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())].into();
    });
}
