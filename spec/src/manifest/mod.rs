//! Kubernetes manifests: from a file to objects, and from objects to the desired state.
//!
//! A document is read, checked against the field contract, checked for what the contract cannot say, and lowered to
//! the types of [`crate::workload`] and [`crate::pod`]. Every problem is reported, and the good objects of a file are
//! handed on beside the bad ones.

mod assemble;
pub mod compose;
mod config;
mod container;
mod env;
mod files;
mod header;
mod jobs;
mod metadata;
mod pod;
mod probe;
mod resources;
mod security;
mod selector;
mod service;
pub(crate) mod steering;
mod storage;
mod volume;
mod workloads;

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::load::{Document, Limits, MOST, load};
use crate::node::{Node, Span};
use crate::schema::report::Report;
use crate::schema::{check, read, repair};
use crate::workload::{ConfigData, ObjectId, SecretData, Service, Workload};

pub use assemble::{AssembleOptions, Assembly, Missing, assemble};
pub use env::RawEnv;
pub use steering::{DEPENDS_ON, DependsRef, HOLD_WHILE_FILE};
pub use storage::{Claim, Place, Storage};

/// How files are parsed.
#[derive(Debug, Clone, Default)]
pub struct ParseOptions {
    /// Bounds on each file.
    pub limits: Limits,
    /// The file was encrypted: none of its lines and values is to be shown.
    pub secret: bool,
}

/// What a file contains.
#[derive(Debug, Clone, Default)]
pub struct FileObjects {
    /// File name as given to the parser.
    pub name: String,
    /// Objects without errors, in order.
    pub objects: Vec<Object>,
    /// What is wrong or odd.
    pub diagnostics: Vec<Diagnostic>,
    /// Objects with errors, as far as they can be named: what was applied of them before stays.
    pub broken: Vec<ObjectId>,
    /// There is a document that could not even be named: no object of this file may be taken for removed.
    pub unnamed_broken: bool,
    /// No document of the file is a Kubernetes object.
    pub not_a_manifest: bool,
    /// The file is a Compose file, for the other parser.
    pub compose: bool,
}

/// An object without errors.
#[derive(Debug, Clone)]
pub struct Object {
    /// Kind, namespace and name.
    pub id: ObjectId,
    /// Where its document starts.
    pub span: Span,
    /// Where its name is.
    pub name_at: Span,
    /// What it is.
    pub value: ObjectValue,
}

/// What an object is, before references to other objects are resolved.
#[derive(Debug, Clone)]
pub enum ObjectValue {
    /// A workload.
    Workload(Box<RawWorkload>),
    /// A ConfigMap.
    Config(ConfigData),
    /// A Secret.
    Secret(SecretData),
    /// A Service.
    Service(Service),
    /// A PersistentVolumeClaim.
    Claim(Claim),
    /// A PersistentVolume.
    Storage(Storage),
    /// A Namespace.
    Namespace,
}

/// A workload whose references are not resolved yet.
#[derive(Debug, Clone, PartialEq)]
pub struct RawWorkload {
    /// The workload; variables from ConfigMaps and Secrets and claimed volumes are still missing in it.
    pub workload: Workload,
    /// What is missing.
    pub refs: PodRefs,
}

/// What a pod refers to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PodRefs {
    /// Variables, for each container in the order of `PodSpec::all_containers`.
    pub env: Vec<Vec<RawEnv>>,
    /// Claimed volumes.
    pub claims: Vec<ClaimRef>,
    /// ConfigMaps and Secrets that volumes show, and Secrets for pulling.
    pub objects: Vec<ObjectRef>,
    /// Ports of the host, published ones and those of a pod in the host's network: index among the containers, index among its ports.
    pub host_ports: Vec<(usize, usize, At)>,
    /// Labels that the node must have.
    pub node_selector: Option<At>,
    /// Labels of its selector, when it has nothing but labels.
    pub selector: std::collections::BTreeMap<String, String>,
    /// Workloads that must be up before.
    pub depends: Vec<DependsRef>,
}

/// A place that a later finding can point at.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct At {
    /// Where it is written.
    pub span: Span,
    /// Its path.
    pub path: String,
}

/// A volume that is a claim.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimRef {
    /// Name of the volume in the pod.
    pub volume: String,
    /// Name of the claim.
    pub claim: String,
    /// Where that is said.
    pub at: At,
}

/// Keys of a ConfigMap or Secret that must be there.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectRef {
    /// A Secret, not a ConfigMap.
    pub secret: bool,
    /// Its name.
    pub name: String,
    /// Keys it must have, and where that is said.
    pub keys: Vec<(String, At)>,
    /// Absent is fine.
    pub optional: bool,
    /// Missing is only worth a warning, as for pull credentials.
    pub lenient: bool,
    /// Where that is said.
    pub at: At,
}

