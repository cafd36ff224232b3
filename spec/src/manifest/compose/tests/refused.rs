//! What is refused, and in which words.

use super::{Project, service};

/// The file is refused with exactly one error that starts like this; else what was said.
fn fault(text: &str, expected: &str) -> Option<String> {
    let said = Project::one(text).said();
    let errors: Vec<&String> = said.iter().filter(|line| line.starts_with("error")).collect();
    match errors.as_slice() {
        [error] if error.split_once(": ").is_some_and(|(_, rest)| rest.starts_with(expected)) => None,
        _ => Some(format!("{text}\nwant {expected}\n got {said:#?}\n")),
    }
}

fn check<'c>(cases: impl IntoIterator<Item = (String, &'c str)>) {
    let faults: Vec<String> = cases.into_iter().filter_map(|(text, expected)| fault(&text, expected)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn services() {
    #[rustfmt::skip]
    let cases = [
        ("imge: x", "`services.a` has no field `imge` (did you mean `image`?)"), ("exclude_from_hc: true", "`services.a` has no field `exclude_from_hc` (remove it; a field of your own must start with `x-`)"),
        ("environments: {}", "`services.a` has no field `environments` (did you mean `environment`?)"), ("depends-on: []", "`services.a` has no field `depends-on` (did you mean `depends_on`?)"),
        ("ports: 80", "`services.a.ports` takes a list, not an integer"), ("ports: '80:80'", "`services.a.ports` takes a list, not a string (write it as a list"), ("ports:", "`services.a.ports` takes a list, not null"), ("volumes: {a: b}", "`services.a.volumes` takes a list, not a mapping"),
        ("environment: A=1", "`services.a.environment` takes a mapping or a list, not a string"), ("environment:\n- A: 1", "`services.a.environment[0]` takes a string, not a mapping"), ("environment: {A: [1]}", "`services.a.environment.A` takes a string, a number or a boolean, not a list"),
        ("command: [sleep, 10]", "`services.a.command[1]` takes a string, not an integer (put quotes around it)"), ("command: sh -c 'x", "`command` cannot be split into words: a quote is not closed"), ("hostname: 12", "`services.a.hostname` takes a string, not an integer (put quotes around it)"),
        ("privileged: maybe", "`maybe` is not a boolean"), ("privileged: 1", "`services.a.privileged` takes a boolean, not an integer"), ("init: [true]", "`services.a.init` takes a boolean, not a list"),
        ("ports: ['80:http']", "`80:http` is not a port: `http` is not a port number"), ("ports: ['99999:80']", "`99999:80` is not a port: 99999 is not a port; the highest is 65535"), ("ports: [{published: 80}]", "the field `target` is missing"), ("ports: [{target: 80, protocol: icmp}]", "`icmp` is not a protocol"), ("ports: [{target: 80, mode: x}]", "`x` is not a mode of a port"), ("ports: [{target: 80, host_ip: x}]", "`x` is not an IP address"), ("ports: [{target: 80, publish: 80}]", "`services.a.ports[0]` has no field `publish` (did you mean `published`?)"), ("expose: [x]", "`x` is not a port"),
        ("volumes: ['d:/d']", "volume `d` is not defined (declare it under the top-level `volumes:`)"), ("volumes: ['x/y:/d']", "volume `x/y` is not defined (a path starts with `./`, `/` or `~`: write `./x/y`)"), ("volumes: ['./a:/b:ro:x']", "`./a:/b:ro:x` is not a volume: it has too many colons"), ("volumes: [':/b']", "`:/b` is not a volume"), ("volumes: ['./a:b']", "the path `b` in the container is not absolute"), ("volumes: ['./a:/']", "a volume cannot replace the root directory"), ("volumes: [{type: bond, target: /a}]", "`bond` is not one of `bind`, `volume`"), ("volumes: [{target: /a}]", "the field `type` is missing"), ("volumes: [{type: bind, source: ./a}]", "the field `target` is missing"), ("volumes: [{type: bind, target: /a}]", "a bind needs the field `source`"), ("volumes: [{type: npipe, source: x, target: /a}]", "mounts of type `npipe` are not supported"), ("volumes: [{type: bind, source: ./a, target: /a, content: x}]", "`services.a.volumes[0]` has no field `content`"),
        ("networks: [n]", "network `n` is not defined"), ("network_mode: host\nnetworks: [default]", "`network_mode` and `networks` exclude each other"), ("network_mode: 'container:x'", "`container:x` is a container outside of the project"), ("network_mode: 'service:x'", "service `x` is not defined"), ("networks: {default: {ipv4_address: x}}", "`x` is not an IPv4 address"), ("networks: {default: {alias: [x]}}", "`services.a.networks.default` has no field `alias` (did you mean `aliases`?)"), ("mac_address: x", "`x` is not a MAC address"),
        ("depends_on: [b]", "service `b` is not defined"), ("depends_on: {b: {condition: service_healthy}}", "service `b` is not defined"), ("depends_on: {b: {condition: service_started, required: false}}", "service `b` is not defined"), ("container_name: -x", "`-x` is not the name of a container"), ("container_name: x", "`x` is not the name of a container"), ("privileged: '1'", "`1` is not a boolean"), ("devices: [{source: /dev/x}]", "the field `target` is missing"), ("deploy: {resources: {reservations: {devices: [{driver: nvidia}]}}}", "the field `capabilities` is missing"), ("ports: ['::1:80:80']", "`::1:80:80` is not a port: `::1` is no IPv4 address"),
        ("depends_on: [a]", "services depend on each other in a circle: a -> a"), ("links: ['b:x']", "service `b` is not defined"), ("volumes_from: ['container:x']", "`container:x` is a container outside of the project"),
        ("healthcheck: {test: [curl, x]}", "a `test` list starts with CMD, CMD-SHELL or NONE"), ("healthcheck: {test: 'true', interval: 30}", "`services.a.healthcheck.interval` takes a duration such as `1m30s`, not an integer (write the unit: 30s)"), ("healthcheck: {test: 'true', interval: '30'}", "`30` is not a duration"), ("healthcheck: {test: 'true', retries: x}", "`x` is not an integer"), ("healthcheck: {tests: x, test: x}", "`services.a.healthcheck` has no field `tests` (did you mean `test`?)"), ("healthcheck: {test: [CMD]}", "`CMD` needs a command after it"),
        ("restart: sometimes", "`sometimes` is not a restart policy"), ("restart: on-failure:x", "`on-failure:x` is not a restart policy"), ("restart: true", "`services.a.restart` takes a string, not a boolean (put quotes around it)"),
        ("deploy: {replicas: many}", "`many` is not an integer"), ("deploy: {replicas: -1}", "-1 is not a number of containers"), ("deploy: {mode: x}", "`x` is not one of"), ("deploy: {resources: {limits: {memory: 512}}}", "`services.a.deploy.resources.limits.memory` takes a size such as `512m`, as a string, not an integer (put quotes around it)"), ("deploy: {resources: {limits: {memory: 5x}}}", "`5x` is not a size"), ("deploy: {resources: {limits: {cpus: x}}}", "`x` is not a number"), ("deploy: {resources: {limit: {}}}", "`services.a.deploy.resources` has no field `limit` (did you mean `limits`?)"), ("deploy: {replicas: 2}\ncontainer_name: x", "a service with 2 replicas cannot have a container name"), ("deploy: {replicas: 2}\nscale: 3", "`scale` and `deploy.replicas` differ"), ("mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g}}}", "`mem_limit` and `deploy.resources.limits.memory` differ"), ("deploy: {update_config: {order: first}}", "`first` is not one of"), ("deploy: {restart_policy: {condition: sometimes}}", "`sometimes` is not one of `none`, `no`, `on-failure`"),
        ("mem_limit: lots", "`lots` is not a size"), ("shm_size: 64X", "`64X` is not a size"), ("cpus: many", "`many` is not a number"), ("cpus: -1", "-1 is not a number of cores"), ("cpuset: x", "`x` is not a list of CPUs"), ("blkio_config: {device_read_bps: [{path: /dev/sda, rate: 0}]}", "this is no rate"), ("oom_score_adj: 2000", "2000 is out of range: -1000 to 1000"), ("stop_grace_period: 10", "`services.a.stop_grace_period` takes a duration"), ("stop_signal: SIGFOO", "`SIGFOO` is not a signal"), ("pull_policy: sometimes", "`sometimes` is not a pull policy"), ("platform: windows/amd64", "containers for Windows are not supported"), ("platform: 'a b'", "`a b` is not a platform"),
        ("cap_add: [NET_ADMN]", "`NET_ADMN` is not a capability (did you mean `NET_ADMIN`?)"), ("security_opt: [foo]", "`foo` is not a security option"), ("security_opt: [seccomp=unconfined, seccomp=unconfined]", "this is the same as entry 0"), ("ulimits: {nofiles: 1}", "`nofiles` is not a limit (did you mean `nofile`?)"), ("ulimits: {nofile: {soft: 1}}", "the field `hard` is missing"), ("ulimits: {nofile: {soft: 2, hard: 1}}", "the soft limit 2 is above the hard limit 1"), ("devices: [x]", "`x` is neither an absolute path nor a CDI device"), ("dns: x", "`x` is not an IP address"), ("extra_hosts: [x]", "`x` is not `NAME:ADDRESS`"), ("extra_hosts: ['x:y']", "`y` is not an IP address"), ("userns_mode: x", "`userns_mode: x` is not supported"), ("ipc: 'service:b'", "`ipc: service:b` is not supported"), ("network_mode: host\nsysctls: {net.core.somaxconn: 1}", "the sysctl `net.core.somaxconn` would change more with `network_mode: host`"), ("ipc: host\nsysctls: [kernel.shmmax=1]", "the sysctl `kernel.shmmax` would change the host with `ipc: host`"), ("sysctls: [vm/swappiness=1]", "the sysctl `vm.swappiness` belongs to the whole host, not to a service"), ("isolation: hyperv", "the isolation `hyperv` exists on Windows only"), ("cgroup: x", "`x` is not one of `host`, `private`"),
        ("provider: {type: model}", "`provider` is not supported: there are no provider plugins"), ("models: [m]", "`models` is not supported: there is no model runner"), ("use_api_socket: true", "`use_api_socket` is not supported"), ("credential_spec: {file: x}", "`file` is not supported: it exists on Windows only"), ("logging: {options: {max-size: big}}", "`big` is not a size"), ("gpus: [{driver: amd, count: 1}]", "devices of the driver `amd` are not supported"), ("tmpfs: run", "`run` is not an absolute path"), ("configs: [c]", "config `c` is not defined"), ("secrets: [{source: s}]", "secret `s` is not defined"), ("secrets: [{target: s}]", "the field `source` is missing"), ("env_file: x.env", "the env file `x.env` does not exist"), ("label_file: x", "the label file `x` does not exist"), ("env_file: [{required: false}]", "the field `path` is missing"), ("extends: b", "the service `b` to extend is not in `compose.yaml`"), ("extends: {file: b.yaml, service: b}", "the file `b.yaml` to extend from does not exist"), ("extends: {file: b.yaml}", "the field `service` is missing"), ("extends: [b]", "`services.a.extends` takes a string or a mapping, not a list"), ("post_start: [{user: x}]", "the field `command` is missing"),
        ("environment: ['A=${x y}']", "`${x y}` is not a variable"), ("environment: ['A=${A:?no A}']", "required variable `A` is missing a value: no A (set it in `.env`: `A=...`)"), ("environment: ['A=${A']", "`${A` is not a variable"), ("cpus: '${CPUS}'", "the value must be a number, but its variable is not set"), ("ports: ['${P}:${P}']", "`:` is not a port: the port of the container is missing (a variable in it is not set"),
    ];
    check(cases.map(|(lines, expected)| (service(lines), expected)));
}

#[test]
fn whole_files() {
    #[rustfmt::skip]
    let cases = [
        ("services: {a: {}}", "the service `a` has neither `image` nor `build`"), ("services: {a: {build: .}}", "the service `a` has only `build`: images are not built"), ("services: {a: {image: ''}}", "the service `a` has neither `image` nor `build`"), ("services: {a: {image: UPPER/x}}", "invalid image reference"), ("services: {a: {image: 5}}", "`services.a.image` takes a string, not an integer"),
        ("services: {a: }", "`services.a` takes a mapping, not null"), ("services: [a]", "`services` takes a mapping, not a list"), ("services: {a b: {image: x}}", "`a b` is not a valid name"), ("services: {a: {image: x}}\nweb: {image: x}", "a Compose file has no field `web` (if it is a service, indent it below `services:`)"), ("service: {}\nservices: {a: {image: x}}", "a Compose file has no field `service` (did you mean `services`?)"), ("version: 3\nservices: {a: {image: x}}", "`version` takes a string, not an integer"), ("services: {a: {image: x}}\nvolumes: ", "`volumes` takes a mapping, not null"),
        ("name: '?!'\nservices: {a: {image: x}}", "`?!` is not a project name"), ("- a", "a Compose file is a mapping, not a list"), ("", "the Compose file is empty"),
        ("services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}", "services depend on each other in a circle: a -> b -> a"), ("services: {a: {image: x, depends_on: [b]}, b: {image: x, profiles: [p]}}", "the service `b` is needed but disabled by its profiles (enable one of its profiles: p)"), ("services: {a: {image: x, container_name: nn}, b: {image: x, container_name: nn}}", "the container name `nn` is also used by the service `a`"), ("services: {a: {image: x, depends_on: {b: {condition: healthy}}}, b: {image: x}}", "`healthy` is not one of `service_started`, `service_healthy`"), ("services: {a: {image: x, depends_on: [bb]}, b: {image: x}}", "service `bb` is not defined (did you mean `b`?)"), ("services: {a: {image: x, extends: b}, b: {image: x, extends: a}}", "services extend each other in a circle"),
        ("services: {a: {image: x, volumes: ['dat:/d']}}\nvolumes: {data: }", "volume `dat` is not defined (did you mean `data`?)"), ("services: {a: {image: x}}\nvolumes: {v: {external: true, driver: local}}", "`external` and `driver` exclude each other"), ("services: {a: {image: x}}\nvolumes: {v: {driver: nfs}}", "the volume driver `nfs` is not supported"), ("services: {a: {image: x}}\nvolumes: {v: {driver_opts: {type: nfs, o: 'addr=1.2.3.4', device: ':/x'}}}", "volumes of type `nfs` are not supported"), ("services: {a: {image: x}}\nvolumes: {v: {drivers: local}}", "`volumes.v` has no field `drivers` (did you mean `driver`?)"),
        ("services: {a: {image: x}}\nnetworks: {n: {driver: macvlan}}", "the network driver `macvlan` is not supported"), ("services: {a: {image: x}}\nnetworks: {n: {ipam: {config: [{subnet: x}]}}}", "`x` is not a subnet"), ("services: {a: {image: x}}\nnetworks: [n]", "`networks` takes a mapping, not a list"), ("services: {a: {image: x}}\nconfigs: {c: {}}", "exactly one of `file`, `environment`, `content` or `external` must be set"), ("services: {a: {image: x}}\nsecrets: {c: {file: a, environment: b}}", "exactly one of `file`, `environment` or `external` must be set"), ("services: {a: {image: x}}\nsecrets: {c: {file: a, content: b}}", "`secrets.c` has no field `content`"), ("services: {a: {image: x}}\ninclude: [b.yaml]", "the file `b.yaml` to include does not exist"), ("services: {a: {image: x}}\ninclude: ['https://x/y.yaml']", "`https://x/y.yaml` is not a local file"), ("services: {a: {image: x}}\ninclude: b.yaml", "`include` takes a list, not a string"),
    ];
    check(cases.map(|(text, expected)| (text.to_owned(), expected)));
}

#[test]
fn ports_of_the_host_are_taken_once() {
    let two =
        |a: &str, b: &str| format!("services: {{a: {{image: x, ports: ['{a}']}}, b: {{image: x, ports: ['{b}']}}}}");
    let message = "port 80/tcp of the host is published twice (choose another port of the host)";
    #[rustfmt::skip]
    check([("80:80", "80:81"), ("127.0.0.1:80:80", "80:80"), ("0.0.0.0:80:80", "10.0.0.1:80:1"), ("79-81:79-81", "80:80")].map(|(a, b)| (two(a, b), message)));
    for (a, b) in [("80:80", "80:80/udp"), ("127.0.0.1:80:80", "127.0.0.2:80:80"), ("80", "80")] {
        let (_, found) = Project::one(&two(a, b)).load();
        assert!(!found.iter().any(crate::diagnostic::Diagnostic::is_error), "{a} {b}");
    }
}

#[test]
fn neighbours_may_be_unknown() {
    let text = service("env_file: x.env\nlabel_file: l\nenvironment: ['A=${A:?needed}']");
    let mut project = Project::one(&text);
    project.input.neighbours_unknown = true;
    let (_, found) = project.load();
    assert_eq!(found.iter().filter(|d| !d.is_error()).count(), 3);
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn variables_of_unknown_neighbours_may_have_any_value() {
    #[rustfmt::skip]
    let cases = [
        "cpus: ${C}", "ports: ['${P}:80']", "ports: ['${P}:${Q}']", "ports: [{target: '${P}'}]", "mem_limit: ${M}", "privileged: ${P}",
        "privileged: ${P:?}", "volumes: ['${V}:/data']", "volumes: ['${V}']", "restart: ${R}", "deploy: {replicas: '${N}'}",
        "healthcheck: {test: x, interval: '${I}'}", "container_name: ${C}", "container_name: ${C:?}", "extra_hosts: ['a:${IP}']",
        "devices: ['${D}:/dev/x']", "network_mode: ${N}", "cap_add: ['${C}']", "expose: ['${P}']", "dns: ['${D}']",
        "stop_grace_period: ${S}", "pull_policy: ${P}", "user: ${U}:${G}", "env_file: ['${F}']", "hostname: ${H}", "tmpfs: ['${T}']",
        "environment: ['${K}=x']", "platform: ${P}", "shm_size: ${S}", "stop_signal: ${S}", "sysctls: ['${S}']", "ipc: ${I}",
        "logging: {driver: '${L}'}", "ulimits: {nofile: '${N}'}", "extends: {file: '${F}', service: a}",
    ];
    for case in cases {
        let mut project = Project::one(&service(case));
        project.input.neighbours_unknown = true;
        let (_, found) = project.load();
        let errors: Vec<_> = found.iter().filter(|d| d.is_error()).map(|d| &d.message).collect();
        assert!(errors.is_empty(), "{case}: {errors:?}");
    }
    // A variable becomes text, never a mapping or a list.
    for line in ["healthcheck: '${A}'", "volumes: '${A}'", "labels: '${A}'", "deploy: {resources: '${A}'}"] {
        let mut project = Project::one(&service(line));
        project.input.neighbours_unknown = true;
        let (_, found) = project.load();
        assert_eq!(found.iter().filter(|d| d.is_error()).count(), 1, "{line}: {found:?}");
    }
    for image in ["${IMAGE}", "${IMAGE:?}", "app:${TAG}", "${REGISTRY}/app", "${REGISTRY}app@${DIGEST}"] {
        let mut project = Project::one(&format!("services:\n  a:\n    image: {image}\n"));
        project.input.neighbours_unknown = true;
        let (_, found) = project.load();
        assert!(found.iter().all(|d| !d.is_error()), "{image}: {found:?}");
    }
}

#[test]
fn files_that_were_meant_for_compose() {
    use crate::manifest::{ParseOptions, parse_file};
    #[rustfmt::skip]
    let cases = [
        ("web: {image: nginx, ports: ['80:80']}\n", true), ("web: {build: .}\ndb: {image: postgres}\n", true),
        ("serivces: {web: {image: nginx}}\n", true), ("service: {web: {build: .}}\n", true), ("version: '3.8'\n", true), ("version: 3.8\nname: x\n", true),
        ("Services: {web: {image: x}}\nvolumes: {a: }\n", true),
        ("version: 1.0.0\n", false), ("web: {image: {repository: nginx}}\n", false), ("web: {image: nginx, replicaCount: 2}\n", false),
        ("web: {image: nginx}\nother: 1\n", false), ("volumes: {a: }\n", false), ("service: {type: ClusterIP}\n", false), ("name: x\n", false), ("{}\n", false),
    ];
    for (text, meant) in cases {
        assert_eq!(parse_file("x.yaml", text.as_bytes(), &ParseOptions::default()).compose, meant, "{text}");
        if meant {
            assert!(Project::one(text).said().iter().any(|line| line.starts_with("error")), "{text}");
        }
    }
}

#[test]
fn every_problem_is_told_at_its_place() {
    let text = "version: '3'\nservices:\n  web:\n    imge: nginx\n    image: nginx\n    ports:\n      - 80:http\n    depends_on:\n      - dbb\n  db:\n    image: postgres\n    enviroment:\n      A: ${PASS}\n";
    #[rustfmt::skip]
    let expected = [
        "warning[M0038] compose.yaml:1:1: `version` is obsolete and ignored (remove it)",
        "error[M0012] compose.yaml:4:5: `services.web` has no field `imge` (did you mean `image`?)",
        "error[M0014] compose.yaml:7:9: `80:http` is not a port: `http` is not a port number (write it like 8080:80, 127.0.0.1:8080:80 or 53:53/udp)",
        "error[M0021] compose.yaml:9:9: service `dbb` is not defined (did you mean `db`?)",
        "error[M0012] compose.yaml:12:5: `services.db` has no field `enviroment` (did you mean `environment`?)",
        "warning[M0061] compose.yaml:13:10: the variable `PASS` is not set and becomes an empty string (set it in `.env`, or write a default: `${PASS:-default}`)",
    ];
    assert_eq!(Project::one(text).said(), expected);
}

#[test]
fn secrets_are_not_printed() {
    let files = [
        (
            "compose.yaml",
            "services:\n  a:\n    image: app\n    env_file: s.env\n    secrets: [s]\n    environment:\n      P: ${PASS}\nsecrets: {s: {file: s.txt}}\n",
        ),
        (".env", "PASS=hunter2"),
        ("s.env", "TOKEN=hunter2\nBAD NAME=hunter2"),
        ("s.txt", "hunter2"),
    ];
    let (project, diagnostics) = Project::new(&files).load();
    assert_eq!(diagnostics.len(), 1, "{diagnostics:?}");
    let shown = crate::render::render(&diagnostics, |name| files.iter().find(|f| f.0 == name).map(|f| f.1), false);
    assert!(shown.contains("line 2: a variable name has a space"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(!format!("{:?}", project.secrets).contains("hunter2"));
}
