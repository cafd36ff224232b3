//! Collects the findings of one document. Places and paths come from the tree itself: a finding names a node of the
//! tree, and its path is looked up only then.

use crate::diagnostic::Diagnostic;
use crate::node::{Node, Span, Value};

/// Findings of one document are cut off here: whoever has more reads these first.
const MOST: usize = 100;

/// The findings of one document.
pub(crate) struct Report<'a> {
    pub(crate) file: &'a str,
    pub(crate) root: &'a Node,
    /// Path of that tree in the document.
    prefix: String,
    /// The text of the file, for showing values as they were written.
    pub(crate) text: &'a str,
    pub(crate) secret: bool,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Required fields that are not told when they are missing: another finding says what was written instead.
    pub(crate) hushed: Vec<(Span, &'static str)>,
    /// The newest finding beyond the cut.
    pub(crate) overflow: Option<Diagnostic>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str, root: &'a Node, secret: bool) -> Self {
        Self {
            file,
            root,
            prefix: String::new(),
            text,
            secret,
            diagnostics: Vec::new(),
            hushed: Vec::new(),
            overflow: None,
        }
    }

    /// Looks at another form of the tree at `node` for a while.
    pub(crate) fn instead(&mut self, node: &Node, other: &Node, look: impl FnOnce(&mut Report<'_>)) {
        let mut inner = Report {
            file: self.file,
            root: other,
            prefix: self.path(node),
            text: self.text,
            secret: self.secret,
            diagnostics: std::mem::take(&mut self.diagnostics),
            hushed: std::mem::take(&mut self.hushed),
            overflow: self.overflow.take(),
        };
        look(&mut inner);
        self.diagnostics = inner.diagnostics;
        self.hushed = inner.hushed;
        self.overflow = inner.overflow;
    }

    /// Whether it is not to be told that the mapping lacks this field.
    pub(crate) fn is_hushed(&self, node: &Node, field: &str) -> bool {
        self.hushed.iter().any(|(span, name)| *span == node.span && *name == field)
    }

    fn push(&mut self, mut diagnostic: Diagnostic, path: String) {
        diagnostic.secret = self.secret;
        if !path.is_empty() {
            diagnostic.path = Some(path);
        }
        if self.diagnostics.len() >= MOST {
            self.overflow = Some(diagnostic);
        } else {
            self.diagnostics.push(diagnostic);
        }
    }

    /// An error at a node.
    pub(crate) fn error(&mut self, code: &'static str, node: &Node, message: impl Into<String>) -> &mut Diagnostic {
        let path = self.path(node);
        self.push(Diagnostic::error(code, self.file, Some(self.shown(node)), message), path);
        self.last()
    }

    /// A warning at a node.
    pub(crate) fn warn(&mut self, code: &'static str, node: &Node, message: impl Into<String>) -> &mut Diagnostic {
        let path = self.path(node);
        self.push(Diagnostic::warning(code, self.file, Some(self.shown(node)), message), path);
        self.last()
    }

    /// An error about a field of a node: at its key when it is there, else at the node.
    pub(crate) fn error_at(
        &mut self,
        code: &'static str,
        node: &Node,
        key: &str,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let (span, path) = self.field(node, key);
        self.push(Diagnostic::error(code, self.file, Some(span), message), path);
        self.last()
    }

    /// A warning about a field of a node.
    pub(crate) fn warn_at(
        &mut self,
        code: &'static str,
        node: &Node,
        key: &str,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let (span, path) = self.field(node, key);
        self.push(Diagnostic::warning(code, self.file, Some(span), message), path);
        self.last()
    }

    fn field(&self, node: &Node, key: &str) -> (Span, String) {
        let span = node.as_map().and_then(|map| map.get(key)).map_or_else(|| self.shown(node), |entry| entry.key_span);
        let mut path = self.path(node);
        push_key(&mut path, key);
        (span, path)
    }

    fn last(&mut self) -> &mut Diagnostic {
        self.overflow.as_mut().or(self.diagnostics.last_mut()).expect("a finding was just pushed")
    }

    /// The place to mark for a node: of a list or mapping only where it starts.
    fn shown(&self, node: &Node) -> Span {
        match node.value {
            Value::Map(_) | Value::Seq(_) => {
                let first = match &node.value {
                    Value::Map(map) => map.values().next().map(|entry| entry.key_span),
                    _ => None,
                };
                first
                    .filter(|first| first.line == node.span.line)
                    .unwrap_or(Span { end: node.span.start.saturating_add(1), ..node.span })
            }
            _ => node.span,
        }
    }

    /// The path of a node in the document.
    pub(crate) fn path(&self, node: &Node) -> String {
        if self.diagnostics.len() >= MOST {
            // Looking a path up takes time, and this one would not be shown.
            return String::new();
        }
        let mut path = self.prefix.clone();
        if !find(self.root, node, true, &mut path) {
            path.clone_from(&self.prefix);
            find(self.root, node, false, &mut path);
        }
        path
    }

    /// A value as it was written, shortened; nothing of a secret.
    pub(crate) fn written(&self, node: &Node) -> String {
        if self.secret {
            return "…".to_owned();
        }
        let text = self.text.get(node.span.start..node.span.end).unwrap_or_default();
        let text = text.lines().next().unwrap_or_default().trim();
        let short: String = text.chars().take(60).collect();
        if short.len() < text.len() { format!("{short}…") } else { short }
    }
}

/// Appends the path of `target` below `node`; nodes are told apart by where they are in memory. With `inside` only
/// values whose place holds the target's are looked at, which is quick and misses what came through an alias.
fn find(node: &Node, target: &Node, inside: bool, path: &mut String) -> bool {
    if std::ptr::eq(node, target) {
        return true;
    }
    let possible = |child: &Node| {
        !inside || (child.span.start <= target.span.start && target.span.end <= child.span.end.max(child.span.start))
    };
    let length = path.len();
    match &node.value {
        Value::Map(map) => {
            for (key, entry) in map.iter().filter(|(_, entry)| possible(&entry.node)) {
                push_key(path, key);
                if find(&entry.node, target, inside, path) {
                    return true;
                }
                path.truncate(length);
            }
        }
        Value::Seq(items) => {
            for (index, item) in items.iter().enumerate().filter(|(_, item)| possible(item)) {
                path.push_str(&format!("[{index}]"));
                if find(item, target, inside, path) {
                    return true;
                }
                path.truncate(length);
            }
        }
        _ => {}
    }
    false
}

fn push_key(path: &mut String, key: &str) {
    if key.contains(['.', '[', '/', '"']) || key.is_empty() {
        path.push_str(&format!("[\"{key}\"]"));
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}
