//! The Compose files in `manifests/examples/compose` load without an error and without a warning about a field.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use spec::manifest::compose::{ComposeInput, FileState, Step, load};

#[test]
fn examples_load() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples/compose");
    let mut names: Vec<PathBuf> = std::fs::read_dir(&directory)
        .expect("the directory is part of the repository")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    names.sort();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let file = PathBuf::from(name.file_name().expect("a file has a name"));
        let mut input = ComposeInput {
            files: vec![file.clone()],
            project_dir: "/srv/example".into(),
            home: "/root".into(),
            ..ComposeInput::default()
        };
        input.contents.insert(file, FileState::Content(Arc::from(std::fs::read(&name).expect("readable"))));
        let (project, found) = loop {
            match load(&input) {
                Step::Done(project, found) => break (project, found),
                Step::Need(paths) => input.contents.extend(paths.into_iter().map(|path| {
                    let secret = path.extension().is_some_and(|extension| extension == "txt");
                    (path, if secret { FileState::Content(Arc::from(b"x".as_slice())) } else { FileState::Missing })
                })),
            }
        };
        assert!(found.is_empty(), "{}: {found:#?}", name.display());
        assert!(!project.workloads.is_empty(), "{}", name.display());
    }
}
