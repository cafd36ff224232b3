//! YAML to [`Node`] trees.
//!
//! Scalars are typed as the Kubernetes and Compose tools do (go-yaml): YAML 1.2's core schema, and besides `0644` as
//! an octal number. `yes` and `on` stay plain strings; who wants a boolean decides about them.
//! The text is cut at `---` lines first, so that a syntax error stays in its document.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::load::{Document, Limits, Loaded, MOST, saturate, template_at, template_error};
use crate::node::{Entry, Map, Node, Span, Style, Value};
use crate::yaml_lenient::Lenient;

/// Reads all documents from `text[skip..]`.
pub(crate) fn load(file: &str, text: &str, skip: usize, limits: &Limits) -> Loaded {
    let mut out = Loaded::default();
    let mut spent = Spent::default();
    let mut chunk_start = skip;
    let mut chunk_line = 1;
    let mut offset = skip;
    for (line, text_line) in (1..).zip(text[skip..].split_inclusive('\n')) {
        if is_marker(text_line) && offset > chunk_start {
            chunk(file, text, chunk_start..offset, chunk_line, limits, &mut spent, &mut out);
            (chunk_start, chunk_line) = (offset, line);
        }
        offset += text_line.len();
    }
    chunk(file, text, chunk_start..text.len(), chunk_line, limits, &mut spent, &mut out);
    out
}

