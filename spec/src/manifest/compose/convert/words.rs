//! A command line as a shell would see it, with variables kept: what the shell would replace becomes a variable of
//! Compose, and a literal `$` becomes `$$`.

use super::ConvertError;

/// Splits a line. `$(pwd)` and `$PWD` become `.`, where a Compose file starts its paths.
pub(super) fn split(line: &str) -> Result<Vec<String>, ConvertError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line;
    let mut double = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = after;
        match c {
            '\\' => {
                let Some(next) = after.chars().next() else { break };
                rest = &after[next.len_utf8()..];
                if next == '\n' || after.starts_with("\r\n") {
                    rest = after.strip_prefix("\r\n").unwrap_or(rest);
                    continue;
                }
                let word = word.get_or_insert_default();
                if double && !"\"\\$`".contains(next) {
                    word.push('\\');
                }
                literal(word, next);
            }
            '\'' if !double => {
                let end = after.find('\'').ok_or(ConvertError::OpenQuote)?;
                let word = word.get_or_insert_default();
                after[..end].chars().for_each(|c| literal(word, c));
                rest = &after[end + 1..];
            }
            '"' => {
                double = !double;
                word.get_or_insert_default();
            }
            '$' => rest = variable(after, word.get_or_insert_default())?,
            '`' => {
                let end = after.find('`').ok_or(ConvertError::OpenQuote)?;
                if after[..end].trim() != "pwd" {
                    return Err(ConvertError::Substitution(after[..end].trim().chars().take(40).collect()));
                }
                word.get_or_insert_default().push('.');
                rest = &after[end + 1..];
            }
            ' ' | '\t' | '\r' | '\n' if !double => words.extend(word.take()),
            '#' if !double && word.is_none() => rest = after.find('\n').map_or("", |end| &after[end..]),
            ';' | '|' | '&' | '<' | '>' if !double => return Err(ConvertError::ShellSyntax(c)),
            c => word.get_or_insert_default().push(c),
        }
    }
    if double {
        return Err(ConvertError::OpenQuote);
    }
    words.extend(word);
    Ok(words)
}

fn literal(word: &mut String, c: char) {
    if c == '$' {
        word.push('$');
    }
    word.push(c);
}

/// Reads what follows a `$`; returns the rest.
fn variable<'t>(after: &'t str, word: &mut String) -> Result<&'t str, ConvertError> {
    if let Some(command) = after.strip_prefix('(') {
        let end = command.find(')').ok_or(ConvertError::OpenQuote)?;
        if command[..end].trim() != "pwd" {
            return Err(ConvertError::Substitution(command[..end].trim().chars().take(40).collect()));
        }
        word.push('.');
        return Ok(&command[end + 1..]);
    }
    if let Some(inner) = after.strip_prefix('{') {
        let end = inner.find('}').ok_or(ConvertError::OpenQuote)?;
        if &inner[..end] == "PWD" {
            word.push('.');
        } else {
            word.push_str("${");
            word.push_str(&inner[..=end]);
        }
        return Ok(&inner[end + 1..]);
    }
    let length = after.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(after.len());
    let (name, rest) = after.split_at(length);
    match name {
        "" => word.push_str("$$"),
        "PWD" => word.push('.'),
        _ if name.starts_with(|c: char| c.is_ascii_digit()) => {
            word.push_str("$$");
            word.push_str(name);
        }
        _ => {
            word.push_str("${");
            word.push_str(name);
            word.push('}');
        }
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        #[rustfmt::skip]
        let cases: [(&str, &[&str]); 11] = [
            ("a b", &["a", "b"]), ("a \\\n  b", &["a", "b"]), ("a \\\r\n  b", &["a", "b"]), ("'a b' \"c d\"", &["a b", "c d"]),
            ("-v $(pwd)/x:/y", &["-v", "./x:/y"]), ("\"$PWD\":/y `pwd`:/z ${PWD}:/q", &[".:/y", ".:/z", ".:/q"]),
            ("$A ${B} \"$C\" '$D' \\$E", &["${A}", "${B}", "${C}", "$$D", "$$E"]), ("a # c\nb", &["a", "b"]), ("''", &[""]),
            ("\"a\\\"b\"", &["a\"b"]), ("a$ \"5$\"", &["a$$", "5$$"]),
        ];
        for (line, expected) in cases {
            assert_eq!(split(line).expect("valid"), expected, "{line}");
        }
        for line in ["'a", "\"a", "$(date)", "a | b", "a; b", "`date`", "${A"] {
            assert!(split(line).is_err(), "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line in "[a-c '\"\\\\$(){}`#\n-]{0,30}") {
            let _ = split(&line);
        }
    }
}
