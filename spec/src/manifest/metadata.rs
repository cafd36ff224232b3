//! Names, namespaces, labels and annotations of an object.

use std::collections::BTreeMap;

use crate::codes;
use crate::digest::Digest;
use crate::node::Node;
use crate::schema::check::quoted;
use crate::schema::report::Report;
use crate::schema::{format, read};

/// Who an object is.
#[derive(Debug, Default)]
pub(super) struct Meta {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) line: u32,
}

/// All annotations of an object together (apimachinery, TotalAnnotationSizeLimitB).
const ANNOTATION_BYTES: usize = 256 << 10;

/// Reads and checks the metadata of an object.
pub(super) fn read(report: &mut Report<'_>, kind: &str, node: &Node) -> Meta {
    let mut meta = Meta { namespace: "default".to_owned(), line: node.span.line, ..Meta::default() };
    let Some(metadata) = read::get(node, "metadata").filter(|m| m.as_map().is_some()) else { return meta };
    meta.labels = read::text_map(metadata, "labels");
    meta.annotations = annotations(report, metadata);
    let cluster_wide = matches!(kind, "Namespace" | "PersistentVolume");
    if cluster_wide {
        meta.namespace = String::new();
    } else if let Some(namespace) = read::string(metadata, "namespace") {
        meta.namespace = namespace;
    }
    if let (Some(_), Some(at)) = (read::text(metadata, "name"), read::get(metadata, "generateName"))
        && let Some(prefix) = at.as_str().filter(|prefix| !prefix.is_empty())
        // Whatever is made up follows it (apimachinery, maskTrailingDash).
        && let Some(fault) = name_fault(kind, &format!("{}a", prefix.trim_end_matches('-')))
    {
        report.error(codes::BAD_NAME, at, format!("`generateName`: {} {fault}", quoted(prefix)));
    }
    match (read::text(metadata, "name"), read::text(metadata, "generateName")) {
        (Some(name), _) => {
            meta.name = name.to_owned();
            if let Some(at) = read::get(metadata, "name")
                && let Some(fault) = name_fault(kind, name)
            {
                report.error(codes::BAD_NAME, at, format!("`name`: {} {fault}", quoted(name)));
            }
        }
        (None, Some(prefix)) => {
            // The same text always makes the same name, so the object keeps its identity.
            let text = report.text.get(node.span.start..node.span.end).unwrap_or_default();
            meta.name = format!("{prefix}{}", Digest::of(text.as_bytes()).short().get(..5).unwrap_or_default());
            if let Some(at) = read::get(metadata, "generateName")
                && let Some(fault) = name_fault(kind, &meta.name)
            {
                report.error(codes::BAD_NAME, at, format!("`generateName`: {} {fault}", quoted(prefix)));
            }
        }
        (None, None) => {
            if read::get(metadata, "name").is_none_or(|name| name.as_str().is_some()) {
                report.error_at(codes::MISSING_FIELD, metadata, "name", "`name` is missing");
            }
        }
    }
    meta
}

/// Annotations, with their total size checked.
pub(super) fn annotations(report: &mut Report<'_>, metadata: &Node) -> BTreeMap<String, String> {
    let annotations = read::text_map(metadata, "annotations");
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > ANNOTATION_BYTES {
        let message = format!("the annotations have {bytes} bytes; at most {ANNOTATION_BYTES} are allowed");
        report.error_at(codes::TOO_LARGE, metadata, "annotations", message);
    }
    annotations
}

/// What is wrong with a name of a kind (kubernetes, `pkg/apis/*/validation`).
fn name_fault(kind: &str, name: &str) -> Option<&'static str> {
    match kind {
        "Service" => format::dns_1035_label(name),
        "Namespace" => format::dns_label(name),
        "CronJob" if name.len() > 52 => Some("must not be longer than 52 characters (its Jobs get a longer name)"),
        "Job" if name.len() > 63 => Some("must not be longer than 63 characters (it becomes a label)"),
        "StatefulSet" => format::dns_label(name),
        _ => format::dns_subdomain(name),
    }
}
