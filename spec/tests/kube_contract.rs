//! The field contract is kept: for each field that the table calls enforced there is a manifest in which leaving the
//! field out changes what the manifest becomes.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};
use spec::load::{Limits, load};
use spec::manifest::{ParseOptions, parse_file};
use spec::node::{Node, Value};
use spec::schema::{KINDS, Kind, Status, Type};

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: full, namespace: team, labels: {a: b}, annotations: {c: d}}
spec:
  restartPolicy: OnFailure
  terminationGracePeriodSeconds: 5
  activeDeadlineSeconds: 60
  dnsPolicy: None
  dnsConfig: {nameservers: [1.1.1.1], searches: [a.b], options: [{name: ndots, value: "2"}]}
  nodeSelector: {disk: ssd}
  hostUsers: false
  shareProcessNamespace: true
  hostname: h
  subdomain: s
  setHostnameAsFQDN: true
  hostAliases: [{ip: 1.2.3.4, hostnames: [x]}]
  imagePullSecrets: [{name: pull}]
  os: {name: linux}
  resources: {limits: {memory: 1Gi}, requests: {memory: 512Mi}}
  securityContext:
    runAsUser: 1
    runAsGroup: 2
    runAsNonRoot: true
    fsGroup: 3
    fsGroupChangePolicy: OnRootMismatch
    supplementalGroups: [4]
    supplementalGroupsPolicy: Strict
    sysctls: [{name: net.core.somaxconn, value: "9"}]
    seccompProfile: {type: Localhost, localhostProfile: p.json}
    appArmorProfile: {type: Localhost, localhostProfile: q}
  initContainers:
    - {name: init, image: a, restartPolicy: Always, command: [x]}
    - name: all
      image: b
      command: [a]
      args: [b]
      workingDir: /w
      ports: [{containerPort: 1, name: p, hostPort: 2, hostIP: 127.0.0.1, protocol: UDP}]
      envFrom: [{prefix: P_, configMapRef: {name: c, optional: true}}, {secretRef: {name: s}}]
      env: [{name: A, value: b}]
      resources: {limits: {cpu: 1}, requests: {cpu: 500m}}
      restartPolicy: Always
      volumeMounts: [{name: empty, mountPath: /e}]
      livenessProbe: {tcpSocket: {port: 1}}
      readinessProbe: {tcpSocket: {port: 1}}
      startupProbe: {tcpSocket: {port: 1}}
      lifecycle: {preStop: {sleep: {seconds: 1}}}
      terminationMessagePath: /m
      terminationMessagePolicy: FallbackToLogsOnError
      imagePullPolicy: Never
      securityContext: {runAsUser: 5, procMount: Unmasked}
      stdin: true
      stdinOnce: true
      tty: true
  containers:
    - name: c
      image: x
      command: [a]
      args: [b]
      workingDir: /w
      ports: [{containerPort: 80, name: http, hostPort: 8080, hostIP: 127.0.0.1, protocol: UDP}]
      envFrom:
        - {prefix: P_, configMapRef: {name: c, optional: true}}
        - {secretRef: {name: s, optional: true}}
      env:
        - {name: A, value: b}
        - {name: B, valueFrom: {configMapKeyRef: {name: c, key: k, optional: true}}}
        - {name: C, valueFrom: {secretKeyRef: {name: s, key: k, optional: true}}}
        - {name: D, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: E, valueFrom: {resourceFieldRef: {containerName: c, resource: limits.cpu, divisor: 1m}}}
      resources: {limits: {cpu: 1}, requests: {cpu: 500m}}
      restartPolicy: Never
      volumeMounts:
        - {name: empty, mountPath: /e, readOnly: true, recursiveReadOnly: Enabled, subPath: s}
        - {name: host, mountPath: /h, subPathExpr: $(A), mountPropagation: HostToContainer}
      livenessProbe:
        exec: {command: [a]}
        initialDelaySeconds: 1
        timeoutSeconds: 2
        periodSeconds: 3
        failureThreshold: 4
        terminationGracePeriodSeconds: 5
      readinessProbe:
        httpGet: {path: /r, port: http, host: h, scheme: HTTPS, httpHeaders: [{name: X, value: z}]}
        successThreshold: 2
      startupProbe: {grpc: {port: 80, service: s}}
      lifecycle:
        postStart: {exec: {command: [a]}}
        preStop: {httpGet: {port: 80}}
        stopSignal: SIGUSR1
      terminationMessagePath: /m
      terminationMessagePolicy: FallbackToLogsOnError
      imagePullPolicy: Never
      securityContext:
        runAsUser: 5
        runAsGroup: 6
        runAsNonRoot: false
        privileged: true
        capabilities: {add: [NET_ADMIN], drop: [ALL]}
        readOnlyRootFilesystem: true
        seccompProfile: {type: Unconfined}
        appArmorProfile: {type: Unconfined}
      stdin: true
      stdinOnce: true
      tty: true
    - name: d
      image: x
      livenessProbe: {tcpSocket: {port: 9, host: h}}
      lifecycle: {preStop: {sleep: {seconds: 3}}}
      securityContext: {allowPrivilegeEscalation: false}
  volumes:
    - {name: empty, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
    - {name: host, hostPath: {path: /h, type: Directory}}
    - {name: config, configMap: {name: c, items: [{key: k, path: p, mode: 0400}], defaultMode: 0440, optional: true}}
    - {name: secret, secret: {secretName: s, items: [{key: k, path: p, mode: 0400}], defaultMode: 0440, optional: true}}
    - name: facts
      downwardAPI:
        defaultMode: 0440
        items:
          - {path: labels, fieldRef: {fieldPath: metadata.labels}, mode: 0400}
          - {path: cpu, resourceFieldRef: {containerName: c, resource: limits.cpu, divisor: 1m}}
    - name: projected
      projected:
        defaultMode: 0440
        sources:
          - configMap: {name: c, items: [{key: k, path: a}], optional: true}
          - secret: {name: s, items: [{key: k, path: b}], optional: true}
          - downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.name}}]}
    - {name: claim, persistentVolumeClaim: {claimName: data, readOnly: true}}
    - {name: image, image: {reference: i, pullPolicy: Always}}
    - name: scratch
      ephemeral:
        volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}
