//! From what `docker inspect` or `podman inspect` says of a container to the words of the `docker run` that makes it
//! again. Pure: the words go to the same converter as those of `mainstay convert`.

use serde_json::Value;

/// A container that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its name.
    pub(super) name: String,
    /// `docker run ...`.
    pub(super) words: Vec<String>,
    /// What could not be carried over.
    pub(super) notes: Vec<String>,
}

/// Variables that the engine sets itself.
const OF_THE_ENGINE: [&str; 5] = ["PATH", "HOSTNAME", "TERM", "container", "HOME"];

/// Whether a container is meant by this name, id or beginning of its id.
pub(super) fn is_called(inspected: &Value, name: &str) -> bool {
    let id = text(&inspected["Id"]);
    text(&inspected["Name"]).trim_start_matches('/') == name || (!name.is_empty() && id.starts_with(name))
}

/// The words for one element of the list; `None` for what is no container of its own.
pub(super) fn container(inspected: &Value) -> Option<Found> {
    let name = text(&inspected["Name"]).trim_start_matches('/').to_owned();
    // The container that holds a pod's namespaces.
    if name.is_empty() || inspected["IsInfra"] == true {
        return None;
    }
    let mut notes = Vec::new();
    if !text(&inspected["Pod"]).is_empty() {
        notes.push(format!("`{name}` belongs to a pod of podman: `podman kube generate` writes it as a Pod"));
    }
    if text(&inspected["State"]["Status"]) == "exited" {
        notes.push(format!("`{name}` does not run now"));
    }
    // podman keeps what was typed: nothing is closer to what was meant.
    let typed = list(&inspected["Config"]["CreateCommand"]);
    let words = match typed.iter().position(|word| *word == "run" || *word == "create") {
        Some(at) => {
            let given = typed.iter().skip(at + 1).map(|word| (*word).to_owned());
            let named = typed.iter().any(|word| *word == "--name" || word.starts_with("--name="));
            let name = (!named).then(|| format!("--name={name}"));
            ["docker".to_owned(), "run".to_owned()].into_iter().chain(name).chain(given).collect()
        }
        None => of_fields(&name, inspected, &mut notes),
    };
    Some(Found { name, words, notes })
}

