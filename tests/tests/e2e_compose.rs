//! Compose projects as they behave with real containers.

use tests::agent::SOON;
use tests::image::fixture_image;
use tests::{Agent, Registry, Sandbox, require_root};

/// The database is healthy a moment after its start; a migration runs to its end after that; the web server waits for
/// both and for the cache, and reaches them by name.
#[test]
fn services_wait_for_what_they_depend_on_and_find_it_by_name() {
    if !require_root("services_wait_for_what_they_depend_on_and_find_it_by_name") {
        return;
    }
    let sandbox = Sandbox::new("compose");
    let registry = Registry::start();
    let image = registry.push("app:1", &fixture_image());
    let project = format!(
        "name: shop
services:
  db:
    image: {image}
    command: [serve, --delay-ms, '700']
    environment: {{MESSAGE: database}}
    healthcheck: {{test: [CMD, /bin/fixture, get, 127.0.0.1, '8080', /healthz], interval: 1s, start_period: 30s, start_interval: 300ms}}
  cache:
    image: {image}
    command: [serve]
  migrate:
    image: {image}
    command: [get, db, '8080', /]
    restart: on-failure
    depends_on: {{db: {{condition: service_healthy}}}}
  web:
    image: {image}
    command: [serve]
    depends_on:
      db: {{condition: service_healthy}}
      migrate: {{condition: service_completed_successfully}}
      cache: {{condition: service_started}}
"
    );
    sandbox.write("compose.yaml", &project);
    let mut agent = Agent::start(&sandbox);
    agent.wait_ready("web", 1);
    let migrate = agent.status().containers("migrate").first().map(|c| (c.exit_code, c.restarts));
    assert_eq!(migrate, Some((Some(0), 0)), "it ran once, when the database answered");
    agent.wait_for("names resolve", SOON, |agent| {
        let page = agent.cli(&["exec", "shop-web-1", "--", "/bin/fixture", "get", "db", "8080", "/"]);
        let cache = agent.cli(&["exec", "shop-web-1", "--", "/bin/fixture", "connect", "cache", "8080"]);
        (page.stdout.contains("database") && cache.code == 0).then_some(())
    });
    agent.kill9();
    sandbox.down();
    sandbox.assert_clean();
}