---
apiVersion: v1
kind: Pod
metadata: {name: host}
spec:
  hostNetwork: true
  hostPID: true
  hostIPC: true
  hostnameOverride: full.name
  containers:
    - {name: c, image: x, volumeMounts: [{name: v, mountPath: /v}]}
  volumes: [{name: v, persistentVolumeClaim: {claimName: data, readOnly: true}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  replicas: 10
  minReadySeconds: 5
  progressDeadlineSeconds: 60
  selector: {matchLabels: {a: b}}
  strategy: {rollingUpdate: {maxSurge: 50%, maxUnavailable: 1}}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: e}
spec:
  selector: {matchExpressions: [{key: a, operator: In, values: [b]}]}
  strategy: {type: Recreate}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: r}
spec:
  replicas: 2
  minReadySeconds: 5
  selector: {matchLabels: {a: b}}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: r}
spec:
  minReadySeconds: 5
  selector: {matchLabels: {a: b}}
  updateStrategy: {type: OnDelete, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: s}
spec:
  replicas: 2
  minReadySeconds: 5
  serviceName: svc
  podManagementPolicy: Parallel
  ordinals: {start: 1}
  selector: {matchLabels: {a: b}}
  updateStrategy: {rollingUpdate: {partition: 1}}
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
  template:
    metadata: {labels: {a: b}}
    spec: {containers: [{name: c, image: x, volumeMounts: [{name: data, mountPath: /d}]}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: t}
spec:
  selector: {matchLabels: {a: b}}
  updateStrategy: {type: OnDelete}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: j}
spec:
  completions: 3
  parallelism: 2
  backoffLimit: 1
  backoffLimitPerIndex: 1
  maxFailedIndexes: 1
  activeDeadlineSeconds: 60
  ttlSecondsAfterFinished: 5
  completionMode: Indexed
  suspend: true
  podFailurePolicy: {rules: [{action: Ignore, onExitCodes: {containerName: c, operator: NotIn, values: [3]}}]}
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: cj}
spec:
  schedule: "0 3 * * *"
  timeZone: Europe/Paris
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 60
  suspend: true
  successfulJobsHistoryLimit: 1
  failedJobsHistoryLimit: 2
  jobTemplate:
    metadata: {labels: {a: b}}
    spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: {a: b}
binaryData: {c: aGk=}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
type: kubernetes.io/tls
data: {tls.crt: aGk=}
stringData: {tls.key: x}
---
apiVersion: v1
kind: ConfigMap
metadata: {generateName: made-}
---
apiVersion: v1
kind: Namespace
metadata: {name: team}
---
apiVersion: v1
kind: Service
metadata: {name: s}
spec:
  type: NodePort
  selector: {a: b}
  sessionAffinity: ClientIP
  publishNotReadyAddresses: true
  ports: [{port: 80, name: http, targetPort: web, protocol: UDP, nodePort: 30080}]
