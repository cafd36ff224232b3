//! A Git repository as a source, with the real agent and real containers.

use std::io::Write as _;
use std::path::Path;

use tests::agent::SOON;
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

/// The revision of the one repository that is followed.
fn revision_of(agent: &Agent<'_>) -> Option<String> {
    let status = agent.json(&["status"]);
    let sources = status["sources"].as_array().cloned().unwrap_or_default();
    sources.iter().find_map(|source| source["revision"].as_str().map(str::to_owned))
}

/// Writes a file that leaves only so much of a disk free, in bytes.
fn fill(file: &Path, disk: &Path, left: u64) {
    drop(std::fs::remove_file(file));
    let space = rustix::fs::statvfs(disk).expect("it is mounted");
    let mut rest = (space.f_bavail * space.f_frsize).saturating_sub(left);
    let mut file = std::fs::File::create(file).expect("the directory is ours");
    while rest > 0 {
        let piece = rest.min(1 << 20);
        file.write_all(&vec![1; usize::try_from(piece).expect("a MiB")]).expect("there is so much space");
        rest -= piece;
    }
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

    let url = server.url("fleet");
    let settings = format!(
        "[{{ name = 'fleet', url = '{url}', ref = 'main', path = 'hosts/one', poll = '1h', token_file = '{}', \
         allowed_signers_file = '{}' }}]",
        token.display(),
        allowed.display()
    );
    let mut agent = Agent::start_with(&sandbox, &[], &[("MAINSTAY_GIT", &settings)]);
    agent.wait_page(8080, "/", |body| body == "one\n");
    let pids = agent.wait_ready("web", 1);
    assert_eq!(revision_of(&agent).as_deref(), Some(first.as_str()));
    assert!(!agent.log().contains("ERROR"), "a first start is no error:\n{}", agent.log());

    // Somebody without a key pushes: nothing changes, and the status says why.
    repository.commit("hosts/one/web.yaml", &web("web", &image, "evil", 8080), None);
    agent.cli(&["sync"]).ok();
    agent.wait_status("the signature is complained about", |status| {
        status.errors().contains("no good signature").then_some(())
    });
    assert_eq!(agent.wait_ready("web", 1), pids);
    assert_eq!(revision_of(&agent).as_deref(), Some(first.as_str()));

    // Signed: it counts.
    let third = repository.commit("hosts/one/web.yaml", &web("web", &image, "three", 8080), Some(&key));
    agent.cli(&["sync"]).ok();
    agent.wait_page(8080, "/", |body| body == "three\n");
    agent.wait_status("no error is left", |status| status.errors().is_empty().then_some(()));
    assert_eq!(revision_of(&agent).as_deref(), Some(third.as_str()));
    // All of it was told, and the commit is named wherever somebody may look for it.
    let events = agent.json(&["events"]).to_string();
    for reason in ["source_failed", "source_recovered", "source_switched"] {
        assert!(events.contains(reason), "{reason}: {events}");
    }
    assert!(events.contains(&third), "{events}");
    agent.wait_for("the commit is in the history", SOON, |agent| {
        agent.cli(&["history"]).ok().stdout.contains(&third[..12]).then_some(())
    });
    let labels = [("revision", third.as_str())];
    assert_eq!(agent.metrics().sum("mainstay_source_revision_info", &labels), Some(1.0));

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
        format!("[{{ name = 'fleet', url = '{}', token_file = '{}' }}]", server.url("fleet"), token.display());
    let mut agent = Agent::start_with(&sandbox, &[], &[("MAINSTAY_GIT", &settings)]);
    agent.wait_status("the refusal is told", |status| status.errors().contains("cannot ask").then_some(()));
    assert!(server.refused() >= 1);
    agent.stop();
    sandbox.down();
    sandbox.assert_clean();
}

/// The disk is full while a revision is fetched or written: what was there stays and is served, the reason is told, and
/// with space again it goes on.
#[test]
fn a_full_disk_during_a_fetch_changes_nothing() {
    if !require_root("a_full_disk_during_a_fetch_changes_nothing") {
        return;
    }
    let (mut sandbox, _registry, image) = world("gitfull");
    let image_size = tests::image::fixture_files().iter().map(|(_, bytes, _)| bytes.len()).sum::<usize>();
    sandbox.limit_data(u32::try_from((2 * image_size) >> 20).expect("a small disk") + 24);
    let repository = Repository::new(sandbox.dir().join("repositories/fleet"));
    let first = repository.commit("web.yaml", &web("web", &image, "one", 8080), None);
    let settings = format!("[{{ name = 'fleet', url = 'file://{}', poll = '1h' }}]", repository.dir().display());
    let mut agent = Agent::start_with(&sandbox, &[], &[("MAINSTAY_GIT", &settings)]);
    agent.wait_page(8080, "/", |body| body == "one\n");
    let pids = agent.wait_ready("web", 1);

    // 6 MiB that no compression makes smaller come with the next revision; less is left.
    let noise: Vec<u8> =
        (0..6_u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes()).collect();
    std::fs::write(repository.work().join("noise.bin"), noise).expect("the directory is ours");
    let second = repository.commit("web.yaml", &web("web", &image, "two", 8080), None);
    let balloon = sandbox.data().join("balloon");
    // Full when it is fetched, and when it was fetched and its files are written.
    for left in [1_u64, 9] {
        fill(&balloon, &sandbox.data(), left << 20);
        agent.cli(&["sync"]).ok();
        agent.wait_status(&format!("the full disk is told with {left} MiB left"), |status| {
            status.errors().contains("No space left on device").then_some(())
        });
        assert_eq!(agent.wait_ready("web", 1), pids);
        agent.wait_page(8080, "/", |body| body == "one\n");
        assert_eq!(revision_of(&agent).as_deref(), Some(first.as_str()));
    }
    // The next agent has no more space than the one before.
    agent.restart();
    assert_eq!(agent.wait_ready("web", 1), pids);
    assert_eq!(revision_of(&agent).as_deref(), Some(first.as_str()));

    std::fs::remove_file(&balloon).expect("it was there");
    agent.cli(&["sync"]).ok();
    agent.wait_page(8080, "/", |body| body == "two\n");
    agent.wait_status("no error is left", |status| status.errors().is_empty().then_some(()));
    assert_eq!(revision_of(&agent).as_deref(), Some(second.as_str()));
    agent.stop();
    sandbox.down();
    sandbox.assert_clean();
}
