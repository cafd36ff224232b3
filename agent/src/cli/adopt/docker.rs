//! From the fields of `docker inspect` to flags; also those of `podman inspect` for containers that were made over its
//! interface, without a command line.

use serde_json::Value;
use spec::manifest::compose::convert::RunLine;

use super::container::{elements, list, pairs, refused_option, text};
use super::{limits, mounts};

/// What most images and podman set: writing it down says nothing.
const USUAL_PATHS: [&str; 2] = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin",
];

/// What podman adds to the variables of every container; Docker lists none of its own.
const ADDED_BY_PODMAN: [&str; 5] = ["container=podman", "container=oci", "TERM=xterm", "HOME=/root", "HOME=/"];

pub(super) fn line(name: &str, inspected: &Value, notes: &mut Vec<String>) -> RunLine {
    let line = RunLine::default();
    let mut fields =
        Fields { name, inspected, config: &inspected["Config"], host: &inspected["HostConfig"], line, notes };
    fields.process();
    fields.variables();
    fields.ports();
    fields.mounts();
    fields.networks();
    fields.settings();
    fields.logs();
    for (flag, value) in super::health::flags(&inspected["Config"]["Healthcheck"]) {
        fields.flag(flag, value);
    }
    limits::read(&mut fields);
    fields.line
}

/// Whether podman said this.
pub(super) fn is_podman(inspected: &Value) -> bool {
    inspected["ImageName"].is_string()
}

/// Variables that somebody has chosen: the user, or who made the image.
pub(super) fn chosen_variables(inspected: &Value) -> Vec<&str> {
    let config = &inspected["Config"];
    let hostname = format!("HOSTNAME={}", text(&config["Hostname"]));
    let added = |pair: &str| is_podman(inspected) && (ADDED_BY_PODMAN.contains(&pair) || pair == hostname);
    list(&config["Env"]).into_iter().filter(|pair| !USUAL_PATHS.contains(pair) && !added(pair)).collect()
}

/// A container, and what was made of it so far.
pub(super) struct Fields<'a> {
    pub(super) name: &'a str,
    pub(super) inspected: &'a Value,
    config: &'a Value,
    pub(super) host: &'a Value,
    line: RunLine,
    notes: &'a mut Vec<String>,
}