---
apiVersion: v1
kind: Service
metadata: {name: h}
spec: {clusterIP: None, selector: {a: b}}
---
apiVersion: v1
kind: Service
metadata: {name: i}
spec: {clusterIPs: [None], selector: {a: b}}
---
apiVersion: v1
kind: Service
metadata: {name: x}
spec: {type: ExternalName, externalName: example.org}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
  volumeName: pv
  selector: {matchLabels: {a: b}, matchExpressions: [{key: c, operator: Exists}]}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: pv, labels: {a: b}}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: manual
  hostPath: {path: /pv, type: Directory}
  claimRef: {name: data, namespace: team}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: local}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  local: {path: /pv}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}
"#;

/// Checked, but without a trace in what a manifest becomes: why.
const WITHOUT_TRACE: &[(&str, &str)] = &[
    ("Volume.ephemeral", "it becomes an emptyDir, as a volume without a source does"),
    ("PersistentVolumeClaimSpec.volumeMode", "its only accepted value is the default"),
    ("PersistentVolumeSpec.volumeMode", "its only accepted value is the default"),
    ("PodSpec.os", "its only accepted value is the default; `stopSignal` needs it"),
];

fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::UInt(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::String(text, _) => text.as_str().into(),
        Value::Seq(items) => items.iter().map(json).collect(),
        Value::Map(map) => {
            Json::Object(map.iter().map(|(k, entry)| (k.clone(), json(&entry.node))).collect::<Map<_, _>>())
        }
    }
}

/// What a document becomes, as text without places.
fn lowered(document: &Json) -> Result<String, String> {
    let file = parse_file("t.json", document.to_string().as_bytes(), &ParseOptions::default());
    let errors: Vec<_> = file.diagnostics.iter().filter(|d| d.is_error()).map(|d| d.message.clone()).collect();
    if !errors.is_empty() {
        return Err(errors.join("; "));
    }
    let text = format!("{:?}", file.objects.iter().map(|o| (&o.id, &o.value)).collect::<Vec<_>>());
    // Places of references change with everything that stands before them.
    Ok(text.split("span: Span {").map(|part| part.split_once('}').map_or(part, |(_, rest)| rest)).collect())
}

/// Every enforced field of a value: type and name, and the steps to it.
fn fields(ty: &'static Type, value: &Json, at: &str, out: &mut Vec<(String, String)>) {
    for field in ty.fields {
        let Some(inner) = value.get(field.name) else { continue };
        let pointer = format!("{at}/{}", field.name);
        if field.status == Status::Enforced {
            out.push((format!("{}.{}", ty.name, field.name), pointer.clone()));
        }
        match (field.kind, inner) {
            (Kind::Obj(ty), _) => fields(ty, inner, &pointer, out),
            (Kind::Objs(ty), Json::Array(items)) => {
                for (i, item) in items.iter().enumerate() {
                    fields(ty, item, &format!("{pointer}/{i}"), out);
                }
            }
            _ => {}
        }
    }
}

fn enforced(ty: &'static Type, seen: &mut BTreeSet<&'static str>, out: &mut BTreeSet<String>) {
    if !seen.insert(ty.name) {
        return;
    }
    for field in ty.fields {
        if field.status == Status::Enforced {
            out.insert(format!("{}.{}", ty.name, field.name));
        }
        if let Kind::Obj(inner) | Kind::Objs(inner) = field.kind
            && matches!(field.status, Status::Enforced)
        {
            enforced(inner, seen, out);
        }
    }
}

#[test]
fn each_enforced_field_changes_what_a_manifest_becomes() {
    let mut all = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for kind in KINDS {
        enforced(kind.root, &mut seen, &mut all);
    }
    let loaded = load("t.yaml", MANIFESTS.as_bytes(), &Limits::default());
    assert_eq!(loaded.diagnostics, []);
    let mut effective: BTreeSet<String> = BTreeSet::new();
    for document in &loaded.documents {
        let document = json(&document.node);
        let whole = lowered(&document).unwrap_or_else(|errors| panic!("{}: {errors}", document["kind"]));
        let kind = KINDS.iter().find(|k| document["kind"] == k.kind).expect("a supported kind");
        let mut present = Vec::new();
        fields(kind.root, &document, "", &mut present);
        for (name, pointer) in present {
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer has a slash");
            let mut less = document.clone();
            let object = less.pointer_mut(parent).and_then(Json::as_object_mut).expect("the parent is an object");
            object.remove(key);
            if lowered(&less).as_ref() != Ok(&whole) {
                effective.insert(name);
            }
        }
    }
    for (name, _) in WITHOUT_TRACE {
        assert!(all.remove(*name), "{name} is not in the table");
    }
    let missing: Vec<_> = all.difference(&effective).collect();
    assert!(missing.is_empty(), "enforced, but nothing changes without it: {missing:#?}");
    assert!(all.len() > 150, "only {} fields", all.len());
}
