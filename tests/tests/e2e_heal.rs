//! Healthchecks of Compose that act, with real containers: a sick service is restarted, by its own check or by the
//! HEALTHCHECK of its image, unless it is told not to.

use tests::image::fixture_builder;
use tests::manifest::pod;
use tests::{Agent, require_root, world};

#[test]
fn a_sick_service_is_restarted_unless_told_otherwise() {
    if !require_root("a_sick_service_is_restarted_unless_told_otherwise") {
        return;
    }
    let (sandbox, registry, image) = world("heal");
    let check = ["CMD", "/bin/fixture", "healthz", "8080"];
    let checked = registry.push("checked:1", &fixture_builder().healthcheck(&check, 300, 2).build());
    let failing = ["CMD", "/bin/fixture", "exit", "1"];
    let sick_image = registry.push("sick:1", &fixture_builder().healthcheck(&failing, 300, 2).build());
    // The program ends with 0 when it is told to: `on-failure` alone would not start it again.
    let project = format!(
        "name: heal
services:
  own:
    image: {image}
    restart: on-failure
    healthcheck: &check {{test: [CMD, /bin/fixture, healthz, '8080'], interval: 300ms, retries: 2}}
  told:
    image: {image}
    restart: always
    labels: [mainstay.heal=false]
    healthcheck: *check
  never:
    image: {image}
    healthcheck: *check
  image:
    image: {checked}
    restart: always
  off:
    image: {sick_image}
    restart: always
    healthcheck: {{disable: true}}
  starting:
    image: {sick_image}
    restart: always
    healthcheck: {{start_period: 1h, start_interval: 200ms}}
"
    );
    sandbox.write("compose.yaml", &project);
    sandbox.write("kube.json", &pod("kube", &sick_image, &["serve"]).to_string());
    let mut agent = Agent::start(&sandbox);
    let all = ["own", "told", "never", "image", "off", "kube"];
    let before: Vec<Vec<i32>> = all.iter().map(|name| agent.wait_ready(name, 1)).collect();
    for name in ["own", "told", "never", "image"] {
        agent.cli(&["exec", &format!("heal-{name}-1"), "--", "/bin/fixture", "write", "/tmp/unhealthy", "x"]).ok();
    }
    for name in ["own", "image"] {
        agent.wait_status(&format!("{name} was started again and is healthy"), |status| {
            let found = status.workload(name)?;
            let container = status.containers(name).first().copied()?.clone();
            (container.restarts == 1 && found.ready == 1).then_some(())
        });
    }
    for name in ["told", "never"] {
        agent.wait_status(&format!("{name} is not ready"), |status| (status.workload(name)?.ready == 0).then_some(()));
    }
    let status = agent.status();
    for (index, name) in all.iter().enumerate().filter(|(_, name)| !["own", "image"].contains(name)) {
        assert_eq!(status.pids(name), before[index], "{name} was touched");
    }
    let starting = status.containers("starting").first().map(|c| (c.state.clone(), c.restarts));
    assert_eq!(starting, Some(("running".to_owned(), 0)), "failures in the start period do not count");
    assert_eq!(status.workload("starting").map(|w| w.ready), Some(0));
    let why = agent.cli(&["events"]).stdout;
    assert!(why.contains("unhealthy"), "{why}");
    agent.kill9();
    sandbox.down();
    sandbox.assert_clean();
}
