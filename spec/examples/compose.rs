//! Loads the Compose files named on the command line as one project and prints what is said about it; with `-w` also
//! the workloads as JSON.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use spec::manifest::compose::{ComposeInput, FileState, Step, load};
use spec::render::{render, summary};

fn main() -> std::process::ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let show = arguments.first().is_some_and(|first| first == "-w");
    arguments.retain(|argument| argument != "-w");
    let paths: Vec<PathBuf> = arguments.iter().map(|name| std::path::absolute(name).unwrap_or_default()).collect();
    let project_dir = paths.first().and_then(|path| path.parent()).map(Path::to_path_buf).unwrap_or_default();
    let files = paths.iter().map(|path| path.strip_prefix(&project_dir).unwrap_or(path).to_path_buf()).collect();
    let mut input = ComposeInput { files, project_dir, home: "/root".into(), ..ComposeInput::default() };
    loop {
        match load(&input) {
            Step::Need(paths) => {
                for path in paths {
                    let full = input.project_dir.join(&path);
                    let state = match std::fs::read(&full) {
                        Ok(bytes) => FileState::Content(Arc::from(bytes)),
                        Err(_) if full.is_dir() => FileState::Directory,
                        Err(_) => FileState::Missing,
                    };
                    input.contents.insert(path, state);
                }
            }
            Step::Done(project, diagnostics) => {
                let source = |name: &str| match input.contents.get(Path::new(name)) {
                    Some(FileState::Content(bytes)) => std::str::from_utf8(bytes).ok(),
                    _ => None,
                };
                print!("{}", render(&diagnostics, source, false));
                println!("{}: {} services; {}", project.name, project.workloads.len(), summary(&diagnostics));
                if show {
                    println!("{}", serde_json::to_string_pretty(&project.workloads).unwrap_or_default());
                }
                let failed = diagnostics.iter().any(spec::diagnostic::Diagnostic::is_error);
                return if failed { std::process::ExitCode::FAILURE } else { std::process::ExitCode::SUCCESS };
            }
        }
    }
}