/// Parses one file.
#[must_use]
pub fn parse_file(name: &str, bytes: &[u8], options: &ParseOptions) -> FileObjects {
    let mut loaded = load(name, bytes, &options.limits);
    if options.secret {
        loaded.diagnostics.iter_mut().for_each(|found| found.secret = true);
        loaded.documents.iter_mut().for_each(|document| document.secret = true);
    }
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let mut out = FileObjects { name: name.to_owned(), diagnostics: loaded.diagnostics, ..FileObjects::default() };
    out.unnamed_broken = loaded.documents.is_empty() && out.diagnostics.iter().any(Diagnostic::is_error);
    let mut manifests = 0;
    for document in &loaded.documents {
        if header::is_compose(&document.node) {
            out.compose = true;
        } else if document.broken_off {
            manifests += 1;
            out.unnamed_broken |= !name_broken(&document.node, &mut out.broken);
        } else if header::is_manifest(&document.node) {
            manifests += 1;
            whole(&mut out, text, document);
        } else if !document.complete {
            out.unnamed_broken = true;
        } else {
            out.diagnostics.push(header::not_a_manifest(name, &document.node));
        }
    }
    if out.diagnostics.len() > MOST {
        // Errors are shown before warnings; the order of writing is kept otherwise.
        let (mut errors, warnings): (Vec<_>, Vec<_>) = out.diagnostics.drain(..).partition(Diagnostic::is_error);
        errors.extend(warnings);
        errors.truncate(MOST);
        let message = format!("only the first {MOST} problems of this file are shown");
        errors.push(Diagnostic::warning(codes::TOO_LARGE, name, None, message));
        out.diagnostics = errors;
    }
    out.not_a_manifest = manifests == 0 && !out.diagnostics.iter().any(Diagnostic::is_error);
    if out.compose && manifests > 0 {
        out.compose = false;
        let message = "the file has both Kubernetes objects and a Compose file";
        out.diagnostics.push(Diagnostic::error(codes::NOT_A_MANIFEST, name, None, message));
    }
    out
}

/// Names what can be named of a document that could not be read to its end; whether that is all there can be.
fn name_broken(node: &Node, broken: &mut Vec<ObjectId>) -> bool {
    broken.extend(read::list(node, "items").iter().filter_map(header::id));
    let id = header::id(node);
    let named = id.is_some() && read::get(node, "items").is_none();
    broken.extend(id);
    named
}

/// A document: an object, or a list of them.
fn whole(out: &mut FileObjects, text: &str, document: &Document) {
    let mut report = Report::new(&out.name, text, &document.node, document.secret);
    let mut objects = Vec::new();
    let mut broken = Vec::new();
    let mut unnamed = false;
    one(&mut report, &document.node, document.complete, &mut objects, &mut broken, &mut unnamed, 0);
    let cut = report.overflow.take();
    let mut diagnostics = report.diagnostics;
    diagnostics.sort_by_key(|d| d.span.map_or(0, |span| span.start));
    if let Some(cut) = cut {
        diagnostics.push(cut.note(&out.name, None, "there are more problems; they are shown when these are solved"));
    }
    out.diagnostics.append(&mut diagnostics);
    out.objects.append(&mut objects);
    out.broken.append(&mut broken);
    out.unnamed_broken |= unnamed;
}

fn one(
    report: &mut Report<'_>,
    node: &Node,
    complete: bool,
    objects: &mut Vec<Object>,
    broken: &mut Vec<ObjectId>,
    unnamed: &mut bool,
    depth: usize,
) {
    let before = report.diagnostics.len();
    let kind = match header::read(report, node) {
        header::Header::Kind(kind) => kind,
        header::Header::List => {
            if depth > 3 {
                report.error(codes::TOO_LARGE, node, "lists in lists in lists");
                return;
            }
            *unnamed |= header::check_list(report, node);
            for item in read::list(node, "items") {
                one(report, item, complete, objects, broken, unnamed, depth + 1);
            }
            if !complete {
                *unnamed = true;
            }
            return;
        }
        header::Header::Refused => {
            match header::id(node) {
                Some(id) => broken.push(id),
                None => *unnamed = true,
            }
            return;
        }
    };
    let (mut meta, mut value) = Default::default();
    let mut look = |report: &mut Report<'_>, node: &Node| {
        check::object(report, kind.root, node);
        meta = metadata::read(report, kind.kind, node);
        value = lower(report, kind.kind, node, &meta);
    };
    match repair::repair(report, kind.root, node) {
        None => look(report, node),
        Some(meant) => report.instead(node, &meant, |report| look(report, &meant)),
    }
    let failed = report.overflow.is_some() || report.diagnostics.iter().skip(before).any(Diagnostic::is_error);
    let id = ObjectId { kind: kind.kind.to_owned(), namespace: meta.namespace, name: meta.name };
    match value {
        Some(value) if !failed && complete => {
            let name_at = read::dig(node, &["metadata", "name"]).map_or(node.span, |name| name.span);
            objects.push(Object { id, span: node.span, name_at, value });
        }
        _ if id.name.is_empty() => *unnamed = true,
        _ => broken.push(id),
    }
}

fn lower(report: &mut Report<'_>, kind: &str, node: &Node, meta: &metadata::Meta) -> Option<ObjectValue> {
    Some(match kind {
        "ConfigMap" => ObjectValue::Config(config::config_map(report, node)),
        "Secret" => ObjectValue::Secret(config::secret(report, node)),
        "Namespace" => ObjectValue::Namespace,
        "Service" => ObjectValue::Service(service::service(report, node, meta)),
        "PersistentVolumeClaim" => ObjectValue::Claim(storage::claim(report, read::get(node, "spec")?)),
        "PersistentVolume" => ObjectValue::Storage(storage::volume(report, node, meta)?),
        _ => ObjectValue::Workload(Box::new(workloads::workload(report, kind, node, meta)?)),
    })
}

impl At {
    pub(crate) fn of(report: &Report<'_>, node: &Node) -> Self {
        Self { span: node.span, path: report.path(node) }
    }
}
