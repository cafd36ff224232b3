//! `docs/features.md` and `docs/outages.md` promise nothing that no test shows: every named test exists and runs.

use std::fs;
use std::path::Path;

use tests::binary::workspace_root;

/// One line of the table.
#[derive(Debug, PartialEq)]
struct Row {
    feature: String,
    promise: String,
    tests: Vec<String>,
}

/// Rows of every three-column table: feature, promise, test.
fn rows(text: &str) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with('|')) {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [feature, promise, test] = cells.as_slice() else {
            return Err(format!("line {}: a row has three cells: {line}", number + 1));
        };
        let ruler = feature.chars().all(|c| matches!(c, '-' | ':' | ' '));
        if ruler || *test == "test" {
            continue;
        }
        if feature.is_empty() || promise.is_empty() {
            return Err(format!("line {}: a feature has a name and a promise: {line}", number + 1));
        }
        let tests: Vec<String> = match *test {
            "not yet" => Vec::new(),
            named => named
                .split("<br>")
                .flat_map(|each| each.split(','))
                .map(|t| t.trim().trim_matches('`').to_owned())
                .collect(),
        };
        rows.push(Row { feature: (*feature).to_owned(), promise: (*promise).to_owned(), tests });
    }
    Ok(rows)
}

/// Why a named test does not count; `None` when it does. `source` gives the text of a file of the workspace.
fn fault(test: &str, source: impl Fn(&str) -> Option<String>) -> Option<String> {
    let Some((path, name)) = test.split_once("::").map(|(path, rest)| (path, rest.rsplit("::").next().unwrap_or(rest)))
    else {
        return Some(format!("`{test}` is not of the form `path/to/file.rs::test_name`"));
    };
    let Some(text) = source(path) else { return Some(format!("there is no file {path}")) };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_definition = |line: &&str| {
        let rest = line.strip_prefix("pub ").unwrap_or(line);
        let rest = rest.strip_prefix("async ").unwrap_or(rest);
        rest.strip_prefix("fn ")
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with(['(', '<']))
    };
    let Some(at) = lines.iter().position(is_definition) else {
        return Some(format!("{path} has no function {name}"));
    };
    let above = lines.get(..at).unwrap_or_default().iter().rev();
    let attributes: Vec<&&str> = above.take_while(|line| line.starts_with("#[") || line.starts_with("//")).collect();
    let has = |start: &str| attributes.iter().any(|line| line.starts_with(start));
    // A program with a `main` of its own has them in a table.
    let (plain, called) = (format!(" {name})"), format!("({name}("));
    let listed = lines.iter().any(|line| line.contains("(\"") && (line.contains(&plain) || line.contains(&called)));
    if !has("#[test]") && !has("#[tokio::test") && !listed {
        return Some(format!("{path}: {name} is not a test"));
    }
    if has("#[ignore") || has("#[cfg(") {
        return Some(format!("{path}: {name} does not run in every test run"));
    }
    None
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(workspace_root().join(path)).ok()
}

const DOCUMENTS: [&str; 2] = ["docs/features.md", "docs/outages.md"];

#[test]
fn every_named_test_exists_and_runs() {
    for document in DOCUMENTS {
        let text = read(document).unwrap_or_else(|| panic!("{document} exists"));
        let rows = rows(&text).unwrap_or_else(|why| panic!("{document}: {why}"));
        assert!(rows.len() >= 10, "{document}: the table was found");
        let mut faults = Vec::new();
        for row in &rows {
            for test in &row.tests {
                faults.extend(fault(test, read).map(|why| format!("{}: {why}", row.feature)));
            }
        }
        let open = rows.iter().filter(|row| row.tests.is_empty()).count();
        println!("{document}: {} rows, {open} of them not yet shown by a test", rows.len());
        assert!(faults.is_empty(), "{document}:\n{}", faults.join("\n"));
    }
}

/// A feature's own test file may not be left out of the build: an integration test is built by being where it is.
#[test]
fn named_files_are_part_of_the_build() {
    for text in DOCUMENTS.into_iter().filter_map(read) {
        for test in rows(&text).unwrap_or_default().iter().flat_map(|row| &row.tests) {
            let path = Path::new(test.split("::").next().unwrap_or_default());
            let crates = ["spec", "runtime", "agent", "tests"];
            assert!(crates.iter().any(|name| path.starts_with(name)), "{test}: not in a crate of the workspace");
        }
    }
}

#[test]
fn faults_of_the_table_are_found() {
    let source = "#[test]\nfn good() {}\n\n#[test]\n#[ignore]\nfn lazy() {}\n\nfn helper() {}\n\n#[tokio::test(start_paused = true)]\nasync fn waits() {}\n#[test]\n// why\nfn noted() {}\n#[cfg(feature = \"x\")]\n#[test]\nfn rare() {}\n";
    let look = |path: &str| (path == "a/b.rs").then(|| source.to_owned());
    for (test, fits) in [
        ("a/b.rs::good", true),
        ("a/b.rs::tests::good", true),
        ("a/b.rs::waits", true),
        ("a/b.rs::noted", true),
        ("a/b.rs::lazy", false),
        ("a/b.rs::helper", false),
        ("a/b.rs::goo", false),
        ("a/b.rs::rare", false),
        ("a/c.rs::good", false),
        ("good", false),
    ] {
        assert_eq!(fault(test, look).is_none(), fits, "{test}: {:?}", fault(test, look));
    }
    let parsed =
        rows("| feature | promise | test |\n|---|---|---|\n| a | b | `x.rs::y`, `x.rs::z` |\n| c | d | not yet |\n");
    assert_eq!(
        parsed,
        Ok(vec![
            Row { feature: "a".into(), promise: "b".into(), tests: vec!["x.rs::y".into(), "x.rs::z".into()] },
            Row { feature: "c".into(), promise: "d".into(), tests: vec![] },
        ])
    );
    assert!(rows("| a | b |\n").is_err());
    assert!(rows("| a |  | not yet |\n").is_err());
}
