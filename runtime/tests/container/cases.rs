//! The tests.

use std::fs;
use std::io::{BufRead as _, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use runtime::container::{self, ContainerError, ContainerState, Mount, MountKind, Namespace, ShimClient};
use runtime::exec::{self, Captured, ExecError, ExecRequest};
use spec::pod::{Resources, Seccomp};

use crate::fixture::{Fixture, app, processes_with, until};
use crate::parity;

/// A test.
pub(crate) type Test = fn(&Fixture);

/// A test by its name.
type Case = (&'static str, Test);

/// What another runtime is not asked for, or does otherwise: texts of errors of a start; the reaper as first process; the
/// cgroup of version 2, which the test makes without any runtime; runc waits for ever for a FIFO as /etc/passwd.
pub(crate) const BUILT_IN_ONLY: &[&str] = &["start-errors", "init", "device-filter-v2", "hostile-passwd"];

/// Tests of other runtimes alone.
pub(crate) const EXTERNAL: &[Case] = &[("start-errors", external_start_errors)];

pub(crate) const ALL: &[Case] = &[
    ("exit-codes", exit_codes),
    ("output-and-env", output_and_env),
    ("capabilities", capabilities),
    ("seccomp", seccomp),
    ("descriptors-and-signals", descriptors_and_signals),
    ("start-errors", start_errors),
    ("working-directory", working_directory),
    ("users", users),
    ("read-only-root", read_only_root),
    ("terminal", terminal),
    ("oom", oom),
    ("log-rotation", log_rotation),
    ("parent-killed", parent_killed),
    ("shim-killed", shim_killed),
    ("signals", signals),
    ("termination-message", termination_message),
    ("init", init),
    ("parity-with-docker", parity::defaults),
    ("parity-of-users", parity::user),
    ("devices", devices),
    ("device-filter-v2", device_filter_v2),
    ("hostile-passwd", hostile_passwd),
    ("mounts", mounts),
    ("namespaces", namespaces),
    ("shared-processes", shared_processes),
    ("limits", limits),
    ("exec", exec),
    ("exec-terminal", exec_terminal),
    ("attach", attach),
    ("stats-and-update", stats_and_update),
];

fn exit_codes(f: &Fixture) {
    for (script, code, signal) in
        [("exit 0", 0, None), ("exit 7", 7, None), ("exit 255", 255, None), ("kill -9 $$; sleep 9", 0, None)]
    {
        // A signal that PID 1 sends itself has no effect, except on processes below it.
        let script = if script.starts_with("kill") { "sh -c 'kill -9 $$'; exit 0" } else { script };
        let (exit, _) = f.run(&f.config(script));
        assert_eq!((exit.code, exit.signal, exit.oom), (code, signal, false), "{script}");
        assert!(exit.started.is_some_and(|started| started <= exit.finished));
        assert_eq!(exit.boot_id, container::boot_id());
    }
}

fn output_and_env(f: &Fixture) {
    let config = f.config("echo out; echo err >&2; hostname; umask; printf rest");
    let (exit, output) = f.run(&config);
    assert_eq!(exit.code, 0);
    let log = fs::read_to_string(config.log_path.expect("a log")).expect("a log");
    assert!(log.lines().any(|line| line.ends_with(" stdout F out")), "{log}");
    assert!(log.lines().any(|line| line.ends_with(" stderr F err")), "{log}");
    assert!(log.lines().any(|line| line.ends_with(" stdout P rest")), "{log}");
    // Two pipes: which of them is read first is chance.
    assert!(output.replace("err\n", "").contains("out\nbox\n0022\n"), "{output}");
    let output = f.probe("", |c| {
        c.args = vec!["env".into()];
        c.env.0.extend([("B".into(), "1".into()), ("A".into(), "2".into()), ("B".into(), "3".into())]);
    });
    assert_eq!(output, "PATH=/bin\nB=3\nA=2\nHOME=/\n");
}

/// A line of /proc/self/status inside.
fn status(output: &str, key: &str) -> String {
    let line = output.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} in {output}")).trim().to_owned()
}

fn cap_sets(output: &str) -> [u64; 5] {
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        .map(|set| u64::from_str_radix(&status(output, set), 16).expect("a mask"))
}

const DOCKER: u64 = 0xa804_25fb;
const SCRIPT: &str = "cat /proc/self/status";
/// Leaves a process behind, waits until it was reaped after its end, and counts what else nobody has reaped.
const ORPHAN: &str =
    "sh -c 'usleep 5000 & exit'; while grep -qs '^Name:.usleep' /proc/[0-9]*/status; do sleep 0.02; done;
        cat /proc/[0-9]*/status 2>/dev/null | grep -c '^State:.Z'";

fn capabilities(f: &Fixture) {
    let default = f.probe(SCRIPT, |_| {});
    assert_eq!(cap_sets(&default), [0, DOCKER, DOCKER, DOCKER, 0]);
    let user = f.probe(SCRIPT, |c| c.user = app());
    assert_eq!(cap_sets(&user), [0, 0, 0, DOCKER, 0]);
    let dropped = f.probe(SCRIPT, |c| c.security.cap_drop = vec!["ALL".into()]);
    assert_eq!(cap_sets(&dropped), [0; 5]);
    let unconfined = f.probe(SCRIPT, |c| c.security.seccomp = Some(Seccomp::Unconfined));
    assert_eq!(cap_sets(&unconfined), [0, DOCKER, DOCKER, DOCKER, 0]);
    let strict = f.probe(SCRIPT, |c| c.security.allow_privilege_escalation = Some(false));
    assert_eq!(cap_sets(&strict), [0, DOCKER, DOCKER, DOCKER, 0]);
    let admin = f.probe(SCRIPT, |c| c.security.cap_add = vec!["SYS_ADMIN".into()]);
    assert_eq!(cap_sets(&admin), [0, DOCKER | 1 << 21, DOCKER | 1 << 21, DOCKER | 1 << 21, 0]);
    let host = container::caps::bounding().0;
    let privileged = f.probe(SCRIPT, |c| c.security.privileged = true);
    assert_eq!(cap_sets(&privileged), [0, host, host, host, 0]);
}

fn seccomp(f: &Fixture) {
    let check = |output: &str, seccomp: &str, no_new_privs: &str| {
        assert_eq!(
            (status(output, "Seccomp").as_str(), status(output, "NoNewPrivs").as_str()),
            (seccomp, no_new_privs)
        );
    };
    check(&f.probe(SCRIPT, |_| {}), "2", "0");
    check(&f.probe(SCRIPT, |c| c.user = app()), "2", "0");
    check(&f.probe(SCRIPT, |c| c.security.allow_privilege_escalation = Some(false)), "2", "1");
    let user = |c: &mut container::ContainerConfig| {
        c.user = app();
        c.security.allow_privilege_escalation = Some(false);
    };
    check(&f.probe(SCRIPT, user), "2", "1");
    check(&f.probe(SCRIPT, |c| c.security.seccomp = Some(Seccomp::Unconfined)), "0", "0");
    check(&f.probe(SCRIPT, |c| c.security.privileged = true), "0", "0");
    // It does what it says: no new namespaces.
    let output = f.probe("unshare -m true 2>&1; echo $?", |_| {});
    assert!(output.contains("Operation not permitted"), "{output}");

    let profile = f.dir.join("profile.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#;
    fs::write(&profile, text).expect("a profile");
    let output = f.probe("mkdir /tmp/x 2>&1; cat /proc/self/status", |c| {
        c.security.seccomp = Some(Seccomp::Localhost(profile.display().to_string()));
    });
    assert!(output.contains("not supported"), "{output}");
    check(&output, "2", "0");
}

fn descriptors_and_signals(f: &Fixture) {
    // The standard three, and the directory that is being listed.
    let output = f.probe("", |c| c.args = vec!["ls".into(), "/proc/self/fd".into()]);
    assert_eq!(output, "0\n1\n2\n3\n");
    let output = f.probe("", |c| c.args = vec!["cat".into(), "/proc/self/status".into()]);
    for key in ["SigBlk", "SigIgn"] {
        assert_eq!(u64::from_str_radix(&status(&output, key), 16), Ok(0), "{key}");
    }
}

#[track_caller]
fn fails(f: &Fixture, change: impl FnOnce(&mut container::ContainerConfig), expected: &str) {
    let mut config = f.config("true");
    change(&mut config);
    match f.start(&config) {
        Err(ContainerError::Failed(failure)) => {
            assert!(failure.message.contains(expected), "{failure:?} instead of {expected}");
            assert!(failure.permanent, "{failure:?}");
        }
        other => panic!("{other:?} instead of {expected}"),
    }
    assert!(!config.dir.exists());
    assert_eq!(processes_with(&config.cgroup_path), Vec::<u32>::new());
}

fn start_errors(f: &Fixture) {
    let layer = f.layer();
    fs::write(layer.join("bin/plain"), "text").expect("a file");
    fs::write(layer.join("bin/script"), "#!/none/such\n").expect("a file");
    fs::write(layer.join("bin/garbage"), "no program").expect("a file");
    for name in ["script", "garbage"] {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(layer.join("bin").join(name), fs::Permissions::from_mode(0o755)).expect("mode");
    }
    let run = |args: &[&str]| {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        move |c: &mut container::ContainerConfig| c.args = args
    };
    fails(f, run(&["nosuch"]), "no program \"nosuch\" in the image (PATH is /bin)");
    fails(f, run(&["/no/such"]), "no program \"/no/such\" in the image");
    fails(f, run(&["plain"]), "cannot execute /bin/plain: user 0 may not");
    fails(f, run(&["script"]), "its interpreter /none/such is not in the image");
    fails(f, run(&["garbage"]), "not a program for this machine");
    fails(f, run(&["/etc"]), "it is a directory");
    fails(f, run(&[]), "no command");
    fails(f, |c| c.security.cap_add = vec!["NONE".into()], "unknown capability NONE");
    fails(f, |c| c.security.seccomp = Some(Seccomp::Localhost("/none".into())), "cannot read seccomp profile /none");
    fails(f, |c| c.cwd = "/etc/passwd".into(), "cannot use working directory /etc/passwd");
    fails(f, |c| c.devices = vec![device("/dev/none")], "cannot use device /dev/none");
}

fn external_start_errors(f: &Fixture) {
    let failure = |change: fn(&mut container::ContainerConfig)| {
        let mut config = f.config("true");
        change(&mut config);
        let failure = match f.start(&config) {
            Err(ContainerError::Failed(failure)) => failure,
            other => panic!("{other:?}"),
        };
        assert!(!config.dir.exists());
        assert_eq!(processes_with(&config.cgroup_path), Vec::<u32>::new());
        failure
    };
    let missing = failure(|c| c.args = vec!["nosuch".into()]);
    assert!(missing.stage == "exec" && missing.message.contains("nosuch"), "{missing:?}");
    let reaper = failure(|c| c.init = true);
    assert!(reaper.permanent && reaper.message.contains("built-in runtime only"), "{reaper:?}");
    let program = failure(|c| c.runtime.iter_mut().for_each(|program| program.path = "/no/such".into()));
    assert!(program.message.contains("cannot run /no/such of runtime `"), "{program:?}");
    let broken = failure(|c| c.runtime.iter_mut().for_each(|program| program.args = vec!["--no-such-flag".into()]));
    assert!(broken.message.contains("could not `create`"), "{broken:?}");
}

fn device(path: &str) -> spec::pod::Device {
    spec::pod::Device { host_path: path.into(), container_path: path.into(), permissions: None }
}

fn working_directory(f: &Fixture) {
    assert_eq!(f.probe("pwd", |c| c.cwd = "/home/app".into()), "/home/app\n");
    assert_eq!(f.probe("pwd", |c| c.cwd = "/made/when/missing".into()), "/made/when/missing\n");
    assert_eq!(f.probe("pwd", |_| {}), "/\n");
}

fn users(f: &Fixture) {
    let user =
        container::users::resolve(&[f.layer()], "app", &[], container::users::Memberships::Always).expect("a user");
    assert_eq!(user, app());
    let output = f.probe("id -u; id -g; id -G; echo $HOME; cat /proc/self/status", |c| c.user = user);
    assert!(output.starts_with("1000\n1001\n1001 2000\n/home/app\n"), "{output}");
    assert_eq!(status(&output, "Uid"), "1000\t1000\t1000\t1000");
    // Output streams can be opened again by a program that is not root.
    assert_eq!(f.probe("echo again > /dev/stdout", |c| c.user = app()), "again\n");
}

fn read_only_root(f: &Fixture) {
    let output = f.probe("touch /x 2>&1; touch /dev/shm/y && echo shm", |c| c.security.read_only_root = true);
    assert!(output.contains("Read-only file system") && output.ends_with("shm\n"), "{output}");
}

fn terminal(f: &Fixture) {
    let output =
        f.probe("tty; echo $TERM; test -t 0 && test -t 1 && echo both; ls -l /dev/console | cut -c1", |c| c.tty = true);
    assert_eq!(output.replace('\r', ""), "/dev/pts/0\nxterm\nboth\nc\n");
    // It belongs to the user, who can open it again.
    let output = f.probe("stat -c %u:%g /dev/console /dev/pts/0; echo yes > /dev/stdout", |c| {
        (c.tty, c.user) = (true, app());
    });
    assert_eq!(output.replace('\r', ""), "1000:5\n1000:5\nyes\n");
    let mut config = f.config("trap 'stty size; exit 3' WINCH; echo ready; while true; do sleep 0.05; done");
    config.tty = true;
    f.start(&config).expect("started");
    until("it is ready", || f.output(&config).contains("ready"));
    ShimClient::connect(&config.dir).and_then(|mut shim| shim.resize(33, 99)).expect("resized");
    let (exit, output) = f.wait(&config);
    assert_eq!(exit.code, 3);
    assert!(output.contains("33 99"), "{output}");
}

fn oom(f: &Fixture) {
    let mut config = f.config("x=a; while true; do x=$x$x; done");
    config.resources = Resources { memory_limit: Some(16 << 20), ..Resources::default() };
    let (exit, _) = f.run(&config);
    assert!(exit.oom, "{exit:?}");
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
}

fn log_rotation(f: &Fixture) {
    let mut config = f.config("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done");
    config.log_max_size = 20_000;
    config.log_max_files = 3;
    let (exit, output) = f.run(&config);
    assert_eq!(exit.code, 0);
    assert!(output.ends_with("line 1999\n"), "{output}");
    let log = config.log_path.expect("a log");
    let names: Vec<_> = fs::read_dir(log.parent().expect("a directory")).expect("listed").flatten().collect();
    assert_eq!(names.len(), 3);
    assert!(names.iter().all(|entry| entry.metadata().is_ok_and(|meta| meta.len() <= 20_000)));
}

fn parent_killed(f: &Fixture) {
    let config = f.config("i=0; while [ ! -e /tmp/stop ]; do echo $i; i=$((i+1)); sleep 0.05; done; exit 42");
    let file = f.dir.join("parent.json");
    fs::write(&file, serde_json::to_vec(&config).expect("JSON")).expect("a file");
    let mut parent = Command::new("/proc/self/exe")
        .arg("start-and-die")
        .arg(&file)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a parent");
    let mut pid = String::new();
    let out = parent.stdout.take().expect("its output");
    std::io::BufReader::new(out).read_line(&mut pid).expect("a pid");
    parent.kill().expect("killed");
    parent.wait().expect("reaped");
    let before = f.output(&config).lines().count();
    until("it goes on logging", || f.output(&config).lines().count() > before + 3);
    match container::inspect(&config.dir, &config.exit_file, &config.cgroup_path).expect("inspected") {
        ContainerState::Running(state) => assert_eq!(state.pid.to_string(), pid.trim()),
        other => panic!("{other:?}"),
    }
    fs::write(f.dir.join(format!("data/{}/upper/tmp/stop", config.id)), "")
        .or_else(|_| {
            let root = format!("/proc/{}/root/tmp/stop", pid.trim());
            fs::write(root, "")
        })
        .expect("a file");
    let (exit, output) = f.wait(&config);
    assert_eq!(exit.code, 42);
    let numbers: Vec<usize> = output.lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>(), "the log has no gap");
}

fn shim_killed(f: &Fixture) {
    let config = f.config("sleep 1000 & sleep 1000");
    let running = f.start(&config).expect("started");
    let kill =
        |pid: u32| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::SIGKILL);
    kill(running.shim_pid).expect("killed");
    match container::inspect(&config.dir, &config.exit_file, &config.cgroup_path).expect("inspected") {
        ContainerState::Lost(exit) => assert!(exit.error.is_some_and(|text| text.starts_with("lost"))),
        other => panic!("{other:?}"),
    }
    // The first process may still wait for its new parent to reap it.
    until("no process is left", || processes_with(&config.cgroup_path).is_empty());
    assert!(!config.dir.exists());
    match container::inspect(&config.dir, &config.exit_file, &config.cgroup_path).expect("inspected") {
        ContainerState::Exited(exit) => assert_eq!(exit.code, 137),
        other => panic!("{other:?}"),
    }
}

