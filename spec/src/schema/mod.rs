//! The field contract: every field of every supported kind, what it takes, and what becomes of it here.
//!
//! One static table serves the check of manifests, `mainstay explain` and the JSON Schemas, so they cannot differ.
//! The fields are those of the Kubernetes API 1.34 (`kubernetes/api`, types.go); a field outside is unknown.

pub(crate) mod check;
mod config;
mod container;
pub mod cron;
pub mod format;
mod jobs;
mod meta;
mod pod;
pub(crate) mod read;
pub(crate) mod repair;
pub(crate) mod report;
mod service;
mod status;
mod storage;
mod volume;
mod workloads;

pub use format::Format;

/// A type: an object with named fields.
#[derive(Debug)]
pub struct Type {
    /// Name as in the Kubernetes API reference, such as `Container`.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub doc: &'static str,
    /// Its fields.
    pub fields: &'static [Field],
}

/// A field of a type.
#[derive(Debug)]
pub struct Field {
    /// Name as written.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Missing or empty is an error.
    pub required: bool,
    /// What becomes of it.
    pub status: Status,
    /// What it does, in a sentence.
    pub doc: &'static str,
}

/// What a field takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Text.
    Str(Format),
    /// One of these words.
    Enum(&'static [&'static str]),
    /// `true` or `false`.
    Bool,
    /// A whole number between the two, inclusive.
    Int(i64, i64),
    /// A Kubernetes quantity such as `500m` or `128Mi`.
    Quantity,
    /// A port: a number, or the name of a container port.
    Port,
    /// A whole number of at least 0, or a percentage.
    IntOrPercent,
    /// An object.
    Obj(&'static Type),
    /// A list of objects.
    Objs(&'static Type),
    /// A list.
    List(&'static Kind),
    /// A mapping with free keys.
    Map(&'static Kind),
    /// Labels: keys and values with Kubernetes' syntax.
    Labels,
    /// Annotations: keys with Kubernetes' syntax, free values.
    Annotations,
    /// Anything.
    Any,
}

/// What becomes of a field that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It does what Kubernetes says.
    Enforced,
    /// It is read and dropped without a word: it describes an object in a cluster, not a wish.
    Silent,
    /// It is accepted, and a warning says why it has no effect.
    NoEffect(&'static str),
    /// It is an error: why, and what to do instead.
    Rejected(&'static str, &'static str),
}

impl Type {
    /// The field with a name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// A kind of object that is supported.
#[derive(Debug)]
pub struct ObjectKind {
    /// `v1`, `apps/v1`, `batch/v1`.
    pub api_version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Its fields.
    pub root: &'static Type,
}

/// All supported kinds.
pub static KINDS: &[ObjectKind] = &[
    ObjectKind { api_version: "v1", kind: "Pod", root: &pod::POD },
    ObjectKind { api_version: "v1", kind: "ConfigMap", root: &config::CONFIG_MAP },
    ObjectKind { api_version: "v1", kind: "Secret", root: &config::SECRET },
    ObjectKind { api_version: "v1", kind: "Service", root: &service::SERVICE },
    ObjectKind { api_version: "v1", kind: "PersistentVolumeClaim", root: &storage::CLAIM },
    ObjectKind { api_version: "v1", kind: "PersistentVolume", root: &storage::VOLUME },
    ObjectKind { api_version: "v1", kind: "Namespace", root: &config::NAMESPACE },
    ObjectKind { api_version: "apps/v1", kind: "Deployment", root: &workloads::DEPLOYMENT },
    ObjectKind { api_version: "apps/v1", kind: "ReplicaSet", root: &workloads::REPLICA_SET },
    ObjectKind { api_version: "apps/v1", kind: "DaemonSet", root: &workloads::DAEMON_SET },
    ObjectKind { api_version: "apps/v1", kind: "StatefulSet", root: &workloads::STATEFUL_SET },
    ObjectKind { api_version: "batch/v1", kind: "Job", root: &jobs::JOB },
    ObjectKind { api_version: "batch/v1", kind: "CronJob", root: &jobs::CRON_JOB },
];

/// The supported kind with a name, whatever its API version.
#[must_use]
pub fn kind(name: &str) -> Option<&'static ObjectKind> {
    KINDS.iter().find(|entry| entry.kind == name)
}

// Short forms for the tables.

pub(crate) const fn field(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { name, kind, required: false, status: Status::Enforced, doc }
}

pub(crate) const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { name, kind, required: true, status: Status::Enforced, doc }
}

pub(crate) const fn silent(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { name, kind, required: false, status: Status::Silent, doc }
}

pub(crate) const fn inert(name: &'static str, kind: Kind, why: &'static str, doc: &'static str) -> Field {
    Field { name, kind, required: false, status: Status::NoEffect(why), doc }
}

pub(crate) const fn rejected(name: &'static str, why: &'static str, hint: &'static str, doc: &'static str) -> Field {
    Field { name, kind: Kind::Any, required: false, status: Status::Rejected(why, hint), doc }
}

/// Text without rules.
pub(crate) const TEXT: Kind = Kind::Str(Format::Any);
/// A list of text.
pub(crate) const TEXTS: Kind = Kind::List(&TEXT);
/// A 32-bit number of at least 0.
pub(crate) const COUNT: Kind = Kind::Int(0, i32::MAX as i64);
/// A 32-bit number of at least 1.
pub(crate) const POSITIVE: Kind = Kind::Int(1, i32::MAX as i64);
/// A 64-bit number of at least 0.
pub(crate) const COUNT64: Kind = Kind::Int(0, i64::MAX);
/// Any 32-bit number.
pub(crate) const INT32: Kind = Kind::Int(i32::MIN as i64, i32::MAX as i64);
/// A port number.
pub(crate) const PORT_NUMBER: Kind = Kind::Int(1, 65535);
/// Why a scheduler's field does nothing.
pub(crate) const ONE_NODE: &str = "there is one node and no scheduler";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn visit(kind: &Kind, seen: &mut BTreeSet<&'static str>, check: &mut impl FnMut(&'static Type)) {
        match kind {
            Kind::Obj(inner) | Kind::Objs(inner) if seen.insert(inner.name) => {
                check(inner);
                for field in inner.fields {
                    visit(&field.kind, seen, check);
                }
            }
            Kind::List(inner) | Kind::Map(inner) => visit(inner, seen, check),
            _ => {}
        }
    }

    #[test]
    fn every_field_is_unique_and_explained() {
        let mut seen = BTreeSet::new();
        let mut fields = 0;
        for kind in KINDS {
            visit(&Kind::Obj(kind.root), &mut seen, &mut |ty| {
                for (i, field) in ty.fields.iter().enumerate() {
                    fields += 1;
                    assert!(field.doc.ends_with('.') && field.doc.len() > 4, "{}.{}", ty.name, field.name);
                    assert!(!ty.fields[..i].iter().any(|other| other.name == field.name), "{}.{}", ty.name, field.name);
                    if let Status::NoEffect(why) | Status::Rejected(why, _) = field.status {
                        assert!(!why.is_empty() && !why.ends_with('.'), "{}.{}", ty.name, field.name);
                    }
                }
            });
        }
        assert!(fields > 350, "only {fields} fields");
    }
}
