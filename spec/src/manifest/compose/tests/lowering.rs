//! What services become.

use super::{Project, container, env, pod, service, workload};
use crate::pod::{EnvSource, FilesSource, Handler, Propagation, PullPolicy, RestartPolicy, Seccomp, VolumeSource};
use crate::time::Millis;
use crate::workload::{Controller, DependencyCondition, OnFailure, WorkloadKind};

const SHOP: &str = r#"
services:
  web:
    image: nginx:1.27
    ports: ["8080:80", "127.0.0.1:8443:443/tcp", "53:53/udp", "9000-9001:9000-9001"]
    depends_on:
      db: {condition: service_healthy, restart: true}
      cache: {condition: service_started}
    networks: [front, default]
    restart: unless-stopped
    deploy:
      replicas: 2
      update_config: {order: start-first, parallelism: 2, delay: 5s, monitor: 3s, failure_action: rollback}
      resources: {limits: {cpus: "0.5", memory: 256M}, reservations: {memory: 64m}}
  db:
    image: postgres:16
    command: ["-c", "max_connections=50"]
    environment: {POSTGRES_PASSWORD: "${PASS:-secret}", N: 5, B: true}
    volumes: [data:/var/lib/postgresql/data, ./init:/docker-entrypoint-initdb.d:ro]
    healthcheck: {test: [CMD-SHELL, pg_isready], interval: 5s, timeout: 3s, retries: 5, start_period: 10s}
  cache:
    image: redis
    command: redis-server --save "" --appendonly no
    tmpfs: /tmp:size=10m
    stop_grace_period: 1m
networks: {front: {internal: true}}
volumes: {data: }
"#;