fn signals(f: &Fixture) {
    let config = f.config("trap 'echo got; exit 5' TERM; echo ready; while true; do sleep 0.02; done");
    f.start(&config).expect("started");
    until("it is ready", || f.output(&config).contains("ready"));
    let mut shim = ShimClient::connect(&config.dir).expect("a shim");
    shim.signal(15).expect("sent");
    let (exit, output) = f.wait(&config);
    assert_eq!((exit.code, output.as_str()), (5, "ready\ngot\n"));

    // Realtime signals too: systemd as PID 1 is stopped with one.
    let config = f.config("trap 'exit 8' 37; echo ready; while true; do sleep 0.02; done");
    f.start(&config).expect("started");
    until("it is ready", || f.output(&config).contains("ready"));
    let mut shim = ShimClient::connect(&config.dir).expect("a shim");
    assert!(shim.signal(99).is_err());
    shim.signal(37).expect("sent");
    assert_eq!(f.wait(&config).0.code, 8);

    let config = f.config("sleep 1000 & wait");
    f.start(&config).expect("started");
    ShimClient::connect(&config.dir).and_then(|mut shim| shim.signal(9)).expect("sent");
    let (exit, _) = f.wait(&config);
    assert_eq!((exit.code, exit.signal), (137, Some(9)));

    let config = f.config("sleep 1000 & sleep 1000");
    f.start(&config).expect("started");
    assert_eq!(f.kill(&config).signal, Some(9));
}

