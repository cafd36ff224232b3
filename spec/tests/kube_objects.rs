//! Manifests end to end: from text to the desired state.

use std::collections::BTreeMap;

use spec::diagnostic::Diagnostic;
use spec::manifest::{AssembleOptions, Assembly, FileObjects, Missing, ParseOptions, assemble, parse_file};
use spec::pod::{EnvSource, VolumeSource};
use spec::secret::MacKey;
use spec::workload::{Controller, WorkloadId, WorkloadKind};

const KEY: MacKey = MacKey::new([7; 32]);

fn parse(name: &str, text: &str) -> FileObjects {
    parse_file(name, text.as_bytes(), &ParseOptions::default())
}

fn together(files: &[FileObjects]) -> Assembly {
    assemble(files, &AssembleOptions { mac_key: &KEY, node_labels: None, missing: Missing::Error })
}

fn shown(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics
        .iter()
        .map(|d| {
            let (line, column) = d.span.map_or((0, 0), |s| (s.line, s.column));
            format!("{}:{line}:{column} {} {}", d.file, d.code, d.message)
        })
        .collect()
}

const WEB: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {MODE: prod, LEVEL: info}
---
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {password: hunter2}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: nginx:1.27
          ports: [{containerPort: 80, hostPort: 8080}]
          envFrom: [{configMapRef: {name: settings}}]
          env:
            - {name: PASSWORD, valueFrom: {secretKeyRef: {name: login, key: password}}}
            - {name: LEVEL, value: debug}
          volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
";

#[test]
fn a_deployment_with_everything_around_it_becomes_desired() {
    let file = parse("web.yaml", WEB);
    assert_eq!(shown(&file.diagnostics), Vec::<String>::new());
    let all = together(&[file]);
    assert_eq!(shown(&all.diagnostics), Vec::<String>::new());
    let id = WorkloadId { kind: WorkloadKind::Deployment, namespace: "default".into(), name: "web".into() };
    let workload = all.desired.workloads.get(&id).expect("the Deployment");
    assert!(matches!(workload.controller, Controller::Replicated { replicas: 2, .. }));
    let container = &workload.template.spec.containers[0];
    let env: BTreeMap<_, _> = container.env.iter().map(|v| (v.name.as_str(), v.source.clone())).collect();
    assert_eq!(env["MODE"], EnvSource::Literal("prod".into()));
    assert_eq!(env["LEVEL"], EnvSource::Template("debug".into()));
    let mac = Some(KEY.mac(b"hunter2"));
    assert_eq!(env["PASSWORD"], EnvSource::Secret { name: "login".into(), key: "password".into(), mac });
    assert_eq!(container.env.len(), 3);
    assert_eq!(workload.template.spec.volumes[0].source, VolumeSource::Named { name: "default/data".into() });
    assert_eq!((all.desired.configs.len(), all.desired.secrets.len(), all.desired.services.len()), (1, 1, 1));
    assert!(!format!("{:?}", all.desired).contains("hunter2"));
}

#[test]
fn a_list_is_its_items() {
    let file = parse(
        "l.yaml",
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- {apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, imge: x}]}}\n",
    );
    assert_eq!(file.objects.len(), 1);
    assert_eq!(file.broken.len(), 1);
    let want = ["l.yaml:5:82 M0012 unknown field `imge`"];
    assert_eq!(shown(&file.diagnostics), want);
    assert_eq!(file.diagnostics[0].path.as_deref(), Some("items[1].spec.containers[0].imge"));
}

/// A pod with a container `c` and further fields of it.
fn pod(name: &str, container: &str, rest: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, \
         spec: {{containers: [{{name: c, image: x, {container}}}], {rest}}}}}\n"
    )
}

fn object(kind: &str, name: &str, rest: &str) -> String {
    format!("---\n{{apiVersion: v1, kind: {kind}, metadata: {{name: {name}}}, {rest}}}\n")
}

/// What is said about objects together: severity, code and path of each finding.
fn said(text: &str, missing: Missing) -> Vec<String> {
    let file = parse("t.yaml", text);
    assert_eq!(shown(&file.diagnostics), Vec::<String>::new(), "{text}");
    let all = assemble(&[file], &AssembleOptions { mac_key: &KEY, node_labels: None, missing });
    let line = |d: &Diagnostic| {
        format!("{} {} {}", if d.is_error() { "E" } else { "W" }, d.code, d.path.as_deref().unwrap_or("-"))
    };
    all.diagnostics.iter().map(line).collect()
}

