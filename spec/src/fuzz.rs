//! What the fuzz targets run: every parser of text that comes from outside, with what must hold for any input.
//!
//! The bodies are here, and not in the targets, so that tests run them too. They own nothing and are used by tests and
//! fuzz targets only.

use std::collections::BTreeMap;

use crate::image_ref::ImageRef;
use crate::manifest::compose::{ComposeInput, FileState, Step, load};
use crate::manifest::{AssembleOptions, Missing, ParseOptions, assemble, parse_file};
use crate::secret::MacKey;

/// A manifest in each format, put together with itself, and a Compose file.
pub fn parse(bytes: &[u8]) {
    for name in ["f.yaml", "f.json", "f.toml"] {
        let file = parse_file(name, bytes, &ParseOptions::default());
        let text = String::from_utf8_lossy(bytes);
        for found in &file.diagnostics {
            if let Some(span) = found.span {
                assert!(span.start <= bytes.len() && span.start <= span.end, "{found:?}");
            }
        }
        let _ = crate::render::render(&file.diagnostics, |_| Some(&text), false);
        let key = MacKey::new([0; 32]);
        let options = AssembleOptions { mac_key: &key, node_labels: None, missing: Missing::Error };
        let _ = assemble(&[file], &options);
    }
    compose(bytes, b"A=1\n");
}

/// The same text in values of a Compose file, and as the file of its variables.
pub fn interpolation(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let quoted = serde_json::Value::from(text).to_string();
    compose(format!("services: {{a: {{image: {quoted}, command: [{quoted}], ports: [{quoted}]}}}}").as_bytes(), bytes);
}

/// An image reference; what is read from its text again is the same.
pub fn image_reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(image) = ImageRef::parse(text) {
        // A tag that was left out is written there, so only the texts are the same.
        let again = ImageRef::parse(&image.to_string()).map(|image| image.to_string());
        assert_eq!(again, Ok(image.to_string()), "{text:?}");
    }
}

fn compose(bytes: &[u8], variables: &[u8]) {
    let mut input =
        ComposeInput { files: vec!["compose.yaml".into()], project_dir: "/p".into(), ..ComposeInput::default() };
    input.contents = BTreeMap::from([
        ("compose.yaml".into(), FileState::Content(bytes.into())),
        (".env".into(), FileState::Content(variables.into())),
    ]);
    // Each round asks for files that are not there yet; a project can name only so many.
    for _ in 0..64 {
        match load(&input) {
            Step::Done(..) => return,
            Step::Need(paths) => input.contents.extend(paths.into_iter().map(|path| (path, FileState::Missing))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces of real manifests, so that random texts get beyond the first character.
    const PIECES: [&str; 24] = [
        "apiVersion: v1\nkind: Pod\n",
        "metadata: {name: a}\n",
        "spec:\n",
        "  containers:\n",
        "  - name: a\n",
        "    image: b\n",
        "services:\n",
        "  a: {image: b}\n",
        "---\n",
        "&a ",
        "*a",
        "<<: *a\n",
        "${A:-${B}}",
        "$$",
        "${A:?",
        "}",
        "{",
        "[",
        "]",
        "\"",
        "'",
        ": ",
        "\t",
        "!!int ",
    ];

    proptest::proptest! {
        #[test]
        fn no_input_panics(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..20),
        ) {
            let text = pieces.concat();
            for input in [bytes.as_slice(), text.as_bytes()] {
                parse(input);
                interpolation(input);
                image_reference(input);
            }
        }
    }
}
