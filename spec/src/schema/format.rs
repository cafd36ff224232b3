//! The forms that text fields must have, by the rules of Kubernetes' `apimachinery/util/validation`.

use super::cron;

/// A form of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Anything.
    Any,
    /// RFC 1123 label: a-z, 0-9 and `-` inside, at most 63.
    DnsLabel,
    /// RFC 1123 subdomain: labels with dots between, at most 253.
    DnsSubdomain,
    /// `[prefix/]name` of a label.
    LabelKey,
    /// Value of a label: at most 63.
    LabelValue,
    /// Name of a variable: printable ASCII without `=`.
    EnvName,
    /// IANA service name: at most 15, with a letter.
    PortName,
    /// Key of a ConfigMap or Secret.
    ConfigKey,
    /// IPv4 or IPv6 address.
    Ip,
    /// Name of an HTTP header.
    HeaderName,
    /// Cron schedule.
    Cron,
    /// IANA time zone.
    TimeZone,
    /// Moment in RFC 3339.
    Time,
}

/// The IANA names, one a line.
const ZONES: &str = include_str!("zones.txt");

impl Format {
    /// What it is called in `mainstay explain`.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Any => "text",
            Self::DnsLabel => "name (a-z, 0-9, `-`; at most 63)",
            Self::DnsSubdomain => "name (a-z, 0-9, `-`, `.`; at most 253)",
            Self::LabelKey => "label key",
            Self::LabelValue => "label value",
            Self::EnvName => "name of a variable",
            Self::PortName => "port name (a-z, 0-9, `-`; at most 15)",
            Self::ConfigKey => "key (A-Z, a-z, 0-9, `-`, `_`, `.`)",
            Self::Ip => "IP address",
            Self::HeaderName => "HTTP header name",
            Self::Cron => "cron schedule",
            Self::TimeZone => "IANA time zone",
            Self::Time => "time such as 2026-01-31T12:00:00Z",
        }
    }

    /// A regular expression for editors, where the form has a simple one.
    #[must_use]
    pub const fn pattern(self) -> Option<&'static str> {
        match self {
            Self::DnsLabel => Some("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
            Self::DnsSubdomain => Some("^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
            Self::LabelValue => Some("^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"),
            Self::ConfigKey => Some("^[-._a-zA-Z0-9]+$"),
            Self::PortName => Some("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"),
            _ => None,
        }
    }

    /// What is wrong with a text, if anything, as the end of a sentence that begins with it.
    #[must_use]
    pub fn fault(self, text: &str) -> Option<String> {
        match self {
            Self::Any => None,
            Self::DnsLabel => dns_label(text).map(str::to_owned),
            Self::DnsSubdomain => dns_subdomain(text).map(str::to_owned),
            Self::LabelKey => label_key(text).map(str::to_owned),
            Self::LabelValue => label_value(text).map(str::to_owned),
            Self::EnvName => (text.is_empty() || !text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'='))
                .then(|| "must be printable ASCII without `=`".to_owned()),
            Self::PortName => port_name(text).map(str::to_owned),
            Self::ConfigKey => config_key(text).map(str::to_owned),
            Self::Ip => text.parse::<std::net::IpAddr>().is_err().then(|| "is not an IP address".to_owned()),
            Self::HeaderName => (text.is_empty()
                || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)))
            .then(|| "is not the name of an HTTP header".to_owned()),
            Self::Cron => cron::fault(text),
            Self::TimeZone => time_zone(text).map(str::to_owned),
            Self::Time => (!is_time(text)).then(|| "is not a time such as 2026-01-31T12:00:00Z".to_owned()),
        }
    }
}

/// RFC 3339, with `Z` or an offset.
fn is_time(text: &str) -> bool {
    let local = match text.len().checked_sub(6).and_then(|at| text.split_at_checked(at)) {
        Some((local, offset)) if offset.starts_with(['+', '-']) && offset.get(3..4) == Some(":") => local,
        _ => text.strip_suffix(['Z', 'z']).unwrap_or_default(),
    };
    humantime::parse_rfc3339(&format!("{local}Z")).is_ok()
}

fn time_zone(text: &str) -> Option<&'static str> {
    if text.eq_ignore_ascii_case("local") {
        return Some("must name a zone; leave the field out for the host's");
    }
    // Kubernetes looks names up in a case-sensitive file system.
    (!ZONES.lines().any(|zone| zone == text)).then_some("is not an IANA time zone such as `Europe/Paris`")
}

