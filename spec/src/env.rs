//! Values of environment variables: `$(VAR)` expansion, facts of the pod, resource figures and secrets.
//!
//! Rules: Kubernetes API, EnvVar.value ("$(VAR_NAME) are expanded using the previously defined environment
//! variables"; unresolved references stay; `$$(VAR)` is a literal `$(VAR)`), ObjectFieldSelector,
//! ResourceFieldSelector.

use std::collections::BTreeMap;

use crate::observed::{Addresses, PodRecord};
use crate::pod::{ContainerSpec, EnvSource, Resources};

/// What is known of the pod and its node when a container starts.
#[derive(Debug, Clone)]
pub struct PodContext<'a> {
    /// The pod.
    pub record: &'a PodRecord,
    /// Its addresses.
    pub addresses: Addresses,
    /// The node.
    pub node: &'a NodeFacts,
}

/// Facts of the node that containers can ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: String,
    /// CPU in thousandths of a core.
    pub cpu_milli: u64,
    /// Memory in bytes.
    pub memory: u64,
}

/// Why a variable has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A Secret or a key of it is missing.
    #[error("variable `{variable}` needs key `{key}` of Secret `{secret}`, which does not exist")]
    MissingSecret {
        /// The variable.
        variable: String,
        /// The Secret.
        secret: String,
        /// The key.
        key: String,
    },
    /// A value that is not UTF-8 cannot be an environment variable.
    #[error("variable `{variable}` is not UTF-8 text")]
    NotText {
        /// The variable.
        variable: String,
    },
    /// A fact that does not exist.
    #[error("variable `{variable}` asks for `{field}`, which no pod has")]
    UnknownField {
        /// The variable.
        variable: String,
        /// What it asks for.
        field: String,
    },
}

/// The variables of a container, in order, with their values. `secret` looks a key of a Secret up.
pub fn resolve(
    container: &ContainerSpec,
    context: &PodContext<'_>,
    secret: &dyn Fn(&str, &str) -> Option<Vec<u8>>,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut known: BTreeMap<&str, String> = BTreeMap::new();
    let mut order: Vec<&str> = Vec::new();
    for variable in &container.env {
        let name = variable.name.as_str();
        let unknown = |field: &str| EnvError::UnknownField { variable: name.to_owned(), field: field.to_owned() };
        let value = match &variable.source {
            EnvSource::Template(text) => Some(expand(text, |name| known.get(name).cloned())),
            EnvSource::Literal(text) => Some(text.clone()),
            EnvSource::Secret { name: secret_name, key, mac } => match secret(secret_name, key) {
                Some(bytes) => {
                    Some(String::from_utf8(bytes).map_err(|_| EnvError::NotText { variable: name.to_owned() })?)
                }
                None if mac.is_none() => None,
                None => {
                    return Err(EnvError::MissingSecret {
                        variable: name.to_owned(),
                        secret: secret_name.clone(),
                        key: key.clone(),
                    });
                }
            },
            EnvSource::Field(path) => Some(field(context, path).ok_or_else(|| unknown(path))?),
            EnvSource::ResourceField { container: other, resource, divisor_milli } => Some(
                resource_field(context, other.as_deref().unwrap_or(&container.name), resource, *divisor_milli)
                    .ok_or_else(|| unknown(resource))?,
            ),
        };
        if let Some(value) = value
            && known.insert(name, value).is_none()
        {
            order.push(name);
        }
    }
    Ok(order.into_iter().filter_map(|name| Some((name.to_owned(), known.remove(name)?))).collect())
}

/// Replaces `$(NAME)` by what `lookup` says; what it does not know stays as written, `$$` is a `$`.
#[must_use]
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, dollar) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = dollar.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = dollar.strip_prefix("$(").and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
            rest = dollar.strip_prefix('$').unwrap_or_default();
        }
    }
    out.push_str(rest);
    out
}

/// A fact of a pod by its path; `None` when there is no such fact.
#[must_use]
pub fn field(context: &PodContext<'_>, path: &str) -> Option<String> {
    let record = context.record;
    let addresses = || {
        let v4 = context.addresses.v4.map(|ip| ip.to_string());
        let v6 = context.addresses.v6.map(|ip| ip.to_string());
        let all: Vec<String> = v4.into_iter().chain(v6).collect();
        if all.is_empty() { vec![context.node.ip.clone()] } else { all }
    };
    Some(match path {
        "metadata.name" => record.name.clone(),
        "metadata.namespace" => record.workload.namespace.clone(),
        "metadata.uid" => record.uid.0.clone(),
        "metadata.labels" => pairs(&record.labels),
        "metadata.annotations" => pairs(&record.annotations),
        "spec.nodeName" => context.node.name.clone(),
        "spec.serviceAccountName" => "default".to_owned(),
        "status.hostIP" | "status.hostIPs" => context.node.ip.clone(),
        "status.podIP" => addresses().into_iter().next().unwrap_or_default(),
        "status.podIPs" => addresses().join(","),
        _ => {
            let (map, key) = path
                .strip_prefix("metadata.labels['")
                .map(|key| (&record.labels, key))
                .or_else(|| path.strip_prefix("metadata.annotations['").map(|key| (&record.annotations, key)))?;
            map.get(key.strip_suffix("']")?).cloned().unwrap_or_default()
        }
    })
}

/// `key="value"` lines, as downwardAPI volumes have them.
fn pairs(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
}

/// A limit or request, rounded up to whole divisors. A limit that is not set is what the node has.
fn resource_field(context: &PodContext<'_>, container: &str, resource: &str, divisor_milli: u64) -> Option<String> {
    let spec = context.record.spec.all_containers().find(|c| c.name == container)?;
    let Resources {
        cpu_request_milli,
        cpu_limit_milli,
        memory_request,
        memory_limit,
        ephemeral_storage_limit,
        ephemeral_storage_request,
        ..
    } = &spec.resources;
    let node = context.node;
    let milli = match resource {
        "limits.cpu" => cpu_limit_milli.unwrap_or(node.cpu_milli),
        "requests.cpu" => cpu_request_milli.or(*cpu_limit_milli).unwrap_or(0),
        "limits.memory" => memory_limit.unwrap_or(node.memory).saturating_mul(1000),
        "requests.memory" => memory_request.or(*memory_limit).unwrap_or(0).saturating_mul(1000),
        "limits.ephemeral-storage" => ephemeral_storage_limit.unwrap_or(0).saturating_mul(1000),
        "requests.ephemeral-storage" => {
            ephemeral_storage_request.or(*ephemeral_storage_limit).unwrap_or(0).saturating_mul(1000)
        }
        _ => return None,
    };
    let divisor = if divisor_milli == 0 { 1000 } else { divisor_milli };
    Some(milli.div_ceil(divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_as_in_kubernetes() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, expected) in [
            ("", ""),
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A", "$A"),
            ("$", "$"),
            ("$(A", "$(A"),
            ("100$", "100$"),
            ("$()", "$()"),
        ] {
            assert_eq!(expand(text, lookup), expected, "{text}");
        }
    }
}
