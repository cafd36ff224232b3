//! Services and names with real containers: who is reached by which address and name, seen from the host and from pods.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tests::manifest::{deployment, pod};
use tests::{Agent, http, require_root, world};

fn service(name: &str, spec: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}).to_string()
}

/// The virtual address of a Service, as `status` tells it.
fn address(agent: &mut Agent<'_>, name: &str) -> Ipv4Addr {
    agent.wait_for("the Service has an address", tests::agent::SOON, |agent| {
        let status = agent.json(&["status"]);
        let services = status["services"].as_array()?;
        services.iter().find(|service| service["name"] == name)?["address"].as_str()?.parse().ok()
    })
}

/// What answers at an address within many tries.
fn answers(address: (Ipv4Addr, u16)) -> BTreeSet<String> {
    let ask = |_| http::get(address, "/hostname").map_or_else(|e| e.kind().to_string(), |page| page.text());
    (0..40).map(ask).map(|text| text.trim().to_owned()).collect()
}

/// What a pod gets at an address or name.
fn ask(agent: &Agent<'_>, pod: &str, host: &str, port: &str) -> String {
    let output = agent.cli(&["exec", pod, "--", "/bin/fixture", "get", host, port, "/hostname"]);
    if output.code == 0 {
        output.stdout.lines().rfind(|line| !line.is_empty()).unwrap_or_default().to_owned()
    } else {
        format!("{}{}", output.stdout, output.stderr)
    }
}

#[test]
fn a_service_spreads_requests_over_ready_replicas() {
    if !require_root("a_service_spreads_requests_over_ready_replicas") {
        return;
    }
    let (sandbox, _registry, image) = world("service");
    let mut web = deployment("web", 3, &image, &["serve"]);
    web["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] =
        json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1});
    web["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([{"name": "http", "containerPort": 8080}]);
    sandbox.write("web.json", &web.to_string());
    let ports = json!([{"port": 80, "targetPort": "http", "nodePort": 30080}]);
    let spec = json!({"type": "NodePort", "selector": {"app": "web"}, "ports": ports});
    sandbox.write("service.json", &service("web", &spec));
    sandbox.write("asks.json", &pod("asks", &image, &["sleep"]).to_string());
    let mut agent = Agent::start(&sandbox);
    agent.wait_ready("web", 3);
    agent.wait_ready("asks", 1);
    let names = |agent: &Agent<'_>| -> BTreeSet<String> {
        agent.status().workload("web").expect("it is listed").pods.iter().map(|pod| pod.name.clone()).collect()
    };
    let all = names(&agent);
    let ip = address(&mut agent, "web");
    agent.wait_for("all three answer", tests::agent::SOON, |_| (answers((ip, 80)) == all).then_some(()));
    assert_eq!(answers((Ipv4Addr::LOCALHOST, 30080)), all, "by the node port");
    for host in [ip.to_string().as_str(), "web", "web.default.svc.cluster.local"] {
        assert!(all.contains(&ask(&agent, "asks", host, "80")), "{host}: {}", ask(&agent, "asks", host, "80"));
    }

    // One that is not ready gets nobody, also while no agent runs and after it came back.
    let sick = all.first().expect("there are three").clone();
    agent.cli(&["exec", &sick, "--", "/bin/fixture", "write", "/tmp/unhealthy", "x"]).ok();
    let healthy: BTreeSet<String> = all.iter().filter(|name| **name != sick).cloned().collect();
    agent.wait_for("the sick one is left out", tests::agent::SOON, |_| (answers((ip, 80)) == healthy).then_some(()));
    agent.kill9();
    assert_eq!(answers((ip, 80)), healthy);
    agent.start_again();
    // From its first pass on the new agent knows who was ready.
    agent.wait_status("it looked around", |status| status.workload("web").map(|_| ()));
    for _ in 0..5 {
        assert_eq!(answers((ip, 80)), healthy);
    }
    assert_eq!(address(&mut agent, "web"), ip);

    // Without any pod clients are refused at once.
    web["spec"]["replicas"] = json!(0);
    sandbox.write("web.json", &web.to_string());
    let refused = BTreeSet::from([std::io::ErrorKind::ConnectionRefused.to_string()]);
    agent.wait_for("clients are refused", tests::agent::SOON, |_| (answers((ip, 80)) == refused).then_some(()));
    assert_eq!(answers((Ipv4Addr::LOCALHOST, 30080)), refused);
    assert_eq!(address(&mut agent, "web"), ip, "the address stays");
}

/// What the responder answers a pod, past /etc/hosts.
fn dns(agent: &Agent<'_>, pod: &str, name: &str) -> Vec<String> {
    let output = agent.cli(&["exec", pod, "--", "/bin/fixture", "dns", name]);
    format!("{}{}", output.stdout, output.stderr).lines().map(str::to_owned).collect()
}

