//! The field contract of Compose files for people and editors, made from the table that files are checked against.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use super::fields::{FILE, Field, Object, SERVICE, Shape, Status};
use super::sink::closest;

/// What a field is and what becomes of it. A path starts at the top of a file (`services.web.ports`, `volumes.driver`)
/// or at a service (`service.ports`); names and indexes may be left out, and `compose.` may stand before it.
#[must_use]
pub fn explain(path: &str) -> Option<String> {
    let plain = plain(path);
    let mut steps = plain.iter().map(String::as_str).peekable();
    steps.next_if_eq(&"compose");
    let (mut object, mut seen) = match steps.next_if_eq(&"service") {
        Some(_) => (&SERVICE, "service".to_owned()),
        None => (&FILE, "compose".to_owned()),
    };
    let mut found: Option<&'static Field> = None;
    let mut skipped = false;
    for step in steps {
        let within = found.map_or(Some(object), |field| inner(&field.shape));
        match within.and_then(|within| within.fields.iter().find(|field| field.name == step)) {
            Some(field) => {
                let _ = write!(seen, ".{}", field.name);
                object = within.unwrap_or(object);
                (found, skipped) = (Some(field), false);
            }
            // The name of a service, a network, a dependency.
            None if !skipped && found.is_some_and(|field| keyed(&field.shape)) => skipped = true,
            None => return None,
        }
    }
    let Some(field) = found else {
        let what = if seen == "service" { "A service of a Compose file." } else { "A Compose file." };
        let mut out = format!("{seen}\n\n  {what}\n\nFields:\n");
        list(object, &mut out);
        return Some(out);
    };
    let mut out = format!("{seen}  <{}>\n\n  {}\n  {}\n", describe(&field.shape), field.doc, status(field));
    if let Some(inner) = inner(&field.shape) {
        out.push_str("\nFields:\n");
        list(inner, &mut out);
    }
    Some(out)
}

/// What an unknown path was probably meant to be.
#[must_use]
pub fn nearest(path: &str) -> Option<String> {
    let plain = plain(path);
    let (last, before) = plain.split_last()?;
    let mut object = &FILE;
    for step in before {
        match step.as_str() {
            "compose" => {}
            "service" => object = &SERVICE,
            _ => {
                if let Some(field) = object.fields.iter().find(|field| field.name == step) {
                    object = inner(&field.shape)?;
                }
            }
        }
    }
    let near = closest(last, object.fields.iter().map(|field| field.name))?;
    Some(before.iter().map(String::as_str).chain([near]).collect::<Vec<_>>().join("."))
}

fn plain(path: &str) -> Vec<String> {
    let mut depth = 0_usize;
    let kept: String = path
        .chars()
        .filter(|c| {
            match c {
                '[' => depth += 1,
                ']' => {
                    depth = depth.saturating_sub(1);
                    return false;
                }
                _ => {}
            }
            depth == 0
        })
        .collect();
    kept.split('.').filter(|step| !step.is_empty() && *step != "*").map(str::to_owned).collect()
}

fn inner(shape: &Shape) -> Option<&'static Object> {
    match shape {
        Shape::Object(object) => Some(object),
        Shape::List(shape) | Shape::Unique(shape) | Shape::Map(shape) | Shape::Named(shape) => inner(shape),
        Shape::OneOf(shapes) => shapes.iter().find_map(inner),
        _ => None,
    }
}

fn keyed(shape: &Shape) -> bool {
    match shape {
        Shape::Map(_) | Shape::Named(_) => true,
        Shape::OneOf(shapes) => shapes.iter().any(keyed),
        _ => false,
    }
}

fn list(object: &Object, out: &mut String) {
    for field in object.fields {
        let mark = match field.status {
            _ if field.required => " (required)",
            Status::Enforced | Status::Ignored(_) => "",
            Status::NoEffect(_) => " (no effect)",
            Status::Rejected(_) => " (refused)",
        };
        let _ = writeln!(out, "  {} <{}>{mark}\n      {}", field.name, describe(&field.shape), field.doc);
    }
}

