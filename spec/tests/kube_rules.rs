//! What is accepted and what is refused, field by field: one line a case. A case is a fragment put into an otherwise
//! valid object, and what is said about it: nothing, or code and path of each error.

use spec::manifest::{ParseOptions, parse_file};

/// The errors of a document as `code path`.
fn errors(text: &str) -> Vec<String> {
    let file = parse_file("t.yaml", text.as_bytes(), &ParseOptions::default());
    let errors: Vec<_> = file.diagnostics.iter().filter(|d| d.is_error()).collect();
    assert_eq!(errors.is_empty(), file.broken.is_empty() && !file.unnamed_broken, "{text}\n{errors:?}");
    errors.iter().map(|d| format!("{} {}", d.code, d.path.as_deref().unwrap_or("-"))).collect()
}

fn check(wrap: impl Fn(&str) -> String, cases: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (fragment, want) in cases {
        let text = wrap(fragment);
        let got = errors(&text).join(", ");
        if got != *want {
            wrong.push(format!("{fragment}\n   want: {want}\n   got:  {got}"));
        }
    }
    assert!(wrong.is_empty(), "{}\n", wrong.join("\n"));
}

fn container(fragment: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{volumes: [{{name: v, emptyDir: {{}}}}], \
         containers: [{{name: c, image: x, {fragment}}}]}}}}"
    )
}

fn pod(fragment: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{containers: [{{name: c, image: x}}], {fragment}}}}}"
    )
}

fn document(fragment: &str) -> String {
    fragment.to_owned()
}

fn apps(kind: &'static str) -> impl Fn(&str) -> String {
    move |fragment| {
        format!(
            "{{apiVersion: apps/v1, kind: {kind}, metadata: {{name: d}}, spec: {{selector: {{matchLabels: {{a: b}}}}, \
             template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: c, image: x}}]}}}}, {fragment}}}}}"
        )
    }
}

fn job(fragment: &str) -> String {
    format!(
        "{{apiVersion: batch/v1, kind: Job, metadata: {{name: j}}, spec: {{template: {{spec: {{restartPolicy: Never, \
         containers: [{{name: c, image: x}}]}}}}, {fragment}}}}}"
    )
}

fn cron(fragment: &str) -> String {
    format!(
        "{{apiVersion: batch/v1, kind: CronJob, metadata: {{name: j}}, spec: {{jobTemplate: {{spec: {{template: {{spec: \
         {{restartPolicy: Never, containers: [{{name: c, image: x}}]}}}}}}}}, {fragment}}}}}"
    )
}

fn service(fragment: &str) -> String {
    format!("{{apiVersion: v1, kind: Service, metadata: {{name: s}}, spec: {{{fragment}}}}}")
}

#[test]
fn headers() {
    check(
        document,
        &[
            ("{apiVersion: v1, kind: Namespace, metadata: {name: ns}}", ""),
            ("{apiVersion: v1, kind: ConfigMap, metadata: {name: ns, creationTimestamp: null}, data: null}", ""),
            ("{apiVersion: v1, kind: List, items: []}", ""),
            ("{apiVersion: v1, kind: PodList, metadata: {}, items: []}", ""),
            ("{apiVersion: v1, kind: List, items: {}}", "M0011 items"),
            ("{apiVersion: v1, kind: List, item: []}", "M0012 item"),
            ("{kind: Pod, metadata: {name: p}, spec: {}}", "M0010 apiVersion"),
            ("{apiVersion: v1, metadata: {name: p}, spec: {}}", "M0010 kind"),
            ("{apiVersion: 1, kind: Pod, metadata: {name: p}}", "M0010 apiVersion"),
            ("{apiVersion: v1, kind: Pode, metadata: {name: p}}", "M0034 kind"),
            ("{apiVersion: v2, kind: Pod, metadata: {name: p}}", "M0034 apiVersion"),
            ("{apiVersion: v1, kind: Deployment, metadata: {name: p}}", "M0034 apiVersion"),
            ("{apiVersion: apps/v1, kind: Pod, metadata: {name: p}}", "M0034 apiVersion"),
            ("{apiVersion: batch/v1, kind: Deployment, metadata: {name: p}}", "M0034 apiVersion"),
            ("{apiVersion: extensions/v1beta1, kind: Deployment, metadata: {name: p}}", "M0033 apiVersion"),
            ("{apiVersion: extensions/v1beta1, kind: DaemonSet, metadata: {name: p}}", "M0033 apiVersion"),
            ("{apiVersion: apps/v1beta1, kind: StatefulSet, metadata: {name: p}}", "M0033 apiVersion"),
            ("{apiVersion: apps/v1beta2, kind: Deployment, metadata: {name: p}}", "M0033 apiVersion"),
            ("{apiVersion: batch/v1beta1, kind: CronJob, metadata: {name: p}}", "M0033 apiVersion"),
            ("{apiVersion: batch/v2alpha1, kind: CronJob, metadata: {name: p}}", "M0033 apiVersion"),
            ("{apiVersion: v1, kind: ServiceAccount, metadata: {name: p}}", "M0032 kind"),
            ("{apiVersion: v1, kind: ReplicationController, metadata: {name: p}}", "M0032 kind"),
            ("{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: p}}", "M0032 kind"),
            ("{apiVersion: extensions/v1beta1, kind: Ingress, metadata: {name: p}}", "M0032 kind"),
            ("{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: p}}", "M0032 kind"),
            ("{apiVersion: networking.istio.io/v1beta1, kind: VirtualService, metadata: {name: p}}", "M0032 kind"),
            ("{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: p}}", "M0032 kind"),
            ("{apiVersion: apps.openshift.io/v1, kind: DeploymentConfig, metadata: {name: p}}", "M0032 kind"),
            ("{apiVersion: v1, kind: ImageStream, metadata: {name: p}}", "M0032 kind"),
            ("{apiVersion: kustomize.config.k8s.io/v1beta1, kind: Kustomization, resources: [a]}", "M0032 kind"),
            ("{apiVersion: kustomize.config.k8s.io/v1alpha1, kind: Component, patches: [a]}", "M0032 kind"),
            ("{apiVersion: v1, kind: Pod}", "M0013 metadata, M0013 spec"),
            ("{apiVersion: v1, kind: Pod, metadata: [], spec: {containers: [{name: c, image: x}]}}", "M0011 metadata"),
            ("{apiVersion: v1, kind: Namespace, metadata: {}}", "M0013 metadata.name"),
            ("{apiVersion: v1, kind: Namespace, metadata: {name: ns}, status: {phase: Active}}", ""),
            ("{apiVersion: v1, kind: Namespace, metadata: {name: ns}, statsu: {}}", "M0012 statsu"),
        ],
    );
}

/// What a cluster wrote into an object is dropped, but a fault in it is one.
#[test]
fn statuses() {
    let pod = |status: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: a}}, spec: {{containers: [{{name: c, image: x}}]}}, status: {status}}}"
        )
    };
    check(
        pod,
        &[
            ("{}", ""),
            ("null", ""),
            (
                "{phase: Running, podIP: 1.2.3.4, startTime: '2024-01-02T03:04:05Z', conditions: [{type: Ready, status: 'True'}]}",
                "",
            ),
            ("{containerStatuses: [{name: c, ready: true, restartCount: 1, state: {running: {startedAt: null}}}]}", ""),
            ("x", "M0011 status"),
            ("{phase: [x]}", "M0011 status.phase"),
            ("{bogus: 1}", "M0012 status.bogus"),
            ("{startTime: yesterday}", "M0016 status.startTime"),
            ("{conditions: {}}", "M0011 status.conditions"),
            ("{containerStatuses: [{restartCount: many}]}", "M0011 status.containerStatuses[0].restartCount"),
        ],
    );
}