#[test]
fn a_project() {
    let project = Project::one(SHOP).good();
    assert_eq!(project.name, "shop");
    let names: Vec<_> = project.workloads.iter().map(|w| w.id.to_string()).collect();
    assert_eq!(names, ["Service/shop/web", "Service/shop/db", "Service/shop/cache"]);
    assert_eq!(workload(&project, "web").id.kind, WorkloadKind::Service);
    assert_eq!(workload(&project, "web").source.line, 3);
    let networks: Vec<_> = project.networks.iter().map(|n| (n.name.as_str(), n.internal)).collect();
    assert_eq!(networks, [("shop_default", false), ("shop_front", true)]);

    let web = container(&project, "web");
    assert_eq!(web.image.as_ref().map(ToString::to_string).as_deref(), Some("docker.io/library/nginx:1.27"));
    assert_eq!(web.pull_policy, Some(PullPolicy::IfNotPresent));
    let ports: Vec<_> = web
        .ports
        .iter()
        .map(|p| {
            format!(
                "{}{:?}->{}/{}",
                p.host_ip.map_or(String::new(), |ip| format!("{ip} ")),
                p.host_port,
                p.container_port,
                p.protocol
            )
        })
        .collect();
    #[rustfmt::skip]
    assert_eq!(ports, ["Some(8080)->80/tcp", "127.0.0.1 Some(8443)->443/tcp", "Some(53)->53/udp", "Some(9000)->9000/tcp", "Some(9001)->9001/tcp"]);
    assert_eq!(web.resources.cpu_limit_milli, Some(500));
    assert_eq!(web.resources.memory_limit, Some(256 << 20));
    assert_eq!(web.resources.memory_request, Some(64 << 20));
    let joined: Vec<_> =
        pod(&project, "web").networks.iter().map(|n| (n.network.as_str(), n.aliases.clone())).collect();
    assert_eq!(joined, [("shop_front", vec!["web".to_owned()]), ("shop_default", vec!["web".to_owned()])]);
    let Controller::Replicated { replicas, strategy } = &workload(&project, "web").controller else {
        panic!("replicated")
    };
    assert_eq!((*replicas, strategy.max_surge, strategy.max_unavailable), (2, 2, 0));
    assert_eq!((strategy.delay, strategy.monitor), (Millis(5000), Millis(3000)));
    assert_eq!(strategy.on_failure, OnFailure::Rollback);
    let needs = &workload(&project, "web").depends_on;
    assert_eq!(needs[0].workload.to_string(), "Service/shop/db");
    assert_eq!((needs[0].condition, needs[0].restart), (DependencyCondition::Healthy, true));
    assert_eq!((needs[1].condition, needs[1].required), (DependencyCondition::Started, true));

    assert_eq!(env(&project, "db"), "POSTGRES_PASSWORD=secret N=5 B=true");
    let db = container(&project, "db");
    assert_eq!(db.command, None);
    assert_eq!(db.args.as_deref(), Some(["-c".to_owned(), "max_connections=50".to_owned()].as_slice()));
    let probe = db.readiness.as_ref().expect("a health check is readiness");
    assert_eq!(probe.handler, Handler::Exec(["/bin/sh", "-c", "pg_isready"].map(str::to_owned).to_vec()));
    assert_eq!(
        (probe.period, probe.timeout, probe.failure_threshold),
        (Some(Millis(5000)), Some(Millis(3000)), Some(5))
    );
    assert_eq!((probe.start_period, probe.start_interval), (Some(Millis(10_000)), Some(Millis(5000))));
    assert!(db.liveness.is_none(), "what is never restarted is not stopped either");
    let sources: Vec<_> = pod(&project, "db").volumes.iter().map(|v| v.source.clone()).collect();
    assert_eq!(
        sources,
        [
            VolumeSource::Named { name: "shop_data".to_owned() },
            VolumeSource::Bind { path: "/srv/Shop/init".to_owned(), create: true }
        ]
    );
    let mounts: Vec<_> = db.mounts.iter().map(|m| (m.path.as_str(), m.read_only, m.copy_up)).collect();
    assert_eq!(mounts, [("/var/lib/postgresql/data", false, true), ("/docker-entrypoint-initdb.d", true, false)]);
    assert_eq!(pod(&project, "db").restart_policy, Some(RestartPolicy::Never));

    let cache = container(&project, "cache");
    assert_eq!(cache.args.as_ref().map(|a| a.join("|")).as_deref(), Some("redis-server|--save||--appendonly|no"));
    assert_eq!(cache.tmpfs, [("/tmp".to_owned(), "size=10m".to_owned())]);
    assert_eq!(pod(&project, "cache").termination_grace, Some(Millis(60_000)));
    assert_eq!(pod(&project, "web").termination_grace, Some(Millis(10_000)));
}

#[test]
fn defaults_of_docker() {
    let project = Project::one(&service("restart: on-failure:3\nhealthcheck: {test: 'true'}")).good();
    let spec = pod(&project, "a");
    let backoff = spec.restart_backoff.as_ref().expect("Docker's backoff");
    assert_eq!(
        (backoff.initial, backoff.max, backoff.reset_after),
        (Some(Millis(100)), Some(Millis(60_000)), Some(Millis(10_000)))
    );
    assert_eq!((spec.restart_policy, backoff.max_attempts), (Some(RestartPolicy::OnFailure), Some(3)));
    let probe = container(&project, "a").readiness.as_ref().expect("a health check");
    assert_eq!(
        (probe.period, probe.timeout, probe.failure_threshold, probe.start_period),
        (Some(Millis(30_000)), Some(Millis(30_000)), Some(3), None)
    );
    let Controller::Replicated { replicas, strategy } = &workload(&project, "a").controller else {
        panic!("replicated")
    };
    assert_eq!((*replicas, strategy.max_surge, strategy.max_unavailable), (1, 0, 1));
    assert_eq!(spec.networks[0].network, "shop_default");
}

