//! `.env` and `env_file` files: names and values, quotes, comments, `export`, values over several lines, variables.
//!
//! Rules: Compose documentation, "Syntax for environment files in Docker Compose"; where it is silent, compose-go
//! (package dotenv) decides. Errors name the line and the variable and never show a value.

use super::template::{self, Lookup, TemplateError};

/// Why a file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub(super) struct DotenvError {
    /// From 1.
    pub(super) line: u32,
    /// What is wrong.
    pub(super) reason: String,
}

/// A file's variables in order; `None` for a name without `=`, which is inherited.
pub(super) type Entries = Vec<(String, Option<String>)>;

/// Reads a file. Variables in values come from `lookup`, then from earlier lines.
pub(super) fn parse(bytes: &[u8], lookup: &dyn Lookup) -> Result<Entries, DotenvError> {
    let text = decode(bytes)?;
    let mut reader = Reader { rest: &text, line: 1, entries: Vec::new(), lookup };
    while reader.statement()? {}
    Ok(reader.entries)
}

/// Reads a file of `env_file.format: raw`: `NAME=VALUE` lines with nothing special but `#` at the start of a line.
pub(super) fn parse_raw(bytes: &[u8]) -> Result<Entries, DotenvError> {
    let text = decode(bytes)?;
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line.trim_end(), None),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            let line = u32::try_from(index + 1).unwrap_or(u32::MAX);
            return Err(DotenvError { line, reason: "a variable name is empty or has a space".to_owned() });
        }
        entries.push((name.to_owned(), value));
    }
    Ok(entries)
}

fn decode(bytes: &[u8]) -> Result<String, DotenvError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| DotenvError { line: 1, reason: "the file is not UTF-8 text".to_owned() })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n"))
}

struct Reader<'a> {
    rest: &'a str,
    line: u32,
    entries: Entries,
    lookup: &'a dyn Lookup,
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r' | '\u{85}' | '\u{a0}')
}

impl<'a> Reader<'a> {
    fn fail<T>(&self, reason: impl Into<String>) -> Result<T, DotenvError> {
        Err(DotenvError { line: self.line, reason: reason.into() })
    }

    fn advance(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        let lines = taken.bytes().filter(|b| *b == b'\n').count();
        self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.rest = rest;
        taken
    }

