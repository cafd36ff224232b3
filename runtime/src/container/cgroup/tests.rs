use super::*;

#[test]
fn the_mount_table_is_read() {
    let text = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    let layout = Layout::parse(text);
    assert!(!layout.is_unified());
    assert_eq!(layout.v1.keys().collect::<Vec<_>>(), ["cpu", "cpuacct", "name=systemd"]);
    assert_eq!(layout.roots().len(), 2);
    assert_eq!(layout.dirs("/a/../b").len(), 3);
    let two = Layout::parse("30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
    assert!(two.is_unified());
    assert_eq!(two.v2_dir("/x/y"), Some(PathBuf::from("/sys/fs/cgroup/x/y")));
}

/// A version 2 tree in a plain directory: files appear as the kernel would make them.
fn fake_v2(path: &str) -> (tempfile::TempDir, Layout, PathBuf) {
    let root = tempfile::tempdir().expect("a temporary directory");
    let dir = below(root.path(), path);
    let mut at = root.path().to_owned();
    let parts: Vec<_> = Path::new(path).components().skip(1).collect();
    fs::create_dir_all(&dir).expect("a directory");
    for part in std::iter::once(None).chain(parts.into_iter().map(Some)) {
        if let Some(part) = part {
            at.push(part);
        }
        fs::write(at.join("cgroup.controllers"), "cpu memory pids\n").expect("a file");
        fs::write(at.join("cgroup.subtree_control"), "").expect("a file");
    }
    for file in [
        "cpu.weight",
        "cpu.max",
        "memory.max",
        "memory.high",
        "memory.low",
        "memory.swap.max",
        "memory.oom.group",
        "pids.max",
        "cpuset.cpus",
    ] {
        fs::write(dir.join(file), "").expect("a file");
    }
    let layout = Layout { v1: BTreeMap::new(), v2: Some(root.path().to_owned()) };
    (root, layout, dir)
}

#[test]
fn version_2_limits() {
    let (root, layout, dir) = fake_v2("/m/pod/c");
    let resources = Resources {
        cpu_request_milli: Some(500),
        cpu_limit_milli: Some(1500),
        memory_limit: Some(64 << 20),
        memory_high: Some(48 << 20),
        memory_request: Some(32 << 20),
        memory_swap_limit: Some(96 << 20),
        pids_limit: Some(-1),
        cpuset: Some("0-1".to_owned()),
        ..Resources::default()
    };
    let warnings = create(&layout, "/m/pod/c", &resources, None).expect("limits are set");
    assert_eq!(warnings, Vec::<String>::new());
    let check = |file: &str, expected: &str| {
        assert_eq!(fs::read_to_string(dir.join(file)).expect("a file"), expected, "{file}");
    };
    check("cpu.weight", "59");
    check("cpu.max", "150000 100000");
    check("memory.max", "67108864");
    check("memory.swap.max", "33554432");
    check("memory.high", "50331648");
    check("memory.low", "33554432");
    check("memory.oom.group", "1");
    check("pids.max", "max");
    check("cpuset.cpus", "0-1");
    // Delegated from the root down, but not in the cgroup that holds processes.
    let delegated = |dir: &Path| fs::read_to_string(dir.join("cgroup.subtree_control")).expect("a file");
    assert_ne!(delegated(root.path()), "");
    assert_ne!(delegated(&below(root.path(), "/m/pod")), "");
    assert_eq!(delegated(&dir), "");
}

#[test]
fn a_limit_without_its_controller_is_named() {
    let (_root, layout, _dir) = fake_v2("/m/c");
    let huge = Resources { hugepages: [("2Mi".to_owned(), 1 << 21)].into(), ..Resources::default() };
    let error = create(&layout, "/m/c", &huge, None).expect_err("no hugetlb there");
    assert_eq!(error.to_string(), "cannot enforce hugepages limit: this host has no `hugetlb` cgroup controller");
}

#[test]
fn version_2_readings() {
    let (_root, layout, dir) = fake_v2("/m/c");
    for (file, text) in [
        ("cpu.stat", "usage_usec 1500\nnr_throttled 3\nthrottled_usec 20\n"),
        ("memory.current", "5000\n"),
        ("memory.stat", "anon 1\ninactive_file 1000\n"),
        ("memory.max", "max\n"),
        ("memory.events", "low 0\noom 2\noom_kill 1\n"),
        ("pids.current", "4\n"),
        ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n"),
    ] {
        fs::write(dir.join(file), text).expect("a file");
    }
    let read = stats(&layout, "/m/c").expect("readings");
    assert_eq!((read.cpu_nanos, read.throttled), (1_500_000, (3, 20_000)));
    assert_eq!((read.memory_bytes, read.working_set_bytes, read.memory_limit), (5000, 4000, None));
    assert_eq!((read.pids, read.io_bytes), (4, (11, 22)));
    assert_eq!(oom_kills(&layout, "/m/c"), 1);
    assert!(stats(&layout, "/m/none").is_err());
}
