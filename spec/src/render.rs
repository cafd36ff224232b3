//! Diagnostics as text for people (in the manner of rustc), as JSON and as SARIF 2.1.0.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use crate::codes;
use crate::diagnostic::{Diagnostic, Severity};
use crate::node::Span;

/// Longest piece of a source line that is shown, in characters.
const WIDTH: usize = 140;

struct Paint(bool);

impl Paint {
    fn wrap(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
    fn gutter(&self, text: &str) -> String {
        self.wrap("1;34", text)
    }
}

/// All findings, each with its place and line. `sources` hands out the text of a file by name.
pub fn render<'s>(diagnostics: &[Diagnostic], sources: impl Fn(&str) -> Option<&'s str>, color: bool) -> String {
    let paint = Paint(color);
    let mut out = String::new();
    for diagnostic in diagnostics {
        one(diagnostic, &sources, &paint, &mut out);
        out.push('\n');
    }
    out
}

fn one<'s>(diagnostic: &Diagnostic, sources: &impl Fn(&str) -> Option<&'s str>, paint: &Paint, out: &mut String) {
    let (word, hue) = match diagnostic.severity {
        Severity::Error => ("error", "1;31"),
        Severity::Warning => ("warning", "1;33"),
    };
    let head = paint.wrap(hue, &format!("{word}[{}]", diagnostic.code));
    let _ = writeln!(out, "{head}{}", paint.wrap("1", &format!(": {}", clean(&diagnostic.message))));
    // A short "did you mean" stands beside the caret, anything else below.
    let label = diagnostic.hint.as_deref().filter(|hint| hint.starts_with("did you mean") && hint.len() < 60);
    let width = snippet(diagnostic, sources, paint, label.unwrap_or(""), hue, out);
    let pad = " ".repeat(width);
    if let Some(path) = &diagnostic.path {
        let _ = writeln!(out, "{pad} {} path: {}", paint.gutter(" ="), clean(path));
    }
    if let Some(hint) = &diagnostic.hint
        && (label.is_none() || diagnostic.span.is_none())
    {
        let _ = writeln!(out, "{pad} {} help: {}", paint.gutter(" ="), clean(hint));
    }
    for note in &diagnostic.notes {
        let _ = writeln!(out, "{}: {}", paint.wrap("1;36", "note"), clean(&note.message));
        let place = Diagnostic {
            file: note.file.clone(),
            span: note.span,
            secret: diagnostic.secret,
            ..Diagnostic::warning(diagnostic.code, &note.file, note.span, "")
        };
        snippet(&place, sources, paint, "", "1;36", out);
    }
}

/// The place, the line and a caret under it; returns the width of the line number.
fn snippet<'s>(
    diagnostic: &Diagnostic,
    sources: &impl Fn(&str) -> Option<&'s str>,
    paint: &Paint,
    label: &str,
    hue: &str,
    out: &mut String,
) -> usize {
    let file = clean(&diagnostic.file);
    let Some(span) = diagnostic.span else {
        let _ = writeln!(out, "  {} {file}", paint.gutter("-->"));
        return 1;
    };
    let number = span.line.to_string();
    let width = number.len();
    let pad = " ".repeat(width);
    let _ = writeln!(out, "{pad} {} {file}:{}:{}", paint.gutter("-->"), span.line, span.column);
    let Some((line, from, length)) = sources(&diagnostic.file).and_then(|text| excerpt(text, span, diagnostic.secret))
    else {
        return width;
    };
    let _ = writeln!(out, "{pad} {}", paint.gutter(" |"));
    let _ = writeln!(out, " {} {line}", paint.gutter(&format!("{number} |")));
    let marks = paint.wrap(hue, format!("{} {label}", "^".repeat(length)).trim_end());
    let _ = writeln!(out, "{pad} {} {}{marks}", paint.gutter(" |"), " ".repeat(from));
    width
}

/// The line of a place as it can be printed, where the marks start and how many there are.
fn excerpt(text: &str, span: Span, secret: bool) -> Option<(String, usize, usize)> {
    let line = text.lines().nth(usize::try_from(span.line).ok()?.checked_sub(1)?)?;
    let line = line.strip_prefix('\u{feff}').unwrap_or(line);
    let column = usize::try_from(span.column).ok()?.saturating_sub(1);
    let mut chars: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let column = column.min(chars.len());
    let marked = text.get(span.start..span.end).unwrap_or_default();
    let marked = marked.lines().next().unwrap_or_default().trim_end().chars().count();
    let mut length = marked.clamp(1, chars.len().saturating_sub(column).max(1));
    if secret {
        // Only what stands before the first colon is a name for sure.
        let keep = chars.iter().position(|c| *c == ':').map_or(0, |colon| colon + 1);
        if keep < chars.len() {
            chars.truncate(keep);
            chars.extend(" …".chars());
        }
        let start = column.min(chars.len().saturating_sub(1));
        length = length.min(chars.len() - start).max(1);
        return Some((chars.into_iter().collect(), start, length));
    }
    if chars.len() <= WIDTH {
        let shown: String = chars.into_iter().collect();
        return Some((shown.trim_end().to_owned(), column, length));
    }
    let first = column.saturating_sub(WIDTH / 3);
    let last = (first + WIDTH).min(chars.len());
    let mut shown: String = chars.get(first..last).unwrap_or_default().iter().collect();
    let mut from = column - first;
    if first > 0 {
        shown.insert(0, '…');
        from += 1;
    }
    if last < chars.len() {
        shown.push('…');
    }
    Some((shown, from, length.min(last - column.min(last)).max(1)))
}

