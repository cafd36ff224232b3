//! The field contract for people and editors: `mainstay explain` and JSON Schemas, made from the same table that
//! manifests are checked against.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use crate::schema::check::suggest;
use crate::schema::{Field, KINDS, Kind, ObjectKind, Status, Type, kind};

/// What a field is and what becomes of it. The path begins with a kind, such as `Pod.spec.containers.image`; indexes
/// may be there (`containers[0]`), and case does not matter for the kind.
#[must_use]
pub fn explain(path: &str) -> Option<String> {
    let plain: String = remove_indexes(path);
    let mut steps = plain.split('.').filter(|step| !step.is_empty());
    let object = find_kind(steps.next()?)?;
    let mut ty = object.root;
    let mut found: Option<&'static Field> = None;
    let mut seen = object.kind.to_owned();
    for step in steps {
        let within = found.map_or(Some(ty), |field| inner(&field.kind))?;
        let field = within.field(step)?;
        let _ = write!(seen, ".{}", field.name);
        ty = within;
        found = Some(field);
    }
    let Some(field) = found else { return Some(explain_kind_of(object)) };
    let mut out = format!("{seen}  <{}>\n\n", describe(&field.kind));
    let _ = writeln!(out, "  {}", field.doc);
    let _ = writeln!(out, "  {}", status(field));
    if let Some(inner) = inner(&field.kind) {
        let _ = writeln!(out, "\n{}:", inner.doc.trim_end_matches('.'));
        fields(inner, &mut out);
    }
    Some(out)
}

/// What an unknown path was probably meant to be.
#[must_use]
pub fn nearest(path: &str) -> Option<String> {
    let plain = remove_indexes(path);
    let mut steps = plain.split('.').filter(|step| !step.is_empty());
    let first = steps.next()?;
    let Some(object) = find_kind(first) else {
        return suggest(first, KINDS.iter().map(|k| k.kind)).map(str::to_owned);
    };
    let mut seen = object.kind.to_owned();
    let mut ty = Some(object.root);
    for step in steps {
        let within = ty?;
        let name = match within.field(step) {
            Some(field) => field.name,
            None => suggest(step, within.fields.iter().map(|field| field.name))?,
        };
        let _ = write!(seen, ".{name}");
        ty = within.field(name).and_then(|field| inner(&field.kind));
    }
    Some(seen)
}

/// What a kind is and which fields it has.
#[must_use]
pub fn explain_kind(name: &str) -> Option<String> {
    find_kind(name).map(explain_kind_of)
}

/// All kinds, one a line.
#[must_use]
pub fn kinds() -> String {
    KINDS.iter().fold(String::new(), |mut out, kind| {
        let _ = writeln!(out, "{:<22} {:<9} {}", kind.kind, kind.api_version, kind.root.doc);
        out
    })
}

fn explain_kind_of(object: &ObjectKind) -> String {
    let mut out = format!("{} ({})\n\n  {}\n\nFields:\n", object.kind, object.api_version, object.root.doc);
    fields(object.root, &mut out);
    out
}

fn fields(ty: &Type, out: &mut String) {
    for field in ty.fields {
        let mark = match field.status {
            Status::Enforced | Status::Silent if field.required => " (required)",
            Status::Enforced | Status::Silent => "",
            Status::NoEffect(_) => " (no effect)",
            Status::Rejected(..) => " (refused)",
        };
        let _ = writeln!(out, "  {} <{}>{mark}\n      {}", field.name, describe(&field.kind), field.doc);
    }
}

fn status(field: &Field) -> String {
    match field.status {
        Status::Enforced if field.required => "Enforced; required.".to_owned(),
        Status::Enforced => "Enforced.".to_owned(),
        Status::Silent => "Accepted and not used.".to_owned(),
        Status::NoEffect(why) => format!("Accepted without effect, with a warning: {why}."),
        Status::Rejected(why, hint) => format!("Refused: {why}. Instead: {hint}."),
    }
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Str(format) => format.describe().to_owned(),
        Kind::Enum(words) => words.iter().filter(|w| !w.is_empty()).copied().collect::<Vec<_>>().join(" | "),
        Kind::Bool => "true | false".to_owned(),
        Kind::Int(i64::MIN, i64::MAX) => "number".to_owned(),
        Kind::Int(min, i64::MAX | 2_147_483_647) => format!("number from {min}"),
        Kind::Int(min, max) => format!("number {min} to {max}"),
        Kind::Quantity => "quantity".to_owned(),
        Kind::Port => "port number or name".to_owned(),
        Kind::IntOrPercent => "number or percentage".to_owned(),
        Kind::Obj(ty) => ty.name.to_owned(),
        Kind::Objs(ty) => format!("list of {}", ty.name),
        Kind::List(inner) => format!("list of {}", describe(inner)),
        Kind::Map(inner) => format!("mapping to {}", describe(inner)),
        Kind::Labels => "labels".to_owned(),
        Kind::Annotations => "annotations".to_owned(),
        Kind::Any => "anything".to_owned(),
    }
}

