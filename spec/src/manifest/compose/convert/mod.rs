//! A `docker run` command line as a Compose file.
//!
//! Every flag either becomes a field, has no meaning for a service (and a note says so where it matters), or is an
//! error. The text is Compose and goes through the same loader and checks as any other file.

mod flags;
mod line;
mod objects;
mod words;
mod yaml;

pub use self::line::{RunLine, RunNetwork};
pub use self::objects::{ConvertedProject, objects};

use self::flags::{Flag, Kind};
use self::yaml::Yaml;

/// Why a command line cannot be converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// It is not `docker run ...`.
    #[error("this is not a `docker run` command")]
    NotRun,
    /// A quote, brace or parenthesis without its second.
    #[error("a quote is not closed")]
    OpenQuote,
    /// Another command's output is needed.
    #[error("the output of `{0}` is not known: write the value itself")]
    Substitution(String),
    /// Pipes and the like.
    #[error("`{0}` joins several commands: give one `docker run` only")]
    ShellSyntax(char),
    /// A flag that does not exist.
    #[error("`{flag}` is not a flag of `docker run`{}", did_you_mean(suggestion))]
    UnknownFlag {
        /// As written.
        flag: String,
        /// The one that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// A flag at the end that needs a value.
    #[error("`{0}` needs a value")]
    NoValue(String),
    /// A value of a wrong form.
    #[error("`{value}` is not a value of `{flag}`: {reason}")]
    BadValue {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// A flag that nothing corresponds to.
    #[error("`{flag}` cannot be converted: {reason}")]
    Refused {
        /// The flag.
        flag: String,
        /// Why.
        reason: &'static str,
    },
    /// There is no image.
    #[error("the image is missing")]
    NoImage,
}

fn did_you_mean(suggestion: &Option<&'static str>) -> String {
    suggestion.map_or(String::new(), |flag| format!("; did you mean `--{flag}`?"))
}

/// A converted command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// Name of the service.
    pub name: String,
    /// The Compose file.
    pub text: String,
    /// What is different now, one line each.
    pub notes: Vec<String>,
}

/// Converts a command line as it is written in a shell.
pub fn docker_run(line: &str) -> Result<Converted, ConvertError> {
    docker_run_words(&words::split(line)?)
}

/// Converts the words of a command line; `$` in them are Compose variables.
pub fn docker_run_words(words: &[String]) -> Result<Converted, ConvertError> {
    RunLine::parse(words)?.convert()
}

/// What was read so far.
struct Run {
    service: Yaml,
    name: Option<String>,
    entrypoint: Option<String>,
    /// Networks, each with its own options.
    networks: Vec<(String, Yaml)>,
    /// Options without a network: of the first one, as with Docker.
    network: Yaml,
    volumes: Vec<String>,
    notes: Vec<String>,
    remove: bool,
}

impl Run {
    fn new() -> Self {
        let empty = || Yaml::Map(Vec::new());
        Self {
            service: empty(),
            name: None,
            entrypoint: None,
            networks: Vec::new(),
            network: empty(),
            volumes: Vec::new(),
            notes: Vec::new(),
            remove: false,
        }
    }

    fn flag(&mut self, flag: &'static Flag, value: &str) -> Result<(), ConvertError> {
        let text = || Yaml::Str(value.to_owned());
        let bad = |reason: &str| ConvertError::BadValue {
            flag: format!("--{}", flag.long),
            value: value.to_owned(),
            reason: reason.to_owned(),
        };
        match flag.kind {
            Kind::NoValue | Kind::Dropped => match flag.long {
                "rm" => self.remove = true,
                "publish-all" => self.notes.push("`-P` publishes nothing: name the ports with `ports:`".to_owned()),
                "cidfile" => self.notes.push("`--cidfile` has no meaning for a service".to_owned()),
                _ => {}
            },
            Kind::Bool(path) => match value {
                "true" => self.put(path, Yaml::Plain("true".to_owned())),
                "false" => self.put(path, Yaml::Plain("false".to_owned())),
                _ => return Err(bad("it is true or false")),
            },
            Kind::Text(path) => self.put(path, text()),
            Kind::Number(path) => {
                value.parse::<f64>().map_err(|_| bad("it is a number"))?;
                self.put(path, Yaml::Plain(value.to_owned()));
            }
            Kind::List(key) => self.service.push(key, text()),
            Kind::Pair(path) => {
                let (key, value) = value.split_once('=').ok_or_else(|| bad("it is KEY=VALUE"))?;
                let map = path.split('.').fold(&mut self.service, |at, key| at.slot(key));
                map.set(key, Yaml::Str(value.to_owned()));
            }
            Kind::Refused(reason) => {
                return Err(ConvertError::Refused { flag: format!("--{}", flag.long), reason });
            }
            Kind::Lost(reason) => self.notes.push(format!("`--{} {value}` was left out: {reason}", flag.long)),
            Kind::LostSwitch(_) if value == "false" => {}
            Kind::LostSwitch(reason) => self.notes.push(format!("`--{}` was left out: {reason}", flag.long)),
            Kind::Own => return self.own(flag.long, value, &bad),
        }
        Ok(())
    }