#[test]
fn metadata() {
    let config = |fragment: &str| format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{{fragment}}}}}");
    check(
        config,
        &[
            ("name: a.b-c", ""),
            ("name: a, namespace: ns, labels: {a/b: c, d: ''}, annotations: {A.b/c: 'x y'}", ""),
            ("generateName: a-", ""),
            (
                "name: a, finalizers: [x], ownerReferences: [{apiVersion: v1, kind: x, name: z, uid: u}], managedFields: []",
                "",
            ),
            ("name: a, ownerReferences: [{kind: x, name: z, uid: u}]", "M0013 metadata.ownerReferences[0].apiVersion"),
            ("name: a, finalizers: [a b]", "M0016 metadata.finalizers[0]"),
            ("name: a, generation: -1", "M0015 metadata.generation"),
            ("name: a, generateName: A", "M0016 metadata.generateName"),
            ("name: a, labels: null, annotations: null", ""),
            ("name: A", "M0016 metadata.name"),
            ("name: a_b", "M0016 metadata.name"),
            ("name: -a", "M0016 metadata.name"),
            ("name: 1", "M0011 metadata.name"),
            ("name: ''", "M0013 metadata.name"),
            ("namespace: ns", "M0013 metadata.name"),
            ("name: a, namespace: a.b", "M0016 metadata.namespace"),
            ("name: a, labels: {a: 1}", "M0011 metadata.labels.a"),
            ("name: a, labels: {a: true}", "M0011 metadata.labels.a"),
            ("name: a, labels: {a: yes}", "M0011 metadata.labels.a"),
            ("name: a, labels: {a: 'b c'}", "M0016 metadata.labels.a"),
            ("name: a, labels: {'a b': c}", "M0016 metadata.labels.a b"),
            ("name: a, labels: [a]", "M0011 metadata.labels"),
            ("name: a, annotations: {a: 1}", "M0011 metadata.annotations.a"),
            ("name: a, annotations: {'a b': c}", "M0016 metadata.annotations.a b"),
            ("name: a, lables: {}", "M0012 metadata.lables"),
            ("name: a, clusterName: x", "M0012 metadata.clusterName"),
        ],
    );
    let long = "x".repeat(54);
    let cron_named = format!("{{apiVersion: batch/v1, kind: CronJob, metadata: {{name: {long}}}, spec: {{}}}}");
    assert!(errors(&cron_named).contains(&"M0016 metadata.name".to_owned()));
    check(
        document,
        &[
            (
                "{apiVersion: v1, kind: Service, metadata: {name: 1s}, spec: {ports: [{port: 1}]}}",
                "M0016 metadata.name",
            ),
            (
                "{apiVersion: v1, kind: Service, metadata: {name: a.b}, spec: {ports: [{port: 1}]}}",
                "M0016 metadata.name",
            ),
            ("{apiVersion: v1, kind: Namespace, metadata: {name: a.b}}", "M0016 metadata.name"),
        ],
    );
}

#[test]
fn containers() {
    check(
        container,
        &[
            ("command: [a], args: [b, ''], workingDir: /x, tty: true, stdin: true, stdinOnce: false", ""),
            ("args: [1]", "M0011 spec.containers[0].args[0]"),
            ("args: [true]", "M0011 spec.containers[0].args[0]"),
            ("args: a", "M0011 spec.containers[0].args"),
            ("command: {a: b}", "M0011 spec.containers[0].command"),
            ("imagePullPolicy: Always", ""),
            ("imagePullPolicy: ''", ""),
            ("imagePullPolicy: always", "M0014 spec.containers[0].imagePullPolicy"),
            ("restartPolicy: Sometimes", "M0014 spec.containers[0].restartPolicy"),
            ("terminationMessagePolicy: File, terminationMessagePath: /x", ""),
            ("terminationMessagePolicy: file", "M0014 spec.containers[0].terminationMessagePolicy"),
            ("stdin: 'true'", "M0011 spec.containers[0].stdin"),
            ("stdin: 1", "M0011 spec.containers[0].stdin"),
            ("stdin: yes", ""),
            ("restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]", ""),
            ("imge: x", "M0012 spec.containers[0].imge"),
            ("Image: x", "M0012 spec.containers[0].Image"),
            ("volumeDevices: [{name: a, devicePath: /b}]", "M0031 spec.containers[0].volumeDevices"),
            ("volumeDevices: []", ""),
            ("ports: [{containerPort: 80}]", ""),
            ("ports: [{containerPort: 80, name: http, protocol: TCP, hostPort: 8080, hostIP: 127.0.0.1}]", ""),
            ("ports: [{containerPort: 53, protocol: TCP}, {containerPort: 53, protocol: UDP}]", ""),
            ("ports: [{containerPort: 80}, {containerPort: 80}]", ""),
            ("ports: [{name: http}]", "M0013 spec.containers[0].ports[0].containerPort"),
            ("ports: [80]", "M0011 spec.containers[0].ports[0]"),
            ("ports: [{containerPort: '80'}]", "M0011 spec.containers[0].ports[0].containerPort"),
            ("ports: [{containerPort: 0}]", "M0015 spec.containers[0].ports[0].containerPort"),
            ("ports: [{containerPort: 65536}]", "M0015 spec.containers[0].ports[0].containerPort"),
            ("ports: [{containerPort: -1}]", "M0015 spec.containers[0].ports[0].containerPort"),
            ("ports: [{containerPort: 80.5}]", "M0011 spec.containers[0].ports[0].containerPort"),
            ("ports: [{containerPort: 80, hostPort: 70000}]", "M0015 spec.containers[0].ports[0].hostPort"),
            ("ports: [{containerPort: 80, protocol: tcp}]", "M0014 spec.containers[0].ports[0].protocol"),
            ("ports: [{containerPort: 80, protocol: HTTP}]", "M0014 spec.containers[0].ports[0].protocol"),
            ("ports: [{containerPort: 80, name: HTTP}]", "M0016 spec.containers[0].ports[0].name"),
            ("ports: [{containerPort: 80, name: averylongportname}]", "M0016 spec.containers[0].ports[0].name"),
            ("ports: [{containerPort: 80, name: '80'}]", "M0016 spec.containers[0].ports[0].name"),
            (
                "ports: [{containerPort: 1, name: a}, {containerPort: 2, name: a}]",
                "M0018 spec.containers[0].ports[1].name",
            ),
            (
                "ports: [{containerPort: 1, hostPort: 9}, {containerPort: 2, hostPort: 9}]",
                "M0018 spec.containers[0].ports[1].hostPort",
            ),
            ("ports: [{containerPort: 1, hostPort: 9}, {containerPort: 1, hostPort: 9, protocol: UDP}]", ""),
            ("ports: [{containerPort: 80, hostIP: localhost}]", "M0014 spec.containers[0].ports[0].hostIP"),
            ("ports: [{port: 80}]", "M0012 spec.containers[0].ports[0].port"),
            ("env: [{name: A, value: b}, {name: B}, {name: a.b-c, value: ''}]", ""),
            ("env: [{name: A, value: 1}]", "M0011 spec.containers[0].env[0].value"),
            ("env: [{name: A, value: true}]", "M0011 spec.containers[0].env[0].value"),
            ("env: [{name: A, value: on}]", "M0011 spec.containers[0].env[0].value"),
            ("env: [{name: A, value: null}]", ""),
            ("env: [{value: b}]", "M0013 spec.containers[0].env[0].name"),
            ("env: [{name: 'A=B'}]", "M0016 spec.containers[0].env[0].name"),
            ("env: {A: b}", "M0011 spec.containers[0].env"),
            ("env: [{name: A, valueFrom: {}}]", "M0019 spec.containers[0].env[0].valueFrom"),
            (
                "env: [{name: A, value: x, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]",
                "M0020 spec.containers[0].env[0].valueFrom",
            ),
            (
                "env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}, configMapKeyRef: {name: a, key: b}}}]",
                "M0019 spec.containers[0].env[0].valueFrom.fieldRef",
            ),
            ("env: [{name: A, valueFrom: {fieldRef: {fieldPath: 'metadata.labels[''a'']'}}}]", ""),
            (
                "env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.labels}}}]",
                "M0014 spec.containers[0].env[0].valueFrom.fieldRef.fieldPath",
            ),
            (
                "env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.podip}}}]",
                "M0014 spec.containers[0].env[0].valueFrom.fieldRef.fieldPath",
            ),
            (
                "env: [{name: A, valueFrom: {configMapKeyRef: {name: a}}}]",
                "M0013 spec.containers[0].env[0].valueFrom.configMapKeyRef.key",
            ),
            (
                "env: [{name: A, valueFrom: {secretKeyRef: {key: a}}}]",
                "M0013 spec.containers[0].env[0].valueFrom.secretKeyRef.name",
            ),
            ("env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}]", ""),
            ("env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}]", ""),
            (
                "env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 3}}}]",
                "M0014 spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor",
            ),
            (
                "env: [{name: A, valueFrom: {resourceFieldRef: {resource: cpu}}}]",
                "M0014 spec.containers[0].env[0].valueFrom.resourceFieldRef.resource",
            ),
            (
                "env: [{name: A, valueFrom: {secretRef: {name: a}}}]",
                "M0012 spec.containers[0].env[0].valueFrom.secretRef, M0013 spec.containers[0].env[0].valueFrom.secretKeyRef.key",
            ),
            ("envFrom: [{configMapRef: {name: a, optional: true}}, {prefix: P_, secretRef: {name: b}}]", ""),
            ("envFrom: [{}]", "M0019 spec.containers[0].envFrom[0]"),
            (
                "envFrom: [{configMapRef: {name: a}, secretRef: {name: b}}]",
                "M0019 spec.containers[0].envFrom[0].secretRef",
            ),
            ("envFrom: [{configMapRef: {}}]", "M0013 spec.containers[0].envFrom[0].configMapRef.name"),
            ("envFrom: [{configMapKeyRef: {name: a}}]", "M0012 spec.containers[0].envFrom[0].configMapKeyRef"),
            ("volumeMounts: [{name: v, mountPath: /a}, {name: v, mountPath: /b, readOnly: true, subPath: c/d}]", ""),
            ("volumeMounts: [{name: w, mountPath: /a}]", "M0021 spec.containers[0].volumeMounts[0].name"),
            ("volumeMounts: [{name: v}]", "M0013 spec.containers[0].volumeMounts[0].mountPath"),
            (
                "volumeMounts: [{name: v, mountPath: /a}, {name: v, mountPath: /a}]",
                "M0018 spec.containers[0].volumeMounts[1].mountPath",
            ),
            (
                "volumeMounts: [{name: v, mountPath: /a, subPath: ../b}]",
                "M0014 spec.containers[0].volumeMounts[0].subPath",
            ),
            (
                "volumeMounts: [{name: v, mountPath: /a, subPath: /b}]",
                "M0014 spec.containers[0].volumeMounts[0].subPath",
            ),
            (
                "volumeMounts: [{name: v, mountPath: /a, subPath: a, subPathExpr: b}]",
                "M0019 spec.containers[0].volumeMounts[0].subPathExpr",
            ),
            ("volumeMounts: [{name: v, mountPath: /a, mountPropagation: HostToContainer}]", ""),
            (
                "volumeMounts: [{name: v, mountPath: /a, mountPropagation: Bidirectional}]",
                "M0020 spec.containers[0].volumeMounts[0].mountPropagation",
            ),
            (
                "volumeMounts: [{name: v, mountPath: /a, recursiveReadOnly: Enabled}]",
                "M0020 spec.containers[0].volumeMounts[0].recursiveReadOnly",
            ),
            (
                "volumeMounts: [{name: v, mountPath: /a, readonly: true}]",
                "M0012 spec.containers[0].volumeMounts[0].readonly",
            ),
        ],
    );
}

