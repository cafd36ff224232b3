//! The manifests that come with the project are valid and can be planned. Needs neither root nor a network.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tests::binary::{mainstay, workspace_root};

fn run(command: &str, path: &Path) -> Output {
    // Directories that are not there: the plan is for a host with nothing on it, and no agent is asked.
    let empty = tempfile::tempdir().expect("a temporary directory can be made");
    Command::new(mainstay())
        .arg(command)
        .arg("--data-dir")
        .arg(empty.path().join("data"))
        .arg("--run-dir")
        .arg(empty.path().join("run"))
        .arg(path)
        .env("NO_COLOR", "1")
        .output()
        .expect("the binary runs")
}

/// Every directory below `dir` that holds files of its own, hidden ones apart.
fn directories(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut files = false;
    for entry in std::fs::read_dir(dir).expect("the examples are part of the project").flatten() {
        let path = entry.path();
        if path.is_dir() {
            directories(&path, found);
        } else {
            files |= path.extension().is_some_and(|extension| ["yaml", "json", "toml"].iter().any(|e| extension == *e));
        }
    }
    if files {
        found.push(dir.to_owned());
    }
}

#[track_caller]
fn check(path: &Path) {
    let show = |output: &Output| {
        format!(
            "{}: {}\n{}{}",
            path.display(),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    let validated = run("validate", path);
    assert_eq!(validated.status.code(), Some(0), "validate {}", show(&validated));
    let said = String::from_utf8_lossy(&validated.stderr).into_owned();
    assert!(!said.contains("warning") && !said.contains("error"), "validate {}", show(&validated));
    // Something is to be made: 1 stands for pending changes.
    let planned = run("plan", path);
    assert_eq!(planned.status.code(), Some(1), "plan {}", show(&planned));
    assert!(String::from_utf8_lossy(&planned.stdout).contains("create"), "plan {}", show(&planned));
}

#[test]
fn every_example_is_valid_and_can_be_planned() {
    let mut found = Vec::new();
    directories(&workspace_root().join("manifests/examples"), &mut found);
    assert!(found.len() >= 20, "the examples were found: {found:?}");
    for dir in &found {
        check(dir);
    }
}

/// The quick start runs without any network: nothing of it may need an image that is not part of the binary.
#[test]
fn the_quick_start_needs_no_registry() {
    let manifests = workspace_root().join("manifests");
    check(&manifests);
    let output = run("plan", &manifests);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let images: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("image ")).collect();
    assert!(!images.is_empty(), "{text}");
    assert!(images.iter().all(|image| *image == "mainstay.local/web:1"), "{text}");
}
