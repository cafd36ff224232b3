//! Puts the layers on top of each other and remembers where each value came from. All problems are found at once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, Key};
use super::values::Input;
use super::{DEFAULT_CONFIG, Settings};

/// What stands before the name of a setting that came by `--set NAME=VALUE`: most have no flag of their own.
pub const SET: &str = "--set ";

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A file and the line in it.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A place in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line itself.
    pub text: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What.
    pub message: String,
    /// Where, when it is in a file that could be read.
    pub place: Option<Place>,
    /// Something the reader can do.
    pub hint: Option<String>,
}

/// The configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use the configuration: {}", first(problems))]
pub struct ConfigError {
    /// Everything that is wrong, in order of layers.
    pub problems: Vec<Problem>,
}

fn first(problems: &[Problem]) -> String {
    let more = problems.len().saturating_sub(1);
    let first = problems.first().map_or("", |problem| problem.message.as_str());
    if more == 0 { first.to_owned() } else { format!("{first} (and {more} more)") }
}

/// One line of `mainstay config`.
#[derive(Debug)]
pub struct Entry {
    /// The setting.
    pub key: &'static Key,
    /// Its value.
    pub value: serde_json::Value,
    /// Where it came from.
    pub origin: Origin,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Effective values.
    pub settings: Settings,
    /// Where those came from that are not defaults.
    pub origins: BTreeMap<&'static str, Origin>,
    /// Files that were read, in order.
    pub files: Vec<PathBuf>,
    /// Remarks for people.
    pub warnings: Vec<String>,
}

impl Loaded {
    /// Every setting with value and origin.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let shown = KEYS.iter().filter(|key| !key.hidden || self.origins.contains_key(key.name));
        shown
            .map(|key| Entry {
                key,
                value: key.value(&self.settings),
                origin: self.origins.get(key.name).cloned().unwrap_or(Origin::Default),
            })
            .collect()
    }
}

/// What the layers are read from.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// `--config`: must exist. Without it the default path is read when it exists.
    pub config: Option<PathBuf>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// Flags: name of the setting, behind [`SET`] where it was given so, and value.
    pub flags: Vec<(String, String)>,
    /// Stands in for `/etc/mainstay/config.toml`; for tests.
    pub default_config: Option<PathBuf>,
}

impl Layers {
    /// The environment of this process and these flags.
    #[must_use]
    pub fn of_process(config: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("MAINSTAY_"))
            .collect();
        Self { config, environment, flags, default_config: None }
    }

    /// Reads all layers.
    ///
    /// # Errors
    ///
    /// Every unknown key and every bad value of every layer.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let build = self.build();
        if build.problems.is_empty() { Ok(build.loaded) } else { Err(ConfigError { problems: build.problems }) }
    }

    /// What can be understood of all layers, for a command that looks for an agent which runs with better ones.
    #[must_use]
    pub fn salvage(&self) -> Loaded {
        self.build().loaded
    }

    fn build(&self) -> Build {
        let mut build = Build {
            loaded: Loaded {
                settings: Settings::default(),
                origins: BTreeMap::new(),
                files: Vec::new(),
                warnings: Vec::new(),
            },
            problems: Vec::new(),
        };
        self.files(&mut build);
        self.variables(&mut build);
        for (flag, value) in &self.flags {
            let set = flag.strip_prefix(SET);
            let name = set.unwrap_or(flag);
            match KEYS.iter().find(|key| key.name == name) {
                Some(key) => {
                    let typed = if set.is_some() { flag.clone() } else { key.flag() };
                    build.set(key, Input::Text(value), Origin::Flag(typed), None);
                }
                None => build.unknown(name, None),
            }
        }
        // The default directory is for those who name no source at all.
        if build.loaded.settings.follows() && !build.loaded.origins.contains_key("sources") {
            build.loaded.settings.sources.clear();
        }
        build
    }

    /// The configuration file, and whether it must exist.
    #[must_use]
    pub fn file(&self) -> (PathBuf, bool) {
        let from_variable =
            || self.environment.iter().find(|(name, _)| name == "MAINSTAY_CONFIG").map(|(_, v)| v.into());
        let named: Option<PathBuf> = self.config.clone().or_else(from_variable);
        let must_exist = named.is_some();
        (named.or_else(|| self.default_config.clone()).unwrap_or_else(|| DEFAULT_CONFIG.into()), must_exist)
    }

    fn files(&self, build: &mut Build) {
        let (path, must_exist) = self.file();
        match std::fs::read_to_string(&path) {
            Ok(text) => build.file(&path, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {}
            Err(error) => build.unreadable(&path, &error),
        }
        let drop_ins = drop_ins(&path);
        let names = match std::fs::read_dir(&drop_ins) {
            Ok(entries) => entries.collect::<Result<Vec<_>, _>>(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => Err(error),
        };
        let mut paths: Vec<PathBuf> = match names {
            Ok(entries) => entries.into_iter().map(|entry| entry.path()).collect(),
            Err(error) => return build.unreadable(&drop_ins, &error),
        };
        paths.retain(|path| is_drop_in(path));
        paths.sort();
        for path in paths {
            match std::fs::read_to_string(&path) {
                Ok(text) => build.file(&path, &text),
                Err(error) => build.unreadable(&path, &error),
            }
        }
    }

    fn variables(&self, build: &mut Build) {
        for (name, value) in &self.environment {
            let origin = Origin::Variable(name.clone());
            match KEYS.iter().find(|key| key.variable() == *name) {
                Some(key) => build.set(key, Input::Text(value), origin, None),
                // The environment is shared with others, so a stranger in it is no error.
                None if name == "MAINSTAY_CONFIG" || !name.starts_with("MAINSTAY_") => {}
                None => {
                    let names: Vec<String> = KEYS.iter().filter(|key| !key.hidden).map(Key::variable).collect();
                    let close = nearest(name, names.iter().map(String::as_str));
                    let hint = close.map(|close| format!(", did you mean {close}?")).unwrap_or_default();
                    build.loaded.warnings.push(format!("variable {name} sets nothing{hint}"));
                }
            }
        }
    }
}

/// The directory of drop-ins beside a configuration file.
pub(crate) fn drop_ins(file: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("/")).join("conf.d")
}

