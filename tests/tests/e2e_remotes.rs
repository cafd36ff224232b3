//! What comes from elsewhere and what goes there, with the real agent: archives, artifacts, the sync hook, webhooks,
//! and containers that are taken over from Docker.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tests::agent::SOON;
use tests::image::{digest, fixture_image};
use tests::manifest::web;
use tests::registry::Auth;
use tests::{Agent, Layer, Registry, Sandbox, Server, http, require_root};

const FLUX: &str = "application/vnd.cncf.flux.content.v1.tar+gzip";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory takes every byte");
    encoder.finish().expect("memory takes every byte")
}

/// A file that only its owner may read.
fn secret(path: &Path, text: &str) -> String {
    std::fs::write(path, text).expect("the directory is ours");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    path.display().to_string()
}

/// The revision of a source in the status.
fn revision(agent: &Agent<'_>, label: &str) -> Option<String> {
    let status = agent.json(&["status"]);
    let sources = status["sources"].as_array().cloned().unwrap_or_default();
    let of = sources.iter().find(|source| source["path"].as_str().is_some_and(|path| path.contains(label)));
    of.and_then(|source| source["revision"].as_str().map(|revision| format!("sha256:{revision}")))
}

#[test]
fn an_artifact_is_followed_with_the_login_of_the_unit_and_asked_for_by_the_hook() {
    if !require_root("an_artifact_is_followed_with_the_login_of_the_unit_and_asked_for_by_the_hook") {
        return;
    }
    let sandbox = Sandbox::new("oci");
    let registry = Registry::start();
    let image = registry.push("app:1", &fixture_image());
    let fleet = |message: &str| gzip(&Layer::new().file("fleet/web.yaml", web("web", &image, message, 8080)).tar());
    let first = registry.push_artifact("ops/fleet:main", &[(FLUX, None, fleet("one"))]);
    // Image and artifact need a login; systemd hands it over as `LoadCredential=registry-auth:FILE` does.
    registry.require(Auth::Basic("me".to_owned(), "a-canary-of-a-password".to_owned()));
    let credentials = sandbox.dir().join("credentials");
    std::fs::create_dir(&credentials).expect("the directory is ours");
    let login =
        json!({"auths": {registry.address().to_string(): {"username": "me", "password": "a-canary-of-a-password"}}});
    secret(&credentials.join("registry-auth"), &login.to_string());
    secret(&credentials.join("hook"), "It's a Secret to Everybody\n");
    let oci = format!(
        "[{{ name = 'fleet', ref = 'oci://{}', path = 'fleet', poll = '1h' }}]",
        registry.reference("ops/fleet:main")
    );
    let mut agent = Agent::start_with(
        &sandbox,
        &[],
        &[
            ("MAINSTAY_OCI", &oci),
            ("MAINSTAY_SYNC_HOOK", "{ listen = '127.0.0.1:0', secret_file = 'credential:hook' }"),
            ("CREDENTIALS_DIRECTORY", &credentials.display().to_string()),
        ],
    );
    agent.wait_page(8080, "/", |body| body == "one\n");
    assert_eq!(revision(&agent, "ops/fleet:main").as_deref(), Some(first.as_str()));

    // Another revision is there; who does not know the secret cannot have it looked at.
    let second = registry.push_artifact("ops/fleet:main", &[(FLUX, None, fleet("two"))]);
    let hook = std::fs::read_to_string(sandbox.run().join("hook.addr")).expect("the agent says where it listens");
    let asked = registry.count("/ops/fleet/");
    let call = |headers: &[(&str, &str)], body: &[u8]| {
        http::post(hook.trim(), "/sync", headers, body).expect("the hook answers").status
    };
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(call(&[], b"Hello, World!"), 401);
    assert_eq!(call(&[("X-Hub-Signature-256", signature)], b"Hello, World?"), 401);
    assert_eq!(call(&[("X-Gitlab-Token", "guessed")], b"{}"), 401);
    assert_eq!(http::get(hook.trim(), "/metrics").expect("the hook answers").status, 404);
    assert_eq!(registry.count("/ops/fleet/"), asked);
    assert_eq!(call(&[("X-Hub-Signature-256", signature)], b"Hello, World!"), 202);
    agent.wait_page(8080, "/", |body| body == "two\n");
    agent.wait_for("the revision is told", SOON, |agent| {
        (revision(agent, "ops/fleet:main").as_deref() == Some(second.as_str())).then_some(())
    });
    let metrics = agent.metrics();
    assert_eq!(metrics.sum("mainstay_sync_requests_total", &[("outcome", "error")]), Some(3.0));
    assert_eq!(metrics.sum("mainstay_sync_requests_total", &[("outcome", "ok")]), Some(1.0));
    let pids = agent.wait_ready("web", 1);

    // Something in it that is refused: nothing changes, and the status says what.
    let link = Layer::new().file("fleet/web.yaml", "x").symlink("fleet/evil.yaml", "/etc/shadow").tar();
    registry.push_artifact("ops/fleet:main", &[(FLUX, None, gzip(&link))]);
    assert_eq!(call(&[("X-Gitlab-Token", "It's a Secret to Everybody")], b"{}"), 202);
    agent.wait_status("the link is complained about", |status| {
        status.errors().contains("`fleet/evil.yaml` is neither a file nor a directory").then_some(())
    });
    assert_eq!(agent.wait_ready("web", 1), pids);
    assert_eq!(revision(&agent, "ops/fleet:main").as_deref(), Some(second.as_str()));

    // The registry is gone, also at the next start: what was fetched counts.
    drop(registry);
    agent.restart();
    agent.wait_status("the registry is complained about", |status| {
        status.errors().contains("cannot reach registry").then_some(())
    });
    assert_eq!(agent.wait_ready("web", 1), pids);

    let seen = std::process::Command::new("grep")
        .args([
            "--recursive",
            "--files-with-matches",
            "--fixed-strings",
            "-e",
            "a-canary-of-a-password",
            "-e",
            "It's a Secret",
        ])
        .args([sandbox.data(), sandbox.run(), sandbox.dir().join("agent.log")])
        .output()
        .expect("grep is there");
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "");
    agent.stop();
    sandbox.down();
    sandbox.assert_clean();
}