#[test]
fn restart_policies() {
    #[rustfmt::skip]
    let cases = [
        ("", RestartPolicy::Never, None), ("restart: 'no'", RestartPolicy::Never, None), ("restart: no", RestartPolicy::Never, None), ("restart: always", RestartPolicy::Always, None),
        ("restart: always\ndeploy: {restart_policy: {condition: none}}", RestartPolicy::Never, None),
        ("deploy: {restart_policy: {}}", RestartPolicy::Always, None), ("deploy: {restart_policy: {condition: on-failure, max_attempts: 4}}", RestartPolicy::OnFailure, Some(4)),
    ];
    for (lines, policy, attempts) in cases {
        let project = Project::one(&service(lines)).good();
        let spec = pod(&project, "a");
        assert_eq!(spec.restart_policy, Some(policy), "{lines}");
        assert_eq!(spec.restart_backoff.as_ref().and_then(|b| b.max_attempts), attempts, "{lines}");
    }
}

#[test]
fn commands() {
    #[rustfmt::skip]
    type Words = Option<&'static [&'static str]>;
    let cases: [(&str, Words, Words); 8] = [
        ("", None, None),
        ("command: a 'b c'", None, Some(&["a", "b c"])),
        ("command: [a, 'b c']", None, Some(&["a", "b c"])),
        ("command: null", None, None),
        ("entrypoint: a b", Some(&["a", "b"]), None),
        ("entrypoint: ''", Some(&[]), None),
        ("entrypoint: []", Some(&[]), None),
        ("entrypoint: ['']", Some(&[]), None),
    ];
    for (lines, command, args) in cases {
        let project = Project::one(&service(lines)).good();
        let a = container(&project, "a");
        let owned =
            |words: Option<&[&str]>| words.map(|words| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!((a.command.clone(), a.args.clone()), (owned(command), owned(args)), "{lines}");
    }
}

#[test]
fn environment_of_files_and_callers() {
    let files = [
        (
            "compose.yaml",
            "services:\n  a:\n    image: app\n    env_file: [one.env, {path: two.env, required: false}, {path: no.env, required: false}, {path: raw.env, format: raw}]\n    environment: [A=own, CALLER, NOWHERE, 'E=']\n",
        ),
        ("one.env", "A=1\nB=1\nE=1\nNOWHERE=1\nQ=\"$CALLER x\""),
        ("two.env", "B=2\nC=${B}3\nCALLER2\n"),
        ("raw.env", "R='$x'\n"),
    ];
    let mut project = Project::new(&files);
    project.input.environment.insert("CALLER".to_owned(), "c".to_owned());
    let project = project.good();
    assert_eq!(env(&project, "a"), "A=own B=2 E= Q=c x C=13 R='$x' CALLER=c");
}

#[test]
fn dotenv_and_the_caller() {
    let files = [
        (
            "compose.yaml",
            "name: ${COMPOSE_PROJECT_NAME}\nservices: {a: {image: 'app:${TAG}', environment: ['A=${A}', 'D=${PWD}', 'P=${COMPOSE_PROJECT_NAME}', 'N=$$A']}}",
        ),
        (".env", "TAG=1.2\nA=file\n"),
    ];
    let mut project = Project::new(&files);
    project.input.environment.insert("A".to_owned(), "caller".to_owned());
    let project = project.good();
    assert_eq!(env(&project, "a"), "A=caller D=/srv/Shop P=shop N=$A");
    assert_eq!(
        container(&project, "a").image.as_ref().and_then(|i| i.tag().map(str::to_owned)).as_deref(),
        Some("1.2")
    );
}

