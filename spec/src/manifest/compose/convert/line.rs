//! Taking a command line apart, before anything is made of it.

use std::collections::BTreeMap;

use super::flags::{self, Kind};
use super::yaml::Yaml;
use super::{ConvertError, Converted, Run};
use crate::manifest::compose::sink::closest;

/// A command line, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunLine {
    /// Long names of flags with their values, in order; that of a flag without one is `true`.
    pub flags: Vec<(&'static str, String)>,
    /// The image.
    pub image: String,
    /// What comes after it.
    pub command: Vec<String>,
    /// Options of the driver of volumes, by name; no command line says them.
    pub volumes: BTreeMap<String, BTreeMap<String, String>>,
    /// What is special about networks, by name; no command line says it.
    pub networks: BTreeMap<String, RunNetwork>,
}

/// What is special about a network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunNetwork {
    /// In CIDR form.
    pub subnet: Option<String>,
    /// There is no way out.
    pub internal: bool,
    /// It has IPv6 addresses.
    pub ipv6: bool,
}

impl RunLine {
    /// Takes the words of a `docker run` apart.
    pub fn parse(words: &[String]) -> Result<Self, ConvertError> {
        let mut words = words.iter().map(String::as_str).peekable();
        while words.next_if(|word| *word == "sudo" || (word.contains('=') && !word.starts_with('-'))).is_some() {}
        let program = words.next().ok_or(ConvertError::NotRun)?;
        if !matches!(program.rsplit('/').next(), Some("docker" | "podman" | "nerdctl")) {
            return Err(ConvertError::NotRun);
        }
        words.next_if(|word| *word == "container");
        if !matches!(words.next(), Some("run" | "create")) {
            return Err(ConvertError::NotRun);
        }
        let mut flags = Vec::new();
        while let Some(word) = words.next_if(|word| word.starts_with('-') && word.len() > 1) {
            if word == "--" {
                break;
            }
            if let Some(name) = word.strip_prefix("--") {
                let (name, value) = match name.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None => (name, None),
                };
                let flag = flags::long(name).ok_or_else(|| unknown(word, name))?;
                let value = match value {
                    None if flag.takes_value() => words.next().ok_or_else(|| ConvertError::NoValue(word.to_owned()))?,
                    None => "true",
                    Some(value) => value,
                };
                flags.push((flag.long, value.to_owned()));
                continue;
            }
            let mut letters = word[1..].chars();
            while let Some(letter) = letters.next() {
                let flag = flags::short(letter).ok_or_else(|| unknown(&format!("-{letter}"), ""))?;
                if !flag.takes_value() {
                    flags.push((flag.long, "true".to_owned()));
                    continue;
                }
                let joined = letters.as_str();
                let value = match joined.strip_prefix('=').unwrap_or(joined) {
                    "" => words.next().ok_or_else(|| ConvertError::NoValue(format!("-{letter}")))?,
                    value => value,
                };
                flags.push((flag.long, value.to_owned()));
                break;
            }
        }
        let image = words.next().ok_or(ConvertError::NoImage)?.to_owned();
        Ok(Self { flags, image, command: words.map(str::to_owned).collect(), ..Self::default() })
    }

    /// The Compose file; `$` are Compose variables.
    pub fn convert(&self) -> Result<Converted, ConvertError> {
        if self.image.is_empty() {
            return Err(ConvertError::NoImage);
        }
        let mut run = Run::new();
        for (name, value) in &self.flags {
            run.flag(flags::long(name).ok_or_else(|| unknown(&format!("--{name}"), name))?, value)?;
        }
        Ok(run.finish(self))
    }
}

impl RunNetwork {
    pub(super) fn write(&self, network: &mut Yaml) {
        for (key, on) in [("internal", self.internal), ("enable_ipv6", self.ipv6)] {
            if on {
                network.set(key, Yaml::Plain("true".to_owned()));
            }
        }
        if let Some(subnet) = &self.subnet {
            network.slot("ipam").push("config", Yaml::Map(vec![("subnet".to_owned(), Yaml::Str(subnet.clone()))]));
        }
    }
}

fn unknown(flag: &str, name: &str) -> ConvertError {
    let useful = |flag: &&flags::Flag| !matches!(flag.kind, Kind::Lost(_) | Kind::LostSwitch(_));
    let suggestion = closest(name, flags::FLAGS.iter().filter(useful).map(|flag| flag.long));
    ConvertError::UnknownFlag { flag: flag.to_owned(), suggestion }
}
