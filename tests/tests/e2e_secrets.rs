//! Encrypted Secrets, from the repository to the container, with canaries that may show up nowhere else.

use std::path::PathBuf;
use std::process::{Child, Command};

use serde_json::json;
use tests::agent::{SOON, poll};
use tests::manifest::deployment;
use tests::server::Server;
use tests::{Agent, Sandbox, http, require_root, world};

/// What is encrypted in the fixtures.
const CANARY: &str = "canary-of-a-password";

/// Parts of its base64 at each of the three places where it may begin in a longer text.
const ENCODED: [&str; 3] = ["Y2FuYXJ5LW9mLWEtcGFzc3dvcm", "NhbmFyeS1vZi1hLXBhc3N3b3Jk", "jYW5hcnktb2YtYS1wYXNzd29yZ"];

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../agent/src/decrypt/fixtures").join(name);
    std::fs::read(path).expect("the fixture is there")
}

fn write_private(path: &std::path::Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, bytes).expect("the directory is ours");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
}

fn is_canary(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.contains(CANARY) || ENCODED.iter().any(|encoded| text.contains(encoded))
}

/// Processes outside of containers that have a canary in their command line or environment, where others could read it.
fn processes_holding() -> Vec<String> {
    let namespace = |path: PathBuf| std::fs::read_link(path.join("ns/pid")).ok();
    let ours = namespace("/proc/self".into());
    let entries = std::fs::read_dir("/proc").expect("proc is mounted").flatten().map(|entry| entry.path());
    let processes = entries.filter(|path| path.join("status").exists());
    let holds = |path: &PathBuf| {
        let read = |name: &str| std::fs::read(path.join(name)).unwrap_or_default();
        // What runs in a container was given its secrets.
        let inside = namespace(path.clone()) != ours;
        is_canary(&read("cmdline")) || (!inside && is_canary(&read("environ")))
    };
    processes.filter(holds).map(|path| path.display().to_string()).collect()
}

/// Whether nobody but root can reach a file: it, or a directory on the way to it, is closed.
fn is_closed(file: &std::path::Path, top: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let way = file.ancestors().take_while(|path| path.starts_with(top));
    let closed = |path: &std::path::Path| {
        std::fs::metadata(path)
            .is_ok_and(|meta| meta.uid() == 0 && meta.mode() & if meta.is_dir() { 0o011 } else { 0o044 } == 0)
    };
    way.into_iter().any(closed)
}

/// The files below some paths that hold one of the canaries.
fn holding(paths: &[PathBuf]) -> String {
    let mut grep = std::process::Command::new("grep");
    grep.args(["--recursive", "--binary-files=text", "--files-with-matches", "--fixed-strings", "-e", CANARY]);
    grep.args(ENCODED.iter().flat_map(|text| ["-e", text])).args(paths);
    String::from_utf8_lossy(&grep.output().expect("grep is there").stdout).into_owned()
}

