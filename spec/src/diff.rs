//! Field-level difference of two values, for people.

use serde::Serialize;
use serde_json::Value;

/// One changed field.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Path such as `containers[web].env[MESSAGE].value`.
    pub path: String,
    /// What it was; absent when it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What it will be; absent when it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let none = "(none)".to_owned();
        write!(f, "{}: {} -> {}", self.path, self.from.as_ref().unwrap_or(&none), self.to.as_ref().unwrap_or(&none))
    }
}

/// Every field in which the two differ. Elements of lists are matched by their `name` (else `path`, `volume`) where
/// they all have one, by place otherwise. Hashes of secrets show as `(secret)`.
#[must_use]
pub fn changes<T: Serialize>(from: &T, to: &T) -> Vec<Change> {
    let as_value = |value: &T| serde_json::to_value(value).unwrap_or(Value::Null);
    let mut found = Vec::new();
    compare("", Some(&as_value(from)), Some(&as_value(to)), &mut found);
    found
}

fn compare(path: &str, from: Option<&Value>, to: Option<&Value>, found: &mut Vec<Change>) {
    if from == to {
        return;
    }
    match (from, to) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for (key, value) in a {
                compare(&join(path, key), Some(value), b.get(key), found);
            }
            for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                compare(&join(path, key), None, Some(value), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => compare_lists(path, a, b, found),
        _ => found.push(Change { path: path.to_owned(), from: from.map(show), to: to.map(show) }),
    }
}

fn compare_lists(path: &str, a: &[Value], b: &[Value], found: &mut Vec<Change>) {
    let Some(key) = ["name", "path", "volume"].into_iter().find(|key| {
        let unique = |list: &[Value]| {
            let names: std::collections::BTreeSet<_> = list.iter().filter_map(|v| v.get(key)?.as_str()).collect();
            names.len() == list.len()
        };
        unique(a) && unique(b)
    }) else {
        for index in 0..a.len().max(b.len()) {
            compare(&format!("{path}[{index}]"), a.get(index), b.get(index), found);
        }
        return;
    };
    let named = |list: &'_ [Value], name: &str| -> Option<Value> {
        list.iter().find(|v| v.get(key).and_then(Value::as_str) == Some(name)).cloned()
    };
    for name in a.iter().filter_map(|v| v.get(key)?.as_str()) {
        compare(&format!("{path}[{name}]"), named(a, name).as_ref(), named(b, name).as_ref(), found);
    }
    for name in b.iter().filter_map(|v| v.get(key)?.as_str()).filter(|name| named(a, name).is_none()) {
        compare(&format!("{path}[{name}]"), None, named(b, name).as_ref(), found);
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn show(value: &Value) -> String {
    match value {
        Value::Object(map) if map.contains_key("mac") => "(secret)".to_owned(),
        Value::String(text) if text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit()) => "(secret)".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn named_elements_are_matched_by_name() {
        let from = json!({"containers": [{"name": "a", "image": "x:1"}, {"name": "b"}], "n": 1});
        let to = json!({"containers": [{"name": "b"}, {"name": "a", "image": "x:2"}, {"name": "c"}], "n": 1});
        let lines: Vec<String> = changes(&from, &to).iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["containers[a].image: \"x:1\" -> \"x:2\"", "containers[c]: (none) -> {\"name\":\"c\"}"]);
    }

    #[test]
    fn equal_values_have_no_changes() {
        let value = json!({"a": [1, 2, {"b": null}]});
        assert!(changes(&value, &value).is_empty());
    }

    #[test]
    fn a_secret_shows_as_such() {
        let from = json!({"source": {"Secret": {"name": "s", "mac": "a".repeat(64)}}});
        let to = json!({"source": {"Secret": {"name": "s", "mac": "b".repeat(64)}}});
        assert_eq!(changes(&from, &to)[0].to_string(), "source.Secret.mac: (secret) -> (secret)");
    }
}