#[test]
fn resources() {
    check(
        container,
        &[
            ("resources: {}", ""),
            (
                "resources: {limits: {cpu: 1, memory: 128Mi}, requests: {cpu: 500m, memory: 64Mi, ephemeral-storage: 1Gi}}",
                "",
            ),
            ("resources: {limits: {cpu: 0.5, memory: 1e9}}", ""),
            ("resources: {limits: {cpu: '0.5', memory: '128974848'}}", ""),
            ("resources: {limits: {hugepages-2Mi: 4Mi, memory: 1Gi}, requests: {hugepages-2Mi: 4Mi}}", ""),
            ("resources: {limits: {hugepages-2Mi: 4Mi}}", "M0020 spec.containers[0].resources"),
            ("resources: {limits: {memory: 128MB}}", "M0017 spec.containers[0].resources.limits.memory"),
            ("resources: {limits: {memory: 128 Mi}}", "M0017 spec.containers[0].resources.limits.memory"),
            ("resources: {limits: {memory: 1gi}}", "M0017 spec.containers[0].resources.limits.memory"),
            ("resources: {limits: {cpu: half}}", "M0017 spec.containers[0].resources.limits.cpu"),
            ("resources: {limits: {cpu: true}}", "M0011 spec.containers[0].resources.limits.cpu"),
            ("resources: {limits: {cpu: -1}}", "M0015 spec.containers[0].resources.limits.cpu"),
            ("resources: {limits: {cpu: 1}, requests: {cpu: 2}}", "M0020 spec.containers[0].resources.requests.cpu"),
            (
                "resources: {limits: {memory: 1Gi}, requests: {memory: 1025Mi}}",
                "M0020 spec.containers[0].resources.requests.memory",
            ),
            (
                "resources: {limits: {nvidia.com/gpu: 0.5}}",
                "M0015 spec.containers[0].resources.limits[\"nvidia.com/gpu\"]",
            ),
            ("resources: {limits: {nvidia.com/gpu: 1}, requests: {nvidia.com/gpu: 1}}", ""),
            (
                "resources: {limits: {nvidia.com/gpu: 2}, requests: {nvidia.com/gpu: 1}}",
                "M0020 spec.containers[0].resources.requests[\"nvidia.com/gpu\"]",
            ),
            (
                "resources: {limits: {attachable.kubernetes.io/x: 1}}",
                "M0036 spec.containers[0].resources.limits[\"attachable.kubernetes.io/x\"]",
            ),
            (
                "resources: {requests: {example.com/dongle: 1}}",
                "M0020 spec.containers[0].resources.requests[\"example.com/dongle\"]",
            ),
            ("resources: {limits: {storage: 1Gi}}", "M0014 spec.containers[0].resources.limits.storage"),
            ("resources: {limits: {mem: 1Gi}}", "M0014 spec.containers[0].resources.limits.mem"),
            ("resources: {limits: {pids: 2048}}", ""),
            ("resources: {limit: {cpu: 1}}", "M0012 spec.containers[0].resources.limit"),
            ("resources: {cpu: 1}", "M0012 spec.containers[0].resources.cpu"),
            ("resources: {limits: [cpu]}", "M0011 spec.containers[0].resources.limits"),
            ("resources: {claims: [{name: a}]}", "M0031 spec.containers[0].resources.claims"),
        ],
    );
}

