//! Reading and merging of a project's files: variables, `extends`, `include`, `!reset` and `!override`.
//!
//! Nothing is read here: content comes with the input, and what is missing there is asked for. The order of steps is
//! that of compose-go (package loader): variables, `extends`, `include`, merge, for each document of each file.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::merge::{self, Mismatch};
use super::sink::{Env, Hint, Sink, SourceFile, closest, normalise};
use super::template::{self, TemplateError};
use super::tree::{Fields, Place, Tree, Val, join_key};
use super::{ComposeInput, FileState, dotenv};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::load::{self, Limits};

/// How long a chain of `extends`, and how deep `include`, may be.
const MAX_CHAIN: usize = 50;

/// Values that all files together may have.
const MAX_FILES: usize = 200;

/// Everything known while a project is read.
pub(super) struct Session<'a> {
    pub(super) input: &'a ComposeInput,
    pub(super) sink: Sink,
    /// Files that are wanted and not in the input.
    pub(super) need: BTreeSet<PathBuf>,
    unset_told: BTreeSet<String>,
    extended: HashMap<(PathBuf, PathBuf), Option<Rc<Tree>>>,
    loads: usize,
    circle_told: bool,
    /// Services of the document at hand that are extended already, by file and name.
    resolved: HashMap<(PathBuf, String), Tree>,
}

/// What a file is read as.
struct Role<'a> {
    path: &'a Path,
    base: &'a Path,
    env: &'a Rc<Env>,
    /// Files that include this one, itself last.
    chain: &'a [PathBuf],
}

impl<'a> Session<'a> {
    pub(super) fn new(input: &'a ComposeInput) -> Self {
        Self {
            input,
            sink: Sink::default(),
            need: BTreeSet::new(),
            unset_told: BTreeSet::new(),
            extended: HashMap::new(),
            loads: 0,
            circle_told: false,
            resolved: HashMap::new(),
        }
    }

