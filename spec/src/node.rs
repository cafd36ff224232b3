//! A parsed document as a tree in which everything knows its place.
//!
//! YAML, JSON and TOML all become this one form, so that checks, hints and carets look the same for each.

use indexmap::IndexMap;

/// A half-open range of a source text, in bytes, and where it starts for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it is written; for a value that came through an alias or a merge key, where it was written first.
    pub span: Span,
    /// YAML tag without the core ones, such as `!reset`.
    pub tag: Option<String>,
    /// What it is.
    pub value: Value,
}

/// A value by YAML's core schema (1.2): `yes` and `on` are strings, `0o17` an integer.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer that fits.
    Int(i64),
    /// An integer above `i64::MAX`.
    UInt(u64),
    /// Any other number; the text as written stays available through the span.
    Float(f64),
    /// Text. The flag tells whether it was written plain, that is without quotes or block style.
    String(String, Style),
    /// A list.
    Seq(Vec<Node>),
    /// A mapping in order of writing, after merge keys.
    Map(Map),
}

/// How a string was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without quotes.
    Plain,
    /// In quotes, as a block, or in a language where strings always have quotes.
    Quoted,
}

/// A mapping from string keys; each key knows its place too.
pub type Map = IndexMap<String, Entry>;

/// A value of a mapping and the place of its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where the key is written.
    pub key_span: Span,
    /// The value.
    pub node: Node,
}

impl Node {
    /// A node.
    #[must_use]
    pub fn new(span: Span, value: Value) -> Self {
        Self { span, tag: None, value }
    }

    /// The value of a key, when this is a mapping that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.get(key).map(|entry| &entry.node)
    }

    /// The mapping.
    #[must_use]
    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The list.
    #[must_use]
    pub fn as_seq(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Seq(items) => Some(items),
            _ => None,
        }
    }

    /// The text, when it is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text, _) => Some(text),
            _ => None,
        }
    }

    /// What kind of value it is, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::UInt(_) => "an integer",
            Value::Float(_) => "a number",
            Value::String(..) => "a string",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// The node at a path such as `spec.containers[0].image`, or the deepest one on the way to it.
    #[must_use]
    pub fn nearest(&self, path: &str) -> &Node {
        let mut node = self;
        for step in steps(path) {
            let next = match step {
                Step::Key(key) => node.get(key),
                Step::Index(index) => node.as_seq().and_then(|items| items.get(index)),
            };
            match next {
                Some(next) => node = next,
                None => return node,
            }
        }
        node
    }
}

/// A step of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A key of a mapping.
    Key(&'a str),
    /// An index of a list.
    Index(usize),
}

/// The steps of a path such as `spec.containers[0].image`. Keys with dots are written `["a.b"]`.
pub fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    let mut rest = path;
    std::iter::from_fn(move || {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if rest.is_empty() {
            return None;
        }
        if let Some(inner) = rest.strip_prefix("[\"")
            && let Some((key, after)) = inner.split_once("\"]")
        {
            rest = after;
            return Some(Step::Key(key));
        }
        if let Some(inner) = rest.strip_prefix('[')
            && let Some((index, after)) = inner.split_once(']')
            && let Ok(index) = index.parse()
        {
            rest = after;
            return Some(Step::Index(index));
        }
        let end = rest.find(['.', '[']).filter(|end| *end > 0).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        rest = after;
        Some(Step::Key(key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_into_steps() {
        let got: Vec<_> = steps("spec.containers[0].env[\"a.b\"].x").collect();
        assert_eq!(
            got,
            [
                Step::Key("spec"),
                Step::Key("containers"),
                Step::Index(0),
                Step::Key("env"),
                Step::Key("a.b"),
                Step::Key("x")
            ]
        );
    }

    #[test]
    fn odd_paths_end() {
        for path in ["[", "[x", "..", "a[b", "[]", "[\""] {
            assert!(steps(path).count() < 5, "{path}");
        }
    }
}
