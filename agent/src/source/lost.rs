//! Sources that say nothing now, and whose files that concerns.

use std::path::{Path, PathBuf};

use super::Listed;

/// A source that says nothing now.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub message: String,
    /// Approving this id makes what it shows count.
    pub approve: Option<String>,
    /// It is followed elsewhere and was never fetched.
    pub unfetched: bool,
}

impl Unreadable {
    /// Something that was never fetched.
    pub(super) fn unfetched(label: &str) -> Self {
        Self { message: format!("{label} has not been fetched yet"), approve: None, unfetched: true }
    }
}

/// All that say nothing.
#[derive(Debug)]
pub(super) struct Lost {
    /// Those whose files are known by their directory, with why.
    roots: Vec<(PathBuf, String)>,
    /// Why nothing is known of files that are in none of the sources.
    unfetched: Option<String>,
    /// All sources.
    sources: Vec<PathBuf>,
}

impl Lost {
    pub(super) fn of(listed: &Listed) -> Self {
        let errors = || listed.iter().filter_map(|(root, listing)| Some((root, listing.as_ref().err()?)));
        Self {
            roots: errors().map(|(root, error)| (root.clone(), error.message.clone())).collect(),
            unfetched: errors().find(|(_, error)| error.unfetched).map(|(_, error)| error.message.clone()),
            sources: listed.iter().map(|(root, _)| root.clone()).collect(),
        }
    }

    /// Why it is no evidence that this file is missing; `None` when it is.
    ///
    /// A remote that was never fetched may have what was in a directory before that is no source any more: naming the
    /// first remote, or another name for one, moves its files.
    pub(super) fn why(&self, file: &str) -> Option<&str> {
        let below = |root: &PathBuf| Path::new(file).starts_with(root);
        let own = self.roots.iter().find(|(root, _)| below(root)).map(|(_, error)| error.as_str());
        own.or_else(|| self.unfetched.as_deref().filter(|_| !self.sources.iter().any(below)))
    }
}
