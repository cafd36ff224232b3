//! The same fleet under other engines, where they are installed: `podman run -d` two at a time, and `docker compose up -d`.
//! Each has a store of its own on the disk of the agent's data, the network that it gives by default, and the same
//! containers, which announce themselves.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::agent::{SOON, poll};

use crate::bell::INSIDE;
use crate::fleet::{Found, figure, pss};
use crate::table::Sample;
use crate::world::{World, installed};

/// A fleet under Podman.
pub(crate) fn podman(size: u32) -> Found {
    if !installed("podman") {
        return Found::new();
    }
    let mut world = World::new("podman");
    own_host();
    let podman = Podman::new(&world);
    let mut found = Found::new();
    let mut add = |what: &str, unit, sample| found.push((what.to_owned(), unit, "podman run x2".to_owned(), sample));
    assert!(podman.call(&["pull", "-q", "--tls-verify=false", &world.image]), "podman cannot pull");
    let lap = world.meter.start();
    let next = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let work = || {
            while let number = next.fetch_add(1, Ordering::SeqCst)
                && number < size
            {
                podman.run(&world, number, "first");
            }
        };
        scope.spawn(work);
        scope.spawn(work);
    });
    world.bell.wait(size, |line| line.ends_with(" first"));
    add("from nothing", "ms", lap.done());
    add("memory of all", "MB PSS", figure(memory(&world)));
    let member = size / 2;
    let lap = world.meter.start();
    assert!(podman.call(&["rm", "-f", "-t", "5", &format!("member-{member}")]), "podman cannot remove");
    podman.run(&world, member, "turn");
    world.bell.wait(1, |line| line == format!("member-{member} turn"));
    add("one changed", "ms", lap.done());
    let lap = world.meter.start();
    assert!(podman.call(&["rm", "-f", "-a", "-t", "5"]), "podman cannot remove");
    add("all ended", "ms", Sample { cpu: None, ..lap.done() });
    found
}

/// A fleet of services of one Compose project under Docker.
pub(crate) fn compose(size: u32) -> Found {
    let Some(program) = compose_program().filter(|_| installed("dockerd")) else {
        return Found::new();
    };
    let mut world = World::new("docker");
    own_host();
    let Some(docker) = Docker::new(&world, program) else { return Found::new() };
    let mut found = Found::new();
    let mut add = |what: &str, unit, sample| found.push((what.to_owned(), unit, "docker compose".to_owned(), sample));
    let pulled = Command::new("docker").args(["-H", &docker.daemon.socket, "pull", "-q", &world.image]).output();
    assert!(pulled.is_ok_and(|output| output.status.success()), "docker cannot pull");
    docker.write(&world, size, |_| "first");
    let lap = world.meter.start();
    docker.compose(&["up", "-d"]);
    world.bell.wait(size, |line| line.ends_with(" first"));
    add("from nothing", "ms", lap.done());
    add("memory of all", "MB PSS", figure(memory(&world)));
    let lap = world.meter.start();
    docker.compose(&["up", "-d"]);
    add("pass with nothing to do", "ms", lap.done());
    let member = size / 2;
    docker.write(&world, size, |number| if number == member { "turn" } else { "first" });
    let lap = world.meter.start();
    docker.compose(&["up", "-d"]);
    world.bell.wait(1, |line| line == format!("member-{member} turn"));
    add("one changed", "ms", lap.done());
    let lap = world.meter.start();
    docker.compose(&["down", "-t", "5"]);
    add("all ended", "ms", Sample { cpu: None, ..lap.done() });
    found
}

/// What engines write outside of the places they are given goes with this mount namespace; crun 1.8 refuses a hybrid
/// hierarchy, so it sees the v1 part only.
fn own_host() {
    let none: Option<&str> = None;
    let _ = umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH);
    for dir in ["/run", "/var/lib/cni", "/var/lib/containers"] {
        if Path::new(dir).exists() {
            mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), none).expect("root mounts a tmpfs");
        }
    }
}

/// Everything that an engine keeps running for its containers, without these.
fn memory(world: &World) -> f64 {
    let own = fs::canonicalize("/proc/self/exe").ok();
    let pids = world.sandbox.processes().into_iter().filter_map(|process| u32::try_from(process.pid).ok());
    let engine = |pid: &u32| {
        let exe = fs::read_link(format!("/proc/{pid}/exe")).ok();
        exe.as_ref().is_some_and(|exe| !exe.ends_with("fixture")) && exe != own
    };
    pids.filter(engine).map(pss).sum()
}

struct Podman {
    arguments: Vec<String>,
    settings: PathBuf,
    bell: String,
    cgroup: String,
}

