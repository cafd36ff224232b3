//! What podman was told: it keeps the command line of a container. Some of it is about podman itself or about the
//! directory and the variables of whoever typed it; that is taken from what came of it.

mod mounts;

use serde_json::Value;
use spec::manifest::compose::convert::RunLine;

use super::container::{list, refused_option, text};
use super::{docker, health};

/// Without a meaning for a service: what starts and ends containers is mainstay.
const SILENT: [&str; 7] = ["cidfile", "detach", "log-driver", "name", "quiet", "restart", "rm"];

/// These take several values at once.
const SEVERAL: [&str; 8] = ["add-host", "cap-add", "cap-drop", "device", "group-add", "publish", "sysctl", "env-file"];

/// The flags of a container; `None` where podman keeps no command line, or one that is not understood.
pub(super) fn line(name: &str, inspected: &Value, notes: &mut Vec<String>) -> Option<RunLine> {
    let typed = list(&inspected["Config"]["CreateCommand"]);
    let at = typed.iter().position(|word| *word == "run" || *word == "create")?;
    let words: Vec<String> = ["podman"].iter().chain(typed.iter().skip(at)).map(|word| (*word).to_owned()).collect();
    let mut given = match RunLine::parse(&words) {
        Ok(given) => given,
        Err(error) => {
            notes.push(format!("`{name}` is written from its settings, not from its command line: {error}"));
            return None;
        }
    };
    let flags = std::mem::take(&mut given.flags);
    let mut typed = Typed { name, inspected, line: given, notes };
    typed.restart(&flags);
    typed.health(&flags);
    for (flag, value) in &flags {
        if SEVERAL.contains(flag) {
            value.split(',').for_each(|value| typed.flag(flag, value));
        } else {
            typed.flag(flag, value);
        }
    }
    typed.image();
    typed.env_files(&flags);
    typed.rest_of_mounts(&flags);
    Some(typed.line)
}

/// A command line, and what was made of it so far.
struct Typed<'a> {
    name: &'a str,
    inspected: &'a Value,
    line: RunLine,
    notes: &'a mut Vec<String>,
}