fn termination_message(f: &Fixture) {
    let run = |script: &str, from_log: bool| {
        let mut config = f.config(script);
        config.termination_message_path = Some("/dev/termination-log".into());
        config.termination_message_from_log = from_log;
        f.run(&config).0.message
    };
    assert_eq!(run("echo -n why > /dev/termination-log; exit 1", false).as_deref(), Some("why"));
    assert_eq!(run("exit 1", false), None);
    assert_eq!(run("echo one; echo two; exit 1", true).as_deref(), Some("one\ntwo"));
    assert_eq!(run("echo one; exit 0", true), None);
    let long = run("head -c 9000 /dev/zero | tr '\\0' x > /dev/termination-log", false);
    assert_eq!(long.map(|text| text.len()), Some(4096));
}

fn init(f: &Fixture) {
    let script = format!("echo $$; cat /proc/1/comm; {ORPHAN}; {SCRIPT}");
    let output = f.probe(&script, |c| c.init = true);
    let lines: Vec<&str> = output.lines().take(3).collect();
    assert_eq!(lines, ["2", "mainstay-init", "0"], "{output}");
    assert_eq!(cap_sets(&output), [0, DOCKER, DOCKER, DOCKER, 0]);
    assert_eq!(status(&output, "Seccomp"), "2");
    // PID 1 is confined like the program, and nothing in it leads to the host.
    let mut config = f.config("sleep 1000");
    config.init = true;
    let pid = f.start(&config).expect("started").pid;
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("it runs");
    assert_eq!(command.trim_end_matches('\0'), "mainstay-init");
    let output = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert_eq!((&*status(&output, "Seccomp"), cap_sets(&output)), ("2", [0, DOCKER, DOCKER, DOCKER, 0]));
    // It closes what it does not need once the program is on its way.
    until("only its streams are open", || fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count() == 3);
    f.kill(&config);
    let mut config = f.config("exit 9");
    config.init = true;
    assert_eq!(f.run(&config).0.code, 9);
    let mut config = f.config("trap 'exit 6' TERM; echo ready; while true; do sleep 0.02; done");
    config.init = true;
    f.start(&config).expect("started");
    until("it is ready", || f.output(&config).contains("ready"));
    ShimClient::connect(&config.dir).and_then(|mut shim| shim.signal(15)).expect("sent");
    assert_eq!(f.wait(&config).0.code, 6);
    fails(
        f,
        |c| {
            c.init = true;
            c.args = vec!["nosuch".into()];
        },
        "no program",
    );
}

