//! Which of the found files are Compose projects. In one directory the default names form one project, with the
//! override file when there is one (Compose specification, "Compose file"); `NAME.compose.yaml` is a project of its
//! own. Every other Compose file counts only where another one includes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// In the order in which Compose looks for them.
const DEFAULTS: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

const OVERRIDES: [&str; 4] =
    ["compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"];

/// The files of one project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The project's directory: paths in its files count from here.
    pub dir: PathBuf,
    /// Its name, when the file's name gives it; else the file itself or the directory does.
    pub name: Option<String>,
    /// Its files, later ones over earlier ones.
    pub files: Vec<PathBuf>,
}

/// Projects among some files, and the files that are left: those may be manifests. Files of a second default name in
/// one directory belong to neither, as with Compose itself.
#[must_use]
pub fn projects<'a>(paths: impl IntoIterator<Item = &'a Path>) -> (Vec<Project>, Vec<PathBuf>) {
    let mut by_directory: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for path in paths {
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        by_directory.entry(dir).or_default().push(path.to_owned());
    }
    let (mut found, mut rest) = (Vec::new(), Vec::new());
    for (dir, paths) in by_directory {
        let first = |names: &[&str]| {
            let path = |name: &&str| paths.iter().find(|path| path.file_name().is_some_and(|other| other == *name));
            names.iter().find_map(path).cloned()
        };
        if let Some(main) = first(&DEFAULTS) {
            let files = std::iter::once(main).chain(first(&OVERRIDES)).collect();
            found.push(Project { dir: dir.clone(), name: None, files });
        }
        for path in &paths {
            let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if DEFAULTS.contains(&file) || OVERRIDES.contains(&file) {
                continue;
            }
            let stem = file.strip_suffix(".yaml").or_else(|| file.strip_suffix(".yml"));
            match stem.and_then(|stem| Some((stem.strip_suffix(".compose")?, stem))) {
                Some((name, stem)) if !name.is_empty() => {
                    let over = |ending: &str| dir.join(format!("{stem}.override.{ending}"));
                    let over = ["yml", "yaml"].map(over).into_iter().find(|path| paths.contains(path));
                    let files = std::iter::once(path.clone()).chain(over).collect();
                    found.push(Project { dir: dir.clone(), name: Some(name.to_owned()), files });
                }
                Some(_) | None if stem.is_some_and(|stem| stem.ends_with(".compose.override")) => {}
                Some(_) | None => rest.push(path.clone()),
            }
        }
    }
    rest.sort();
    (found, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `project: files | rest`, with paths as they are.
    #[track_caller]
    fn check(paths: &[&str], expected: &str) {
        let (projects, rest) = projects(paths.iter().map(Path::new));
        let list =
            |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ");
        let mut shown: Vec<String> = projects
            .iter()
            .map(|project| {
                let name = project.name.clone().unwrap_or_default();
                format!("{}[{name}]: {}", project.dir.display(), list(&project.files))
            })
            .collect();
        shown.push(list(&rest));
        assert_eq!(shown.join(" | "), expected);
    }

    #[test]
    fn default_names_form_one_project_of_a_directory() {
        check(&["a/compose.yaml", "a/web.yaml"], "a[]: a/compose.yaml | a/web.yaml");
        check(
            &["a/docker-compose.yml", "a/compose.yml", "a/compose.override.yaml"],
            "a[]: a/compose.yml a/compose.override.yaml | ",
        );
        check(&["a/docker-compose.yaml", "b/compose.yml"], "a[]: a/docker-compose.yaml | b[]: b/compose.yml | ");
        check(&["a/compose.override.yaml"], "");
        check(
            &["x.compose.yaml", "x.compose.override.yml", "y.compose.yml", "stack.yaml", "compose.json"],
            "[x]: x.compose.yaml x.compose.override.yml | [y]: y.compose.yml | compose.json stack.yaml",
        );
    }
}