#[test]
fn encrypted_secrets_reach_containers_and_nothing_else() {
    if !require_root("encrypted_secrets_reach_containers_and_nothing_else") {
        return;
    }
    let (sandbox, _registry, image) = world("secrets");
    let key = sandbox.dir().join("age.key");
    write_private(&key, &fixture("key.txt"));
    let secret = |name: &str| {
        let draft = sandbox.dir().join("draft");
        std::fs::write(&draft, fixture(name)).expect("the directory is ours");
        std::fs::rename(draft, sandbox.manifests().join("secret.yaml")).expect("one file system");
    };
    let text = String::from_utf8(fixture("values.yaml")).expect("text");
    sandbox.write("secret.yaml", &text);
    let mut web = deployment("web", 1, &image, &["serve"]);
    let pod = &mut web["spec"]["template"]["spec"];
    pod["containers"][0]["env"] =
        json!([{"name": "MESSAGE", "valueFrom": {"secretKeyRef": {"name": "database", "key": "password"}}}]);
    pod["containers"][0]["volumeMounts"] = json!([{"name": "s", "mountPath": "/s"}]);
    pod["containers"][0]["ports"] = json!([{"containerPort": 8080, "hostPort": 8080}]);
    pod["volumes"] = json!([{"name": "s", "secret": {"secretName": "database"}}]);
    sandbox.write("web.json", &web.to_string());
    let receiver = Server::start(|_| (204, Vec::new()));
    let webhook = format!("[{{ name = 'all', url = '{}', events = ['normal', 'warning'] }}]", receiver.url("/hook"));
    let settings = [
        ("MAINSTAY_AGE_IDENTITY", key.display().to_string()),
        ("MAINSTAY_WEBHOOK", webhook),
        ("MAINSTAY_TRACES", receiver.url("")),
        ("MAINSTAY_LOG_LEVEL", "trace".to_owned()),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut agent = Agent::start_with(&sandbox, &[], &settings);
    agent.wait_page(8080, "/", |body| body == format!("{CANARY}\n"));
    agent.wait_page(8080, "/file/s/password", |body| body == CANARY);
    let pids = agent.wait_ready("web", 1);

    // Other files of the same Secret, by SOPS as JSON and encrypted as a whole: the same password, so nothing happens
    // to the container. `note` is in the first only.
    for (file, note) in [("values.json", true), ("armored.yaml", false)] {
        secret(file);
        agent.cli(&["sync"]).ok();
        agent.wait_for("the other values are there or gone", SOON, |_| {
            let answer = http::get(("127.0.0.1", 8080), "/file/s/note").ok()?;
            ((answer.status == 200) == note).then_some(())
        });
        agent.wait_page(8080, "/file/s/password", |body| body == CANARY);
        agent.wait_status("no error", |status| status.errors().is_empty().then_some(()));
    }
    assert_eq!(agent.wait_ready("web", 1), pids);

    // Somebody without the key changes it: held, and said in words.
    sandbox.write("secret.yaml", &text.replace("tier: \"db\"", "tier: \"web\""));
    agent.wait_status("the change is told", |status| status.errors().contains("sops.mac").then_some(()));
    assert_eq!(agent.wait_ready("web", 1), pids);

    // The key is open to others, at the next start too: what was good stays.
    sandbox.write("secret.yaml", &text);
    agent.wait_status("it is good again", |status| status.errors().is_empty().then_some(()));
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("it is ours");
    agent.restart();
    agent.wait_status("the key is complained about", |status| {
        status.errors().contains("open to others (mode 0644").then_some(())
    });
    assert_eq!(agent.wait_ready("web", 1), pids);
    agent.wait_page(8080, "/file/s/password", |body| body == CANARY);
    // Corrected, it is used without a restart.
    write_private(&key, &fixture("key.txt"));
    agent.cli(&["sync"]).ok();
    agent.wait_status("the key is good", |status| status.errors().is_empty().then_some(()));

    // Everything that anybody may read, into a file.
    let mut said = String::new();
    for words in [
        &["status"][..],
        &["status", "web"],
        &["ps", "-a"],
        &["events"],
        &["why", "web"],
        &["history"],
        &["diff", "1"],
        &["logs", "web"],
        &["plan"],
        &["config"],
        &["stats"],
        &["images"],
        &["df"],
        &["retry", "web"],
        &["pause", "web"],
        &["resume", "web"],
    ] {
        for format in ["table", "json"] {
            let mut words = words.to_vec();
            if format == "json" {
                words.extend(["-o", "json"]);
            }
            let output = agent.cli(&words);
            said.push_str(&output.stdout);
            said.push_str(&output.stderr);
        }
    }
    let manifests = sandbox.manifests().display().to_string();
    let identity = format!("age_identity={}", key.display());
    let file = sandbox.manifests().join("secret.yaml").display().to_string();
    for words in [
        &["validate", &manifests][..],
        &["plan", &manifests],
        &["plan", &manifests, "--set", &identity],
        &["convert", &file],
    ] {
        let output = agent.cli(words);
        said.push_str(&output.stdout);
        said.push_str(&output.stderr);
    }
    let pods = agent.json(&["ps"]);
    let uid = pods[0]["podUid"].as_str().expect("a pod has one").to_owned();
    let container = pods[0]["name"].as_str().expect("a container has a name").to_owned();
    for path in [
        "/v1/status",
        "/v1/plan",
        "/v1/config",
        "/v1/events",
        "/v1/stats",
        "/v1/pods",
        &format!("/v1/pods/{uid}"),
        &format!("/v1/pods/{uid}/{container}/logs"),
        &format!("/v1/pods/{uid}/{container}/stats"),
        "/v1/workloads/Deployment/default/web",
        "/v1/version",
        "/readyz",
        "/metrics",
    ] {
        let answer = http::unix(&agent.socket(), "GET", path, b"").expect("the API answers");
        assert_eq!(answer.status, 200, "{path}");
        said.push_str(&String::from_utf8_lossy(&answer.body));
    }
    let sent = agent.wait_for("events and traces were sent", SOON, |_| {
        let seen = receiver.seen();
        let to = |path: &str| seen.iter().any(|request| request.head.first.contains(path));
        (to("/hook") && to("/v1/traces")).then_some(seen)
    });
    said.extend(sent.iter().map(|request| request.body.as_str()));
    assert!(said.contains("database") || said.contains("web"), "something was said");
    let answers = sandbox.dir().join("answers");
    std::fs::write(&answers, &said).expect("the directory is ours");
    let places = [sandbox.data(), sandbox.dir().join("agent.log"), answers.clone()];
    assert_eq!(holding(&places), "");
    assert_eq!(processes_holding(), Vec::<String>::new());
    // What the container was given is in memory, and root's alone.
    for file in holding(&[sandbox.run()]).lines() {
        let path = std::path::Path::new(file);
        let on = nix::sys::statfs::statfs(path).expect("it is there").filesystem_type();
        assert_eq!(on, nix::sys::statfs::TMPFS_MAGIC, "{file} is on a disk");
        assert!(is_closed(path, &sandbox.run()), "{file} is open to others");
    }

    // The search itself finds what it looks for.
    std::fs::write(&answers, format!("x {}", ENCODED[1])).expect("the directory is ours");
    assert!(holding(&[answers]).contains("answers"));
    agent.stop();
    sandbox.down();
    sandbox.assert_clean();
}

/// What `convert` makes of a Compose project with a secret holds its value, in the Secret and nowhere else.
#[test]
fn a_converted_secret_is_in_the_secret_alone() {
    let sandbox = Sandbox::new("converted");
    let project = sandbox.dir().join("shop");
    std::fs::create_dir(&project).expect("the directory is ours");
    write_private(&project.join("password"), CANARY.as_bytes());
    std::fs::write(
        project.join("compose.yaml"),
        "services: {web: {image: nginx, secrets: [{source: db, mode: 0400}]}}\nsecrets: {db: {file: ./password}}\n",
    )
    .expect("the directory is ours");
    let project = project.display().to_string();
    let converted = sandbox.cli(&["convert", &project]).ok();
    let objects: Vec<&str> = converted.stdout.split("---\n").filter(|text| is_canary(text.as_bytes())).collect();
    assert!(matches!(objects.as_slice(), [one] if one.contains("kind: Secret")), "{}", converted.stdout);
    assert!(!is_canary(converted.stderr.as_bytes()), "{}", converted.stderr);
    assert!(converted.stderr.contains("keep this file private"), "{}", converted.stderr);
    let answer: serde_json::Value =
        serde_json::from_str(&sandbox.cli(&["-o", "json", "convert", &project]).ok().stdout).expect("JSON");
    let notes = answer["notes"].to_string();
    assert!(notes.contains("keep this file private"), "{notes}");
    assert!(!is_canary(notes.as_bytes()), "{notes}");
}

/// A process that is ended like one that crashes, in a directory of its own and with no limit on core dumps.
fn leaves_a_core_dump(child: &mut Child) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    let pid = rustix::process::Pid::from_child(child);
    let unlimited = rustix::process::Rlimit { current: None, maximum: None };
    rustix::process::prlimit(Some(pid), rustix::process::Resource::Core, unlimited).expect("root may lift limits");
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT).expect("it runs");
    let status = child.wait().expect("it is ours");
    assert_eq!(status.signal(), Some(libc::SIGABRT));
    status.core_dumped()
}

