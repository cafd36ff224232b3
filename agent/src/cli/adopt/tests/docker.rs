use serde_json::{Value, json};

use super::{adopted, fixture};

/// The container of a `docker inspect`, with some fields of another kind.
fn docker(config: &Value, host: &Value) -> Value {
    let mut config = config.clone();
    config["Image"] = json!("nginx:1.27");
    json!([{"Name": "/web", "Id": "c69df0839799aa", "State": {"Status": "running"}, "Mounts": [],
            "Config": config, "HostConfig": host}])
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
fn every_setting_of_docker_is_carried_over_or_noted() {
    let carried = [
        (json!({"CpuQuota": 50_000, "CpuPeriod": 100_000}), "cpu_quota: 50000"),
        (json!({"CpuShares": 512}), "cpu_shares: 512"),
        (json!({"CpusetCpus": "0-1"}), "cpuset: 0-1"),
        (json!({"MemoryReservation": 1_048_576}), "mem_reservation: 1048576b"),
        (json!({"Memory": 1_048_576, "MemorySwap": 4_194_304}), "memswap_limit: 4194304b"),
        (json!({"Memory": 1_048_576, "MemorySwap": -1}), "memswap_limit: -1"),
        (json!({"OomScoreAdj": -500}), "oom_score_adj: -500"),
        (json!({"UsernsMode": "host", "CgroupnsMode": "host"}), "userns_mode: host"),
        (json!({"DnsOptions": ["ndots:2"]}), "- ndots:2"),
        (json!({"BlkioWeight": 300}), "weight: 300"),
        (json!({"Annotations": {"a": "b"}}), "a: b"),
        (json!({"IpcMode": "host", "PidMode": "host"}), "pid: host"),
        (json!({"LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}}}), "max-size: 10m"),
        (json!({"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}), "gpus: all"),
        (json!({"DeviceRequests": [{"Count": 2, "Capabilities": [["gpu"]]}]}), "count: 2"),
        (
            json!({"DeviceRequests": [{"DeviceIDs": ["0", "1"], "Capabilities": [["gpu"]]}]}),
            "device_ids:\n          - 0\n",
        ),
        (json!({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0"]}]}), "- nvidia.com/gpu=0"),
        (json!({"MaskedPaths": [], "ReadonlyPaths": []}), "- systempaths=unconfined"),
        (json!({"Ulimits": [{"Name": "RLIMIT_NOFILE", "Soft": 1, "Hard": 2}]}), "nofile:"),
    ];
    for (host, line) in carried {
        let (text, notes) = adopted(&docker(&json!({}), &host));
        assert!(text.contains(line), "{host}: {line}\n{text}");
        assert!(notes.is_empty(), "{host}: {notes:?}");
    }
    let noted = [
        (json!({"OomKillDisable": true}), "`OomKillDisable`"),
        (json!({"UTSMode": "host"}), "`UTSMode`"),
        (json!({"IpcMode": "container:1234"}), "`IpcMode`"),
        (json!({"PidMode": "container:1234"}), "`PidMode`"),
        (json!({"DeviceCgroupRules": ["c 1:3 r"]}), "`DeviceCgroupRules`"),
        (json!({"StorageOpt": {"size": "1G"}}), "`StorageOpt`"),
        (json!({"PublishAllPorts": true}), "`PublishAllPorts`"),
        (json!({"LogConfig": {"Type": "syslog", "Config": {}}}), "`LogConfig`"),
        (json!({"Links": ["/db:/web/database"]}), "`--link db:database`"),
        (json!({"SecurityOpt": ["seccomp={\"defaultAction\":\"x\"}"]}), "`SecurityOpt`"),
        (json!({"DeviceRequests": [{"Count": 1, "Capabilities": [["tpu"]]}]}), "`DeviceRequests`"),
        (json!({"CpusetMems": "0", "ATimeToCome": {"a": 1}}), "`ATimeToCome`"),
    ];
    for (host, note) in noted {
        let (text, notes) = adopted(&docker(&json!({}), &host));
        assert!(notes.join("\n").contains(note), "{host}: {note}\n{notes:?}\n{text}");
    }
    let (text, notes) = adopted(&docker(&json!({}), &json!({"Runtime": "nvidia"})));
    assert!(text.contains("runtime: nvidia") && notes.is_empty(), "{text}");
    let (text, _) = adopted(&docker(
        &json!({"Domainname": "example.org", "MacAddress": "02:42:ac:11:00:02", "Healthcheck": {
            "Test": ["CMD", "/check", "$A"], "StartInterval": 2_000_000_000_i64}}),
        &json!({}),
    ));
    for line in ["domainname: example.org", "02:42:ac:11:00:02", "- CMD\n        - /check\n        - $$A", "2000ms"] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn a_new_container_of_docker_has_nothing_to_note() {
    // As Docker 28 inspects `docker run -d --name web nginx:1.27`, without what the image sets.
    let (text, notes) = adopted(&fixture("docker.json"));
    assert_eq!(text, "services:\n  web:\n    image: nginx:1.27\n    container_name: web\n    restart: no\n");
    assert_eq!(notes, Vec::<String>::new());
}

#[test]
fn variables_are_those_that_somebody_chose() {
    let env =
        json!({"Env": ["PATH=/opt/bin:/bin", "HOME=/data", "TERM=xterm", "DB_PASSWORD=x", "KEY_FILE=/k", "TOKEN="]});
    let (text, notes) = adopted(&docker(&env, &json!({})));
    for line in ["PATH=/opt/bin:/bin", "HOME=/data", "TERM=xterm"] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let all = notes.join("\n");
    assert!(all.contains("its image sets") && all.contains("plain text (DB_PASSWORD)"), "{all}");
}

#[test]
fn mounts_and_networks_of_docker_keep_their_options() {
    let mut inspected = docker(
        &json!({}),
        &json!({"NetworkMode": "front", "Mounts": [
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 1023}},
            {"Type": "volume", "Source": "data", "Target": "/d", "VolumeOptions": {"Subpath": "a", "NoCopy": true}},
            {"Type": "bind", "Source": "/srv", "Target": "/s", "BindOptions": {"NonRecursive": true}},
        ]}),
    );
    inspected[0]["Mounts"] = json!([
        {"Type": "tmpfs", "Source": "", "Destination": "/t", "RW": true},
        {"Type": "volume", "Name": "data", "Source": "/x/_data", "Destination": "/d", "Driver": "local", "RW": true},
        {"Type": "volume", "Name": "far", "Source": "/f", "Destination": "/f", "Driver": "nfs", "RW": true},
        {"Type": "bind", "Source": "/srv", "Destination": "/s", "RW": false, "Propagation": "rslave"},
        {"Type": "bind", "Source": "/a:b", "Destination": "/c", "RW": true, "Propagation": "rprivate"},
    ]);
    inspected[0]["NetworkSettings"]["Networks"] = json!({
        "back": {"Aliases": ["web", "c69df0839799", "shop"], "IPAMConfig": null, "DriverOpts": {"a": "b"}},
        "front": {"Aliases": null, "IPAMConfig": {"IPv4Address": "10.0.0.5"}},
    });
    let (text, notes) = adopted(&inspected);
    for line in [
        "- /t:size=1048576,mode=1777",
        "nocopy: true",
        "subpath: a",
        "- /srv:/s:ro,rslave",
        "source: /a:b",
        "networks:\n      front:\n        ipv4_address: 10.0.0.5\n      back:\n        aliases:\n          - shop\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let all = notes.join("\n");
    for part in ["`NonRecursive`", "by driver `nfs`", "`DriverOpts`", "`data` of `web` begins empty"] {
        assert!(all.contains(part), "{part}\n{all}");
    }
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
    for part in ["any free port", "begins empty", "`npipe`"] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
}

#[test]
fn what_runs_is_written_where_the_entrypoint_was_taken_away() {
    let started = |config: Value, host: Value, path: &str, args: &[&str]| {
        let mut inspected = docker(&config, &host);
        inspected[0]["Path"] = json!(path);
        inspected[0]["Args"] = json!(args);
        adopted(&inspected).0
    };
    let lines = "    entrypoint:\n      - /bin/sh\n    command:\n      - -c\n      - true\n";
    for entrypoint in [json!(null), json!([])] {
        let config = json!({"Entrypoint": entrypoint, "Cmd": ["/bin/sh", "-c", "true"]});
        let text = started(config, json!({}), "/bin/sh", &["-c", "true"]);
        assert!(text.contains(lines), "{text}");
    }
    let config = json!({"Entrypoint": "/bin/sh -c", "Cmd": ["true"]});
    let text = started(config, json!({"Init": true}), "/dev/init", &["--", "/bin/sh", "-c", "true"]);
    assert!(text.contains(lines), "{text}");
    let text = started(json!({"Entrypoint": ["/a"], "Cmd": ["b"]}), json!({}), "/a", &["b"]);
    assert!(text.contains("    entrypoint:\n      - /a\n    command:\n      - b\n"), "{text}");
}

#[test]
fn what_docker_sets_by_itself_is_neither_written_nor_noted() {
    let (text, notes) = adopted(&docker(&json!({}), &json!({"CgroupnsMode": "host", "VolumeDriver": "local"})));
    assert!(!text.contains("cgroup") && notes.is_empty(), "{text} {notes:?}");
    let privileged = json!({"CgroupnsMode": "host", "Privileged": true, "SecurityOpt": ["label=disable"]});
    let (text, notes) = adopted(&docker(&json!({}), &privileged));
    assert!(text.contains("cgroup: host") && notes.is_empty(), "{text} {notes:?}");
    let (_, notes) = adopted(&docker(&json!({}), &json!({"SecurityOpt": ["label=disable"]})));
    assert!(notes.join("").contains("SELinux"), "{notes:?}");
}

#[test]
fn links_of_networks_and_modes_of_volumes_are_not_forgotten() {
    let mut inspected = docker(&json!({}), &json!({"NetworkMode": "front"}));
    inspected[0]["NetworkSettings"]["Networks"] = json!({"front": {"Links": ["db:database"]}});
    inspected[0]["Mounts"] = json!([{"Type": "volume", "Name": "v", "Source": "/x", "Destination": "/p",
        "Driver": "local", "Mode": "nocopy", "RW": true}]);
    let (text, notes) = adopted(&inspected);
    assert!(text.contains("- v:/p:nocopy\n"), "{text}");
    assert!(notes.iter().any(|note| note.contains("`--link db:database`")), "{notes:?}");
}

#[test]
fn a_check_that_begins_like_a_list_is_one_of_the_shell() {
    let config = json!({"Healthcheck": {"Test": ["CMD-SHELL", "[ -f /ready ]"]}});
    let (text, _) = adopted(&docker(&config, &json!({})));
    assert!(text.contains("      test:\n        - CMD-SHELL\n        - [ -f /ready ]\n"), "{text}");
}
