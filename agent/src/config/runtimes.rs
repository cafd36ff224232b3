//! `[runtimes.NAME]`: OCI runtimes beside the built-in one, which pods select by name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::values::{self, Input};

/// A runtime, as configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeProgram {
    /// The program: runc, or one with its command line.
    pub path: PathBuf,
    /// Arguments before its verb.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

/// Reads the table of runtimes.
pub(super) fn runtimes(input: Input<'_>) -> Result<BTreeMap<String, RuntimeProgram>, String> {
    let table = values::table(input)?;
    let mut found = BTreeMap::new();
    for (name, value) in table {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_');
        if name.is_empty() || name.len() > 63 || !name.chars().all(letter) {
            return Err(format!("expected a name of a-z, 0-9, `-`, `.` and `_`, found `{name}`"));
        }
        let program: RuntimeProgram = value.try_into().map_err(|error: toml::de::Error| {
            format!("`{name}`: {}", error.message().lines().next().unwrap_or_default())
        })?;
        if !program.path.is_absolute() {
            return Err(format!("`{name}`: expected an absolute path, found `{}`", program.path.display()));
        }
        found.insert(name, program);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_have_a_program_and_arguments() {
        let read = |text: &str| runtimes(Input::Text(text));
        let found = read("runc.path = \"/usr/sbin/runc\"\n[kvm]\npath = \"/opt/runsc\"\nargs = [\"--platform=kvm\"]");
        let names: Vec<(String, usize)> =
            found.expect("it is right").into_iter().map(|(name, program)| (name, program.args.len())).collect();
        assert_eq!(names, [("kvm".to_owned(), 1), ("runc".to_owned(), 0)]);
        for (text, part) in [
            ("runc = \"/usr/sbin/runc\"", "`runc`: "),
            ("runc = {}", "missing field `path`"),
            ("runc = {path = \"runc\"}", "expected an absolute path"),
            ("runc = {path = \"/r\", options = 1}", "unknown field `options`"),
            ("\"Run C\" = {path = \"/r\"}", "expected a name"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
