//! `.mainstayignore`: patterns of what is passed over, as in `.gitignore`. `*` and `?` stay within a name, `**` does
//! not; a pattern with a slash before its end counts from the file's own directory, any other at every depth below; a
//! slash at the end means directories only; `!` takes back; the last pattern that fits decides.

use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug)]
struct Rule {
    base: PathBuf,
    pattern: Vec<String>,
    anywhere: bool,
    directories: bool,
    keep: bool,
}

/// The patterns of a directory and of those above it.
#[derive(Debug, Clone, Default)]
pub(super) struct Ignored(Arc<Vec<Arc<Rule>>>);

impl Ignored {
    /// These patterns and those of a file in this directory.
    pub(super) fn with(&self, dir: &Path, text: &str) -> Self {
        let mut rules = (*self.0).clone();
        rules.extend(text.lines().filter_map(|line| rule(dir, line)).map(Arc::new));
        Self(Arc::new(rules))
    }

    /// Whether something is to be passed over.
    pub(super) fn covers(&self, path: &Path, directory: bool) -> bool {
        let last = self.0.iter().rev().find(|rule| rule.fits(path, directory));
        last.is_some_and(|rule| !rule.keep)
    }
}

fn rule(dir: &Path, line: &str) -> Option<Rule> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (keep, line) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
    let (directories, line) = line.strip_suffix('/').map_or((false, line), |rest| (true, rest));
    let anywhere = !line.contains('/');
    let pattern: Vec<String> = line.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    (!pattern.is_empty()).then(|| Rule { base: dir.to_owned(), pattern, anywhere, directories, keep })
}

impl Rule {
    fn fits(&self, path: &Path, directory: bool) -> bool {
        if self.directories && !directory {
            return false;
        }
        let Ok(below) = path.strip_prefix(&self.base) else { return false };
        let names: Vec<String> = below.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        if self.anywhere {
            return names.last().zip(self.pattern.first()).is_some_and(|(name, pattern)| name_fits(pattern, name));
        }
        path_fits(&self.pattern, &names)
    }
}

fn path_fits(pattern: &[String], names: &[String]) -> bool {
    match pattern.split_first() {
        None => names.is_empty(),
        Some((first, rest)) if first == "**" => {
            // At the end it means everything below, not the directory itself.
            if rest.is_empty() { !names.is_empty() } else { (0..=names.len()).any(|skip| fits_from(rest, names, skip)) }
        }
        Some((first, rest)) => {
            names.split_first().is_some_and(|(name, others)| name_fits(first, name) && path_fits(rest, others))
        }
    }
}

fn fits_from(pattern: &[String], names: &[String], skip: usize) -> bool {
    names.get(skip..).is_some_and(|names| path_fits(pattern, names))
}

/// `*` any characters, `?` one. Takes time in proportion to the product of the lengths, whatever the pattern.
fn name_fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while let Some(character) = name.get(n) {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(wanted) if *wanted == '?' || wanted == character => {
                p += 1;
                n += 1;
            }
            Some(_) | None => match star {
                // The last star takes one character more.
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `path` below the directory of the patterns is passed over; a slash at its end means a directory.
    #[track_caller]
    fn check(patterns: &str, path: &str, covered: bool) {
        let ignored = Ignored::default().with(Path::new("/m"), patterns);
        let directory = path.ends_with('/');
        let full = Path::new("/m").join(path.trim_end_matches('/'));
        assert_eq!(ignored.covers(&full, directory), covered, "{patterns:?} {path}");
    }

    #[test]
    fn patterns_are_those_of_gitignore() {
        check("values.yaml", "values.yaml", true);
        check("values.yaml", "a/b/values.yaml", true);
        check("/values.yaml", "a/values.yaml", false);
        check("/values.yaml", "values.yaml", true);
        check("a/*.yaml", "a/x.yaml", true);
        check("a/*.yaml", "a/b/x.yaml", false);
        check("a/**/x.yaml", "a/x.yaml", true);
        check("a/**/x.yaml", "a/b/c/x.yaml", true);
        check("a/**", "a/", false);
        check("a/**", "a/b", true);
        check("test-*.y?ml", "test-1.yaml", true);
        check("test-*.y?ml", "test-1.yml", false);
        check("charts/", "charts/", true);
        check("charts/", "charts", false);
        check("*.yaml\n!keep.yaml", "keep.yaml", false);
        check("*.yaml\n!keep.yaml\nkeep.yaml", "keep.yaml", true);
        check("# comment\n\n  \n", "# comment", false);
        check("*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false);
    }
}
