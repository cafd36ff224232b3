//! Checks a tree against the field contract and reports everything that does not fit.

use super::report::Report;
use super::{Field, Format, Kind, Status, Type, read};
use crate::codes;
use crate::node::{Node, Style, Value};

/// Checks a mapping against a type.
pub(crate) fn object(report: &mut Report<'_>, ty: &'static Type, node: &Node) {
    let Some(map) = node.as_map() else {
        report.error(codes::WRONG_TYPE, node, format!("expected a mapping, found {}", node.kind()));
        return;
    };
    for (key, entry) in map {
        match ty.field(key) {
            Some(field) => value_of(report, field, node, &entry.node),
            None => unknown(report, ty, node, key),
        }
    }
    for field in ty.fields.iter().filter(|field| field.required) {
        if read::get(node, field.name).is_none_or(|value| is_empty(field, value)) && !report.is_hushed(node, field.name)
        {
            let given = map.contains_key(field.name);
            let what = if given { "must not be empty" } else { "is missing" };
            let found = report.error_at(codes::MISSING_FIELD, node, field.name, format!("`{}` {what}", field.name));
            if field.name == "selector" {
                found.hint = Some("write `selector: {matchLabels: ...}` with labels of the template".to_owned());
            }
        }
    }
}

fn is_empty(field: &Field, value: &Node) -> bool {
    match (&field.kind, &value.value) {
        (Kind::List(_) | Kind::Objs(_), Value::Seq(items)) => items.is_empty(),
        (Kind::Map(_), Value::Map(map)) => map.is_empty(),
        (_, Value::String(text, _)) => text.is_empty(),
        _ => false,
    }
}

/// A key whose meaning cannot be guessed, or that means what is there already.
fn unknown(report: &mut Report<'_>, ty: &'static Type, node: &Node, key: &str) {
    let hint = match suggest(key, ty.fields.iter().map(|field| field.name)) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("a {} has no such field; see `mainstay explain`", ty.name),
    };
    report.error_at(codes::UNKNOWN_FIELD, node, key, format!("unknown field `{key}`")).hint = Some(hint);
}

/// The name among these that was probably meant.
pub(crate) fn suggest<'n>(written: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let lower = written.to_ascii_lowercase();
    let mut best = None;
    for name in names {
        let known = name.to_ascii_lowercase();
        let plural = known.strip_suffix('s') == Some(lower.as_str()) || lower.strip_suffix('s') == Some(known.as_str());
        let distance = if plural || known.strip_suffix("seconds") == Some(lower.as_str()) {
            0
        } else {
            strsim::damerau_levenshtein(&lower, &known)
        };
        let bound = (written.len().min(name.len()) / 3).clamp(1, 3);
        if distance <= bound && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}

fn value_of(report: &mut Report<'_>, field: &'static Field, parent: &Node, node: &Node) {
    if node.value == Value::Null {
        return;
    }
    match field.status {
        Status::Rejected(why, hint) => {
            if !matches!(&node.value, Value::Seq(items) if items.is_empty()) {
                let message = format!("`{}` is not supported: {why}", field.name);
                report.error_at(rejection(why), parent, field.name, message).hint = Some(hint.to_owned());
            }
            return;
        }
        Status::NoEffect(why) => {
            let unset = match &node.value {
                Value::Bool(false) => true,
                Value::Seq(items) => items.is_empty(),
                Value::Map(map) => map.is_empty(),
                Value::String(text, _) => text.is_empty(),
                _ => false,
            };
            if !unset {
                let message = format!("`{}` has no effect: {why}", field.name);
                report.warn_at(codes::NO_EFFECT, parent, field.name, message);
            }
        }
        Status::Enforced | Status::Silent => {}
    }
    value(report, &field.kind, field.name, field.required, node);
}

fn rejection(why: &str) -> &'static str {
    if why.starts_with("the volume type") {
        codes::REJECTED_VOLUME
    } else if why.starts_with("only Linux") {
        codes::REJECTED_WINDOWS
    } else {
        codes::REJECTED_FIELD
    }
}