/// Whether a line starts a document: `---` in the first column, then space or nothing (YAML 1.2, 9.1.2).
fn is_marker(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// What of the limits is used up, over all documents of a file.
#[derive(Default)]
struct Spent {
    nodes: usize,
    alias_bytes: usize,
}

fn is_blank(chunk: &str) -> bool {
    chunk.lines().enumerate().all(|(i, line)| {
        let rest = if i == 0 { line.strip_prefix("---").unwrap_or(line) } else { line };
        let rest = rest.trim();
        rest.is_empty() || rest.starts_with(['#', '%']) || rest == "..."
    })
}

fn chunk(
    file: &str,
    text: &str,
    range: std::ops::Range<usize>,
    first_line: usize,
    limits: &Limits,
    spent: &mut Spent,
    out: &mut Loaded,
) {
    let part = &text[range.clone()];
    if is_blank(part) {
        return;
    }
    let mut lenient = Lenient::new(part);
    let mut first_fault = None;
    let (finished, roots, mut diagnostics) = loop {
        let places = Chars::new(part, range.start, first_line, &lenient);
        let before = (spent.nodes, spent.alias_bytes);
        let mut builder = Builder {
            file,
            limits,
            spent,
            places: &places,
            stack: Vec::new(),
            anchors: HashMap::new(),
            roots: Vec::new(),
            diagnostics: Vec::new(),
        };
        let ended = builder.run(lenient.text());
        if let Ended::Fault(fault) = &ended {
            // When repairs lead nowhere, the first fault is the one to tell.
            let told = first_fault.get_or_insert_with(|| syntax_error(file, part, &places, fault)).clone();
            builder.diagnostics.push(told);
        }
        builder.close_all();
        let Builder { roots, diagnostics, .. } = builder;
        match ended {
            Ended::Fault(fault) if lenient.repair(&fault) => (spent.nodes, spent.alias_bytes) = before,
            ended => break (matches!(ended, Ended::Done), roots, diagnostics),
        }
    };
    let secret = part.lines().any(|l| {
        l.trim_start_matches(['-', ' ', '\t']).strip_prefix("kind:").is_some_and(|kind| {
            let kind = kind.trim().trim_matches(['"', '\'']);
            kind == "Secret" || kind.starts_with("Secret ") || kind == "SecretList"
        })
    });
    let mut broken_off = !finished;
    if !diagnostics.is_empty()
        && let Some(at) = template_at(part)
    {
        let line_start = part[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let line = first_line + part[..at].matches('\n').count();
        let length = part[at..].find(['\r', '\n']).unwrap_or(part.len() - at);
        let column = saturate(part[line_start..at].chars().count() + 1);
        let start = range.start + at;
        let span = Span { start, end: start + length, line: saturate(line), column };
        diagnostics = vec![template_error(file, span)];
        broken_off = true;
    }
    if secret {
        diagnostics.iter_mut().for_each(|d| d.secret = true);
    }
    let complete = finished && diagnostics.is_empty();
    out.diagnostics.append(&mut diagnostics);
    out.documents.extend(
        roots.into_iter().filter(|node| !complete || node.value != Value::Null).map(|node| Document {
            node,
            complete,
            broken_off,
            secret,
        }),
    );
}

/// Turns the parser's character positions into bytes and lines of the whole file.
struct Chars<'l> {
    lenient: &'l Lenient<'l>,
    bytes: Option<Vec<u32>>,
    len: usize,
    base: usize,
    first_line: usize,
}

impl<'l> Chars<'l> {
    fn new(part: &str, base: usize, first_line: usize, lenient: &'l Lenient<'l>) -> Self {
        let bytes = (!part.is_ascii()).then(|| part.char_indices().map(|(i, _)| saturate(i)).collect());
        Self { lenient, bytes, len: part.len(), base, first_line }
    }

    fn byte(&self, index: usize) -> usize {
        let inner = match &self.bytes {
            None => index.min(self.len),
            Some(table) => table.get(index).map_or(self.len, |byte| *byte as usize),
        };
        self.base + inner
    }

    fn span(&self, span: saphyr_parser::Span) -> Span {
        let at = |marker| self.byte(self.lenient.original(marker).0);
        let (start, end) = (at(&span.start), at(&span.end));
        Span { start, end: end.max(start), ..self.point(&span.start) }
    }

    fn point(&self, marker: &saphyr_parser::Marker) -> Span {
        let (index, line, column) = self.lenient.original(marker);
        let at = self.byte(index);
        let line = self.first_line + line.saturating_sub(1);
        Span { start: at, end: at, line: saturate(line), column: saturate(column + 1) }
    }
}

enum Frame {
    Seq { open: Open, items: Vec<Node> },
    Map { open: Open, map: Map, key: Key, merges: Vec<Node> },
}

struct Open {
    span: Span,
    tag: Option<String>,
    anchor: usize,
    nodes_before: usize,
}

enum Key {
    Wanted,
    Have(String, Span),
    Merge(Span),
    Bad,
}

struct Anchored {
    node: Node,
    nodes: usize,
    depth: usize,
    bytes: usize,
}

/// How reading ended.
enum Ended {
    Done,
    /// A limit was exceeded or an alias makes no sense; that is reported.
    Limit,
    /// The text is not YAML.
    Fault(ScanError),
}

struct Builder<'a> {
    file: &'a str,
    limits: &'a Limits,
    spent: &'a mut Spent,
    places: &'a Chars<'a>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Anchored>,
    roots: Vec<Node>,
    diagnostics: Vec<Diagnostic>,
}

