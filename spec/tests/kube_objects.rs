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
    let want = ["l.yaml:5:73 M0013 `image` is missing", "l.yaml:5:82 M0012 unknown field `imge`"];
    assert_eq!(shown(&file.diagnostics), want);
    assert_eq!(file.diagnostics[1].path.as_deref(), Some("items[1].spec.containers[0].imge"));
}