#[test]
fn references_between_objects() {
    let config = object("ConfigMap", "settings", "data: {mode: a}");
    let secret = object("Secret", "login", "stringData: {password: a}");
    let key = |kind: &str, name: &str, key: &str| {
        pod("p", &format!("env: [{{name: A, valueFrom: {{{kind}KeyRef: {{name: {name}, key: {key}}}}}}}]"), "")
    };
    let volume = |source: &str| pod("p", "", &format!("volumes: [{{name: v, {source}}}]"));
    let env = "spec.containers[0].env[0].valueFrom";
    let cases: Vec<(String, Vec<String>)> = vec![
        (config.clone() + &key("configMap", "settings", "mode"), vec![]),
        (config.clone() + &key("configMap", "settings", "moed"), vec![format!("E M0042 {env}.configMapKeyRef")]),
        (config.clone() + &key("configMap", "other", "mode"), vec![format!("E M0041 {env}.configMapKeyRef")]),
        (secret.clone() + &key("secret", "login", "password"), vec![]),
        (secret.clone() + &key("secret", "login", "user"), vec![format!("E M0042 {env}.secretKeyRef")]),
        (
            secret.clone() + &volume("secret: {secretName: login, items: [{key: x, path: z}]}"),
            vec!["E M0042 spec.volumes[0].secret.items[0].key".into()],
        ),
        (volume("configMap: {name: a}"), vec!["E M0041 spec.volumes[0].configMap.name".into()]),
        (volume("configMap: {name: a, optional: true}"), vec![]),
        (
            volume("persistentVolumeClaim: {claimName: a}"),
            vec!["E M0041 spec.volumes[0].persistentVolumeClaim.claimName".into()],
        ),
        (
            pod("p", "envFrom: [{secretRef: {name: a}}]", ""),
            vec!["E M0041 spec.containers[0].envFrom[0].secretRef.name".into()],
        ),
        (pod("p", "", "imagePullSecrets: [{name: a}]"), vec!["W M0041 spec.imagePullSecrets[0].name".into()]),
        (
            pod("p", "", "nodeSelector: {disk: ssd, kubernetes.io/os: linux}"),
            vec!["W M0046 spec.nodeSelector[\"disk\"]".into()],
        ),
        (
            pod("p", "", "") + &object("Service", "s", "spec: {selector: {app: q}, ports: [{port: 1}]}"),
            vec!["W M0044 spec.selector".into()],
        ),
        (pod("p", "", "") + &object("Service", "s", "spec: {selector: {app: p}, ports: [{port: 1}]}"), vec![]),
        (pod("p", "", "") + &pod("p", "", ""), vec!["E M0040 -".into()]),
        (
            pod("a", "ports: [{containerPort: 1, hostPort: 80}]", "")
                + &pod("b", "ports: [{containerPort: 2, hostPort: 80}]", ""),
            vec!["E M0043 spec.containers[0].ports[0].hostPort".into()],
        ),
        (
            pod("a", "ports: [{containerPort: 1, hostPort: 80, hostIP: 127.0.0.1}]", "")
                + &pod("b", "ports: [{containerPort: 2, hostPort: 80, hostIP: 127.0.0.2}]", ""),
            vec![],
        ),
        (
            pod("a", "ports: [{containerPort: 1, hostPort: 80}]", "")
                + &pod("b", "ports: [{containerPort: 2, hostPort: 80, protocol: UDP}]", ""),
            vec![],
        ),
    ];
    for (text, want) in cases {
        assert_eq!(said(&text, Missing::Error), want, "{text}");
    }
    // A file by itself may refer to others; a slip of the pen is an error all the same.
    let alone = key("configMap", "other", "mode");
    assert_eq!(said(&alone, Missing::Warning), [format!("W M0041 {env}.configMapKeyRef")]);
    let slip = config + &key("configMap", "setings", "mode");
    assert_eq!(said(&slip, Missing::Warning), [format!("E M0041 {env}.configMapKeyRef")]);
}