fn value(report: &mut Report<'_>, kind: &'static Kind, name: &str, required: bool, node: &Node) {
    if let Some(tag) = &node.tag {
        report.error(codes::TAG, node, format!("the tag `{tag}` has no meaning here"));
        return;
    }
    match kind {
        Kind::Any => {}
        Kind::Str(format) => {
            if let Some(text) = string(report, name, node)
                && !(text.is_empty() && (!required || *format == Format::Any))
                && !text.is_empty()
                && let Some(fault) = format.fault(text)
            {
                let code = match format {
                    Format::Cron | Format::TimeZone => codes::BAD_SCHEDULE,
                    Format::Ip => codes::BAD_VALUE,
                    _ => codes::BAD_NAME,
                };
                report.error(code, node, format!("`{name}`: {} {fault}", quoted(text)));
            }
        }
        Kind::Enum(words) => {
            if let Some(text) = string(report, name, node)
                && !text.is_empty()
                && !words.contains(&text)
            {
                let hint = suggest(text, words.iter().copied());
                let message = format!("`{name}` cannot be {}", quoted(text));
                let shown: Vec<_> = words.iter().filter(|word| !word.is_empty()).copied().collect();
                report.error(codes::BAD_VALUE, node, message).hint = Some(match hint {
                    Some(word) => format!("did you mean `{word}`?"),
                    None => format!("it can be {}", shown.join(", ")),
                });
            }
        }
        Kind::Bool => boolean(report, name, node),
        Kind::Int(min, max) => {
            if let Some(int) = integer(report, name, node)
                && !(*min..=*max).contains(&int)
            {
                range(report, name, node, *min, *max);
            }
        }
        Kind::Quantity => quantity(report, name, node),
        Kind::Port => match &node.value {
            Value::String(text, _) => {
                if let Some(fault) = super::format::port_name(text) {
                    let hint = text.parse::<u16>().is_ok().then(|| "remove the quotes".to_owned());
                    report.error(codes::BAD_VALUE, node, format!("`{name}`: {} {fault}", quoted(text))).hint = hint;
                }
            }
            _ => {
                if let Some(int) = integer(report, name, node)
                    && !(1..=65535).contains(&int)
                {
                    range(report, name, node, 1, 65535);
                }
            }
        },
        Kind::IntOrPercent => match &node.value {
            Value::String(text, _) => {
                let digits = text.strip_suffix('%').unwrap_or_default();
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) || digits.len() > 9 {
                    let message = format!("`{name}` takes a whole number or a percentage, not {}", quoted(text));
                    report.error(codes::BAD_VALUE, node, message);
                }
            }
            _ => {
                if let Some(int) = integer(report, name, node)
                    && !(0..=i64::from(i32::MAX)).contains(&int)
                {
                    range(report, name, node, 0, i64::from(i32::MAX));
                }
            }
        },
        Kind::Obj(ty) => {
            if node.as_map().is_some() {
                object(report, ty, node);
            } else {
                wrong(report, name, "a mapping", node);
            }
        }
        Kind::Objs(ty) => match &node.value {
            Value::Seq(items) => {
                for item in items {
                    match &item.value {
                        Value::Null => {
                            report.error(codes::MISSING_FIELD, item, format!("an entry of `{name}` is empty"));
                        }
                        Value::Map(_) => object(report, ty, item),
                        _ => {
                            wrong(report, &format!("{name}[]"), "a mapping", item);
                        }
                    }
                }
            }
            _ => {
                wrong(report, name, "a list", node);
            }
        },
        Kind::List(inner) => match &node.value {
            Value::Seq(items) => {
                for item in items {
                    match (&item.value, inner) {
                        (Value::Null, Kind::Str(_) | Kind::Any) => {}
                        (Value::Null, _) => {
                            report.error(codes::MISSING_FIELD, item, format!("an entry of `{name}` is empty"));
                        }
                        _ => value(report, inner, name, false, item),
                    }
                }
            }
            _ => {
                wrong(report, name, "a list", node);
            }
        },
        Kind::Map(inner) => entries(report, name, node, |report, key, entry| value(report, inner, key, false, entry)),
        Kind::Labels => entries(report, name, node, |report, key, entry| {
            key_syntax(report, node, key, super::format::label_key(key));
            if let Some(text) = string(report, key, entry)
                && let Some(fault) = super::format::label_value(text)
            {
                report.error(codes::BAD_NAME, entry, format!("the label value {} {fault}", quoted(text)));
            }
        }),
        Kind::Annotations => entries(report, name, node, |report, key, entry| {
            // Upper case is allowed in the prefix of annotations (apimachinery, ValidateAnnotations).
            key_syntax(report, node, key, super::format::label_key(&key.to_ascii_lowercase()));
            string(report, key, entry);
        }),
    }
}