#[test]
fn probes_and_hooks() {
    check(
        container,
        &[
            ("livenessProbe: {exec: {command: [a]}, periodSeconds: 5, timeoutSeconds: 0, initialDelaySeconds: 0}", ""),
            ("livenessProbe: {httpGet: {port: 80, path: /x, scheme: HTTPS, httpHeaders: [{name: X-A, value: b}]}}", ""),
            ("livenessProbe: {httpGet: {port: http}}, ports: [{name: http, containerPort: 1}]", ""),
            ("readinessProbe: {tcpSocket: {port: 80}, successThreshold: 2}", ""),
            (
                "startupProbe: {grpc: {port: 80, service: x}, failureThreshold: 30, terminationGracePeriodSeconds: 5}",
                "",
            ),
            ("livenessProbe: {periodSeconds: 5}", "M0019 spec.containers[0].livenessProbe"),
            (
                "livenessProbe: {exec: {command: [a]}, tcpSocket: {port: 1}}",
                "M0019 spec.containers[0].livenessProbe.tcpSocket",
            ),
            ("livenessProbe: {exec: {command: []}}", "M0013 spec.containers[0].livenessProbe.exec.command"),
            ("livenessProbe: {exec: {}}", "M0013 spec.containers[0].livenessProbe.exec.command"),
            ("livenessProbe: {exec: {command: a}}", "M0011 spec.containers[0].livenessProbe.exec.command"),
            ("livenessProbe: {httpGet: {path: /}}", "M0013 spec.containers[0].livenessProbe.httpGet.port"),
            ("livenessProbe: {httpGet: {port: 0}}", "M0015 spec.containers[0].livenessProbe.httpGet.port"),
            ("livenessProbe: {httpGet: {port: '80'}}", "M0014 spec.containers[0].livenessProbe.httpGet.port"),
            (
                "livenessProbe: {httpGet: {port: 80, scheme: http}}",
                "M0014 spec.containers[0].livenessProbe.httpGet.scheme",
            ),
            (
                "livenessProbe: {httpGet: {port: 80, httpHeaders: [{name: 'a b', value: c}]}}",
                "M0016 spec.containers[0].livenessProbe.httpGet.httpHeaders[0].name",
            ),
            ("livenessProbe: {tcpSocket: {port: 70000}}", "M0015 spec.containers[0].livenessProbe.tcpSocket.port"),
            ("livenessProbe: {grpc: {port: http}}", "M0011 spec.containers[0].livenessProbe.grpc.port"),
            (
                "livenessProbe: {tcpSocket: {port: 80}, successThreshold: 2}",
                "M0015 spec.containers[0].livenessProbe.successThreshold",
            ),
            (
                "startupProbe: {tcpSocket: {port: 80}, successThreshold: 2}",
                "M0015 spec.containers[0].startupProbe.successThreshold",
            ),
            (
                "readinessProbe: {tcpSocket: {port: 80}, terminationGracePeriodSeconds: 5}",
                "M0020 spec.containers[0].readinessProbe.terminationGracePeriodSeconds",
            ),
            (
                "livenessProbe: {tcpSocket: {port: 80}, periodSeconds: -1}",
                "M0015 spec.containers[0].livenessProbe.periodSeconds",
            ),
            (
                "livenessProbe: {tcpSocket: {port: 80}, periodSeconds: '5'}",
                "M0011 spec.containers[0].livenessProbe.periodSeconds",
            ),
            ("livenessProbe: {tcpSocket: {port: 80}, period: 5}", "M0012 spec.containers[0].livenessProbe.period"),
            ("livenessProbe: {httpget: {port: 80}}", "M0012 spec.containers[0].livenessProbe.httpget"),
            ("lifecycle: {preStop: {exec: {command: [a]}}, postStart: {httpGet: {port: 1}}}", ""),
            ("lifecycle: {preStop: {sleep: {seconds: 5}}}", ""),
            (
                "lifecycle: {preStop: {sleep: {seconds: 60}}}",
                "M0015 spec.containers[0].lifecycle.preStop.sleep.seconds",
            ),
            ("lifecycle: {preStop: {}}", "M0019 spec.containers[0].lifecycle.preStop"),
            (
                "lifecycle: {preStop: {exec: {command: [a]}, sleep: {seconds: 1}}}",
                "M0019 spec.containers[0].lifecycle.preStop.sleep",
            ),
            ("lifecycle: {prestop: {exec: {command: [a]}}}", "M0012 spec.containers[0].lifecycle.prestop"),
            ("lifecycle: {stopSignal: SIGUSR1}", "M0020 spec.containers[0].lifecycle.stopSignal"),
            ("lifecycle: {stopSignal: USR1}", "M0014 spec.containers[0].lifecycle.stopSignal"),
        ],
    );
    let named = container("lifecycle: {stopSignal: SIGUSR1}").replace("volumes:", "os: {name: linux}, volumes:");
    assert_eq!(errors(&named), Vec::<String>::new());
}

#[test]
fn security() {
    check(
        container,
        &[
            (
                "securityContext: {runAsUser: 0, runAsGroup: 1000, runAsNonRoot: false, readOnlyRootFilesystem: true}",
                "",
            ),
            ("securityContext: {capabilities: {add: [NET_ADMIN, CAP_SYS_TIME], drop: [ALL]}}", ""),
            (
                "securityContext: {capabilities: {add: [NET_ADMN]}}",
                "M0014 spec.containers[0].securityContext.capabilities.add[0]",
            ),
            (
                "securityContext: {capabilities: {add: NET_ADMIN}}",
                "M0011 spec.containers[0].securityContext.capabilities.add",
            ),
            (
                "securityContext: {privileged: true, allowPrivilegeEscalation: false}",
                "M0020 spec.containers[0].securityContext.allowPrivilegeEscalation",
            ),
            ("securityContext: {privileged: 'true'}", "M0011 spec.containers[0].securityContext.privileged"),
            ("securityContext: {runAsUser: -1}", "M0015 spec.containers[0].securityContext.runAsUser"),
            ("securityContext: {runAsUser: root}", "M0011 spec.containers[0].securityContext.runAsUser"),
            ("securityContext: {seccompProfile: {type: RuntimeDefault}}", ""),
            (
                "securityContext: {seccompProfile: {type: Localhost}}",
                "M0013 spec.containers[0].securityContext.seccompProfile.localhostProfile",
            ),
            (
                "securityContext: {seccompProfile: {type: Unconfined, localhostProfile: a}}",
                "M0020 spec.containers[0].securityContext.seccompProfile.localhostProfile",
            ),
            (
                "securityContext: {seccompProfile: {type: runtime/default}}",
                "M0014 spec.containers[0].securityContext.seccompProfile.type",
            ),
            ("securityContext: {appArmorProfile: {type: Localhost, localhostProfile: a}}", ""),
            ("securityContext: {procMount: Unmasked}", "M0020 spec.containers[0].securityContext.procMount"),
            (
                "securityContext: {windowsOptions: {hostProcess: true}}",
                "M0037 spec.containers[0].securityContext.windowsOptions",
            ),
            ("securityContext: {seLinuxOptions: {level: 's0:c1'}}", ""),
            ("securityContext: {fsGroup: 1}", "M0012 spec.containers[0].securityContext.fsGroup"),
        ],
    );
    check(
        pod,
        &[
            (
                "securityContext: {runAsUser: 1, fsGroup: 2, supplementalGroups: [3], fsGroupChangePolicy: OnRootMismatch}",
                "",
            ),
            ("securityContext: {privileged: true}", "M0012 spec.securityContext.privileged"),
            (
                "securityContext: {sysctls: [{name: net.core.somaxconn, value: '1024'}, {name: kernel.shm_rmid_forced, value: '0'}]}",
                "",
            ),
            (
                "securityContext: {sysctls: [{name: net.core.somaxconn, value: 1024}]}",
                "M0011 spec.securityContext.sysctls[0].value",
            ),
            (
                "securityContext: {sysctls: [{name: vm.swappiness, value: '1'}]}",
                "M0014 spec.securityContext.sysctls[0].name",
            ),
            (
                "securityContext: {sysctls: [{name: net.a, value: '1'}, {name: net.a, value: '2'}]}",
                "M0018 spec.securityContext.sysctls[1].name",
            ),
            (
                "hostNetwork: true, securityContext: {sysctls: [{name: net.a.b, value: '1'}]}",
                "M0020 spec.securityContext.sysctls[0].name",
            ),
            (
                "securityContext: {seccompProfile: {type: Localhost}}",
                "M0013 spec.securityContext.seccompProfile.localhostProfile",
            ),
        ],
    );
}

