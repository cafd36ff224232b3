//! Field-level difference of two values, in the words of manifests.

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
    // A variable is one value to its reader, wherever that comes from.
    let variable = [from, to].into_iter().flatten().any(|value| variable(value).is_some());
    match (from, to) {
        (Some(Value::Object(a)), Some(Value::Object(b))) if !variable => {
            for (key, value) in a {
                compare(&join(path, key), Some(value), b.get(key), found);
            }
            for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                compare(&join(path, key), None, Some(value), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => compare_lists(path, a, b, found),
        _ => {
            let path = words(path);
            let shown = |value: Option<&Value>| value.map(|value| amount(&path, show(value)));
            let (from, mut to) = (shown(from), shown(to));
            if from == to && from.as_deref() != Some("(secret)") {
                to = Some("(another value)".to_owned());
            }
            found.push(Change { path: path.split('=').next().unwrap_or_default().to_owned(), from, to });
        }
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
        Value::Object(map) => match (variable(value), map.get("image")) {
            (Some(text), _) => text,
            (None, Some(image @ Value::String(_))) => show(image),
            _ => "{...}".to_owned(),
        },
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => "[...]".to_owned(),
        Value::String(text) if text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit()) => "(secret)".to_owned(),
        other => other.to_string(),
    }
}

/// What a variable of a container stands for, when this is one. A value whose name says that it is secret is not shown.
fn variable(value: &Value) -> Option<String> {
    let map = value.as_object()?;
    let (Some(Value::String(name)), Some(source)) = (map.get("name"), map.get("source")) else { return None };
    let source = source.as_object().filter(|source| source.len() == 1)?;
    let (kind, inner) = source.iter().next()?;
    let name = name.to_ascii_uppercase();
    let hidden =
        ["PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "AUTH", "PRIVATE"].iter().any(|word| name.contains(word));
    Some(match (kind.as_str(), inner) {
        ("Template" | "Literal", Value::String(_)) if hidden => "(hidden)".to_owned(),
        ("Template" | "Literal", Value::String(_)) => inner.to_string(),
        ("Secret", Value::Object(secret)) => {
            let text = |key: &str| secret.get(key).and_then(Value::as_str).unwrap_or_default();
            format!("key {} of the Secret {}", text("key"), text("name"))
        }
        ("Field", Value::String(field)) => format!("field {field}"),
        ("ResourceField", Value::Object(field)) => {
            format!("resource {}", field.get("resource").and_then(Value::as_str).unwrap_or_default())
        }
        _ => return None,
    })
}

/// Fields whose name here is not the one of manifests; after `=` the unit of the value.
const WORDS: [(&str, &str); 17] = [
    ("mounts", "volumeMounts"),
    ("liveness", "livenessProbe"),
    ("readiness", "readinessProbe"),
    ("startup", "startupProbe"),
    ("pull_policy", "imagePullPolicy"),
    ("http", "httpGet"),
    ("tcp", "tcpSocket"),
    ("cpu_limit_milli", "limits.cpu=m"),
    ("cpu_request_milli", "requests.cpu=m"),
    ("memory_limit", "limits.memory"),
    ("memory_request", "requests.memory"),
    ("host_ip", "hostIP"),
    ("host_pid", "hostPID"),
    ("host_ipc", "hostIPC"),
    ("termination_grace", "terminationGracePeriod"),
    ("claim", "persistentVolumeClaim"),
    ("security", "securityContext"),
];

/// A path in the words of manifests: `volumes[d].source.HostPath.path` is `volumes[d].hostPath.path`.
fn words(path: &str) -> String {
    let mut out = String::new();
    let mut depth = 0_u32;
    let segments = path.split(|c| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == '.' && depth == 0
    });
    let segments: Vec<&str> = segments.collect();
    for (index, segment) in segments.iter().enumerate() {
        let is_kind = |segment: &str| segment.starts_with(|c: char| c.is_ascii_uppercase());
        // The words of the code between a field and what kind of thing it holds.
        if ["source", "handler"].contains(segment) && segments.get(index + 1).is_some_and(|next| is_kind(next)) {
            continue;
        }
        let (name, rest) = segment.find('[').map_or((*segment, ""), |at| segment.split_at(at));
        let name = if is_kind(name) {
            let mut chars = name.chars();
            chars.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(chars).collect()
        } else {
            name.to_owned()
        };
        let name =
            WORDS.iter().find(|(word, _)| *word == name).map_or_else(|| camel(&name), |(_, said)| (*said).to_owned());
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(&name);
        out.push_str(rest);
    }
    out
}

fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut out, part| {
        let mut chars = part.chars();
        out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        out.extend(chars);
        out
    })
}

/// A value with the unit that its path says.
fn amount(path: &str, shown: String) -> String {
    match path.split_once('=') {
        Some((_, unit)) if shown.bytes().all(|b| b.is_ascii_digit()) => format!("{shown}{unit}"),
        _ => shown,
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
        assert_eq!(lines, ["containers[a].image: \"x:1\" -> \"x:2\"", "containers[c]: (none) -> {...}"]);
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
        assert_eq!(changes(&from, &to)[0].to_string(), "secret.mac: (secret) -> (secret)");
    }

    #[test]
    fn changes_are_told_in_the_words_of_manifests() {
        let variable = |name: &str, source: Value| json!({"env": [{"name": name, "source": source}]});
        for (from, to, expected) in [
            (
                variable("A", json!({"Template": "x"})),
                variable("A", json!({"Literal": "y"})),
                vec!["env[A]: \"x\" -> \"y\""],
            ),
            (variable("A", json!({"Literal": "x"})), json!({"env": []}), vec!["env[A]: \"x\" -> (none)"]),
            (
                variable("DB_PASSWORD", json!({"Literal": "x"})),
                variable("DB_PASSWORD", json!({"Secret": {"name": "s", "key": "k", "mac": "a"}})),
                vec!["env[DB_PASSWORD]: (hidden) -> key k of the Secret s"],
            ),
            (
                variable("A", json!({"Field": "status.podIP"})),
                variable("A", json!({"ResourceField": {"resource": "limits.cpu"}})),
                vec!["env[A]: field status.podIP -> resource limits.cpu"],
            ),
            (
                json!({"volumes": [{"name": "d", "source": {"HostPath": {"path": "/a"}}}]}),
                json!({"volumes": [{"name": "d", "source": {"HostPath": {"path": "/b"}}}]}),
                vec!["volumes[d].hostPath.path: \"/a\" -> \"/b\""],
            ),
            (
                json!({"resources": {"cpu_limit_milli": 500}, "liveness": {"handler": {"Http": {"path": "/"}}}}),
                json!({"resources": {"cpu_limit_milli": 1500}, "liveness": {"handler": {"Http": {"path": "/x"}}}}),
                vec!["resources.limits.cpu: 500m -> 1500m", "livenessProbe.httpGet.path: \"/\" -> \"/x\""],
            ),
            (
                json!({"containers": []}),
                json!({"containers": [{"name": "a.b", "image": "x:1"}], "host_network": true}),
                vec!["containers[a.b]: (none) -> \"x:1\"", "hostNetwork: (none) -> true"],
            ),
        ] {
            let mut lines: Vec<String> = changes(&from, &to).iter().map(ToString::to_string).collect();
            let mut expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
            lines.sort();
            expected.sort();
            assert_eq!(lines, expected);
        }
    }
}