fn of_fields(name: &str, inspected: &Value, notes: &mut Vec<String>) -> Vec<String> {
    let (config, host) = (&inspected["Config"], &inspected["HostConfig"]);
    let mut words: Vec<String> = ["docker", "run", "--name", name].map(str::to_owned).into();
    let mut flag = |name: &str, value: &str| {
        if !value.is_empty() {
            words.push(format!("--{name}={value}"));
        }
    };
    let restart = text(&host["RestartPolicy"]["Name"]);
    match host["RestartPolicy"]["MaximumRetryCount"].as_u64().unwrap_or(0) {
        0 => flag("restart", restart),
        tries => flag("restart", &format!("{restart}:{tries}")),
    }
    flag("user", text(&config["User"]));
    flag("workdir", text(&config["WorkingDir"]));
    let id = text(&inspected["Id"]);
    let hostname = text(&config["Hostname"]);
    if text(&host["NetworkMode"]) != "host" && !id.starts_with(hostname) {
        flag("hostname", hostname);
    }
    for pair in list(&config["Env"]) {
        if !OF_THE_ENGINE.contains(&pair.split('=').next().unwrap_or_default()) {
            flag("env", pair);
        }
    }
    for (key, value) in config["Labels"].as_object().into_iter().flatten() {
        // Those of the image and of Compose say nothing to whoever reads the manifest.
        if !key.starts_with("com.docker.compose.") && !key.starts_with("org.opencontainers.image.") {
            flag("label", &format!("{key}={}", text(value)));
        }
    }
    for (port, bindings) in host["PortBindings"].as_object().into_iter().flatten() {
        for binding in bindings.as_array().into_iter().flatten() {
            let (ip, of_host) = (text(&binding["HostIp"]), text(&binding["HostPort"]));
            if of_host.is_empty() {
                notes.push(format!("port {port} of `{name}` was published on any free port: name one"));
            } else if matches!(ip, "" | "0.0.0.0" | "::") {
                flag("publish", &format!("{of_host}:{port}"));
            } else {
                let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
                flag("publish", &format!("{ip}:{of_host}:{port}"));
            }
        }
    }
    for mount in inspected["Mounts"].as_array().into_iter().flatten() {
        let (target, source) = (text(&mount["Destination"]), text(&mount["Source"]));
        let mode = if mount["RW"] == false { ":ro" } else { "" };
        match text(&mount["Type"]) {
            "bind" => flag("volume", &format!("{source}:{target}{mode}")),
            "volume" => {
                let volume = text(&mount["Name"]);
                notes.push(format!(
                    "volume `{volume}` of `{name}` begins empty: its data is in {source}, copy it before the first start"
                ));
                flag("volume", &format!("{volume}:{target}{mode}"));
            }
            "tmpfs" => flag("tmpfs", target),
            other => notes.push(format!("the mount of type `{other}` at {target} of `{name}` was left out")),
        }
    }
    for (target, options) in host["Tmpfs"].as_object().into_iter().flatten() {
        let options = text(options);
        flag("tmpfs", &if options.is_empty() { target.clone() } else { format!("{target}:{options}") });
    }
    match text(&host["NetworkMode"]) {
        "" | "default" | "bridge" => {}
        network => flag("network", network),
    }
    for (key, field) in [
        ("cap-add", "CapAdd"),
        ("cap-drop", "CapDrop"),
        ("dns", "Dns"),
        ("dns-search", "DnsSearch"),
        ("add-host", "ExtraHosts"),
        ("security-opt", "SecurityOpt"),
        ("group-add", "GroupAdd"),
    ] {
        list(&host[field]).into_iter().for_each(|value| flag(key, value));
    }
    for (key, value) in host["Sysctls"].as_object().into_iter().flatten() {
        flag("sysctl", &format!("{key}={}", text(value)));
    }
    for device in host["Devices"].as_array().into_iter().flatten() {
        let (from, to) = (text(&device["PathOnHost"]), text(&device["PathInContainer"]));
        flag("device", &format!("{from}:{to}:{}", text(&device["CgroupPermissions"])));
    }
    for limit in host["Ulimits"].as_array().into_iter().flatten() {
        let number = |field: &str| limit[field].as_i64().unwrap_or(-1);
        flag("ulimit", &format!("{}={}:{}", text(&limit["Name"]), number("Soft"), number("Hard")));
    }
    let number = |field: &str| host[field].as_i64().filter(|number| *number > 0);
    if let Some(bytes) = number("Memory") {
        flag("memory", &format!("{bytes}b"));
    }
    if let Some(nano) = number("NanoCpus") {
        flag("cpus", &format!("{}.{:03}", nano / 1_000_000_000, nano % 1_000_000_000 / 1_000_000));
    }
    if let Some(limit) = number("PidsLimit") {
        flag("pids-limit", &limit.to_string());
    }
    // 64 MiB is what one gets without asking.
    if let Some(bytes) = number("ShmSize").filter(|bytes| *bytes != 64 << 20) {
        flag("shm-size", &format!("{bytes}b"));
    }
    for (key, on) in [
        ("privileged", &host["Privileged"]),
        ("read-only", &host["ReadonlyRootfs"]),
        ("init", &host["Init"]),
        ("tty", &config["Tty"]),
        ("interactive", &config["OpenStdin"]),
    ] {
        if *on == true {
            flag(key, "true");
        }
    }
    for (key, field) in [("ipc", "IpcMode"), ("pid", "PidMode")] {
        if text(&host[field]) == "host" {
            flag(key, "host");
        }
    }
    if let Some(signal) = config["StopSignal"].as_str() {
        flag("stop-signal", signal);
    }
    if let Some(seconds) = config["StopTimeout"].as_i64().filter(|seconds| *seconds >= 0) {
        flag("stop-timeout", &seconds.to_string());
    }
    health(&config["Healthcheck"], &mut flag, name, notes);
    let entrypoint = list(&config["Entrypoint"]);
    if let Some(first) = entrypoint.first() {
        flag("entrypoint", first);
    }
    words.push(text(&config["Image"]).to_owned());
    words.extend(entrypoint.iter().skip(1).chain(&list(&config["Cmd"])).map(|word| (*word).to_owned()));
    words
}

fn health(check: &Value, flag: &mut impl FnMut(&str, &str), name: &str, notes: &mut Vec<String>) {
    match list(&check["Test"]).as_slice() {
        [] => return,
        ["NONE"] => return flag("no-healthcheck", "true"),
        ["CMD-SHELL", command] => flag("health-cmd", command),
        _ => {
            notes.push(format!("the healthcheck of `{name}` runs without a shell: write it as `test: [CMD, ...]`"));
            return;
        }
    }
    for (key, field) in
        [("health-interval", "Interval"), ("health-timeout", "Timeout"), ("health-start-period", "StartPeriod")]
    {
        if let Some(nano) = check[field].as_u64().filter(|nano| *nano > 0) {
            flag(key, &format!("{}ms", nano / 1_000_000));
        }
    }
    if let Some(tries) = check["Retries"].as_u64().filter(|tries| *tries > 0) {
        flag("health-retries", &tries.to_string());
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