fn request(script: &str) -> ExecRequest {
    ExecRequest { args: vec!["sh".into(), "-c".into(), script.into()], ..ExecRequest::default() }
}

fn exec(f: &Fixture) {
    let mut config = f.config("trap 'exit 0' TERM; while true; do sleep 0.05; done");
    config.env.0.push(("OWN".into(), "1".into()));
    (config.user.additional_gids, config.user.manifest_gids) = (vec![77, 88], vec![77]);
    f.start(&config).expect("started");
    let long = Duration::from_secs(20);
    let capture = |request: &ExecRequest| exec::capture(&config.dir, request, 10_000, long, &f.exe);
    let run = |script: &str, change: &dyn Fn(&mut ExecRequest)| {
        let mut request = request(script);
        change(&mut request);
        let Captured { code, output, truncated } = capture(&request).expect("ran");
        assert!(!truncated);
        (code, String::from_utf8(output).expect("text"))
    };
    let text = |text: &str| text.to_owned();
    assert_eq!(run("exit 0", &|_| {}), (Some(0), text("")));
    assert_eq!(run("echo out; echo err >&2; exit 7", &|_| {}), (Some(7), text("out\nerr\n")));
    assert_eq!(run("kill -9 $$", &|_| {}), (Some(137), text("")));
    assert_eq!(run("echo $OWN $NEW", &|r| r.env.0.push(("NEW".into(), "2".into()))), (Some(0), text("1 2\n")));
    assert_eq!(run("pwd", &|r| r.cwd = Some("/home".into())).1, "/home\n");
    assert_eq!(run("id -u; id -G; echo $HOME", &|r| r.user = Some("app".into())).1, "1000\n1001 77 2000\n/home/app\n");
    assert_eq!(run("hostname; cat /proc/1/comm", &|_| {}).1, "box\nsh\n");
    // Whoever it is can open the pipes by name, and is in the groups of the manifest, not in those of another user.
    assert_eq!(run("echo x > /dev/stdout", &|r| r.user = Some("app".into())).1, "x\n");
    let groups = "sed -n 's/^Groups:[[:space:]]*//p' /proc/self/status";
    assert_eq!(run(groups, &|r| r.user = Some("4242".into())).1, "0 77 \n");
    let (_, output) = run(SCRIPT, &|_| {});
    assert_eq!(cap_sets(&output), [0, DOCKER, DOCKER, DOCKER, 0]);
    assert_eq!(status(&output, "Seccomp"), "2");
    let (_, output) = run(SCRIPT, &|r| r.user = Some("1000".into()));
    assert_eq!(cap_sets(&output), [0, 0, 0, DOCKER, 0]);
    let list = ExecRequest { args: vec!["ls".into(), "/proc/self/fd".into()], ..ExecRequest::default() };
    assert_eq!(capture(&list).expect("ran").output, b"0\n1\n2\n3\n");
    // It is in the container's cgroup: what the kernel shows inside is the root of that.
    let (_, output) = run("cat /proc/self/cgroup", &|_| {});
    assert!(output.lines().filter(|line| line.contains(":memory:")).all(|line| line.ends_with(":/")), "{output}");

    for (args, user, expected) in [("nosuch", None, "nosuch"), ("true", Some("nobody"), "no user \"nobody\"")] {
        let request = ExecRequest { args: vec![args.into()], user: user.map(str::to_owned), ..ExecRequest::default() };
        match capture(&request) {
            Err(ExecError::Failed(failure)) => assert!(failure.message.contains(expected), "{failure:?}"),
            other => panic!("{other:?}"),
        }
    }
    // Endless output is cut, an endless run is ended, and a child left behind holds nobody up.
    // How long a process takes to its first line is the machine's affair; the first limit that is enough counts.
    let cut = [300, 3000, 20_000].into_iter().find_map(|limit| {
        let limit = Duration::from_millis(limit);
        let noise = exec::capture(&config.dir, &request("yes"), 100, limit, &f.exe).expect("ran");
        assert_eq!(noise.code, None);
        noise.truncated.then_some(noise.output.len())
    });
    assert_eq!(cut, Some(100));
    until("it was ended", || run("ps", &|_| {}).1.lines().all(|line| !line.ends_with(" yes")));
    assert_eq!(run("sleep 1000 & echo left", &|_| {}), (Some(0), text("left\n")));
    let files = fs::read_dir(&config.dir).expect("listed").flatten();
    assert!(files.filter(|entry| entry.file_name().to_string_lossy().starts_with("exec-")).count() == 0);
    ShimClient::connect(&config.dir).and_then(|mut shim| shim.signal(15)).expect("sent");
    assert_eq!(f.wait(&config).0.code, 0);
    match exec::capture(&config.dir, &request("true"), 1, long, &f.exe) {
        Err(ExecError::Request { .. }) => {}
        other => panic!("{other:?}"),
    }
}