#[test]
fn project_names() {
    let plain = "services: {a: {image: app}}";
    #[rustfmt::skip]
    let cases = [
        (plain, None, None, "shop"), ("name: own\nservices: {a: {image: app}}", None, None, "own"), (plain, Some("given"), None, "given"),
        ("name: own\nservices: {a: {image: app}}", Some("given"), None, "given"), (plain, None, Some("COMPOSE_PROJECT_NAME=fromenv"), "fromenv"), ("name: own\nservices: {a: {image: app}}", None, Some("COMPOSE_PROJECT_NAME=fromenv"), "fromenv"), ("name: ${N:-x}-y\nservices: {a: {image: app}}", None, None, "x-y"),
    ];
    for (text, given, dotenv, expected) in cases {
        let mut project = Project::new(&[("compose.yaml", text), (".env", dotenv.unwrap_or_default())]);
        project.input.project_name = given.map(str::to_owned);
        assert_eq!(project.good().name, expected, "{text} {given:?} {dotenv:?}");
    }
    #[rustfmt::skip]
    let names = [("My App", "myapp"), ("_x-1", "x-1"), ("a.b", "ab"), ("Ünder", "nder")];
    for (text, expected) in names {
        assert_eq!(super::super::normalise_name(text), expected);
    }
}

#[test]
fn volumes_of_all_kinds() {
    let text = r#"
services:
  a:
    image: app
    volumes:
      - /anon
      - ext:/ext
      - own:/own:nocopy
      - bound:/bound
      - mem:/mem
      - ~/x:/x:rslave
      - ../up:/up
      - {type: bind, source: /b, target: /b, bind: {create_host_path: false, propagation: rshared}}
      - {type: volume, source: own, target: /own2, read_only: true, volume: {subpath: sub}}
      - {type: image, source: "busybox:1", target: /img}
      - {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 01777}}
volumes:
  ext: {external: true, name: real}
  own: {name: chosen}
  bound: {driver_opts: {type: none, o: bind, device: /dev0}}
  mem: {driver_opts: {type: tmpfs, o: "size=2m", device: tmpfs}}
"#;
    let project = Project::one(text).good();
    let spec = pod(&project, "a");
    let a = container(&project, "a");
    let source = |path: &str| {
        let mount = a.mounts.iter().find(|m| m.path == path).expect("mounted");
        spec.volumes.iter().find(|v| v.name == mount.volume).expect("a volume").source.clone()
    };
    let bind = |path: &str, create| VolumeSource::Bind { path: path.to_owned(), create };
    assert_eq!(source("/anon"), VolumeSource::EmptyDir { memory: false, size_limit: None });
    assert_eq!(source("/ext"), VolumeSource::Named { name: "real".to_owned() });
    assert_eq!(source("/own"), VolumeSource::Named { name: "chosen".to_owned() });
    assert_eq!(source("/bound"), bind("/dev0", false));
    assert_eq!(source("/mem"), VolumeSource::EmptyDir { memory: true, size_limit: Some(2 << 20) });
    assert_eq!(source("/x"), bind("/root/x", true));
    assert_eq!(source("/up"), bind("/srv/up", true));
    assert_eq!(source("/b"), bind("/b", false));
    assert!(matches!(source("/img"), VolumeSource::Image { .. }));
    let mount = |path: &str| a.mounts.iter().find(|m| m.path == path).expect("mounted");
    assert!(!mount("/own").copy_up && mount("/ext").copy_up);
    assert_eq!(mount("/x").propagation, Some(Propagation::HostToContainer));
    assert_eq!(mount("/own2").sub_path.as_deref(), Some("sub"));
    assert_eq!(mount("/own").volume, mount("/own2").volume, "one volume, mounted twice");
    assert_eq!(a.tmpfs, [("/t".to_owned(), "size=1048576,mode=1777".to_owned())]);
}