#[test]
fn a_crash_writes_no_memory_to_a_disk() {
    if !require_root("a_crash_writes_no_memory_to_a_disk") {
        return;
    }
    let sandbox = Sandbox::new("crash");
    let dir = sandbox.dir().join("work");
    std::fs::create_dir(&dir).expect("the directory is ours");
    let mut other = Command::new("sleep").arg("600").current_dir(&dir).spawn().expect("sleep is there");
    if !leaves_a_core_dump(&mut other) {
        eprintln!("skipped: this kernel writes no core dumps (kernel.core_pattern)");
        return;
    }
    for entry in std::fs::read_dir(&dir).expect("the directory is ours").flatten() {
        std::fs::remove_file(entry.path()).expect("the directory is ours");
    }
    let mut command = sandbox.command();
    let log = std::fs::File::create(sandbox.dir().join("agent.log")).expect("the directory is ours");
    command.arg("run").arg(sandbox.manifests()).current_dir(&dir).stdout(std::process::Stdio::null()).stderr(log);
    let mut agent = command.spawn().expect("the binary runs");
    let socket = sandbox.run().join("mainstay.sock");
    let answers = poll("the agent answers", SOON, || std::os::unix::net::UnixStream::connect(&socket).ok());
    answers.expect("it answers");
    assert!(!leaves_a_core_dump(&mut agent));
    assert_eq!(std::fs::read_dir(&dir).expect("the directory is ours").count(), 0);
    sandbox.down();
    sandbox.assert_clean();
}
