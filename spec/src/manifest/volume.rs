//! Volumes of a pod.

use crate::codes;
use crate::image_ref::ImageRef;
use crate::node::Node;
use crate::pod::{HostPathKind, PullPolicy, Volume, VolumeSource};
use crate::schema::check::quoted;
use crate::schema::report::Report;
use crate::schema::{Status, kind, read};

use super::{At, ClaimRef, PodRefs, files};

const SOURCES: &[&str] = &[
    "hostPath",
    "emptyDir",
    "configMap",
    "secret",
    "downwardAPI",
    "projected",
    "persistentVolumeClaim",
    "image",
    "ephemeral",
];

/// All volumes of a pod. Claims are left as empty directories until they are resolved.
pub(super) fn read(report: &mut Report<'_>, spec: &Node, refs: &mut PodRefs) -> Vec<Volume> {
    let mut out: Vec<Volume> = Vec::new();
    for node in read::list(spec, "volumes") {
        let Some(name) = read::string(node, "name") else { continue };
        if out.iter().any(|volume| volume.name == name) {
            let message = format!("there are two volumes named {}", quoted(&name));
            report.error_at(codes::DUPLICATE_ENTRY, node, "name", message);
        }
        let source = source(report, node, &name, refs).unwrap_or_default();
        out.push(Volume { name, source });
    }
    out
}

fn source(report: &mut Report<'_>, node: &Node, name: &str, refs: &mut PodRefs) -> Option<VolumeSource> {
    let set: Vec<&str> = SOURCES.iter().copied().filter(|source| read::get(node, source).is_some()).collect();
    let refused = is_refused(node);
    if let [one, other, ..] = set.as_slice() {
        let message = format!("a volume is either `{one}` or `{other}`");
        report.error_at(codes::EXACTLY_ONE, node, other, message);
    }
    // No source at all is an emptyDir (core/v1 defaults); a refused one is reported by the check.
    let Some(kind) = set.first().copied() else {
        if !refused {
            let message = format!("the volume {} says no source and becomes an emptyDir", quoted(name));
            report.warn(codes::DEPRECATED, node, message).hint = Some("write `emptyDir: {}`".to_owned());
        }
        return None;
    };
    let inner = read::get(node, kind)?;
    Some(match kind {
        "hostPath" => host_path(report, inner)?,
        "emptyDir" => empty_dir(report, inner),
        "projected" => VolumeSource::Files(files::projected(report, inner, refs)),
        "persistentVolumeClaim" => {
            let claim = read::string(inner, "claimName")?;
            refs.claims.push(ClaimRef {
                volume: name.to_owned(),
                claim,
                at: At::of(report, read::get(inner, "claimName")?),
            });
            return None;
        }
        "image" => {
            let reference = read::get(inner, "reference")?;
            VolumeSource::Image { image: image(report, reference)?, pull_policy: pull_policy(inner, "pullPolicy") }
        }
        "ephemeral" => VolumeSource::EmptyDir { memory: false, size_limit: None },
        _ => VolumeSource::Files(files::single(report, kind, inner, refs)),
    })
}

fn is_refused(node: &Node) -> bool {
    let Some(ty) = kind("Pod").and_then(|pod| field_type(pod.root, &["spec", "volumes"])) else { return false };
    ty.fields.iter().any(|f| matches!(f.status, Status::Rejected(..)) && read::get(node, f.name).is_some())
}

fn field_type(root: &'static crate::schema::Type, steps: &[&str]) -> Option<&'static crate::schema::Type> {
    steps.iter().try_fold(root, |ty, step| match ty.field(step)?.kind {
        crate::schema::Kind::Obj(inner) | crate::schema::Kind::Objs(inner) => Some(inner),
        _ => None,
    })
}

/// A `hostPath` source, of a volume or a PersistentVolume.
pub(super) fn host_path(report: &mut Report<'_>, node: &Node) -> Option<VolumeSource> {
    let path = host_directory(report, node)?;
    let kind = match read::text(node, "type") {
        Some("DirectoryOrCreate") => HostPathKind::DirectoryOrCreate,
        Some("Directory") => HostPathKind::Directory,
        Some("FileOrCreate") => HostPathKind::FileOrCreate,
        Some("File") => HostPathKind::File,
        Some("Socket") => HostPathKind::Socket,
        Some("CharDevice") => HostPathKind::CharDevice,
        Some("BlockDevice") => HostPathKind::BlockDevice,
        _ => HostPathKind::Any,
    };
    Some(VolumeSource::HostPath { path, kind })
}

/// An absolute path of the host without steps back.
pub(super) fn host_directory(report: &mut Report<'_>, node: &Node) -> Option<String> {
    let path = read::string(node, "path")?;
    if path.split('/').any(|part| part == "..") {
        let message = format!("`path`: {} must not contain `..`", quoted(&path));
        report.error_at(codes::BAD_VALUE, node, "path", message);
    } else if !path.starts_with('/') {
        let message = format!("`path`: {} must begin with `/`", quoted(&path));
        report.error_at(codes::BAD_VALUE, node, "path", message);
    }
    Some(path)
}

fn empty_dir(report: &mut Report<'_>, node: &Node) -> VolumeSource {
    let medium = read::text(node, "medium").unwrap_or_default();
    if medium.starts_with("HugePages") {
        let message = "huge pages are not supported as a medium";
        report.error_at(codes::REJECTED_FIELD, node, "medium", message).hint = Some("use `medium: Memory`".to_owned());
    } else if !matches!(medium, "" | "Memory") {
        let message = format!("`medium` cannot be {}", quoted(medium));
        report.error_at(codes::BAD_VALUE, node, "medium", message).hint =
            Some("it can be Memory, or left out".to_owned());
    }
    let limit = read::get(node, "sizeLimit").and_then(read::as_quantity);
    if limit.is_some_and(crate::quantity::Quantity::is_negative) {
        report.error_at(codes::OUT_OF_RANGE, node, "sizeLimit", "`sizeLimit` must not be negative");
    }
    // Zero means no limit (kubelet).
    let size_limit = limit.and_then(crate::quantity::Quantity::units).filter(|bytes| *bytes > 0);
    VolumeSource::EmptyDir { memory: medium == "Memory", size_limit }
}

/// An image reference.
pub(super) fn image(report: &mut Report<'_>, node: &Node) -> Option<ImageRef> {
    let text = node.as_str().filter(|text| !text.is_empty())?;
    match ImageRef::parse(text) {
        Ok(image) => Some(image),
        Err(_) if is_placeholder(text) => {
            let message = format!("the image {} is a placeholder; the pod cannot run", quoted(text));
            report.warn(codes::BAD_IMAGE, node, message).hint = Some("put the real image in its place".to_owned());
            None
        }
        Err(error) => {
            let hint = "write `[registry/]repository[:tag][@sha256:digest]`";
            report.error(codes::BAD_IMAGE, node, error.to_string()).hint = Some(hint.to_owned());
            None
        }
    }
}

/// Whether a text marks the place of an image in an example: `gcr.io/<project>/app`, `$IMAGE`. Kubernetes takes any
/// text, so an example is no error; its pods are not wished for all the same.
fn is_placeholder(text: &str) -> bool {
    text.contains(['<', '$', '{']) || text.contains("YOUR")
}

/// `imagePullPolicy`, or `pullPolicy` of an image volume.
pub(super) fn pull_policy(node: &Node, key: &str) -> Option<PullPolicy> {
    Some(match read::text(node, key)? {
        "Always" => PullPolicy::Always,
        "IfNotPresent" => PullPolicy::IfNotPresent,
        "Never" => PullPolicy::Never,
        _ => return None,
    })
}