fn status(field: &Field) -> String {
    match field.status {
        Status::Enforced if field.required => "Enforced; required.".to_owned(),
        Status::Enforced => "Enforced.".to_owned(),
        Status::Ignored(why) => format!("Accepted and not used: {why}."),
        Status::NoEffect(why) => format!("Accepted without effect, with a warning: {why}."),
        Status::Rejected(why) => format!("Refused: {why}."),
    }
}

fn describe(shape: &Shape) -> String {
    match shape {
        Shape::Any => "anything".to_owned(),
        Shape::Null => "nothing".to_owned(),
        Shape::Str => "text".to_owned(),
        Shape::StrNum => "text or number".to_owned(),
        Shape::Scalar => "text, number or boolean".to_owned(),
        Shape::Bool | Shape::StrictBool => "true | false".to_owned(),
        Shape::Int => "integer".to_owned(),
        Shape::Num => "number".to_owned(),
        Shape::Bytes | Shape::BytesStr => "size".to_owned(),
        Shape::Duration => "duration".to_owned(),
        Shape::Enum(words) => words.iter().filter(|w| !w.is_empty()).copied().collect::<Vec<_>>().join(" | "),
        Shape::List(inner) | Shape::Unique(inner) => format!("list of {}", describe(inner)),
        Shape::Map(inner) | Shape::Named(inner) => format!("mapping to {}", describe(inner)),
        Shape::Object(_) => "mapping".to_owned(),
        Shape::OneOf(shapes) => {
            let parts = shapes.iter().filter(|shape| !matches!(shape, Shape::Null)).map(describe);
            parts.collect::<Vec<_>>().join(", or ")
        }
    }
}

/// The JSON Schema (draft 2020-12) of a Compose file, for editors. Fields that are refused are left out, so an editor
/// marks them as unknown.
#[must_use]
pub fn json_schema() -> Json {
    let mut names: BTreeMap<*const Object, String> = BTreeMap::new();
    let mut order: Vec<&'static Object> = Vec::new();
    collect(&FILE, "file", &mut names, &mut order);
    let definitions: Map<String, Json> = order
        .iter()
        .filter_map(|object| Some((names.get(&std::ptr::from_ref(*object))?.clone(), object_schema(object, &names))))
        .collect();
    let mut root = object_schema(&FILE, &names);
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("Compose file");
    root["$defs"] = Json::Object(definitions);
    root
}

/// Gives each object a name: the path at which it is first met.
fn collect(
    object: &'static Object,
    path: &str,
    names: &mut BTreeMap<*const Object, String>,
    order: &mut Vec<&'static Object>,
) {
    if names.insert(object, path.to_owned()).is_some() {
        return;
    }
    order.push(object);
    for field in object.fields {
        let mut inside = Vec::new();
        objects(&field.shape, &mut inside);
        for inner in inside {
            if !names.contains_key(&std::ptr::from_ref(inner)) {
                collect(inner, &format!("{path}.{}", field.name), names, order);
            }
        }
    }
}

fn objects(shape: &Shape, out: &mut Vec<&'static Object>) {
    match shape {
        Shape::Object(object) => out.push(object),
        Shape::List(shape) | Shape::Unique(shape) | Shape::Map(shape) | Shape::Named(shape) => objects(shape, out),
        Shape::OneOf(shapes) => shapes.iter().for_each(|shape| objects(shape, out)),
        _ => {}
    }
}

