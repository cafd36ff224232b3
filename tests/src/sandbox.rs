//! A private world for one test: own network and mount namespace, directories, cgroup and bridge names; looked over
//! from outside of the product and cleared away at the end.
//!
//! The namespaces belong to the calling test thread; threads and processes started afterwards are inside too.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::leaks::{Baseline, Marks, Process, cgroups, processes};

/// Whether tests with real containers can run here. When not, says so on stderr and in the file named by
/// `MAINSTAY_SKIPPED`, from which `.ci/run` learns that a test was skipped.
pub fn require_root(test: &str) -> bool {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    match REASON.get_or_init(unable) {
        None => true,
        Some(why) => {
            skipped(test, why);
            false
        }
    }
}

/// Reports a test as skipped.
pub fn skipped(test: &str, why: &str) {
    use std::io::Write;
    let line = format!("skipped: {test}: {why}\n");
    // Past the capture of the test runner: a skipped test passes, and passing tests show nothing.
    drop(std::io::stderr().lock().write_all(line.as_bytes()));
    if let Some(file) = std::env::var_os("MAINSTAY_SKIPPED") {
        let mut open =
            fs::OpenOptions::new().create(true).append(true).open(&file).expect("MAINSTAY_SKIPPED is writable");
        open.write_all(line.as_bytes()).expect("MAINSTAY_SKIPPED is writable");
    }
}

/// Why this machine cannot run containers, if so.
/// Linux can mount a tmpfs with other user ids since 6.3; files of pods lie on one.
pub fn idmapped_tmpfs() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(3))
}

fn unable() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    // In a thread that ends at once: the namespaces end with it.
    let tried = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)).join();
    match tried {
        Ok(Ok(())) => {}
        Ok(Err(e)) => return Some(format!("namespaces cannot be made: {e}")),
        Err(_) => return Some("namespaces cannot be tried".to_owned()),
    }
    if !crate::leaks::mounts().iter().any(|mount| mount.kind == "cgroup" || mount.kind == "cgroup2") {
        return Some("no cgroup hierarchy is mounted".to_owned());
    }
    None
}

/// One test's world.
#[derive(Debug)]
pub struct Sandbox {
    name: String,
    bridge: String,
    cgroup: String,
    // An Option so that drop can say what it could not remove.
    dir: Option<tempfile::TempDir>,
    baseline: Baseline,
    marks: Marks,
    binary: Option<PathBuf>,
}

