//! The tree that files are merged in: values that know the file they come from, besides the place in it.

use indexmap::IndexMap;

use crate::node::{Node, Span, Value};

/// A place in one of the files of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// Index into the session's files.
    pub(super) file: usize,
    /// Where in it.
    pub(super) span: Span,
}

/// A value.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) place: Place,
    /// `!reset` or `!override`, until the merge.
    pub(super) tag: Option<String>,
    /// A variable in it was not set, so that a wrong value may be no fault of the file.
    pub(super) unset: bool,
    pub(super) val: Val,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Val {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Seq(Vec<Tree>),
    Map(Fields),
}

/// A mapping in order of writing.
pub(super) type Fields = IndexMap<String, Item>;

/// A value of a mapping with the place of its key.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) key: Place,
    pub(super) tree: Tree,
}

impl Tree {
    pub(super) fn new(place: Place, val: Val) -> Self {
        Self { place, tag: None, unset: false, val }
    }

    /// Takes a parsed document over.
    pub(super) fn from_node(node: Node, file: usize) -> Self {
        let place = Place { file, span: node.span };
        let val = match node.value {
            Value::Null => Val::Null,
            Value::Bool(value) => Val::Bool(value),
            Value::Int(value) => Val::Int(value),
            #[expect(clippy::cast_precision_loss, reason = "no field takes an integer that large")]
            Value::UInt(value) => Val::Float(value as f64),
            Value::Float(value) => Val::Float(value),
            Value::String(text, _) => Val::Str(text),
            Value::Seq(items) => Val::Seq(items.into_iter().map(|item| Self::from_node(item, file)).collect()),
            Value::Map(map) => Val::Map(
                map.into_iter()
                    .map(|(key, entry)| {
                        let place = Place { file, span: entry.key_span };
                        (key, Item { key: place, tree: Self::from_node(entry.node, file) })
                    })
                    .collect(),
            ),
        };
        Self { place, tag: node.tag, unset: false, val }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.map()?.get(key).map(|item| &item.tree)
    }

    pub(super) fn map(&self) -> Option<&Fields> {
        match &self.val {
            Val::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(super) fn map_mut(&mut self) -> Option<&mut Fields> {
        match &mut self.val {
            Val::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(super) fn seq(&self) -> Option<&[Self]> {
        match &self.val {
            Val::Seq(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn str(&self) -> Option<&str> {
        match &self.val {
            Val::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.val, Val::Null)
    }

    /// A scalar as text, as Compose writes it; `None` for null, lists and mappings.
    pub(super) fn text(&self) -> Option<String> {
        match &self.val {
            Val::Str(text) => Some(text.clone()),
            Val::Bool(value) => Some(value.to_string()),
            Val::Int(value) => Some(value.to_string()),
            Val::Float(value) => Some(value.to_string()),
            Val::Null | Val::Seq(_) | Val::Map(_) => None,
        }
    }

    /// Kind of value, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self.val {
            Val::Null => "null",
            Val::Bool(_) => "a boolean",
            Val::Int(_) => "an integer",
            Val::Float(_) => "a number",
            Val::Str(_) => "a string",
            Val::Seq(_) => "a list",
            Val::Map(_) => "a mapping",
        }
    }

    /// Whether two values are the same, wherever they are written.
    pub(super) fn same(&self, other: &Self) -> bool {
        match (&self.val, &other.val) {
            (Val::Null, Val::Null) => true,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::Int(a), Val::Int(b)) => a == b,
            (Val::Float(a), Val::Float(b)) => a == b,
            (Val::Str(a), Val::Str(b)) => a == b,
            (Val::Seq(a), Val::Seq(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            (Val::Map(a), Val::Map(b)) => {
                a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| a.tree.same(&b.tree)))
            }
            _ => false,
        }
    }

    /// Calls `act` for each string in it.
    pub(super) fn each_string(&mut self, path: &mut String, act: &mut dyn FnMut(&mut Self, &str)) {
        let length = path.len();
        match &mut self.val {
            Val::Str(_) => act(self, path),
            Val::Seq(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    push_index(path, index);
                    item.each_string(path, act);
                    path.truncate(length);
                }
            }
            Val::Map(map) => {
                for (key, item) in map {
                    push_key(path, key);
                    item.tree.each_string(path, act);
                    path.truncate(length);
                }
            }
            Val::Null | Val::Bool(_) | Val::Int(_) | Val::Float(_) => {}
        }
    }
}

/// Appends a key to a path, in quotes when it has dots.
pub(super) fn push_key(path: &mut String, key: &str) {
    if key.contains(['.', '[', '"']) {
        path.push_str("[\"");
        path.push_str(key);
        path.push_str("\"]");
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

/// Appends an index to a path.
pub(super) fn push_index(path: &mut String, index: usize) {
    path.push('[');
    path.push_str(&index.to_string());
    path.push(']');
}

/// `path` with a key.
pub(super) fn join_key(path: &str, key: &str) -> String {
    let mut joined = path.to_owned();
    push_key(&mut joined, key);
    joined
}

/// `path` with an index.
pub(super) fn join_index(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}
