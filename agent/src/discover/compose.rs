//! Loads a Compose project from disk: hands the loader the files that it asks for, and no others. No variable comes
//! from the environment of this process, so a laptop and a server read a project alike.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spec::codes;
use spec::diagnostic::Diagnostic;
use spec::digest::Digest;
use spec::manifest::compose::{ComposeInput, ComposeProject, FileState, Step, load};

use super::{Project, ReadError};

/// The agent runs as root, and `~` must mean the same everywhere.
const HOME: &str = "/root";

/// More rounds than any chain of includes that a person could follow.
const MAX_ROUNDS: usize = 64;

/// A project as it was loaded.
#[derive(Debug, Default)]
pub struct LoadedProject {
    /// What it wishes for; not to be applied when there is an error among the findings.
    pub project: ComposeProject,
    /// What is wrong or odd; files are named as the caller named the project's directory.
    pub diagnostics: Vec<Diagnostic>,
    /// Every file that was read, by its name in the findings.
    pub files: BTreeMap<String, Arc<[u8]>>,
    /// Files that services mount one by one, with a label of what they hold.
    pub bound: BTreeMap<String, String>,
}

/// Whether the files beside a Compose file are there to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbours {
    /// What is missing is an error.
    Known,
    /// A file is checked far from its host: what may be missing beside it is a warning.
    Unknown,
}

/// Loads a project with everything that it includes and refers to.
///
/// # Errors
///
/// The current directory cannot be told, which a relative path counts from.
pub fn load_project(project: &Project, neighbours: Neighbours) -> std::io::Result<LoadedProject> {
    let dir = if project.dir.as_os_str().is_empty() { Path::new(".") } else { project.dir.as_path() };
    let mut input = ComposeInput {
        files: project.files.iter().filter_map(|file| file.file_name()).map(PathBuf::from).collect(),
        project_dir: std::path::absolute(dir)?,
        project_name: project.name.clone(),
        home: HOME.into(),
        neighbours_unknown: neighbours == Neighbours::Unknown,
        ..ComposeInput::default()
    };
    let mut loaded = LoadedProject::default();
    for _ in 0..MAX_ROUNDS {
        match load(&input) {
            Step::Done(done, diagnostics) => {
                loaded.project = *done;
                if neighbours == Neighbours::Known {
                    glance(&input.project_dir, &mut loaded);
                }
                loaded.diagnostics.extend(diagnostics.into_iter().map(|found| renamed(found, dir)));
                return Ok(loaded);
            }
            Step::Need(paths) => {
                for path in paths {
                    let state = read(&path, dir, &mut loaded);
                    input.contents.insert(path, state);
                }
            }
        }
    }
    let name = project.files.first().map(|file| file.display().to_string()).unwrap_or_default();
    let message = format!("the project asks for more files after {MAX_ROUNDS} rounds");
    loaded.diagnostics.push(Diagnostic::error(codes::BAD_INCLUDE, &name, None, message));
    Ok(loaded)
}

/// Notes what files hold that services mount one by one. What is no file or too large for a configuration is left out.
fn glance(directory: &Path, loaded: &mut LoadedProject) {
    for workload in &mut loaded.project.workloads {
        for path in spec::files::bound_files(&workload.template.spec, directory) {
            if let Ok(bytes) = super::read(Path::new(&path)) {
                let label = Digest::of(&bytes).short();
                loaded.bound.insert(path.clone(), label.clone());
                workload.template.bound.insert(path, label);
            }
        }
    }
}

fn read(path: &Path, dir: &Path, loaded: &mut LoadedProject) -> FileState {
    let full = place(path, dir);
    if full.is_dir() {
        return FileState::Directory;
    }
    let name = full.display().to_string();
    match super::read(&full) {
        Ok(bytes) => {
            let bytes: Arc<[u8]> = bytes.into();
            loaded.files.insert(name, Arc::clone(&bytes));
            FileState::Content(bytes)
        }
        Err(ReadError::Io { source }) if source.kind() == ErrorKind::NotFound => FileState::Missing,
        // It is there, so the loader's word for a missing file would lead the reader astray.
        Err(error) => {
            loaded.diagnostics.push(Diagnostic::error(codes::UNREADABLE, &name, None, error.report()));
            FileState::Missing
        }
    }
}

/// A path of the loader from here; without the dot that stands for this directory.
fn place(path: &Path, dir: &Path) -> PathBuf {
    if dir == Path::new(".") { path.to_owned() } else { dir.join(path) }
}

fn renamed(mut found: Diagnostic, dir: &Path) -> Diagnostic {
    let rename =
        |file: &str| if file.is_empty() { file.to_owned() } else { place(Path::new(file), dir).display().to_string() };
    found.file = rename(&found.file);
    for note in &mut found.notes {
        note.file = rename(&note.file);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_loaded_with_what_it_refers_to() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("it can be written");
        write("compose.yaml", "include: [more.yaml]\nservices:\n  web:\n    image: web:$TAG\n    env_file: web.env\n");
        write("more.yaml", "services:\n  db: {image: db, nonsense: 1}\n");
        write(".env", "TAG=7\n");
        write("web.env", "A=b\n");
        let files = vec![dir.path().join("compose.yaml")];
        let project = Project { dir: dir.path().to_owned(), name: Some("shop".to_owned()), files };
        let loaded = load_project(&project, Neighbours::Known).expect("the directory is absolute");
        let read: Vec<&str> = loaded.files.keys().filter_map(|file| file.rsplit('/').next()).collect();
        assert_eq!(read, [".env", "compose.yaml", "more.yaml", "web.env"]);
        let image = |name: &str| {
            let workload = loaded.project.workloads.iter().find(|workload| workload.id.name == name)?;
            workload.template.spec.containers.first()?.image.as_ref().map(ToString::to_string)
        };
        assert_eq!(image("web").as_deref(), Some("docker.io/library/web:7"), "{:?}", loaded.diagnostics);
        assert_eq!(loaded.project.name, "shop");
        let found: Vec<&str> = loaded.diagnostics.iter().map(|found| found.file.as_str()).collect();
        assert_eq!(found, [dir.path().join("more.yaml").display().to_string()], "{:?}", loaded.diagnostics);
    }
}