fn inner(kind: &Kind) -> Option<&'static Type> {
    match kind {
        Kind::Obj(ty) | Kind::Objs(ty) => Some(ty),
        Kind::List(inner) | Kind::Map(inner) => self::inner(inner),
        _ => None,
    }
}

fn find_kind(name: &str) -> Option<&'static ObjectKind> {
    kind(name).or_else(|| {
        let lower = name.to_ascii_lowercase();
        let short = match lower.as_str() {
            "po" => "pod",
            "cm" => "configmap",
            "svc" => "service",
            "pvc" => "persistentvolumeclaim",
            "pv" => "persistentvolume",
            "ns" => "namespace",
            "deploy" => "deployment",
            "rs" => "replicaset",
            "ds" => "daemonset",
            "sts" => "statefulset",
            "cj" => "cronjob",
            other => other.strip_suffix('s').filter(|_| other.len() > 3).unwrap_or(other),
        };
        KINDS.iter().find(|kind| {
            let known = kind.kind.to_ascii_lowercase();
            known == short || known == lower
        })
    })
}

fn remove_indexes(path: &str) -> String {
    let mut depth = 0usize;
    path.chars()
        .filter(|c| match c {
            '[' => {
                depth += 1;
                false
            }
            ']' => {
                depth = depth.saturating_sub(1);
                false
            }
            _ => depth == 0,
        })
        .collect()
}

/// The JSON Schema (draft 2020-12) of a kind, for editors. Fields that are refused are left out, so an editor marks
/// them as unknown.
#[must_use]
pub fn json_schema(name: &str) -> Option<Json> {
    let object = find_kind(name)?;
    let mut types = BTreeMap::new();
    collect(object.root, &mut types);
    let definitions: Map<String, Json> = types.iter().map(|(name, ty)| ((*name).to_owned(), type_schema(ty))).collect();
    let mut root = type_schema(object.root);
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!(object.kind);
    root["properties"]["apiVersion"] = json!({ "const": object.api_version });
    root["properties"]["kind"] = json!({ "const": object.kind });
    root["$defs"] = Json::Object(definitions);
    Some(root)
}

fn collect(ty: &'static Type, types: &mut BTreeMap<&'static str, &'static Type>) {
    for field in ty.fields {
        if let Some(inner) = inner(&field.kind)
            && types.insert(inner.name, inner).is_none()
        {
            collect(inner, types);
        }
    }
}

