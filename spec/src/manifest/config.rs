//! ConfigMap and Secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::codes;
use crate::node::{Node, Value};
use crate::schema::check::quoted;
use crate::schema::report::Report;
use crate::schema::{format, read};
use crate::secret::SecretBytes;
use crate::workload::{ConfigData, SecretData};

/// Content of a ConfigMap or Secret (core/v1, MaxSecretSize).
const MOST: usize = 1 << 20;

/// A ConfigMap's content.
pub(super) fn config_map(report: &mut Report<'_>, node: &Node) -> ConfigData {
    let mut out = ConfigData::default();
    for (key, value) in entries(report, node, "data") {
        out.0.insert(key, value.into_bytes());
    }
    for (key, value) in decoded(report, node, "binaryData") {
        if out.0.insert(key.clone(), value).is_some()
            && let Some(binary) = read::get(node, "binaryData")
        {
            let message = format!("the key {} is in `data` too", quoted(&key));
            report.error_at(codes::DUPLICATE_ENTRY, binary, &key, message);
        }
    }
    size(report, node, out.0.iter().map(|(key, value)| key.len() + value.len()).sum());
    out
}

/// A Secret's content.
pub(super) fn secret(report: &mut Report<'_>, node: &Node) -> SecretData {
    let mut out = SecretData { kind: read::text(node, "type").unwrap_or("Opaque").to_owned(), ..SecretData::default() };
    for (key, value) in decoded(report, node, "data") {
        out.data.insert(key, SecretBytes::new(value));
    }
    for (key, value) in entries(report, node, "stringData") {
        out.data.insert(key, SecretBytes::new(value.into_bytes()));
    }
    size(report, node, out.data.iter().map(|(key, value)| key.len() + value.expose().len()).sum());
    typed(report, node, &out);
    out
}

fn size(report: &mut Report<'_>, node: &Node, bytes: usize) {
    if bytes > MOST {
        report.error(codes::TOO_LARGE, node, format!("the data has {bytes} bytes; at most {MOST} are allowed"));
    }
}

fn entries(report: &mut Report<'_>, node: &Node, field: &str) -> Vec<(String, String)> {
    let Some(inner) = read::get(node, field) else { return Vec::new() };
    let mut out = Vec::new();
    for (key, entry) in inner.as_map().into_iter().flatten() {
        if let Some(fault) = format::config_key(key) {
            report.error_at(codes::BAD_NAME, inner, key, format!("the key {} {fault}", quoted(key)));
        }
        match &entry.node.value {
            Value::String(text, _) => out.push((key.clone(), text.clone())),
            Value::Null => out.push((key.clone(), String::new())),
            _ => {}
        }
    }
    out
}

fn decoded(report: &mut Report<'_>, node: &Node, field: &str) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    for (key, text) in entries(report, node, field) {
        // Line breaks inside are ignored (Go, base64.StdEncoding).
        let plain: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        match STANDARD.decode(&plain) {
            Ok(bytes) => out.push((key, bytes)),
            Err(_) => {
                let Some(inner) = read::get(node, field) else { continue };
                let message = format!("the value of {} is not base64", quoted(&key));
                report.error_at(codes::BAD_BASE64, inner, &key, message).hint =
                    Some(if field == "data" && report_is_secret(node) {
                        "write plain text under `stringData`".to_owned()
                    } else {
                        "write plain text under `data`".to_owned()
                    });
            }
        }
    }
    out
}

fn report_is_secret(node: &Node) -> bool {
    read::text(node, "kind") == Some("Secret")
}

/// Keys that typed Secrets must have (core/v1 validation, ValidateSecret).
fn typed(report: &mut Report<'_>, node: &Node, secret: &SecretData) {
    let has = |key: &str| secret.data.contains_key(key);
    // What could not be decoded is reported already.
    let written = |key: &str| {
        ["data", "stringData"].iter().any(|field| read::get(node, field).is_some_and(|inner| inner.get(key).is_some()))
    };
    let missing: Option<String> = match secret.kind.as_str() {
        "kubernetes.io/dockerconfigjson" if !written(".dockerconfigjson") => Some("`.dockerconfigjson`".into()),
        "kubernetes.io/dockercfg" if !written(".dockercfg") => Some("`.dockercfg`".into()),
        "kubernetes.io/ssh-auth" if !written("ssh-privatekey") => Some("`ssh-privatekey`".into()),
        "kubernetes.io/tls" if !written("tls.crt") => Some("`tls.crt`".into()),
        "kubernetes.io/tls" if !written("tls.key") => Some("`tls.key`".into()),
        "kubernetes.io/basic-auth" if !written("username") && !written("password") => {
            Some("`username` or `password`".into())
        }
        _ => None,
    };
    if let Some(key) = missing {
        let message = format!("a Secret of type {} needs the key {key}", secret.kind);
        report.error_at(codes::MISSING_FIELD, node, "data", message);
    }
    let json_key = match secret.kind.as_str() {
        "kubernetes.io/dockerconfigjson" => ".dockerconfigjson",
        "kubernetes.io/dockercfg" => ".dockercfg",
        _ => return,
    };
    let valid = secret.data.get(json_key).map(|value| serde_json::from_slice::<serde_json::Value>(value.expose()));
    if has(json_key) && valid.is_some_and(|result| result.is_err()) {
        let message = format!("the value of `{json_key}` is not JSON");
        let field =
            if read::get(node, "data").is_some_and(|d| d.get(json_key).is_some()) { "data" } else { "stringData" };
        let inner = read::get(node, field).unwrap_or(node);
        report.error_at(codes::BAD_VALUE, inner, json_key, message);
    }
    if secret.kind == "kubernetes.io/service-account-token" {
        report.warn_at(codes::NO_EFFECT, node, "type", "no cluster fills in this token");
    }
}
