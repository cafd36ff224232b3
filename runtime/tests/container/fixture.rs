//! A directory, a cgroup and a root file system for one test.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use runtime::container::external::Program;
use runtime::container::{
    self, ContainerConfig, ContainerError, ContainerState, Env, Rootfs, Running, ShimClient, User, cgroup,
};
use spec::observed::Exit;

const BUSYBOX: &str = "/bin/busybox";

/// Why these tests cannot run here.
pub(crate) fn cannot_run() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("containers need root");
    }
    if !Path::new(BUSYBOX).exists() {
        return Some("no /bin/busybox to make a root file system of");
    }
    None
}

pub(crate) struct Fixture {
    pub(crate) dir: PathBuf,
    pub(crate) cgroup: String,
    layout: cgroup::Layout,
    next: AtomicU32,
    pub(crate) exe: File,
    /// Under which the containers run; the built-in one when `None`.
    runtime: Option<Program>,
}

/// runc, where it is installed, or the program that `MAINSTAY_TEST_RUNTIME` names, such as /usr/bin/crun.
pub(crate) fn runc() -> Option<Program> {
    if let Some(path) = std::env::var_os("MAINSTAY_TEST_RUNTIME").map(PathBuf::from) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Some(Program { name, path, args: Vec::new() });
    }
    let paths = ["/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc", "/usr/local/bin/runc"];
    let path = paths.iter().map(PathBuf::from).find(|path| path.exists())?;
    Some(Program { name: "runc".to_owned(), path, args: Vec::new() })
}