impl Typed<'_> {
    fn push(&mut self, flag: &'static str, value: impl Into<String>) {
        self.line.flags.push((flag, value.into()));
    }

    fn lost(&mut self, what: &str, why: &str) {
        self.notes.push(format!("`{what}` of `{}` was left out: {why}", self.name));
    }

    /// Units of systemd restart by themselves, so that there is no `--restart`.
    fn restart(&mut self, flags: &[(&'static str, String)]) {
        let name = self.name;
        if let Some((flag, value)) = flags.iter().rfind(|(flag, _)| *flag == "restart") {
            return self.push(flag, value);
        }
        let split = flags.iter().any(|(flag, value)| *flag == "cgroups" && value == "split");
        let label = text(&self.inspected["Config"]["Labels"]["PODMAN_SYSTEMD_UNIT"]);
        let unit = if label.is_empty() { "a unit of systemd".to_owned() } else { format!("`{label}`") };
        // A unit waits for the word of a program that stays; one that runs to its end has no such flag.
        let waits = |value: &str| matches!(value, "conmon" | "container" | "healthy") || !label.is_empty();
        if flags.iter().any(|(flag, value)| *flag == "sdnotify" && waits(value)) {
            self.push("restart", "unless-stopped");
            self.notes.push(format!(
                "restarts of `{name}` are up to {unit}: `restart: unless-stopped` was written, change it if `Restart=` says otherwise"
            ));
        } else if split || !label.is_empty() {
            self.notes.push(format!("restarts of `{name}` are up to {unit}: write `restart:` if it has `Restart=`"));
        }
    }

    /// As podman understood it: it takes lists, words before the command and numbers without a unit.
    fn health(&mut self, flags: &[(&'static str, String)]) {
        let check = &self.inspected["Config"]["Healthcheck"];
        if flags.iter().any(|(flag, _)| health::is_flag(flag)) {
            self.line.flags.extend(health::flags(check));
        }
        let disabled = |(flag, value): &(&str, String)| flag.ends_with("-interval") && value == "disable";
        if flags.iter().any(disabled) {
            self.lost("--health-interval disable", "podman made no check by itself; here there is one each 30 s");
        }
    }

    fn flag(&mut self, flag: &'static str, value: &str) {
        let check = &self.inspected["Config"]["Healthcheck"];
        match flag {
            _ if SILENT.contains(&flag) => {}
            _ if health::is_flag(flag) && health::is_known(check) => {}
            // Its note is there already.
            "pod" if !text(&self.inspected["Pod"]).is_empty() => {}
            "env" if value.contains('=') => self.push(flag, value),
            "env" | "env-merge" => self.variables(value.split('=').next().unwrap_or_default()),
            // podman takes a file as it is: quotes stay, `$` are no variables. What came of it is known.
            "env-file" => {}
            "volume" => self.volume(value),
            "mount" => self.mount(value),
            "network" | "net" => self.network(value),
            "entrypoint" => match serde_json::from_str::<Vec<String>>(value) {
                Ok(words) => {
                    let mut words = words.into_iter();
                    self.push(flag, words.next().unwrap_or_default());
                    self.line.command.splice(0..0, words);
                }
                Err(_) => self.push(flag, value),
            },
            "pull" if value == "newer" => self.push(flag, "always"),
            "security-opt" if value.eq_ignore_ascii_case("unmask=all") => self.push(flag, "systempaths=unconfined"),
            "volume-driver" if value == "local" => {}
            "security-opt" => match refused_option(value) {
                None => self.push(flag, value),
                Some(why) => self.lost(&format!("--security-opt {value}"), why),
            },
            "userns" | "uts" | "pid" | "ipc" | "cgroupns" if value == "host" => self.push(flag, value),
            "userns" | "uts" | "pid" | "ipc" | "cgroupns" if matches!(value, "" | "private" | "shareable") => {}
            "userns" | "uts" | "pid" | "ipc" | "cgroupns" => {
                self.lost(&format!("--{flag} {value}"), "namespaces are the container's own or the host's");
            }
            "label-file" if !value.starts_with('/') => {
                self.lost(&format!("--label-file {value}"), "podman was run in a directory that is not known");
            }
            _ => self.push(flag, value),
        }
    }

    /// podman takes the values of variables without one from the shell it was started by.
    fn variables(&mut self, name: &str) {
        let prefix = name.strip_suffix('*');
        for pair in list(&self.inspected["Config"]["Env"]) {
            let found = pair.split('=').next().unwrap_or_default();
            if found == name || prefix.is_some_and(|prefix| found.starts_with(prefix)) {
                self.push("env", pair);
            }
        }
    }

    /// What came of files with variables.
    fn env_files(&mut self, flags: &[(&'static str, String)]) {
        let files = flags.iter().filter(|(flag, _)| *flag == "env-file").map(|(_, value)| value.as_str());
        let files = files.collect::<Vec<_>>().join(",");
        if files.is_empty() {
            return;
        }
        let set: Vec<String> =
            self.line.flags.iter().filter(|(flag, _)| *flag == "env").map(|(_, v)| v.clone()).collect();
        for pair in docker::chosen_variables(self.inspected) {
            let key = pair.split('=').next();
            if !set.iter().any(|other| other.split('=').next() == key) {
                self.push("env", pair);
            }
        }
        let name = self.name;
        self.notes.push(format!("variables of `{files}` are written out for `{name}`, with those of its image"));
    }

    /// podman looks short names up in registries of its own.
    fn image(&mut self) {
        let (typed, found) = (&self.line.image, text(&self.inspected["ImageName"]));
        if found.ends_with(&format!("/{typed}")) || found.ends_with(&format!("/{typed}:latest")) {
            self.line.image = found.to_owned();
        }
    }

    /// `NAME:alias=web,ip=10.0.0.5`
    fn network(&mut self, value: &str) {
        let (network, options) = value.split_once(':').unwrap_or((value, ""));
        match network {
            "container" => return self.push("network", value),
            "host" | "none" => return self.push("network", network),
            "" | "default" | "bridge" | "private" | "podman" if options.is_empty() => return,
            "slirp4netns" | "pasta" if options.is_empty() => return,
            "bridge" | "private" | "podman" | "slirp4netns" | "pasta" | "ns" => {
                return self.lost(&format!("--network {value}"), "write the network under `networks`");
            }
            _ => {}
        }
        if options.is_empty() {
            return self.push("network", network);
        }
        let options = options.replace("mac=", "mac-address=");
        self.push("network", format!("name={network},{options}"));
    }
}
