//! What lies below an error: its chain of sources, as people read it.

use std::error::Error;

/// The causes of an error, nearest first, without the error itself.
pub fn causes<'a>(error: &'a (dyn Error + 'a)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// An error with its causes on one line. A cause whose text the one above repeats at its end is not told twice.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Above(&'static str, #[source] io::Error);

    #[test]
    fn causes_are_told_once() {
        let check = |above, want: &str| {
            let error = Above(above, io::Error::other("disk full"));
            assert_eq!(super::chain(&error), want);
        };
        check("cannot write", "cannot write: disk full");
        check("cannot write: disk full", "cannot write: disk full");
    }
}
