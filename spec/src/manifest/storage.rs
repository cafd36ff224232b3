//! PersistentVolumeClaim and PersistentVolume.

use std::collections::BTreeMap;

use crate::codes;
use crate::node::Node;
use crate::pod::VolumeSource;
use crate::schema::report::Report;
use crate::schema::{Status, kind, read};

use super::env::exactly_one;
use super::metadata::Meta;
use super::{selector, volume};

/// What a claim asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Claim {
    /// Bytes asked for.
    pub bytes: u64,
    /// How it may be mounted.
    pub access_modes: Vec<String>,
    /// The PersistentVolume it names.
    pub volume: Option<String>,
    /// Labels that the PersistentVolume must have.
    pub labels: BTreeMap<String, String>,
    /// Conditions besides, which no matching understands: such a claim matches no PersistentVolume.
    pub expressions: bool,
    /// Class of storage; `Some("")` asks for none.
    pub class: Option<String>,
}

/// A PersistentVolume.
#[derive(Debug, Clone, PartialEq)]
pub struct Storage {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Bytes it has.
    pub bytes: u64,
    /// How it may be mounted.
    pub access_modes: Vec<String>,
    /// Class of storage.
    pub class: Option<String>,
    /// The claim it is kept for: namespace and name.
    pub claim: Option<(String, String)>,
    /// Where the data is.
    pub place: Place,
}

/// Where the data of a PersistentVolume is.
#[derive(Debug, Clone, PartialEq)]
pub struct Place(pub VolumeSource);

/// A claim's spec.
pub(super) fn claim(report: &mut Report<'_>, spec: &Node) -> Claim {
    let modes = access_modes(report, spec);
    block(report, spec);
    let mut bytes = 0;
    if let Some(requests) = read::dig(spec, &["resources", "requests"]).filter(|r| r.as_map().is_some()) {
        match read::get(requests, "storage") {
            None if requests.as_map().is_some_and(|map| map.is_empty()) => {}
            None => {
                report.error_at(codes::MISSING_FIELD, requests, "storage", "`storage` is missing");
            }
            Some(storage) => bytes = positive(report, storage),
        }
    }
    let selector = read::get(spec, "selector");
    if let Some(selector) = selector {
        selector::expressions(report, selector);
    }
    Claim {
        bytes,
        access_modes: modes,
        volume: read::string(spec, "volumeName"),
        labels: selector.map(|s| read::text_map(s, "matchLabels")).unwrap_or_default(),
        expressions: selector.is_some_and(|s| !read::list(s, "matchExpressions").is_empty()),
        class: read::get(spec, "storageClassName").and_then(Node::as_str).map(str::to_owned),
    }
}

fn positive(report: &mut Report<'_>, node: &Node) -> u64 {
    let Some(quantity) = read::as_quantity(node) else { return 0 };
    if quantity.is_negative() || quantity.is_zero() {
        report.error(codes::OUT_OF_RANGE, node, "`storage` must be more than 0");
    }
    quantity.units().unwrap_or(0)
}

fn access_modes(report: &mut Report<'_>, spec: &Node) -> Vec<String> {
    let modes = read::strings(spec, "accessModes");
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let message = "`ReadWriteOncePod` cannot be combined with other access modes";
        report.error_at(codes::CONFLICT, spec, "accessModes", message);
    }
    modes
}

fn block(report: &mut Report<'_>, spec: &Node) {
    if read::text(spec, "volumeMode") == Some("Block") {
        let message = "`volumeMode: Block` is not supported: it needs a storage driver of a cluster";
        report.error_at(codes::REJECTED_VOLUME, spec, "volumeMode", message).hint = Some("use `Filesystem`".to_owned());
    }
}

/// A PersistentVolume.
pub(super) fn volume(report: &mut Report<'_>, node: &Node, meta: &Meta) -> Option<Storage> {
    let spec = read::get(node, "spec").filter(|spec| spec.as_map().is_some())?;
    let access_modes = access_modes(report, spec);
    block(report, spec);
    let mut bytes = 0;
    if let Some(capacity) = read::get(spec, "capacity").filter(|c| c.as_map().is_some_and(|map| !map.is_empty())) {
        match read::get(capacity, "storage") {
            None => {
                report.error_at(codes::MISSING_FIELD, capacity, "storage", "`storage` is missing");
            }
            Some(storage) => bytes = positive(report, storage),
        }
    }
    let fields = kind("PersistentVolume").and_then(|kind| match kind.root.field("spec")?.kind {
        crate::schema::Kind::Obj(ty) => Some(ty.fields),
        _ => None,
    });
    let refused = fields
        .unwrap_or_default()
        .iter()
        .any(|field| matches!(field.status, Status::Rejected(..)) && read::get(spec, field.name).is_some());
    if refused {
        return None;
    }
    let source = exactly_one(report, spec, &["hostPath", "local"], "spec")?;
    let inner = read::get(spec, source)?;
    if source == "local" && read::dig(spec, &["nodeAffinity", "required"]).is_none() {
        // Kubernetes demands it; on one node it says nothing.
        let message = "`nodeAffinity` is missing, which Kubernetes demands of a local volume";
        report.error_at(codes::MISSING_FIELD, spec, "nodeAffinity", message);
    }
    let place = match source {
        "hostPath" => volume::host_path(report, inner)?,
        _ => VolumeSource::Bind { path: volume::host_directory(report, inner)?, create: false },
    };
    let reference = read::get(spec, "claimRef");
    Some(Storage {
        name: meta.name.clone(),
        labels: meta.labels.clone(),
        bytes,
        access_modes,
        class: read::string(spec, "storageClassName"),
        claim: reference.and_then(|r| {
            let namespace = read::string(r, "namespace").unwrap_or_else(|| "default".to_owned());
            Some((namespace, read::string(r, "name")?))
        }),
        place: Place(place),
    })
}
