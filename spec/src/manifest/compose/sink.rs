//! The files of a project and what is wrong with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::tree::{Place, Tree};
use crate::diagnostic::Diagnostic;

/// Variables by name.
pub(super) type Env = BTreeMap<String, String>;

/// A file that was read, in one of its roles.
#[derive(Debug, Clone)]
pub(super) struct SourceFile {
    /// Its name for diagnostics.
    pub(super) name: String,
    /// What relative paths in it start from: relative to the project directory, or absolute.
    pub(super) base: PathBuf,
    /// Variables for it.
    pub(super) env: Rc<Env>,
}

/// Collects findings.
#[derive(Debug, Default)]
pub(super) struct Sink {
    pub(super) files: Vec<SourceFile>,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// The files beside the Compose files are not at hand, so variables may get values that are not known here.
    pub(super) lenient: bool,
}

impl Sink {
    /// An error of a value; a warning where its variable may be set in a file that is not at hand.
    pub(super) fn error(
        &mut self,
        code: &'static str,
        at: &Tree,
        path: &str,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        // What a mapping lacks may be what its variable would have been.
        let unset = at.unset || at.map().is_some_and(|map| map.values().any(|item| item.tree.unset));
        if self.lenient && unset {
            return self.warn_at(code, at.place, path, message);
        }
        self.error_at(code, at.place, path, message)
    }

    /// Whether an error was found at that place.
    pub(super) fn has_error_at(&self, at: Place) -> bool {
        self.diagnostics
            .iter()
            .any(|found| found.is_error() && found.span == Some(at.span) && found.file == self.name(at))
    }

    /// Whether an error was found at that path.
    pub(super) fn has_error_below(&self, path: &str) -> bool {
        self.diagnostics
            .iter()
            .any(|found| found.is_error() && found.path.as_deref().is_some_and(|p| p.starts_with(path)))
    }

    pub(super) fn warn(
        &mut self,
        code: &'static str,
        at: &Tree,
        path: &str,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.warn_at(code, at.place, path, message)
    }

    pub(super) fn error_at(
        &mut self,
        code: &'static str,
        at: Place,
        path: &str,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let diagnostic = Diagnostic::error(code, self.name(at), Some(at.span), message).at(path);
        self.push(diagnostic)
    }

    pub(super) fn warn_at(
        &mut self,
        code: &'static str,
        at: Place,
        path: &str,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let diagnostic = Diagnostic::warning(code, self.name(at), Some(at.span), message).at(path);
        self.push(diagnostic)
    }

    pub(super) fn push(&mut self, mut diagnostic: Diagnostic) -> &mut Diagnostic {
        // Lines below `environment` may hold passwords.
        diagnostic.secret |= diagnostic.path.as_deref().is_some_and(|path| path.contains(".environment"));
        self.diagnostics.push(diagnostic);
        self.diagnostics.last_mut().expect("one was pushed")
    }

    pub(super) fn name(&self, at: Place) -> &str {
        self.files.get(at.file).map_or("", |file| &file.name)
    }

    /// A path written at a place, from the base of its file: relative to the project directory, or absolute.
    pub(super) fn resolve(&self, at: Place, written: &str) -> PathBuf {
        let base = self.files.get(at.file).map_or(Path::new(""), |file| &file.base);
        normalise(&base.join(written))
    }

    /// The variables for what is written at a place.
    pub(super) fn env(&self, at: Place) -> Rc<Env> {
        self.files.get(at.file).map(|file| Rc::clone(&file.env)).unwrap_or_default()
    }

    pub(super) fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// A hint for the last finding.
pub(super) trait Hint {
    fn help(&mut self, hint: impl Into<String>) -> &mut Self;
}

impl Hint for Diagnostic {
    fn help(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A path without `.` and, where possible, without `..`; no file system is asked.
pub(super) fn normalise(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => match out.components().next_back() {
                Some(Component::Normal(_)) => {
                    out.pop();
                }
                Some(Component::RootDir) => {}
                _ => out.push(".."),
            },
            other => out.push(other),
        }
    }
    out
}

/// The name that was probably meant.
pub(super) fn closest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = wanted.to_ascii_lowercase().replace(['-', ' '], "_");
    let limit = match wanted.chars().count() {
        0 | 1 => 0,
        2 | 3 => 1,
        4..=8 => 2,
        _ => 3,
    };
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_ascii_lowercase().replace('-', "_")), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