#[test]
fn pods() {
    check(
        pod,
        &[
            ("restartPolicy: OnFailure, terminationGracePeriodSeconds: 0, activeDeadlineSeconds: 5", ""),
            ("restartPolicy: ''", ""),
            ("restartPolicy: always", "M0014 spec.restartPolicy"),
            ("RestartPolicy: Always", "M0012 spec.RestartPolicy"),
            ("replicas: 2", "M0012 spec.replicas"),
            ("terminationGracePeriodSeconds: -1", "M0015 spec.terminationGracePeriodSeconds"),
            ("activeDeadlineSeconds: 0", "M0015 spec.activeDeadlineSeconds"),
            ("serviceAccountName: a, serviceAccount: a, automountServiceAccountToken: false, nodeName: n1", ""),
            ("serviceAccountName: A_b", "M0016 spec.serviceAccountName"),
            (
                "schedulerName: s, priorityClassName: p, priority: 5, preemptionPolicy: Never, enableServiceLinks: true",
                "",
            ),
            (
                "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In, values: [b]}]}]}}}",
                "",
            ),
            ("affinity: {nodeAffinty: {}}", "M0012 spec.affinity.nodeAffinty"),
            (
                "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {a: b}}, topologyKey: kubernetes.io/hostname}]}}",
                "",
            ),
            (
                "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {}}]}}",
                "M0013 spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey",
            ),
            ("tolerations: [{key: a, operator: Exists, effect: NoSchedule}, {operator: Exists}]", ""),
            ("tolerations: [{key: a, operator: Exists, value: b}]", "M0020 spec.tolerations[0].value"),
            ("tolerations: [{key: a, operator: exists}]", "M0014 spec.tolerations[0].operator"),
            ("tolerations: [{key: a, value: 'b:c'}]", "M0016 spec.tolerations[0].value"),
            (
                "topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchExpressions: [{key: a, operator: In}]}}]",
                "M0013 spec.topologySpreadConstraints[0].labelSelector.matchExpressions[0].values",
            ),
            (
                "tolerations: [{key: a, value: b, effect: NoSchedule, tolerationSeconds: 5}]",
                "M0020 spec.tolerations[0].tolerationSeconds",
            ),
            (
                "topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {a: b}}}]",
                "",
            ),
            (
                "topologySpreadConstraints: [{maxSkew: 0, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]",
                "M0015 spec.topologySpreadConstraints[0].maxSkew",
            ),
            ("hostNetwork: true, hostPID: true, hostIPC: true, dnsPolicy: ClusterFirstWithHostNet", ""),
            ("hostPID: true, shareProcessNamespace: true", "M0020 spec.shareProcessNamespace"),
            ("hostUsers: true, hostNetwork: true", ""),
            ("hostUsers: false", ""),
            ("hostUsers: false, hostNetwork: true", "M0020 spec.hostNetwork"),
            ("hostUsers: false, hostPID: true", "M0020 spec.hostPID"),
            ("hostUsers: false, hostIPC: true", "M0020 spec.hostIPC"),
            ("hostname: h, subdomain: s, setHostnameAsFQDN: true", ""),
            ("hostname: a.b", "M0016 spec.hostname"),
            ("hostAliases: [{ip: 1.2.3.4, hostnames: [a, b.c]}]", ""),
            ("hostAliases: [{ip: x, hostnames: [a]}]", "M0014 spec.hostAliases[0].ip"),
            ("hostAliases: [{hostnames: [a]}]", "M0013 spec.hostAliases[0].ip"),
            (
                "dnsPolicy: None, dnsConfig: {nameservers: [1.1.1.1], searches: [a.b], options: [{name: ndots, value: '2'}, {name: edns0}]}",
                "",
            ),
            ("dnsPolicy: None", "M0013 spec.nameservers"),
            ("dnsPolicy: none", "M0014 spec.dnsPolicy"),
            ("dnsConfig: {nameservers: [a]}", "M0014 spec.dnsConfig.nameservers[0]"),
            ("dnsConfig: {options: [{name: ndots, value: 2}]}", "M0011 spec.dnsConfig.options[0].value"),
            ("nodeSelector: {disktype: ssd}", ""),
            ("nodeSelector: {kubernetes.io/os: windows}", "M0037 spec.nodeSelector[\"kubernetes.io/os\"]"),
            ("os: {name: linux}", ""),
            ("os: {name: windows}", "M0037 spec.os.name"),
            ("imagePullSecrets: [{name: a}]", ""),
            ("imagePullSecrets: [a]", "M0011 spec.imagePullSecrets[0]"),
            ("overhead: {cpu: 1m}", ""),
            ("runtimeClassName: gvisor", ""),
            ("ephemeralContainers: [{name: a, image: b}]", "M0031 spec.ephemeralContainers"),
            ("resourceClaims: [{name: a}]", "M0031 spec.resourceClaims"),
            ("initContainers: [{name: i, image: z}]", ""),
            ("initContainers: [{name: c, image: z}]", "M0018 spec.containers[0].name"),
            ("initContainers: [{name: i}]", "M0013 spec.initContainers[0].image"),
            (
                "initContainers: [{name: i, image: z, livenessProbe: {exec: {command: [a]}}}]",
                "M0020 spec.initContainers[0].livenessProbe",
            ),
            ("initContainers: [{name: i, image: z, restartPolicy: Always, livenessProbe: {exec: {command: [a]}}}]", ""),
            ("volumes: null, initContainers: null", ""),
        ],
    );
    check(
        document,
        &[
            ("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {}}", "M0013 spec.containers"),
            ("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: []}}", "M0013 spec.containers"),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: {name: c, image: x}}}",
                "M0011 spec.containers",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{image: x}]}}",
                "M0013 spec.containers[0].name",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c}]}}",
                "M0013 spec.containers[0].image",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: ''}]}}",
                "M0013 spec.containers[0].image",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: 'X y'}]}}",
                "M0023 spec.containers[0].image",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: 'a.b/<project>/x'}]}}",
                "",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: Nginx}]}}",
                "M0023 spec.containers[0].image",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: C_1, image: x}]}}",
                "M0016 spec.containers[0].name",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: x}, {name: c, image: x}]}}",
                "M0018 spec.containers[1].name",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [null]}}",
                "M0013 spec.containers[0]",
            ),
            (
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {hostNetwork: true, containers: [{name: c, image: x, ports: [{containerPort: 1, hostPort: 2}]}]}}",
                "M0020 spec.containers[0].ports[0].hostPort",
            ),
        ],
    );
}

