//! Variables in values: `$V`, `${V}`, `${V:-d}`, `${V-d}`, `${V:+r}`, `${V+r}`, `${V:?e}`, `${V?e}`, nested, and `$$`.
//!
//! The rules are those of the Compose specification, section "Interpolation", with the two `+` forms that its
//! reference implementation (compose-go, package template) has besides. There is no `${V/a/b}` and no `${V:0:3}`. As
//! there, a `$` before anything but a name, `{` or `$` stands for itself: `$(date)`, `$1` and `$?` stay as written.

/// How deep defaults may contain further variables.
const MAX_DEPTH: usize = 32;

/// Bytes a single value may grow to.
const MAX_LENGTH: usize = 1 << 20;

/// Why a text could not be substituted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TemplateError {
    /// A `${` that starts nothing known.
    #[error(
        "`{shown}` is not a variable: there are `${{NAME}}`, `${{NAME:-default}}`, `${{NAME:?message}}` and `${{NAME:+word}}`"
    )]
    Invalid {
        /// The start of what follows the `$`, with it.
        shown: String,
    },
    /// `${V:?e}` without a value.
    #[error("required variable `{name}` is missing a value{}{message}", if message.is_empty() { "" } else { ": " })]
    Required {
        /// The variable.
        name: String,
        /// What its author wrote after the `?`.
        message: String,
    },
    /// Defaults in defaults in defaults, or a very long result.
    #[error("the variables in this value are nested too deep or become too long")]
    TooLarge,
}

/// A text with its variables replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Substituted {
    /// The result.
    pub(super) text: String,
    /// Variables without value and default, which became nothing.
    pub(super) unset: Vec<String>,
    /// A `$` starts no variable and was kept.
    pub(super) lone: bool,
}

/// Where variables get their values.
pub(super) trait Lookup {
    /// The value of a variable; `None` when it is not set.
    fn value(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> Lookup for F {
    fn value(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// Replaces every variable of a text.
pub(super) fn substitute(text: &str, lookup: &dyn Lookup) -> Result<Substituted, TemplateError> {
    let mut out = Substituted::default();
    walk(text, lookup, 0, &mut out)?;
    Ok(out)
}

fn walk(text: &str, lookup: &dyn Lookup, depth: usize, out: &mut Substituted) -> Result<(), TemplateError> {
    if depth > MAX_DEPTH {
        return Err(TemplateError::TooLarge);
    }
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.text.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(next) = after.strip_prefix('$') {
            out.text.push('$');
            rest = next;
        } else if let Some(inner) = after.strip_prefix('{') {
            let end = closing_brace(inner).ok_or_else(|| invalid(&rest[at..]))?;
            braced(&inner[..end], &rest[at..], lookup, depth, out)?;
            rest = &inner[end + 1..];
        } else {
            let length = name_length(after);
            let (name, next) = after.split_at(length);
            if name.is_empty() {
                out.text.push('$');
                out.lone = true;
            } else {
                put(name, lookup.value(name), out);
            }
            rest = next;
        }
        if out.text.len() > MAX_LENGTH {
            return Err(TemplateError::TooLarge);
        }
    }
    out.text.push_str(rest);
    Ok(())
}

/// Where the brace closes that was opened before `text` (compose-go, `getFirstBraceClosingIndex`). Each `{` in it opens
/// a further one, so that a default can be `{"a": 1}`. When they do not pair up the last one of the line closes.
fn closing_brace(text: &str) -> Option<usize> {
    let length = name_length(text);
    if length > 0 && text.as_bytes().get(length) == Some(&b'}') {
        return Some(length);
    }
    let line = text.split('\n').next().unwrap_or_default();
    let last = line.rfind('}')?;
    let mut open = 1_usize;
    let mut bytes = line.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'}' if open == 1 => return Some(at),
            b'}' => open -= 1,
            b'{' => {
                open += 1;
                // Whatever follows belongs to it: `${{}` opens one, not two.
                bytes.next();
            }
            _ => {}
        }
    }
    Some(last)
}

fn name_length(text: &str) -> usize {
    let starts = text.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic());
    if !starts {
        return 0;
    }
    text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len())
}

fn put(name: &str, value: Option<String>, out: &mut Substituted) {
    match value {
        Some(value) => out.text.push_str(&value),
        None => out.unset.push(name.to_owned()),
    }
}

fn braced(
    inner: &str,
    whole: &str,
    lookup: &dyn Lookup,
    depth: usize,
    out: &mut Substituted,
) -> Result<(), TemplateError> {
    let length = name_length(inner);
    let (name, operation) = inner.split_at(length);
    if name.is_empty() {
        return Err(invalid(whole));
    }
    let value = lookup.value(name);
    if operation.is_empty() {
        put(name, value, out);
        return Ok(());
    }
    let (empty_counts, operation) = match operation.strip_prefix(':') {
        Some(operation) => (false, operation),
        None => (true, operation),
    };
    let mut operation = operation.chars();
    let operator = operation.next();
    let word = operation.as_str();
    let present = value.filter(|value| empty_counts || !value.is_empty());
    match (operator, present) {
        (Some('-' | '?'), Some(value)) => out.text.push_str(&value),
        (Some('-'), None) | (Some('+'), Some(_)) => walk(word, lookup, depth + 1, out)?,
        (Some('+'), None) => {}
        (Some('?'), None) => {
            let mut message = Substituted::default();
            walk(word, lookup, depth + 1, &mut message)?;
            return Err(TemplateError::Required { name: name.to_owned(), message: message.text });
        }
        _ => return Err(invalid(whole)),
    }
    Ok(())
}