#[test]
fn claims_find_their_volumes() {
    let claim = |name: &str, rest: &str| {
        object(
            "PersistentVolumeClaim",
            name,
            &format!("spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}, {rest}}}"),
        )
    };
    let storage = |name: &str, rest: &str| {
        object(
            "PersistentVolume",
            name,
            &format!("spec: {{accessModes: [ReadWriteOnce], hostPath: {{path: /{name}}}, {rest}}}"),
        )
    };
    let user = pod("p", "", "volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]");
    for (objects, want) in [
        (claim("c", ""), None),
        (
            claim("c", "") + &storage("a", "capacity: {storage: 2Gi}") + &storage("b", "capacity: {storage: 1Gi}"),
            Some("/b"),
        ),
        (claim("c", "") + &storage("a", "capacity: {storage: 100Mi}"), None),
        (claim("c", "storageClassName: x") + &storage("a", "capacity: {storage: 2Gi}"), None),
        (
            claim("c", "storageClassName: x") + &storage("a", "capacity: {storage: 2Gi}, storageClassName: x"),
            Some("/a"),
        ),
        (claim("c", "volumeName: a") + &storage("a", "capacity: {storage: 2Gi}, storageClassName: x"), Some("/a")),
        (claim("c", "") + &storage("a", "capacity: {storage: 1Gi}, claimRef: {name: c}"), Some("/a")),
        (claim("c", "") + &storage("a", "capacity: {storage: 1Gi}, claimRef: {name: other}"), None),
        (claim("b", "") + &claim("c", "") + &storage("a", "capacity: {storage: 1Gi}"), None),
    ] {
        let text = objects + &user;
        let all = together(&[parse("t.yaml", &text)]);
        let workload = all.desired.workloads.values().next().unwrap_or_else(|| panic!("{text}"));
        let path = match &workload.template.spec.volumes[0].source {
            VolumeSource::HostPath { path, .. } => Some(path.as_str()),
            _ => None,
        };
        assert_eq!(path, want, "{text}");
    }
}

#[test]
fn what_is_broken_is_named_and_left_out() {
    let text = pod("good", "", "")
        + &pod("bad", "imge: x", "")
        + "---\nkind: Pod\napiVersion: v1\nmetadata: {name: torn}\nspec: [\n";
    let file = parse("t.yaml", &text);
    let names: Vec<_> = file.broken.iter().map(|id| id.name.as_str()).collect();
    assert_eq!((names, file.unnamed_broken), (vec!["bad", "torn"], false));
    let all = together(&[file]);
    assert_eq!(all.desired.workloads.len(), 1);
    assert_eq!(all.broken.len(), 2);
    // A document that cannot be named may be any object.
    assert!(parse("t.yaml", "kind: Pod\napiVersion: v1\nmetadata: [\n").unnamed_broken);
    // Nor does a placeholder for an image make a workload.
    let example = together(&[parse("t.yaml", &pod("p", "", "").replace("image: x", "image: <yours>"))]);
    assert_eq!((example.desired.workloads.len(), example.broken.len()), (0, 1));
}

#[test]
fn other_files_are_told_apart() {
    for (text, not_a_manifest, compose) in [
        ("replicas: 1\n", true, false),
        ("", true, false),
        ("services: {web: {image: x}}\n", true, true),
        ("kind: Pod\n", true, false),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n", false, false),
        ("{{ template }}\n", false, false),
    ] {
        let file = parse("t.yaml", text);
        assert_eq!((file.not_a_manifest, file.compose), (not_a_manifest, compose), "{text}");
    }
}

#[test]
fn a_finding_is_shown_with_its_line() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: \"2\"\n  selector:\n    matchLabels: {app: web}\n  template:\n    metadata:\n      labels: {app: wbe}\n    spec:\n      containers:\n        - name: web\n          imge: nginx\n";
    let file = parse("web.yaml", text);
    let rendered = spec::render::render(&file.diagnostics, |_| Some(text), false);
    let want = r#"error[M0011]: `replicas` takes a whole number, not a string
  --> web.yaml:6:13
   |
 6 |   replicas: "2"
   |             ^^^
   = path: spec.replicas
   = help: remove the quotes

error[M0022]: the selector wants `app: web`, the template has `app: wbe`
  --> web.yaml:8:19
   |
 8 |     matchLabels: {app: web}
   |                   ^^^
   = path: spec.selector.matchLabels.app
   = help: write `app: web` in `template.metadata.labels`