/// RFC 1123 label.
pub(crate) fn dns_label(text: &str) -> Option<&'static str> {
    if text.len() > 63 {
        return Some("must not be longer than 63 characters");
    }
    (!is_dns_label(text)).then_some("must be lower case a-z, 0-9 and `-`, beginning and ending with a letter or digit")
}

fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// RFC 1123 subdomain.
pub(crate) fn dns_subdomain(text: &str) -> Option<&'static str> {
    if text.len() > 253 {
        return Some("must not be longer than 253 characters");
    }
    (!text.split('.').all(is_dns_label))
        .then_some("must be lower case a-z, 0-9, `-` and `.`, beginning and ending with a letter or digit")
}

/// RFC 1035 label: starts with a letter.
pub(crate) fn dns_1035_label(text: &str) -> Option<&'static str> {
    dns_label(text).or_else(|| {
        text.starts_with(|c: char| c.is_ascii_digit()).then_some("must begin with a letter (it becomes a DNS name)")
    })
}

/// `[prefix/]name`.
pub(crate) fn label_key(text: &str) -> Option<&'static str> {
    let name = match text.split_once('/') {
        Some((prefix, name)) => {
            if prefix.is_empty() || dns_subdomain(prefix).is_some() {
                return Some("has a prefix before `/` that is not a DNS name");
            }
            name
        }
        None => text,
    };
    if name.is_empty() {
        return Some("has no name");
    }
    if name.len() > 63 {
        return Some("has a name longer than 63 characters");
    }
    (!is_label_text(name)).then_some(
        "must be letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit (and one `/` at most)",
    )
}

/// Value of a label.
pub(crate) fn label_value(text: &str) -> Option<&'static str> {
    if text.len() > 63 {
        return Some("must not be longer than 63 characters");
    }
    (!text.is_empty() && !is_label_text(text))
        .then_some("must be letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit")
}

fn is_label_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// IANA service name.
pub(crate) fn port_name(text: &str) -> Option<&'static str> {
    if text.len() > 15 {
        return Some("must not be longer than 15 characters");
    }
    if !is_dns_label(text) || text.contains("--") {
        return Some("must be lower case a-z, 0-9 and single `-`, beginning and ending with a letter or digit");
    }
    (!text.bytes().any(|b| b.is_ascii_lowercase())).then_some("must contain a letter")
}

/// Key of a ConfigMap or Secret.
pub(crate) fn config_key(text: &str) -> Option<&'static str> {
    if text.len() > 253 {
        return Some("must not be longer than 253 characters");
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Some("must be letters, digits, `-`, `_` and `.`");
    }
    (text == "." || text.starts_with("..")).then_some("must not be `.` or begin with `..`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_accept_and_refuse() {
        use Format::*;
        let long = "a".repeat(64);
        for (format, good, bad) in [
            (DnsLabel, vec!["a", "a-b", "0"], vec!["", "A", "a.b", "-a", "a-", "a_b", &long]),
            (DnsSubdomain, vec!["a.b", "1.2", &long], vec!["", "a..b", ".a", "a.", "A.b", "a_b"]),
            (LabelKey, vec!["a", "A.b_c", "x.y/z"], vec!["", "/a", "a/", "a b", "X/y", "a/b/c", "-a"]),
            (LabelValue, vec!["", "A", "1.0", "a_b"], vec!["a b", "-a", "a/b", &long]),
            (EnvName, vec!["A", "a.b", "1A", "A B"], vec!["", "A=B", "ä"]),
            (PortName, vec!["http", "a-1"], vec!["", "80", "HTTP", "a--b", "averylongportname", "a_b"]),
            (ConfigKey, vec!["a", ".a", "A_b-c.d"], vec!["", "a/b", "..", "..a", ".", "a b"]),
            (Ip, vec!["1.2.3.4", "::1"], vec!["1.2.3", "localhost", "1.2.3.4/8"]),
            (HeaderName, vec!["X-Y"], vec!["", "X Y", "X:"]),
            (
                Time,
                vec!["2026-01-31T12:00:00Z", "2026-01-31T12:00:00+02:00"],
                vec!["", "now", "2026-01-31", "2026-13-01T00:00:00Z"],
            ),
            (TimeZone, vec!["Europe/Paris", "UTC", "Etc/UTC"], vec!["Local", "Mars/Base", "europe/paris", ""]),
        ] {
            for text in good {
                assert_eq!(format.fault(text), None, "{format:?} {text:?}");
            }
            for text in bad {
                assert!(format.fault(text).is_some(), "{format:?} {text:?}");
            }
        }
    }
}
