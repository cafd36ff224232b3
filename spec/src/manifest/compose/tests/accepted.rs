//! Files that are accepted, each for the form in it.

use super::{Project, service};

fn check(texts: impl IntoIterator<Item = String>) {
    let mut faults = String::new();
    for text in texts {
        let (_, diagnostics) = Project::one(&text).load();
        for error in diagnostics.iter().filter(|d| d.is_error()) {
            faults.push_str(&format!("{text}\n  {}\n", error.message));
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn forms_of_services() {
    #[rustfmt::skip]
    let cases = [
        "", "command: sleep 10", "command: [sleep, '10']", "command:", "entrypoint: ''", "entrypoint: []", "entrypoint: [\"\"]",
        "environment:\n  A: 1\n  B: true\n  C:\n  D: 1.5\n  E: ''", "environment:\n- A=1\n- B\n- C=a=b",
        "ports:\n- 80:80\n- 443\n- '53:53/udp'\n- 127.0.0.1:8000-8002:9000-9002\n- '[::1]:81:81'",
        "ports:\n- target: 80\n  published: '8080'\n  protocol: tcp\n  mode: host\n  host_ip: 127.0.0.1\n  name: web\n  app_protocol: http",
        "ports:\n- target: 80\n  published: 8080-8090", "expose:\n- 80\n- '81'\n- 82-84/udp",
        "volumes:\n- /data\n- ./a:/a\n- ../b:/b:ro\n- ~/c:/c:z\n- /d:/d:ro,Z\n- .:/e:cached\n- /f:/f:rslave",
        "volumes:\n- type: bind\n  source: ./a\n  target: /a\n  read_only: true\n  bind: {propagation: rshared, create_host_path: false}\n- type: tmpfs\n  target: /t\n  tmpfs: {size: 64m, mode: 1777}\n- type: volume\n  target: /v\n  volume: {nocopy: true}\n- type: image\n  source: nginx\n  target: /i\n  image: {subpath: etc}",
        "tmpfs: /run", "tmpfs:\n- /run:size=64m\n- /tmp",
        "healthcheck:\n  test: curl -f http://localhost\n  interval: 1m30s\n  timeout: 10s\n  retries: 3\n  start_period: 40s\n  start_interval: 5s",
        "healthcheck:
  test: [CMD, 'true']
  retries: '5'",
        "healthcheck: {disable: true}", "healthcheck:\n  test: [NONE]", "healthcheck:\n  test: [CMD-SHELL, exit 0]",
        "restart: no", "restart: 'no'", "restart: always", "restart: unless-stopped", "restart: on-failure", "restart: on-failure:3",
        "deploy:\n  mode: replicated\n  replicas: 2\n  endpoint_mode: vip\n  labels: [a=b]\n  update_config: {parallelism: 2, delay: 10s, order: start-first, failure_action: rollback, monitor: 5s, max_failure_ratio: 0.1}\n  rollback_config: {parallelism: 0, order: stop-first}\n  resources:\n    limits: {cpus: '0.5', memory: 512M, pids: 100}\n    reservations: {cpus: 0.25, memory: 20M}\n  restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 120s}\n  placement: {constraints: [node.role == manager]}",
        "deploy:", "deploy: {mode: global}", "scale: 3", "container_name: my-app", "hostname: h", "domainname: example.com", "user: '1000:1000'", "group_add: [mail, 10]",
        "working_dir: /app", "labels:\n  a: b\n  n: 1\n  t: true\n  e:", "labels: [a=b, c]", "annotations: {a: b}",
        "extra_hosts:\n- a:1.2.3.4\n- b=::1\n- host.docker.internal:host-gateway", "extra_hosts:\n  a: 1.2.3.4\n  b: ['::1', 1.1.1.1]",
        "dns: 8.8.8.8", "dns: [8.8.8.8, 9.9.9.9]", "dns_search: example.com", "dns_opt: [use-vc]",
        "pull_policy: always", "pull_policy: missing", "pull_policy: every_12h", "pull_policy: daily", "pull_policy: build", "platform: linux/arm64/v8", "platform: linux",
        "stop_signal: SIGINT", "stop_signal: TERM", "stop_signal: '9'", "stop_signal: SIGRTMIN+3", "stop_grace_period: 1m", "init: true", "tty: true", "stdin_open: true", "attach: false",
        "read_only: true", "privileged: true", "privileged: 'true'", "cap_add: [ALL]", "cap_add: [CAP_NET_ADMIN]", "cap_drop: [net_raw]",
        "security_opt:\n- no-new-privileges\n- no-new-privileges:true\n- seccomp=unconfined\n- seccomp:unconfined\n- apparmor=unconfined\n- label=disable\n- systempaths=unconfined",
        "sysctls: {net.core.somaxconn: 1024}", "sysctls: [net.core.somaxconn=1024]", "network_mode: host\nsysctls: {kernel.shmmax: 1}", "ulimits: {nproc: 65535, nofile: {soft: 20000, hard: 40000}, memlock: -1}",
        "devices:\n- /dev/ttyUSB0:/dev/ttyUSB0\n- /dev/sda:/dev/xvda:rwm\n- vendor.com/class=name\n- /dev/dri", "devices: [{source: /dev/a, target: /dev/b, permissions: rw}]",
        "gpus: all", "gpus: [{driver: nvidia, count: 2}]", "deploy: {resources: {reservations: {devices: [{driver: nvidia, count: all, capabilities: [gpu]}]}}}",
        "runtime: nvidia", "shm_size: 64M", "shm_size: 67108864", "logging: {driver: json-file, options: {max-size: 10m, max-file: '3'}}", "logging: {driver: syslog, options: {syslog-address: 'tcp://a'}}", "logging: {driver: none}",
        "cpus: 0.5", "cpus: '1.5'", "cpuset: 0-3,5", "cpu_shares: 73", "cpu_quota: 50000", "cpu_quota: 50000\ncpu_period: 20000", "mem_limit: 1gb", "mem_limit: 1073741824", "mem_reservation: 512m", "memswap_limit: -1", "memswap_limit: 2g\nmem_limit: 1g", "mem_swappiness: 0", "pids_limit: 10", "pids_limit: -1", "oom_kill_disable: true", "oom_score_adj: -500",
        "blkio_config: {weight: 300, device_read_bps: [{path: /dev/sda, rate: 12mb}]}", "storage_opt: {size: 1G}", "ipc: host", "ipc: shareable", "pid: host", "pid:", "uts: host", "userns_mode: host", "cgroup: host", "cgroup_parent: m", "isolation: default", "mac_address: 02:42:ac:11:65:43",
        "post_start: [{command: ./setup.sh, user: root, privileged: true, working_dir: /, environment: [A=b]}]", "pre_stop: [{command: [a, b]}]", "pre_start: [{image: busybox, command: 'true', per_replica: true}]",
        "develop: {watch: [{path: ., action: sync, target: /app, ignore: [node_modules/]}]}", "develop:", "build: .", "build: {context: ., args: {A: b}, target: x}",
        "external_links: [redis_1, a:b]", "x-anything: {a: [1]}", "network_mode: host", "network_mode: none", "network_mode: bridge",
        "networks: [default]", "networks: {default: {aliases: [x], priority: 1, ipv4_address: 172.16.238.10}}", "networks: {default: }", "profiles: []",
        "environment: {A: \"$$x\"}", "environment: [\"A=${B:-c}\"]", "stop_grace_period: 0s", "healthcheck: {test: 'true', interval: 0s}", "links: []", "env_file: []",
    ];
    check(cases.iter().map(|lines| service(lines)));
}

#[test]
fn whole_files() {
    #[rustfmt::skip]
    let cases = [
        "services: {a: {image: app}}", "version: '3.8'\nservices: {a: {image: app}}", "name: shop\nservices: {a: {image: app}}",
        "services: {a: {image: app, volumes: ['d:/d']}}\nvolumes: {d: }", "services: {a: {image: app, volumes: ['d:/d:ro']}}\nvolumes: {d: {driver: local, labels: [a=b]}}",
        "services: {a: {image: app, volumes: ['d:/d']}}\nvolumes: {d: {external: true}}", "services: {a: {image: app, volumes: ['d:/d']}}\nvolumes: {d: {external: true, name: real}}", "services: {a: {image: app, volumes: ['d:/d']}}\nvolumes: {d: {external: {name: real}}}",
        "services: {a: {image: app, volumes: ['d:/d']}}\nvolumes: {d: {driver_opts: {type: none, o: bind, device: /srv}}}", "services: {a: {image: app, volumes: ['d:/d']}}\nvolumes: {d: {driver_opts: {type: tmpfs, device: tmpfs, o: 'size=100m'}}}",
        "services: {a: {image: app, networks: [n]}}\nnetworks: {n: }", "services: {a: {image: app, networks: [n]}}\nnetworks: {n: {driver: bridge, internal: true, enable_ipv6: true, ipam: {driver: default, config: [{subnet: 172.28.0.0/16, gateway: 172.28.0.1}]}}}",
        "services: {a: {image: app, networks: [n]}}\nnetworks: {n: {external: true, name: proxy}}", "services: {a: {image: app, networks: [n]}}\nnetworks: {n: {driver: overlay, attachable: true}}", "services: {a: {image: app}}\nnetworks: {default: {name: x}}",
        "services: {a: {image: app, configs: [c]}}\nconfigs: {c: {content: hello}}", "services: {a: {image: app, configs: [{source: c, target: /etc/c, mode: 0440, uid: '1', gid: '2'}]}}\nconfigs: {c: {file: ./c}}", "services: {a: {image: app, secrets: [s]}}\nsecrets: {s: {file: ./s}}", "services: {a: {image: app, secrets: [{source: s, target: x, mode: '0400'}]}}\nsecrets: {s: {environment: S}}", "services: {a: {image: app, secrets: [s]}}\nsecrets: {s: {external: true}}",
        "services: {a: {image: app, depends_on: [b]}, b: {image: app}}", "services: {a: {image: app, depends_on: {b: {condition: service_healthy, restart: true, required: false}}}, b: {image: app}}", "services: {a: {image: app, depends_on: {c: {condition: service_started, required: false}}}, c: {image: app, profiles: [p]}}",
        "services: {a: {image: app, links: ['b:db', b]}, b: {image: app}}", "services: {a: {image: app, network_mode: 'service:b'}, b: {image: app}}", "services: {a: {image: app, volumes_from: ['b:ro']}, b: {image: app, volumes: [/x]}}",
        "services: {a: {image: app, profiles: [dev]}}", "services: {a: {image: app, profiles: [dev], depends_on: [b]}, b: {build: ., profiles: [x]}}",
        "x-common: &c {restart: always}\nservices:\n  a: {image: app, <<: *c}", "x-a: &a [1]\nservices: {a: {image: app}}", "services: {a: {image: app, extends: b}, b: {image: app}}", "services: {a: {extends: {service: b}}, b: {image: app}}",
        "services: {a: {image: app}}\n---\nservices: {b: {image: app}}", "services: {A.b_c-1: {image: app}}", "services: {a: {image: 'app:${TAG}'}}", "services: {a: {image: 'app:${TAG:-1}'}}", "services: {a: {image: app, restart: '${R}'}}",
        "services: {a: {image: app, volumes: ['${PWD}:/x', '${HOME}/y:/y']}}", "services: {a: {image: app}}\nmodels: {m: {model: ai/x}}",
        "services: {a: {image: app, volumes: !override ['/x']}}", "services: {a: {image: app, ports: !reset []}}", "services: {a: {image: app, ports: !reset null}}",
    ];
    check(cases.map(str::to_owned));
}
