//! Override files, `extends`, `include`, `!reset` and `!override`.

use super::{Project, container, env, pod, workload};
use crate::pod::VolumeSource;

/// The first container of `a` after an override, as a line.
fn merged(base: &str, over: &str) -> String {
    let wrap =
        |fields: &str| format!("services:\n  a:\n{}", fields.lines().map(|l| format!("    {l}\n")).collect::<String>());
    let project = Project::new(&[("compose.yaml", &wrap(base)), ("override.yaml", &wrap(over))]).good();
    let a = container(&project, "a");
    let words = |words: &Option<Vec<String>>| words.as_ref().map_or("-".to_owned(), |words| words.join(" "));
    let ports: Vec<_> =
        a.ports.iter().map(|p| format!("{}:{}/{}", p.host_port.unwrap_or(0), p.container_port, p.protocol)).collect();
    let mounts: Vec<_> = a.mounts.iter().map(|m| format!("{}{}", m.path, if m.read_only { "!" } else { "" })).collect();
    let labels: Vec<_> = a.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    format!(
        "{} e[{}] c[{}] env[{}] ports[{}] mounts[{}] labels[{}] dns[{}]",
        a.image.as_ref().map_or(String::new(), |i| i.repository().to_owned()),
        words(&a.command),
        words(&a.args),
        env(&project, "a"),
        ports.join(" "),
        mounts.join(" "),
        labels.join(" "),
        pod(&project, "a").dns.nameservers.join(" "),
    )
}

