//! Reading fields of a checked tree. A value of the wrong type reads as absent: the check has reported it.

use crate::node::{Node, Style, Value};
use crate::quantity::Quantity;

/// The value of a field, unless it is null.
pub(crate) fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    node.get(key).filter(|value| value.value != Value::Null)
}

/// The value at several steps.
pub(crate) fn dig<'a>(node: &'a Node, keys: &[&str]) -> Option<&'a Node> {
    keys.iter().try_fold(node, |node, key| get(node, key))
}

/// Text of a field, unless it is empty.
pub(crate) fn text<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    get(node, key).and_then(Node::as_str).filter(|text| !text.is_empty())
}

/// The same as an owned value.
pub(crate) fn string(node: &Node, key: &str) -> Option<String> {
    text(node, key).map(str::to_owned)
}

/// A boolean by the rules of YAML 1.1, which Kubernetes' reader follows for plain words.
pub(crate) fn as_bool(node: &Node) -> Option<bool> {
    match &node.value {
        Value::Bool(value) => Some(*value),
        Value::String(text, Style::Plain) => yaml11_bool(text),
        _ => None,
    }
}

/// What a plain word means in YAML 1.1.
pub(crate) fn yaml11_bool(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// A boolean field.
pub(crate) fn boolean(node: &Node, key: &str) -> Option<bool> {
    get(node, key).and_then(as_bool)
}

/// A whole number, however it was written.
pub(crate) fn as_int(node: &Node) -> Option<i64> {
    match node.value {
        Value::Int(int) => Some(int),
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
        Value::Float(float) if float.fract() == 0.0 && float.abs() < 9e15 => Some(float as i64),
        _ => None,
    }
}

/// A whole number field.
pub(crate) fn int(node: &Node, key: &str) -> Option<i64> {
    get(node, key).and_then(as_int)
}

/// A number field that fits 32 bits without sign.
pub(crate) fn count(node: &Node, key: &str) -> Option<u32> {
    int(node, key).and_then(|int| u32::try_from(int).ok())
}

/// A number field of at least 0.
pub(crate) fn count64(node: &Node, key: &str) -> Option<u64> {
    int(node, key).and_then(|int| u64::try_from(int).ok())
}

/// A list field; empty when absent.
pub(crate) fn list<'a>(node: &'a Node, key: &str) -> &'a [Node] {
    get(node, key).and_then(Node::as_seq).unwrap_or_default()
}

/// A list of text; null entries are empty text, as in Kubernetes.
pub(crate) fn strings(node: &Node, key: &str) -> Vec<String> {
    list(node, key).iter().map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
}

/// A mapping from text to text; null values are empty text.
pub(crate) fn text_map(node: &Node, key: &str) -> std::collections::BTreeMap<String, String> {
    let entries = get(node, key).and_then(Node::as_map).into_iter().flatten();
    entries.map(|(key, entry)| (key.clone(), entry.node.as_str().unwrap_or_default().to_owned())).collect()
}

/// A quantity, written as text or as a number.
pub(crate) fn as_quantity(node: &Node) -> Option<Quantity> {
    match &node.value {
        Value::String(text, _) => Quantity::parse(text),
        Value::Int(int) => Quantity::parse(&int.to_string()),
        Value::UInt(int) => Quantity::parse(&int.to_string()),
        Value::Float(float) if float.is_finite() => Quantity::parse(&format!("{float}")),
        _ => None,
    }
}
