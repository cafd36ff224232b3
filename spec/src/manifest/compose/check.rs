//! The check of a merged file against the table of fields: unknown keys, wrong types, missing keys, malformed values,
//! and what has no effect here or is refused.

use super::fields::{FILE, Field, Object, Shape, Status};
use super::sink::{Hint, Sink, closest};
use super::tree::{Fields, Item, Place, Tree, Val, join_index, join_key};
use super::units;
use crate::codes;

/// Checks everything.
pub(super) fn check(model: &Tree, sink: &mut Sink) {
    object(model, &FILE, "", sink);
}

/// Whether a value can be of a shape, by its kind alone.
fn fits(shape: &Shape, tree: &Tree) -> bool {
    match (shape, &tree.val) {
        (Shape::Any, _) | (Shape::Null, Val::Null) => true,
        (Shape::Scalar, val) => !matches!(val, Val::Seq(_) | Val::Map(_)),
        (Shape::Enum(words), Val::Str(text)) => words.contains(&text.as_str()),
        (Shape::Int, Val::Float(value)) => value.fract() == 0.0,
        (
            Shape::Str
            | Shape::StrNum
            | Shape::Bool
            | Shape::Int
            | Shape::Num
            | Shape::Bytes
            | Shape::BytesStr
            | Shape::Duration,
            Val::Str(_),
        )
        | (Shape::Bool | Shape::StrictBool, Val::Bool(_))
        | (Shape::StrNum | Shape::Int | Shape::Num | Shape::Bytes, Val::Int(_))
        | (Shape::StrNum | Shape::Num | Shape::Bytes, Val::Float(_))
        | (Shape::List(_) | Shape::Unique(_), Val::Seq(_))
        | (Shape::Map(_) | Shape::Named(_) | Shape::Object(_), Val::Map(_)) => true,
        (Shape::OneOf(shapes), _) => shapes.iter().any(|shape| fits(shape, tree)),
        _ => false,
    }
}

/// What a shape takes, for messages.
fn expected(shape: &Shape) -> String {
    match shape {
        Shape::Any => "anything".to_owned(),
        Shape::Null => String::new(),
        Shape::Str => "a string".to_owned(),
        Shape::StrNum => "a string or a number".to_owned(),
        Shape::Scalar => "a string, a number or a boolean".to_owned(),
        Shape::Bool | Shape::StrictBool => "a boolean".to_owned(),
        Shape::Int => "an integer".to_owned(),
        Shape::Num => "a number".to_owned(),
        Shape::Bytes => "a size such as `512m`".to_owned(),
        Shape::BytesStr => "a size such as `512m`, as a string".to_owned(),
        Shape::Duration => "a duration such as `1m30s`".to_owned(),
        Shape::Enum(words) => {
            words.iter().filter(|w| !w.is_empty()).map(|w| format!("`{w}`")).collect::<Vec<_>>().join(" or ")
        }
        Shape::List(_) | Shape::Unique(_) => "a list".to_owned(),
        Shape::Map(_) | Shape::Named(_) | Shape::Object(_) => "a mapping".to_owned(),
        Shape::OneOf(shapes) => {
            let mut parts: Vec<String> = shapes.iter().map(expected).filter(|part| !part.is_empty()).collect();
            parts.dedup();
            parts.join(" or ")
        }
    }
}