impl Fixture {
    pub(crate) fn new(name: &str, runtime: Option<Program>) -> Self {
        let unique = format!("{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(format!("mainstay-{unique}"));
        fs::create_dir_all(&dir).expect("a temporary directory");
        let layout = cgroup::Layout::detect().expect("cgroups");
        let exe = File::open("/proc/self/exe").expect("this program");
        let (cgroup, next) = (format!("/mainstay-test-{unique}"), AtomicU32::new(0));
        let fixture = Self { dir, cgroup, layout, next, exe, runtime };
        fixture.make_rootfs();
        fixture
    }

    fn make_rootfs(&self) {
        let root = self.layer();
        for dir in ["bin", "etc", "tmp", "home/app", "data", "proc", "sys", "dev", "root"] {
            fs::create_dir_all(root.join(dir)).expect("a directory");
        }
        fs::copy(BUSYBOX, root.join("bin/busybox")).expect("busybox");
        let applets = std::process::Command::new(BUSYBOX).arg("--list").output().expect("its applets").stdout;
        for applet in String::from_utf8_lossy(&applets).lines().filter(|name| *name != "busybox") {
            symlink("busybox", root.join("bin").join(applet)).expect("a link");
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("mode");
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
            .expect("a file");
        fs::write(root.join("etc/group"), "root:x:0:\napp:x:1001:\nextra:x:2000:app\n").expect("a file");
    }

    /// Whether containers run under another runtime than the built-in one.
    pub(crate) fn is_external(&self) -> bool {
        self.runtime.is_some()
    }

    /// The image, which no test writes to through a container.
    pub(crate) fn layer(&self) -> PathBuf {
        self.dir.join("layer")
    }

    /// A container of this test that runs a shell script.
    pub(crate) fn config(&self, script: &str) -> ContainerConfig {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("c{number}");
        ContainerConfig {
            dir: self.dir.join(format!("run/{id}")),
            exit_file: self.dir.join(format!("data/{id}/exit.json")),
            log_path: Some(self.dir.join(format!("log/{id}.log"))),
            rootfs: Rootfs::Overlay {
                lowers: vec![self.layer()],
                upper: self.dir.join(format!("data/{id}/upper")),
                work: self.dir.join(format!("data/{id}/work")),
            },
            args: vec!["sh".into(), "-c".into(), script.into()],
            runtime: self.runtime.clone(),
            env: Env(vec![("PATH".into(), "/bin".into())]),
            hostname: "box".into(),
            cgroup_path: format!("{}/{id}", self.cgroup),
            shim_cgroup: format!("{}/shims", self.cgroup),
            id,
            ..ContainerConfig::default()
        }
    }

    pub(crate) fn start(&self, config: &ContainerConfig) -> Result<Running, ContainerError> {
        container::start(config, &self.exe)
    }

    /// Starts a container, waits for its end, and returns how it ended and what it wrote.
    pub(crate) fn run(&self, config: &ContainerConfig) -> (Exit, String) {
        self.start(config).unwrap_or_else(|error| panic!("start failed: {}", chain(&error)));
        self.wait(config)
    }

    pub(crate) fn wait(&self, config: &ContainerConfig) -> (Exit, String) {
        if let Ok(mut shim) = ShimClient::connect(&config.dir) {
            assert!(shim.wait_exit(Some(Duration::from_secs(30))).expect("a connection"), "it does not end");
        }
        let exit = match container::inspect(&config.dir, &config.exit_file, &config.cgroup_path) {
            Ok(ContainerState::Exited(exit)) => exit,
            other => panic!("not exited: {other:?}"),
        };
        self.gone(config);
        (exit, self.output(config))
    }

    /// Removes an ended container.
    fn gone(&self, config: &ContainerConfig) {
        container::cleanup(&config.dir, &config.cgroup_path).expect("cleaned up");
        assert!(!config.dir.exists());
    }

    /// Text of the log without what CRI puts before it.
    pub(crate) fn output(&self, config: &ContainerConfig) -> String {
        let text =
            config.log_path.as_ref().map(|path| fs::read_to_string(path).unwrap_or_default()).unwrap_or_default();
        text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned() + "\n").collect()
    }

    /// Output of a script in a container with default settings but for a change.
    pub(crate) fn probe(&self, script: &str, change: impl FnOnce(&mut ContainerConfig)) -> String {
        let mut config = self.config(script);
        change(&mut config);
        let (exit, output) = self.run(&config);
        assert_eq!(exit.code, 0, "{script}: {exit:?}\n{output}");
        output
    }

    /// Ends a container by force.
    pub(crate) fn kill(&self, config: &ContainerConfig) -> Exit {
        container::kill_all(&config.cgroup_path).expect("killed");
        self.wait(config).0
    }

    /// Looks from outside: no process, mount, cgroup or run directory of this test.
    pub(crate) fn assert_nothing_left(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let dir = self.dir.to_string_lossy().into_owned();
        assert!(!mounts.contains(&dir), "mounts are left below {dir}");
        until("shims and containers end", || processes_with(&self.cgroup).is_empty());
        let runs = fs::read_dir(self.dir.join("run")).map(Iterator::count).unwrap_or(0);
        assert_eq!(runs, 0, "run directories are left");
        cgroup::remove(&self.layout, &format!("{}/shims", self.cgroup)).expect("the shims' cgroup is empty");
        for root in self.layout.v1.values().chain(&self.layout.v2) {
            let left = fs::read_dir(root.join(self.cgroup.trim_start_matches('/')));
            let left: Vec<_> = left
                .into_iter()
                .flatten()
                .flatten()
                .filter(|entry| entry.path().is_dir())
                .map(|entry| entry.path())
                .collect();
            assert!(left.is_empty(), "cgroups are left: {left:?}");
        }
        cgroup::remove(&self.layout, &self.cgroup).expect("the test's cgroup is empty");
        fs::remove_dir_all(&self.dir).expect("the test's directory");
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // After a failed test: leave nothing that disturbs the next ones.
        if self.dir.exists() {
            let _ = cgroup::kill_all(&self.layout, &self.cgroup, Duration::from_secs(5));
            let _ = cgroup::remove(&self.layout, &self.cgroup);
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Processes of a cgroup and those below it.
pub(crate) fn processes_with(cgroup: &str) -> Vec<u32> {
    let pids = fs::read_dir("/proc").expect("/proc").flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| {
                text.lines().any(|line| line.split(':').nth(2).is_some_and(|own| own.starts_with(cgroup)))
            })
        })
        .collect()
}

/// Waits for a state.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

pub(crate) fn app() -> User {
    User { uid: 1000, gid: 1001, additional_gids: vec![2000], home: Some("/home/app".into()), ..User::default() }
}

/// Stands in for an agent that is killed: starts the container of a config file and waits to die.
pub(crate) fn start_and_die(args: Vec<std::ffi::OsString>) -> ! {
    let path = args.first().expect("a config file");
    let config: ContainerConfig = serde_json::from_slice(&fs::read(path).expect("a file")).expect("a config");
    let exe = File::open("/proc/self/exe").expect("this program");
    let running = container::start(&config, &exe).expect("started");
    println!("{}", running.pid);
    loop {
        std::thread::park();
    }
}
