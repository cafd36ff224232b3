//! `extends`: a service that starts from another one, of the same file or of another.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{MAX_CHAIN, Role, Session, remote};
use crate::codes;
use crate::manifest::compose::FileState;
use crate::manifest::compose::merge;
use crate::manifest::compose::sink::{Hint, closest, normalise};
use crate::manifest::compose::tree::{Fields, Tree, Val, join_key};

impl Session<'_> {
    pub(super) fn extend_all(&mut self, document: &mut Tree, role: &Role<'_>) {
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
}
