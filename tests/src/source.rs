//! Reads Rust sources as far as rules about them need: without comments, literals and unit tests, with `use` trees
//! written out as paths.

use std::fs;
use std::path::{Path, PathBuf};

/// Every `.rs` file below a directory, sorted.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Whether a file holds tests only: `tests.rs`, `foo_tests.rs` or anything below a directory `tests` of a module.
pub fn is_test_file(relative: &Path) -> bool {
    let name = relative.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let inside = relative.parent().is_some_and(|dir| dir.components().any(|part| part.as_os_str() == "tests"));
    name == "tests" || name.ends_with("_tests") || inside
}

/// The text before the unit tests: up to the `#[cfg(test)]` of an inline module at the left margin.
pub fn without_tests(text: &str) -> &str {
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find("#[cfg(test)]")).map(|at| at + from) {
        let margin = at == 0 || text.get(..at).is_some_and(|before| before.ends_with('\n'));
        let after = text.get(at..).unwrap_or_default().lines().find(|line| !line.starts_with("#["));
        if margin && after.is_some_and(|line| line.starts_with("mod ") && line.ends_with('{')) {
            return text.get(..at).unwrap_or(text);
        }
        from = at + 1;
    }
    text
}

/// The code with comments removed and literals emptied; lines stay where they are.
pub fn scrub(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if c == 'r' && (rest.starts_with("r\"") || rest.starts_with("r#")) && !ends_in_word(&out) {
            raw_string(rest)
        } else if c == '"' {
            string(rest)
        } else if c == '\'' {
            character(rest)
        } else {
            0
        };
        let (gone, kept) = rest.split_at(skip);
        out.extend(gone.chars().filter(|c| *c == '\n'));
        if skip == 0 {
            out.push(c);
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
        } else {
            out.push(' ');
            rest = kept;
        }
    }
    out
}

fn ends_in_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// Bytes of a raw string that starts here; 0 when it is a raw identifier.
fn raw_string(text: &str) -> usize {
    let hashes = text.chars().skip(1).take_while(|c| *c == '#').count();
    if text.chars().nth(1 + hashes) != Some('"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let body = 2 + hashes;
    text.get(body..).and_then(|rest| rest.find(&close)).map_or(text.len(), |at| body + at + close.len())
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Bytes of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text.get(3..).and_then(|rest| rest.find('\'')).map_or(0, |at| at + 4),
        Some((_, _)) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

/// Every path of scrubbed code: `a::b::c` as written, and each leaf of each `use` tree.
pub fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for statement in code.split(';') {
        if let Some(tree) =
            statement.split_once("use ").filter(|(before, _)| !ends_in_word(before)).map(|(_, tree)| tree)
        {
            let compact: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
            leaves("", &compact, &mut found);
        }
    }
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    found.extend(
        code.split(|c| !word(c)).filter(|path| path.contains("::")).map(|path| path.trim_matches(':').to_owned()),
    );
    found
}

/// `a::{b, c::{d}}` as `a::b`, `a::c::d`.
fn leaves(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim().trim_end_matches("::");
    match tree.split_once('{') {
        None => {
            let leaf = tree.split(" as ").next().unwrap_or(tree).trim();
            if !leaf.is_empty() {
                found.push(format!("{prefix}{leaf}"));
            }
        }
        Some((head, rest)) => {
            let prefix = format!("{prefix}{}", head.trim());
            let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
            let (mut depth, mut start) = (0, 0);
            for (at, c) in inner.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        leaves(&prefix, inner.get(start..at).unwrap_or_default(), found);
                        start = at + 1;
                    }
                    _ => {}
                }
            }
            leaves(&prefix, inner.get(start..).unwrap_or_default(), found);
        }
    }
}

/// Whether one of the paths is, or is below, `forbidden` (`spec::plan` covers `spec::plan::Plan`, not `spec::planet`).
pub fn reaches(paths: &[String], forbidden: &str) -> bool {
    let below = format!("{forbidden}::");
    paths.iter().any(|path| path == forbidden || path.starts_with(&below))
}

/// Whether scrubbed code has this word.
pub fn has_word(code: &str, word: &str) -> bool {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|each| each == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let code = scrub(
            "let a = \"std::fs \\\" x\"; // std::fs\n/* tokio */ let r = r#\"rand\"#; let c = '\"'; fn f<'a>() {}",
        );
        for gone in ["std", "tokio", "rand", "x"] {
            assert!(!has_word(&code, gone), "{gone}: {code}");
        }
        assert!(has_word(&code, "f") && has_word(&code, "c"), "{code}");
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn use_trees_are_written_out() {
        let paths = paths("use std::{fs, collections::{BTreeMap, HashMap as Map}};\nfn f() { spec::plan::plan(); }");
        for path in ["std::fs", "std::collections::BTreeMap", "std::collections::HashMap", "spec::plan::plan"] {
            assert!(paths.iter().any(|have| have == path), "{path}: {paths:?}");
        }
        assert!(reaches(&paths, "spec::plan") && reaches(&paths, "std::fs"));
        assert!(!reaches(&paths, "spec::pla") && !reaches(&paths, "std::net"));
    }

    #[test]
    fn unit_tests_are_not_counted() {
        assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {\n}\n"), "a\n");
        assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests;\nb\n"), "a\n#[cfg(test)]\nmod tests;\nb\n");
        assert_eq!(without_tests("a\n    #[cfg(test)]\n    b\n"), "a\n    #[cfg(test)]\n    b\n");
    }
}
