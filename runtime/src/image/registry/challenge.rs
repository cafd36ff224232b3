//! The `WWW-Authenticate` header (RFC 9110 section 11.6.1), as registries send it.
//!
//! Pure. Lenient where the meaning is clear, since registries differ; never fails on outside data.

/// One challenge: a scheme and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// In lower case.
    pub(super) scheme: String,
    params: Vec<(String, String)>,
}

impl Challenge {
    /// The first value of a parameter; names do not depend on case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Every challenge of one header value.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut rest = header;
    let mut found: Vec<Challenge> = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((word, after)) = token(rest) else { break };
        let trimmed = after.trim_start_matches([' ', '\t']);
        match trimmed.strip_prefix('=') {
            // `name=value` belongs to the challenge before it.
            Some(value) if !found.is_empty() => {
                let (value, after) = parse_value(value.trim_start_matches([' ', '\t']));
                if let Some(challenge) = found.last_mut() {
                    challenge.params.push((word.to_ascii_lowercase(), value));
                }
                rest = after;
            }
            Some(after) => rest = after,
            None => {
                found.push(Challenge { scheme: word.to_ascii_lowercase(), params: Vec::new() });
                rest = after;
            }
        }
    }
    found
}

/// A token and what follows it; `None` at the end or at a character that no token has.
fn token(text: &str) -> Option<(&str, &str)> {
    let end =
        text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c))).unwrap_or(text.len());
    if end == 0 { None } else { text.split_at_checked(end) }
}

fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at_checked(end).unwrap_or((text, ""));
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let show = |header: &str| {
            let all: Vec<String> = parse(header)
                .iter()
                .map(|c| {
                    let params: Vec<String> = c.params.iter().map(|(k, v)| format!("{k}={v}")).collect();
                    format!("{}({})", c.scheme, params.join(";"))
                })
                .collect();
            all.join(" ")
        };
        for (header, expected) in [
            (
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull,push\"",
                "bearer(realm=https://auth.docker.io/token;service=registry.docker.io;scope=repository:a/b:pull,push)",
            ),
            ("Basic realm=x", "basic(realm=x)"),
            ("BASIC realm=\"a, b\" , charset=UTF-8", "basic(realm=a, b;charset=UTF-8)"),
            ("Negotiate, Bearer realm=\"r\", Basic Realm = \"q\"", "negotiate() bearer(realm=r) basic(realm=q)"),
            ("Bearer realm=\"a\\\"b\"", "bearer(realm=a\"b)"),
            ("Bearer realm=\"never ends", "bearer(realm=never ends)"),
            ("Bearer realm=", "bearer(realm=)"),
            ("=x, Basic", ""),
            ("", ""),
            (",,,", ""),
            ("\u{1}\u{2}", ""),
        ] {
            assert_eq!(show(header), expected, "{header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_without_panic(header in "[ -~\\t]{0,80}|.{0,40}") {
            parse(&header);
        }
    }
}
