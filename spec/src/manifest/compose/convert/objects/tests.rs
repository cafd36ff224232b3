//! What is converted must make the same containers.

use std::collections::BTreeMap;

use super::*;
use crate::diagnostic::Diagnostic;
use crate::manifest::compose::{ComposeInput, FileState, Step, load};
use crate::manifest::{AssembleOptions, Missing, ParseOptions, assemble, parse_file};
use crate::secret::MacKey;

fn project(text: &str) -> ComposeProject {
    let mut input =
        ComposeInput { files: vec!["compose.yaml".into()], project_dir: "/srv/shop".into(), ..ComposeInput::default() };
    input.contents.insert("compose.yaml".into(), FileState::Content(text.as_bytes().into()));
    loop {
        match load(&input) {
            Step::Need(paths) => {
                for path in paths {
                    input.contents.insert(path, FileState::Missing);
                }
            }
            Step::Done(project, found) => {
                let errors: Vec<_> = found.iter().filter(|d| d.is_error()).map(|d| &d.message).collect();
                assert!(errors.is_empty(), "{text}: {errors:?}");
                return *project;
            }
        }
    }
}

/// What a pod becomes, as far as both forms can say it.
fn essence(spec: &PodSpec) -> Vec<String> {
    let mut lines = vec![format!("{:?} {:?}", spec.restart_policy(), spec.termination_grace())];
    for container in spec.all_containers() {
        let env: Vec<_> = container
            .env
            .iter()
            .map(|variable| match &variable.source {
                EnvSource::Literal(value) => format!("{}={value}", variable.name),
                EnvSource::Template(value) => format!("{}={}", variable.name, value.replace("$$(", "$(")),
                other => format!("{other:?}"),
            })
            .collect();
        let words = |words: &Option<Vec<String>>| {
            words.as_ref().map(|words| words.iter().map(|word| word.replace("$$(", "$(")).collect::<Vec<_>>())
        };
        let mounts: Vec<_> = container.mounts.iter().map(|m| (&m.path, m.read_only, &m.sub_path)).collect();
        let user =
            container.security.user.clone().or(container.security.run_as_user.map(|user| {
                container.security.run_as_group.map_or(user.to_string(), |group| format!("{user}:{group}"))
            }));
        lines.push(format!(
            "{} {:?} {:?} {:?} {:?} {env:?} {:?} {mounts:?} {user:?} {:?}",
            dns(&container.name),
            container.image.as_ref().map(ToString::to_string),
            words(&container.command),
            words(&container.args),
            container.working_dir,
            container.ports.iter().map(|p| (p.container_port, p.host_port, p.host_ip, p.protocol)).collect::<Vec<_>>(),
            (
                &container.resources.cpu_limit_milli,
                &container.resources.memory_limit,
                container.liveness.as_ref().map(|probe| (&probe.handler, probe.period, probe.failure_threshold)),
                container.security.privileged,
                container.security.read_only_root,
                &container.security.cap_add,
                &container.stop_signal,
                container.tty,
            )
        ));
    }
    lines
}

#[track_caller]
fn check(text: &str, notes: &[&str]) {
    let project = project(text);
    let converted = objects(&project);
    for note in notes {
        assert!(converted.notes.iter().any(|line| line.contains(note)), "{note}: {:?}", converted.notes);
    }
    let file = parse_file("objects.yaml", converted.text.as_bytes(), &ParseOptions::default());
    let key = MacKey::new([0; 32]);
    let options = AssembleOptions { mac_key: &key, node_labels: None, missing: Missing::Error };
    let all = assemble(std::slice::from_ref(&file), &options);
    let said: Vec<&Diagnostic> = file.diagnostics.iter().chain(&all.diagnostics).collect();
    assert!(said.is_empty(), "{}\n{said:#?}", converted.text);
    let of = |workloads: &mut dyn Iterator<Item = &Workload>| -> BTreeMap<String, (Vec<String>, usize)> {
        workloads.map(|w| (dns(&w.id.name), (essence(&w.template.spec), w.depends_on.len()))).collect()
    };
    let before = of(&mut project.workloads.iter());
    let after = of(&mut all.desired.workloads.values().map(AsRef::as_ref));
    assert_eq!(before, after, "{}", converted.text);
    assert_eq!(all.desired.services.len(), project.workloads.len());
}

#[test]
fn projects_become_objects_that_make_the_same_containers() {
    for services in [
        "web: {image: 'nginx:1.27', ports: ['8080:80', '127.0.0.1:53:53/udp'], environment: {A: '1', B: 'x $$(date)'}}",
        "web: {image: nginx, command: [sh, -c, 'echo $$HOME $$(date)'], entrypoint: ['/e'], working_dir: /w, tty: true}",
        "web: {image: nginx, user: '1000:1000', read_only: true, cap_add: [NET_ADMIN], cap_drop: [ALL], privileged: true}",
        "web: {image: nginx, volumes: ['./site:/site:ro', 'data:/data', '/etc/hosts:/h'], stop_grace_period: 1m, stop_signal: SIGINT}",
        "job: {image: nginx, restart: 'no'}",
        "job: {image: nginx, restart: on-failure}",
        "web: {image: nginx, healthcheck: {test: [CMD, 'true'], interval: 10s, retries: 4}, deploy: {replicas: 3, resources: {limits: {cpus: '0.5', memory: 64M}}}}",
        "web: {image: nginx, depends_on: {db: {condition: service_healthy}, job: {condition: service_completed_successfully}}}\n  db: {image: postgres}\n  job: {image: x, restart: 'no'}",
        "web: {image: nginx, extra_hosts: ['a:1.2.3.4'], dns: [9.9.9.9], dns_search: [x.y], hostname: h, sysctls: {net.core.somaxconn: 1024}}",
        "web_app: {image: nginx, labels: {traefik.enable: 'true'}}",
    ] {
        check(&format!("services:\n  {services}\nvolumes: {{data: }}\n"), &[]);
    }
}

#[test]
fn files_become_config_maps_and_secrets() {
    let text = "services:\n  web: {image: nginx, configs: [{source: site, target: /etc/site}]}\nconfigs: {site: {content: 'a: b'}}\n";
    check(text, &[]);
}

#[test]
fn what_is_lost_is_told() {
    check(
        "services:\n  web: {image: nginx, ulimits: {nofile: 5}, pids_limit: 5, init: true}\n",
        &["ulimits", "pids_limit", "init"],
    );
    check("services:\n  web: {image: nginx, volumes: ['data:/d']}\nvolumes: {data: }\n", &["copy the data"]);
}
