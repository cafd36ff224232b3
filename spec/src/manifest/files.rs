//! Volumes of generated files: configMap, secret, downwardAPI and projected.

use crate::codes;
use crate::node::Node;
use crate::pod::{DownwardItem, FileItem, FilesSource, FilesVolume};
use crate::schema::check::quoted;
use crate::schema::read;
use crate::schema::report::Report;

use super::env::{FILE_FIELDS, exactly_one, field, resource};
use super::{At, ObjectRef, PodRefs};

/// A configMap, secret or downwardAPI volume.
pub(super) fn single(report: &mut Report<'_>, kind: &str, node: &Node, refs: &mut PodRefs) -> FilesVolume {
    let mut paths = Vec::new();
    let source = match kind {
        "downwardAPI" => Some(facts(report, node, &mut paths)),
        _ => object(report, kind == "secret", node, &mut paths, refs),
    };
    FilesVolume { default_mode: mode(node, "defaultMode"), sources: source.into_iter().collect(), uid: None, gid: None }
}

/// A projected volume.
pub(super) fn projected(report: &mut Report<'_>, node: &Node, refs: &mut PodRefs) -> FilesVolume {
    let mut paths = Vec::new();
    let mut sources = Vec::new();
    for source in read::list(node, "sources") {
        let refused = ["serviceAccountToken", "clusterTrustBundle", "podCertificate"];
        if refused.iter().any(|field| read::get(source, field).is_some()) {
            continue;
        }
        let Some(kind) = exactly_one(report, source, &["configMap", "secret", "downwardAPI"], "sources") else {
            continue;
        };
        let Some(inner) = read::get(source, kind) else { continue };
        sources.extend(match kind {
            "downwardAPI" => Some(facts(report, inner, &mut paths)),
            _ => object(report, kind == "secret", inner, &mut paths, refs),
        });
    }
    FilesVolume { default_mode: mode(node, "defaultMode"), sources, uid: None, gid: None }
}

fn mode(node: &Node, key: &str) -> Option<u32> {
    read::count(node, key)
}

fn object(
    report: &mut Report<'_>,
    secret: bool,
    node: &Node,
    paths: &mut Vec<String>,
    refs: &mut PodRefs,
) -> Option<FilesSource> {
    let name_key = if read::get(node, "secretName").is_some() { "secretName" } else { "name" };
    let name = read::string(node, name_key)?;
    let optional = read::boolean(node, "optional").unwrap_or(false);
    let mut keys = Vec::new();
    let mut items = Vec::new();
    for item in read::list(node, "items") {
        let (Some(key), Some(path)) = (read::string(item, "key"), path(report, item, paths)) else { continue };
        keys.push((key.clone(), At::of(report, read::get(item, "key")?)));
        items.push(FileItem { key, path, mode: mode(item, "mode") });
    }
    let at = At::of(report, read::get(node, name_key)?);
    refs.objects.push(ObjectRef { secret, name: name.clone(), keys, optional, lenient: false, at });
    Some(if secret {
        FilesSource::Secret { name, optional, items }
    } else {
        FilesSource::ConfigMap { name, optional, items }
    })
}

fn facts(report: &mut Report<'_>, node: &Node, paths: &mut Vec<String>) -> FilesSource {
    let mut items = Vec::new();
    for item in read::list(node, "items") {
        let Some(path) = path(report, item, paths) else { continue };
        let Some(kind) = exactly_one(report, item, &["fieldRef", "resourceFieldRef"], "items") else { continue };
        let Some(inner) = read::get(item, kind) else { continue };
        let source = if kind == "fieldRef" {
            field(report, inner, FILE_FIELDS)
        } else {
            if read::text(inner, "containerName").is_none() {
                let message = "`containerName` is missing: a volume belongs to no container";
                report.error_at(codes::MISSING_FIELD, inner, "containerName", message);
            }
            resource(report, inner)
        };
        if let Some(source) = source {
            items.push(DownwardItem { path, source, mode: mode(item, "mode") });
        }
    }
    FilesSource::DownwardApi { items }
}

/// A path inside the volume: relative, without `..`, and used once.
fn path(report: &mut Report<'_>, item: &Node, paths: &mut Vec<String>) -> Option<String> {
    let path = read::string(item, "path")?;
    let at = read::get(item, "path")?;
    if path.starts_with('/') || path.split('/').any(|part| part == "..") || path.starts_with("..") {
        let message = format!("`path`: {} must be relative and without `..`", quoted(&path));
        report.error(codes::BAD_VALUE, at, message);
    } else if paths.contains(&path) {
        report.error(codes::DUPLICATE_ENTRY, at, format!("the path {} is used twice in the volume", quoted(&path)));
    }
    paths.push(path.clone());
    Some(path)
}