fn exec_terminal(f: &Fixture) {
    let config = f.config("sleep 1000");
    f.start(&config).expect("started");
    let mut request = request("tty; read line; echo got $line; exit 4");
    request.tty = true;
    let streams = [Stdio::piped(), Stdio::piped(), Stdio::inherit()];
    let mut process = exec::spawn(&config.dir, &request, streams, &f.exe).expect("spawned");
    let mut input = process.child().stdin.take().expect("a pipe");
    let mut output = process.child().stdout.take().expect("a pipe");
    input.write_all(b"hello\n").expect("written");
    assert_eq!(process.wait().expect("ran"), 4);
    let mut text = String::new();
    output.read_to_string(&mut text).expect("text");
    let text = text.replace('\r', "");
    assert!(text.contains("/dev/pts/0\n") && text.ends_with("got hello\n"), "{text}");
    f.kill(&config);
}

fn attach(f: &Fixture) {
    let mut config = f.config("while read line; do echo got $line; done; echo end; exit 3");
    config.stdin = true;
    f.start(&config).expect("started");
    let mut stream = ShimClient::connect(&config.dir).and_then(|shim| shim.attach(true)).expect("attached");
    let frame = |kind: u8, payload: &[u8]| {
        let mut bytes = vec![kind];
        bytes.extend(u32::try_from(payload.len()).expect("short").to_le_bytes());
        bytes.extend(payload);
        bytes
    };
    stream.write_all(&frame(0, b"one\ntwo\n")).expect("written");
    // Far more than the pipe holds: it has to wait for the program.
    let many = "x\n".repeat(100_000);
    let mut writer = stream.try_clone().expect("a second handle");
    let bytes = [frame(0, many.as_bytes()), frame(3, b"")].concat();
    let writing = std::thread::spawn(move || writer.write_all(&bytes));
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("frames until the end");
    writing.join().expect("no panic").expect("written");
    let (mut text, mut rest) = (Vec::new(), all.as_slice());
    while let Some((&[kind, a, b, c, d], after)) = rest.split_first_chunk::<5>() {
        assert_eq!(kind, 1);
        let (payload, next) = after.split_at(u32::from_le_bytes([a, b, c, d]) as usize);
        text.extend_from_slice(payload);
        rest = next;
    }
    let text = String::from_utf8(text).expect("text");
    assert!(text.starts_with("got one\ngot two\ngot x\n") && text.ends_with("got x\nend\n"));
    assert_eq!(text.lines().count(), 100_003);
    assert_eq!(f.wait(&config).0.code, 3);

    // Whoever is behind when the program ends is still told the rest.
    let mut config = f.config("read go; head -c 700000 /dev/zero");
    config.stdin = true;
    f.start(&config).expect("started");
    let mut stream = ShimClient::connect(&config.dir).and_then(|shim| shim.attach(true)).expect("attached");
    stream.write_all(&frame(0, b"go\n")).expect("written");
    until("the end is recorded", || config.exit_file.exists());
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("frames until the end");
    assert!(all.len() > 700_000, "{} bytes of it came", all.len());
    f.wait(&config);
}