#[test]
fn configs_and_secrets() {
    let text = "services:\n  a:\n    image: app\n    configs: [c, {source: f, target: /etc/f.conf, mode: 0440, uid: '7'}, {source: d, target: /dirs}]\n    secrets: [s, {source: e, target: other}]\nconfigs: {c: {content: 'x=${V:-1}'}, f: {file: ./f.conf}, d: {file: ./dir}, unused: {file: ./unused}}\nsecrets: {s: {file: ./s.txt}, e: {environment: TOKEN}}\n";
    let mut project = Project::new(&[("compose.yaml", text), ("f.conf", "F"), ("s.txt", "S")]);
    project.input.environment.insert("TOKEN".to_owned(), "T".to_owned());
    let project = project.good();
    assert_eq!(project.configs["c"].0["content"], b"x=1");
    assert_eq!(project.configs["f"].0["content"], b"F");
    assert_eq!(project.secrets["s"].data["content"].expose(), b"S");
    assert_eq!(project.secrets["e"].data["content"].expose(), b"T");
    let a = container(&project, "a");
    let paths: Vec<_> = a.mounts.iter().map(|m| m.path.as_str()).collect();
    assert_eq!(paths, ["/c", "/etc/f.conf", "/dirs", "/run/secrets/s", "/run/secrets/other"]);
    assert!(a.mounts.iter().all(|m| m.read_only));
    let VolumeSource::Files(files) = &pod(&project, "a").volumes[1].source else { panic!("files") };
    assert_eq!((files.uid, files.default_mode), (Some(7), Some(0o444)));
    let FilesSource::ConfigMap { name, items, .. } = &files.sources[0] else { panic!("a config") };
    assert_eq!((name.as_str(), items[0].path.as_str(), items[0].mode), ("f", "f.conf", Some(0o440)));
}

#[test]
fn networks() {
    let text = "services:\n  a: {image: app, container_name: box, networks: {n: {aliases: [x], ipv4_address: 10.1.0.9}, first: {priority: 10}}, mac_address: '02-42-AC-11-00-02'}\n  h: {image: app, network_mode: host}\n  none: {image: app, network_mode: none}\n  s: {image: app, network_mode: 'service:a'}\n  l: {image: app, links: ['a:db'], networks: [n]}\n  e: {image: app, networks: [ext]}\nnetworks: {n: {ipam: {config: [{subnet: 10.1.0.0/24}]}}, first: , ext: {external: true, name: proxy}}\n";
    let project = Project::one(text).good();
    let a = pod(&project, "a");
    assert_eq!((a.networks[0].network.as_str(), a.networks[1].network.as_str()), ("shop_first", "shop_n"));
    assert_eq!(a.networks[0].mac_address.as_deref(), Some("02:42:ac:11:00:02"));
    assert_eq!(a.networks[1].aliases, ["a", "box", "x", "db"]);
    assert_eq!(a.networks[0].aliases, ["a", "box"], "a link counts where both are");
    assert_eq!(a.networks[1].ipv4_address.map(|ip| ip.to_string()).as_deref(), Some("10.1.0.9"));
    assert!(pod(&project, "h").host_network && pod(&project, "h").networks.is_empty());
    assert!(pod(&project, "none").no_network);
    assert_eq!(pod(&project, "s").network_of.as_deref(), Some("a"));
    assert_eq!(workload(&project, "s").depends_on[0].workload.name, "a");
    assert_eq!(workload(&project, "l").depends_on[0].workload.name, "a");
    let names: Vec<_> = project.networks.iter().map(|n| (n.name.as_str(), n.external, n.subnets.join(","))).collect();
    #[rustfmt::skip]
    assert_eq!(names, [("proxy", true, String::new()), ("shop_first", false, String::new()), ("shop_n", false, "10.1.0.0/24".to_owned())]);
}