#[test]
fn volumes() {
    let volume = |fragment: &str| pod(&format!("volumes: [{{name: v, {fragment}}}]"));
    check(
        volume,
        &[
            ("emptyDir: {}", ""),
            ("emptyDir: {medium: Memory, sizeLimit: 64Mi}", ""),
            ("emptyDir: {medium: memory}", "M0014 spec.volumes[0].emptyDir.medium"),
            ("emptyDir: {medium: HugePages}", "M0031 spec.volumes[0].emptyDir.medium"),
            ("emptyDir: {sizeLimit: 1MB}", "M0017 spec.volumes[0].emptyDir.sizeLimit"),
            ("emptyDir: {sizeLimit: -1}", "M0015 spec.volumes[0].emptyDir.sizeLimit"),
            ("emptyDir: null", ""),
            ("hostPath: {path: /a}", ""),
            ("hostPath: {path: /a, type: ''}", ""),
            ("hostPath: {path: /a, type: directory}", "M0014 spec.volumes[0].hostPath.type"),
            ("hostPath: {path: /a/../b}", "M0014 spec.volumes[0].hostPath.path"),
            ("hostPath: {}", "M0013 spec.volumes[0].hostPath.path"),
            ("hostPath: /a", "M0011 spec.volumes[0].hostPath"),
            ("configMap: {name: a, defaultMode: 0644, items: [{key: k, path: p/q, mode: 0400}]}", ""),
            ("configMap: {name: a, defaultMode: 420}", ""),
            ("configMap: {name: a, defaultMode: 0o1000}", "M0015 spec.volumes[0].configMap.defaultMode"),
            ("configMap: {}", "M0013 spec.volumes[0].configMap.name"),
            ("configMap: {name: a, items: [{key: k}]}", "M0013 spec.volumes[0].configMap.items[0].path"),
            ("configMap: {name: a, items: [{key: k, path: ../p}]}", "M0014 spec.volumes[0].configMap.items[0].path"),
            ("configMap: {name: a, items: [{key: k, path: /p}]}", "M0014 spec.volumes[0].configMap.items[0].path"),
            (
                "configMap: {configMapName: a}",
                "M0012 spec.volumes[0].configMap.configMapName, M0013 spec.volumes[0].configMap.name",
            ),
            ("secret: {secretName: a, optional: true}", ""),
            ("secret: {name: a}", "M0012 spec.volumes[0].secret.name"),
            ("downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}", ""),
            ("downwardAPI: {items: [{path: cpu, resourceFieldRef: {containerName: c, resource: limits.cpu}}]}", ""),
            (
                "downwardAPI: {items: [{path: cpu, resourceFieldRef: {resource: limits.cpu}}]}",
                "M0013 spec.volumes[0].downwardAPI.items[0].resourceFieldRef.containerName",
            ),
            (
                "downwardAPI: {items: [{path: ip, fieldRef: {fieldPath: status.podIP}}]}",
                "M0014 spec.volumes[0].downwardAPI.items[0].fieldRef.fieldPath",
            ),
            ("downwardAPI: {items: [{path: a}]}", "M0019 spec.volumes[0].downwardAPI.items[0]"),
            ("projected: {sources: [{secret: {name: a}}, {configMap: {name: b}}, {downwardAPI: {items: []}}]}", ""),
            ("projected: {sources: [{}]}", "M0019 spec.volumes[0].projected.sources[0]"),
            (
                "projected: {sources: [{serviceAccountToken: {path: t}}]}",
                "M0035 spec.volumes[0].projected.sources[0].serviceAccountToken",
            ),
            (
                "projected: {sources: [{secret: {name: a, items: [{key: k, path: p}]}}, {configMap: {name: b, items: [{key: k, path: p}]}}]}",
                "M0018 spec.volumes[0].projected.sources[1].configMap.items[0].path",
            ),
            ("persistentVolumeClaim: {claimName: c, readOnly: true}", ""),
            ("persistentVolumeClaim: {}", "M0013 spec.volumes[0].persistentVolumeClaim.claimName"),
            ("persistentVolumeClaim: {name: c}", "M0012 spec.volumes[0].persistentVolumeClaim.name"),
            ("image: {reference: 'a/b:c', pullPolicy: Always}", ""),
            (
                "ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}",
                "",
            ),
            ("emptyDir: {}, hostPath: {path: /a}", "M0019 spec.volumes[0].emptyDir"),
            ("flexVolume: {driver: d}", "M0035 spec.volumes[0].flexVolume"),
            ("azureDisk: {diskName: d, diskURI: u}", "M0035 spec.volumes[0].azureDisk"),
            ("nfs: {server: s, path: /}", "M0035 spec.volumes[0].nfs"),
            ("iscsi: {targetPortal: a}", "M0035 spec.volumes[0].iscsi"),
            ("csi: {driver: d}", "M0035 spec.volumes[0].csi"),
            ("emptydir: {}", "M0012 spec.volumes[0].emptydir"),
        ],
    );
    check(pod, &[("volumes: [{name: v, emptyDir: {}}, {name: v, emptyDir: {}}]", "M0018 spec.volumes[1].name")]);
    check(pod, &[("volumes: [{name: V_, emptyDir: {}}]", "M0016 spec.volumes[0].name")]);
    check(pod, &[("volumes: [{emptyDir: {}}]", "M0013 spec.volumes[0].name")]);
}