fn stats_and_update(f: &Fixture) {
    let mut config = f.config("sleep 1000 & sleep 1000");
    config.resources = Resources {
        memory_limit: Some(64 << 20),
        cpu_limit_milli: Some(500),
        cpu_request_milli: Some(250),
        pids_limit: Some(40),
        ..Resources::default()
    };
    f.start(&config).expect("started");
    let layout = container::cgroup::Layout::detect().expect("cgroups");
    let read = || container::cgroup::stats(&layout, &config.cgroup_path).expect("readings");
    until("both sleep", || read().pids == 2);
    let stats = read();
    assert_eq!(stats.memory_limit, Some(64 << 20));
    assert!(stats.cpu_nanos > 0 && stats.memory_bytes > 0 && stats.working_set_bytes <= stats.memory_bytes);
    config.resources.memory_limit = Some(80 << 20);
    ShimClient::connect(&config.dir).and_then(|mut shim| shim.update(&config.resources)).expect("updated");
    assert_eq!(read().memory_limit, Some(80 << 20));
    f.kill(&config);
}

fn devices(f: &Fixture) {
    let script = "stat -c %t:%T /dev/in/mine; head -c 1 /dev/in/mine | wc -c; echo x > /dev/in/mine || echo denied; stat -c %a /dev/in";
    let output = f.probe(script, |c| {
        c.devices = vec![spec::pod::Device {
            host_path: "/dev/urandom".into(),
            container_path: "/dev/in/mine".into(),
            permissions: None,
        }];
    });
    assert_eq!(output, "1:9\n1\n755\n");
    // Without write permission, of a device that is not among the defaults.
    let output = f.probe("test -r /dev/kmsg && echo x > /dev/kmsg", |c| {
        c.devices = vec![spec::pod::Device { permissions: Some("r".into()), ..device("/dev/kmsg") }];
        c.args[2] = format!("{} || echo denied", c.args[2]);
    });
    assert!(output.contains("denied\n"), "{output}");
    let output = f.probe("ls /dev | wc -l; test -c /dev/kmsg && echo all", |c| c.security.privileged = true);
    assert!(output.ends_with("all\n"), "{output}");
    fails(
        f,
        |c| c.devices = vec![spec::pod::Device { permissions: Some("x".into()), ..device("/dev/null") }],
        "permissions",
    );
}

