//! Compose projects as they behave with real containers.

use tests::agent::SOON;
use tests::image::{fixture_builder, fixture_image};
use tests::{Agent, Registry, Sandbox, require_root, world};

/// The database is healthy a moment after its start; a migration runs to its end after that; the web server waits for
/// both and for the cache, and reaches them by name.
#[test]
fn services_wait_for_what_they_depend_on_and_find_it_by_name() {
    if !require_root("services_wait_for_what_they_depend_on_and_find_it_by_name") {
        return;
    }
    let sandbox = Sandbox::new("compose");
    let log = sandbox.dir().join("log");
    std::fs::create_dir(&log).expect("the directory is ours");
    let registry = Registry::start();
    let image = registry.push("web:1", &fixture_image());
    let database = registry.push("db:1", &fixture_builder().cmd(&["serve", "--delay-ms", "700"]).build());
    let cache = registry.push("cache:1", &fixture_builder().env(&["PATH=/bin", "PORT=6379"]).build());
    let project = format!(
        "name: shop
services:
  db:
    image: {database}
    restart: always
    environment: {{MESSAGE: database}}
    volumes: ['{log}:/log']
    healthcheck: {{test: [CMD, /bin/fixture, healthz, '8080', /log/order], interval: 1s, start_period: 30s, start_interval: 300ms}}
  cache:
    image: {cache}
    restart: always
  migrate:
    image: {image}
    command: [get, db, '8080', /]
    restart: on-failure
    depends_on: {{db: {{condition: service_healthy}}}}
  worker:
    image: {image}
    restart: always
    command: [diary, /log/order, worker]
    volumes: ['{log}:/log']
    depends_on: {{db: {{condition: service_healthy}}}}
  web:
    image: {image}
    restart: always
    command: [serve]
    depends_on:
      db: {{condition: service_healthy}}
      migrate: {{condition: service_completed_successfully}}
      cache: {{condition: service_started}}
",
        log = log.display()
    );
    sandbox.write("compose.yaml", &project);
    let mut agent = Agent::start(&sandbox);
    agent.wait_ready("web", 1);
    let migrate = agent.status().containers("migrate").first().map(|c| (c.exit_code, c.restarts));
    assert_eq!(migrate, Some((Some(0), 0)), "it ran once, when the database answered");
    agent.wait_for("names resolve", SOON, |agent| {
        let page = agent.cli(&["exec", "shop-web-1", "--", "/bin/fixture", "get", "db", "8080", "/"]);
        let cache = agent.cli(&["exec", "shop-web-1", "--", "/bin/fixture", "connect", "cache", "6379"]);
        (page.stdout.contains("database") && cache.code == 0).then_some(())
    });
    agent.wait_ready("worker", 1);

    // Everything dies at once: agent, shims, containers. The conditions hold again, and what is done stays done.
    let order = log.join("order");
    agent.kill9();
    sandbox.kill_all();
    std::fs::write(&order, "").expect("the directory is ours");
    agent.start_again();
    agent.wait_ready("worker", 1);
    agent.wait_ready("web", 1);
    let lines = std::fs::read_to_string(&order).expect("it was written before");
    let before: Vec<&str> = lines.lines().take_while(|line| *line != "worker starts").collect();
    assert!(before.contains(&"healthy"), "the worker did not wait:\n{lines}");
    let now = agent.status().containers("migrate").first().map(|c| (c.exit_code, c.restarts));
    assert_eq!(now, migrate, "finished work is not done twice");
    agent.kill9();
    sandbox.down();
    sandbox.assert_clean();
}

/// The states of the containers of a service: how many run, and the messages that they serve.
fn messages(agent: &Agent<'_>, service: &str, replicas: u32) -> Vec<String> {
    (1..=replicas)
        .map(|number| {
            let pod = format!("roll-{service}-{number}");
            let page = agent.cli(&["exec", &pod, "--", "/bin/fixture", "get", "127.0.0.1", "8080", "/"]).stdout;
            page.lines().nth(1).unwrap_or_default().to_owned()
        })
        .collect()
}

