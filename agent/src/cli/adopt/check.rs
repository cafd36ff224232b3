//! Whether what was written can be used: the loader of `validate`, on a file that is not on the disk yet.

use std::path::PathBuf;
use std::sync::Arc;

use spec::diagnostic::Diagnostic;
use spec::manifest::compose::{ComposeInput, FileState, Step, load};

/// More rounds than a file without `include` needs.
const MAX_ROUNDS: usize = 4;

/// What `validate` would refuse in a file of this name.
pub(super) fn errors(file: &str, text: &str) -> Vec<String> {
    let mut input = ComposeInput {
        files: vec![PathBuf::from(file)],
        project_dir: PathBuf::from("/"),
        home: PathBuf::from("/root"),
        neighbours_unknown: true,
        ..ComposeInput::default()
    };
    input.contents.insert(PathBuf::from(file), FileState::Content(Arc::from(text.as_bytes())));
    for _ in 0..MAX_ROUNDS {
        match load(&input) {
            Step::Done(_, found) => return found.iter().filter(|found| found.is_error()).map(said).collect(),
            Step::Need(paths) => input.contents.extend(paths.into_iter().map(|path| (path, FileState::Missing))),
        }
    }
    Vec::new()
}

fn said(found: &Diagnostic) -> String {
    let place = found.path.as_ref().map(|path| format!(" (at `{path}`)")).unwrap_or_default();
    format!("`validate` refuses the file: {}{place}", found.message)
}