/// The eBPF program of version 2, in the unified hierarchy that a hybrid host has as well.
fn device_filter_v2(f: &Fixture) {
    let mut layout = container::cgroup::Layout::detect().expect("cgroups");
    let Some(root) = layout.v2.clone() else {
        eprintln!("skipped: no cgroup version 2 is mounted");
        return;
    };
    layout.v1.clear();
    let path = format!("{}/filter", f.cgroup);
    let rules = container::cgroup::default_rules(false);
    container::cgroup::create(&layout, &path, &Resources::default(), Some(&rules)).expect("a filter");
    let procs = root.join(path.trim_start_matches('/')).join("cgroup.procs");
    let script = format!(
        "echo $$ > {}; for d in zero urandom mem kmsg; do head -c1 /dev/$d >/dev/null 2>&1 && echo $d; done; true",
        procs.display()
    );
    let node = f.dir.join("mem");
    let made = Command::new("/bin/busybox").args(["mknod", &node.display().to_string(), "c", "1", "1"]).status();
    assert!(made.is_ok_and(|status| status.success()));
    let output = Command::new("/bin/busybox").args(["sh", "-c", &script]).output().expect("ran");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "zero\nurandom\n");
    container::cgroup::kill_all(&layout, &path, Duration::from_secs(5)).expect("nothing is left in it");
    container::cgroup::remove(&layout, &path).expect("removed");
}

fn bind(source: &std::path::Path, target: &str) -> Mount {
    Mount {
        source: source.to_owned(),
        target: target.into(),
        kind: MountKind::Bind,
        read_only: false,
        recursive_read_only: false,
        propagation: None,
        shifted: false,
    }
}

fn mounts(f: &Fixture) {
    let host = f.dir.join("host");
    fs::create_dir_all(host.join("sub")).expect("a directory");
    fs::write(host.join("file"), "from the host").expect("a file");
    let kept = f.layer().join("kept");
    fs::create_dir(&kept).and_then(|()| fs::set_permissions(&kept, fs::Permissions::from_mode(0o750))).expect("made");
    let script = "cat /data/file /new/deep/one; echo; echo x > /data/out; touch /ro/y 2>&1; touch /new/deep/one 2>&1;
        m() { awk -v p=$1 '$5 == p {print $6}' /proc/self/mountinfo; }; m /mem; m /small; df -k /small | awk 'NR==2 {print $2}';
        stat -c %a /small /mem /kept; df -k /dev/shm | awk 'NR==2 {print $2}'";
    let output = f.probe(script, |c| {
        let tmpfs = |target: &str, size, options: &[&str]| Mount {
            kind: MountKind::Tmpfs { size, options: options.iter().map(|&option| option.to_owned()).collect() },
            ..bind(std::path::Path::new(""), target)
        };
        c.shm_size = Some(1 << 20);
        c.mounts = vec![
            bind(&host, "/data"),
            Mount { read_only: true, ..bind(&host, "/ro") },
            Mount { read_only: true, ..bind(&host.join("file"), "/new/deep/one") },
            tmpfs("/mem", None, &[]),
            tmpfs("/small", Some(2 << 20), &["exec", "mode=1770"]),
            tmpfs("/kept", None, &[]),
        ];
    });
    let expected = "from the hostfrom the host\ntouch: /ro/y: Read-only file system\n\
        touch: /new/deep/one: Read-only file system\nrw,nosuid,nodev,noexec,relatime\n\
        rw,nosuid,nodev,relatime\n2048\n1770\n1777\n750\n1024\n";
    assert_eq!(output, expected);
    assert_eq!(fs::read_to_string(host.join("out")).expect("written through"), "x\n");
    // A link in the image does not lead a mount out of it.
    std::os::unix::fs::symlink("/../../../../tmp", f.layer().join("way-out")).expect("a link");
    let output = f.probe("cat /tmp/in/file", |c| c.mounts = vec![bind(&host, "/way-out/in")]);
    assert_eq!(output, "from the host\n");
    let mut config = f.config("true");
    config.mounts = vec![bind(&f.dir.join("none"), "/data")];
    match f.start(&config) {
        Err(ContainerError::Failed(failure)) => {
            assert!(failure.message.contains("/none at /data: No such file"), "{failure:?}");
            assert!(!failure.permanent);
        }
        other => panic!("{other:?}"),
    }
}

fn namespaces(f: &Fixture) {
    let links = "for n in net ipc uts pid mnt cgroup user; do readlink /proc/self/ns/$n; done";
    let first = f.config(&format!("{links}; sleep 1000"));
    let running = f.start(&first).expect("started");
    until("it has written", || f.output(&first).lines().count() == 7);
    let of_first = f.output(&first);
    let path = |name: &str| Namespace::Path(format!("/proc/{}/ns/{name}", running.pid).into());
    let shared = f.probe(&format!("{links}; cat /proc/1/cmdline | tr '\\0' ' '"), |c| {
        c.namespaces.net = path("net");
        c.namespaces.ipc = path("ipc");
        c.namespaces.uts = path("uts");
        c.namespaces.pid = path("pid");
    });
    let same: Vec<bool> = of_first.lines().zip(shared.lines()).map(|(a, b)| a == b).collect();
    assert_eq!(same, [true, true, true, true, false, false, true], "{of_first}{shared}");
    assert!(shared.contains("sleep 1000"), "{shared}");
    f.kill(&first);

    let of_host = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).expect("a link").display().to_string();
    let host = f.probe(&format!("{links}; echo $PPID"), |c| {
        c.namespaces.net = Namespace::Host;
        c.namespaces.ipc = Namespace::Host;
        c.namespaces.uts = Namespace::Host;
        c.namespaces.pid = Namespace::Host;
        c.security.host_cgroup_namespace = true;
    });
    let lines: Vec<&str> = host.lines().collect();
    for (at, name) in [(0, "net"), (1, "ipc"), (2, "uts"), (3, "pid"), (5, "cgroup"), (6, "user")] {
        assert_eq!(lines[at], of_host(name), "{name}");
    }
    // On the host's processes nothing that the container started is left behind.
    let mut config = f.config("sleep 1000 & sleep 1000 & exit 4");
    config.namespaces.pid = Namespace::Host;
    assert_eq!(f.run(&config).0.code, 4);
    assert_eq!(processes_with(&config.cgroup_path), Vec::<u32>::new());
}

