//! Compose files: from text to workloads, by the Compose specification and as `docker compose` reads them.
//!
//! Nothing is read here. [`load`] takes the files that are known and either asks for more ([`Step::Need`]) or is done.
//! Steps: variables (`template`, `dotenv`), `extends` and `include` (`session`), merge (`merge`), the check against
//! the table of fields (`fields`, `check`), and workloads (`lower`). No variable comes from the environment of the
//! process: only what the input holds counts, so that every host reads a project alike.

mod check;
pub mod convert;
mod dotenv;
pub mod explain;
pub mod fields;
mod lower;
mod merge;
mod ports;
mod repair;
mod session;
mod shell;
mod sink;
mod template;
#[cfg(test)]
mod tests;
mod tree;
mod units;
mod values;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use self::session::Session;
use self::sink::Hint;
use self::tree::Tree;
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::node::{Node, Value};
use crate::workload::{ConfigData, Desired, NetworkSpec, SecretData, Workload};

/// A project to load. Paths of files are relative to the project directory, without `.` and inner `..`, or absolute.
#[derive(Debug, Clone, Default)]
pub struct ComposeInput {
    /// The Compose files in order; later ones are merged over earlier ones.
    pub files: Vec<PathBuf>,
    /// Absolute path of the project directory; relative paths of mounts start there.
    pub project_dir: PathBuf,
    /// Name of the project, when it is given from outside; it wins over `name:`.
    pub project_name: Option<String>,
    /// Variables that win over `.env`.
    pub environment: BTreeMap<String, String>,
    /// Files with variables instead of `.env`.
    pub env_files: Option<Vec<PathBuf>>,
    /// Enabled profiles; `*` is all. `COMPOSE_PROFILES` adds to them.
    pub profiles: BTreeSet<String>,
    /// What `~` stands for, and `$HOME` when it is not set.
    pub home: PathBuf,
    /// Files and variables beside the Compose files are not known, as when a single file is checked far from its host:
    /// a missing `env_file` or `label_file` and a variable that must be set are warnings then.
    pub neighbours_unknown: bool,
    /// Files by path, as far as they were read.
    pub contents: BTreeMap<PathBuf, FileState>,
}

/// What is at a path.
#[derive(Clone, PartialEq, Eq)]
pub enum FileState {
    /// A file.
    Content(Arc<[u8]>),
    /// Nothing.
    Missing,
    /// A directory.
    Directory,
}

impl std::fmt::Debug for FileState {
    /// Files may hold secrets: their content is not shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Content(bytes) => write!(f, "Content({} bytes)", bytes.len()),
            Self::Missing => f.write_str("Missing"),
            Self::Directory => f.write_str("Directory"),
        }
    }
}

/// How far a load came.
#[derive(Debug, Clone)]
pub enum Step {
    /// Call again with these files in [`ComposeInput::contents`].
    Need(Vec<PathBuf>),
    /// The project, and what is wrong with it. With an error among the findings it must not be applied.
    Done(Box<ComposeProject>, Vec<Diagnostic>),
}

/// A loaded project.
#[derive(Debug, Clone, Default)]
pub struct ComposeProject {
    /// Its name, which is the namespace of everything in it.
    pub name: String,
    /// One for each enabled service, in order of writing.
    pub workloads: Vec<Workload>,
    /// Content of configs by name; the only key is `content`.
    pub configs: BTreeMap<String, ConfigData>,
    /// Content of secrets by name; the only key is `content`.
    pub secrets: BTreeMap<String, SecretData>,
    /// Networks that services join.
    pub networks: Vec<NetworkSpec>,
    /// Services that run only with one of their profiles.
    pub disabled: Vec<String>,
}

impl ComposeProject {
    /// Puts the project into a desired state.
    pub fn add_to(&self, desired: &mut Desired) {
        let key = |name: &String| (self.name.clone(), name.clone());
        for workload in &self.workloads {
            desired.workloads.insert(workload.id.clone(), Arc::new(workload.clone()));
        }
        desired.configs.extend(self.configs.iter().map(|(name, data)| (key(name), Arc::new(data.clone()))));
        desired.secrets.extend(self.secrets.iter().map(|(name, data)| (key(name), Arc::new(data.clone()))));
        desired.networks.extend(self.networks.iter().map(|spec| (spec.name.clone(), Arc::new(spec.clone()))));
    }
}

