//! JSON (RFC 8259) to [`Node`] trees, with the same diagnostics as YAML: places, both ends of a duplicate key.
//!
//! Several values one after the other are several documents, as `kubectl` reads them.

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::load::{Document, Limits, Loaded, MOST, Places, template_at, template_error};
use crate::node::{Entry, Map, Node, Style, Value};
use crate::yaml::duplicate_key;

/// Reads all values from `text[skip..]`.
pub(crate) fn load(file: &str, text: &str, skip: usize, limits: &Limits) -> Loaded {
    let places = Places::new(text);
    let mut reader = Reader { file, text, at: skip, places: &places, limits, nodes: 0, diagnostics: Vec::new() };
    let mut documents = Vec::new();
    loop {
        reader.space();
        if reader.at >= text.len() {
            break;
        }
        let faults = reader.diagnostics.len();
        let (node, result) = reader.value(0);
        if let Err(diagnostic) = result {
            reader.diagnostics.push(*diagnostic);
        }
        let complete = reader.diagnostics.len() == faults;
        let broken_off = reader.diagnostics.last().is_some_and(|d| d.code != codes::DUPLICATE_KEY) && !complete;
        let secret = node.get("kind").and_then(Node::as_str).is_some_and(|kind| kind.starts_with("Secret"));
        if secret {
            reader.diagnostics[faults..].iter_mut().for_each(|d| d.secret = true);
        }
        documents.push(Document { node, complete, broken_off, secret });
        if broken_off {
            break;
        }
    }
    let mut diagnostics = reader.diagnostics;
    if diagnostics.iter().any(|d| d.code == codes::SYNTAX)
        && let Some(at) = template_at(text)
    {
        diagnostics = vec![template_error(file, places.span(at, at + 2))];
    }
    Loaded { documents, diagnostics }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    at: usize,
    places: &'a Places<'a>,
    limits: &'a Limits,
    nodes: usize,
    diagnostics: Vec<Diagnostic>,
}