fn type_schema(ty: &Type) -> Json {
    let accepted = || ty.fields.iter().filter(|field| !matches!(field.status, Status::Rejected(..)));
    let properties: Map<String, Json> = accepted()
        .map(|field| {
            let mut schema = kind_schema(&field.kind);
            let text = match field.status {
                Status::NoEffect(why) => format!("{} Has no effect: {why}.", field.doc),
                _ => field.doc.to_owned(),
            };
            // Beside a reference, draft 2020-12 allows other keywords.
            schema["description"] = json!(text);
            if matches!(field.status, Status::NoEffect(_)) {
                schema["deprecated"] = json!(true);
            }
            (field.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<_> = accepted().filter(|field| field.required).map(|field| field.name).collect();
    json!({
        "type": "object", "description": ty.doc, "properties": properties, "required": required,
        "additionalProperties": false,
    })
}

fn kind_schema(kind: &Kind) -> Json {
    match kind {
        Kind::Str(format) => match format.pattern() {
            Some(pattern) => json!({ "type": ["string", "null"], "pattern": pattern }),
            None => json!({ "type": ["string", "null"] }),
        },
        Kind::Enum(words) => json!({ "enum": words }),
        Kind::Bool => json!({ "type": ["boolean", "null"] }),
        Kind::Int(min, max) => json!({ "type": ["integer", "null"], "minimum": min, "maximum": max }),
        Kind::Quantity => json!({ "type": ["string", "number"] }),
        Kind::Port => json!({ "type": ["integer", "string"] }),
        Kind::IntOrPercent => json!({ "type": ["integer", "string"], "pattern": "^[0-9]+%$", "minimum": 0 }),
        Kind::Obj(ty) => json!({ "$ref": format!("#/$defs/{}", ty.name) }),
        Kind::Objs(ty) => json!({ "type": ["array", "null"], "items": { "$ref": format!("#/$defs/{}", ty.name) } }),
        Kind::List(inner) => json!({ "type": ["array", "null"], "items": kind_schema(inner) }),
        Kind::Map(inner) => json!({ "type": ["object", "null"], "additionalProperties": kind_schema(inner) }),
        Kind::Labels | Kind::Annotations => {
            json!({ "type": ["object", "null"], "additionalProperties": { "type": ["string", "null"] } })
        }
        Kind::Any => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_explained() {
        let text = explain("Pod.spec.containers[0].imagePullPolicy").expect("known");
        assert_eq!(
            text,
            "Pod.spec.containers.imagePullPolicy  <Always | IfNotPresent | Never>\n\n  When to pull.\n  Enforced.\n"
        );
        assert!(explain("deploy.spec.paused").expect("known").contains("without effect"));
        assert!(explain("pod.spec.ephemeralContainers").expect("known").contains("Refused"));
        assert!(explain("sts").expect("a kind").contains("volumes of their own"));
        assert_eq!(explain("Pod.spec.contaners"), None);
        assert_eq!(nearest("Pod.spec.contaners.imge").as_deref(), Some("Pod.spec.containers.image"));
        assert_eq!(nearest("Deploymnt").as_deref(), Some("Deployment"));
    }

    #[test]
    fn every_kind_has_a_schema_whose_references_resolve() {
        for object in KINDS {
            let schema = json_schema(object.kind).expect(object.kind);
            let text = schema.to_string();
            for reference in text.split("\"$ref\":\"#/$defs/").skip(1) {
                let name = reference.split('"').next().expect("a name");
                assert!(schema["$defs"][name].is_object(), "{}: {name}", object.kind);
            }
            assert!(explain_kind(object.kind).is_some());
            assert!(kinds().contains(object.kind));
        }
    }

    /// Every type that a kind leads to, with one path that leads there.
    fn types(ty: &'static Type, path: &str, seen: &mut BTreeMap<&'static str, (String, &'static Type)>) {
        if seen.contains_key(ty.name) {
            return;
        }
        seen.insert(ty.name, (path.to_owned(), ty));
        for field in ty.fields {
            if let Some(inner) = inner(&field.kind) {
                types(inner, &format!("{path}.{}", field.name), seen);
            }
        }
    }

    #[test]
    fn every_field_of_the_validator_is_explained_and_in_the_schema_and_nothing_else() {
        let mut fields = 0;
        for object in KINDS {
            let schema = json_schema(object.kind).expect(object.kind);
            let mut seen = BTreeMap::new();
            types(object.root, object.kind, &mut seen);
            for (name, (path, ty)) in &seen {
                for field in ty.fields {
                    fields += 1;
                    let path = format!("{path}.{}", field.name);
                    let text = explain(&path).unwrap_or_else(|| panic!("{path} is not explained"));
                    assert!(text.contains(&status(field)) && text.contains(field.doc), "{path}: {text}");
                }
                let object = if *name == object.root.name { &schema } else { &schema["$defs"][*name] };
                let Some(properties) = object["properties"].as_object() else { continue };
                let known: Vec<&str> = ty.fields.iter().map(|field| field.name).collect();
                for property in properties.keys() {
                    assert!(known.contains(&property.as_str()), "{name}.{property} is in the schema only");
                }
                for field in ty.fields.iter().filter(|field| !matches!(field.status, Status::Rejected(..))) {
                    assert!(properties.contains_key(field.name), "{name}.{} is not in the schema", field.name);
                }
            }
        }
        assert!(fields > 900, "only {fields} fields");
    }
}
