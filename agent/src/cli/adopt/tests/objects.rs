use serde_json::{Value, json};

use super::super::known::Known;
use super::{adopted, adopted_with};

/// The container of a `docker inspect`, with some fields of another kind.
fn docker(fields: &Value) -> Value {
    let mut found = json!({"Name": "/web", "Id": "c69df0839799aa", "State": {"Status": "running"}, "Mounts": [],
        "Config": {"Image": "nginx:1.27"}, "HostConfig": {}});
    for (key, value) in fields.as_object().expect("fields") {
        found[key] = value.clone();
    }
    json!([found])
}

/// What is known when whoever runs these containers answers this of objects of that kind.
fn known(inspected: &Value, kind: &str, answer: &Value) -> Known {
    let list = inspected.as_array().expect("a list");
    let mut known = Known::of(list);
    let mut asked = Vec::new();
    known.ask(list, &mut |of_kind, names| {
        asked.push((of_kind, names));
        if of_kind == kind { answer.as_array().expect("a list").clone() } else { Vec::new() }
    });
    assert!(asked.iter().any(|(of_kind, names)| *of_kind == kind && !names.is_empty()), "{asked:?}");
    known
}

fn volume(name: &str) -> Value {
    json!({"Type": "volume", "Name": name, "Source": format!("/docker/{name}/_data"), "Destination": format!("/{name}"),
        "Driver": "local", "RW": true})
}