#[test]
fn an_archive_is_followed_by_its_digest() {
    if !require_root("an_archive_is_followed_by_its_digest") {
        return;
    }
    let sandbox = Sandbox::new("archive");
    let registry = Registry::start();
    let image = registry.push("app:1", &fixture_image());
    let packed =
        |message: &str| gzip(&Layer::new().file("fleet-1/hosts/web/web.yaml", web("web", &image, message, 8080)).tar());
    let (one, two) = (packed("one"), packed("two"));
    let served = [("/one.tar.gz", one.clone()), ("/two.tar.gz", two.clone())];
    let server = Server::start(move |request| {
        let path = request.head.first.split(' ').nth(1).unwrap_or_default();
        let known = request.head.header("authorization") == Some("Bearer a-canary-of-a-token");
        match served.iter().find(|(name, _)| *name == path && known) {
            Some((_, bytes)) => (200, bytes.clone()),
            None => (404, Vec::new()),
        }
    });
    let token = secret(&sandbox.dir().join("token"), "a-canary-of-a-token\n");
    let config = sandbox.dir().join("config.toml");
    let configure = |path: &str, digest: &str| {
        let url = server.url(path);
        let text = format!(
            "[[archive]]\nname = 'fleet'\nurl = '{url}'\ndigest = '{digest}'\nstrip = 1\npath = 'hosts/web'\ntoken_file = '{token}'\n"
        );
        std::fs::write(&config, text).expect("the directory is ours");
    };
    configure("/one.tar.gz", &digest(&one));
    let mut agent = Agent::start_with(&sandbox, &[], &[("MAINSTAY_CONFIG", &config.display().to_string())]);
    agent.wait_page(8080, "/", |body| body == "one\n");
    let pids = agent.wait_ready("web", 1);

    // Another file than its digest says: the version before stays, and the status says why.
    configure("/one.tar.gz", &digest(&two));
    // While the agent executes itself anew, questions are refused.
    agent.wait_for("the digest is complained about", SOON, |agent| {
        agent.cli(&["status"]).stdout.contains("the archive has the digest").then_some(())
    });
    assert_eq!(agent.wait_ready("web", 1), pids);
    // The right one.
    configure("/two.tar.gz", &digest(&two));
    agent.wait_page(8080, "/", |body| body == "two\n");
    assert_eq!(revision(&agent, "two.tar.gz").as_deref(), Some(digest(&two).as_str()));
    // What is there is not asked for again, not even after a crash without the server.
    let asked = server.seen().len();
    agent.restart();
    agent.wait_status("it is read again", |status| status.workload("web").map(drop));
    agent.wait_page(8080, "/", |body| body == "two\n");
    assert_eq!(server.seen().len(), asked);
    assert!(!agent.log().contains("a-canary-of-a-token"));
    agent.stop();
    sandbox.down();
    sandbox.assert_clean();
}

