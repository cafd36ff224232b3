//! A Git repository as a source, with the real agent and real containers.

use tests::git::{GitServer, Repository, signer};
use tests::manifest::web;
use tests::{Agent, Sandbox, require_root, world};

/// A file with a token.
fn private(sandbox: &Sandbox, token: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = sandbox.dir().join("token");
    std::fs::write(&path, token).expect("the directory is ours");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    path
}

#[test]
fn a_repository_is_followed_and_only_signed_revisions_count() {
    if !require_root("a_repository_is_followed_and_only_signed_revisions_count") {
        return;
    }
    let (sandbox, _registry, image) = world("git");
    let (key, allowed) = signer(sandbox.dir(), "operator");
    let token = private(&sandbox, "a-canary-of-a-token\n");
    let repository = Repository::new(sandbox.dir().join("repositories/fleet"));
    let first = repository.commit("hosts/one/web.yaml", &web("web", &image, "one", 8080), Some(&key));
    let server = GitServer::start(sandbox.dir().join("repositories"), "a-canary-of-a-token");

    let url = server.url("fleet/.git");
    let settings = format!(
        "[{{ name = 'fleet', url = '{url}', ref = 'main', path = 'hosts/one', poll = '1h', token_file = '{}', \
         allowed_signers_file = '{}' }}]",
        token.display(),
        allowed.display()
    );
    let mut agent = Agent::start_with(&sandbox, &[], &[("MAINSTAY_GIT", &settings)]);
    agent.wait_page(8080, "/", |body| body == "one\n");
    let pids = agent.wait_ready("web", 1);
    let revision = |agent: &Agent<'_>| {
        let status = agent.json(&["status"]);
        let sources = status["sources"].as_array().cloned().unwrap_or_default();
        let of = sources.iter().find(|source| source["path"].as_str().is_some_and(|path| path.starts_with(&url)));
        of.and_then(|source| source["revision"].as_str().map(str::to_owned))
    };
    assert_eq!(revision(&agent).as_deref(), Some(first.as_str()));
    assert!(!agent.log().contains("ERROR"), "a first start is no error:\n{}", agent.log());

    // Somebody without a key pushes: nothing changes, and the status says why.
    repository.commit("hosts/one/web.yaml", &web("web", &image, "evil", 8080), None);
    agent.cli(&["sync"]).ok();
    agent.wait_status("the signature is complained about", |status| {
        status.errors().contains("no good signature").then_some(())
    });
    assert_eq!(agent.wait_ready("web", 1), pids);
    assert_eq!(revision(&agent).as_deref(), Some(first.as_str()));

    // Signed: it counts.
    let third = repository.commit("hosts/one/web.yaml", &web("web", &image, "three", 8080), Some(&key));
    agent.cli(&["sync"]).ok();
    agent.wait_page(8080, "/", |body| body == "three\n");
    agent.wait_status("no error is left", |status| status.errors().is_empty().then_some(()));
    assert_eq!(revision(&agent).as_deref(), Some(third.as_str()));

    // The remote is gone, also at the next start: what was fetched counts.
    drop(server);
    let pids = agent.wait_ready("web", 1);
    agent.restart();
    agent.wait_status("the remote is complained about", |status| status.errors().contains("cannot ask").then_some(()));
    assert_eq!(agent.wait_ready("web", 1), pids);
    let reached = agent.metrics().sum("mainstay_source_last_success_timestamp_seconds", &[]);
    assert!(reached.is_some_and(|unix| unix > 1e9), "{reached:?}");

    // The token is in no file of the agent, log or answer.
    let seen = std::process::Command::new("grep")
        .args(["--recursive", "--files-with-matches", "--fixed-strings", "a-canary-of-a-token"])
        .args([sandbox.data(), sandbox.run(), sandbox.dir().join("agent.log")])
        .output()
        .expect("grep is there");
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "");
    agent.stop();
    sandbox.down();
    sandbox.assert_clean();
}

#[test]
fn a_wrong_password_gets_nothing_and_goes_nowhere_else() {
    if !require_root("a_wrong_password_gets_nothing_and_goes_nowhere_else") {
        return;
    }
    let sandbox = Sandbox::new("gitauth");
    let token = private(&sandbox, "wrong");
    let repository = Repository::new(sandbox.dir().join("repositories/fleet"));
    repository.commit("web.yaml", "kind: List\napiVersion: v1\nitems: []\n", None);
    let server = GitServer::start(sandbox.dir().join("repositories"), "right");
    let settings =
        format!("[{{ name = 'fleet', url = '{}', token_file = '{}' }}]", server.url("fleet/.git"), token.display());
    let mut agent = Agent::start_with(&sandbox, &[], &[("MAINSTAY_GIT", &settings)]);
    agent.wait_status("the refusal is told", |status| status.errors().contains("cannot ask").then_some(()));
    assert!(server.refused() >= 1);
    agent.stop();
    sandbox.down();
    sandbox.assert_clean();
}
