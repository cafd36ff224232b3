//! A bound on what JSON from outside becomes in memory: a list of a million zeros is two megabytes as text, and many
//! times that as values.
//!
//! Pure. Counts; whether it is JSON at all is for the parser to say.

/// Values that one document may hold. An image of 500 layers, each with a line of history, has some thousands.
pub(super) const MAX_VALUES: usize = 100_000;

/// How many values a document holds, when that is more than [`MAX_VALUES`].
pub(super) fn too_many_values(bytes: &[u8]) -> Option<usize> {
    let (mut count, mut text, mut escaped) = (0usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            b',' | b'[' | b'{' if !text => count += 1,
            _ => {}
        }
    }
    (count > MAX_VALUES).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_documents_of_very_many_values_are_too_large() {
        let list = |count: usize, value: &str| format!("[{}]", vec![value; count].join(","));
        for (text, too_many) in [
            (String::new(), false),
            ("{}".to_owned(), false),
            (list(MAX_VALUES, "0"), false),
            (list(MAX_VALUES + 1, "0"), true),
            (list(MAX_VALUES / 2, "[]"), false),
            (list(MAX_VALUES / 2 + 2, "{}"), true),
            ("[".repeat(MAX_VALUES + 1), true),
            // Within text they mean nothing.
            (format!("{{\"a\":\"{}\"}}", ",[{".repeat(MAX_VALUES)), false),
            (format!("{{\"a\\\"{}\":1}}", ",".repeat(2 * MAX_VALUES)), false),
            (format!("{{\"a\\\\\":{}}}", list(MAX_VALUES + 1, "1")), true),
        ] {
            assert_eq!(too_many_values(text.as_bytes()).is_some(), too_many, "{}", &text[..text.len().min(60)]);
        }
    }
}