#[test]
fn volumes_keep_the_options_of_their_driver() {
    let mounts = ["plain", "bound", "mem", "nfs", "sized", "far"].map(volume);
    let inspected = docker(&json!({ "Mounts": mounts }));
    // As `docker volume inspect` has it; podman's is the same.
    let answer = json!([
        {"Name": "plain", "Driver": "local", "Options": null},
        {"Name": "bound", "Driver": "local", "Options": {"type": "none", "o": "bind,ro", "device": "/srv/$x"}},
        {"Name": "mem", "Driver": "local", "Options": {"type": "tmpfs", "o": "size=10m", "device": "tmpfs"}},
        {"Name": "nfs", "Driver": "local", "Options": {"type": "nfs", "o": "addr=10.0.0.1", "device": ":/export"}},
        {"Name": "sized", "Driver": "local", "Options": {"o": "size=1g"}},
        {"Name": "far", "Driver": "vieux/sshfs", "Options": {"sshcmd": "x"}},
    ]);
    let (text, notes) = adopted_with(&inspected, &known(&inspected, "volume", &answer));
    for part in [
        "  plain:\n    name: plain\n  bound:\n    name: bound\n    driver_opts:\n      device: /srv/$$x\n      o: bind,ro\n      type: none\n",
        "  mem:\n    name: mem\n    driver_opts:\n      device: tmpfs\n      o: size=10m\n      type: tmpfs\n",
        "  nfs:\n    name: nfs\n  sized:\n    name: sized\n  far:\n    name: far\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let expected = [
        "volume `plain` of `web` begins empty: its data is in /docker/plain/_data, copy it before",
        "`ro` of volume `bound` of `web` has no effect",
        "volume `nfs` of `web` begins empty: its data is in /docker/nfs/_data, which is mounted (from :/export) only while a container there runs",
        "options of volume `sized` of `web` were left out",
        "volume `sized` of `web` begins empty",
        "volume `far` of `web` begins empty: its data is in /docker/far/_data, which is mounted (by driver `vieux/sshfs`)",
    ];
    assert_eq!(notes.len(), expected.len(), "{notes:#?}");
    for (note, part) in notes.iter().zip(expected) {
        assert!(note.starts_with(part), "{part}\n{note}");
    }
    // From a file: what the container asked for.
    let asked = json!([{"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {"DriverConfig":
        {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/srv/v"}}}}]);
    let (text, notes) = adopted(&docker(&json!({"Mounts": [volume("v")], "HostConfig": {"Mounts": asked}})));
    assert!(text.contains("device: /srv/v\n") && notes.is_empty(), "{text}\n{notes:?}");
}

#[test]
fn networks_are_what_they_were() {
    let joined = json!({"Networks": {
        "fixed": {"IPAMConfig": {"IPv4Address": "172.20.0.9", "IPv6Address": "fd00::9"}},
        "closed": {"IPAMConfig": null},
        "lan": {"IPAMConfig": null},
        "ranged": {"IPAMConfig": null},
    }});
    let inspected = docker(&json!({"NetworkSettings": joined, "HostConfig": {"NetworkMode": "fixed"}}));
    let of_docker = json!([
        {"Name": "fixed", "Driver": "bridge", "Internal": false, "EnableIPv6": true, "Options": {"com.docker.network.enable_ipv4": "true"},
            "IPAM": {"Driver": "default", "Config": [{"Subnet": "fd00::/64"}, {"Subnet": "172.20.0.0/16", "Gateway": "172.20.0.1"}]}},
        {"Name": "closed", "Driver": "bridge", "Internal": true, "IPAM": {"Config": [{"Subnet": "172.21.0.0/16"}]}},
        {"Name": "ranged", "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "10.5.0.0/24"}]}},
        {"Name": "lan", "Driver": "macvlan", "Options": {"parent": "eth0"}, "IPAM": {"Config": []}},
    ]);
    let of_podman = json!([
        {"name": "fixed", "driver": "bridge", "internal": false, "ipv6_enabled": true,
            "subnets": [{"subnet": "fd00::/64"}, {"subnet": "172.20.0.0/16", "gateway": "172.20.0.1"}]},
        {"name": "closed", "driver": "bridge", "internal": true, "subnets": [{"subnet": "10.89.0.0/24"}]},
        {"name": "ranged", "driver": "bridge", "subnets": [{"subnet": "10.5.0.0/24"}]},
        {"name": "lan", "driver": "macvlan", "options": {"parent": "eth0"}},
    ]);
    for answer in [of_docker, of_podman] {
        let (text, notes) = adopted_with(&inspected, &known(&inspected, "network", &answer));
        for part in [
            "      fixed:\n        ipv4_address: 172.20.0.9\n      closed: {}\n",
            "  fixed:\n    name: fixed\n    enable_ipv6: true\n    ipam:\n      config:\n        - subnet: 172.20.0.0/16\n",
            "  closed:\n    name: closed\n    internal: true\n  lan:\n    name: lan\n",
            "  ranged:\n    name: ranged\n    ipam:\n      config:\n        - subnet: 10.5.0.0/24\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let expected = [
            "address fd00::9 of `web` was left out",
            "network `fixed` of `web` keeps its subnet 172.20.0.0/16: remove the old network",
            "network `lan` of `web` becomes a bridge: there is no driver `macvlan`",
            "options of network `lan` of `web` were left out: parent",
            "network `ranged` of `web` keeps its subnet 10.5.0.0/24",
        ];
        assert_eq!(notes.len(), expected.len(), "{notes:#?}");
        for (note, part) in notes.iter().zip(expected) {
            assert!(note.starts_with(part), "{part}\n{note}");
        }
    }
    // From a file.
    let (text, notes) = adopted(&inspected);
    assert!(text.contains("ipv4_address: 172.20.0.9") && !text.contains("ipam"), "{text}");
    let missing = "`web` does not start before `networks.fixed` has the subnet of 172.20.0.9: write `ipam: ";
    assert!(notes.iter().any(|note| note.starts_with(missing)), "{notes:#?}");
}

#[test]
fn an_image_goes_by_a_name() {
    let id = "sha256:85ec574cd78d00112233";
    for written in ["85ec574cd78d", "85ec574cd78d00112233", id] {
        let inspected = docker(&json!({"Image": id, "Config": {"Image": written}}));
        let answer = json!([{"Id": id, "RepoTags": ["<none>:<none>", "shop:2"], "RepoDigests": []}]);
        let (text, notes) = adopted_with(&inspected, &known(&inspected, "image", &answer));
        assert!(text.contains("    image: shop:2\n") && notes.is_empty(), "{text}\n{notes:?}");
        let found = super::container::container(&inspected[0], &Known::default()).expect("a container");
        let refused = found.convert().expect_err("nobody can pull it");
        assert!(refused.contains("given by an id") && refused.contains("docker tag"), "{refused}");
    }
    let (text, _) = adopted(&docker(&json!({"Image": id, "Config": {"Image": "85ec"}, "ImageName": "docker.io/x:1"})));
    assert!(text.contains("image: docker.io/x:1\n"), "{text}");
    let (text, _) = adopted(&docker(&json!({"Image": id, "Config": {"Image": "cafe"}})));
    assert!(text.contains("image: cafe\n"), "{text}");
}