    /// The state of a file, or `None` after asking for it.
    pub(super) fn file(&mut self, path: &Path) -> Option<&'a FileState> {
        let state = self.input.contents.get(path);
        if state.is_none() {
            self.need.insert(path.to_owned());
        }
        state
    }

    /// Variables of a dotenv file, over `env`: what is set there wins.
    pub(super) fn dotenv(&mut self, path: &Path, env: &mut Env) {
        let Some(FileState::Content(bytes)) = self.file(path) else { return };
        let outer = env.clone();
        match dotenv::parse(bytes, &|name: &str| outer.get(name).cloned()) {
            Ok(entries) => {
                for (name, value) in entries {
                    if !outer.contains_key(&name)
                        && let Some(value) = value
                    {
                        env.insert(name, value);
                    }
                }
            }
            Err(error) => self.bad_env_file(path, &error),
        }
    }

    pub(super) fn bad_env_file(&mut self, path: &Path, error: &dotenv::DotenvError) {
        // No place: the line may hold a secret.
        let message = format!("cannot read variables from `{}`: {error}", path.display());
        self.sink.push(Diagnostic::error(codes::BAD_ENV_FILE, &path.display().to_string(), None, message));
    }

    /// Reads the main files and merges them.
    pub(super) fn model(&mut self, files: &[PathBuf], base: &Path, env: &Rc<Env>, chain: &[PathBuf]) -> Option<Tree> {
        let mut model: Option<Tree> = None;
        for path in files {
            let mut chain = chain.to_vec();
            chain.push(path.clone());
            let role = Role { path, base, env, chain: &chain };
            for mut document in self.documents(&role) {
                self.extend_all(&mut document, &role);
                self.include_all(&mut document, &role);
                model = Some(match model {
                    Some(model) => self.merge(model, document),
                    None => document,
                });
                if let Some(model) = &mut model {
                    merge::deduplicate(model);
                }
            }
        }
        if let Some(model) = &mut model {
            merge::clean(model);
        }
        model
    }

    fn merge(&mut self, base: Tree, over: Tree) -> Tree {
        let mut faults = Vec::new();
        let merged = merge::merge(base, over, &mut Vec::new(), &mut faults);
        self.mismatches(faults);
        merged
    }

    fn mismatches(&mut self, faults: Vec<Mismatch>) {
        for Mismatch { path, place, was, is } in faults {
            self.sink.error_at(
                codes::BAD_MERGE,
                place,
                &path,
                format!("{is} here cannot be merged with {was} in another file"),
            );
        }
    }

    /// The documents of a file with variables replaced.
    fn documents(&mut self, role: &Role<'_>) -> Vec<Tree> {
        let Some(state) = self.file(role.path) else { return Vec::new() };
        let name = role.path.display().to_string();
        self.loads += 1;
        let bytes = match state {
            FileState::Content(bytes) if self.loads <= MAX_FILES => bytes,
            FileState::Content(_) => {
                let message = format!("more than {MAX_FILES} files are included or extended");
                self.sink.push(Diagnostic::error(codes::TOO_LARGE, &name, None, message));
                return Vec::new();
            }
            FileState::Missing | FileState::Directory => {
                let message = format!("the file `{name}` does not exist");
                self.sink.push(Diagnostic::error(codes::MISSING_FILE, &name, None, message));
                return Vec::new();
            }
        };
        let loaded = load::load(&name, bytes, &Limits::default());
        let file = self.sink.files.len();
        self.sink.files.push(SourceFile { name: name.clone(), base: role.base.to_owned(), env: Rc::clone(role.env) });
        let whole = loaded.diagnostics.iter().all(|diagnostic| !diagnostic.is_error());
        self.sink.diagnostics.extend(loaded.diagnostics);
        let mut documents = Vec::new();
        for document in loaded.documents {
            let mut tree = Tree::from_node(document.node, file);
            match &tree.val {
                Val::Map(_) => {
                    self.interpolate(&mut tree, role.env);
                    documents.push(tree);
                }
                Val::Null => {}
                _ if whole => {
                    let message = format!("a Compose file is a mapping, not {}", tree.kind());
                    self.sink.error(codes::WRONG_TYPE, &tree, "", message);
                }
                _ => {}
            }
        }
        if documents.is_empty() && whole && !self.sink.has_errors() {
            self.sink.push(
                Diagnostic::error(codes::NOT_A_MANIFEST, &name, None, "the Compose file is empty")
                    .hint("write at least `services:` with one service"),
            );
        }
        documents
    }

    fn interpolate(&mut self, tree: &mut Tree, env: &Rc<Env>) {
        let unknown = self.input.neighbours_unknown;
        let mut path = String::new();
        let (sink, told) = (&mut self.sink, &mut self.unset_told);
        tree.each_string(&mut path, &mut |leaf, path| {
            let Val::Str(text) = &leaf.val else { return };
            if !text.contains('$') {
                return;
            }
            // Stands for required variables whose values are known elsewhere: it does as a number, a tag and a name.
            let mut assumed: BTreeSet<String> = BTreeSet::new();
            let result = loop {
                let lookup =
                    |name: &str| env.get(name).cloned().or_else(|| assumed.contains(name).then(|| "1".to_owned()));
                match template::substitute(text, &lookup) {
                    Err(TemplateError::Required { name, message }) if unknown && assumed.len() < 20 => {
                        let error = TemplateError::Required { name: name.clone(), message };
                        sink.warn(codes::REQUIRED_VARIABLE, leaf, path, error.to_string());
                        if !assumed.insert(name) {
                            break Err(error);
                        }
                    }
                    result => break result,
                }
            };
            match result {
                Ok(done) => {
                    for name in &done.unset {
                        if told.insert(name.clone()) {
                            sink.warn(
                                codes::UNSET_VARIABLE,
                                leaf,
                                path,
                                format!("the variable `{name}` is not set and becomes an empty string"),
                            )
                            .help(format!("set it in `.env`, or write a default: `${{{name}:-default}}`"));
                        }
                    }
                    leaf.unset = !done.unset.is_empty() || !assumed.is_empty();
                    leaf.val = Val::Str(done.text);
                }
                Err(error) => {
                    let (code, hint) = match &error {
                        TemplateError::Required { name, .. } => {
                            (codes::REQUIRED_VARIABLE, format!("set it in `.env`: `{name}=...`"))
                        }
                        TemplateError::Invalid { .. } => {
                            (codes::BAD_INTERPOLATION, "write `$$` for a single `$`".to_owned())
                        }
                        TemplateError::TooLarge => {
                            (codes::BAD_INTERPOLATION, "use fewer defaults inside of defaults".to_owned())
                        }
                    };
                    sink.error(code, leaf, path, error.to_string()).help(hint);
                    leaf.unset = true;
                }
            }
        });
    }

    fn extend_all(&mut self, document: &mut Tree, role: &Role<'_>) {
        let Some(services) = document.get("services").and_then(Tree::map) else { return };
        if !services.values().any(|item| item.tree.get("extends").is_some()) {
            return;
        }
        let services = services.clone();
        let mut done = services.clone();
        self.resolved.clear();
        for name in services.keys() {
            let mut chain = Vec::new();
            if let Some(merged) = self.extended(name, &services, role, &mut chain)
                && let Some(item) = done.get_mut(name)
            {
                item.tree = merged;
            }
        }
        if let Some(item) = document.map_mut().and_then(|map| map.get_mut("services")) {
            item.tree.val = Val::Map(done);
        }
    }

    /// A service with what it extends merged in.
    fn extended(
        &mut self,
        name: &str,
        services: &Fields,
        role: &Role<'_>,
        chain: &mut Vec<(PathBuf, String)>,
    ) -> Option<Tree> {
        let service = &services.get(name)?.tree;
        let Some(extends) = service.get("extends").cloned() else { return Some(service.clone()) };
        let link = (role.path.to_owned(), name.to_owned());
        if let Some(done) = self.resolved.get(&link) {
            return Some(done.clone());
        }
        let mut own = service.clone();
        if let Some(map) = own.map_mut() {
            map.shift_remove("extends");
        }
        let path = join_key(&join_key("services", name), "extends");
        if chain.contains(&link) || chain.len() >= MAX_CHAIN {
            let names: Vec<&str> = chain.iter().map(|(_, name)| name.as_str()).chain([name]).take(10).collect();
            if self.circle_told {
                return Some(own);
            }
            self.circle_told = true;
            let message = if chain.contains(&link) {
                format!("services extend each other in a circle: {}", names.join(" -> "))
            } else {
                format!("more than {MAX_CHAIN} services extend each other in a row: {} -> ...", names.join(" -> "))
            };
            self.sink.error(codes::BAD_EXTENDS, &extends, &path, message).help("remove one of the `extends`");
            return Some(own);
        }
        let (wanted, file) = match &extends.val {
            Val::Str(wanted) => (wanted.clone(), None),
            Val::Map(map) => {
                // A wrong form is told here: the key is gone before the check against the table.
                let known = ["service", "file"];
                for (key, item) in map.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
                    let found = self.sink.error_at(
                        codes::UNKNOWN_FIELD,
                        item.key,
                        &join_key(&path, key),
                        format!("`{path}` has no field `{key}`"),
                    );
                    if let Some(near) = closest(key, known) {
                        found.help(format!("did you mean `{near}`?"));
                    }
                }
                let Some(wanted) = extends.get("service").and_then(Tree::str) else {
                    self.sink.error(codes::MISSING_FIELD, &extends, &path, "the field `service` is missing");
                    return Some(own);
                };
                (wanted.to_owned(), extends.get("file").filter(|file| !file.is_null()).cloned())
            }
            _ => {
                let message = format!("`{path}` takes a string or a mapping, not {}", extends.kind());
                self.sink.error(codes::WRONG_TYPE, &extends, &path, message);
                return Some(own);
            }
        };
        chain.push(link);
        let base = match file {
            None => self.extended_here(&wanted, services, role, chain, &extends, &path),
            Some(file) => self.extended_elsewhere(&wanted, &file, role, chain, &extends, &path),
        };
        chain.pop();
        let Some(base) = base else { return Some(own) };
        if base.map().is_none() || own.map().is_none() {
            return Some(own);
        }
        let mut faults = Vec::new();
        let merged = merge::merge(base, own, &mut vec!["services", name], &mut faults);
        self.mismatches(faults);
        self.resolved.insert((role.path.to_owned(), name.to_owned()), merged.clone());
        Some(merged)
    }

    fn extended_here(
        &mut self,
        wanted: &str,
        services: &Fields,
        role: &Role<'_>,
        chain: &mut Vec<(PathBuf, String)>,
        extends: &Tree,
        path: &str,
    ) -> Option<Tree> {
        if !services.contains_key(wanted) {
            let near = closest(wanted, services.keys().map(String::as_str)).map(str::to_owned);
            let message = format!("the service `{wanted}` to extend is not in `{}`", role.path.display());
            let found = self.sink.error(codes::BAD_EXTENDS, extends, path, message);
            if let Some(near) = near {
                found.help(format!("did you mean `{near}`?"));
            }
            return None;
        }
        self.extended(wanted, services, role, chain)
    }

    fn extended_elsewhere(
        &mut self,
        wanted: &str,
        file: &Tree,
        role: &Role<'_>,
        chain: &mut Vec<(PathBuf, String)>,
        extends: &Tree,
        path: &str,
    ) -> Option<Tree> {
        let written = file.str()?;
        if remote(written) {
            self.sink
                .error(codes::BAD_EXTENDS, file, path, format!("`{written}` is not a local file"))
                .help("put a copy of the file beside this one");
            return None;
        }
        let target = normalise(&role.base.join(written));
        if matches!(self.file(&target)?, FileState::Missing | FileState::Directory) {
            let message = format!("the file `{}` to extend from does not exist", target.display());
            self.sink.error(codes::MISSING_FILE, file, path, message);
            return None;
        }
        let base = target.parent().map(Path::to_path_buf).unwrap_or_default();
        let inner = Role { path: &target, base: &base, env: role.env, chain: role.chain };
        let key = (target.clone(), role.base.to_owned());
        let document = match self.extended.get(&key) {
            Some(document) => document.clone(),
            None => {
                let mut merged: Option<Tree> = None;
                for document in self.documents(&inner) {
                    merged = Some(match merged {
                        Some(model) => self.merge(model, document),
                        None => document,
                    });
                }
                let merged = merged.map(Rc::new);
                self.extended.insert(key, merged.clone());
                merged
            }
        }?;
        let services = document.get("services").and_then(Tree::map).cloned().unwrap_or_default();
        self.extended_here(wanted, &services, &inner, chain, extends, path)
    }

    fn include_all(&mut self, document: &mut Tree, role: &Role<'_>) {
        let Some(include) = document.map_mut().and_then(|map| map.shift_remove("include")) else { return };
        let items = match include.tree.val {
            Val::Seq(items) => items,
            Val::Null => return,
            _ => {
                let message = format!("`include` takes a list, not {}", include.tree.kind());
                self.sink.error(codes::WRONG_TYPE, &include.tree, "include", message);
                return;
            }
        };
        for (index, item) in items.iter().enumerate() {
            self.include(item, &format!("include[{index}]"), document, role);
        }
    }

    fn include(&mut self, item: &Tree, path: &str, document: &mut Tree, role: &Role<'_>) {
        if let Some(map) = item.map() {
            for (key, entry) in map {
                if !["path", "env_file", "project_directory"].contains(&key.as_str()) {
                    let message = format!("`{path}` has no field `{key}`");
                    self.sink.error_at(codes::UNKNOWN_FIELD, entry.key, &join_key(path, key), message);
                }
            }
        } else if item.str().is_none() {
            let message = format!("`{path}` takes a string or a mapping, not {}", item.kind());
            self.sink.error(codes::WRONG_TYPE, item, path, message);
            return;
        }
        let written = strings(if item.map().is_some() { item.get("path") } else { Some(item) });
        let Some((first, _)) = written.first() else {
            self.sink.error(codes::MISSING_FIELD, item, path, "the field `path` is missing");
            return;
        };
        for (text, place) in &written {
            if remote(text) {
                self.sink
                    .error_at(codes::BAD_INCLUDE, *place, path, format!("`{text}` is not a local file"))
                    .help("put a copy of the file beside this one");
                return;
            }
        }
        let paths: Vec<PathBuf> = written.iter().map(|(text, _)| normalise(&role.base.join(text))).collect();
        let mut missing = false;
        for (file, (_, place)) in paths.iter().zip(&written) {
            match self.file(file) {
                None => missing = true,
                Some(FileState::Missing | FileState::Directory) => {
                    let message = format!("the file `{}` to include does not exist", file.display());
                    self.sink.error_at(codes::MISSING_FILE, *place, path, message);
                    missing = true;
                }
                Some(FileState::Content(_)) => {}
            }
        }
        let base = match item.get("project_directory").and_then(Tree::str) {
            Some(directory) => normalise(&role.base.join(directory)),
            None => normalise(&role.base.join(Path::new(first).parent().unwrap_or(Path::new("")))),
        };
        let env = self.include_env(item, path, &base, role);
        if missing {
            return;
        }
        if paths.iter().any(|file| role.chain.contains(file)) || role.chain.len() >= MAX_CHAIN {
            let names: Vec<String> = role.chain.iter().take(10).map(|file| file.display().to_string()).collect();
            let message = format!("files include each other in a circle: {} -> {first}", names.join(" -> "));
            self.sink.error(codes::BAD_INCLUDE, item, path, message).help("remove one of the `include`s");
            return;
        }
        let Some(model) = self.model(&paths, &base, &Rc::new(env), role.chain) else { return };
        self.import(model, document, item);
    }

    fn include_env(&mut self, item: &Tree, path: &str, base: &Path, role: &Role<'_>) -> Env {
        let mut env = (**role.env).clone();
        let files = strings(item.get("env_file"));
        if files.is_empty() {
            self.dotenv(&base.join(".env"), &mut env);
        }
        for (file, place) in files {
            if file == "/dev/null" {
                continue;
            }
            let file = normalise(&role.base.join(file));
            match self.file(&file) {
                Some(FileState::Missing | FileState::Directory) => {
                    let message = format!("the env file `{}` does not exist", file.display());
                    self.sink.error_at(codes::MISSING_FILE, place, path, message);
                }
                Some(FileState::Content(_)) => self.dotenv(&file, &mut env),
                None => {}
            }
        }
        env
    }

    /// Adds what an included file declares; the same name with another content is an error.
    fn import(&mut self, model: Tree, document: &mut Tree, item: &Tree) {
        let Val::Map(model) = model.val else { return };
        let Some(map) = document.map_mut() else { return };
        for (section, from) in model {
            if !["services", "volumes", "networks", "secrets", "configs", "models"].contains(&section.as_str()) {
                continue;
            }
            let Val::Map(resources) = from.tree.val else { continue };
            let target = map.entry(section.clone()).or_insert_with(|| super::tree::Item {
                key: item.place,
                tree: Tree::new(item.place, Val::Map(Fields::new())),
            });
            if target.tree.is_null() {
                target.tree.val = Val::Map(Fields::new());
            }
            let Some(known) = target.tree.map_mut() else { continue };
            for (name, resource) in resources {
                match known.get(&name) {
                    Some(other) if other.tree.same(&resource.tree) => {}
                    Some(other) => {
                        let (file, span) = (self.sink.name(other.key).to_owned(), other.key.span);
                        let path = join_key(&section, &name);
                        let message = format!("`{path}` of an included file is something else than `{path}` here");
                        let found = self.sink.error_at(codes::BAD_INCLUDE, resource.key, &path, message);
                        found.help("rename one of them; an override file can change an included one");
                        found.notes.push(crate::diagnostic::Note {
                            file,
                            span: Some(span),
                            message: "the other one".to_owned(),
                        });
                    }
                    None => {
                        known.insert(name, resource);
                    }
                }
            }
        }
    }
}

/// A string, or the strings of a list, with their places.
pub(super) fn strings(tree: Option<&Tree>) -> Vec<(String, Place)> {
    match tree.map(|tree| (&tree.val, tree.place)) {
        Some((Val::Str(text), place)) => vec![(text.clone(), place)],
        Some((Val::Seq(items), _)) => items.iter().filter_map(|item| Some((item.text()?, item.place))).collect(),
        _ => Vec::new(),
    }
}

fn remote(path: &str) -> bool {
    path.contains("://") || path.starts_with("git@") || path.starts_with("oci:")
}