fn value(tree: &Tree, shape: &Shape, path: &str, sink: &mut Sink) {
    if let Shape::OneOf(shapes) = shape {
        match shapes.iter().find(|shape| fits(shape, tree)) {
            Some(shape) => value(tree, shape, path, sink),
            None => wrong_type(tree, shape, path, sink),
        }
        return;
    }
    if !fits(shape, tree) {
        match (shape, tree.str()) {
            (Shape::Enum(words), Some(text)) if tree.unset && text.is_empty() => {
                let _ = words;
                sink.warn(codes::BAD_VALUE, tree, path, "the value is empty since its variable is not set");
            }
            (Shape::Enum(words), Some(text)) => {
                let part = format!("_{text}");
                let near = closest(text, words.iter().copied())
                    .or_else(|| words.iter().copied().find(|word| word.ends_with(&part)));
                let found = sink.error(
                    codes::BAD_VALUE,
                    tree,
                    path,
                    format!("`{}` is not one of {}", show(text), expected(shape).replace(" or ", ", ")),
                );
                if let Some(near) = near {
                    found.help(format!("did you mean `{near}`?"));
                }
            }
            _ => wrong_type(tree, shape, path, sink),
        }
        return;
    }
    match (shape, &tree.val) {
        (Shape::Object(inner), _) => object(tree, inner, path, sink),
        (Shape::Map(inner) | Shape::Named(inner), Val::Map(map)) => {
            named(map, inner, matches!(shape, Shape::Named(_)), path, sink);
        }
        (Shape::List(inner), Val::Seq(items)) => list(items, inner, path, sink),
        (Shape::Unique(inner), Val::Seq(items)) => {
            list(items, inner, path, sink);
            duplicates(items, path, sink);
        }
        (Shape::Bool, Val::Str(text)) if units::boolean(text).is_none() => {
            malformed(tree, path, "a boolean", "write true or false", sink);
        }
        (Shape::Int, Val::Str(text)) if text.parse::<i64>().is_err() => {
            malformed(tree, path, "an integer", "write it with digits only", sink);
        }
        (Shape::Num, Val::Str(text)) if text.parse::<f64>().is_err() => {
            malformed(tree, path, "a number", "write it like 2 or 0.5", sink);
        }
        (Shape::Bytes | Shape::BytesStr, Val::Str(text)) if text != "-1" && units::bytes(text).is_none() => {
            let plain = text.trim_end_matches(['i', 'I']).to_ascii_lowercase();
            let hint = if plain.len() < text.len() && units::bytes(&plain).is_some() {
                format!("did you mean `{plain}`?")
            } else {
                "write a number and b, k, m or g, such as 512m".to_owned()
            };
            malformed(tree, path, "a size", &hint, sink);
        }
        (Shape::Duration, Val::Str(text)) if units::duration(text).is_none() => {
            malformed(tree, path, "a duration", "write numbers with units, such as 30s, 1m30s or 500ms", sink);
        }
        _ => {}
    }
}

fn show(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}

fn malformed(tree: &Tree, path: &str, what: &str, hint: &str, sink: &mut Sink) {
    let text = tree.str().unwrap_or_default();
    if tree.unset && text.is_empty() {
        sink.error(codes::BAD_VALUE, tree, path, format!("the value must be {what}, but its variable is not set"))
            .help("set the variable in `.env`, or give it a default: `${NAME:-default}`");
        return;
    }
    sink.error(codes::BAD_VALUE, tree, path, format!("`{}` is not {what}", show(text))).help(hint);
}

fn wrong_type(tree: &Tree, shape: &Shape, path: &str, sink: &mut Sink) {
    fn compound(s: &Shape) -> bool {
        matches!(
            s,
            Shape::List(_) | Shape::Unique(_) | Shape::Map(_) | Shape::Named(_) | Shape::Object(_) | Shape::Null
        )
    }
    let has = |wanted: fn(&Shape) -> bool| match shape {
        Shape::OneOf(shapes) => shapes.iter().any(wanted),
        shape => wanted(shape),
    };
    let message = format!("`{path}` takes {}, not {}", expected(shape), tree.kind());
    let is_compound = matches!(tree.val, Val::Seq(_) | Val::Map(_));
    let found = if has(|s| !compound(s)) && !is_compound {
        sink.error(codes::WRONG_TYPE, tree, path, message)
    } else {
        // No variable becomes a list or a mapping or the other way round, whatever its value is.
        sink.error_at(codes::WRONG_TYPE, tree.place, path, message)
    };
    let duration = has(|s| matches!(s, Shape::Duration));
    let text = has(|s| matches!(s, Shape::Str | Shape::BytesStr | Shape::Duration | Shape::Enum(_)));
    let list = has(|s| matches!(s, Shape::List(_) | Shape::Unique(_)));
    let last = path.rsplit('.').next().unwrap_or_default();
    match &tree.val {
        Val::Str(_) if last == "healthcheck" => {
            found.help("write the command as `test:` below `healthcheck:`");
        }
        Val::Str(text) if last == "restart_policy" => {
            let text = show(text);
            found.help(format!("write `condition: {text}` below `restart_policy:`"));
        }
        Val::Seq(_) if path == "services" => {
            found.help("remove the `-`: each service is a key");
        }
        Val::Map(_) if list => {
            found.help("write it as a list: `- value`");
        }
        Val::Int(number) if duration => {
            found.help(format!("write the unit: {number}s"));
        }
        Val::Map(map) if path.contains(".environment[") && map.len() == 1 => {
            found.help("in a list, write `- NAME=value`");
        }
        Val::Bool(_) | Val::Int(_) | Val::Float(_) if text => {
            found.help("put quotes around it");
        }
        Val::Null => {
            found.help("remove the key, or give it a value");
        }
        Val::Str(_) if list => {
            found.help("write it as a list: `- value`");
        }
        _ => {}
    }
}

