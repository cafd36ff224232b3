//! No input makes the loader panic or hang.

use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::fields::{FILE, Object, Shape};
use super::super::{ComposeInput, FileState, Step, load};
use super::Project;

/// Loads a text, with every further file missing.
fn survives(text: &str) {
    let mut input =
        ComposeInput { files: vec![PathBuf::from("c")], project_dir: "/p".into(), ..ComposeInput::default() };
    input.contents.insert(PathBuf::from("c"), FileState::Content(Arc::from(text.as_bytes())));
    for _ in 0..50 {
        match load(&input) {
            Step::Done(..) => return,
            Step::Need(paths) => input.contents.extend(paths.into_iter().map(|path| (path, FileState::Missing))),
        }
    }
    panic!("the loader asks for ever more files");
}

/// Values of any kind in the notation of JSON, which is YAML.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        (-5_i64..99_999).prop_map(|n| n.to_string()),
        Just("1.5".to_owned()),
        "\"[a-z0-9:/.,=${}@-]{0,12}\"",
        prop_oneof![
            Just("\"80:80\""),
            Just("\"./a:/b:ro\""),
            Just("\"${A:-b}\""),
            Just("\"1m30s\""),
            Just("\"512m\""),
            Just("\"a\""),
            Just("\"service:a\""),
        ]
        .prop_map(str::to_owned),
    ];
    let keys = prop_oneof![
        Just("a"),
        Just("b"),
        Just("source"),
        Just("target"),
        Just("type"),
        Just("file"),
        Just("service"),
        Just("test"),
        Just("condition"),
        Just("x-y"),
    ];
    leaf.prop_recursive(3, 12, 3, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(","))),
            proptest::collection::vec((keys.clone(), inner), 0..3).prop_map(|pairs| {
                let mut seen = std::collections::BTreeSet::new();
                let pairs: Vec<String> =
                    pairs.into_iter().filter(|(k, _)| seen.insert(*k)).map(|(k, v)| format!("\"{k}\":{v}")).collect();
                format!("{{{}}}", pairs.join(","))
            }),
        ]
    })
}

fn names(object: &'static Object) -> Vec<&'static str> {
    object.fields.iter().map(|field| field.name).collect()
}

/// Pieces of Compose files and of YAML.
const WORDS: &[&str] = &[
    "services", "  a", "image", "ports", "- ", ": ", "{", "}", "[", "]", "&x ", "*x", "<<", "!reset ", "${", "\n",
    "\"", "'", "#",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_value_of_any_service_field(field in proptest::sample::select(names(&super::super::fields::SERVICE)), value in value()) {
        survives(&format!("{{\"services\":{{\"a\":{{\"image\":\"x\",\"{field}\":{value}}},\"b\":{{\"image\":\"x\"}}}}}}"));
    }

    #[test]
    fn any_value_of_any_top_level_field(field in proptest::sample::select(names(&FILE)), value in value()) {
        survives(&format!("{{\"x-a\":{{\"image\":\"x\"}},\"{field}\":{value}}}"));
    }

    #[test]
    fn any_resource(section in proptest::sample::select(vec!["networks", "volumes", "secrets", "configs", "models"]), value in value()) {
        survives(&format!("{{\"services\":{{\"a\":{{\"image\":\"x\"}}}},\"{section}\":{{\"a\":{value}}}}}"));
    }

    #[test]
    fn any_text(words in proptest::collection::vec(proptest::sample::select(WORDS), 0..60)) {
        survives(&words.concat());
    }
}

#[test]
fn long_chains_end() {
    let chain: String = (0..3000).map(|i| format!("  s{i}: {{extends: s{}}}\n", i + 1)).collect();
    survives(&format!("services:\n{chain}  s3000: {{image: x}}\n"));
    let depends: String = (0..3000).map(|i| format!("  s{i}: {{image: x, depends_on: [s{}]}}\n", i + 1)).collect();
    survives(&format!("services:\n{depends}  s3000: {{image: x}}\n"));
    survives(&format!("services: {{a: {{image: '{}'}}}}", "${A:-".repeat(50_000)));
}

#[test]
fn files_that_include_ever_more_end() {
    let files: Vec<(String, String)> = (0..60)
        .map(|i| (format!("f{i}"), format!("include: [f{}]\nservices: {{s{i}: {{image: x}}}}", i + 1)))
        .collect();
    let mut list: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    list.push(("compose.yaml", "include: [f0]\nservices: {a: {image: x}}"));
    let mut input = Project::new(&list).input;
    for (name, text) in &list {
        input.contents.insert(PathBuf::from(name), FileState::Content(Arc::from(text.as_bytes())));
    }
    for _ in 0..70 {
        match load(&input) {
            Step::Done(_, diagnostics) => {
                assert!(diagnostics.iter().any(|d| d.message.contains("in a circle") || d.is_error()));
                return;
            }
            Step::Need(paths) => input.contents.extend(paths.into_iter().map(|path| (path, FileState::Missing))),
        }
    }
    panic!("the loader asks for ever more files");
}

/// The table is well-formed: names are unique, every field is explained.
#[test]
fn the_table_of_fields() {
    fn walk(shape: &Shape, seen: &mut Vec<*const Object>) {
        match shape {
            Shape::Object(object) => check(object, seen),
            Shape::List(inner) | Shape::Unique(inner) | Shape::Map(inner) | Shape::Named(inner) => walk(inner, seen),
            Shape::OneOf(shapes) => shapes.iter().for_each(|shape| walk(shape, seen)),
            _ => {}
        }
    }
    fn check(object: &'static Object, seen: &mut Vec<*const Object>) {
        let pointer: *const Object = object;
        if seen.contains(&pointer) {
            return;
        }
        seen.push(pointer);
        for field in object.fields {
            assert!(field.doc.ends_with('.') && field.doc.len() > 4, "{}", field.name);
            assert_eq!(object.fields.iter().filter(|other| other.name == field.name).count(), 1, "{}", field.name);
            walk(&field.shape, seen);
        }
    }
    let mut seen = Vec::new();
    check(&FILE, &mut seen);
    assert!(seen.len() > 40, "{}", seen.len());
}
