use serde_json::json;

use super::*;

fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/adopt/fixtures").join(name);
    serde_json::from_slice(&std::fs::read(path).expect("the fixture is there")).expect("JSON")
}

/// The Compose text for the only container, which must be valid.
fn adopted(inspected: &Value) -> (String, Vec<String>) {
    let found = words::container(&inspected[0]).expect("a container");
    let escaped: Vec<String> = found.words.iter().map(|word| word.replace('$', "$$")).collect();
    let text = docker_run_words(&escaped).expect("it is understood").text;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join(file_name(&found.name));
    std::fs::write(&file, &text).expect("written");
    let project = crate::discover::Project { dir: dir.path().to_owned(), name: None, files: vec![file] };
    let loaded = crate::discover::load_project(&project, crate::discover::Neighbours::Unknown).expect("loaded");
    let errors: Vec<_> = loaded.diagnostics.iter().filter(|found| found.is_error()).collect();
    assert!(errors.is_empty(), "{text}\n{errors:?}");
    // Which values are quoted is the converter's business.
    (text.replace('"', ""), found.notes)
}

/// The container of a `docker inspect`, with some fields of another kind.
fn docker(config: &Value, host: &Value) -> Value {
    let mut config = config.clone();
    config["Image"] = json!("nginx:1.27");
    json!([{"Name": "/web", "Id": "c69df0839799aa", "State": {"Status": "running"}, "Mounts": [],
            "Config": config, "HostConfig": host}])
}

#[test]
fn what_podman_was_told_is_said_again() {
    let (text, _) = adopted(&fixture("podman.json"));
    for line in [
        "image: localhost/t:1",
        "127.0.0.1:8080:80",
        "9000:9000/udp",
        "B=two $$words",
        "data:/var/data",
        "/srv/x:/x:ro",
        "on-failure:3",
        "NET_ADMIN",
        "MKNOD",
        "working_dir: /app",
        "1000:1000",
        "read_only: true",
        "db:10.0.0.5",
        "curl -f localhost",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("PATH="), "{text}");
}

#[test]
fn fields_of_docker_become_a_service() {
    let check = |config: Value, host: Value, lines: &[&str]| {
        let (text, _) = adopted(&docker(&config, &host));
        for line in lines {
            assert!(text.contains(line), "{line} of {config} {host}\n{text}");
        }
    };
    check(json!({}), json!({}), &["image: nginx:1.27", "web:"]);
    check(json!({"Env": ["PATH=/bin", "A=$1 b"]}), json!({}), &["A=$$1 b"]);
    check(json!({"Entrypoint": ["/e", "-x"], "Cmd": ["a b"]}), json!({}), &["/e", "-x", "a b"]);
    check(
        json!({"User": "1:2", "WorkingDir": "/w", "StopSignal": "SIGINT", "StopTimeout": 30}),
        json!({}),
        &["1:2", "/w", "SIGINT", "30s"],
    );
    check(json!({"Labels": {"a": "b", "com.docker.compose.project": "x"}}), json!({}), &["a=b"]);
    check(
        json!({}),
        json!({"RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0}}),
        &["restart: unless-stopped"],
    );
    check(json!({}), json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 5}}), &["on-failure:5"]);
    check(
        json!({}),
        json!({"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]}}),
        &["8080:80"],
    );
    check(
        json!({}),
        json!({"PortBindings": {"53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}]}}),
        &["127.0.0.1:53:53/udp"],
    );
    check(
        json!({}),
        json!({"Memory": 67_108_864, "NanoCpus": 1_500_000_000_i64, "PidsLimit": 100}),
        &["67108864b", "1.5", "100"],
    );
    check(
        json!({}),
        json!({"Privileged": true, "ReadonlyRootfs": true, "Init": true, "NetworkMode": "host"}),
        &["privileged: true", "read_only: true", "init: true", "network_mode: host"],
    );
    check(
        json!({}),
        json!({"CapAdd": ["NET_ADMIN"], "ExtraHosts": ["a:1.2.3.4"], "Sysctls": {"net.core.somaxconn": "1024"}}),
        &["NET_ADMIN", "a:1.2.3.4", "somaxconn"],
    );
    check(
        json!({}),
        json!({"Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 2048}], "Tmpfs": {"/t": "size=1m"}}),
        &["nofile", "/t:size=1m"],
    );
    check(
        json!({"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 7_000_000_000_i64, "Retries": 2}}),
        json!({}),
        &["true", "7", "retries: 2"],
    );
}

#[test]
fn what_is_lost_is_noted() {
    let mut inspected = docker(
        &json!({"Healthcheck": {"Test": ["CMD", "/check"]}}),
        &json!({"PortBindings": {"80/tcp": [{"HostPort": ""}]}}),
    );
    inspected[0]["Mounts"] = json!([
        {"Type": "volume", "Name": "data", "Source": "/var/lib/docker/volumes/data/_data", "Destination": "/d", "RW": true},
        {"Type": "bind", "Source": "/srv", "Destination": "/s", "RW": false},
        {"Type": "npipe", "Destination": "/p"},
    ]);
    let (text, notes) = adopted(&inspected);
    assert!(text.contains("data:/d") && text.contains("/srv:/s:ro"), "{text}");
    let notes = notes.join("\n");
    for part in ["any free port", "begins empty", "`npipe`", "without a shell"] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    assert_eq!(words::container(&json!({"Name": "infra", "IsInfra": true})), None);
    assert_eq!(words::container(&json!({"no": "container"})), None);
}

#[test]
fn containers_are_named_as_docker_names_them() {
    let found = json!({"Id": "c69df0839799aa", "Name": "/shop"});
    for (name, is) in
        [("shop", true), ("c69df0839799aa", true), ("c69d", true), ("sho", false), ("", false), ("d", false)]
    {
        assert_eq!(words::is_called(&found, name), is, "{name}");
    }
}