#[test]
fn names_follow_pods_without_a_restart_of_who_asks() {
    if !require_root("names_follow_pods_without_a_restart_of_who_asks") {
        return;
    }
    let (sandbox, _registry, image) = world("names");
    let set = |version: &str| {
        let mut set = deployment("db", 2, &image, &["serve"]);
        set["kind"] = json!("StatefulSet");
        set["spec"]["serviceName"] = json!("db");
        set["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "VERSION", "value": version}]);
        set.to_string()
    };
    sandbox.write("set.json", &set("1"));
    let spec = json!({"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 8080}]});
    sandbox.write("service.json", &service("db", &spec));
    sandbox.write("asks.json", &pod("asks", &image, &["sleep"]).to_string());
    let mut agent = Agent::start(&sandbox);
    let asking = agent.wait_ready("asks", 1);
    let name = "db.default.svc.cluster.local";
    let ips = |agent: &mut Agent<'_>| -> Vec<String> {
        let mut ips: Vec<Ipv4Addr> = agent.json(&["status"])["workloads"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|workload| workload["name"] == "db")
            .flat_map(|workload| workload["pods"].as_array().cloned().unwrap_or_default())
            .filter_map(|pod| pod["ip"].as_str()?.parse().ok())
            .collect();
        ips.sort();
        ips.iter().map(ToString::to_string).collect()
    };
    let before = agent.wait_ready("db", 2);
    let first = ips(&mut agent);
    agent.wait_for("both are named", tests::agent::SOON, |agent| (dns(agent, "asks", name) == first).then_some(()));
    assert_eq!(dns(&agent, "asks", &format!("db-0.{name}")).len(), 1);
    assert_eq!(dns(&agent, "asks", "none.default.svc.cluster.local"), ["code 3"]);

    sandbox.write("set.json", &set("2"));
    agent.wait_status("both pods are replaced", |status| {
        let now = status.pids("db");
        (now.len() == 2 && now.iter().all(|pid| !before.contains(pid))).then_some(())
    });
    agent.wait_for("the new ones are named", tests::agent::SOON, |agent| {
        let now = ips(agent);
        (now != first && dns(agent, "asks", name) == now).then_some(())
    });
    assert_eq!(agent.status().pids("asks"), asking, "who asks runs on");
    // By the C library, as any program does it.
    assert!(ask(&agent, "asks", "db-1.db", "8080").starts_with("db-1"), "{}", ask(&agent, "asks", "db-1.db", "8080"));
}

#[test]
fn a_name_of_another_project_does_not_resolve() {
    if !require_root("a_name_of_another_project_does_not_resolve") {
        return;
    }
    let (sandbox, _registry, image) = world("projects");
    let project = |extra: &str| {
        format!(
            "services:\n  db:\n    image: {image}\n    command: [serve]\n  asks:\n    image: {image}\n    \
             command: [sleep]\n{extra}"
        )
    };
    sandbox.write("blog/compose.yaml", &project(""));
    sandbox.write("shop/compose.yaml", &project(&format!("  till:\n    image: {image}\n    command: [serve]\n")));
    let mut agent = Agent::start(&sandbox);
    agent.wait_ready("till", 1);
    let named = |agent: &mut Agent<'_>, pod: &str, name: &str| {
        agent.wait_for("the name resolves", tests::agent::SOON, |agent| {
            let found = dns(agent, pod, name);
            found.first().is_some_and(|line| line.parse::<Ipv4Addr>().is_ok()).then_some(found)
        })
    };
    let blog = named(&mut agent, "blog-asks-1", "db");
    let shop = named(&mut agent, "shop-asks-1", "db");
    assert_ne!(blog, shop, "each has its own");
    named(&mut agent, "shop-asks-1", "till");
    assert_eq!(dns(&agent, "blog-asks-1", "till"), ["code 3"]);
    let other = shop.first().expect("an address");
    let reached = ask(&agent, "blog-asks-1", other, "8080");
    assert!(reached.contains("cannot connect"), "{reached}");
}

/// Rules of others are theirs: what they do to pods is told once, and again when it comes back.
#[test]
fn a_firewall_of_others_is_told() {
    if !require_root("a_firewall_of_others_is_told") {
        return;
    }
    let (sandbox, _registry, image) = world("firewall");
    let nft = |rules: &str| {
        let status = std::process::Command::new("nft").arg(rules).status().expect("nft is installed");
        assert!(status.success(), "{rules}");
    };
    let drops = "table ip others { chain forward { type filter hook forward priority 0; policy drop; }; }";
    nft(drops);
    let mut agent = Agent::start_with(&sandbox, &["--resync", "1s"], &[]);
    let told = |agent: &mut Agent<'_>, count: usize| {
        agent.wait_for("the firewall is told", tests::agent::SOON, |agent| {
            let events = agent.json(&["events", "-n", "1000"]);
            let told = events.as_array().into_iter().flatten().filter(|event| event["reason"] == "network_warning");
            let messages: Vec<String> = told.map(|event| event["message"].to_string()).collect();
            (messages.len() == count).then(|| messages.last().cloned().unwrap_or_default())
        })
    };
    // There is no bridge before the first pod.
    sandbox.write("a.json", &pod("a", &image, &["sleep"]).to_string());
    agent.wait_ready("a", 1);
    let message = told(&mut agent, 1);
    assert!(message.contains("chain forward of table others drops forwarded packets"), "{message}");
    nft("delete table ip others");
    let passes = agent.status().passes;
    agent.wait_status("it has looked again", |status| (status.passes > passes + 2).then_some(()));
    nft(drops);
    told(&mut agent, 2);
    nft("delete table ip others");
}