/// Text from a file never steers the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// `2 errors, 1 warning`, or an empty text.
#[must_use]
pub fn summary(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics.iter().filter(|d| d.is_error()).count();
    let part = |n: usize, word: &str| match n {
        0 => None,
        1 => Some(format!("1 {word}")),
        n => Some(format!("{n} {word}s")),
    };
    let parts = [part(errors, "error"), part(diagnostics.len() - errors, "warning")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn severity(diagnostic: &Diagnostic) -> &'static str {
    match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// All findings as a JSON list; lines and columns count from 1.
#[must_use]
pub fn to_json(diagnostics: &[Diagnostic]) -> Json {
    let place =
        |span: Option<Span>| (span.map(|s| s.line), span.map(|s| s.column), span.map(|s| s.start), span.map(|s| s.end));
    diagnostics
        .iter()
        .map(|d| {
            let (line, column, start, end) = place(d.span);
            let notes: Vec<_> = d
                .notes
                .iter()
                .map(|note| {
                    let (line, column, ..) = place(note.span);
                    json!({ "file": note.file, "line": line, "column": column, "message": note.message })
                })
                .collect();
            json!({
                "code": d.code, "severity": severity(d), "file": d.file, "line": line, "column": column,
                "start": start, "end": end, "path": d.path, "message": d.message, "hint": d.hint, "notes": notes,
            })
        })
        .collect()
}

/// All findings as a SARIF 2.1.0 log, which code hosts show beside the lines.
#[must_use]
pub fn to_sarif(diagnostics: &[Diagnostic]) -> Json {
    let location = |file: &str, span: Option<Span>, message: Option<&str>| {
        let mut physical = json!({ "artifactLocation": { "uri": file.replace('\\', "/") } });
        if let Some(span) = span {
            physical["region"] = json!({
                "startLine": span.line, "startColumn": span.column,
                "byteOffset": span.start, "byteLength": span.end.saturating_sub(span.start),
            });
        }
        let mut location = json!({ "physicalLocation": physical });
        if let Some(message) = message {
            location["message"] = json!({ "text": message });
        }
        location
    };
    let rules: Vec<_> = codes::ALL
        .iter()
        .map(|c| json!({ "id": c.code, "name": c.name, "shortDescription": { "text": c.meaning } }))
        .collect();
    let results: Vec<_> = diagnostics
        .iter()
        .map(|d| {
            let mut text = d.message.clone();
            for (label, part) in [("path", &d.path), ("help", &d.hint)] {
                if let Some(part) = part {
                    let _ = write!(text, "\n{label}: {part}");
                }
            }
            let mut result = json!({
                "ruleId": d.code, "level": severity(d), "message": { "text": text },
                "locations": [location(&d.file, d.span, None)],
            });
            if !d.notes.is_empty() {
                let related = d.notes.iter().map(|n| location(&n.file, n.span, Some(&n.message)));
                result["relatedLocations"] = related.collect();
            }
            result
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "mainstay", "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(diagnostic: Diagnostic, text: &'static str) -> String {
        render(&[diagnostic], |_| Some(text), false)
    }

    #[test]
    fn a_finding_looks_like_this() {
        let text = "a:\n  imge: nginx\n";
        let span = Span { start: 5, end: 9, line: 2, column: 3 };
        let finding = Diagnostic::error(codes::UNKNOWN_FIELD, "web.yaml", Some(span), "unknown field `imge`")
            .at("spec.containers[0].imge")
            .hint("did you mean `image`?");
        let want = "\
error[M0012]: unknown field `imge`
  --> web.yaml:2:3
   |
 2 |   imge: nginx
   |   ^^^^ did you mean `image`?
   = path: spec.containers[0].imge

";
        assert_eq!(show(finding, text), want);
    }

    #[test]
    fn a_secret_line_shows_its_key_only() {
        let text = "data:\n  password: hunter2\n";
        let span = Span { start: 18, end: 25, line: 2, column: 13 };
        let mut finding = Diagnostic::error(codes::BAD_BASE64, "s.yaml", Some(span), "not base64");
        finding.secret = true;
        let shown = show(finding, text);
        assert!(shown.contains("password:") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn control_characters_and_long_lines_are_tamed() {
        let text: &'static str =
            Box::leak(format!("{}\u{1b}[31m{}", "x".repeat(500), "y".repeat(500)).into_boxed_str());
        let span = Span { start: 500, end: 900, line: 1, column: 501 };
        let shown = show(Diagnostic::error(codes::SYNTAX, "t\u{7}", Some(span), "bad \u{1b}"), text);
        assert!(!shown.contains(['\u{1b}', '\u{7}']), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() < 200), "{shown}");
    }

    #[test]
    fn places_beyond_the_text_do_not_panic() {
        for span in [
            Span { start: 90, end: 95, line: 9, column: 9 },
            Span { start: 1, end: 0, line: 1, column: 900 },
            Span { start: 0, end: 3, line: 0, column: 0 },
        ] {
            for text in ["", "é", "a\nb"] {
                show(Diagnostic::error(codes::SYNTAX, "t", Some(span), "bad"), text);
            }
        }
    }

    #[test]
    fn sarif_names_every_rule() {
        let log = to_sarif(&[Diagnostic::error(codes::SYNTAX, "a", None, "bad").note("b", None, "there")]);
        let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array().map(Vec::len);
        assert_eq!(rules, Some(codes::ALL.len()));
        assert_eq!(log["runs"][0]["results"][0]["relatedLocations"].as_array().map(Vec::len), Some(1));
    }
}
