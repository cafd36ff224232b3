//! What is wrong with a manifest, where, and what to do about it.

use crate::node::Span;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The object is refused.
    Error,
    /// The object is used; something in it has no effect here or is odd.
    Warning,
}

/// One finding.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostic {
    /// Stable code, such as `M0012`.
    pub code: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// File name as given to the parser.
    pub file: String,
    /// Place in the file; `None` when it is about the file as a whole.
    pub span: Option<Span>,
    /// Path of the field, such as `spec.containers[0].image`.
    pub path: Option<String>,
    /// What is wrong, in one line, lower case, no period.
    pub message: String,
    /// Something the reader can do.
    pub hint: Option<String>,
    /// Further places with a note, such as the first use of a duplicate name.
    pub notes: Vec<Note>,
    /// The lines of the places may hold a secret: of them only what stands before the first colon is shown.
    pub secret: bool,
}

/// A further place of a finding.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// File name.
    pub file: String,
    /// Place.
    pub span: Option<Span>,
    /// What is there.
    pub message: String,
}

impl Diagnostic {
    /// An error at a place.
    #[must_use]
    pub fn error(code: &'static str, file: &str, span: Option<Span>, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            file: file.to_owned(),
            span,
            path: None,
            message: message.into(),
            hint: None,
            notes: Vec::new(),
            secret: false,
        }
    }

    /// A warning at a place.
    #[must_use]
    pub fn warning(code: &'static str, file: &str, span: Option<Span>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, file, span, message) }
    }

    /// With the path of the field.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// With something the reader can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With a further place.
    #[must_use]
    pub fn note(mut self, file: &str, span: Option<Span>, message: impl Into<String>) -> Self {
        self.notes.push(Note { file: file.to_owned(), span, message: message.into() });
        self
    }

    /// Whether it refuses the object.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}