impl Fields<'_> {
    pub(super) fn flag(&mut self, flag: &'static str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.line.flags.push((flag, value));
        }
    }

    pub(super) fn lost(&mut self, field: &str, why: &str) {
        self.notes.push(format!("`{field}` of `{}` was left out: {why}", self.name));
    }

    fn process(&mut self) {
        let (config, inspected) = (self.config, self.inspected);
        self.line.image = text(&config["Image"]).to_owned();
        let entrypoint = list(&config["Entrypoint"]);
        if let Some(first) = entrypoint.first() {
            self.flag("entrypoint", *first);
            let rest = entrypoint.iter().skip(1).chain(&list(&config["Cmd"])).map(|word| (*word).to_owned()).collect();
            self.line.command = rest;
        } else if text(&inspected["Path"]).is_empty() {
            self.line.command = list(&config["Cmd"]).into_iter().map(str::to_owned).collect();
        } else if !text(&config["Entrypoint"]).is_empty() || !list(&config["Cmd"]).is_empty() {
            // The image may have an entrypoint that was taken away. Before version 5 podman joins the words. What starts
            // is here; podman puts its own init before it.
            let mut words: Vec<&str> = list(&inspected["Args"]);
            words.insert(0, text(&inspected["Path"]));
            if self.host["Init"] == true && words.get(1) == Some(&"--") {
                words.drain(..2);
            }
            let mut words = words.into_iter();
            self.flag("entrypoint", words.next().unwrap_or_default());
            self.line.command = words.map(str::to_owned).collect();
        }
        let restart = text(&self.host["RestartPolicy"]["Name"]);
        match self.host["RestartPolicy"]["MaximumRetryCount"].as_u64().unwrap_or(0) {
            0 => self.flag("restart", restart),
            tries => self.flag("restart", format!("{restart}:{tries}")),
        }
        self.flag("user", text(&config["User"]));
        self.flag("workdir", text(&config["WorkingDir"]));
        let hostname = text(&config["Hostname"]);
        if text(&self.host["NetworkMode"]) != "host" && !text(&inspected["Id"]).starts_with(hostname) {
            self.flag("hostname", hostname);
        }
        self.flag("domainname", text(&config["Domainname"]));
        self.flag("mac-address", text(&config["MacAddress"]));
        self.flag("stop-signal", text(&config["StopSignal"]));
        if let Some(seconds) = config["StopTimeout"].as_i64().filter(|seconds| *seconds >= 0) {
            self.flag("stop-timeout", seconds.to_string());
        }
        if config["NetworkDisabled"] == true {
            self.lost("NetworkDisabled", "write `network_mode: none`");
        }
    }

    fn variables(&mut self) {
        let chosen = chosen_variables(self.inspected);
        for pair in &chosen {
            self.flag("env", *pair);
        }
        if !chosen.is_empty() {
            let name = self.name;
            self.notes.push(format!("variables of `{name}` that its image sets are written, too: take those out"));
        }
        for (key, value) in pairs(&self.config["Labels"]) {
            self.flag("label", format!("{key}={}", text(value)));
        }
        for (key, value) in pairs(&self.host["Annotations"]) {
            self.flag("annotation", format!("{key}={}", text(value)));
        }
    }

    fn ports(&mut self) {
        for (port, bindings) in pairs(&self.host["PortBindings"]) {
            for binding in elements(bindings) {
                let (ip, of_host) = (text(&binding["HostIp"]), text(&binding["HostPort"]));
                if of_host.is_empty() {
                    let name = self.name;
                    self.notes.push(format!("port {port} of `{name}` was published on any free port: name one"));
                } else if matches!(ip, "" | "0.0.0.0" | "::") {
                    self.flag("publish", format!("{of_host}:{port}"));
                } else {
                    let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
                    self.flag("publish", format!("{ip}:{of_host}:{port}"));
                }
            }
        }
        if self.host["PublishAllPorts"] == true {
            self.lost("PublishAllPorts", "name its ports with `ports:`");
        }
    }

    fn mounts(&mut self) {
        for mount in elements(&self.inspected["Mounts"]) {
            self.line.flags.extend(mounts::flag(mount, self.host, self.name, self.notes));
        }
        for (target, options) in pairs(&self.host["Tmpfs"]) {
            // Those of podman that are no options of a mount.
            let options: Vec<&str> = text(options)
                .split(',')
                .filter(|option| !matches!(*option, "" | "rprivate" | "private" | "tmpcopyup" | "notmpcopyup"))
                .collect();
            let options = options.join(",");
            self.flag("tmpfs", if options.is_empty() { target.clone() } else { format!("{target}:{options}") });
        }
    }

    fn settings(&mut self) {
        for (flag, field) in [
            ("cap-add", "CapAdd"),
            ("cap-drop", "CapDrop"),
            ("dns", "Dns"),
            ("dns-search", "DnsSearch"),
            ("dns-option", "DnsOptions"),
            ("add-host", "ExtraHosts"),
            ("group-add", "GroupAdd"),
        ] {
            list(&self.host[field]).into_iter().for_each(|value| self.flag(flag, value));
        }
        for option in list(&self.host["SecurityOpt"]) {
            match refused_option(option) {
                None => self.flag("security-opt", option),
                // Docker adds it by itself.
                Some(_) if self.host["Privileged"] == true && option.replace(':', "=") == "label=disable" => {}
                Some(why) => self.lost("SecurityOpt", why),
            }
        }
        let none = |field: &str| self.host[field].as_array().is_some_and(Vec::is_empty);
        if self.host["Privileged"] != true && none("MaskedPaths") && none("ReadonlyPaths") {
            self.flag("security-opt", "systempaths=unconfined");
        }
        for (key, value) in pairs(&self.host["Sysctls"]) {
            self.flag("sysctl", format!("{key}={}", text(value)));
        }
        for (flag, on) in [
            ("privileged", &self.host["Privileged"]),
            ("read-only", &self.host["ReadonlyRootfs"]),
            ("init", &self.host["Init"]),
            ("tty", &self.config["Tty"]),
            ("interactive", &self.config["OpenStdin"]),
        ] {
            if *on == true {
                self.flag(flag, "true");
            }
        }
    }

    fn logs(&mut self) {
        let log = &self.host["LogConfig"];
        match text(&log["Type"]) {
            "none" => self.flag("log-driver", "none"),
            "" | "json-file" | "local" | "k8s-file" => {}
            "journald" | "passthrough" if is_podman(self.inspected) => {}
            other => self.lost("LogConfig", &format!("logs are kept in files, not by `{other}`")),
        }
        for (option, value) in pairs(&log["Config"]) {
            match option.as_str() {
                "max-size" | "max-file" => self.flag("log-opt", format!("{option}={}", text(value))),
                "compress" | "mode" | "max-buffer-size" => {}
                other => self.lost("LogConfig", &format!("there is no option `{other}`")),
            }
        }
    }
}
