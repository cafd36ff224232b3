//! The floor: what the bare runtime takes for the same containers, without an agent. An overlay mount, a
//! configuration, `crun run -d` (or `runc`), and where asked a network namespace with a veth pair on a bridge, by
//! `ip -batch`; two at a time. No state, no logs, no supervision.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::bell::INSIDE;
use crate::world::{Net, installed};

/// A runtime and the place of its containers.
#[derive(Debug)]
pub(crate) struct Floor {
    runtime: &'static str,
    dir: PathBuf,
    bell: PathBuf,
    cgroup: String,
    template: Value,
    net: Net,
    tag: String,
}

impl Floor {
    /// Prepares it below `dir`, on the disk of the agent's data. `None` without a runtime.
    pub(crate) fn new(dir: &Path, bell: &Path, cgroup: &str, net: Net) -> Option<Self> {
        ["crun", "runc"].into_iter().find_map(|runtime| Self::with(runtime, dir, bell, cgroup, net))
    }

    /// The same with this runtime and no other.
    pub(crate) fn with(runtime: &'static str, dir: &Path, bell: &Path, cgroup: &str, net: Net) -> Option<Self> {
        let none: Option<&str> = None;
        if !installed(runtime) || !installed("ip") {
            return None;
        }
        // crun 1.8 refuses a hybrid hierarchy: in this mount namespace it sees the v1 part only.
        match umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH) {
            // Not there, or taken away by the floor before.
            Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
            Err(_) => return None,
        }
        let dir = dir.join("floor").join(runtime);
        let root = dir.join("rootfs");
        for (name, bytes, mode) in tests::image::fixture_files() {
            let path = root.join(name.trim_start_matches('/'));
            fs::create_dir_all(path.parent()?).ok()?;
            fs::write(&path, bytes).ok()?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).ok()?;
        }
        for sub in ["proc", "dev", "sys", "bell"] {
            fs::create_dir_all(root.join(sub)).ok()?;
        }
        // Namespaces are pinned below /run/netns: on a tmpfs that goes with this mount namespace.
        fs::create_dir_all("/run/netns").ok()?;
        mount(Some("tmpfs"), "/run/netns", Some("tmpfs"), MsFlags::empty(), none).ok()?;
        let bundle = dir.join("spec");
        fs::create_dir_all(&bundle).ok()?;
        let made = Command::new(runtime).arg("spec").current_dir(&bundle).status().ok()?;
        let text = fs::read_to_string(bundle.join("config.json")).ok()?;
        let template = serde_json::from_str(&text).ok().filter(|_| made.success())?;
        let tag = format!("f{:x}", std::process::id());
        let floor =
            Self { runtime, dir, bell: bell.to_owned(), cgroup: cgroup.to_owned(), template, net, tag: tag.clone() };
        if net == Net::Own {
            floor.ip(
                &[],
                &format!("link add {tag}b type bridge\naddr add 10.231.0.1/16 dev {tag}b\nlink set {tag}b up\n"),
            );
        }
        Some(floor)
    }

    /// Which runtime it is, with its network.
    pub(crate) fn name(&self) -> String {
        format!("floor: {} x2{}", self.runtime, if self.net == Net::Own { " + ip" } else { "" })
    }

    /// Starts `count` containers, two at a time.
    pub(crate) fn start_all(&self, count: u32, version: &str) {
        let next = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        if number >= count {
                            return;
                        }
                        self.start(number, version);
                    }
                });
            }
        });
    }

    /// Starts one container, which announces itself.
    pub(crate) fn start(&self, number: u32, version: &str) {
        self.prepare(number, version);
        self.run(number);
    }

    /// All that a container needs before it can be started: root file system, network, configuration.
    pub(crate) fn prepare(&self, number: u32, version: &str) {
        let bundle = self.bundle(number);
        for sub in ["upper", "work", "rootfs"] {
            fs::create_dir_all(bundle.join(sub)).expect("the directory is ours");
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            self.dir.join("rootfs").display(),
            bundle.join("upper").display(),
            bundle.join("work").display()
        );
        mount(Some("overlay"), &bundle.join("rootfs"), Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .expect("root mounts an overlay");
        if self.net == Net::Own {
            let (tag, space) = (&self.tag, self.space(number));
            let address = format!("10.231.{}.{}", (number + 2) / 250, (number + 2) % 250 + 1);
            self.ip(
                &[],
                &format!(
                    "netns add {space}\nlink add {tag}v{number} type veth peer name eth0 netns {space}\nlink set {tag}v{number} master {tag}b up\n"
                ),
            );
            self.ip(
                &["-n", &space],
                &format!(
                    "addr add {address}/16 dev eth0\nlink set eth0 up\nlink set lo up\nroute add default via 10.231.0.1\n"
                ),
            );
        }
        fs::write(bundle.join("config.json"), self.config(number, version).to_string()).expect("the directory is ours");
    }

    /// Starts a container that is prepared.
    pub(crate) fn run(&self, number: u32) {
        let status = self.call(&["run", "-d", "-b", &self.bundle(number).to_string_lossy(), &self.id(number)]);
        assert!(status, "{} cannot start a container", self.runtime);
    }

    /// kill -9 and every trace removed.
    pub(crate) fn remove(&self, number: u32) {
        self.call(&["delete", "-f", &self.id(number)]);
        umount2(&self.bundle(number).join("rootfs"), MntFlags::MNT_DETACH).expect("it is mounted");
        if self.net == Net::Own {
            // The pair first: it would go with the namespace, but some time later.
            self.ip(&[], &format!("link del {}v{number}\nnetns del {}\n", self.tag, self.space(number)));
        }
        drop(fs::remove_dir_all(self.bundle(number)));
    }

    /// Runs a program in a container.
    pub(crate) fn exec(&self, number: u32, words: &[&str]) {
        let id = self.id(number);
        let mut all = vec!["exec", &id];
        all.extend(words);
        assert!(self.call(&all), "{} exec failed", self.runtime);
    }

    /// Removes the bridge.
    pub(crate) fn end(&self) {
        if self.net == Net::Own {
            self.ip(&[], &format!("link del {}b\n", self.tag));
        }
    }

    fn config(&self, number: u32, version: &str) -> Value {
        let mut config = self.template.clone();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["/bin/fixture", "announce", INSIDE, format!("member-{number} {version}")]);
        config["process"]["env"] = json!(["PATH=/", format!("VERSION={version}")]);
        config["process"]["rlimits"] = json!([]);
        config["root"]["readonly"] = json!(false);
        config["linux"]["cgroupsPath"] = json!(format!("{}/floor-{number}", self.cgroup));
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts
                .push(json!({"destination": "/bell", "type": "bind", "source": self.bell, "options": ["rbind", "rw"]}));
        }
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            match self.net {
                Net::Host => namespaces.retain(|space| space["type"] != "network"),
                Net::Own => {
                    for space in namespaces.iter_mut().filter(|space| space["type"] == "network") {
                        space["path"] = json!(format!("/run/netns/{}", self.space(number)));
                    }
                }
            }
        }
        config
    }

    fn bundle(&self, number: u32) -> PathBuf {
        self.dir.join(number.to_string())
    }

    fn id(&self, number: u32) -> String {
        format!("{}-{number}", self.tag)
    }

    fn space(&self, number: u32) -> String {
        format!("{}n{number}", self.tag)
    }

    fn call(&self, arguments: &[&str]) -> bool {
        let root = self.dir.join("state");
        let status = Command::new(self.runtime)
            .arg("--root")
            .arg(root)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    }

    fn ip(&self, options: &[&str], batch: &str) {
        use std::io::Write;
        let mut child = Command::new("ip")
            .args(options)
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("ip was found before");
        if let Some(mut input) = child.stdin.take() {
            input.write_all(batch.as_bytes()).expect("ip reads its input");
        }
        assert!(child.wait().is_ok_and(|status| status.success()), "ip failed:\n{batch}");
    }
}
