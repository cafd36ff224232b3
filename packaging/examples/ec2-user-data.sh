#!/bin/sh
# User data for an EC2 machine without cloud-init's YAML: the tarball, on any distribution with systemd.
set -eu
curl -fsSL https://packages.example.com/mainstay-0.1.0-x86_64-linux.tar.gz | tar -xz -C /tmp
/tmp/mainstay-0.1.0-x86_64-linux/install
# Images of ECR are pulled with the role of the instance: nothing to log in.
cat >/etc/mainstay/manifests/web.yaml <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
    - name: web
      image: mainstay.local/web:1
      ports: [{containerPort: 8080, hostPort: 80}]
EOF
mainstay status --wait 5m
