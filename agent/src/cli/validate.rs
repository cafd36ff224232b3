//! `mainstay validate`: every problem of some manifests at once, without an agent and without root.

use std::path::PathBuf;

use serde_json::json;
use spec::manifest::Missing;
use spec::secret::MacKey;

use super::control::count;
use super::manifests::Manifests;
use super::output::{Io, Outcome};
use crate::decrypt::Keys;

/// How findings are shown and what counts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted {
    /// Objects that are referred to may be elsewhere.
    pub(super) partial: bool,
    /// Warnings count as errors.
    pub(super) strict: bool,
    /// SARIF instead of text.
    pub(super) sarif: bool,
}

pub(super) fn validate(paths: &[PathBuf], wanted: Wanted, keys: &Keys, io: &mut Io<'_>) -> Outcome {
    // A file alone may refer to what is in others; a directory is all there is.
    let alone = !paths.is_empty() && paths.iter().all(|path| !path.is_dir());
    let missing = if wanted.partial || alone { Missing::Warning } else { Missing::Error };
    // Hashes of secrets stay in this process and are compared with nothing.
    let manifests = Manifests::read(paths, missing, &MacKey::new([0; 32]), keys)?;
    let errors = manifests.errors();
    let valid = errors == 0 && (!wanted.strict || manifests.diagnostics.is_empty());
    if wanted.sarif {
        io.json(&spec::render::to_sarif(&manifests.diagnostics))?;
    } else if io.json {
        io.json(&json!({
            "valid": valid,
            "files": manifests.files,
            "objects": manifests.objects,
            "errors": errors,
            "warnings": manifests.diagnostics.len() - errors,
            "findings": spec::render::to_json(&manifests.diagnostics),
        }))?;
    } else {
        io.out.write_all(manifests.rendered(io.color).as_bytes())?;
        let findings = match spec::render::summary(&manifests.diagnostics) {
            none if none.is_empty() => "no problems".to_owned(),
            some => some,
        };
        let (files, objects) = (count(manifests.files, "manifest"), count(manifests.objects, "valid object"));
        io.out.flush()?;
        writeln!(io.err, "{files}, {objects}: {findings}")?;
    }
    Ok(u8::from(!valid))
}
