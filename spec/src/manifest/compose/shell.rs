//! Splitting `command` and `entrypoint` strings into words as a POSIX shell would, without any expansion
//! (compose-go uses the same rules, from mattn/go-shellwords).

/// Why a string cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SplitError {
    /// A `'` or `"` without its second.
    #[error("a quote is not closed")]
    OpenQuote,
    /// A `\` at the end.
    #[error("it ends in a lone `\\`")]
    TrailingBackslash,
}

/// Splits a string into words.
pub(super) fn split(text: &str) -> Result<Vec<String>, SplitError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(SplitError::OpenQuote)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(SplitError::OpenQuote)? {
                        '"' => break,
                        '\\' => match chars.next().ok_or(SplitError::OpenQuote)? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            '\n' => {}
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => match chars.next().ok_or(SplitError::TrailingBackslash)? {
                '\n' => {}
                c => word.get_or_insert_default().push(c),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
/// Joins words so that [`split`] gives them back.
pub(super) fn join(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    quoted.join(" ")
}

#[cfg(test)]
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        #[rustfmt::skip]
        let cases: [(&str, &[&str]); 16] = [
            ("", &[]), ("  ", &[]), ("a", &["a"]), ("a b", &["a", "b"]), (" a \t b\n", &["a", "b"]),
            ("'a b' c", &["a b", "c"]), ("\"a b\" c", &["a b", "c"]), ("a'b'c", &["abc"]), ("''", &[""]), ("a \"\" b", &["a", "", "b"]),
            (r"a\ b", &["a b"]), (r#""a\"b\\c\d""#, &[r#"a"b\c\d"#]), (r"'a\'", &[r"a\"]),
            ("sh -c \"echo 'x y' && ls\"", &["sh", "-c", "echo 'x y' && ls"]),
            ("a \\\n b", &["a", "b"]), ("--x=\"y z\"", &["--x=y z"]),
        ];
        for (text, expected) in cases {
            assert_eq!(split(text).expect("valid"), expected, "{text:?}");
        }
    }

    #[test]
    fn faults() {
        for text in ["'a", "\"a", "a 'b", "\"a\\"] {
            assert_eq!(split(text), Err(SplitError::OpenQuote), "{text}");
        }
        assert_eq!(split("a\\"), Err(SplitError::TrailingBackslash));
    }

    proptest::proptest! {
        #[test]
        fn joined_words_split_again(words in proptest::collection::vec("[ -~é\n]{0,8}", 0..6)) {
            proptest::prop_assert_eq!(split(&join(&words)), Ok(words));
        }
    }
}