#[test]
fn controllers() {
    check(
        apps("Deployment"),
        &[
            ("replicas: 0, minReadySeconds: 5, revisionHistoryLimit: 3, paused: false", ""),
            ("replicas: '2'", "M0011 spec.replicas"),
            ("replicas: -1", "M0015 spec.replicas"),
            ("replicas: 1.5", "M0011 spec.replicas"),
            ("strategy: {type: Recreate}", ""),
            ("strategy: {type: Recreate, rollingUpdate: null}", ""),
            ("strategy: {type: Recreate, rollingUpdate: {maxSurge: 1}}", "M0020 spec.strategy.rollingUpdate"),
            ("strategy: {type: Rolling}", "M0014 spec.strategy.type"),
            ("strategy: {rollingUpdate: {maxSurge: 25%, maxUnavailable: 1}}", ""),
            (
                "strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}",
                "M0020 spec.strategy.rollingUpdate.maxUnavailable",
            ),
            ("strategy: {rollingUpdate: {maxSurge: '1'}}", "M0014 spec.strategy.rollingUpdate.maxSurge"),
            ("strategy: {rollingUpdate: {maxUnavailable: 101%}}", "M0015 spec.strategy.rollingUpdate.maxUnavailable"),
            ("updateStrategy: {type: Recreate}", "M0012 spec.updateStrategy"),
            ("minReadySeconds: 600", "M0020 spec.minReadySeconds"),
            ("progressDeadlineSeconds: 5, minReadySeconds: 5", "M0020 spec.progressDeadlineSeconds"),
            ("serviceName: a", "M0012 spec.serviceName"),
        ],
    );
    check(
        |fragment| format!("{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: d}}, spec: {{{fragment}}}}}"),
        &[
            (
                "template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}",
                "M0013 spec.selector",
            ),
            (
                "selector: {}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}",
                "M0022 spec.selector",
            ),
            (
                "selector: {matchLabels: {a: c}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}",
                "M0022 spec.selector.matchLabels.a",
            ),
            (
                "selector: {matchLabels: {a: b}}, template: {spec: {containers: [{name: c, image: x}]}}",
                "M0022 spec.selector.matchLabels.a",
            ),
            (
                "selector: {app: b}, template: {metadata: {labels: {app: b}}, spec: {containers: [{name: c, image: x}]}}",
                "M0022 spec.selector, M0012 spec.selector.app",
            ),
            (
                "selector: {matchExpressions: [{key: a, operator: In, values: [b, c]}]}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}",
                "",
            ),
            (
                "selector: {matchExpressions: [{key: a, operator: In}]}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}",
                "M0013 spec.selector.matchExpressions[0].values, M0022 spec.selector.matchExpressions[0]",
            ),
            ("selector: {matchLabels: {a: b}}", "M0013 spec.template"),
            ("selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}}", "M0013 spec.template.spec"),
            (
                "selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}",
                "M0014 spec.template.spec.restartPolicy",
            ),
            (
                "selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {activeDeadlineSeconds: 5, containers: [{name: c, image: x}]}}",
                "M0020 spec.template.spec.activeDeadlineSeconds",
            ),
        ],
    );
    check(apps("ReplicaSet"), &[("replicas: 3", ""), ("strategy: {}", "M0012 spec.strategy")]);
    check(
        apps("DaemonSet"),
        &[
            ("updateStrategy: {type: OnDelete}", ""),
            ("updateStrategy: {rollingUpdate: {maxUnavailable: 1}}", ""),
            ("updateStrategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}", ""),
            (
                "updateStrategy: {rollingUpdate: {maxUnavailable: 1, maxSurge: 1}}",
                "M0020 spec.updateStrategy.rollingUpdate.maxSurge",
            ),
            ("replicas: 1", "M0012 spec.replicas"),
        ],
    );
    let claim = "metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}";
    let stateful = |fragment: &str| apps("StatefulSet")(&fragment.replace("CLAIM", claim));
    check(
        stateful,
        &[
            ("serviceName: s, podManagementPolicy: Parallel, ordinals: {start: 1}", ""),
            ("volumeClaimTemplates: [{CLAIM}]", ""),
            ("volumeClaimTemplates: [{CLAIM}, {CLAIM}]", "M0018 spec.volumeClaimTemplates[1].metadata"),
            (
                "volumeClaimTemplates: [{metadata: {}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1}}}}]",
                "M0013 spec.volumeClaimTemplates[0].metadata.name",
            ),
            (
                "volumeClaimTemplates: [{metadata: {name: a}, spec: {accessModes: [RWO], resources: {requests: {storage: 1}}}}]",
                "M0014 spec.volumeClaimTemplates[0].spec.accessModes[0]",
            ),
            ("updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 1}}", ""),
            (
                "updateStrategy: {type: OnDelete, rollingUpdate: {partition: 1}}",
                "M0020 spec.updateStrategy.rollingUpdate",
            ),
            ("podManagementPolicy: parallel", "M0014 spec.podManagementPolicy"),
            ("persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete}", ""),
        ],
    );
    let mounted = apps("StatefulSet")(&format!("volumeClaimTemplates: [{{{claim}}}]"))
        .replace("image: x", "image: x, volumeMounts: [{name: data, mountPath: /d}]");
    assert_eq!(errors(&mounted), Vec::<String>::new());
}

#[test]
fn jobs() {
    check(
        job,
        &[
            (
                "completions: 3, parallelism: 2, backoffLimit: 4, activeDeadlineSeconds: 9, ttlSecondsAfterFinished: 0",
                "",
            ),
            ("completionMode: Indexed, completions: 2", ""),
            ("completionMode: Indexed", "M0013 spec.completions"),
            ("completionMode: indexed, completions: 2", "M0014 spec.completionMode"),
            ("backoffLimit: -1", "M0015 spec.backoffLimit"),
            ("backoffLimit: six", "M0011 spec.backoffLimit"),
            ("suspend: true", ""),
            (
                "podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {containerName: c, operator: In, values: [42]}}, {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}]}",
                "",
            ),
            (
                "podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [0]}}]}",
                "M0014 spec.podFailurePolicy.rules[0].onExitCodes.values[0]",
            ),
            (
                "podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {containerName: d, operator: In, values: [1]}}]}",
                "M0021 spec.podFailurePolicy.rules[0].onExitCodes.containerName",
            ),
            ("podFailurePolicy: {rules: [{action: FailJob}]}", "M0019 spec.podFailurePolicy.rules[0]"),
            (
                "podFailurePolicy: {rules: [{action: FailIndex, onExitCodes: {operator: In, values: [1]}}]}",
                "M0020 spec.podFailurePolicy.rules[0].action",
            ),
            ("successPolicy: {rules: [{succeededCount: 1}]}", ""),
            ("backoffLimitPerIndex: 1", "M0020 spec.backoffLimitPerIndex"),
            ("maxFailedIndexes: 1", "M0020 spec.maxFailedIndexes"),
            ("completionMode: Indexed, completions: 2, backoffLimitPerIndex: 1, maxFailedIndexes: 2", ""),
            (
                "completionMode: Indexed, completions: 2, backoffLimitPerIndex: 1, maxFailedIndexes: 3",
                "M0015 spec.maxFailedIndexes",
            ),
            ("managedBy: x", "M0031 spec.managedBy"),
            ("schedule: '* * * * *'", "M0012 spec.schedule"),
        ],
    );
    let restart = job("completions: 1");
    assert_eq!(errors(&restart.replace("Never", "Always")), ["M0014 spec.template.spec.restartPolicy"]);
    assert_eq!(errors(&restart.replace("restartPolicy: Never, ", "")), ["M0013 spec.template.spec.restartPolicy"]);
    let policy = "podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]}";
    assert_eq!(errors(&job(policy).replace("Never", "OnFailure")), ["M0020 spec.podFailurePolicy"]);
    check(
        cron,
        &[
            ("schedule: '*/5 * * * *', timeZone: Europe/Paris, concurrencyPolicy: Forbid, suspend: false", ""),
            (
                "schedule: '@daily', startingDeadlineSeconds: 60, successfulJobsHistoryLimit: 0, failedJobsHistoryLimit: 0",
                "",
            ),
            ("suspend: false", "M0013 spec.schedule"),
            ("schedule: '* * * *'", "M0024 spec.schedule"),
            ("schedule: '60 * * * *'", "M0024 spec.schedule"),
            ("schedule: 'TZ=UTC * * * * *'", "M0024 spec.schedule"),
            ("schedule: '* * * * *', timeZone: Mars/Base", "M0024 spec.timeZone"),
            ("schedule: '* * * * *', concurrencyPolicy: Never", "M0014 spec.concurrencyPolicy"),
            ("schedule: '* * * * *', restartPolicy: Never", "M0012 spec.restartPolicy"),
        ],
    );
}

#[test]
fn configuration() {
    let config = |fragment: &str| format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: c}}, {fragment}}}");
    check(
        config,
        &[
            ("data: {a: b, c.d_e-f: '', n: null}, immutable: true", ""),
            ("data: {80: x}", ""),
            ("data: {a: 1}", "M0011 data.a"),
            ("data: {a: true}", "M0011 data.a"),
            ("data: {a: {b: c}}", "M0011 data.a"),
            ("data: {'a/b': c}", "M0016 data[\"a/b\"]"),
            ("data: {..a: c}", "M0016 data[\"..a\"]"),
            ("binaryData: {a: aGk=}", ""),
            ("binaryData: {a: '!'}", "M0025 binaryData.a"),
            ("data: {a: b}, binaryData: {a: aGk=}", "M0018 binaryData.a"),
            ("data: [a]", "M0011 data"),
            ("spec: {}", "M0012 spec"),
        ],
    );
    let secret = |fragment: &str| format!("{{apiVersion: v1, kind: Secret, metadata: {{name: c}}, {fragment}}}");
    check(
        secret,
        &[
            ("data: {a: aGk=, b: '', c: null}", ""),
            ("stringData: {a: hi}, type: Opaque", ""),
            ("data: {a: hi!}", "M0025 data.a"),
            ("data: {a: aGk}", "M0025 data.a"),
            ("data: {a: 123}", "M0011 data.a"),
            ("stringData: {a: 123}", "M0011 stringData.a"),
            ("data: {'a b': aGk=}", "M0016 data.a b"),
            ("type: kubernetes.io/tls, stringData: {tls.crt: a, tls.key: b}", ""),
            ("type: kubernetes.io/tls, stringData: {tls.crt: a}", "M0013 data"),
            ("type: kubernetes.io/dockerconfigjson, stringData: {.dockerconfigjson: '{}'}", ""),
            (
                "type: kubernetes.io/dockerconfigjson, stringData: {.dockerconfigjson: '{'}",
                "M0014 stringData[\".dockerconfigjson\"]",
            ),
            ("type: kubernetes.io/dockerconfigjson, stringData: {x: z}", "M0013 data"),
            ("type: kubernetes.io/basic-auth, stringData: {username: a}", ""),
            ("type: kubernetes.io/ssh-auth", "M0013 data"),
        ],
    );
}