/// Puts a directory before all names of files, in findings and workloads: the loader names files as the project
/// directory sees them, and several projects have a `compose.yaml` each.
pub fn relocate(project: &mut ComposeProject, diagnostics: &mut [Diagnostic], directory: &Path) {
    let moved = |name: &str| {
        let inside = !name.is_empty() && !directory.as_os_str().is_empty();
        if inside { directory.join(name).display().to_string() } else { name.to_owned() }
    };
    for workload in &mut project.workloads {
        workload.source.file = moved(&workload.source.file);
    }
    for diagnostic in diagnostics {
        diagnostic.file = moved(&diagnostic.file);
        for note in &mut diagnostic.notes {
            note.file = moved(&note.file);
        }
    }
}

/// Loads a project as far as its files are known.
#[must_use]
pub fn load(input: &ComposeInput) -> Step {
    let mut session = Session::new(input);
    let mut env = input.environment.clone();
    match &input.env_files {
        None => session.dotenv(Path::new(".env"), &mut env),
        Some(files) => {
            for file in files {
                if matches!(session.file(file), Some(FileState::Missing | FileState::Directory)) {
                    let name = file.display().to_string();
                    let message = format!("the env file `{name}` does not exist");
                    session.sink.push(Diagnostic::error(codes::MISSING_FILE, &name, None, message));
                }
                session.dotenv(file, &mut env);
            }
        }
    }
    // A shell in the project directory would have these.
    env.entry("PWD".to_owned()).or_insert_with(|| input.project_dir.display().to_string());
    env.entry("HOME".to_owned()).or_insert_with(|| input.home.display().to_string());
    let given =
        input.project_name.clone().or_else(|| env.get("COMPOSE_PROJECT_NAME").cloned()).filter(|n| !n.is_empty());
    let guess = given.clone().unwrap_or_else(|| directory_name(&input.project_dir));
    // Files can refer to the name of the project; a `name:` in them is known only after reading.
    env.entry("COMPOSE_PROJECT_NAME".to_owned()).or_insert_with(|| guess.clone());
    let named = if given.is_none() { declared_name(input, &env) } else { None };
    if let Some(name) = &named {
        env.insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());
    }
    let mut profiles = input.profiles.clone();
    if let Some(more) = env.get("COMPOSE_PROFILES") {
        profiles.extend(more.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()));
    }
    let env = Rc::new(env);
    let model = session.model(&input.files, Path::new(""), &env, &[]);
    if !session.need.is_empty() {
        return Step::Need(session.need.into_iter().collect());
    }
    let name = project_name(&mut session, model.as_ref(), given, guess);
    let mut project = ComposeProject { name: name.clone(), ..ComposeProject::default() };
    if let Some(model) = &model {
        check::check(model, &mut session.sink);
        if model.map().is_some_and(|map| map.keys().all(|key| key == "version" || key == "name")) {
            session
                .sink
                .error(codes::MISSING_FIELD, model, "services", "the Compose file has no services")
                .help("write at least `services:` with one service");
        }
        if model.get("version").is_some() {
            let at = model.map().and_then(|map| map.get("version")).map(|item| item.key).unwrap_or_default();
            session
                .sink
                .warn_at(codes::DEPRECATED, at, "version", "`version` is obsolete and ignored")
                .help("remove it");
        }
        project = lower::lower(&mut session, model, name, &profiles);
        if !session.need.is_empty() {
            return Step::Need(session.need.into_iter().collect());
        }
    }
    let mut diagnostics = session.sink.diagnostics;
    // The check comes first: what it says of a value stands for what follows from it. A value that is used at several
    // places by an alias is told once.
    let mut seen = BTreeSet::new();
    diagnostics.retain(|d| {
        let place = d.span.map(|span| (span.start, span.end));
        seen.insert((d.file.clone(), place, d.severity, (place.is_none() || !d.is_error()).then(|| d.message.clone())))
    });
    diagnostics.sort_by_key(|d| {
        let file = input.files.iter().position(|file| file.as_os_str() == d.file.as_str()).unwrap_or(usize::MAX);
        (file, d.file.clone(), d.span.map(|span| span.start))
    });
    Step::Done(Box::new(project), diagnostics)
}

