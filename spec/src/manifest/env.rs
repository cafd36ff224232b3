//! Variables of a container.

use crate::codes;
use crate::node::Node;
use crate::pod::{EnvSource, EnvVar};
use crate::schema::check::{quoted, suggest};
use crate::schema::read;
use crate::schema::report::Report;

use super::At;

/// A variable whose value may be in another object.
#[derive(Debug, Clone, PartialEq)]
pub enum RawEnv {
    /// Complete in itself.
    Var(EnvVar),
    /// A key of a ConfigMap or Secret.
    Key {
        /// Name of the variable.
        variable: String,
        /// A Secret, not a ConfigMap.
        secret: bool,
        /// Name of the object.
        object: String,
        /// Its key.
        key: String,
        /// Missing is fine.
        optional: bool,
        /// Where that is said.
        at: At,
    },
    /// All keys of a ConfigMap or Secret.
    All {
        /// Put before each key.
        prefix: String,
        /// A Secret, not a ConfigMap.
        secret: bool,
        /// Name of the object.
        object: String,
        /// Missing is fine.
        optional: bool,
        /// Where that is said.
        at: At,
    },
}

/// `envFrom` and `env` of a container, in the order in which they count.
pub(super) fn read(report: &mut Report<'_>, container: &Node) -> Vec<RawEnv> {
    let mut out = Vec::new();
    for source in read::list(container, "envFrom") {
        if let Some(raw) = env_from(report, source) {
            out.push(raw);
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    for variable in read::list(container, "env") {
        let Some(name) = read::text(variable, "name") else { continue };
        if seen.contains(&name) {
            report.warn(codes::DUPLICATE_ENTRY, variable, format!("the variable {} is set twice", quoted(name))).hint =
                Some("the last one counts".to_owned());
        }
        seen.push(name);
        if let Some(raw) = env(report, variable, name) {
            out.push(raw);
        }
    }
    out
}

fn env_from(report: &mut Report<'_>, source: &Node) -> Option<RawEnv> {
    let found = exactly_one(report, source, &["configMapRef", "secretRef"], "envFrom")?;
    let reference = read::get(source, found)?;
    let prefix = read::string(source, "prefix").unwrap_or_default();
    if let Some(at) = read::get(source, "prefix")
        && !prefix.is_empty()
        && let Some(fault) = crate::schema::Format::EnvName.fault(&prefix)
    {
        report.error(codes::BAD_NAME, at, format!("`prefix`: {} {fault}", quoted(&prefix)));
    }
    Some(RawEnv::All {
        prefix,
        secret: found == "secretRef",
        object: read::string(reference, "name")?,
        optional: read::boolean(reference, "optional").unwrap_or(false),
        at: At::of(report, read::get(reference, "name")?),
    })
}

fn env(report: &mut Report<'_>, variable: &Node, name: &str) -> Option<RawEnv> {
    let value = read::get(variable, "value");
    let Some(from) = read::get(variable, "valueFrom") else {
        let template = value.and_then(Node::as_str).unwrap_or_default().to_owned();
        return Some(RawEnv::Var(EnvVar { name: name.to_owned(), source: EnvSource::Template(template) }));
    };
    if value.and_then(Node::as_str).is_some_and(|text| !text.is_empty()) {
        let message = "`value` and `valueFrom` cannot both be set";
        report.error_at(codes::CONFLICT, variable, "valueFrom", message);
    }
    let fields = ["configMapKeyRef", "secretKeyRef", "fieldRef", "resourceFieldRef"];
    if read::get(from, "fileKeyRef").is_some() {
        return None;
    }
    let found = exactly_one(report, from, &fields, "valueFrom")?;
    let inner = read::get(from, found)?;
    let source = match found {
        "fieldRef" => field(report, inner, ENV_FIELDS)?,
        "resourceFieldRef" => resource(report, inner)?,
        _ => {
            return Some(RawEnv::Key {
                variable: name.to_owned(),
                secret: found == "secretKeyRef",
                object: read::string(inner, "name")?,
                key: read::string(inner, "key")?,
                optional: read::boolean(inner, "optional").unwrap_or(false),
                at: At::of(report, inner),
            });
        }
    };
    Some(RawEnv::Var(EnvVar { name: name.to_owned(), source }))
}

/// The one of several fields that is set; another number is an error.
pub(super) fn exactly_one<'f>(report: &mut Report<'_>, node: &Node, fields: &[&'f str], of: &str) -> Option<&'f str> {
    let set: Vec<&'f str> = fields.iter().copied().filter(|field| read::get(node, field).is_some()).collect();
    match set.as_slice() {
        [] => {
            let list = fields.iter().map(|f| format!("`{f}`")).collect::<Vec<_>>().join(", ");
            report.error(codes::EXACTLY_ONE, node, format!("`{of}` needs one of {list}"));
            None
        }
        [one] => Some(one),
        [one, other, ..] => {
            let message = format!("`{one}` and `{other}` cannot both be set");
            report.error_at(codes::EXACTLY_ONE, node, other, message);
            Some(one)
        }
    }
}

/// Facts that variables can have (core/v1 validation, validEnvDownwardAPIFieldPathExpressions).
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Facts that files can have.
pub(super) const FILE_FIELDS: &[&str] =
    &["metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid"];

/// A `fieldRef`.
pub(super) fn field(report: &mut Report<'_>, node: &Node, known: &[&str]) -> Option<EnvSource> {
    let path = read::text(node, "fieldPath")?;
    let at = read::get(node, "fieldPath")?;
    if let Some(version) = read::text(node, "apiVersion")
        && version != "v1"
    {
        report.error_at(codes::BAD_VALUE, node, "apiVersion", "`apiVersion` of a field path can only be `v1`");
    }
    let subscript = ["metadata.labels", "metadata.annotations"].iter().find_map(|map| {
        path.strip_prefix(map)?.strip_prefix("['").or_else(|| path.strip_prefix(map)?.strip_prefix("[\""))
    });
    if let Some(rest) = subscript {
        let key = rest.strip_suffix("']").or_else(|| rest.strip_suffix("\"]"));
        let fault =
            key.map_or(Some("has no closing `']`"), |key| crate::schema::format::label_key(&key.to_ascii_lowercase()));
        if let Some(fault) = fault {
            report.error(codes::BAD_VALUE, at, format!("`fieldPath`: {} {fault}", quoted(path)));
            return None;
        }
        return Some(EnvSource::Field(path.to_owned()));
    }
    if known.contains(&path) {
        return Some(EnvSource::Field(path.to_owned()));
    }
    report.error(codes::BAD_VALUE, at, format!("`fieldPath` cannot be {} here", quoted(path))).hint =
        Some(match suggest(path, known.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("it can be {}, metadata.labels['key'], metadata.annotations['key']", known.join(", ")),
        });
    None
}

/// A `resourceFieldRef`.
pub(super) fn resource(report: &mut Report<'_>, node: &Node) -> Option<EnvSource> {
    let resource = read::text(node, "resource")?;
    let at = read::get(node, "resource")?;
    let name = resource.strip_prefix("limits.").or_else(|| resource.strip_prefix("requests.")).unwrap_or_default();
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !known {
        let names = ["limits.cpu", "limits.memory", "limits.ephemeral-storage"];
        let names = names.into_iter().chain(["requests.cpu", "requests.memory", "requests.ephemeral-storage"]);
        report.error(codes::BAD_VALUE, at, format!("`resource` cannot be {}", quoted(resource))).hint =
            Some(match suggest(resource, names) {
                Some(name) => format!("did you mean `{name}`?"),
                None => {
                    "it can be limits.cpu, limits.memory, limits.ephemeral-storage, and the same of requests".into()
                }
            });
        return None;
    }
    let divisor = read::get(node, "divisor").and_then(read::as_quantity);
    let milli = divisor.and_then(crate::quantity::Quantity::milli).filter(|milli| *milli > 0).unwrap_or(1000);
    // core/v1 validation: validContainerResourceDivisorFor*.
    let allowed = if name == "cpu" {
        matches!(milli, 1 | 1000)
    } else {
        let unit = milli / 1000;
        let ten = (0..=6).any(|power| unit == 1000u64.pow(power));
        let two = (0..=6).any(|power| unit == 1024u64.pow(power));
        milli.is_multiple_of(1000) && (ten || two)
    };
    if !allowed && let Some(at) = read::get(node, "divisor") {
        let can = if name == "cpu" { "`1m` or `1`" } else { "`1`, `1k`, `1M`, `1G`, `1Ki`, `1Mi`, `1Gi` and so on" };
        report.error(codes::BAD_VALUE, at, format!("`divisor` can be {can}"));
    }
    Some(EnvSource::ResourceField {
        container: read::string(node, "containerName"),
        resource: resource.to_owned(),
        divisor_milli: milli,
    })
}
