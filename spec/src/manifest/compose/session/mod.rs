//! Reading and merging of a project's files: variables, `extends`, `include`, `!reset` and `!override`.
//!
//! Nothing is read here: content comes with the input, and what is missing there is asked for. The order of steps is
//! that of compose-go (package loader): variables, `extends`, `include`, merge, for each document of each file.

mod extends;
mod include;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::merge::{self, Mismatch};
use super::sink::{Env, Hint, Sink, SourceFile};
use super::template::{self, TemplateError};
use super::tree::{Place, Tree, Val};
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
            sink: Sink { lenient: input.neighbours_unknown, ..Sink::default() },
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
                super::repair::repair(&mut document, &mut self.sink);
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
                    if done.lone {
                        let message = "a `$` here starts no variable and is kept as it is";
                        sink.warn(codes::BAD_INTERPOLATION, leaf, path, message.to_owned())
                            .help("write `$$` for a `$` that is meant to stay");
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