fn key_syntax(report: &mut Report<'_>, node: &Node, key: &str, fault: Option<&str>) {
    if let Some(fault) = fault {
        report.error_at(codes::BAD_NAME, node, key, format!("the key {} {fault}", quoted(key)));
    }
}

fn entries(report: &mut Report<'_>, name: &str, node: &Node, mut each: impl FnMut(&mut Report<'_>, &str, &Node)) {
    match node.as_map() {
        Some(map) => {
            for (key, entry) in map {
                if entry.node.value != Value::Null {
                    each(report, key, &entry.node);
                }
            }
        }
        None => {
            wrong(report, name, "a mapping", node);
        }
    }
}

/// A value from a manifest as it appears in a message.
pub(crate) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    if short.len() < text.len() { format!("`{short}…`") } else { format!("`{short}`") }
}

fn wrong<'r>(
    report: &'r mut Report<'_>,
    name: &str,
    wanted: &str,
    node: &Node,
) -> &'r mut crate::diagnostic::Diagnostic {
    let message = format!("`{name}` takes {wanted}, not {}", node.kind());
    let written = report.written(node);
    let hint = match &node.value {
        Value::String(text, _) if wanted == "a list" && !report.secret && !text.contains(['"', '\'', '\\']) => {
            let words: Vec<_> = text.split_whitespace().map(|word| format!("{word:?}")).collect();
            Some(format!("write it as a list: [{}]", words.join(", ")))
        }
        Value::String(..) if wanted == "a list" => Some("write it as a list: [\"one\", \"two\"]".to_owned()),
        Value::String(text, Style::Plain) if wanted == "a mapping" => as_entry(name, text, report.secret),
        Value::Map(map) if name == "env" => {
            map.keys().next().map(|key| format!("write `- name: {key}` and `value:` below it"))
        }
        Value::Map(_) if wanted == "a list" => Some("begin it with `- `".to_owned()),
        Value::Seq(_) if wanted == "a mapping" => Some("remove the `-`".to_owned()),
        Value::String(text, _) if wanted == "a whole number" && text.parse::<i64>().is_ok() => {
            Some(format!("remove the quotes: {}", written.trim_matches(['"', '\''])))
        }
        _ => None,
    };
    let found = report.error(codes::WRONG_TYPE, node, message);
    found.hint = hint;
    found
}

/// How a short text was meant, where a mapping is wanted: in other tools it is one.
fn as_entry(name: &str, text: &str, secret: bool) -> Option<String> {
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match (name, text.split_once('='), text.split_once(':')) {
        ("env[]", Some((key, _)), _) if is_name(key) => Some(format!("write `- name: {key}` and `value:` below it")),
        ("ports[]", _, Some((host, port))) if host.parse::<u16>().is_ok() && port.parse::<u16>().is_ok() => {
            Some(format!("write `- containerPort: {port}` and `hostPort: {host}` below it"))
        }
        ("volumeMounts[]", _, Some(_)) => Some("write `- name:` of a volume and `mountPath:` below it".to_owned()),
        (_, _, Some((key, value))) if is_name(key) && !value.starts_with(['/', ' ']) => Some(if secret {
            "a colon needs a space after it".to_owned()
        } else {
            format!("a colon needs a space after it: `{key}: {value}`")
        }),
        _ => None,
    }
}