error[M0012]: unknown field `imge`
   --> web.yaml:15:11
    |
 15 |           imge: nginx
    |           ^^^^ did you mean `image`?
    = path: spec.template.spec.containers[0].imge

"#;
    assert_eq!(rendered, want, "{rendered}");
}

#[test]
fn names_of_a_series_are_no_slip_of_the_pen() {
    for (there, wanted, severity) in [
        ("db-1", "db-2", "W"),
        ("cache-a", "cache-b", "W"),
        ("web", "web2", "W"),
        ("settings", "setings", "E"),
        ("db-1", "db-1x", "E"),
    ] {
        let text = object("ConfigMap", there, "data: {a: b}")
            + &pod("p", "", &format!("volumes: [{{name: v, configMap: {{name: {wanted}}}}}]"));
        assert_eq!(
            said(&text, Missing::Warning),
            [format!("{severity} M0041 spec.volumes[0].configMap.name")],
            "{wanted}"
        );
    }
}

#[test]
fn ports_of_services_are_ports_of_the_host() {
    let service = |name: &str, rest: &str| object("Service", name, &format!("spec: {{selector: {{app: a}}, {rest}}}"));
    let host = pod("a", "ports: [{containerPort: 1, hostPort: 30080}]", "");
    let cases: Vec<(String, Vec<&str>)> = vec![
        (
            host.clone() + &service("s", "type: NodePort, ports: [{port: 80, nodePort: 30080}]"),
            vec!["E M0043 spec.ports[0].nodePort"],
        ),
        (host.clone() + &service("s", "type: NodePort, ports: [{port: 30080}]"), vec![]),
        (host.clone() + &service("s", "ports: [{port: 30080}]"), vec![]),
        (
            host.clone() + &service("s", "type: LoadBalancer, ports: [{port: 30080}]"),
            vec!["W M0043 spec.ports[0].port"],
        ),
        (
            service("s", "type: NodePort, ports: [{port: 80, nodePort: 30080}]")
                + &service("t", "type: NodePort, ports: [{port: 81, nodePort: 30080}]"),
            vec!["E M0043 spec.ports[0].nodePort"],
        ),
        (
            service("s", "type: LoadBalancer, ports: [{port: 80}]")
                + &service("t", "type: LoadBalancer, ports: [{port: 80, protocol: UDP}]"),
            vec![],
        ),
    ];
    for (text, want) in cases {
        assert_eq!(said(&text, Missing::Error), want, "{text}");
    }
}

/// An object with `mainstay/...` annotations around one container.
fn steered(kind: &str, name: &str, annotations: &str) -> String {
    let pod = "{restartPolicy: Always, containers: [{name: c, image: x}]}";
    let labels = format!("{{app: {name}}}");
    let (version, spec) = match kind {
        "Pod" => ("v1", pod.to_owned()),
        "Job" => ("batch/v1", format!("{{template: {{spec: {}}}}}", pod.replace("Always", "Never"))),
        _ => (
            "apps/v1",
            format!(
                "{{selector: {{matchLabels: {labels}}}, template: {{metadata: {{labels: {labels}}}, spec: {pod}}}}}"
            ),
        ),
    };
    format!(
        "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\nspec: {spec}\n"
    )
}

#[test]
fn dependencies_of_workloads() {
    let on = |what: &str| format!("mainstay/depends-on: \"{what}\"");
    let web = |what: &str| steered("Deployment", "web", &on(what));
    let db = steered("Pod", "db", "");
    let at = "M0041 metadata.annotations[\"mainstay/depends-on\"]";
    let cases: Vec<(String, Vec<String>)> = vec![
        (web("db") + &db, vec![]),
        (web("pod/db=started, job/seed") + &db + &steered("Job", "seed", ""), vec![]),
        (web("base"), vec![format!("E {at}")]),
        (web("deployment/db") + &db, vec![format!("E {at}")]),
        (
            web("db") + &db + &steered("Deployment", "db", ""),
            vec!["E M0021 metadata.annotations[\"mainstay/depends-on\"]".into()],
        ),
        (web("web"), vec!["E M0047 metadata.annotations[\"mainstay/depends-on\"]".into()]),
        (
            web("db") + &steered("Pod", "db", &on("seed")) + &steered("Job", "seed", &on("web=started")),
            vec!["E M0047 metadata.annotations[\"mainstay/depends-on\"]".into()],
        ),
    ];
    for (text, want) in cases {
        assert_eq!(said(&text, Missing::Error), want, "{text}");
    }
    assert_eq!(said(&web("elsewhere"), Missing::Warning), [format!("W {at}")]);

    let all = together(&[parse(
        "t.yaml",
        &(web("db, seed, job/late=started") + &db + &steered("Job", "seed", "") + &steered("Job", "late", "")),
    )]);
    let web = all.desired.workloads.values().find(|workload| workload.id.name == "web").expect("the Deployment");
    let shown: Vec<_> = web.depends_on.iter().map(|on| format!("{} {:?}", on.workload, on.condition)).collect();
    assert_eq!(shown, ["Pod/default/db Healthy", "Job/default/seed CompletedSuccessfully", "Job/default/late Started"]);
}