type Fault = Box<Diagnostic>;

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn fault(&self, at: usize, what: impl std::fmt::Display) -> Fault {
        let end = (at + 1).min(self.text.len());
        let span = self.places.span(at.min(self.text.len()), end);
        let found = Diagnostic::error(codes::SYNTAX, self.file, Some(span), format!("invalid JSON: {what}"));
        let rest = self.text.get(at..).unwrap_or_default();
        Box::new(match rest.as_bytes() {
            [b'/', b'/' | b'*', ..] | [b'#', ..] => found.hint("JSON has no comments; remove it, or write YAML"),
            [b'\'', ..] => found.hint("JSON takes double quotes only"),
            _ => found,
        })
    }

    fn found(&self) -> String {
        match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            None => "the end of the file".to_owned(),
            Some(c) if c.is_control() => format!("`{}`", c.escape_default()),
            Some(c) => format!("`{c}`"),
        }
    }

    /// The value at the current place, as much of it as could be read, and why it is not all.
    fn value(&mut self, depth: usize) -> (Node, Result<(), Fault>) {
        self.space();
        let start = self.at;
        let mut out = Value::Null;
        let result = self.value_into(depth, &mut out);
        (Node::new(self.places.span(start, self.at.max(start)), out), result)
    }

    fn value_into(&mut self, depth: usize, out: &mut Value) -> Result<(), Fault> {
        self.nodes += 1;
        let too_large = |what: String| {
            let span = self.places.span(self.at, self.at);
            Err(Box::new(Diagnostic::error(codes::TOO_LARGE, self.file, Some(span), what)))
        };
        if self.nodes > self.limits.nodes {
            return too_large(format!("more than {} values", self.limits.nodes));
        }
        if depth > self.limits.depth {
            return too_large(format!("nested deeper than {} levels", self.limits.depth));
        }
        match self.peek() {
            Some(b'{') => self.object(depth, out),
            Some(b'[') => self.array(depth, out),
            Some(b'"') => {
                *out = Value::String(self.string()?, Style::Quoted);
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => {
                *out = self.number()?;
                Ok(())
            }
            _ => {
                for (word, value) in [("true", Value::Bool(true)), ("false", Value::Bool(false)), ("null", Value::Null)]
                {
                    if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
                        self.at += word.len();
                        *out = value;
                        return Ok(());
                    }
                }
                if self.peek() == Some(b']') {
                    return Err(
                        self.fault(self.at, format_args!("expected a value after `,`, found `]`: remove the comma"))
                    );
                }
                Err(self.fault(self.at, format_args!("expected a value, found {}", self.found())))
            }
        }
    }

    fn object(&mut self, depth: usize, out: &mut Value) -> Result<(), Fault> {
        self.at += 1;
        *out = Value::Map(Map::new());
        let Value::Map(map) = out else { return Ok(()) };
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            let start = self.at;
            if self.peek() == Some(b'}') {
                return Err(self.fault(start, format_args!("expected a key after `,`, found `}}`: remove the comma")));
            }
            if self.peek() != Some(b'"') {
                return Err(self.fault(start, format_args!("expected a key in double quotes, found {}", self.found())));
            }
            let key = self.string()?;
            let key_span = self.places.span(start, self.at);
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.fault(self.at, format_args!("expected `:` after a key, found {}", self.found())));
            }
            self.at += 1;
            let (node, result) = self.value(depth + 1);
            if let Some(first) = map.get(&key) {
                if self.diagnostics.len() < MOST {
                    self.diagnostics.push(duplicate_key(self.file, &key, key_span, first.key_span));
                }
            } else {
                map.insert(key, Entry { key_span, node });
            }
            result?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.fault(self.at, format_args!("expected `,` or `}}`, found {}", self.found()))),
            }
        }
    }

    fn array(&mut self, depth: usize, out: &mut Value) -> Result<(), Fault> {
        self.at += 1;
        *out = Value::Seq(Vec::new());
        let Value::Seq(items) = out else { return Ok(()) };
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let (node, result) = self.value(depth + 1);
            items.push(node);
            result?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.fault(self.at, format_args!("expected `,` or `]`, found {}", self.found()))),
            }
        }
    }

    fn string(&mut self) -> Result<String, Fault> {
        let start = self.at;
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let plain = rest.find(|c: char| matches!(c, '"' | '\\') || u32::from(c) < 0x20).unwrap_or(rest.len());
            out.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return Err(self.fault(self.at, "a control character in a string must be escaped")),
                None => return Err(self.fault(start, "the string has no end")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let start = self.at;
        self.at += 1;
        let simple = match self.peek() {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let first = self.hex4(start)?;
                if !(0xd800..0xe000).contains(&first) {
                    return char::from_u32(first).ok_or_else(|| self.fault(start, "not a character"));
                }
                let low = self.text.get(self.at..).is_some_and(|rest| rest.starts_with("\\u"));
                if first < 0xdc00 && low {
                    self.at += 1;
                    let second = self.hex4(start)?;
                    if (0xdc00..0xe000).contains(&second) {
                        let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                        return char::from_u32(code).ok_or_else(|| self.fault(start, "not a character"));
                    }
                }
                return Err(self.fault(start, "half of a surrogate pair"));
            }
            _ => return Err(self.fault(start, "unknown escape")),
        };
        self.at += 1;
        Ok(simple)
    }

    /// Four hex digits after the `u` at the current place.
    fn hex4(&mut self, start: usize) -> Result<u32, Fault> {
        let digits = self.text.get(self.at + 1..self.at + 5).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
            Some(code) => {
                self.at += 5;
                Ok(code)
            }
            None => Err(self.fault(start, "after `\\u` come four hex digits")),
        }
    }

    fn number(&mut self) -> Result<Value, Fault> {
        let start = self.at;
        let rest = &self.text[start..];
        let length = rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).unwrap_or(rest.len());
        let text = &rest[..length];
        let digits = text.strip_prefix('-').unwrap_or(text);
        let whole = digits.bytes().take_while(u8::is_ascii_digit).count();
        if whole == 0 || (whole > 1 && digits.starts_with('0')) || text.ends_with(['.', 'e', 'E', '+', '-']) {
            return Err(self.fault(start, format_args!("`{text}` is not a number")));
        }
        let value = match (text.parse::<i64>(), text.parse::<u64>(), text.parse::<f64>()) {
            (Ok(int), ..) => Value::Int(int),
            (_, Ok(int), _) => Value::UInt(int),
            (.., Ok(float)) => Value::Float(float),
            _ => return Err(self.fault(start, format_args!("`{text}` is not a number"))),
        };
        self.at += length;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_reads_as_serde_reads_it() {
        let text = r#"{"a": [1, -2.5e3, "x\"\u00e9\ud83d\ude00\/", true, null, {}], "b": {"c": []}}"#;
        let loaded = load("t.json", text, 0, &Limits::default());
        assert_eq!(loaded.diagnostics, []);
        let a = loaded.documents[0].node.get("a").and_then(Node::as_seq).expect("a list");
        assert_eq!(a[2].as_str(), Some("x\"é😀/"));
        assert_eq!(a[1].value, Value::Float(-2500.0));
        let twice = format!("{text}\n{text}");
        assert_eq!(load("t.json", &twice, 0, &Limits::default()).documents.len(), 2);
    }

    #[test]
    fn faults_have_a_place() {
        for (text, code, line, column) in [
            ("{\"a\": 1,\n \"a\": 2}", codes::DUPLICATE_KEY, 2, 2),
            ("{\"a\": 1,}", codes::SYNTAX, 1, 9),
            ("{\"a\" 1}", codes::SYNTAX, 1, 6),
            ("{\"a\": tru}", codes::SYNTAX, 1, 7),
            ("{\"a\": 01}", codes::SYNTAX, 1, 7),
            ("{\"a\": \"x", codes::SYNTAX, 1, 7),
            ("{\"a\": \"\\ud800\"}", codes::SYNTAX, 1, 8),
            ("{\"a\": {{ .x }}}", codes::TEMPLATE, 1, 7),
        ] {
            let loaded = load("t.json", text, 0, &Limits::default());
            let first = loaded.diagnostics.first().expect(text);
            let span = first.span.expect(text);
            assert_eq!((first.code, span.line, span.column), (code, line, column), "{text}");
        }
        let deep = load("t.json", &"[".repeat(2000), 0, &Limits::default());
        assert_eq!(deep.diagnostics[0].code, codes::TOO_LARGE);
    }
}