fn list(items: &[Tree], inner: &Shape, path: &str, sink: &mut Sink) {
    for (index, item) in items.iter().enumerate() {
        value(item, inner, &join_index(path, index), sink);
    }
}

fn duplicates(items: &[Tree], path: &str, sink: &mut Sink) {
    let mut seen = std::collections::HashMap::new();
    for (index, item) in items.iter().enumerate() {
        let Some(text) = item.text() else { continue };
        if let Some(first) = seen.insert(text, index) {
            let path = join_index(path, index);
            sink.error(codes::DUPLICATE_ENTRY, item, &path, format!("this is the same as entry {first}"))
                .help("remove one of the two");
        }
    }
}

fn named(map: &Fields, inner: &Shape, names: bool, path: &str, sink: &mut Sink) {
    for (key, item) in map {
        let at = join_key(path, key);
        let valid = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if names && !valid {
            if key.starts_with("x-") {
                continue;
            }
            sink.error_at(codes::BAD_NAME, item.key, &at, format!("`{}` is not a valid name", show(key)))
                .help("use letters, digits, `.`, `_` and `-`");
            continue;
        }
        value(&item.tree, inner, &at, sink);
    }
}

fn object(tree: &Tree, object: &Object, path: &str, sink: &mut Sink) {
    let Some(map) = tree.map() else { return };
    for (key, item) in map {
        if object.extensions && key.starts_with("x-") {
            continue;
        }
        let at = join_key(path, key);
        match object.fields.iter().find(|field| field.name == key) {
            Some(field) => known(field, &item.tree, item.key, &at, sink),
            None => unknown(key, item, object, path, &at, sink),
        }
    }
    for field in object.fields.iter().filter(|field| field.required && !map.contains_key(field.name)) {
        sink.error(codes::MISSING_FIELD, tree, path, format!("the field `{}` is missing", field.name));
    }
}

fn known(field: &Field, tree: &Tree, key: Place, path: &str, sink: &mut Sink) {
    let before = sink.diagnostics.len();
    value(tree, &field.shape, path, sink);
    let sound = sink.diagnostics.len() == before;
    let empty = match &tree.val {
        Val::Null => true,
        Val::Bool(value) => !value,
        Val::Str(text) => text.is_empty(),
        Val::Seq(items) => items.is_empty(),
        Val::Map(map) => map.is_empty(),
        Val::Int(_) | Val::Float(_) => false,
    };
    match field.status {
        _ if !sound || empty => {}
        Status::NoEffect(why) => {
            sink.warn_at(codes::NO_EFFECT, key, path, format!("`{}` has no effect: {why}", field.name));
        }
        Status::Rejected(why) => {
            sink.error_at(codes::REJECTED_FIELD, key, path, format!("`{}` is not supported: {why}", field.name));
        }
        Status::Enforced | Status::Ignored(_) => {}
    }
}

/// Tells of a key that the mapping at `path` cannot have; `at` is the path of the key.
pub(super) fn unknown(key: &str, item: &Item, object: &Object, path: &str, at: &str, sink: &mut Sink) {
    let (place, tree) = (item.key, &item.tree);
    let place_name = if path.is_empty() { "a Compose file".to_owned() } else { format!("`{path}`") };
    let near = closest(key, object.fields.iter().map(|field| field.name));
    let found = sink.error_at(codes::UNKNOWN_FIELD, place, at, format!("{place_name} has no field `{}`", show(key)));
    if let Some(near) = near {
        found.help(format!("did you mean `{near}`?"));
    } else if path.is_empty() && tree.map().is_some_and(|map| map.contains_key("image") || map.contains_key("build")) {
        found.help("if it is a service, indent it below `services:`");
    } else if object.extensions {
        found.help("remove it; a field of your own must start with `x-`");
    }
}
