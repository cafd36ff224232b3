//! Layout that go-yaml and libyaml take and YAML 1.2 forbids, which many real manifests have: closing brackets and
//! lines of quoted text that are indented less than what they belong to, and a tab after a colon.
//!
//! Such lines are indented further before they are parsed. Leading space means nothing there, so nothing changes but
//! positions, and those are mapped back.

use std::borrow::Cow;
use std::collections::BTreeSet;

use saphyr_parser::{Marker, ScanError};

/// Space put before a line.
const PAD: usize = 80;
/// Most repairs of one document.
const MOST: usize = 200;

/// A text with repairs.
pub(crate) struct Lenient<'t> {
    original: &'t str,
    text: Cow<'t, str>,
    padded: BTreeSet<usize>,
    tries: usize,
}

impl<'t> Lenient<'t> {
    pub(crate) fn new(original: &'t str) -> Self {
        Self { original, text: Cow::Borrowed(original), padded: BTreeSet::new(), tries: 0 }
    }

    /// The text to parse.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Changes the text so that a fault goes away; `false` when it is a real one.
    pub(crate) fn repair(&mut self, fault: &ScanError) -> bool {
        self.tries += 1;
        // Each try parses the text once more: the work is bounded by its length.
        if self.tries > MOST || self.tries.saturating_mul(self.text.len()) > 32 << 20 {
            return false;
        }
        let marker = fault.marker();
        let info = fault.info();
        if info.contains("':' must be followed by a valid YAML whitespace") {
            return self.untab(marker.line());
        }
        let lines = if info.contains("invalid indentation in quoted scalar") {
            self.quoted_lines(marker)
        } else if info.contains("invalid indentation") && !info.contains("anchor") {
            BTreeSet::from([marker.line()])
        } else {
            return false;
        };
        let before = self.padded.len();
        self.padded.extend(lines);
        if self.padded.len() == before {
            return false;
        }
        let mut text = String::with_capacity(self.text.len() + PAD * (self.padded.len() - before));
        for (number, line) in (1..).zip(self.original.split_inclusive('\n')) {
            if self.padded.contains(&number) {
                text.extend(std::iter::repeat_n(' ', PAD));
            }
            text.push_str(line);
        }
        self.text = Cow::Owned(text);
        true
    }

    /// Lines after the first one of the quoted text at a place.
    fn quoted_lines(&self, start: &Marker) -> BTreeSet<usize> {
        let mut chars = self.text.chars().skip(start.index());
        let mut lines = BTreeSet::new();
        let Some(quote @ ('"' | '\'')) = chars.next() else { return lines };
        let mut line = start.line();
        let mut chars = chars.peekable();
        while let Some(c) = chars.next() {
            match c {
                '\n' => {
                    line += 1;
                    lines.insert(line);
                }
                '\\' if quote == '"' && chars.peek() == Some(&'"') => drop(chars.next()),
                '\\' if quote == '"' && chars.peek() == Some(&'\\') => drop(chars.next()),
                // Two single quotes are one in the text.
                '\'' if quote == '\'' && chars.peek() == Some(&'\'') => drop(chars.next()),
                c if c == quote => break,
                _ => {}
            }
        }
        lines
    }

    /// Replaces the tabs of a line that stand right after a colon.
    fn untab(&mut self, number: usize) -> bool {
        // A repaired text differs from the original in spaces of the same number, which must survive later padding;
        // so both cannot be had at once, and this comes first.
        if !self.padded.is_empty() {
            return false;
        }
        let mut changed = false;
        let mut text = String::with_capacity(self.text.len());
        for (at, line) in (1..).zip(self.text.split_inclusive('\n')) {
            if at == number && line.contains(":\t") {
                changed = true;
                text.push_str(&line.replace(":\t", ": "));
            } else {
                text.push_str(line);
            }
        }
        self.text = Cow::Owned(text);
        changed
    }

    /// Index, line and column (all as the parser counts) in the original text.
    pub(crate) fn original(&self, marker: &Marker) -> (usize, usize, usize) {
        let (index, line, column) = (marker.index(), marker.line(), marker.col());
        if self.padded.is_empty() {
            return (index, line, column);
        }
        let before = self.padded.range(..line).count() * PAD;
        let here = if self.padded.contains(&line) { PAD.min(column) } else { 0 };
        (index.saturating_sub(before + here), line, column - here)
    }
}
