//! Where everything lies. Drawn once:
//!
//! ```text
//! <data>/lock                                     held by the agent that owns these directories
//!        images/                                  content store (see image::store)
//!        network/                                 address leases
//!        volumes/<name>/                          named volumes: never removed by reconciling
//!        pods/<uid>/pod.json                      what the pod was made as
//!                   users.json                    its range of user ids, with `hostUsers: false`
//!                   volumes/                      volumes that die with the pod
//!                   <container>/<attempt>/start.json, exit.json
//!                                         upper/, work/    writable layer
//!                                         log, log.1 ...   CRI format
//! <run>/lock
//!       mainstay.sock                             API
//!       namespaces/<uid>/{net,ipc,uts,user}       pinned namespaces, all below one mount
//!       pods/<uid>/hosts, resolv.conf, hostname
//!                  volumes/                       volumes in memory
//!                  <container>/<attempt>/         bundle, shim.sock
//! ```

use std::path::{Path, PathBuf};

use spec::observed::PodUid;

/// What lies beside the directories of containers in those of their pod. A container of such a name, which is a good
/// one, has its directory elsewhere. No container's name begins with `_`.
const TAKEN: [&str; 7] = ["failed.json", "files-changed", "hostname", "hosts", "pod.json", "ready", "resolv.conf"];

/// The name of a container's directory in those of its pod.
#[must_use]
pub fn container_directory(container: &str) -> String {
    if TAKEN.contains(&container) { format!("_{container}") } else { container.to_owned() }
}

/// The two directories of an agent.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Facts that survive a reboot.
    pub data: PathBuf,
    /// Sockets, namespaces and secrets of this boot.
    pub run: PathBuf,
    /// cgroup below which all pods and shims are.
    pub cgroup: String,
}

impl Layout {
    /// Records of pods.
    #[must_use]
    pub fn pods(&self) -> PathBuf {
        self.data.join("pods")
    }

    /// A pod's durable directory.
    #[must_use]
    pub fn pod(&self, uid: &PodUid) -> PathBuf {
        self.pods().join(&uid.0)
    }

    /// A pod's directory of this boot.
    #[must_use]
    pub fn pod_run(&self, uid: &PodUid) -> PathBuf {
        self.run.join("pods").join(&uid.0)
    }

    /// A pod's pinned namespaces.
    #[must_use]
    pub fn namespaces(&self, uid: &PodUid) -> PathBuf {
        // Where version 0.1 pinned those of pods that still run.
        let earlier = self.pod_run(uid).join("ns");
        if earlier.is_dir() { earlier } else { self.all_namespaces().join(&uid.0) }
    }

    /// Where the namespaces of all pods are pinned: one mount, so that a shim leaves all of them behind in one call.
    #[must_use]
    pub fn all_namespaces(&self) -> PathBuf {
        self.run.join("namespaces")
    }

    /// Durable directory of all attempts of a container.
    #[must_use]
    pub fn container(&self, uid: &PodUid, container: &str) -> PathBuf {
        self.pod(uid).join(container_directory(container))
    }

    /// An attempt.
    #[must_use]
    pub fn attempt(&self, uid: &PodUid, container: &str, attempt: u32) -> Attempt {
        Attempt {
            dir: self.container(uid, container).join(attempt.to_string()),
            run: self.pod_run(uid).join(container_directory(container)).join(attempt.to_string()),
            cgroup: format!("{}/{container}-{attempt}", self.pod_cgroup(uid)),
            id: format!("{uid}-{container}-{attempt}"),
        }
    }

    /// A pod's cgroup.
    #[must_use]
    pub fn pod_cgroup(&self, uid: &PodUid) -> String {
        format!("/{}/pod{uid}", self.cgroup)
    }

    /// The cgroup of the first process of a process namespace that a pod's containers share.
    #[must_use]
    pub fn init_cgroup(&self, uid: &PodUid) -> String {
        format!("{}/init", self.pod_cgroup(uid))
    }

    /// The cgroup of all shims.
    #[must_use]
    pub fn shim_cgroup(&self) -> String {
        format!("/{}/shims", self.cgroup)
    }
}

/// Places of one attempt.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Durable directory.
    pub dir: PathBuf,
    /// Directory of this boot.
    pub run: PathBuf,
    /// cgroup.
    pub cgroup: String,
    /// Name.
    pub id: String,
}

impl Attempt {
    /// Record of its start.
    #[must_use]
    pub fn start_file(&self) -> PathBuf {
        self.dir.join("start.json")
    }

    /// Record of its end.
    #[must_use]
    pub fn exit_file(&self) -> PathBuf {
        self.dir.join("exit.json")
    }

    /// Mark of an attempt that was ended for being unhealthy.
    #[must_use]
    pub fn unhealthy_file(&self) -> PathBuf {
        self.dir.join("unhealthy")
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }
}

/// Numbers of the attempts below a container's directory, lowest first.
#[must_use]
pub(super) fn attempts(container: &Path) -> Vec<u32> {
    let mut found: Vec<u32> = std::fs::read_dir(container)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    found.sort_unstable();
    found
}
