use serde_json::{Value, json};

use super::{adopted, fixture};

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
fn a_quadlet_is_taken_over_without_what_podman_does_itself() {
    let (text, notes) = adopted(&fixture("quadlet.json"));
    for line in [
        "image: docker.io/library/nginx:1.27",
        "restart: unless-stopped",
        "- systemd-data:/data\n",
        "- /srv/shop/conf:/etc/shop:ro\n",
        "- MODE=live",
        "- FROM_HOST=yes",
        "- IN_FILE=1",
        "- NGINX_VERSION=1.27",
        "- TZ=Europe/Berlin",
        "- daemon off;",
        "pull_policy: always",
        "- net_raw",
        "test: curl -f localhost",
        "systemd-shop:\n        aliases:\n          - web",
        // Podman makes these with `--read-only`; `/tmp` was asked for.
        "tmpfs:\n      - /tmp\n      - /run\n      - /var/tmp\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    for part in
        ["NOT_SET", "PATH=", "HOSTNAME", "HOME=", "container=", "PODMAN_SYSTEMD_UNIT", "./conf", "cidfile", "abab"]
    {
        assert!(!text.contains(part), "{part}\n{text}");
    }
    let all = notes.join("\n");
    for part in [
        "restarts of `shop` are up to `shop.service`",
        "volume `systemd-data` of `shop` begins empty",
        "`:U` of `shop` was left out",
        "`--secret db-password` was left out",
        "`--requires db` was left out",
        "`--health-on-failure kill` was left out",
        "`--userns keep-id` of `shop` was left out",
        "variables of `vars.env` are written out",
        "plain text (API_TOKEN)",
    ] {
        assert!(all.contains(part), "{part}\n{all}");
    }
    assert_eq!(notes.len(), 9, "{all}");
}

/// A container of podman with this command line, this `Mounts` and these variables.
fn podman(typed: &str, mounts: &Value, env: &Value) -> Value {
    let words: Vec<&str> = typed.split(' ').collect();
    let check = json!({"Test": if typed.contains("health-cmd") { json!(["CMD", "/a"]) } else { json!(null) }});
    let config = json!({"CreateCommand": words, "Env": env, "Image": "docker.io/x:1", "Healthcheck": check});
    json!([{"Name": "web", "Id": "c69df0839799aa", "ImageName": "docker.io/x:1", "Mounts": mounts, "Config": config,
            "State": {"Status": "running"}, "HostConfig": {}}])
}

#[test]
fn what_podman_took_from_its_surroundings_is_written_down() {
    let volume = json!([{"Type": "volume", "Name": "v", "Source": "/p/v/_data", "Destination": "/d", "RW": true}]);
    let bind = json!([{"Type": "bind", "Source": "/home/me/data", "Destination": "/d", "RW": true}]);
    let cases = [
        // A volume without a name, or of the image, or of another container.
        ("podman run -v /d x", &volume, json!([]), "- v:/d\n", "`v` of `web` begins empty"),
        ("podman run x", &volume, json!([]), "- v:/d\n", "`v` of `web` begins empty"),
        ("podman run --volumes-from other x", &volume, json!([]), "- v:/d\n", "`v` of `web` begins empty"),
        (
            "podman run --mount type=volume,src=v,dst=/d x",
            &volume,
            json!([]),
            "source: v\n",
            "`v` of `web` begins empty",
        ),
        ("podman run -v ./data:/d/ x", &bind, json!([]), "- /home/me/data:/d/\n", ""),
        ("podman run -v ../data:/e x", &json!([]), json!([]), "image: x", "`../data:/e` of `web` was left out"),
        (
            "podman run --mount type=bind,src=data,dst=/d,relabel=shared x",
            &bind,
            json!([]),
            "source: /home/me/data\n",
            "",
        ),
        ("podman run -e A -e B* x", &json!([]), json!(["A=1", "BC=2", "D=3"]), "- A=1\n      - BC=2\n", ""),
        ("podman run --env-file=vars -e A=2 x", &json!([]), json!(["A=2", "B=1"]), "- A=2\n      - B=1\n", "`vars`"),
        ("podman run --env-file=/abs/vars x", &json!([]), json!(["A='1'$B"]), "- A='1'$$B\n", "`/abs/vars`"),
        ("podman run --sdnotify=ignore x", &json!([]), json!([]), "image: x\n    container_name: web\n", ""),
        ("podman run --sdnotify=healthy x", &json!([]), json!([]), "restart: unless-stopped\n", "a unit of systemd"),
        (
            "podman run --network n --ip 10.0.0.5 x",
            &json!([]),
            json!([]),
            "ipv4_address: 10.0.0.5",
            "subnet of 10.0.0.5",
        ),
        ("podman run --cgroups=split x", &json!([]), json!([]), "image: x", "write `restart:` if it has `Restart=`"),
        ("podman run --sdnotify=conmon --restart=no x", &json!([]), json!([]), "restart: no\n", ""),
        ("podman run --security-opt unmask=ALL x", &json!([]), json!([]), "- systempaths=unconfined", ""),
        ("podman run --security-opt label=disable x", &json!([]), json!([]), "image: x", "SELinux"),
        ("podman run --device-read-bps /dev/a:1 x", &json!([]), json!([]), "image: x", "`--device-read-bps` of `web`"),
        ("podman run --network pasta --ipc private x", &json!([]), json!([]), "image: x", ""),
        ("podman run --entrypoint [\"/a\",\"-b\"] x c", &json!([]), json!([]), "command:\n      - -b\n      - c\n", ""),
        ("podman run --health-cmd [\"/a\"] x", &json!([]), json!([]), "- CMD\n        - /a\n", ""),
        // Not known here: what podman says of the container is taken instead.
        ("podman run --new-flag x", &json!([]), json!(["A=1"]), "- A=1\n", "`--new-flag` is not a flag"),
    ];
    for (typed, mounts, env, line, note) in cases {
        let (text, notes) = adopted(&podman(typed, mounts, &env));
        assert!(text.contains(line), "{typed}: {line}\n{text}");
        let all = notes.join("\n");
        assert!(if note.is_empty() { notes.is_empty() } else { all.contains(note) }, "{typed}: {note}\n{all}");
    }
}

#[test]
fn healthchecks_are_those_that_podman_understood() {
    let check = json!({"Test": ["CMD-SHELL", "[ -f /a ]"], "Interval": 0, "Timeout": 5_000_000_000_i64, "Retries": 2});
    let typed = "podman run --health-cmd x --health-interval disable --health-timeout 5 --health-retries=2 x";
    let mut inspected = podman(typed, &json!([]), &json!([]));
    inspected[0]["Config"]["Healthcheck"] = check;
    let (text, notes) = adopted(&inspected);
    let expected = "    healthcheck:\n      test:\n        - CMD-SHELL\n        - [ -f /a ]\n      timeout: 5000ms\n      retries: 2\n";
    assert!(text.contains(expected), "{text}");
    assert!(notes.len() == 1 && notes.join("").contains("`--health-interval disable` of `web`"), "{notes:?}");
    // That of the image stays the image's.
    inspected[0]["Config"]["CreateCommand"] = json!(["podman", "run", "x"]);
    assert!(!adopted(&inspected).0.contains("healthcheck"));
}
