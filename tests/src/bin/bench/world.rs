//! A private world for one round: sandbox, journaled disk, registry, meter, and manifests of a fleet.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use tests::image::fixture_image;
use tests::{Registry, Sandbox};

use crate::bell::{Bell, INSIDE};
use crate::meter::Meter;

/// Which network the containers of a fleet have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Net {
    /// Each its own, on a bridge.
    Own,
    /// The host's.
    Host,
}

/// One round's world. Fields are dropped in this order.
pub(crate) struct World {
    pub(crate) bell: Bell,
    pub(crate) meter: Meter,
    pub(crate) image: String,
    pub(crate) registry: Registry,
    pub(crate) sandbox: Sandbox,
}

impl World {
    /// Makes it, with the fixture image in its registry.
    ///
    /// # Panics
    /// When the machine cannot.
    pub(crate) fn new(name: &str) -> Self {
        let mut sandbox = Sandbox::new(name);
        if let Err(why) = sandbox.journal_data(16) {
            eprintln!("bench: no journaled disk ({why}); figures of pulls are those of this file system");
        }
        let registry = Registry::start();
        registry.push("bench/fixture:1", &fixture_image());
        // After the registry: its threads are not counted.
        let meter = Meter::new(&sandbox);
        let bell = Bell::new(sandbox.dir());
        Self { bell, meter, image: registry.reference("bench/fixture:1"), registry, sandbox }
    }

    /// Writes the manifest of one member of a fleet: a pod that announces itself with `version`.
    pub(crate) fn write_member(&self, number: u32, version: &str, net: Net) {
        let mut text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: member-{number}\nspec:\n  terminationGracePeriodSeconds: 5\n"
        );
        if net == Net::Host {
            text.push_str("  hostNetwork: true\n");
        }
        let bell = self.bell.dir().display();
        let written = write!(
            text,
            "  containers:
    - name: main
      image: {}
      args: [announce, {INSIDE}, 'member-{number} $(VERSION)']
      env:
        - name: VERSION
          value: '{version}'
      volumeMounts:
        - name: bell
          mountPath: /bell
  volumes:
    - name: bell
      hostPath:
        path: {bell}
",
            self.image
        );
        written.expect("writing into a string works");
        self.sandbox.write(&format!("member-{number}.yaml"), &text);
    }
}

/// Whether a program is installed.
pub(crate) fn installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// The machine and the versions of what is compared.
pub(crate) fn header() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |path: &str, key: &str| {
        read(path)
            .lines()
            .find_map(|line| line.strip_prefix(key).map(|rest| rest.trim_matches([':', ' ', '\t']).to_owned()))
            .unwrap_or_default()
    };
    let first_line = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
    };
    let mut text = String::from("# Measured\n\n");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let profile = if cfg!(debug_assertions) { "debug: figures say little" } else { "release" };
    let lines = [
        format!("machine: {cores} x {}, {}", field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal")),
        format!("kernel: {}", read("/proc/sys/kernel/osrelease").trim()),
        format!("cgroups: {}", if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "v2" } else { "v1" }),
        format!("load at the start: {}", read("/proc/loadavg").trim()),
        format!("build: {profile}"),
    ];
    let peers = ["crun", "runc", "podman", "skopeo", "igzip", "zstd"].iter().filter_map(|peer| first_line(peer));
    for line in lines.into_iter().chain(peers) {
        writeln!(text, "- {line}").expect("writing into a string works");
    }
    text
}