impl Builder<'_> {
    /// Hands the events of the parser on until it or a limit ends that.
    fn run(&mut self, part: &str) -> Ended {
        let mut parser = Parser::new_from_str(part);
        loop {
            match parser.next_event() {
                None | Some(Ok((Event::StreamEnd, _))) => return Ended::Done,
                Some(Ok((event, span))) => {
                    let span = self.places.span(span);
                    if let Err(diagnostic) = self.event(event, span) {
                        self.diagnostics.push(*diagnostic);
                        return Ended::Limit;
                    }
                }
                Some(Err(error)) => return Ended::Fault(error),
            }
        }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Box<Diagnostic>> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, span)?;
                if self.take_key(&text, style, span) {
                    if anchor > 0 {
                        let node = Node::new(span, Value::String(text.into_owned(), Style::Plain));
                        self.anchor(anchor, &node, 1, span)?;
                    }
                    return Ok(());
                }
                let (value, tag) = self.scalar(&text, style, tag.as_deref(), span);
                let node = Node { span, tag, value };
                if anchor > 0 {
                    self.anchor(anchor, &node, 1, span)?;
                }
                self.emit(node);
            }
            Event::SequenceStart(anchor, tag) => {
                let open = self.open(span, anchor, tag.as_deref())?;
                self.stack.push(Frame::Seq { open, items: Vec::new() });
            }
            Event::MappingStart(anchor, tag) => {
                let open = self.open(span, anchor, tag.as_deref())?;
                self.stack.push(Frame::Map { open, map: Map::new(), key: Key::Wanted, merges: Vec::new() });
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(Some(span))?,
            Event::Alias(id) => self.alias(id, span)?,
            Event::DocumentEnd => self.anchors.clear(),
            Event::DocumentStart(_) | Event::StreamStart | Event::StreamEnd | Event::Nothing => {}
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Box<Diagnostic>> {
        self.spent.nodes = self.spent.nodes.saturating_add(nodes);
        if self.spent.nodes > self.limits.nodes {
            return Err(Box::new(self.too_large(span, format!("more than {} values", self.limits.nodes))));
        }
        Ok(())
    }

    fn too_large(&self, span: Span, what: String) -> Diagnostic {
        Diagnostic::error(codes::TOO_LARGE, self.file, Some(span), what)
            .hint("what an alias stands for counts each time; split the file, or write less")
    }

    fn open(&mut self, span: Span, anchor: usize, tag: Option<&Tag>) -> Result<Open, Box<Diagnostic>> {
        let nodes_before = self.spent.nodes;
        self.count(1, span)?;
        if self.stack.len() >= self.limits.depth {
            return Err(Box::new(self.too_large(span, format!("nested deeper than {} levels", self.limits.depth))));
        }
        let tag = tag.filter(|tag| !tag.is_yaml_core_schema()).map(tag_text);
        Ok(Open { span, tag, anchor, nodes_before })
    }

    /// Takes a scalar as the key of the mapping on top, when one is wanted.
    fn take_key(&mut self, text: &str, style: ScalarStyle, span: Span) -> bool {
        let Some(Frame::Map { key: key @ Key::Wanted, map, .. }) = self.stack.last_mut() else { return false };
        if style == ScalarStyle::Plain && text == "<<" {
            *key = Key::Merge(span);
            return true;
        }
        if style == ScalarStyle::Plain && matches!(text, "" | "~" | "null") {
            *key = Key::Bad;
            let message = "a key is missing before the colon";
            self.diagnostics.push(Diagnostic::error(codes::BAD_KEY, self.file, Some(span), message));
            return true;
        }
        if let Some(first) = map.get(text) {
            let first = first.key_span;
            *key = Key::Bad;
            if self.diagnostics.len() < MOST {
                self.diagnostics.push(duplicate_key(self.file, text, span, first));
            }
        } else {
            *key = Key::Have(text.to_owned(), span);
        }
        true
    }

    /// Hands a finished value to what is on top.
    fn emit(&mut self, node: Node) {
        match self.stack.last_mut() {
            None => self.roots.push(node),
            Some(Frame::Seq { items, .. }) => items.push(node),
            Some(Frame::Map { map, key, merges, .. }) => match std::mem::replace(key, Key::Wanted) {
                Key::Have(text, key_span) => {
                    map.insert(text, Entry { key_span, node });
                }
                Key::Merge(at) => match node.value {
                    Value::Map(_) => merges.push(node),
                    Value::Seq(items) if items.iter().all(|item| matches!(item.value, Value::Map(_))) => {
                        merges.extend(items);
                    }
                    _ => self.diagnostics.push(
                        Diagnostic::error(
                            codes::BAD_ALIAS,
                            self.file,
                            Some(at),
                            "`<<` takes a mapping or a list of them",
                        )
                        .hint("write `<<: *name` where `&name` marks a mapping"),
                    ),
                },
                Key::Bad => {}
                Key::Wanted => {
                    *key = Key::Bad;
                    self.diagnostics.push(
                        Diagnostic::error(
                            codes::BAD_KEY,
                            self.file,
                            Some(node.span),
                            format!("a key must be text, not {}", node.kind()),
                        )
                        .hint("put it in quotes if it is meant as text"),
                    );
                }
            },
        }
    }

    /// Finishes what is on top; without a place when the text broke off.
    fn close(&mut self, end: Option<Span>) -> Result<(), Box<Diagnostic>> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let (open, value) = match frame {
            Frame::Seq { open, items } => (open, Value::Seq(items)),
            Frame::Map { open, mut map, merges, .. } => {
                for merge in merges {
                    let Value::Map(source) = merge.value else { continue };
                    for (key, entry) in source {
                        map.entry(key).or_insert(entry);
                    }
                }
                (open, Value::Map(map))
            }
        };
        let mut span = open.span;
        span.end = end.map_or(span.end, |end| end.end).max(span.start);
        let nodes = self.spent.nodes - open.nodes_before;
        let node = Node { span, tag: open.tag, value };
        if open.anchor > 0 {
            self.anchor(open.anchor, &node, nodes, span)?;
        }
        self.emit(node);
        Ok(())
    }

    /// Closes everything that is still open after an error.
    fn close_all(&mut self) {
        while !self.stack.is_empty() {
            if let Some(Frame::Map { key, .. }) = self.stack.last_mut() {
                *key = Key::Wanted;
            }
            // Anchors do not matter any more, so a budget error neither.
            let _ = self.close(None);
        }
    }

    fn anchor(&mut self, id: usize, node: &Node, nodes: usize, span: Span) -> Result<(), Box<Diagnostic>> {
        let bytes = text_bytes(node);
        self.spend_bytes(bytes, span)?;
        self.anchors.insert(id, Anchored { node: node.clone(), nodes, depth: depth(node), bytes });
        Ok(())
    }

    fn spend_bytes(&mut self, bytes: usize, span: Span) -> Result<(), Box<Diagnostic>> {
        self.spent.alias_bytes = self.spent.alias_bytes.saturating_add(bytes);
        if self.spent.alias_bytes > self.limits.alias_bytes {
            let what = format!("aliases expand to more than {} bytes", self.limits.alias_bytes);
            return Err(Box::new(self.too_large(span, what)));
        }
        Ok(())
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<(), Box<Diagnostic>> {
        let Some(anchored) = self.anchors.get(&id) else {
            let message = "the alias is inside the value that it refers to";
            return Err(Box::new(Diagnostic::error(codes::BAD_ALIAS, self.file, Some(span), message)));
        };
        let (nodes, bytes, depth) = (anchored.nodes, anchored.bytes, anchored.depth);
        self.count(nodes, span)?;
        self.spend_bytes(bytes, span)?;
        if self.stack.len() + depth > self.limits.depth {
            return Err(Box::new(self.too_large(span, format!("nested deeper than {} levels", self.limits.depth))));
        }
        let Some(node) = self.anchors.get(&id).map(|anchored| anchored.node.clone()) else { return Ok(()) };
        if let Value::String(text, _) = &node.value
            && self.take_key(text, ScalarStyle::DoubleQuoted, span)
        {
            return Ok(());
        }
        self.emit(node);
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> (Value, Option<String>) {
        let quoted = || Value::String(text.to_owned(), Style::Quoted);
        let Some(tag) = tag else {
            return (if style == ScalarStyle::Plain { plain(text) } else { quoted() }, None);
        };
        if !tag.is_yaml_core_schema() {
            // `!` alone means: do not guess the type (YAML 1.2, 6.9.1).
            let non_specific = tag_text(tag) == "!";
            let value = if style == ScalarStyle::Plain && !non_specific { plain(text) } else { quoted() };
            return (value, (!non_specific).then(|| tag_text(tag)));
        }
        let typed = plain(text);
        let value = match (tag.suffix.as_str(), &typed) {
            ("str" | "binary" | "timestamp", _) => quoted(),
            ("int", Value::Int(_) | Value::UInt(_)) | ("float", Value::Float(_)) => typed,
            ("float", Value::Int(int)) => Value::Float(*int as f64),
            ("bool", Value::Bool(_)) | ("null", Value::Null) => typed,
            (suffix, _) => {
                let message = format!("`{}` is not a value of type `!!{suffix}`", shorten(text));
                self.diagnostics.push(Diagnostic::error(codes::TAG, self.file, Some(span), message));
                Value::Null
            }
        };
        (value, None)
    }
}

fn tag_text(tag: &Tag) -> String {
    format!("{}{}", tag.handle, tag.suffix)
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::Seq(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(map) => 1 + map.values().map(|entry| depth(&entry.node)).max().unwrap_or(0),
        _ => 0,
    }
}

fn text_bytes(node: &Node) -> usize {
    match &node.value {
        Value::String(text, _) => text.len(),
        Value::Seq(items) => items.iter().map(text_bytes).sum(),
        Value::Map(map) => map.iter().map(|(key, entry)| key.len() + text_bytes(&entry.node)).sum(),
        _ => 0,
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

/// The error of a key that is there already.
pub(crate) fn duplicate_key(file: &str, key: &str, span: Span, first: Span) -> Diagnostic {
    Diagnostic::error(codes::DUPLICATE_KEY, file, Some(span), format!("duplicate key `{}`", shorten(key)))
        .hint("remove one of the two")
        .note(file, Some(first), "first defined here")
}

fn syntax_error(file: &str, part: &str, places: &Chars<'_>, fault: &ScanError) -> Diagnostic {
    let (span, info) = (places.point(fault.marker()), fault.info());
    let at = span.start.saturating_sub(places.base).min(part.len());
    let line_start = part.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
    let line = part.get(line_start..).unwrap_or_default().lines().next().unwrap_or_default();
    let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
    // Where the parser's words tell more of the parser than of the text, these say what is there.
    let info = match info {
        "simple key expect ':'" => "expected `: ` after a key",
        "while parsing a block collection, did not find expected '-' indicator" => {
            "this line is indented like no other before it, and begins no list entry"
        }
        "while parsing a block mapping, did not find expected key" => "this line is indented like no other before it",
        "invalid indentation in quoted scalar" => "a quote that opens here is not closed",
        other => other,
    };
    let diagnostic = Diagnostic::error(codes::SYNTAX, file, Some(span), format!("invalid YAML: {info}"));
    if indent.contains('\t') || info.contains("tab") {
        return diagnostic.hint("indent with spaces; YAML does not allow tabs");
    }
    let value = line.split_once(": ").map_or("", |(_, value)| value.trim_start());
    if value.starts_with(['@', '`', '%']) {
        return diagnostic.hint("put the value in quotes");
    }
    if value.contains(": ") && !value.starts_with(['"', '\'', '{', '[', '|', '>']) {
        return diagnostic.hint("a value that contains `: ` must be in quotes");
    }
    if info.contains("mapping values are not allowed") || info.starts_with("this line is indented") {
        return diagnostic.hint("check the indentation of this line and the one before it");
    }
    diagnostic
}

/// The type of a plain scalar.
fn plain(text: &str) -> Value {
    let string = || Value::String(text.to_owned(), Style::Plain);
    match text.as_bytes().first() {
        None => return Value::Null,
        Some(b'~' | b'n' | b'N' | b't' | b'T' | b'f' | b'F') => {}
        Some(b'0'..=b'9' | b'+' | b'-' | b'.') => return number(text).unwrap_or_else(string),
        Some(_) => return string(),
    }
    match text {
        "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => string(),
    }
}

fn number(text: &str) -> Option<Value> {
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(Value::Float(f64::INFINITY)),
        "-.inf" | "-.Inf" | "-.INF" => return Some(Value::Float(f64::NEG_INFINITY)),
        ".nan" | ".NaN" | ".NAN" => return Some(Value::Float(f64::NAN)),
        _ => {}
    }
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let digits: std::borrow::Cow<'_, str> =
        if digits.contains('_') { digits.replace('_', "").into() } else { digits.into() };
    let radix = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => Some((16, &digits[2..])),
        [b'0', b'o' | b'O', ..] => Some((8, &digits[2..])),
        [b'0', b'b' | b'B', ..] => Some((2, &digits[2..])),
        [b'0', rest @ ..] if !rest.is_empty() && rest.iter().all(|b| (b'0'..=b'7').contains(b)) => {
            Some((8, &digits[1..]))
        }
        bytes if bytes.iter().all(u8::is_ascii_digit) && (bytes.first() != Some(&b'0') || bytes.len() == 1) => {
            Some((10, &*digits))
        }
        _ => None,
    };
    if let Some((radix, digits)) = radix {
        if digits.is_empty() || digits.starts_with(['+', '-']) {
            return None;
        }
        match u64::from_str_radix(digits, radix) {
            Ok(value) => {
                let signed = i128::from(value) * if negative { -1 } else { 1 };
                return Some(match i64::try_from(signed) {
                    Ok(value) => Value::Int(value),
                    Err(_) if !negative => Value::UInt(value),
                    Err(_) => Value::Float(-(value as f64)),
                });
            }
            Err(_) if radix != 10 => return None,
            Err(_) => {}
        }
    }
    let float = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
        && digits.bytes().any(|b| b.is_ascii_digit());
    let value: f64 = if float { digits.parse().ok()? } else { return None };
    Some(Value::Float(if negative { -value } else { value }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Value {
        let loaded = load("t.yaml", &format!("k: {text}\n"), 0, &Limits::default());
        assert_eq!(loaded.diagnostics, [], "{text}");
        loaded.documents[0].node.get("k").expect("the key").value.clone()
    }

    #[test]
    fn plain_scalars_have_types() {
        let s = |t: &str| Value::String(t.to_owned(), Style::Plain);
        for (text, want) in [
            ("1", Value::Int(1)),
            ("-7", Value::Int(-7)),
            ("0644", Value::Int(0o644)),
            ("0o644", Value::Int(0o644)),
            ("0x1F", Value::Int(31)),
            ("1_000", Value::Int(1000)),
            ("18446744073709551615", Value::UInt(u64::MAX)),
            ("1.5", Value::Float(1.5)),
            ("1e3", Value::Float(1000.0)),
            ("08", Value::Float(8.0)),
            ("true", Value::Bool(true)),
            ("False", Value::Bool(false)),
            ("~", Value::Null),
            ("", Value::Null),
            ("null", Value::Null),
            ("yes", s("yes")),
            ("on", s("on")),
            ("1.2.3", s("1.2.3")),
            ("500m", s("500m")),
            ("+", s("+")),
            ("0x", s("0x")),
            (".", s(".")),
            ("12:30", s("12:30")),
            ("2001-01-01", s("2001-01-01")),
            ("!!str 12", Value::String("12".into(), Style::Quoted)),
            ("'12'", Value::String("12".into(), Style::Quoted)),
        ] {
            assert_eq!(one(text), want, "{text}");
        }
    }

    fn codes_of(text: &str) -> Vec<(&'static str, u32, u32)> {
        let loaded = load("t.yaml", text, 0, &Limits::default());
        loaded
            .diagnostics
            .iter()
            .map(|d| (d.code, d.span.map_or(0, |s| s.line), d.span.map_or(0, |s| s.column)))
            .collect()
    }

    #[test]
    fn faults_have_a_code_and_a_place() {
        for (text, want) in [
            ("a: 1\na: 2\n", vec![(codes::DUPLICATE_KEY, 2, 1)]),
            (
                "a: 1\n---\nb: 1\nb: 2\n---\nc: 1\nc: 3\n",
                vec![(codes::DUPLICATE_KEY, 4, 1), (codes::DUPLICATE_KEY, 7, 1)],
            ),
            ("ä: {é: 1, é: 2}\n", vec![(codes::DUPLICATE_KEY, 1, 11)]),
            ("a: *b\n", vec![(codes::SYNTAX, 1, 4)]),
            ("a: &b [*b]\n", vec![(codes::BAD_ALIAS, 1, 8)]),
            ("a: &x 1\nb: {<<: *x}\n", vec![(codes::BAD_ALIAS, 2, 5)]),
            ("? [a]\n: 1\n", vec![(codes::BAD_KEY, 1, 3)]),
            ("kind: {{ .Values.kind }}\n", vec![(codes::TEMPLATE, 1, 7)]),
            ("{{- if .x }}\na: 1\n{{- end }}\n", vec![(codes::TEMPLATE, 1, 1)]),
            ("# {{ a }}\na: |\n  {{ b }}\n", vec![]),
            ("---\n# only a comment\n---\n", vec![]),
            ("a: 1\r\nb: 2\r\n", vec![]),
        ] {
            assert_eq!(codes_of(text), want, "{text:?}");
        }
    }

    #[test]
    fn a_broken_document_does_not_hide_the_others() {
        let loaded = load("t.yaml", "kind: A\nx: [\n---\nkind: B\n", 0, &Limits::default());
        let kinds: Vec<_> =
            loaded.documents.iter().map(|d| (d.node.get("kind").and_then(Node::as_str), d.complete)).collect();
        assert_eq!(kinds, [(Some("A"), false), (Some("B"), true)]);
        assert_eq!(loaded.documents[1].node.get("kind").map(|n| n.span.line), Some(4));
    }

    #[test]
    fn merge_keys_fill_in_what_is_missing() {
        let text = "base: &b {x: 1, y: 1}\nmore: &m {y: 2, z: 2}\nout:\n  <<: [*b, *m]\n  x: 0\n";
        let loaded = load("t.yaml", text, 0, &Limits::default());
        assert_eq!(loaded.diagnostics, []);
        let out = loaded.documents[0].node.get("out").expect("out");
        let values: Vec<_> = ["x", "y", "z"].iter().map(|k| out.get(k).expect("merged").value.clone()).collect();
        assert_eq!(values, [Value::Int(0), Value::Int(1), Value::Int(2)]);
    }

    #[test]
    fn layout_that_go_yaml_takes_is_taken() {
        for (text, want) in [
            ("a:\n    b: [\n      x,\n      y\n  ]\nc: 1\n", vec![]),
            ("a:\n    b: [\nx,\ny\n]\nc: 1\n", vec![]),
            ("a:\n  b: {\n    c: d\n}\n", vec![]),
            ("a:\n  b: \"one\n  two\nthree\"\n  c: 'one\n it''s'\n", vec![]),
            ("a:\n  b:\tc\n", vec![]),
            // Places after a repair are those of the text as it was written.
            ("a:\n  b: [\n    é\n]\nc: 1\nc: 2\n", vec![(codes::DUPLICATE_KEY, 6, 1)]),
            ("a:\n  - b: [\n    é, {x: 1,\nx: 2}\n]\n", vec![(codes::DUPLICATE_KEY, 4, 1)]),
            // What is wrong stays wrong.
            ("a:\n  b: [\n    x\nc: 1\n", vec![(codes::SYNTAX, 4, 2)]),
            ("a:\n  b: \"one\nc: 1\n", vec![(codes::SYNTAX, 2, 6)]),
        ] {
            assert_eq!(codes_of(text), want, "{text:?}");
        }
        let text = "a:\n  b: \"one\ntwo\"\n  c: [x,\ny]\n";
        let loaded = load("t.yaml", text, 0, &Limits::default());
        let a = loaded.documents[0].node.get("a").expect("a");
        assert_eq!(a.get("b").and_then(Node::as_str), Some("one two"));
        let y = &a.get("c").and_then(Node::as_seq).expect("a list")[1];
        assert_eq!(text.get(y.span.start..y.span.end), Some("y"));
    }

    #[test]
    fn limits_answer_with_an_error() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..10 {
            let inner = vec![format!("*a{}", i - 1); 10].join(",");
            bomb.push_str(&format!("a{i}: &a{i} [{inner}]\n"));
        }
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 1000].join(","));
        for text in [bomb, long, "[".repeat(100), "a: [".repeat(100), "- ".repeat(100) + "x"] {
            let loaded = load("t.yaml", &text, 0, &Limits::default());
            assert!(!loaded.diagnostics.is_empty(), "{}", &text[..20]);
        }
    }
}
