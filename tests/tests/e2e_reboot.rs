//! A power cut and a boot, as one script: everything returns at its last good version, nothing that had finished runs
//! again, volumes are intact, and no registry is needed for it.

use serde_json::json;
use tests::agent::SOON;
use tests::image::fixture_image;
use tests::manifest::{pod, web};
use tests::{Agent, Registry, Sandbox, require_root};

#[test]
fn everything_returns_after_a_reboot() {
    if !require_root("everything_returns_after_a_reboot") {
        return;
    }
    let mut sandbox = Sandbox::new("reboot");
    let volume = sandbox.dir().join("volume");
    std::fs::create_dir(&volume).expect("the directory is ours");
    let registry = Registry::start();
    let image = registry.push("app:1", &fixture_image());

    // One that serves, one whose file will be broken, one that has done its work, one that appends at each start.
    let on_volume = |name: &str, arguments: &[&str]| {
        let mut wanted = pod(name, &image, arguments);
        wanted["spec"]["volumes"] = json!([{"name": "v", "hostPath": {"path": volume}}]);
        wanted["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/data"}]);
        wanted
    };
    let mut once = on_volume("once", &["append", "/data/once", "ran"]);
    once["spec"]["restartPolicy"] = json!("Never");
    let mut failed = on_volume("failed", &["exit", "3"]);
    failed["spec"]["restartPolicy"] = json!("Never");
    sandbox.write("once.json", &once.to_string());
    sandbox.write("failed.json", &failed.to_string());
    sandbox.write("web.yaml", &web("web", &image, "good", 8080));
    sandbox.write("other.yaml", &web("other", &image, "fine", 8081));
    std::fs::write(volume.join("precious"), "data").expect("the directory is ours");
    let read = |name: &str| std::fs::read_to_string(volume.join(name)).unwrap_or_default();
    {
        let mut agent = Agent::start(&sandbox);
        agent.wait_page(8080, "/", |body| body == "good\n");
        agent.wait_page(8081, "/", |body| body == "fine\n");
        agent.wait_status("two have finished", |status| {
            let ended = |name| status.containers(name).iter().any(|c| c.state == "exited" && c.exit_code.is_some());
            (ended("once") && ended("failed")).then_some(())
        });
        assert_eq!(read("once"), "ran\n");
        // An edit that cannot be read: held at the last good version.
        sandbox.write("web.yaml", &web("web", &image, "bad", 8080).replace("  containers:", "  containers: ]"));
        agent.wait_status("the file is complained about", |status| status.errors().contains("web.yaml").then_some(()));
    }
    drop(registry);
    sandbox.reboot();

    let boot_id = sandbox.boot_id();
    let mut agent = Agent::start_with(&sandbox, &[], &[("MAINSTAY_BOOT_ID", &boot_id)]);
    agent.wait_page(8080, "/", |body| body == "good\n");
    agent.wait_page(8081, "/", |body| body == "fine\n");
    let status = agent.wait_status("both serve, the rest has been looked at", |status| {
        let ready = |name| status.workload(name).is_some_and(|w| w.ready == 1);
        (ready("web") && ready("other") && status.workload("once").is_some()).then(|| status.clone())
    });
    assert!(status.is_held("web"), "{:?}", status.workload("web"));
    assert!(status.errors().contains("web.yaml"), "{}", status.errors());
    let failed = status.containers("failed");
    assert!(failed.iter().all(|c| c.state == "exited" && c.exit_code == Some(3)), "{failed:?}");
    // Time to do wrong: other work is done and seen to its end before the absence is believed.
    sandbox.write("later.json", &on_volume_later(&image).to_string());
    agent.wait_ready("later", 1);
    assert_eq!(read("once"), "ran\n", "finished work is not done twice");
    assert_eq!(read("precious"), "data");
    // The healed file goes on from there.
    sandbox.write("web.yaml", &web("web", &image, "better", 8080));
    agent.wait_page(8080, "/", |body| body == "better\n");
    agent.wait_for("no complaint is left", SOON, |agent| agent.status().errors().is_empty().then_some(()));
    agent.kill9();
    sandbox.down();
    sandbox.assert_clean();
    assert_eq!(read("precious"), "data");
}

fn on_volume_later(image: &str) -> serde_json::Value {
    pod("later", image, &["sleep", "forever"])
}