impl Sandbox {
    /// Moves the calling thread into namespaces of its own and makes the directories.
    ///
    /// # Panics
    /// When the machine cannot: ask [`require_root`] first.
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let pid = std::process::id();
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("require_root has tried this");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("root makes its mounts private");
        crate::netlink::loopback_up().expect("root sets loopback up");
        // MAINSTAY_TEST_DIR names a directory for test data where /tmp is too small or too slow.
        let parent = std::env::var_os("MAINSTAY_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = tempfile::Builder::new()
            .prefix(&format!("mainstay-{name}-"))
            .tempdir_in(parent)
            .expect("a temporary directory can be made");
        // As open as a real place of data: users of pods must be able to pass.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("the temporary directory is ours");
        for sub in ["data", "run", "manifests"] {
            fs::create_dir(dir.path().join(sub)).expect("the temporary directory is ours");
        }
        let on_overlay = nix::sys::statfs::statfs(dir.path())
            .is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC);
        // Container layers are overlays, and an overlay cannot have another one as its upper directory.
        mount_tmpfs(&dir.path().join("run"));
        if on_overlay {
            mount_tmpfs(&dir.path().join("data"));
        }
        if Path::new("/etc/mainstay").exists() {
            // The machine's own settings are not the test's.
            mount(Some("tmpfs"), "/etc/mainstay", Some("tmpfs"), MsFlags::empty(), none).expect("root mounts a tmpfs");
        }
        let cgroup = format!("mainstay-test-{pid}-{number}");
        let marks = Marks {
            cgroup: cgroup.clone(),
            path: dir.path().to_string_lossy().into_owned(),
            namespaces: vec![namespace("net"), namespace("mnt")],
        };
        Self {
            name: name.to_owned(),
            // Short: names of interfaces have at most 15 bytes, and the product derives others from it.
            bridge: format!("m{pid:x}n{number}x0"),
            cgroup,
            dir: Some(dir),
            baseline: Baseline::take(),
            marks,
            binary: None,
        }
    }

    /// Gives the data directory a small disk of its own, to be used up.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn limit_data(&mut self, mib: u32) {
        let options = format!("mode=0700,size={mib}m");
        mount(Some("tmpfs"), &self.data(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .expect("root mounts a tmpfs");
        self.baseline = Baseline::take();
    }

    /// Puts the data directory on a journaled ext4 of its own. Without a journal ext4 walks past every inode that was
    /// deleted in the last minutes, which falsifies any series of pulls and removals.
    ///
    /// # Errors
    /// Which program failed, where e2fsprogs or loop devices are missing.
    pub fn journal_data(&mut self, gib: u64) -> Result<(), String> {
        let image = self.dir().join("disk.img");
        let file = fs::File::create(&image).expect("the directory is ours");
        file.set_len(gib << 30).expect("a sparse file can be of any size");
        let run = |program: &str, arguments: &[&str], last: &Path| {
            let status = std::process::Command::new(program).args(arguments).arg(last).status();
            let status = status.map_err(|e| format!("cannot run {program}: {e}"))?;
            if status.success() { Ok(()) } else { Err(format!("{program}: {status}")) }
        };
        run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"], &image)?;
        run("mount", &["-o", "loop", &image.to_string_lossy()], &self.data())?;
        self.baseline = Baseline::take();
        Ok(())
    }

    /// The test's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory that holds everything of this test.
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().expect("it is taken in drop only").path()
    }

    /// The program under test.
    pub fn binary(&self) -> PathBuf {
        self.binary.clone().unwrap_or_else(crate::binary::mainstay)
    }

    /// Runs a copy of the program from now on, one that a test may replace.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn use_copy(&mut self) -> PathBuf {
        let copy = self.dir().join("mainstay");
        fs::copy(crate::binary::mainstay(), &copy).expect("the directory is ours");
        self.binary = Some(copy.clone());
        copy
    }

    /// `--data-dir`.
    pub fn data(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// `--run-dir`, a tmpfs.
    pub fn run(&self) -> PathBuf {
        self.dir().join("run")
    }

    /// The watched directory.
    pub fn manifests(&self) -> PathBuf {
        self.dir().join("manifests")
    }

    /// `--bridge`.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// `--cgroup-parent`, with its leading slash.
    pub fn cgroup_parent(&self) -> String {
        format!("/{}", self.cgroup)
    }

    /// Writes a manifest the way careful editors do (new file, renamed over the old), so no half file is ever seen.
    ///
    /// # Panics
    /// When the directory is not writable.
    pub fn write(&self, file: &str, text: &str) {
        let path = self.manifests().join(file);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("the manifests directory is ours");
        }
        let new = path.with_file_name(format!(".{}.new", path.file_name().unwrap_or_default().to_string_lossy()));
        fs::write(&new, text).expect("the manifests directory is ours");
        fs::rename(&new, &path).expect("the manifests directory is ours");
    }

    /// Removes a manifest.
    ///
    /// # Panics
    /// When it is not there.
    pub fn remove(&self, file: &str) {
        fs::remove_file(self.manifests().join(file)).expect("the manifest to remove is there");
    }

    /// Everything that this test's product left: one line each, empty when nothing is left. The product is to be stopped.
    pub fn leaks(&self) -> Vec<String> {
        let mut found = self.leaks_of_workloads(&[]);
        let namespaces = self.run().join("namespaces");
        if self.baseline.new_mounts().iter().any(|mount| mount.point == namespaces) {
            found.push(format!("mount: {}", namespaces.display()));
        }
        found.extend(
            self.baseline.new_interfaces().iter().filter(|i| **i == self.bridge).map(|i| format!("interface: {i}")),
        );
        found.extend(self.baseline.new_tables().iter().map(|table| format!("nftables table: {table}")));
        let known: Vec<String> = found.clone();
        found.extend(
            cgroups(&self.cgroup).iter().map(|dir| format!("cgroup: {}", dir.display())).filter(|l| !known.contains(l)),
        );
        found
    }

    /// What workloads left while an agent still runs: as [`Sandbox::leaks`] without the bridge, the tables, the mount and
    /// the cgroups that workloads share, and the processes named (the agent).
    pub fn leaks_of_workloads(&self, agents: &[u32]) -> Vec<String> {
        let mut found = Vec::new();
        let namespaces = self.run().join("namespaces");
        for mount in self.baseline.new_mounts().into_iter().filter(|mount| mount.point != namespaces) {
            let what = if mount.kind == "nsfs" { "pinned namespace" } else { "mount" };
            found.push(format!("{what}: {} at {}", mount.kind, mount.point.display()));
        }
        for interface in self.baseline.new_interfaces().into_iter().filter(|name| *name != self.bridge) {
            found.push(format!("interface: {interface}"));
        }
        // The parent and the group that all shims share are the agent's, not a workload's.
        let shared = [PathBuf::from(&self.cgroup), Path::new(&self.cgroup).join("shims")];
        for dir in cgroups(&self.cgroup).iter().filter(|dir| !shared.iter().any(|own| dir.ends_with(own))) {
            found.push(format!("cgroup: {}", dir.display()));
        }
        for process in self.processes() {
            if !agents.iter().any(|agent| i64::from(*agent) == i64::from(process.pid)) {
                found.push(format!("process: {} {}", process.pid, process.command));
            }
        }
        found
    }

    /// Living processes of this test: the agent, shims, containers.
    pub fn processes(&self) -> Vec<Process> {
        processes(&self.marks)
    }

    /// Waits until nothing is left (the kernel clears namespaces and cgroups a moment after their last process).
    ///
    /// # Panics
    /// When something stays.
    pub fn assert_clean(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.leaks();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{}: left behind:\n  {}", self.name, left.join("\n  "));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends every process of this test, by id, until none is left.
    pub fn kill_all(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            for process in left {
                // It may have ended by itself since.
                let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What a power cut and a boot do: every process is gone, and with them mounts, cgroups, the whole network and the
    /// run directory; the boot id is another one. Data and manifests stay. The agent is to be dropped or killed before.
    ///
    /// Sockets of this thread (a registry's) stay in the old network and are not reached any more.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn reboot(&mut self) {
        static BOOT: AtomicU32 = AtomicU32::new(1);
        self.kill_all();
        unmount(self.baseline.new_mounts().into_iter().map(|mount| mount.point));
        self.remove_cgroups();
        unmount([self.run()]);
        mount_tmpfs(&self.run());
        unshare(CloneFlags::CLONE_NEWNET).expect("it worked before");
        crate::netlink::loopback_up().expect("root sets loopback up");
        let boot_id = format!("00000000-0000-4000-8000-{:012}", BOOT.fetch_add(1, Ordering::SeqCst));
        let file = self.dir().join("boot_id");
        fs::write(&file, format!("{boot_id}\n")).expect("the temporary directory is ours");
        let none: Option<&str> = None;
        mount(Some(&file), "/proc/sys/kernel/random/boot_id", none, MsFlags::MS_BIND, none).expect("root binds a file");
        self.marks.namespaces.push(namespace("net"));
        self.baseline = Baseline::take();
    }

    /// The boot id that processes of this sandbox see.
    ///
    /// # Panics
    /// When /proc is not mounted.
    pub fn boot_id(&self) -> String {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("/proc is mounted").trim().to_owned()
    }

    /// The rules of this sandbox's network as `nft` lists them; `None` where it is not installed.
    pub fn ruleset(&self) -> Option<String> {
        let output = std::process::Command::new("nft").args(["list", "ruleset"]).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn remove_cgroups(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        // A cgroup is busy until its last process is reaped.
        while cgroups(&self.cgroup).into_iter().filter(|dir| fs::remove_dir(dir).is_err()).count() > 0
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Clears everything away by force; what resists is returned.
    fn clear(&mut self) -> Vec<String> {
        self.kill_all();
        let new = self.baseline.new_mounts().into_iter().map(|mount| mount.point);
        unmount([self.data(), self.run()].into_iter().chain(new));
        self.remove_cgroups();
        let mut left: Vec<String> =
            cgroups(&self.cgroup).iter().map(|dir| format!("cgroup: {}", dir.display())).collect();
        left.extend(self.processes().iter().map(|p| format!("process: {} {}", p.pid, p.command)));
        if let Some(dir) = self.dir.take() {
            let path = dir.path().to_owned();
            if std::env::var_os("MAINSTAY_TEST_KEEP").is_some() {
                eprintln!("kept: {}", dir.keep().display());
            } else if let Err(e) = dir.close() {
                left.push(format!("directory: {}: {e}", path.display()));
            }
        }
        left
    }
}

/// Takes mounts away, the latest first; those that are none are left alone.
fn unmount(points: impl IntoIterator<Item = PathBuf>) {
    let points: Vec<PathBuf> = points.into_iter().collect();
    let mounted: Vec<PathBuf> = crate::leaks::mounts().into_iter().map(|mount| mount.point).collect();
    for point in points.iter().rev().filter(|point| mounted.contains(point)) {
        if let Err(e) = umount2(point, MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount {}: {e}", point.display());
        }
    }
}

fn mount_tmpfs(at: &Path) {
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("mode=0711")).expect("root mounts a tmpfs");
}

/// This thread's namespace of a kind, as its link reads.
fn namespace(kind: &str) -> String {
    let link = fs::read_link(format!("/proc/thread-self/ns/{kind}")).expect("/proc is mounted");
    link.to_string_lossy().into_owned()
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let left = self.clear();
        if !left.is_empty() {
            let report = format!("{}: cannot clear away:\n  {}", self.name, left.join("\n  "));
            assert!(std::thread::panicking(), "{report}");
            eprintln!("{report}");
        }
    }
}
