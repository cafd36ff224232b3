//! `mainstay explain`: what becomes of a field of a manifest here. Reads the table that manifests are checked with.

use serde_json::{Value, json};
use spec::schema::{Field, KINDS, Kind, ObjectKind, Status, Type};

use super::output::{CliError, Io, Outcome, Table};

/// `deployment.spec.replicas`, with the kind in any case; without a path the kind itself; without anything all kinds.
pub(super) fn explain(path: Option<&str>, io: &mut Io<'_>) -> Outcome {
    let Some(path) = path else { return kinds(io) };
    let mut parts = path.split('.').filter(|part| !part.is_empty());
    let name = parts.next().unwrap_or_default();
    let known = KINDS.iter().find(|object| object.kind.eq_ignore_ascii_case(name));
    // `service` is a kind of Kubernetes and a part of a Compose file: what the first has wins.
    if known.is_none_or(|object| !has(object, path))
        && let Some(text) = spec::manifest::compose::explain::explain(&lower_first(path))
    {
        if io.json {
            io.json(&json!({ "field": path, "text": text }))?;
        } else {
            io.out.write_all(text.as_bytes())?;
        }
        return Ok(0);
    }
    let object = known.ok_or_else(|| {
        let close = crate::config::nearest(name, KINDS.iter().map(|object| object.kind));
        let hint =
            close.map_or("`mainstay explain` lists all kinds".to_owned(), |close| format!("did you mean `{close}`?"));
        CliError::new(format!("there is no kind `{name}`")).hint(hint)
    })?;
    let mut at = object.kind.to_owned();
    let mut inside: Option<&'static Type> = Some(object.root);
    let mut field: Option<&'static Field> = None;
    for part in parts {
        // `containers[0]`, `containers[]` and `containers` mean the same.
        let part = part.split_once('[').map_or(part, |(name, _)| name);
        let Some(of) = inside else {
            return Err(CliError::new(format!("`{at}` has no fields of its own")).into());
        };
        let next = of.field(part).ok_or_else(|| {
            let close = crate::config::nearest(part, of.fields.iter().map(|field| field.name));
            let hint = close.map_or(format!("`mainstay explain {at}` lists its fields"), |close| {
                format!("did you mean `{close}`?")
            });
            CliError::new(format!("`{at}` has no field `{part}`")).hint(hint)
        })?;
        at = format!("{at}.{}", next.name);
        inside = object_of(&next.kind);
        field = Some(next);
    }
    if io.json {
        io.json(&describe(object, &at, field, inside))?;
        return Ok(0);
    }
    writeln!(io.out, "{at} ({})", object.api_version)?;
    if let Some(field) = field {
        writeln!(io.out, "  {}", field.doc)?;
        writeln!(io.out, "  takes: {}{}", takes(&field.kind), if field.required { ", required" } else { "" })?;
        writeln!(io.out, "  here:  {}", sentence(&field.status))?;
    } else {
        writeln!(io.out, "  {}", object.root.doc)?;
    }
    if let Some(inside) = inside.filter(|inside| !inside.fields.is_empty()) {
        writeln!(io.out)?;
        let mut table = Table::new(&["FIELD", "TAKES", "HERE", "WHAT IT DOES"]);
        for field in inside.fields {
            let name = if field.required { format!("{}*", field.name) } else { field.name.to_owned() };
            table.row([name, takes(&field.kind), word(&field.status).to_owned(), field.doc.to_owned()]);
        }
        table.write(io.out)?;
        if inside.fields.iter().any(|field| field.required) {
            writeln!(io.out, "* required")?;
        }
    }
    Ok(0)
}

/// Whether a kind has the field that the rest of a path names.
fn has(object: &ObjectKind, path: &str) -> bool {
    let mut inside = Some(object.root);
    path.split('.').filter(|part| !part.is_empty()).skip(1).all(|part| {
        let part = part.split_once('[').map_or(part, |(name, _)| name);
        match inside.and_then(|of| of.field(part)) {
            Some(field) => {
                inside = object_of(&field.kind);
                true
            }
            None => false,
        }
    })
}