    fn skip_to_statement(&mut self) {
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.advance(blank);
            if !self.rest.starts_with('#') {
                return;
            }
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.advance(end);
        }
    }

    /// Reads one statement; `false` at the end.
    fn statement(&mut self) -> Result<bool, DotenvError> {
        self.skip_to_statement();
        if self.rest.is_empty() {
            return Ok(false);
        }
        if let Some(after) = self.rest.strip_prefix("export")
            && after.starts_with(is_blank)
        {
            let bytes = self.rest.len() - after.trim_start_matches(is_blank).len();
            self.advance(bytes);
        }
        let line_end = self.rest.find('\n').unwrap_or(self.rest.len());
        let head = &self.rest[..line_end];
        let end = head.find(['=', ':']);
        let name = head[..end.unwrap_or(line_end)].trim_end();
        if let Some(bad) = name.chars().find(|c| !c.is_alphanumeric() && !"_.-[]".contains(*c) && !is_blank(*c)) {
            return self.fail(format!("unexpected character `{}` in a variable name", bad.escape_debug()));
        }
        if name.contains(is_blank) {
            return self.fail("a variable name has a space");
        }
        if name.is_empty() {
            return self.fail("a variable name is missing before `=`");
        }
        let name = name.to_owned();
        let Some(end) = end else {
            self.advance(line_end);
            self.entries.push((name, None));
            return Ok(true);
        };
        self.advance(end + 1);
        let blank = self.rest.len() - self.rest.trim_start_matches(is_blank).len();
        self.advance(blank);
        let value = self.value(&name)?;
        self.entries.push((name, Some(value)));
        Ok(true)
    }

    fn value(&mut self, name: &str) -> Result<String, DotenvError> {
        match self.rest.chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(name, quote),
            _ => {
                let end = self.rest.find('\n').unwrap_or(self.rest.len());
                let text = &self.rest[..end];
                // A comment starts at a `#` after a space, or when nothing stands before it.
                let text = if text.starts_with('#') { "" } else { text };
                let text = text.find(" #").map_or(text, |comment| &text[..comment]);
                let value = self.expand(name, text.trim_end())?;
                self.advance(end);
                Ok(value)
            }
        }
    }

    fn quoted(&mut self, name: &str, quote: char) -> Result<String, DotenvError> {
        let mut value = String::new();
        let mut escaped = false;
        for (at, c) in self.rest.char_indices().skip(1) {
            if c == quote && !escaped {
                let value = if quote == '"' { self.expand(name, &unescape(&value))? } else { value };
                self.advance(at + 1);
                return Ok(value);
            }
            if c == '\\' && !escaped {
                escaped = true;
                continue;
            }
            if escaped && c != quote {
                value.push('\\');
            }
            escaped = false;
            value.push(c);
        }
        self.fail(format!("the quoted value of `{name}` has no end"))
    }

    fn expand(&self, name: &str, text: &str) -> Result<String, DotenvError> {
        let lookup = |wanted: &str| {
            self.lookup.value(wanted).or_else(|| {
                self.entries.iter().rev().find(|(name, _)| name == wanted).and_then(|(_, value)| value.clone())
            })
        };
        match template::substitute(text, &lookup) {
            Ok(done) => Ok(done.text),
            Err(TemplateError::Required { name: wanted, .. }) => {
                self.fail(format!("the value of `{name}` needs the variable `{wanted}`, which is not set"))
            }
            Err(TemplateError::Invalid { .. } | TemplateError::TooLarge) => self.fail(format!(
                "the value of `{name}` has a `${{` that starts no variable; write it in single quotes or with `$$`"
            )),
        }
    }
}