impl Podman {
    fn new(world: &World) -> Self {
        let data = world.sandbox.data();
        let settings = data.join("containers.conf");
        // No limits above the host's, which need CAP_SYS_RESOURCE.
        let text = "[containers]\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=9000:9000\"]\n\
                    [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
        fs::write(&settings, text).expect("the directory is ours");
        let path = |dir: PathBuf| dir.to_string_lossy().into_owned();
        let arguments =
            ["--root", &path(data.join("podman")), "--runroot", "/run/podman", "--storage-driver", "overlay"];
        Self {
            arguments: arguments.map(str::to_owned).to_vec(),
            settings,
            bell: format!("{}:/bell", world.bell.dir().display()),
            cgroup: world.sandbox.cgroup_parent(),
        }
    }

    fn call(&self, words: &[&str]) -> bool {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", &self.settings).args(&self.arguments).args(words);
        let output = command.stdin(Stdio::null()).output();
        output.is_ok_and(|output| {
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            output.status.success()
        })
    }

    fn run(&self, world: &World, number: u32, version: &str) {
        let (name, line) = (format!("member-{number}"), format!("member-{number} {version}"));
        let options = ["run", "-d", "--name", &name, "--cgroup-parent", &self.cgroup, "-v", &self.bell];
        let what = [world.image.as_str(), "announce", INSIDE, &line];
        assert!(self.call(&[&options[..], &what[..]].concat()), "podman cannot start a container");
    }
}

/// A Docker daemon, which ends with its value; so does its containerd.
pub(crate) struct Dockerd {
    process: Child,
    /// Where it answers, as `docker -H` takes it.
    pub(crate) socket: String,
}

impl Dockerd {
    /// Starts one with its data in `data` and its state in `run`, with these further arguments, and waits for it.
    pub(crate) fn start(data: &Path, run: &Path, more: &[&str]) -> Option<Self> {
        let (socket, log) = (run.join("sock"), run.join("log"));
        fs::create_dir_all(run).ok()?;
        let address = format!("unix://{}", socket.display());
        let mut command = Command::new("dockerd");
        command.arg("--data-root").arg(data).arg("--exec-root").arg(run.join("exec"));
        command.arg("--pidfile").arg(run.join("pid")).args(["-H", &address]).args(more);
        let process = command.stdout(Stdio::null()).stderr(fs::File::create(&log).ok()?).spawn().ok()?;
        let daemon = Self { process, socket: address };
        if poll("dockerd answers", SOON, || UnixStream::connect(&socket).ok()).is_err() {
            let log = fs::read_to_string(log).unwrap_or_default();
            eprintln!("bench: dockerd does not start: {}", log.lines().last().unwrap_or_default());
            return None;
        }
        Some(daemon)
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.process.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        drop(self.process.wait());
    }
}

struct Docker {
    daemon: Dockerd,
    compose: PathBuf,
    file: PathBuf,
}

impl Docker {
    fn new(world: &World, compose: PathBuf) -> Option<Self> {
        let data = world.sandbox.data();
        let more = ["--cgroup-parent", &world.sandbox.cgroup_parent(), "--oom-score-adjust=0"];
        let daemon = Dockerd::start(&data.join("docker"), Path::new("/run/docker"), &more)?;
        Some(Self { daemon, compose, file: data.join("compose.yaml") })
    }

    fn write(&self, world: &World, size: u32, version: impl Fn(u32) -> &'static str) {
        let mut text = String::from("services:\n");
        for number in 0..size {
            write!(
                text,
                "  member-{number}:\n    image: {}\n    command: [announce, {INSIDE}, 'member-{number} {}']\n    stop_grace_period: 5s\n    volumes: ['{}:/bell']\n",
                world.image,
                version(number),
                world.bell.dir().display()
            )
            .expect("writing into a string works");
        }
        fs::write(&self.file, text).expect("the directory is ours");
    }

    fn compose(&self, words: &[&str]) {
        let mut command = Command::new(&self.compose);
        command.env("DOCKER_HOST", &self.daemon.socket).args(["-p", "bench", "-f"]).arg(&self.file).args(words);
        let output = command.stdin(Stdio::null()).output().expect("it was found before");
        assert!(output.status.success(), "docker compose failed: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Compose v2 as a program: in PATH, or where packages have the plugin of the docker command.
fn compose_program() -> Option<PathBuf> {
    let plugin = Path::new("/usr/libexec/docker/cli-plugins/docker-compose");
    let named = std::env::var_os("BENCH_COMPOSE").map(PathBuf::from);
    named
        .or_else(|| plugin.exists().then(|| plugin.to_owned()))
        .or_else(|| installed("docker-compose").then(|| PathBuf::from("docker-compose")))
}
