//! From the bytes of a file to documents: encoding, size, language, and which language's reader takes over.
//!
//! Every reader yields the same [`Node`] tree and the same diagnostics. A fault in one document of a file does not
//! hide the others; of a faulty document as much as could be read is handed on, so that its object can be named.

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::node::{Node, Span};

/// Bounds on what a file may make the parser do. Above them it answers with an error, not with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a file.
    pub bytes: usize,
    /// Levels of nesting.
    pub depth: usize,
    /// Values in a file, counted after aliases.
    pub nodes: usize,
    /// Bytes of text that anchors and aliases may add.
    pub alias_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1 << 20, depth: 64, nodes: 50_000, alias_bytes: 8 << 20 }
    }
}

/// Findings of one file are cut off here: whoever has more reads these first.
pub const MOST: usize = 200;

/// One document of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its content, or as much of it as could be read.
    pub node: Node,
    /// Whether it was read without an error.
    pub complete: bool,
    /// Whether reading ended early: what is missing may just not have been reached.
    pub broken_off: bool,
    /// Whether it is, or may be, a Secret: its lines are not to be shown.
    pub secret: bool,
}

/// What a file contains.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Loaded {
    /// Documents in order; empty ones are left out.
    pub documents: Vec<Document>,
    /// What is wrong.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a file. The language is told by the ending `.toml`, else by the content: JSON when it starts like JSON,
/// YAML otherwise.
#[must_use]
pub fn load(file: &str, bytes: &[u8], limits: &Limits) -> Loaded {
    let failed = |diagnostic| Loaded { documents: Vec::new(), diagnostics: vec![diagnostic] };
    if bytes.len() > limits.bytes {
        return failed(
            Diagnostic::error(
                codes::TOO_LARGE,
                file,
                None,
                format!("the file has {} bytes; the limit is {}", bytes.len(), limits.bytes),
            )
            .hint("split it into several files"),
        );
    }
    let mut loaded = read(file, bytes, limits);
    if let Some(conflict) = merge_conflict(file, bytes, &loaded.diagnostics) {
        loaded.diagnostics = vec![conflict];
    }
    loaded.diagnostics.truncate(MOST);
    loaded
}

/// The one error of a file that version control left half merged: what its readers said of the marks follows from it.
fn merge_conflict(file: &str, bytes: &[u8], found: &[Diagnostic]) -> Option<Diagnostic> {
    if !found.iter().any(Diagnostic::is_error) {
        return None;
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let mark = |mark: &str| text.lines().any(|line| line.strip_prefix(mark).is_some_and(|rest| !rest.starts_with('=')));
    let start = if text.starts_with("<<<<<<< ") { 0 } else { text.find("\n<<<<<<< ")? + 1 };
    (mark("=======") && mark(">>>>>>> ")).then(|| {
        let span = Places::new(text).span(start, start + 7);
        Diagnostic::error(codes::SYNTAX, file, Some(span), "the file holds a merge conflict that is not resolved")
            .hint("keep one side, and remove the lines that start with `<<<<<<<`, `=======` and `>>>>>>>`")
    })
}

fn read(file: &str, bytes: &[u8], limits: &Limits) -> Loaded {
    let failed = |diagnostic| Loaded { documents: Vec::new(), diagnostics: vec![diagnostic] };
    let text = match decode(file, bytes) {
        Ok(text) => text,
        Err(diagnostic) => return failed(*diagnostic),
    };
    let bom = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    if file.ends_with(".toml") {
        return crate::toml_doc::load(file, text, bom, limits);
    }
    let first = text[bom..].trim_start();
    if first.starts_with('{') && !first.starts_with("{{") {
        let json = crate::json::load(file, text, bom, limits);
        // `{a: b}` is YAML in flow style; what follows JSON's quoted key decides whose errors are shown.
        let several = text.contains("\n---");
        if json.diagnostics.is_empty() || (!several && first[1..].trim_start().starts_with('"')) {
            return json;
        }
    }
    crate::yaml::load(file, text, bom, limits)
}

fn decode<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, Box<Diagnostic>> {
    let utf16 = matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..])
        || matches!(bytes, [0, b, ..] if *b != 0)
        || matches!(bytes, [b, 0, ..] if *b != 0);
    if utf16 {
        let found = Diagnostic::error(codes::ENCODING, file, None, "the file is UTF-16 text, not UTF-8");
        return Err(Box::new(found.hint("save it as UTF-8")));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let before = String::from_utf8_lossy(&bytes[..at]);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let span = Span {
            start: at,
            end: at + 1,
            line: saturate(before.matches('\n').count() + 1),
            column: saturate(before[line_start..].chars().count() + 1),
        };
        let byte = bytes.get(at).copied().unwrap_or_default();
        let message = format!("byte 0x{byte:02x} is not valid UTF-8");
        Box::new(Diagnostic::error(codes::ENCODING, file, Some(span), message).hint("save the file as UTF-8"))
    })
}

/// A count as a line or column number.
pub(crate) fn saturate(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Finds lines and columns of byte offsets.
pub(crate) struct Places<'t> {
    text: &'t str,
    lines: Vec<usize>,
}

impl<'t> Places<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let lines = std::iter::once(0).chain(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1));
        Self { text, lines: lines.collect() }
    }

    pub(crate) fn span(&self, start: usize, end: usize) -> Span {
        let line = self.lines.partition_point(|first| *first <= start);
        let first = line.checked_sub(1).and_then(|l| self.lines.get(l)).copied().unwrap_or(0);
        let before = self.text.get(first..start).unwrap_or_default();
        Span { start, end, line: saturate(line), column: saturate(before.chars().count() + 1) }
    }
}

/// Where a Go or Jinja template expression is: outside of comments, with its line.
pub(crate) fn template_at(text: &str) -> Option<usize> {
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if !line.trim_start().starts_with('#') {
            let found = ["{{", "{%"].iter().filter_map(|open| line.find(open)).min();
            if let Some(at) = found {
                return Some(offset + at);
            }
        }
        offset += line.len();
    }
    None
}

/// The one error of a template.
pub(crate) fn template_error(file: &str, span: Span) -> Diagnostic {
    Diagnostic::error(codes::TEMPLATE, file, Some(span), "this is a template, not a manifest")
        .hint("render it first, for example with `helm template`, and use its output")
}
