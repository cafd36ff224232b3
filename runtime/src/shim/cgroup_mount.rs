//! /sys/fs/cgroup as a program inside sees it.
//!
//! libcontainer's own mount of version 1 is writable whatever the options say, with which a root inside could raise
//! its own limits, and fails for a container that joins a process namespace. So the container's first process mounts
//! it, in the container's cgroup namespace, right before it gives up its capabilities.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use crate::container::ContainerConfig;
use crate::container::cgroup::Layout;
use crate::sys;

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CgroupMount {
    read_only: bool,
    /// Version 1: options by directory name. Empty for version 2.
    hierarchies: BTreeMap<String, String>,
}

const TARGET: &str = "/sys/fs/cgroup";

impl CgroupMount {
    /// For a container of this config; `None` when it brings a /sys of its own.
    pub(super) fn of(config: &ContainerConfig, layout: &Layout) -> Option<Self> {
        let target = Path::new(TARGET);
        if config.mounts.iter().any(|mount| target.starts_with(&mount.target) && mount.target != Path::new("/")) {
            return None;
        }
        let mut by_mount: BTreeMap<&PathBuf, Vec<&str>> = BTreeMap::new();
        if !layout.is_unified() {
            for (controller, point) in &layout.v1 {
                by_mount.entry(point).or_default().push(controller);
            }
        }
        let hierarchies = by_mount.into_iter().filter_map(|(point, controllers)| {
            let named = controllers.iter().any(|name| name.starts_with("name="));
            let options = if named { format!("none,{}", controllers.join(",")) } else { controllers.join(",") };
            Some((point.file_name()?.to_str()?.to_owned(), options))
        });
        Some(Self { read_only: !config.security.privileged, hierarchies: hierarchies.collect() })
    }

    /// Mounts it, inside the container's root.
    pub(super) fn mount(&self) -> io::Result<()> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RELATIME;
        if self.hierarchies.is_empty() {
            mount(Some("cgroup"), TARGET, Some("cgroup2"), flags, None::<&str>)?;
        } else {
            mount(Some("tmpfs"), TARGET, Some("tmpfs"), flags, Some("mode=755"))?;
            for (name, options) in &self.hierarchies {
                let dir = Path::new(TARGET).join(name);
                std::fs::create_dir(&dir)?;
                mount(Some("cgroup"), &dir, Some("cgroup"), flags, Some(options.as_str()))?;
                // `cpu` and `cpuacct` lead to `cpu,cpuacct`.
                for part in name.split(',').filter(|part| *part != name) {
                    std::os::unix::fs::symlink(name, Path::new(TARGET).join(part))?;
                }
            }
        }
        if self.read_only { sys::mount_read_only(c"/sys/fs/cgroup") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{Mount, MountKind};

    #[test]
    fn hierarchies_are_named_as_on_the_host() {
        let v1 = [("cpu", "/c/cpu,cpuacct"), ("cpuacct", "/c/cpu,cpuacct"), ("name=systemd", "/c/systemd")];
        let v1 = v1.map(|(name, path)| (name.to_owned(), PathBuf::from(path))).into();
        let layout = Layout { v1, v2: None };
        let mut config = ContainerConfig::default();
        let found = CgroupMount::of(&config, &layout).expect("a mount");
        let expected = [("cpu,cpuacct", "cpu,cpuacct"), ("systemd", "none,name=systemd")];
        assert_eq!(found.hierarchies, expected.map(|(name, options)| (name.to_owned(), options.to_owned())).into());
        assert!(found.read_only);
        config.mounts.push(Mount {
            source: "/sys".into(),
            target: "/sys".into(),
            kind: MountKind::Bind,
            read_only: true,
            recursive_read_only: false,
            propagation: None,
            shifted: false,
        });
        assert_eq!(CgroupMount::of(&config, &layout), None);
    }
}
