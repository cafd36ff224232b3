//! `mainstay schema`: JSON Schemas (draft 2020-12) of the supported kinds, for editors. Made from the table that
//! manifests are checked with.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use spec::schema::{Field, KINDS, Kind, ObjectKind, Status, Type};

use super::output::{CliError, Io, Outcome};

pub(super) fn schema(kind: Option<&str>, io: &mut Io<'_>) -> Outcome {
    let chosen: Vec<&ObjectKind> = match kind {
        None => KINDS.iter().collect(),
        Some(name) => {
            let found = KINDS.iter().find(|object| object.kind.eq_ignore_ascii_case(name));
            let close = crate::config::nearest(name, KINDS.iter().map(|object| object.kind));
            let hint =
                close.map_or("`mainstay explain` lists all kinds".to_owned(), |c| format!("did you mean `{c}`?"));
            vec![found.ok_or_else(|| CliError::new(format!("there is no kind `{name}`")).hint(hint))?]
        }
    };
    io.json(&document(&chosen))?;
    Ok(0)
}

/// One schema for one kind, or one that takes any of several.
fn document(kinds: &[&ObjectKind]) -> Value {
    let mut types = BTreeMap::new();
    let mut roots: Vec<Value> = kinds.iter().map(|object| root(object, &mut types)).collect();
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    match roots.pop() {
        Some(Value::Object(only)) if roots.is_empty() => schema.extend(only),
        Some(last) => {
            roots.push(last);
            schema.insert("anyOf".to_owned(), Value::Array(roots));
        }
        None => {}
    }
    schema.insert("$defs".to_owned(), types.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect());
    Value::Object(schema)
}

fn root(object: &ObjectKind, types: &mut BTreeMap<&'static str, Value>) -> Value {
    let mut schema = object_schema(object.root, types);
    schema["title"] = json!(object.kind);
    schema["properties"]["apiVersion"] = json!({ "const": object.api_version });
    schema["properties"]["kind"] = json!({ "const": object.kind });
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| name != "apiVersion" && name != "kind");
        required.extend([json!("apiVersion"), json!("kind")]);
    } else {
        schema["required"] = json!(["apiVersion", "kind"]);
    }
    schema
}

fn object_schema(of: &'static Type, types: &mut BTreeMap<&'static str, Value>) -> Value {
    let mut properties = Map::new();
    for field in of.fields {
        properties.insert(field.name.to_owned(), field_schema(field, types));
    }
    let required: Vec<&str> = of.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": of.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn field_schema(field: &'static Field, types: &mut BTreeMap<&'static str, Value>) -> Value {
    let mut schema = match field.status {
        // Nothing fits: an editor marks it as the agent would refuse it.
        Status::Rejected(..) => json!({ "not": {} }),
        Status::Enforced | Status::Silent | Status::NoEffect(_) => kind_schema(&field.kind, types),
    };
    schema["description"] = json!(match field.status {
        Status::Enforced | Status::Silent => field.doc.to_owned(),
        Status::NoEffect(why) => format!("{} No effect here: {why}.", field.doc),
        Status::Rejected(why, _) => format!("{} Rejected here: {why}.", field.doc),
    });
    schema
}

fn kind_schema(kind: &'static Kind, types: &mut BTreeMap<&'static str, Value>) -> Value {
    match kind {
        Kind::Str(format) => match format.pattern() {
            Some(pattern) => json!({ "type": "string", "pattern": pattern }),
            None => json!({ "type": "string" }),
        },
        Kind::Enum(words) => json!({ "enum": words }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Int(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Quantity => json!({ "type": ["string", "number"] }),
        Kind::Port | Kind::IntOrPercent => json!({ "type": ["integer", "string"] }),
        Kind::Obj(of) => reference(of, types),
        Kind::Objs(of) => json!({ "type": "array", "items": reference(of, types) }),
        Kind::List(inner) => json!({ "type": "array", "items": kind_schema(inner, types) }),
        Kind::Map(inner) => json!({ "type": "object", "additionalProperties": kind_schema(inner, types) }),
        Kind::Labels | Kind::Annotations => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::Any => json!({}),
    }
}

fn reference(of: &'static Type, types: &mut BTreeMap<&'static str, Value>) -> Value {
    if !types.contains_key(of.name) {
        // Known before it is made: types may hold themselves.
        types.insert(of.name, Value::Null);
        let schema = object_schema(of, types);
        types.insert(of.name, schema);
    }
    json!({ "$ref": format!("#/$defs/{}", of.name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` below a value.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_reference_leads_to_a_type_and_types_with_one_name_are_the_same() {
        for object in KINDS {
            let schema = document(&[object]);
            let mut found = Vec::new();
            references(&schema, &mut found);
            for reference in found {
                let pointer = reference.trim_start_matches('#');
                assert!(schema.pointer(pointer).is_some_and(Value::is_object), "{}: {reference}", object.kind);
            }
            assert_eq!(schema["properties"]["kind"]["const"], object.kind);
        }
    }

    #[test]
    fn rejected_fields_fit_nothing_and_required_ones_are_named() {
        let schema = document(&[spec::schema::kind("Pod").expect("it is there")]);
        let container = &schema["$defs"]["Container"];
        assert_eq!(container["additionalProperties"], false);
        assert!(container["required"].as_array().is_some_and(|names| names.contains(&json!("name"))), "{container}");
        assert_eq!(schema["required"].as_array().map(Vec::len), Some(4), "{}", schema["required"]);
        let limits = &schema["$defs"]["ResourceRequirements"]["properties"]["claims"];
        assert!(limits["not"].is_object(), "{limits}");
    }
}
