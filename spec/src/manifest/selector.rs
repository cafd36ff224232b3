//! Label selectors: their own rules, and whether they match labels.

use std::collections::BTreeMap;

use crate::codes;
use crate::node::Node;
use crate::schema::read;
use crate::schema::report::Report;

/// Checks the selector of a workload against the labels of its template (apps/v1 validation).
pub(super) fn check(report: &mut Report<'_>, spec: &Node, labels: &BTreeMap<String, String>) {
    let Some(selector) = read::get(spec, "selector").filter(|s| s.as_map().is_some()) else { return };
    let wanted = read::text_map(selector, "matchLabels");
    let conditions = read::list(selector, "matchExpressions");
    if wanted.is_empty() && conditions.is_empty() {
        let hint = "write `matchLabels` with labels of the template";
        report.error_at(codes::SELECTOR, spec, "selector", "`selector` is empty").hint = Some(hint.to_owned());
        return;
    }
    expressions(report, selector);
    let label_map = read::get(selector, "matchLabels");
    for (key, value) in &wanted {
        if labels.get(key) != Some(value) {
            let message = match labels.get(key) {
                Some(other) => format!("the selector wants `{key}: {value}`, the template has `{key}: {other}`"),
                None => format!("the selector wants `{key}: {value}`, the template does not have it"),
            };
            let diagnostic = report.error_at(codes::SELECTOR, label_map.unwrap_or(selector), key, message);
            diagnostic.hint = Some(format!("write `{key}: {value}` in `template.metadata.labels`"));
        }
    }
    for condition in conditions {
        if !holds(condition, labels) {
            report.error(codes::SELECTOR, condition, "the labels of the template do not meet this condition");
        }
    }
}

/// Rules of `matchExpressions` (apimachinery, ValidateLabelSelectorRequirement).
pub(super) fn expressions(report: &mut Report<'_>, selector: &Node) {
    for condition in read::list(selector, "matchExpressions") {
        let values = read::list(condition, "values").len();
        match read::text(condition, "operator") {
            Some("In" | "NotIn") if values == 0 => {
                report.error_at(codes::MISSING_FIELD, condition, "values", "`In` and `NotIn` need `values`");
            }
            Some("Exists" | "DoesNotExist") if values > 0 => {
                report.error_at(codes::CONFLICT, condition, "values", "`Exists` and `DoesNotExist` take no `values`");
            }
            _ => {}
        }
    }
}

fn holds(condition: &Node, labels: &BTreeMap<String, String>) -> bool {
    let value = read::text(condition, "key").and_then(|key| labels.get(key));
    let values = read::strings(condition, "values");
    match read::text(condition, "operator") {
        Some("In") => value.is_some_and(|value| values.contains(value)),
        Some("NotIn") => value.is_none_or(|value| !values.contains(value)),
        Some("Exists") => value.is_some(),
        Some("DoesNotExist") => value.is_none(),
        // A wrong operator is reported elsewhere.
        _ => true,
    }
}