fn object_schema(object: &Object, names: &BTreeMap<*const Object, String>) -> Json {
    let accepted = || object.fields.iter().filter(|field| !matches!(field.status, Status::Rejected(_)));
    let properties: Map<String, Json> = accepted()
        .map(|field| {
            let mut schema = shape_schema(&field.shape, names);
            schema["description"] = match field.status {
                Status::NoEffect(why) => json!(format!("{} Has no effect: {why}.", field.doc)),
                _ => json!(field.doc),
            };
            if matches!(field.status, Status::NoEffect(_)) {
                schema["deprecated"] = json!(true);
            }
            (field.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<&str> = accepted().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema =
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false });
    if object.extensions {
        schema["patternProperties"] = json!({ "^x-": {} });
    }
    schema
}

fn shape_schema(shape: &Shape, names: &BTreeMap<*const Object, String>) -> Json {
    let nested = |shape: &Shape| shape_schema(shape, names);
    match shape {
        Shape::Any => json!({}),
        Shape::Null => json!({ "type": "null" }),
        Shape::Str | Shape::BytesStr | Shape::Duration => json!({ "type": "string" }),
        Shape::StrNum | Shape::Bytes | Shape::Num => json!({ "type": ["string", "number"] }),
        Shape::Int => json!({ "type": ["string", "integer"] }),
        Shape::Scalar => json!({ "type": ["string", "number", "boolean", "null"] }),
        Shape::Bool => json!({ "type": ["boolean", "string"] }),
        Shape::StrictBool => json!({ "type": "boolean" }),
        Shape::Enum(words) => json!({ "enum": words }),
        Shape::List(inner) => json!({ "type": "array", "items": nested(inner) }),
        Shape::Unique(inner) => json!({ "type": "array", "items": nested(inner), "uniqueItems": true }),
        Shape::Map(inner) => json!({ "type": "object", "additionalProperties": nested(inner) }),
        Shape::Named(inner) => json!({
            "type": "object", "patternProperties": { "^[a-zA-Z0-9._-]+$": nested(inner) }, "additionalProperties": false,
        }),
        Shape::Object(object) => match names.get(&std::ptr::from_ref(*object)) {
            Some(name) => json!({ "$ref": format!("#/$defs/{name}") }),
            None => json!({ "type": "object" }),
        },
        Shape::OneOf(shapes) => json!({ "anyOf": shapes.iter().map(nested).collect::<Vec<_>>() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_explained() {
        assert_eq!(
            explain("service.restart").as_deref(),
            Some(
                "service.restart  <text>\n\n  `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:N`.\n  Enforced.\n"
            )
        );
        #[rustfmt::skip]
        let cases = [
            ("services.web.ports[0].target", "compose.services.ports.target"), ("services.*.ports", "compose.services.ports"), ("compose.volumes.driver_opts", "compose.volumes.driver_opts"),
            ("service.depends_on.db.condition", "service.depends_on.condition"), ("services.web.deploy.resources.limits.cpus", "compose.services.deploy.resources.limits.cpus"), ("service.environment.FOO", "service.environment"), ("compose.service.build", "service.build"), ("service", "service"), ("compose", "compose"),
        ];
        for (path, expected) in cases {
            let text = explain(path).expect(path);
            assert!(
                text.starts_with(&format!("{expected}  <")) || text.starts_with(&format!("{expected}\n")),
                "{path}: {text}"
            );
        }
        for path in ["service.nope", "nope", "service.image.x", "services.a.b.image", "service.ports.x.target"] {
            assert!(explain(path).is_none(), "{path}");
        }
        let text = explain("service.uts").expect("known");
        assert!(text.contains("Accepted without effect, with a warning: a container keeps"), "{text}");
        assert_eq!(nearest("service.imge").as_deref(), Some("service.image"));
        assert_eq!(nearest("services.web.helthcheck").as_deref(), Some("services.web.healthcheck"));
    }

    #[test]
    fn every_field_has_an_answer() {
        fn walk(object: &'static Object, path: &str, depth: usize) {
            for field in object.fields {
                let path = format!("{path}.{}", field.name);
                assert!(explain(&path).is_some(), "{path}");
                if depth < 6
                    && let Some(inner) = inner(&field.shape)
                {
                    walk(inner, &path, depth + 1);
                }
            }
        }
        walk(&FILE, "compose", 0);
    }

    #[test]
    fn the_schema_is_whole() {
        let schema = json_schema();
        let text = schema.to_string();
        let defs = schema["$defs"].as_object().expect("definitions");
        for part in text.split("\"#/$defs/").skip(1) {
            let name = part.split('"').next().unwrap_or_default();
            assert!(defs.contains_key(name), "{name}");
        }
        assert!(schema["properties"]["services"].is_object());
        assert!(defs["file.services"]["properties"].get("provider").is_none(), "what is refused is left out");
    }
}