/// Whether a document without `services` was still meant as a Compose file: the word is misspelt, services stand at the
/// top level (version 1 of the format), it has a name or version and declares networks and the like, or there is a `version` of the format
/// and nothing else. Strict, since other tools' settings must not be taken for it.
#[must_use]
pub(super) fn is_mistaken(node: &Node) -> bool {
    let Some(map) = node.as_map() else { return false };
    let service = |node: &Node| {
        node.as_map().is_some_and(|map| {
            (map.contains_key("build") || map.get("image").is_some_and(|image| image.node.as_str().is_some()))
                && map
                    .keys()
                    .all(|key| fields::SERVICE.fields.iter().any(|field| field.name == *key) || key.starts_with("x-"))
        })
    };
    let misspelt = map.iter().any(|(key, entry)| {
        sink::closest(key, ["services"]).is_some()
            && entry.node.as_map().is_some_and(|map| map.values().any(|entry| service(&entry.node)))
    });
    let version = map.get("version").is_some_and(|version| match &version.node.value {
        Value::String(text, _) => text.split(['.', '-']).next().is_some_and(|major| major == "2" || major == "3"),
        Value::Int(major) => *major == 2 || *major == 3,
        Value::Float(number) => (2.0..4.0).contains(number),
        _ => false,
    });
    let declares = ["networks", "volumes", "secrets", "configs"].iter().any(|key| {
        map.get(*key).and_then(|entry| entry.node.as_map()).is_some_and(|map| {
            !map.is_empty() && map.values().all(|entry| matches!(entry.node.value, Value::Null | Value::Map(_)))
        })
    });
    let only =
        map.keys().all(|key| key.starts_with("x-") || fields::FILE.fields.iter().any(|field| field.name == *key));
    let mut others = map.iter().filter(|(key, _)| *key != "version" && *key != "name" && !key.starts_with("x-"));
    let first = others.next();
    let services = first.into_iter().chain(others).all(|(_, entry)| service(&entry.node));
    let headed = map.contains_key("name") || map.contains_key("version");
    misspelt || (declares && only && headed) || if first.is_none() { version } else { services }
}

/// The name that the last file with `name:` gives, with variables replaced.
fn declared_name(input: &ComposeInput, env: &sink::Env) -> Option<String> {
    input.files.iter().rev().find_map(|file| {
        let Some(FileState::Content(bytes)) = input.contents.get(file) else { return None };
        let loaded = crate::load::load("", bytes, &crate::load::Limits::default());
        loaded.documents.iter().rev().find_map(|document| {
            let name = document.node.get("name")?.as_str()?;
            template::substitute(name, &|name: &str| env.get(name).cloned()).ok().map(|done| done.text)
        })
    })
}

fn project_name(session: &mut Session<'_>, model: Option<&Tree>, given: Option<String>, guess: String) -> String {
    let declared =
        model.and_then(|model| model.get("name")).filter(|name| name.str().is_some_and(|text| !text.is_empty()));
    let (name, at) = match (given, declared) {
        (Some(given), _) => (given, None),
        (None, Some(tree)) => (tree.str().unwrap_or_default().to_owned(), Some(tree)),
        (None, None) => return guess,
    };
    if normalise_name(&name) == name && !name.is_empty() {
        return name;
    }
    let message = format!(
        "`{name}` is not a project name: it has lower-case letters, digits, `-` and `_` and starts with a letter or digit"
    );
    let normal = normalise_name(&name);
    match at {
        // A `name:` is brought into form, a name from outside must have it (compose-go, loader, projectName).
        Some(tree) if !normal.is_empty() => {
            session.sink.warn(codes::BAD_NAME, tree, "name", message).help(format!("the project is called `{normal}`"));
            return normal;
        }
        Some(tree) => {
            session.sink.error(codes::BAD_NAME, tree, "name", message);
        }
        None => {
            let hint = format!("did you mean `{normal}`?");
            session.sink.push(Diagnostic::error(codes::BAD_NAME, "", None, message)).help(hint);
        }
    }
    guess
}

/// A project name from any text (compose-go, NormalizeProjectName).
#[must_use]
pub fn normalise_name(text: &str) -> String {
    let kept: String = text
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
        .collect();
    kept.trim_start_matches(['_', '-']).to_owned()
}

fn directory_name(directory: &Path) -> String {
    let name = directory.file_name().map(|name| normalise_name(&name.to_string_lossy())).unwrap_or_default();
    if name.is_empty() { "project".to_owned() } else { name }
}