/// A path with its first word in lower case, as Compose's table has it.
fn lower_first(path: &str) -> String {
    match path.split_once('.') {
        Some((first, rest)) => format!("{}.{rest}", first.to_ascii_lowercase()),
        None => path.to_ascii_lowercase(),
    }
}

fn kinds(io: &mut Io<'_>) -> Outcome {
    if io.json {
        let one = |object: &ObjectKind| json!({ "apiVersion": object.api_version, "kind": object.kind, "doc": object.root.doc });
        io.json(&KINDS.iter().map(one).collect::<Vec<_>>())?;
        return Ok(0);
    }
    let mut table = Table::new(&["KIND", "API VERSION", "WHAT IT IS"]);
    for object in KINDS {
        table.row([object.kind.to_owned(), object.api_version.to_owned(), object.root.doc.to_owned()]);
    }
    table.write(io.out)?;
    Ok(0)
}

/// The object that a field holds, or its list or mapping does.
fn object_of(kind: &Kind) -> Option<&'static Type> {
    match kind {
        Kind::Obj(inside) | Kind::Objs(inside) => Some(inside),
        Kind::List(inside) | Kind::Map(inside) => object_of(inside),
        Kind::Str(_)
        | Kind::Enum(_)
        | Kind::Bool
        | Kind::Int(..)
        | Kind::Quantity
        | Kind::Port
        | Kind::IntOrPercent
        | Kind::Labels
        | Kind::Annotations
        | Kind::Any => None,
    }
}

fn takes(kind: &Kind) -> String {
    match kind {
        Kind::Str(_) => "text".to_owned(),
        Kind::Enum(words) => words.join("|"),
        Kind::Bool => "true|false".to_owned(),
        Kind::Int(..) => "number".to_owned(),
        Kind::Quantity => "quantity".to_owned(),
        Kind::Port => "port".to_owned(),
        Kind::IntOrPercent => "number or percentage".to_owned(),
        Kind::Obj(inside) => inside.name.to_owned(),
        Kind::Objs(inside) => format!("list of {}", inside.name),
        Kind::List(inside) => format!("list of {}", takes(inside)),
        Kind::Map(inside) => format!("mapping to {}", takes(inside)),
        Kind::Labels => "labels".to_owned(),
        Kind::Annotations => "annotations".to_owned(),
        Kind::Any => "anything".to_owned(),
    }
}

const fn word(status: &Status) -> &'static str {
    match status {
        Status::Enforced => "enforced",
        Status::Silent => "ignored",
        Status::NoEffect(_) => "no effect",
        Status::Rejected(..) => "rejected",
    }
}

fn sentence(status: &Status) -> String {
    match status {
        Status::Enforced => "enforced, as in Kubernetes".to_owned(),
        Status::Silent => "read and dropped: it describes an object in a cluster, not a wish".to_owned(),
        Status::NoEffect(why) => format!("accepted without effect: {why}"),
        Status::Rejected(why, "") => format!("rejected: {why}"),
        Status::Rejected(why, hint) => format!("rejected: {why}; {hint}"),
    }
}

fn describe(object: &ObjectKind, at: &str, field: Option<&Field>, inside: Option<&Type>) -> Value {
    let one = |field: &Field| {
        json!({
            "name": field.name,
            "takes": takes(&field.kind),
            "required": field.required,
            "status": word(&field.status),
            "note": sentence(&field.status),
            "doc": field.doc,
        })
    };
    json!({
        "path": at,
        "apiVersion": object.api_version,
        "field": field.map(one),
        "fields": inside.map(|inside| inside.fields.iter().map(one).collect::<Vec<_>>()).unwrap_or_default(),
    })
}