#[test]
fn services() {
    check(
        service,
        &[
            ("selector: {a: b}, ports: [{port: 80}]", ""),
            ("ports: [{port: 80, targetPort: http, name: http, protocol: TCP, appProtocol: http}]", ""),
            ("ports: [{port: 80, targetPort: '80'}]", "M0014 spec.ports[0].targetPort"),
            ("ports: [{port: 80, targetPort: 0}]", "M0015 spec.ports[0].targetPort"),
            ("ports: [{port: '80'}]", "M0011 spec.ports[0].port"),
            ("ports: [{targetPort: 80}]", "M0013 spec.ports[0].port"),
            ("ports: [{port: 1}, {port: 2}]", "M0013 spec.ports[0].name, M0013 spec.ports[1].name"),
            ("ports: [{port: 1, name: a}, {port: 2, name: a}]", "M0018 spec.ports[1].name"),
            ("ports: [{port: 1, name: a}, {port: 1, name: b}]", "M0018 spec.ports[1].port"),
            ("ports: [{port: 1, name: a}, {port: 1, name: b, protocol: UDP}]", ""),
            ("ports: [{port: 80, name: Http}]", "M0016 spec.ports[0].name"),
            ("selector: {a: b}", "M0013 spec.ports"),
            ("clusterIP: None, selector: {a: b}", ""),
            ("clusterIP: None, type: NodePort, ports: [{port: 1}]", "M0020 spec.clusterIP"),
            ("clusterIP: '', ports: [{port: 1}]", ""),
            ("clusterIP: 10.0.0.1, ports: [{port: 1}]", ""),
            ("clusterIP: nope, ports: [{port: 1}]", "M0014 spec.clusterIP"),
            ("type: NodePort, ports: [{port: 80, nodePort: 30080}]", ""),
            ("type: NodePort, ports: [{port: 80, nodePort: 80}]", "M0015 spec.ports[0].nodePort"),
            ("ports: [{port: 80, nodePort: 30080}]", "M0020 spec.ports[0].nodePort"),
            ("type: LoadBalancer, loadBalancerIP: 1.2.3.4, externalTrafficPolicy: Local, ports: [{port: 80}]", ""),
            ("externalTrafficPolicy: Local, ports: [{port: 80}]", "M0020 spec.externalTrafficPolicy"),
            ("type: ExternalName, externalName: example.org", ""),
            ("type: ExternalName", "M0013 spec.externalName"),
            ("type: nodeport, ports: [{port: 80}]", "M0014 spec.type"),
            (
                "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 9}}, ports: [{port: 80}]",
                "",
            ),
            ("sessionAffinity: clientip, ports: [{port: 80}]", "M0014 spec.sessionAffinity"),
            ("selector: {matchLabels: {a: b}}, ports: [{port: 80}]", "M0011 spec.selector.matchLabels"),
            ("selector: {a: 1}, ports: [{port: 80}]", "M0011 spec.selector.a"),
        ],
    );
}

#[test]
fn storage() {
    let claim = |fragment: &str| {
        format!("{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: c}}, spec: {{{fragment}}}}}")
    };
    check(
        claim,
        &[
            ("accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, storageClassName: fast", ""),
            ("accessModes: [ReadWriteOnce], resources: {requests: {storage: 100m}}, volumeMode: Filesystem", ""),
            ("resources: {requests: {storage: 1Gi}}", "M0013 spec.accessModes"),
            ("accessModes: [], resources: {requests: {storage: 1Gi}}", "M0013 spec.accessModes"),
            ("accessModes: ReadWriteOnce, resources: {requests: {storage: 1Gi}}", "M0011 spec.accessModes"),
            ("accessModes: [ReadWrite], resources: {requests: {storage: 1Gi}}", "M0014 spec.accessModes[0]"),
            ("accessModes: [ReadWriteOnce]", "M0013 spec.resources"),
            ("accessModes: [ReadWriteOnce], resources: {}", "M0013 spec.resources.requests"),
            ("accessModes: [ReadWriteOnce], resources: {requests: {cpu: 1}}", "M0013 spec.resources.requests.storage"),
            (
                "accessModes: [ReadWriteOnce], resources: {requests: {storage: 0}}",
                "M0015 spec.resources.requests.storage",
            ),
            (
                "accessModes: [ReadWriteOnce], resources: {requests: {storage: 1GB}}",
                "M0017 spec.resources.requests.storage",
            ),
            (
                "accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, volumeMode: Block",
                "M0035 spec.volumeMode",
            ),
        ],
    );
    let volume = |fragment: &str| {
        format!(
            "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: c}}, spec: {{capacity: {{storage: 1Gi}}, \
             accessModes: [ReadWriteOnce], {fragment}}}}}"
        )
    };
    check(
        volume,
        &[
            ("hostPath: {path: /a}, persistentVolumeReclaimPolicy: Retain, storageClassName: manual", ""),
            (
                "local: {path: /a}, nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}",
                "",
            ),
            ("local: {path: /a}", "M0013 spec.nodeAffinity"),
            ("nfs: {server: s, path: /}", "M0035 spec.nfs"),
            ("gcePersistentDisk: {pdName: a}", "M0035 spec.gcePersistentDisk"),
            ("persistentVolumeReclaimPolicy: Retain", "M0019 spec"),
            ("hostPath: {path: /a}, persistentVolumeReclaimPolicy: Keep", "M0014 spec.persistentVolumeReclaimPolicy"),
        ],
    );
}

#[test]
fn syntax() {
    check(
        document,
        &[
            (
                "kind: Pod\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: x}]}\n",
                "M0004 -",
            ),
            ("kind: Pod\n\tapiVersion: v1\n", "M0001 -"),
            ("apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n   namespace: n\n", "M0001 -"),
            ("{{ if .Values.x }}\napiVersion: v1\nkind: Pod\n{{ end }}\n", "M0007 -"),
            ("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Release.Name }}-web\n", "M0007 -"),
            ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  t: |\n    {{ .x }}\n", ""),
            ("# only a comment\n---\n---\n", ""),
            ("", ""),
            ("\u{feff}apiVersion: v1\r\nkind: Namespace\r\nmetadata:\r\n  name: ns\r\n", ""),
            ("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: !!int n\n", "M0008 -, M0013 metadata.name"),
            ("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: !env n\n", "M0008 metadata.name"),
            ("- apiVersion: v1\n  kind: Namespace\n", ""),
            ("replicaCount: 1\nimage: {tag: x}\n", ""),
            ("{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"n\"}}", ""),
            ("{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"n\",}}", "M0001 -"),
        ],
    );
}