#[test]
fn update_config_says_how_a_new_version_takes_over() {
    if !require_root("update_config_says_how_a_new_version_takes_over") {
        return;
    }
    let (sandbox, _registry, image) = world("roll");
    let project = |message: &str, command: &str| {
        format!(
            "name: roll
services:
  first:
    image: {image}
    command: {command}
    restart: always
    stop_grace_period: 1s
    environment: {{MESSAGE: {message}}}
    deploy:
      replicas: 2
      update_config: {{order: start-first, parallelism: 1, failure_action: rollback, monitor: 1s}}
  last:
    image: {image}
    command: [serve]
    restart: always
    stop_grace_period: 1s
    environment: {{MESSAGE: {message}}}
    deploy: {{replicas: 2, update_config: {{order: stop-first, parallelism: 2, monitor: 500ms}}}}
"
        )
    };
    sandbox.write("compose.yaml", &project("one", "[serve]"));
    let mut agent = Agent::start(&sandbox);
    let old = [agent.wait_ready("first", 2), agent.wait_ready("last", 2)];
    agent.wait_status("the first version is proven", |status| status.converged.then_some(()));

    sandbox.write("compose.yaml", &project("two", "[serve]"));
    let (mut most, mut fewest, mut most_last) = (0, 9, 0);
    agent.wait_status("both services are replaced", |status| {
        let (first, last) = (status.pids("first"), status.pids("last"));
        (most, fewest) = (most.max(first.len()), fewest.min(first.len()));
        most_last = most_last.max(last.len());
        let replaced = |now: &[i32], old: &[i32]| now.len() == 2 && now.iter().all(|pid| !old.contains(pid));
        (replaced(&first, &old[0]) && replaced(&last, &old[1])).then_some(())
    });
    assert_eq!((fewest, most), (2, 3), "start-first, one at a time");
    assert_eq!(most_last, 2, "stop-first starts none beside the old ones");
    agent.wait_status("the second version is proven", |status| status.converged.then_some(()));
    assert_eq!(messages(&agent, "first", 2), ["two", "two"]);

    // The third version ends as soon as it is started: it is taken back, and the service does not suffer.
    let good = agent.status().pids("first");
    sandbox.write("compose.yaml", &project("two", "[exit, '1']"));
    agent.wait_for("the failure is told", SOON, |agent| {
        let text = agent.cli(&["events"]).stdout;
        (text.contains("rolled_back") || text.contains("rollback")).then_some(())
    });
    agent.wait_status("only the good version runs", |status| {
        let now = status.pids("first");
        (now.len() == 2 && status.workload("first")?.ready == 2).then_some(())
    });
    assert!(
        agent.status().pids("first").iter().any(|pid| good.contains(pid)),
        "one at a time: the other was not touched"
    );
    assert_eq!(messages(&agent, "first", 2), ["two", "two"]);
    agent.kill9();
    sandbox.down();
    sandbox.assert_clean();
}

/// What is in the network of another service is nowhere else, and follows it when it is replaced.
#[test]
fn a_service_in_the_network_of_another_follows_it() {
    if !require_root("a_service_in_the_network_of_another_follows_it") {
        return;
    }
    let (sandbox, _registry, image) = world("joined");
    let project = |message: &str| {
        format!(
            "name: vpn
services:
  gate:
    image: {image}
    restart: always
    stop_grace_period: 1s
    environment: {{MESSAGE: {message}}}
  inner:
    image: {image}
    command: [sleep]
    restart: always
    stop_grace_period: 1s
    network_mode: service:gate
"
        )
    };
    let network = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let shared = |status: &tests::status::Status| {
        let (gate, inner) = (status.pids("gate"), status.pids("inner"));
        let one = *gate.first().filter(|_| gate.len() == 1 && inner.len() == 1)?;
        (network(one) == network(*inner.first()?)).then_some(one)
    };
    sandbox.write("compose.yaml", &project("one"));
    let mut agent = Agent::start(&sandbox);
    let first = agent.wait_status("both are in one network", &shared);
    assert_ne!(network(first), std::fs::read_link("/proc/self/ns/net").ok(), "not that of the host");
    let get = |agent: &Agent<'_>, host: &str| {
        let page = agent.cli(&["exec", "vpn-inner-1", "--", "/bin/fixture", "get", host, "8080", "/"]).stdout;
        page.lines().nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!((get(&agent, "127.0.0.1"), get(&agent, "gate")), ("one".to_owned(), "one".to_owned()));
    sandbox.write("compose.yaml", &project("two"));
    agent.wait_status("both are in another network", |status| shared(status).filter(|pid| *pid != first));
    agent.wait_for("the new one is reached", SOON, |agent| (get(agent, "127.0.0.1") == "two").then_some(()));
    agent.kill9();
    sandbox.down();
    sandbox.assert_clean();
}
