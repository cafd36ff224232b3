//! What a test left behind, as the kernel shows it: mounts, interfaces, nftables tables, cgroups, processes.
//!
//! Nothing here asks the product. Everything is compared with a picture taken before the product was started.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A mount of this thread's mount namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mount {
    /// Where.
    pub point: PathBuf,
    /// Filesystem type.
    pub kind: String,
}

/// Mounts of this thread's namespace, in the order made (proc(5), mountinfo).
pub fn mounts() -> Vec<Mount> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").expect("/proc is mounted");
    text.lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let point = left.split(' ').nth(4)?.replace("\\040", " ");
            Some(Mount { point: point.into(), kind: right.split(' ').next()?.to_owned() })
        })
        .collect()
}

/// Interfaces of this thread's network namespace.
pub fn interfaces() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").expect("/proc is mounted");
    text.lines().skip(2).filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

/// Directories whose name is `name` below any cgroup hierarchy, with everything below them, deepest first.
pub fn cgroups(name: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, name: &str, inside: bool, depth: u32, found: &mut Vec<PathBuf>) {
        if depth == 0 {
            return;
        }
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let ours = inside || entry.file_name().to_string_lossy() == name;
                walk(&entry.path(), name, ours, depth - 1, found);
                if ours {
                    found.push(entry.path());
                }
            }
        }
    }
    let mut found = Vec::new();
    for mount in mounts().into_iter().filter(|mount| mount.kind == "cgroup" || mount.kind == "cgroup2") {
        walk(&mount.point, name, false, 8, &mut found);
    }
    found
}

/// How processes of one test are told from all others.
#[derive(Debug, Clone)]
pub struct Marks {
    /// Name of the cgroup that all of them are in or below.
    pub cgroup: String,
    /// A path that is part of their command lines.
    pub path: String,
    /// Namespace links (`net:[...]`, `mnt:[...]`) that only this test's processes have.
    pub namespaces: Vec<String>,
}

/// A process of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its command line, or its name in brackets.
    pub command: String,
}

/// Living processes with one of the marks, other than this one.
pub fn processes(marks: &Marks) -> Vec<Process> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if u32::try_from(pid).is_ok_and(|pid| pid == std::process::id()) {
            continue;
        }
        let dir = entry.path();
        // A process may end at any point of this: then it is not there.
        let Ok(stat) = fs::read_to_string(dir.join("stat")) else { continue };
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        if matches!(state, Some('Z' | 'X')) {
            continue;
        }
        let command = fs::read(dir.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ").trim_end().to_owned();
        let in_cgroup = fs::read_to_string(dir.join("cgroup"))
            .is_ok_and(|text| text.split(['/', '\n']).any(|part| part == marks.cgroup));
        let in_namespace = ["net", "mnt"].iter().any(|kind| {
            fs::read_link(dir.join("ns").join(kind))
                .is_ok_and(|link| marks.namespaces.iter().any(|ours| link.to_string_lossy() == *ours))
        });
        if in_cgroup || in_namespace || command.contains(&marks.path) {
            let name = fs::read_to_string(dir.join("comm")).unwrap_or_default();
            let command = if command.is_empty() { format!("[{}]", name.trim()) } else { command };
            found.push(Process { pid, command });
        }
    }
    found
}

/// A picture of this thread's namespaces.
#[derive(Debug, Clone)]
pub struct Baseline {
    mounts: Vec<Mount>,
    interfaces: BTreeSet<String>,
    tables: Vec<String>,
}

impl Baseline {
    /// As things are now.
    pub fn take() -> Self {
        Self { mounts: mounts(), interfaces: interfaces(), tables: tables() }
    }

    /// Mounts made since, in the order made.
    pub fn new_mounts(&self) -> Vec<Mount> {
        let mut before = self.mounts.clone();
        let mut new = Vec::new();
        for mount in mounts() {
            match before.iter().position(|known| *known == mount) {
                Some(at) => drop(before.swap_remove(at)),
                None => new.push(mount),
            }
        }
        new
    }

    /// Interfaces made since.
    pub fn new_interfaces(&self) -> Vec<String> {
        interfaces().difference(&self.interfaces).cloned().collect()
    }

    /// nftables tables made since.
    pub fn new_tables(&self) -> Vec<String> {
        tables().into_iter().filter(|name| !self.tables.contains(name)).collect()
    }
}

fn tables() -> Vec<String> {
    crate::netlink::tables().expect("nftables answers root")
}