#[test]
fn rules_of_fields() {
    let none = "library/x e[-] c[-] env[] ports[] mounts[] labels[] dns[]";
    let with = |part: &str, value: &str| none.replace(part, value);
    #[rustfmt::skip]
    let cases = [
        ("image: y", "image: x", none.to_owned()),
        ("image: x", "command: a", with("c[-]", "c[a]")), ("image: x\ncommand: [a, b]", "command: c", with("c[-]", "c[c]")), ("image: x\nentrypoint: a", "entrypoint: [b]", with("e[-]", "e[b]")),
        ("image: x\ncommand: a", "command: null", none.to_owned()),
        ("image: x\nenvironment: {A: 1, B: 2}", "environment: [B=3, C=4]", with("env[]", "env[A=1 B=3 C=4]")), ("image: x\nenvironment: [A=1]", "environment: {A: 2}", with("env[]", "env[A=2]")),
        ("image: x\nports: ['80:80']", "ports: ['81:81', '80:80']", with("ports[]", "ports[80:80/tcp 81:81/tcp]")), ("image: x\nports: ['80:80']", "ports: [{target: 80, published: '80'}]", with("ports[]", "ports[80:80/tcp]")), ("image: x\nports: ['80:80']", "ports: ['80:80/udp']", with("ports[]", "ports[80:80/tcp 80:80/udp]")),
        ("image: x\nports: ['80:80']", "ports: !override ['81:81']", with("ports[]", "ports[81:81/tcp]")), ("image: x\nports: ['80:80']", "ports: !reset []", none.to_owned()), ("image: x\nports: ['80:80']", "ports: !reset null", none.to_owned()),
        ("image: x\nvolumes: ['./a:/a', './b:/b']", "volumes: ['./c:/a:ro']", with("mounts[]", "mounts[/a! /b]")), ("image: x\nvolumes: ['./a:/a']", "volumes: [{type: bind, source: ./z, target: /a, read_only: true}]", with("mounts[]", "mounts[/a!]")),
        ("image: x\nlabels: {a: 1}", "labels: [a=2, b=3]", with("labels[]", "labels[a=2 b=3]")),
        ("image: x\ndns: 1.1.1.1", "dns: [8.8.8.8, 1.1.1.1]", with("dns[]", "dns[1.1.1.1 8.8.8.8]")),
        ("image: x\nenvironment: {A: 1}", "environment: !reset {}", none.to_owned()), ("image: x\nenvironment: {A: 1, B: 2}", "environment: !override {C: 3}", with("env[]", "env[C=3]")), ("image: x\nenvironment: {A: 1, B: 2}", "environment: {A: !reset null}", with("env[]", "env[B=2]")),
        ("image: x\nbuild: .", "build: {context: y}", none.to_owned()),
    ];
    let mut faults = String::new();
    for (base, over, expected) in cases {
        let got = merged(base, over);
        if got != expected {
            faults.push_str(&format!("{base}\n+ {over}\n got {got}\nwant {expected}\n"));
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn mappings_merge_deep() {
    let project = Project::new(&[
        ("compose.yaml", "services:\n  a: {image: x, depends_on: [b], networks: [n], healthcheck: {test: 'true', interval: 5s}, logging: {driver: json-file, options: {max-size: 1m}}}\n  b: {image: x}\nnetworks: {n: }"),
        ("override.yaml", "services:\n  a: {depends_on: {c: {condition: service_healthy}}, networks: {m: {aliases: [z]}}, healthcheck: {test: [CMD, 'false'], retries: 2}, logging: {options: {max-file: '4'}}}\n  c: {image: x}\nnetworks: {m: }"),
    ])
    .good();
    let names: Vec<_> = workload(&project, "a").depends_on.iter().map(|d| d.workload.name.as_str()).collect();
    assert_eq!(names, ["b", "c"]);
    let networks: Vec<_> = pod(&project, "a").networks.iter().map(|n| n.network.as_str()).collect();
    assert_eq!(networks, ["shop_n", "shop_m"]);
    let probe = container(&project, "a").readiness.clone().expect("a health check");
    assert_eq!((probe.period, probe.failure_threshold), (Some(crate::time::Millis(5000)), Some(2)));
    let log = container(&project, "a").log.clone().expect("log options");
    assert_eq!((log.max_size, log.max_files), (Some(1 << 20), Some(4)));
}

#[test]
fn what_cannot_merge_is_told_at_the_later_place() {
    let said = Project::new(&[
        ("compose.yaml", "services: {a: {image: x, ports: ['80:80']}}"),
        ("override.yaml", "services:\n  a:\n    ports: '81:81'\n"),
    ])
    .said();
    assert_eq!(said[0], "error[M0067] override.yaml:3:12: a string here cannot be merged with a list in another file");
}

#[test]
fn extends() {
    let project = Project::new(&[
        (
            "compose.yaml",
            "services:\n  a: {extends: {file: sub/base.yaml, service: base}, environment: [B=own], volumes: ['./here:/here']}\n  c: {extends: d, command: c}\n  d: {image: x, command: d, environment: {D: 1}, ports: ['1:1']}\n",
        ),
        (
            "sub/base.yaml",
            "services:\n  base: {extends: root, environment: {A: 1, B: 2}, volumes: ['./there:/there'], env_file: base.env}\n  root: {image: 'app:${T:-9}', working_dir: /w}\n",
        ),
        ("sub/base.env", "F=${B:-f}"),
    ])
    .good();
    assert_eq!(env(&project, "a"), "F=f A=1 B=own");
    let paths: Vec<_> = pod(&project, "a").volumes.iter().map(|v| v.source.clone()).collect();
    let bind = |path: &str| VolumeSource::Bind { path: path.to_owned(), create: true };
    assert_eq!(paths, [bind("/srv/Shop/sub/there"), bind("/srv/Shop/here")], "paths start at their own file");
    let a = container(&project, "a");
    assert_eq!((a.working_dir.as_deref(), a.image.as_ref().and_then(|i| i.tag())), (Some("/w"), Some("9")));
    let c = container(&project, "c");
    assert_eq!((c.args.clone(), c.ports.len()), (Some(vec!["c".to_owned()]), 1));
}

#[test]
fn include() {
    let project = Project::new(&[
        ("compose.yaml", "include:\n  - sub/compose.yaml\n  - {path: [other.yaml, other2.yaml], project_directory: elsewhere, env_file: other.env}\nservices: {a: {image: x, depends_on: [b, o]}}\n"),
        ("sub/compose.yaml", "services: {b: {image: 'x:${V}', volumes: ['./d:/d', 'v:/v'], environment: ['M=${MAIN}', 'L=$$V']}}\nvolumes: {v: }\n"),
        ("sub/.env", "V=sub\nMAIN=lost"),
        (".env", "MAIN=main"),
        ("other.yaml", "services: {o: {image: 'x:${V}', volumes: ['./d:/d']}}"),
        ("other2.yaml", "services: {o: {command: more}}"),
        ("other.env", "V=other"),
    ])
    .good();
    let tag = |name: &str| container(&project, name).image.as_ref().and_then(|i| i.tag().map(str::to_owned));
    assert_eq!((tag("b").as_deref(), tag("o").as_deref()), (Some("sub"), Some("other")));
    assert_eq!(env(&project, "b"), "M=main L=$V");
    let first = |name: &str| pod(&project, name).volumes[0].source.clone();
    let bind = |path: &str| VolumeSource::Bind { path: path.to_owned(), create: true };
    assert_eq!(first("b"), bind("/srv/Shop/sub/d"));
    assert_eq!(first("o"), bind("/srv/Shop/elsewhere/d"));
    assert_eq!(pod(&project, "b").volumes[1].source, VolumeSource::Named { name: "shop_v".to_owned() });
    assert_eq!(container(&project, "o").args, Some(vec!["more".to_owned()]));
}

#[test]
fn faults_of_include_and_extends() {
    #[rustfmt::skip]
    let cases: [(&[(&str, &str)], &str); 5] = [
        (&[("compose.yaml", "include: [b.yaml]\nservices: {a: {image: x}}"), ("b.yaml", "services: {a: {image: y}}")], "error[M0066] b.yaml:1:12: `services.a` of an included file is something else than `services.a` here (rename one of them; an override file can change an included one)"),
        (&[("compose.yaml", "include: [b.yaml]\nservices: {a: {image: x}}"), ("b.yaml", "include: [compose.yaml]")], "error[M0066] b.yaml:1:11: files include each other in a circle: compose.yaml -> b.yaml -> compose.yaml (remove one of the `include`s)"),
        (&[("compose.yaml", "services: {a: {extends: {file: b.yaml, service: q}}}"), ("b.yaml", "services: {c: {image: y}}")], "error[M0065] compose.yaml:1:25: the service `q` to extend is not in `b.yaml`"),
        (&[("compose.yaml", "services: {a: {extends: {file: b.yaml, service: b}}}"), ("b.yaml", "services: {b: {image: y, imge: z}}")], "error[M0012] b.yaml:1:26: `services.a` has no field `imge` (did you mean `image`?)"),
        (&[("compose.yaml", "services: {a: {extends: {file: b.yaml, service: b}}}"), ("b.yaml", "services: {b: {extends: {file: compose.yaml, service: a}}}")], "error[M0065] compose.yaml:1:25: services extend each other in a circle: a -> b -> a (remove one of the `extends`)"),
    ];
    for (files, expected) in cases {
        let said = Project::new(files).said();
        assert!(said.iter().any(|line| line == expected), "{expected}\n{said:#?}");
    }
    let same =
        [("compose.yaml", "include: [b.yaml]\nservices: {a: {image: x}}"), ("b.yaml", "services: {a: {image: x}}")];
    assert_eq!(Project::new(&same).good().workloads.len(), 1, "the same twice is no conflict");
}
