//! `include`: files with a project directory and variables of their own whose resources become part of the project.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{MAX_CHAIN, Role, Session, remote, strings};
use crate::codes;
use crate::diagnostic::Note;
use crate::manifest::compose::FileState;
use crate::manifest::compose::sink::{Env, Hint, normalise};
use crate::manifest::compose::tree::{Fields, Item, Tree, Val, join_key};

impl Session<'_> {
    pub(super) fn include_all(&mut self, document: &mut Tree, role: &Role<'_>) {
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
            let target = map
                .entry(section.clone())
                .or_insert_with(|| Item { key: item.place, tree: Tree::new(item.place, Val::Map(Fields::new())) });
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
                        found.notes.push(Note { file, span: Some(span), message: "the other one".to_owned() });
                    }
                    None => {
                        known.insert(name, resource);
                    }
                }
            }
        }
    }
}