fn limits(f: &Fixture) {
    let mut config = f.config("ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj; sleep 1000");
    let limit = |soft, hard| spec::pod::Ulimit { soft, hard };
    config.ulimits = [("nofile".to_owned(), limit(512, 1024)), ("core".to_owned(), limit(0, -1))].into();
    config.ulimits.insert("memlock".to_owned(), limit(i64::MAX, i64::MAX));
    config.oom_score_adj = Some(500);
    let running = f.start(&config).expect("started");
    until("it has written", || f.output(&config).lines().count() == 4);
    assert_eq!(f.output(&config), "512\n1024\n0\n500\n");
    // This host may not raise everything: then that is told instead of failing.
    assert!(running.warnings.iter().all(|warning| warning.starts_with("ulimit ")), "{:?}", running.warnings);
    f.kill(&config);
    let mut config = f.config("i=0; while sleep 1000 & do i=$((i+1)); echo $i; done");
    config.resources.pids_limit = Some(10);
    f.start(&config).expect("started");
    until("forks are refused", || f.output(&config).contains("Resource temporarily unavailable"));
    f.kill(&config);
    let disk = fs::read_dir("/sys/block").expect("block devices").flatten().find_map(|entry| {
        let number = fs::read_to_string(entry.path().join("dev")).ok()?;
        let node = format!("/dev/{}", entry.file_name().to_string_lossy());
        std::path::Path::new(&node).exists().then(|| (node, number.trim().to_owned()))
    });
    let (node, number) = disk.expect("a machine has a disk");
    let mut config = f.config("sleep 1000");
    let limit = spec::pod::DiskLimit { path: node, write_bps: Some(1 << 20), ..spec::pod::DiskLimit::default() };
    config.resources.disk_limits = vec![limit.clone()];
    f.start(&config).expect("started");
    let layout = container::cgroup::Layout::detect().expect("cgroups");
    let (root, file) = match (layout.v1.get("blkio"), &layout.v2) {
        (Some(root), _) => (root, "blkio.throttle.write_bps_device"),
        (None, root) => (root.as_ref().expect("cgroups"), "io.max"),
    };
    let file = root.join(config.cgroup_path.trim_start_matches('/')).join(file);
    let text = fs::read_to_string(&file).expect("a file of the cgroup");
    assert!(text.starts_with(&number) && text.contains("1048576"), "{text:?} for {number}");
    f.kill(&config);
    let none = spec::pod::DiskLimit { path: "/dev/null".to_owned(), ..limit };
    fails(f, |c| c.resources.disk_limits = vec![none.clone()], "/dev/null: it is no block device");
    fails(f, |c| c.resources.hugepages = [("3Mi".to_owned(), 1)].into(), "cannot enforce hugepages limit");
}

fn shared_processes(f: &Fixture) {
    let cgroup = format!("{}/init", f.cgroup);
    let init = container::start_pod_init(&f.dir.join("init"), &cgroup, None, &f.exe).expect("started");
    let join = |c: &mut container::ContainerConfig| {
        c.namespaces.pid = Namespace::Path(format!("/proc/{}/ns/pid", init.pid).into());
    };
    let mut config = f.config("sleep 1000");
    join(&mut config);
    f.start(&config).expect("started");
    // The neighbour is in sight, PID 1 holds nothing, and what is orphaned is reaped.
    let script = "cat /proc/1/comm; tr -d '\\0' < /proc/1/cmdline; echo; ps | grep -c 'sleep [1]000'; ORPHAN; ls /proc/1/root/ 2>&1 | grep -c -e bin -e work; ls /proc/1/fd | wc -l;
        sed -n 's/^Cap[PE]..://p' /proc/1/status";
    let output = f.probe(&script.replace("ORPHAN", ORPHAN), |c| {
        join(c);
        c.security.cap_add = vec!["SYS_PTRACE".into()];
    });
    assert_eq!(output, "mainstay-init\nmainstay-init\n1\n0\n0\n0\n\t0000000000000000\n\t0000000000000000\n");
    f.kill(&config);
    container::kill_all(&cgroup).expect("killed");
    container::cleanup(&f.dir.join("init"), &cgroup).expect("removed");
}

/// Nothing of ours that is privileged may look users up inside: libc would load modules that the image names.
fn hostile_passwd(f: &Fixture) {
    let etc = f.layer().join("etc");
    for name in ["passwd", "group"] {
        fs::remove_file(etc.join(name)).expect("removed");
        // Whoever opens it for reading hangs.
        nix::unistd::mkfifo(&etc.join(name), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    }
    let begin = std::time::Instant::now();
    assert_eq!(f.probe("echo fine", |_| {}), "fine\n");
    let config = f.config("sleep 1000");
    f.start(&config).expect("started");
    let fine = exec::capture(&config.dir, &request("exit 3"), 10, Duration::from_secs(20), &f.exe).expect("ran");
    assert_eq!(fine.code, Some(3));
    f.kill(&config);
    assert!(begin.elapsed() < Duration::from_secs(60));
}