/// The text of a node; numbers and booleans are no text, as in Kubernetes.
fn string<'n>(report: &mut Report<'_>, name: &str, node: &'n Node) -> Option<&'n str> {
    match &node.value {
        Value::String(text, Style::Plain) if read::yaml11_bool(text).is_some() => {
            let message = format!("`{name}` takes text; without quotes `{text}` is a boolean in YAML 1.1");
            report.error(codes::WRONG_TYPE, node, message).hint = Some(format!("put it in quotes: \"{text}\""));
            None
        }
        Value::String(text, _) => Some(text),
        Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) => {
            let written = report.written(node);
            wrong(report, name, "text", node).hint = Some(format!("put it in quotes: \"{written}\""));
            None
        }
        _ => {
            wrong(report, name, "text", node);
            None
        }
    }
}

fn boolean(report: &mut Report<'_>, name: &str, node: &Node) {
    match &node.value {
        Value::Bool(_) => {}
        Value::String(text, Style::Plain) => match read::yaml11_bool(text) {
            // Kubernetes' reader takes YAML 1.1 booleans.
            Some(value) => {
                let message = format!("`{text}` is read as `{value}`, but only by YAML 1.1 readers");
                report.warn(codes::DEPRECATED, node, message).hint = Some(format!("write `{value}`"));
            }
            None => {
                wrong(report, name, "`true` or `false`", node);
            }
        },
        Value::String(text, Style::Quoted) if matches!(text.as_str(), "true" | "false") => {
            wrong(report, name, "`true` or `false`", node).hint = Some("remove the quotes".to_owned());
        }
        _ => {
            wrong(report, name, "`true` or `false`", node);
        }
    }
}

fn integer(report: &mut Report<'_>, name: &str, node: &Node) -> Option<i64> {
    let int = read::as_int(node);
    if int.is_some() {
        return int;
    }
    if matches!(node.value, Value::UInt(_)) {
        range(report, name, node, i64::MIN, i64::MAX);
        return None;
    }
    let hint = match &node.value {
        Value::String(text, _) if text.parse::<i64>().is_ok() => Some("remove the quotes".to_owned()),
        _ => None,
    };
    wrong(report, name, "a whole number", node).hint = hint;
    None
}

fn range(report: &mut Report<'_>, name: &str, node: &Node, min: i64, max: i64) {
    let written = report.written(node);
    let bounds = match (min, max) {
        (0, i64::MAX) => "must not be negative".to_owned(),
        (0, 2_147_483_647) if written.starts_with('-') => "must not be negative".to_owned(),
        (0, 0o777) => "must be a file mode from 0 to 0777".to_owned(),
        _ => format!("must be {min} to {max}"),
    };
    report.error(codes::OUT_OF_RANGE, node, format!("`{name}` is {written}, but {bounds}"));
}

fn quantity(report: &mut Report<'_>, name: &str, node: &Node) {
    if read::as_quantity(node).is_some() {
        return;
    }
    let Value::String(text, _) = &node.value else {
        wrong(report, name, "a quantity such as `500m` or `128Mi`", node);
        return;
    };
    let trimmed = text.trim_end_matches(['b', 'B']);
    let fixed = [
        trimmed.to_owned(),
        trimmed.replace('K', "k"),
        trimmed.replace("KI", "Ki").replace("MI", "Mi").replace("GI", "Gi"),
        trimmed.replace("ki", "Ki").replace("mi", "Mi").replace("gi", "Gi"),
        trimmed.replace('g', "G"),
        trimmed.replace(' ', ""),
    ];
    let hint = fixed.iter().find(|fixed| crate::quantity::Quantity::parse(fixed).is_some());
    report.error(codes::BAD_QUANTITY, node, format!("`{name}`: {} is not a quantity", quoted(text))).hint =
        Some(match hint {
            Some(fixed) => format!("did you mean `{fixed}`?"),
            None => "write a number with a unit: m, k, M, G, T, Ki, Mi, Gi, Ti".to_owned(),
        });
}