    fn put(&mut self, path: &str, value: Yaml) {
        let slot = path.split('.').fold(&mut self.service, |at, key| at.slot(key));
        *slot = value;
    }

    fn own(&mut self, flag: &str, value: &str, bad: &dyn Fn(&str) -> ConvertError) -> Result<(), ConvertError> {
        match flag {
            "name" => self.name = Some(value.to_owned()),
            "entrypoint" => self.entrypoint = Some(value.to_owned()),
            // podman takes a list as well; nobody means one as a command of the shell.
            "health-cmd" | "healthcheck-command" => {
                let test = match serde_json::from_str::<Vec<String>>(value) {
                    Ok(words) => Yaml::List(words.into_iter().map(Yaml::Str).collect()),
                    Err(_) => Yaml::Str(value.to_owned()),
                };
                self.put("healthcheck.test", test);
            }
            "tz" if value == "local" => {
                self.notes.push("`--tz local` was left out: name the zone with `TZ` in `environment`".to_owned());
            }
            "tz" => self.service.push("environment", Yaml::Str(format!("TZ={value}"))),
            "cpus" => {
                value.parse::<f64>().map_err(|_| bad("it is a number"))?;
                self.put("cpus", Yaml::Plain(value.to_owned()));
            }
            "stop-timeout" => {
                let seconds: u32 = value.parse().map_err(|_| bad("it is a number of seconds"))?;
                self.put("stop_grace_period", Yaml::Str(format!("{seconds}s")));
            }
            "ulimit" => {
                let (name, limits) = value.split_once('=').ok_or_else(|| bad("it is NAME=SOFT[:HARD]"))?;
                let number = |text: &str| text.parse::<i64>().map_err(|_| bad("it is NAME=SOFT[:HARD]"));
                let limit = match limits.split_once(':') {
                    None => Yaml::Plain(number(limits)?.to_string()),
                    Some((soft, hard)) => Yaml::Map(vec![
                        ("soft".to_owned(), Yaml::Plain(number(soft)?.to_string())),
                        ("hard".to_owned(), Yaml::Plain(number(hard)?.to_string())),
                    ]),
                };
                self.service.slot("ulimits").set(name, limit);
            }
            "gpus" => self.gpus(value, bad)?,
            "volume" => {
                let parts: Vec<&str> = value.split(':').collect();
                if let [source, _, ..] = parts.as_slice()
                    && !super::volumes::is_path(source)
                    && !source.starts_with('$')
                {
                    self.volume(source);
                }
                self.service.push("volumes", Yaml::Str(value.to_owned()));
            }
            "mount" => self.mount(value, bad)?,
            "net" | "network" => self.join(value, bad)?,
            "network-alias" | "net-alias" => self.network.push("aliases", Yaml::Str(value.to_owned())),
            "ip" => self.network.set("ipv4_address", Yaml::Str(value.to_owned())),
            "ip6" => self.network.set("ipv6_address", Yaml::Str(value.to_owned())),
            "link-local-ip" => self.network.push("link_local_ips", Yaml::Str(value.to_owned())),
            "link" => {
                let other = value.split(':').next().unwrap_or_default();
                self.notes
                    .push(format!("`--link {value}`: put `{other}` into the same project; its name resolves there"));
            }
            _ => {}
        }
        Ok(())
    }

    fn volume(&mut self, name: &str) {
        if !self.volumes.iter().any(|other| other == name) {
            self.volumes.push(name.to_owned());
        }
    }

    fn gpus(&mut self, value: &str, bad: &dyn Fn(&str) -> ConvertError) -> Result<(), ConvertError> {
        let value = value.trim_matches('"');
        if value == "all" {
            self.put("gpus", Yaml::Str("all".to_owned()));
            return Ok(());
        }
        let mut device = Yaml::Map(vec![("driver".to_owned(), Yaml::Str("nvidia".to_owned()))]);
        if let Some(ids) = value.strip_prefix("device=") {
            for id in ids.split(',') {
                device.push("device_ids", Yaml::Str(id.to_owned()));
            }
        } else {
            let count: u32 = value.parse().map_err(|_| bad("it is all, a number or device=0,1"))?;
            device.set("count", Yaml::Plain(count.to_string()));
        }
        self.service.push("gpus", device);
        Ok(())
    }

    fn join(&mut self, value: &str, bad: &dyn Fn(&str) -> ConvertError) -> Result<(), ConvertError> {
        match value {
            "host" | "none" => self.put("network_mode", Yaml::Str(value.to_owned())),
            "bridge" | "default" => {}
            _ if value.starts_with("container:") => {
                return Err(bad(
                    "put the other container into the same project and write `network_mode: service:NAME`",
                ));
            }
            _ => {
                // `name=net,alias=x` is the long form.
                let (mut name, mut options) = (value, Yaml::Map(Vec::new()));
                for part in value.split(',') {
                    match part.split_once('=') {
                        Some(("name", text)) => name = text,
                        Some(("alias", text)) => options.push("aliases", Yaml::Str(text.to_owned())),
                        Some(("ip", text)) => options.set("ipv4_address", Yaml::Str(text.to_owned())),
                        Some(("ip6", text)) => options.set("ipv6_address", Yaml::Str(text.to_owned())),
                        Some(("mac-address", text)) => options.set("mac_address", Yaml::Str(text.to_owned())),
                        Some(_) => self.notes.push(format!("`{part}` of `--network` was left out")),
                        None => {}
                    }
                }
                self.networks.push((name.to_owned(), options));
            }
        }
        Ok(())
    }