#[test]
fn events_reach_a_webhook_by_a_template_and_are_tried_again() {
    if !require_root("events_reach_a_webhook_by_a_template_and_are_tried_again") {
        return;
    }
    let sandbox = Sandbox::new("webhook");
    let registry = Registry::start();
    let image = registry.push("app:1", &fixture_image());
    let calls = AtomicUsize::new(0);
    let chat = Server::start(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => (503, Vec::new()),
        _ => (204, Vec::new()),
    });
    let url = secret(&sandbox.dir().join("url"), &chat.url("/a-canary-of-a-path"));
    let header = secret(&sandbox.dir().join("header"), "X-Api-Key: a-canary-of-a-key\n");
    let webhook = format!(
        "[{{ name = 'chat', url_file = '{url}', header_file = '{header}', events = ['exited'], \
         template = '{{\"text\": \"${{node}}: ${{workload}}: ${{message}}\"}}' }}]"
    );
    sandbox.write("crash.json", &tests::manifest::pod("crash", &image, &["exit", "3"]).to_string());
    let mut agent =
        Agent::start_with(&sandbox, &[], &[("MAINSTAY_WEBHOOK", &webhook), ("MAINSTAY_NODE_NAME", "node-7")]);
    let sent = agent.wait_for("the event arrives after a refusal", SOON, |_| chat.seen().get(1).cloned());
    assert_eq!(chat.seen()[0].body, sent.body, "the same event again");
    let body: serde_json::Value = serde_json::from_str(&sent.body).expect("the template gives JSON");
    let text = body["text"].as_str().expect("a text");
    assert!(text.starts_with("node-7: Pod/default/crash: ") && text.contains('3'), "{text}");
    assert_eq!(sent.head.header("x-api-key"), Some("a-canary-of-a-key"));
    assert!(sent.head.first.starts_with("POST /a-canary-of-a-path "), "{}", sent.head.first);
    agent.wait_for("it is counted", SOON, |agent| {
        let labels = [("webhook", "chat"), ("outcome", "ok")];
        agent.metrics().sum("mainstay_notifications_total", &labels).filter(|sent| *sent >= 1.0)
    });
    assert!(!agent.log().contains("a-canary"), "{}", agent.log());
    agent.stop();
    sandbox.down();
    sandbox.assert_clean();
}

#[test]
fn what_docker_runs_is_written_down_and_runs_here() {
    if !require_root("what_docker_runs_is_written_down_and_runs_here") {
        return;
    }
    let sandbox = Sandbox::new("adopt");
    let registry = Registry::start();
    let image = registry.push("app:1", &fixture_image());
    let mut agent = Agent::start(&sandbox);
    // A Docker with one container.
    let inspected = json!([{
        "Id": "c69df0839799aa", "Name": "/shop", "State": {"Status": "running"}, "Mounts": [],
        "Config": {"Image": image, "Cmd": ["serve"], "Env": ["PATH=/bin", "MESSAGE=from $docker"]},
        "HostConfig": {
            "PortBindings": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
            "RestartPolicy": {"Name": "always"},
        },
    }]);
    let answer = sandbox.dir().join("inspect.json");
    std::fs::write(&answer, inspected.to_string()).expect("the directory is ours");
    let programs = sandbox.dir().join("programs");
    std::fs::create_dir(&programs).expect("the directory is ours");
    let docker = programs.join("docker");
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in\nps) echo c69df0839799aa ;;\ninspect) exec /bin/cat {} ;;\n*) exit 9 ;;\nesac\n",
        answer.display()
    );
    std::fs::write(&docker, script).expect("the directory is ours");
    std::fs::set_permissions(&docker, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let adopt = |dir: &Path| {
        let dir = dir.display().to_string();
        let words = ["adopt", "--dir", &dir];
        let mut command = sandbox.command();
        command.args(words).env("PATH", format!("{}:/usr/bin:/bin", programs.display()));
        sandbox.finish(command, &words)
    };
    // Not where the agent would start a second one at once.
    let refused = adopt(&sandbox.manifests());
    let told = refused.stderr.contains("a directory that the agent reads") && refused.stderr.contains("hint: ");
    assert!(refused.code == 2 && told, "{} {}", refused.code, refused.stderr);
    let dir = sandbox.dir().join("adopted");
    let adopted = adopt(&dir).ok();
    assert!(adopted.stderr.contains("wrote ") && adopted.stderr.contains("shop.compose.yaml"), "{}", adopted.stderr);
    std::fs::copy(dir.join("shop.compose.yaml"), sandbox.manifests().join("shop.compose.yaml"))
        .expect("it was written");
    agent.wait_page(8080, "/", |body| body == "from $docker\n");
    let pids = agent.wait_ready("shop", 1);
    // No file is overwritten.
    let again = adopt(&dir);
    assert!(again.code == 1 && again.stderr.contains("cannot write"), "{} {}", again.code, again.stderr);
    assert_eq!(agent.wait_ready("shop", 1), pids);
    agent.stop();
    sandbox.down();
    sandbox.assert_clean();
}
