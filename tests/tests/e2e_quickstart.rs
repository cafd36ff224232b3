//! What the README promises a newcomer: the examples run, offline, and Compose files are understood.

use std::path::Path;

use tests::agent::SOON;
use tests::binary::workspace_root;
use tests::{Agent, Sandbox, require_root, world};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the directory is ours");
    for entry in std::fs::read_dir(from).expect("manifests/ is part of the project").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("the directory is ours");
        }
    }
}

/// `mainstay run manifests/` and `curl` on the address it prints: in a network namespace with nothing but loopback.
#[test]
fn the_examples_serve_a_page_offline() {
    if !require_root("the_examples_serve_a_page_offline") {
        return;
    }
    let sandbox = Sandbox::new("quick");
    copy(&workspace_root().join("manifests"), &sandbox.manifests());
    sandbox.cli(&["validate", &sandbox.manifests().display().to_string()]).ok();
    let mut agent = Agent::start(&sandbox);
    let port: u16 = agent.wait_status("a port is published", |status| {
        status.ports.keys().find_map(|key| key.strip_suffix("/tcp")?.rsplit(':').next()?.parse().ok())
    });
    let page = agent.wait_page(port, "/", |body| !body.is_empty());
    assert!(page.to_lowercase().contains("mainstay"), "{page}");
    let printed = agent.wait_for("the address is printed", SOON, |agent| {
        let log = agent.log();
        log.contains(&format!(":{port}")).then_some(log)
    });
    assert!(!printed.contains("panicked"), "{printed}");
}

#[test]
fn a_compose_project_runs() {
    if !require_root("a_compose_project_runs") {
        return;
    }
    let (sandbox, _registry, image) = world("compose");
    let project = |message: &str| {
        format!(
            "name: shop
services:
  web:
    image: {image}
    command: serve
    environment:
      MESSAGE: {message}
    ports:
      - \"8080:8080\"
    depends_on:
      - backend
  backend:
    image: {image}
    command: [serve, --port, \"9000\"]
"
        )
    };
    sandbox.write("compose.yaml", &project("one"));
    let mut agent = Agent::start(&sandbox);
    agent.wait_page(8080, "/", |body| body == "one\n");
    let backend = agent.wait_ready("backend", 1);
    // Services find each other by name.
    let reached = agent.cli(&["exec", "web", "--", "/bin/fixture", "get", "backend", "9000", "/hostname"]).ok();
    assert!(reached.stdout.contains("200 OK"), "{reached:?}");
    sandbox.write("compose.yaml", &project("two"));
    agent.wait_page(8080, "/", |body| body == "two\n");
    assert_eq!(agent.wait_ready("backend", 1), backend, "the other service did not change");
    sandbox.remove("compose.yaml");
    agent.wait_status("the project is gone", |status| status.workloads.is_empty().then_some(()));
    agent.assert_no_workloads();
}