    fn mount(&mut self, value: &str, bad: &dyn Fn(&str) -> ConvertError) -> Result<(), ConvertError> {
        let mut kind = "volume";
        let mut mount = Yaml::Map(Vec::new());
        for part in value.split(',') {
            let (key, value) = part.split_once('=').unwrap_or((part, "true"));
            if key == "type" {
                kind = value;
            }
        }
        mount.set("type", Yaml::Str(kind.to_owned()));
        for part in value.split(',') {
            let (key, value) = part.split_once('=').unwrap_or((part, "true"));
            let text = Yaml::Str(value.to_owned());
            let plain = Yaml::Plain(value.to_owned());
            match key {
                "type" => {}
                "source" | "src" => {
                    if kind == "volume" {
                        self.volume(value);
                    }
                    mount.set("source", text);
                }
                "target" | "destination" | "dst" => mount.set("target", text),
                "readonly" | "ro" => {
                    mount.set("read_only", if value == "1" { Yaml::Plain("true".to_owned()) } else { plain })
                }
                "bind-propagation" => mount.slot("bind").set("propagation", text),
                "volume-nocopy" => mount.slot("volume").set("nocopy", plain),
                "volume-subpath" => mount.slot("volume").set("subpath", text),
                "image-subpath" => mount.slot("image").set("subpath", text),
                "tmpfs-size" => mount.slot("tmpfs").set("size", text),
                "tmpfs-mode" => mount.slot("tmpfs").set("mode", text),
                "consistency" => {}
                _ => return Err(bad(&format!("it has no option `{key}`"))),
            }
        }
        // `docker run --mount` refuses a missing path, unlike `-v`.
        if kind == "bind" {
            mount.slot("bind").set("create_host_path", Yaml::Plain("false".to_owned()));
        }
        self.service.push("volumes", mount);
        Ok(())
    }

    fn finish(mut self, line: &RunLine) -> Converted {
        let (image, command) = (line.image.as_str(), &line.command);
        let name = self.name.clone().unwrap_or_else(|| service_name(image));
        let mut service = Yaml::Map(vec![("image".to_owned(), Yaml::Str(image.to_owned()))]);
        if let Some(container) = &self.name {
            service.set("container_name", Yaml::Str(container.clone()));
        }
        if let Some(entrypoint) = &self.entrypoint {
            service.set("entrypoint", Yaml::List(vec![Yaml::Str(entrypoint.clone())]));
        }
        if !command.is_empty() {
            service.set("command", Yaml::List(command.iter().map(|word| Yaml::Str(word.clone())).collect()));
        }
        if let Yaml::Map(pairs) = self.service {
            for (key, value) in pairs {
                service.set(&key, value);
            }
        }
        if let Yaml::Map(options) = self.network
            && !options.is_empty()
        {
            if self.networks.is_empty() {
                self.networks.push(("default".to_owned(), Yaml::Map(Vec::new())));
            }
            if let Some((_, first)) = self.networks.first_mut() {
                for (key, value) in options {
                    match value {
                        Yaml::List(items) => items.into_iter().for_each(|item| first.push(&key, item)),
                        value => first.set(&key, value),
                    }
                }
            }
        }
        for (network, options) in &self.networks {
            service.slot("networks").set(network, options.clone());
        }
        let mut file = Yaml::Map(Vec::new());
        file.slot("services").set(&name, service);
        for volume in &self.volumes {
            // The name on the host stays what it was.
            file.slot("volumes").slot(volume).set("name", Yaml::Str(volume.clone()));
            for (option, value) in line.volumes.get(volume).into_iter().flatten() {
                file.slot("volumes").slot(volume).slot("driver_opts").set(option, Yaml::Str(value.clone()));
            }
        }
        for (network, _) in self.networks.iter().filter(|(network, _)| network != "default") {
            file.slot("networks").slot(network).set("name", Yaml::Str(network.clone()));
            if let Some(special) = line.networks.get(network) {
                special.write(file.slot("networks").slot(network));
            }
        }
        if self.remove {
            self.notes.push("`--rm`: a container that has ended is kept for its log until it is replaced".to_owned());
        }
        Converted { name, text: file.write(), notes: self.notes }
    }
}

/// The last part of an image's name, as a service name.
fn service_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    let name: String = last
        .split([':', '@'])
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c))
        .collect();
    if name.is_empty() { "app".to_owned() } else { name }
}

#[cfg(test)]
mod tests;
