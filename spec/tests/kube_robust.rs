//! No text makes the parser panic, hang or lose its place.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use spec::manifest::{AssembleOptions, Missing, ParseOptions, assemble, parse_file};
use spec::render::{render, to_json, to_sarif};
use spec::secret::MacKey;

const KEY: MacKey = MacKey::new([0; 32]);
const SEED: &str = include_str!("../examples/deployment.yaml");

/// Parses, assembles and renders; every place lies in the text.
fn survive(name: &str, bytes: &[u8]) {
    let start = Instant::now();
    let file = parse_file(name, bytes, &ParseOptions::default());
    let text = std::str::from_utf8(bytes).ok();
    let all = assemble(
        std::slice::from_ref(&file),
        &AssembleOptions { mac_key: &KEY, node_labels: None, missing: Missing::Error },
    );
    let found: Vec<_> = file.diagnostics.iter().chain(&all.diagnostics).cloned().collect();
    for span in found.iter().filter_map(|d| d.span) {
        assert!(span.start <= span.end && span.start <= bytes.len(), "{span:?} of {} bytes", bytes.len());
        assert!(span.line >= 1 && span.column >= 1, "{span:?}");
    }
    render(&found, |_| text, true);
    assert_eq!(to_json(&found).as_array().map(Vec::len), Some(found.len()));
    assert!(to_sarif(&found)["runs"].is_array());
    assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0..3usize) {
        survive(["t.yaml", "t.json", "t.toml"][kind], &bytes);
    }

    #[test]
    fn any_yaml_like_text(text in "([a-zé]{0,3}[:\\-{}\\[\\],&*!|>%@`\"'#?. \n\t]{0,4}(<<|kind|spec|---|null|~|0x|\\.inf)?){0,40}") {
        survive("t.yaml", text.as_bytes());
        survive("t.toml", text.as_bytes());
    }

    #[test]
    fn a_manifest_with_damage(at in 0..SEED.len(), length in 0..40usize, put in "[ -~\n\té]{0,12}") {
        let mut text = SEED.to_owned();
        let end = (at + length).min(text.len());
        text.replace_range(at..end, &put);
        survive("t.yaml", text.as_bytes());
    }

    #[test]
    fn a_manifest_cut_short(at in 0..SEED.len()) {
        survive("t.yaml", &SEED.as_bytes()[..at]);
    }
}

#[test]
fn hostile_texts_answer_in_time() {
    let mib = 1 << 20;
    let reference = "{name: A, valueFrom: {configMapKeyRef: {name: c, key: k}}}, ";
    let port = |n: usize| format!("{{containerPort: {}, hostPort: {}}}, ", n % 60000 + 1, n % 60000 + 1);
    let container = |inside: String| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{containers: [{{name: c, image: x, {inside}}}]}}\n"
        )
    };
    for text in [
        container(format!("env: [{}]", reference.repeat(5000))),
        container(format!("ports: [{}]", (0..5000).map(port).collect::<String>())),
        "[".repeat(mib),
        "{".repeat(mib),
        "a: ".repeat(mib / 3),
        "- ".repeat(mib / 2),
        "? ".repeat(mib / 2),
        "\"".repeat(mib),
        "&a ".repeat(mib / 3),
        "*a ".repeat(mib / 3),
        "!!".repeat(mib / 2),
        "---\n".repeat(mib / 4),
        "a\n".repeat(mib / 2),
        "a: b\n".repeat(mib / 5),
        "\n".repeat(mib),
        " ".repeat(mib),
        "#".repeat(mib),
        "{\"a\":".repeat(mib / 5),
        "x".repeat(mib + 1),
        format!("a: |\n{}", "  x\n".repeat(mib / 5)),
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {{{}}}\n", "a b: c, ".repeat(1000)),
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{containers: [{}]}}\n",
            "{nam: x}, ".repeat(9000)
        ),
    ] {
        survive("t.yaml", text.as_bytes());
    }
}
