//! Manifests for tests: JSON values that a test changes by key, and YAML text where lines and columns matter.

use serde_json::{Value, json};

/// A Pod with one container `main` that ends quickly when told to. JSON is what the tests write it as.
pub fn pod(name: &str, image: &str, arguments: &[&str]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "containers": [{"name": "main", "image": image, "args": arguments}],
        },
    })
}

/// A Deployment of the same.
pub fn deployment(name: &str, replicas: u32, image: &str, arguments: &[&str]) -> Value {
    let pod = pod(name, image, arguments);
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod["spec"]},
        },
    })
}

/// A Pod in YAML that serves a message on a port of the host.
pub fn web(name: &str, image: &str, message: &str, host_port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {name}
spec:
  terminationGracePeriodSeconds: 5
  containers:
    - name: main
      image: {image}
      args: [serve]
      env:
        - name: MESSAGE
          value: {message}
      ports:
        - containerPort: 8080
          hostPort: {host_port}
"
    )
}

/// A Deployment as people write it, a document of a file of many: probes, resources, variables, a volume.
pub fn typical(number: u32) -> String {
    format!(
        "---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: app-{number}
  labels: {{app: app-{number}, tier: web}}
spec:
  replicas: 2
  selector:
    matchLabels: {{app: app-{number}}}
  template:
    metadata:
      labels: {{app: app-{number}, tier: web}}
    spec:
      containers:
        - name: main
          image: registry.example/team/app-{number}:1.2.3
          args: [serve, --port, '8080']
          env:
            - name: MODE
              value: production
            - name: NAME
              valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}
          ports:
            - containerPort: 8080
          readinessProbe:
            httpGet: {{path: /healthz, port: 8080}}
          resources:
            requests: {{cpu: 100m, memory: 64Mi}}
            limits: {{memory: 128Mi}}
          volumeMounts:
            - name: scratch
              mountPath: /scratch
      volumes:
        - name: scratch
          emptyDir: {{}}
"
    )
}