fn invalid(from: &str) -> TemplateError {
    let end = from.find(char::is_whitespace).unwrap_or(from.len());
    let end = if from.starts_with("${") { from.find('}').map_or(end, |brace| brace + 1) } else { end };
    TemplateError::Invalid { shown: from[..end].chars().take(24).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".to_owned()),
            "B_2" => Some("b2".to_owned()),
            "EMPTY" => Some(String::new()),
            "DOLLAR" => Some("$A".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn every_form() {
        #[rustfmt::skip]
        let cases = [
            ("plain", "plain"), ("", ""),
            ("$A", "a"), ("${A}", "a"), ("x$A-y", "xa-y"), ("$B_2", "b2"), ("$A$A", "aa"), ("${A}A", "aA"),
            ("$$A", "$A"), ("$$$A", "$a"), ("$$", "$"), ("$$$$", "$$"), ("$${A}", "${A}"),
            ("$NO", ""), ("${NO}", ""), ("$EMPTY", ""),
            ("${A:-d}", "a"), ("${A-d}", "a"), ("${NO:-d}", "d"), ("${NO-d}", "d"),
            ("${EMPTY:-d}", "d"), ("${EMPTY-d}", ""), ("${NO:-}", ""), ("${NO-}", ""),
            ("${A:+r}", "r"), ("${A+r}", "r"), ("${NO:+r}", ""), ("${NO+r}", ""), ("${EMPTY:+r}", ""), ("${EMPTY+r}", "r"),
            ("${A:?e}", "a"), ("${A?e}", "a"), ("${EMPTY?e}", ""),
            ("${NO:-${A}}", "a"), ("${NO:-${NO2:-x}}", "x"), ("${NO:-a${A}b}c", "aabc"), ("${NO-$A}", "a"),
            ("${NO:-$$A}", "$A"), ("${A:+${NO:-z}}", "z"),
            ("${NO:-a-b:?c}", "a-b:?c"), ("${NO:--1}", "-1"), ("${NO:-http://x:80/?q}", "http://x:80/?q"),
            ("${NO:-{x}", "{x"), ("${NO:-{\"a\":1}}", "{\"a\":1}"), ("${A:-{\"a\":1}}", "a"), ("${A:-{\"a\":1}} $A", "a a"),
            ("${A:-{}} $A", "a a"), ("{$A}", "{a}"), ("${A}}", "a}"),
            ("$", "$"), ("a$", "a$"), ("$1 $?", "$1 $?"), ("$ A", "$ A"), ("$(date)", "$(date)"), ("$-", "$-"), ("$é", "$é"),
            ("${NO:-$}", "$"), ("$}", "$}"), ("$$(x)", "$(x)"),
            ("$DOLLAR", "$A"), ("é$A€", "éa€"), ("${NO:-é}", "é"),
        ];
        for (text, expected) in cases {
            assert_eq!(substitute(text, &lookup).map(|s| s.text), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn faults() {
        let invalid = ["${", "${A", "${}", "${1}", "${A:}", "${A/a/b}", "${A:0:3}", "${A\n}", "${NO:-a\n}"];
        for text in invalid.into_iter().chain(["${A.B}", "${A }", "${NO:-${}}", "${é}"]) {
            assert!(matches!(substitute(text, &lookup), Err(TemplateError::Invalid { .. })), "{text}");
        }
        for (text, message) in [("${NO:?}", ""), ("${NO?}", ""), ("${NO:?say $A}", "say a"), ("${EMPTY:?e}", "e")] {
            let got = substitute(text, &lookup).expect_err("there is no value");
            assert!(matches!(&got, TemplateError::Required { message: m, .. } if m == message), "{text}: {got}");
        }
    }

    #[test]
    fn unset_variables_are_told() {
        let got = substitute("$NO ${NO2} ${NO3:-x} ${NO4:+y} ${NO5:-$NO6}", &lookup).expect("valid");
        assert_eq!(got.unset, ["NO", "NO2", "NO6"]);
    }

    #[test]
    fn a_lone_dollar_is_told() {
        for (text, lone) in [("$(date)", true), ("a$", true), ("$$(date)", false), ("$A", false), ("${NO:-$1}", true)] {
            assert_eq!(substitute(text, &lookup).map(|s| s.lone), Ok(lone), "{text}");
        }
    }

    #[test]
    fn deep_nesting_ends() {
        let text = format!("{}{}", "${A:-".repeat(10), "}".repeat(10));
        assert_eq!(substitute(&text, &lookup).map(|s| s.text), Ok("a".to_owned()));
        let text = format!("{}{}", "${NO:-".repeat(10_000), "}".repeat(10_000));
        assert_eq!(substitute(&text, &lookup), Err(TemplateError::TooLarge));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[$A-C{}:?+é-]{0,40}") {
            let _ = substitute(&text, &lookup);
        }

        #[test]
        fn without_dollar_nothing_changes(text in "[^$]{0,40}") {
            proptest::prop_assert_eq!(substitute(&text, &lookup).map(|s| s.text), Ok(text));
        }
    }
}