/// Whether a file in that directory counts.
pub(crate) fn is_drop_in(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|extension| extension == "toml")
}

struct Build {
    loaded: Loaded,
    problems: Vec<Problem>,
}

impl Build {
    fn set(&mut self, key: &'static Key, input: Input<'_>, origin: Origin, place: Option<Place>) {
        match (key.set)(&mut self.loaded.settings, input) {
            Ok(()) => {
                self.loaded.origins.insert(key.name, origin);
            }
            Err(message) => {
                let name = match &origin {
                    Origin::Default | Origin::File(..) => format!("`{}`", key.name),
                    Origin::Variable(name) => format!("variable {name}"),
                    Origin::Flag(name) => format!("flag {name}"),
                };
                let hint = Some(format!("{} is: {}", key.name, key.help));
                self.problems.push(Problem { message: format!("{name}: {message}"), place, hint });
            }
        }
    }

    fn unknown(&mut self, name: &str, place: Option<Place>) {
        let names = KEYS.iter().filter(|key| !key.hidden).map(|key| key.name);
        let hint = match nearest(name, names) {
            Some(close) => format!("did you mean `{close}`?"),
            None => "`mainstay config` lists every setting".to_owned(),
        };
        self.problems.push(Problem { message: format!("unknown setting `{name}`"), place, hint: Some(hint) });
    }

    fn unreadable(&mut self, path: &Path, error: &std::io::Error) {
        let message = format!("cannot read {}: {error}", path.display());
        self.problems.push(Problem { message, place: None, hint: None });
    }

    fn file(&mut self, path: &Path, text: &str) {
        self.loaded.files.push(path.to_owned());
        match DeTable::parse(text) {
            Ok(table) => self.table(path, text, "", table.get_ref()),
            Err(error) => {
                let place = error.span().map(|span| place(path, text, span.start));
                let message = format!("not TOML: {}", error.message());
                self.problems.push(Problem { message, place, hint: None });
            }
        }
    }

    fn table(&mut self, path: &Path, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let full = format!("{prefix}{}", name.get_ref());
            let place = place(path, text, name.span().start);
            let inside = format!("{full}.");
            if let Some(key) = KEYS.iter().find(|key| key.name == full) {
                let origin = Origin::File(path.to_owned(), place.line);
                match plain(value) {
                    Ok(value) => self.set(key, Input::Toml(&value), origin, Some(place)),
                    Err(message) => self.problems.push(Problem { message, place: Some(place), hint: None }),
                }
            } else if let (DeValue::Table(table), true) =
                (value.get_ref(), KEYS.iter().any(|key| key.name.starts_with(&inside)))
            {
                self.table(path, text, &inside, table);
            } else {
                self.unknown(&full, Some(place));
            }
        }
    }
}

fn plain(value: &Spanned<DeValue<'_>>) -> Result<toml::Value, String> {
    let deserializer = toml::de::ValueDeserializer::from(value.clone());
    toml::Value::deserialize(deserializer).map_err(|error| error.message().to_owned())
}

fn place(file: &Path, text: &str, at: usize) -> Place {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    let column = before.get(start..).unwrap_or("").chars().count() + 1;
    let text = text.lines().nth(line - 1).unwrap_or("").to_owned();
    Place { file: file.to_owned(), line, column, text }
}

/// The name that was probably meant.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |other: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase());
    let best = names.map(|other| (distance(other), other)).min()?;
    (best.0 <= name.chars().count().max(4) / 3).then_some(best.1)
}
