//! Healthchecks as both engines keep them.

use serde_json::Value;

use super::container::list;

/// The flags for `Config.Healthcheck`.
pub(super) fn flags(check: &Value) -> Vec<(&'static str, String)> {
    let mut flags = match list(&check["Test"]).as_slice() {
        [] => return Vec::new(),
        ["NONE"] => return vec![("no-healthcheck", "true".to_owned())],
        // What begins like a list would be read as one.
        ["CMD-SHELL", command] if !command.trim_start().starts_with('[') => vec![("health-cmd", (*command).to_owned())],
        words => vec![("health-cmd", Value::from(words.to_vec()).to_string())],
    };
    for (flag, field) in [
        ("health-interval", "Interval"),
        ("health-timeout", "Timeout"),
        ("health-start-period", "StartPeriod"),
        ("health-start-interval", "StartInterval"),
    ] {
        if let Some(nano) = check[field].as_u64().filter(|nano| *nano > 0) {
            flags.push((flag, format!("{}ms", nano / 1_000_000)));
        }
    }
    if let Some(tries) = check["Retries"].as_u64().filter(|tries| *tries > 0) {
        flags.push(("health-retries", tries.to_string()));
    }
    flags
}

/// Whether `flags` has an answer for this.
pub(super) fn is_known(check: &Value) -> bool {
    !list(&check["Test"]).is_empty()
}

/// Whether this flag is part of what an engine keeps as the healthcheck.
pub(super) fn is_flag(flag: &str) -> bool {
    let part = flag.strip_prefix("health-").or_else(|| flag.strip_prefix("healthcheck-"));
    let parts = ["cmd", "command", "interval", "retries", "timeout", "start-period", "start-interval"];
    part.is_some_and(|part| parts.contains(&part))
}