/// Escapes of double quotes: `\n` and its kin, octal `\0123`, `\$` (which must not start a variable).
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(c) = rest.chars().next() else {
            out.push('\\');
            break;
        };
        let simple = match c {
            'a' => Some("\u{7}"),
            'b' => Some("\u{8}"),
            'f' => Some("\u{c}"),
            'n' => Some("\n"),
            'r' => Some("\r"),
            't' => Some("\t"),
            'v' => Some("\u{b}"),
            '"' => Some("\""),
            '\\' => Some("\\"),
            '$' => Some("$$"),
            _ => None,
        };
        if let Some(simple) = simple {
            out.push_str(simple);
            rest = &rest[c.len_utf8()..];
        } else if c == '0' {
            let digits = rest[1..].bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
            match u8::from_str_radix(&rest[1..=digits], 8) {
                Ok(byte) if digits == 3 => {
                    out.push(char::from(byte));
                    rest = &rest[1 + digits..];
                }
                _ => out.push('\\'),
            }
        } else {
            out.push('\\');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outer(name: &str) -> Option<String> {
        (name == "OUT").then(|| "outer".to_owned())
    }

    fn show(text: &str) -> String {
        match parse(text.as_bytes(), &outer) {
            Ok(entries) => entries
                .into_iter()
                .map(|(name, value)| value.map_or(format!("{name};"), |value| format!("{name}=<{value}>;")))
                .collect(),
            Err(error) => format!("error {error}"),
        }
    }

    #[test]
    fn files() {
        #[rustfmt::skip]
        let cases = [
            ("", ""), ("\n\n# only a comment\n", ""), ("A=1", "A=<1>;"), ("A=1\nB=2\n", "A=<1>;B=<2>;"),
            ("A=1\r\nB=2\r\n", "A=<1>;B=<2>;"), ("\u{feff}A=1", "A=<1>;"),
            ("export A=1", "A=<1>;"), ("export\tA=1", "A=<1>;"), ("exported=1", "exported=<1>;"), ("export=1", "export=<1>;"),
            ("A: 1", "A=<1>;"), ("A = 1", "A=<1>;"), ("  A=1  ", "A=<1>;"), ("A=", "A=<>;"), ("A=\nB=1", "A=<>;B=<1>;"),
            ("A=a b c", "A=<a b c>;"), ("A=1 # c", "A=<1>;"), ("A=1#c", "A=<1#c>;"), ("A=# c", "A=<>;"), ("A=#c", "A=<>;"),
            ("A=a=b=c", "A=<a=b=c>;"), ("A=http://x:1/#a", "A=<http://x:1/#a>;"),
            ("A", "A;"), ("A\nB=1", "A;B=<1>;"), ("A.B-C=1", "A.B-C=<1>;"), ("É=1", "É=<1>;"),
            ("A='x y' # c", "A=<x y>;"), ("A='a#b'", "A=<a#b>;"), ("A='$OUT'", "A=<$OUT>;"), (r"A='it\'s'", "A=<it's>;"),
            (r"A='a\nb'", r"A=<a\nb>;"), ("A='1\n2'\nB=3", "A=<1\n2>;B=<3>;"),
            ("A=\"x y\"", "A=<x y>;"), ("A=\"a # b\"", "A=<a # b>;"), (r#"A="a\nb\tc""#, "A=<a\nb\tc>;"),
            (r#"A="a\"b""#, "A=<a\"b>;"), (r#"A="\$OUT""#, "A=<$OUT>;"), (r#"A="a\\b""#, r"A=<a\b>;"),
            (r#"A="\x""#, r"A=<\x>;"), (r#"A="\0123""#, "A=<S>;"),
            ("A=\"1\n2\"", "A=<1\n2>;"), ("A=\"\"", "A=<>;"),
            ("A=$OUT", "A=<outer>;"), ("A=${OUT}!", "A=<outer!>;"), ("A=\"$OUT\"", "A=<outer>;"),
            ("A=1\nB=$A-$A", "A=<1>;B=<1-1>;"), ("A=${NO:-d}", "A=<d>;"), ("A=$NO", "A=<>;"), ("A=$$x", "A=<$x>;"),
            ("A=a\\b", "A=<a\\b>;"), ("A=it's", "A=<it's>;"), ("A=\"é\"", "A=<é>;"),
            ("A=1\nA=2", "A=<1>;A=<2>;"),
        ];
        for (text, expected) in cases {
            assert_eq!(show(text), expected, "{text:?}");
        }
    }

    #[test]
    fn faults_name_line_and_variable_but_no_value() {
        #[rustfmt::skip]
        let cases = [
            ("A=1\nB C=2", "error line 2: a variable name has a space"),
            ("A=1\n\n=2", "error line 3: a variable name is missing before `=`"),
            ("A/B=secret", "error line 1: unexpected character `/` in a variable name"),
            ("A=\"secret", "error line 1: the quoted value of `A` has no end"),
            ("\n\nA='secret\nB=1", "error line 3: the quoted value of `A` has no end"),
            ("A=secret$", "A=<secret$>;"),
            ("A=secret${", "error line 1: the value of `A` has a `${` that starts no variable; write it in single quotes or with `$$`"),
            ("A=${B:?secret}", "error line 1: the value of `A` needs the variable `B`, which is not set"),
            ("some text here", "error line 1: a variable name has a space"),
        ];
        for (text, expected) in cases {
            assert_eq!(show(text), expected, "{text:?}");
        }
        assert!(parse(&[0xff, b'='], &outer).is_err());
    }

    #[test]
    fn raw_files_take_values_as_they_are() {
        let got = parse_raw(b"# c\nA=\"x\" # y $Z\n\n  B='q\nC\n").expect("valid");
        let expected = [("A", Some("\"x\" # y $Z")), ("B", Some("'q")), ("C", None)];
        assert_eq!(got, expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))));
        assert!(parse_raw(b"A B=1").is_err());
        assert!(parse_raw(b"=1").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_file_panics(text in "[A-Ca-c=:#$\\\\\"'\\n {}é0-9-]{0,60}") {
            let _ = parse(text.as_bytes(), &outer);
            let _ = parse_raw(text.as_bytes());
        }
    }
}