#[test]
fn confinement_and_devices() {
    let lines = "user: '1000:1000'\ngroup_add: [mail, 10]\ncap_add: [CAP_NET_ADMIN, all]\ncap_drop: [net_raw]\nsecurity_opt: [no-new-privileges:true, seccomp=unconfined, apparmor=x]\nread_only: true\nulimits: {nofile: {soft: 1, hard: 2}, nproc: 3}\ndevices: ['/dev/a:/dev/b:r', 'v.com/c=n', '/dev/d']\ngpus: all\nsysctls: {net.x: 1}\nshm_size: 1m\ninit: true\npids_limit: 5\nmemswap_limit: -1\ncpu_shares: 7\nblkio_config: {device_read_bps: [{path: /dev/v, rate: 1mb}, {path: /dev/w, rate: 5}], device_write_iops: [{path: /dev/v, rate: 9}]}\nipc: host\nextra_hosts: ['h:1.2.3.4', 'g=host-gateway', 'i:1.2.3.4']\nstop_signal: int\nlogging: {options: {max-size: 1m, max-file: '2'}}\nlabels: [x=y]\ndeploy: {labels: {z: w}}\n";
    let project = Project::one(&service(lines)).good();
    let (a, spec) = (container(&project, "a"), pod(&project, "a"));
    assert_eq!(a.security.user.as_deref(), Some("1000:1000"));
    assert_eq!(a.security.group_add, ["mail", "10"]);
    assert_eq!(
        (a.security.cap_add.join(","), a.security.cap_drop.join(",")),
        ("NET_ADMIN,ALL".to_owned(), "NET_RAW".to_owned())
    );
    assert_eq!((a.security.allow_privilege_escalation, &a.security.seccomp), (Some(false), &Some(Seccomp::Unconfined)));
    assert_eq!((a.ulimits["nofile"].soft, a.ulimits["nofile"].hard, a.ulimits["nproc"].soft), (1, 2, 3));
    assert_eq!((a.devices[0].container_path.as_str(), a.devices[0].permissions.as_deref()), ("/dev/b", Some("r")));
    assert_eq!(a.cdi_devices, ["nvidia.com/gpu=all", "v.com/c=n"]);
    assert_eq!((spec.sysctls["net.x"].as_str(), spec.shm_size, spec.host_ipc), ("1", Some(1 << 20), true));
    assert_eq!(
        (a.resources.pids_limit, a.resources.memory_swap_limit, a.resources.cpu_shares),
        (Some(5), Some(-1), Some(7))
    );
    let disks: Vec<_> =
        a.resources.disk_limits.iter().map(|d| (d.path.as_str(), d.read_bps, d.write_bps, d.write_iops)).collect();
    assert_eq!(disks, [("/dev/v", Some(1 << 20), None, Some(9)), ("/dev/w", Some(5), None, None)]);
    let hosts: Vec<_> = spec.host_aliases.iter().map(|h| format!("{} {}", h.ip, h.hostnames.join(","))).collect();
    assert_eq!(hosts, ["1.2.3.4 h,i", "host-gateway g"]);
    assert_eq!(a.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(a.log.as_ref().map(|l| (l.max_size, l.max_files)), Some((Some(1 << 20), Some(2))));
    let w = workload(&project, "a");
    assert_eq!((w.labels.len(), w.template.labels.len()), (2, 1));
}

#[test]
fn profiles() {
    let text = "services: {a: {image: app}, b: {image: app, profiles: [dev, x]}, c: {image: app, profiles: [other]}}";
    for (profiles, expected) in [(&[][..], "a"), (&["dev"], "a b"), (&["dev", "other"], "a b c"), (&["*"], "a b c")] {
        let mut project = Project::one(text);
        project.input.profiles = profiles.iter().map(|p| (*p).to_owned()).collect();
        let project = project.good();
        let names: Vec<_> = project.workloads.iter().map(|w| w.id.name.as_str()).collect();
        assert_eq!(names.join(" "), expected);
        assert_eq!(project.disabled.len() + names.len(), 3);
    }
    let from_env = Project::new(&[("compose.yaml", text), (".env", "COMPOSE_PROFILES=other")]).good();
    assert_eq!(from_env.workloads.len(), 2);
}

#[test]
fn hooks_and_pre_start() {
    let lines = "environment: [A=1]\nvolumes: [/x]\npost_start: [{command: [a, b]}, {command: c, working_dir: /w, environment: {E: 1}}]\npre_stop: [{command: d e}]\npre_start: [{command: migrate}, {image: busybox, command: [x], environment: [B=2], user: root}]";
    let project = Project::one(&service(lines)).good();
    let (a, spec) = (container(&project, "a"), pod(&project, "a"));
    assert_eq!(a.post_start[0], Handler::Exec(vec!["a".to_owned(), "b".to_owned()]));
    let Handler::Exec(words) = &a.post_start[1] else { panic!("a command") };
    assert_eq!(words[3..].join(" "), "/w env E=1 c");
    assert_eq!(a.pre_stop.len(), 1);
    let first = &spec.init_containers[0];
    assert_eq!((first.image.clone(), first.args.clone()), (a.image.clone(), Some(vec!["migrate".to_owned()])));
    let second = &spec.init_containers[1];
    assert_eq!(second.image.as_ref().map(|i| i.repository().to_owned()).as_deref(), Some("library/busybox"));
    assert_eq!(second.env.len(), 2);
    assert_eq!(second.env[1].source, EnvSource::Literal("2".to_owned()));
    assert_eq!(second.security.user.as_deref(), Some("root"));
}

#[test]
fn a_label_keeps_unhealthy_services_from_restarts() {
    for (label, heals) in [("a: b", true), ("mainstay.heal: false", false), ("mainstay.heal: 'true'", true)] {
        let project =
            Project::one(&service(&format!("restart: always\nhealthcheck: {{test: 'true'}}\nlabels: {{{label}}}")))
                .good();
        assert_eq!(container(&project, "a").liveness.is_some(), heals, "{label}");
        assert!(container(&project, "a").readiness.is_some());
    }
}

#[test]
fn volumes_of_another_service() {
    let text = "services: {a: {image: app, volumes_from: ['b:ro']}, b: {image: app, volumes: ['v:/v', './w:/w', /anon]}}\nvolumes: {v: }";
    let project = Project::one(text).good();
    let mounts: Vec<_> = container(&project, "a").mounts.iter().map(|m| (m.path.as_str(), m.read_only)).collect();
    assert_eq!(mounts, [("/v", true), ("/w", true)]);
}

#[test]
fn names_of_files_can_be_moved() {
    let (mut project, mut found) = Project::one(&service("command: a && b")).load();
    super::super::relocate(&mut project, &mut found, std::path::Path::new("srv/shop"));
    assert_eq!(found[0].file, "srv/shop/compose.yaml");
    assert_eq!(workload(&project, "a").source.file, "srv/shop/compose.yaml");
}

#[test]
fn a_project_joins_the_desired_state() {
    let project = Project::one("services: {a: {image: x, configs: [c]}}\nconfigs: {c: {content: hi}}").good();
    let mut desired = crate::workload::Desired::default();
    project.add_to(&mut desired);
    assert_eq!((desired.workloads.len(), desired.configs.len(), desired.networks.len()), (1, 1, 1));
    assert!(desired.configs.contains_key(&("shop".to_owned(), "c".to_owned())));
}

#[test]
fn rollbacks_have_a_pace_of_their_own() {
    let lines = "deploy: {replicas: 4, update_config: {parallelism: 2}, rollback_config: {parallelism: 0, order: start-first, delay: 1s, monitor: 2s, failure_action: continue}}";
    let project = Project::one(&service(lines)).good();
    let Controller::Replicated { strategy, .. } = &workload(&project, "a").controller else { panic!("replicated") };
    assert_eq!((strategy.max_surge, strategy.max_unavailable, strategy.on_failure), (0, 2, OnFailure::Pause));
    let rollback = strategy.rollback.as_ref().expect("a rollback of its own");
    assert_eq!((rollback.max_surge, rollback.max_unavailable), (4, 0));
    assert_eq!(
        (rollback.delay, rollback.monitor, rollback.on_failure),
        (Millis(1000), Millis(2000), OnFailure::Continue)
    );
}