#[test]
fn a_circle_is_told_with_all_its_members_and_none_of_them_is_applied() {
    let text = steered("Pod", "a", "mainstay/depends-on: b")
        + &steered("Pod", "b", "mainstay/depends-on: c")
        + &steered("Pod", "c", "mainstay/depends-on: a")
        + &steered("Pod", "d", "mainstay/depends-on: a");
    let all = together(&[parse("t.yaml", &text)]);
    assert_eq!(
        shown(&all.diagnostics),
        ["t.yaml:4:56 M0047 these workloads wait for each other: Pod/a -> Pod/b -> Pod/c -> Pod/a"]
    );
    assert_eq!(all.broken.iter().map(|id| id.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    // What waits for one of them waits, as after any other fault.
    assert_eq!(all.desired.workloads.keys().map(|id| id.name.as_str()).collect::<Vec<_>>(), ["d"]);
}

#[test]
fn steering_annotations_are_checked() {
    for (annotation, want) in [
        ("mainstay/maintenance-window: 'Mon-Fri 22:00-04:00 Europe/Berlin; Sat 01:00-02:00'", ""),
        ("mainstay/maintenance-window: Mon-Fry 22:00-04:00", "M0014 `Mon-Fry 22:00-04:00` is no maintenance window"),
        ("mainstay/maintenance-window: 22:00-04:00 Europe/Berln", "M0014"),
        ("mainstay/on-failure: rollback", ""),
        ("mainstay/on-failure: roll-back", "M0014 `mainstay/on-failure` takes `rollback`, `pause`, `continue`"),
        ("mainstay/protected: 'true'", ""),
        ("mainstay/protected: 'yes'", "M0014"),
        ("mainstay/drain: 10s", ""),
        ("mainstay/drain: soon", "M0014 `mainstay/drain` takes a time"),
        ("mainstay/hold-while-file: data/lock", ""),
        ("mainstay/hold-while-file: lock", "M0014"),
        ("mainstay/depends-on: 'db=up'", "M0014"),
        ("mainstay/depends-on: 'Service/db'", "M0014"),
        ("mainstay/depends-on: 'cronjob/db'", "M0014"),
        ("mainstay/depend-on: db", "M0030 there is no annotation `mainstay/depend-on`"),
        ("example.com/drain: soon", ""),
    ] {
        let said = shown(&parse("t.yaml", &steered("Deployment", "web", annotation)).diagnostics);
        assert_eq!(said.len(), usize::from(!want.is_empty()), "{annotation}: {said:?}");
        assert!(said.iter().all(|line| line.contains(want)), "{annotation}: {said:?}");
    }
    let template = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}, annotations: {mainstay/drain: 1s}}, spec: {containers: [{name: c, image: x}]}}}\n";
    assert_eq!(
        shown(&parse("t.yaml", template).diagnostics),
        ["t.yaml:4:109 M0030 `mainstay/drain` has no effect in a template: it belongs to the workload"]
    );
}

#[test]
fn two_workloads_with_one_selector_are_pointed_out() {
    let one = steered("Deployment", "a", "");
    let two = one.replacen("name: a,", "name: b,", 1);
    assert_eq!(said(&(one.clone() + &two), Missing::Error), ["W M0045 spec.selector"]);
    assert_eq!(said(&(one + &steered("StatefulSet", "c", "")), Missing::Error), Vec::<String>::new());
}
