//! Encrypted Secrets, from the repository to the container, with canaries that may show up nowhere else.

use std::path::PathBuf;

use serde_json::json;
use tests::manifest::deployment;
use tests::{Agent, http, require_root, world};

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
    let mut agent = Agent::start_with(&sandbox, &[], &[("MAINSTAY_AGE_IDENTITY", &key.display().to_string())]);
    agent.wait_page(8080, "/", |body| body == format!("{CANARY}\n"));
    agent.wait_page(8080, "/file/s/password", |body| body == CANARY);
    let pids = agent.wait_ready("web", 1);

    // Another file of the same Secret, encrypted as a whole: the same object, so nothing happens to the container.
    secret("armored.yaml");
    agent.cli(&["sync"]).ok();
    agent.wait_page(8080, "/file/s/password", |body| body == CANARY);
    agent.wait_status("no error", |status| status.errors().is_empty().then_some(()));

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
        &["ps", "-a"],
        &["events"],
        &["why", "web"],
        &["history"],
        &["logs", "web"],
        &["plan"],
        &["config"],
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
    for words in [&["validate", &manifests][..], &["plan", &manifests], &["plan", &manifests, "--set", &identity]] {
        let output = agent.cli(words);
        said.push_str(&output.stdout);
        said.push_str(&output.stderr);
    }
    for path in ["/v1/status", "/v1/plan", "/v1/events", "/metrics"] {
        let answer = http::unix(&agent.socket(), "GET", path, b"").expect("the API answers");
        said.push_str(&String::from_utf8_lossy(&answer.body));
    }
    assert!(said.contains("database") || said.contains("web"), "something was said");
    let answers = sandbox.dir().join("answers");
    std::fs::write(&answers, &said).expect("the directory is ours");
    let places = [sandbox.data(), sandbox.dir().join("agent.log"), answers.clone()];
    assert_eq!(holding(&places), "");

    // The search itself finds what it looks for.
    std::fs::write(&answers, format!("x {}", ENCODED[1])).expect("the directory is ours");
    assert!(holding(&[answers]).contains("answers"));
    agent.stop();
    sandbox.down();
    sandbox.assert_clean();
}
