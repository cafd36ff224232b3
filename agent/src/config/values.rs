//! From a value as written (TOML, or text of a variable or flag) to a value as meant.

use std::collections::BTreeMap;
use std::time::Duration;

/// A value as it was written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input<'a> {
    /// In a file, with a type.
    Toml(&'a toml::Value),
    /// In a variable or flag: always text.
    Text(&'a str),
}

fn wanted<T>(what: &str, input: Input<'_>) -> Result<T, String> {
    Err(match input {
        Input::Toml(toml::Value::String(text)) => format!("expected {what}, found `{text}`"),
        Input::Toml(value) => format!("expected {what}, found {}", value.type_str()),
        Input::Text(text) => format!("expected {what}, found `{text}`"),
    })
}

fn as_text<'a>(input: Input<'a>) -> Option<&'a str> {
    match input {
        Input::Toml(value) => value.as_str(),
        Input::Text(text) => Some(text),
    }
}

pub(super) fn text(input: Input<'_>) -> Result<String, String> {
    match as_text(input) {
        Some("") => Err("must not be empty".to_owned()),
        Some(text) => Ok(text.to_owned()),
        None => wanted("a string", input),
    }
}

/// An absolute path: the agent, its shims and its tools have different working directories.
pub(super) fn path(input: Input<'_>) -> Result<std::path::PathBuf, String> {
    let path = std::path::PathBuf::from(text(input)?);
    if path.is_absolute() { Ok(path) } else { wanted("an absolute path", input) }
}

/// A file with a credential: an absolute path, or `credential:NAME` for one that systemd hands over.
pub(super) fn credential(input: Input<'_>) -> Result<std::path::PathBuf, String> {
    let path = std::path::PathBuf::from(text(input)?);
    if crate::credential::is_valid(&path) { Ok(path) } else { wanted("an absolute path or credential:NAME", input) }
}

/// Paths; in text they are separated by `:`.
pub(super) fn paths(input: Input<'_>) -> Result<Vec<std::path::PathBuf>, String> {
    match input {
        Input::Text(text) => text.split(':').map(|part| path(Input::Text(part))).collect(),
        Input::Toml(toml::Value::Array(items)) => items.iter().map(|item| path(Input::Toml(item))).collect(),
        Input::Toml(toml::Value::String(_)) => Ok(vec![path(input)?]),
        Input::Toml(_) => wanted("a list of absolute paths", input),
    }
}

pub(super) fn boolean(input: Input<'_>) -> Result<bool, String> {
    match input {
        Input::Toml(toml::Value::Boolean(value)) => Ok(*value),
        Input::Text("true" | "1" | "yes") => Ok(true),
        Input::Text("false" | "0" | "no") => Ok(false),
        Input::Toml(_) | Input::Text(_) => wanted("true or false", input),
    }
}

/// A whole number from `min` to `max`.
pub(super) fn number(input: Input<'_>, min: u32, max: u32) -> Result<u32, String> {
    let value = match input {
        Input::Toml(toml::Value::Integer(value)) => Some(*value),
        Input::Toml(_) => None,
        Input::Text(text) => text.parse::<i64>().ok(),
    };
    match value.and_then(|value| u32::try_from(value).ok()) {
        Some(value) if (min..=max).contains(&value) => Ok(value),
        Some(_) | None => match value {
            Some(value) => Err(format!("expected a number from {min} to {max}, found {value}")),
            None => wanted(&format!("a number from {min} to {max}"), input),
        },
    }
}

/// Bytes: a number, or one with `Ki`, `Mi`, `Gi` (powers of 1024) or `k`, `M`, `G` (powers of 1000).
pub(super) fn bytes(input: Input<'_>) -> Result<u64, String> {
    const WHAT: &str = "a size such as 10485760, 10Mi or 10M";
    if let Input::Toml(toml::Value::Integer(value)) = input {
        return u64::try_from(*value).or_else(|_| wanted(WHAT, input));
    }
    let Some(text) = as_text(input) else { return wanted(WHAT, input) };
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let factor: u64 = match unit.strip_suffix('B').unwrap_or(unit) {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return wanted(WHAT, input),
    };
    match digits.parse::<u64>().ok().and_then(|value| value.checked_mul(factor)) {
        Some(value) => Ok(value),
        None => wanted(WHAT, input),
    }
}

/// A length of time of at least a second.
pub(super) fn duration(input: Input<'_>) -> Result<Duration, String> {
    const WHAT: &str = "a length of time such as 60s or 5m";
    let parsed = as_text(input).and_then(|text| humantime::parse_duration(text).ok());
    match parsed {
        Some(length) if length >= Duration::from_secs(1) => Ok(length),
        Some(_) => Err("must be at least 1s".to_owned()),
        None => wanted(WHAT, input),
    }
}

/// Names and values: a table, or `a=b,c=d` in text.
pub(super) fn pairs(input: Input<'_>) -> Result<BTreeMap<String, String>, String> {
    match input {
        Input::Toml(toml::Value::Table(table)) => table
            .iter()
            .map(|(name, value)| match value.as_str() {
                Some(value) => Ok((name.clone(), value.to_owned())),
                None => Err(format!("expected a string for `{name}`, found {}", value.type_str())),
            })
            .collect(),
        Input::Toml(_) => wanted("a table of strings", input),
        Input::Text("") => Ok(BTreeMap::new()),
        Input::Text(text) => text
            .split(',')
            .map(|pair| match pair.split_once('=') {
                Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
                Some(_) | None => Err(format!("expected name=value pairs with commas between them, found `{pair}`")),
            })
            .collect(),
    }
}

/// A table that something else gives meaning to. In text it is TOML.
pub(super) fn table(input: Input<'_>) -> Result<toml::Table, String> {
    match input {
        Input::Toml(toml::Value::Table(table)) => Ok(table.clone()),
        Input::Toml(_) => wanted("a table", input),
        Input::Text(text) => text.parse::<toml::Table>().map_err(|error| error.message().to_owned()),
    }
}

/// `None` for the word `none` (or `off`), else the value.
pub(super) fn optional<T>(
    input: Input<'_>,
    parse: impl Fn(Input<'_>) -> Result<T, String>,
) -> Result<Option<T>, String> {
    match as_text(input) {
        Some("none" | "off") => Ok(None),
        Some(_) | None => parse(input).map(Some),
    }
}

pub(super) fn address(input: Input<'_>) -> Result<std::net::SocketAddr, String> {
    const WHAT: &str = "an address such as 127.0.0.1:9641, or none";
    match as_text(input).and_then(|text| text.parse().ok()) {
        Some(address) => Ok(address),
        None => wanted(WHAT, input),
    }
}

/// Where EC2's metadata service is (EC2 user guide, "Use the Instance Metadata Service").
pub(super) const EC2: &str = "http://169.254.169.254";

/// The address of a metadata service: `ec2`, or `http://host`.
pub(super) fn metadata(input: Input<'_>) -> Result<String, String> {
    match as_text(input) {
        Some("ec2") => Ok(EC2.to_owned()),
        Some(_) | None => http(input),
    }
}

/// `http://host` or `https://host`, with a path at most, and without credentials.
pub(super) fn http(input: Input<'_>) -> Result<String, String> {
    let address = as_text(input).unwrap_or_default();
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or_default();
    if rest.is_empty() || rest.starts_with('/') || rest.contains(['@', '?', '#', ' ']) {
        return wanted("an address such as http://127.0.0.1:4318", input);
    }
    Ok(address.trim_end_matches('/').to_owned())
}

/// Where traces go, if this binary can make any.
pub(super) fn collector(input: Input<'_>) -> Result<String, String> {
    if cfg!(not(feature = "traces")) {
        return Err("this binary was built without traces (cargo feature `traces`)".to_owned());
    }
    http(input)
}

/// Maintenance windows: a list, or a text with `;` between them.
pub(super) fn windows(input: Input<'_>) -> Result<Vec<spec::window::Window>, String> {
    let text = match input {
        Input::Text(text) => text.to_owned(),
        Input::Toml(toml::Value::String(text)) => text.clone(),
        Input::Toml(toml::Value::Array(items)) => {
            items.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(";")
        }
        Input::Toml(_) => return wanted("a list of maintenance windows", input),
    };
    spec::window::parse_all(&text).map_err(|error| error.to_string())
}

/// An address range such as `10.88.0.0/16` with at least 4 addresses.
pub(super) fn subnet(input: Input<'_>) -> Result<String, String> {
    const WHAT: &str = "an IPv4 range such as 10.88.0.0/16";
    let Some((address, length)) = as_text(input).and_then(|text| text.split_once('/')) else {
        return wanted(WHAT, input);
    };
    let (Ok(address), Ok(length)) = (address.parse::<std::net::Ipv4Addr>(), length.parse::<u32>()) else {
        return wanted(WHAT, input);
    };
    if !(8..=30).contains(&length) {
        return Err(format!("expected a prefix length from 8 to 30, found {length}"));
    }
    if u32::from(address).checked_shl(length).unwrap_or(0) != 0 {
        return Err(format!("`{address}/{length}` has bits set behind its prefix"));
    }
    Ok(format!("{address}/{length}"))
}

/// A network interface's name (`IFNAMSIZ` is 16 with the closing zero).
pub(super) fn interface(input: Input<'_>) -> Result<String, String> {
    let name = text(input)?;
    let fits = name.len() <= 15 && name.chars().all(|c| c.is_ascii_graphic() && c != '/' && c != ':');
    if fits && name != "." && name != ".." {
        Ok(name)
    } else {
        wanted("an interface name of at most 15 characters", input)
    }
}

/// A relative path of control groups.
pub(super) fn cgroup(input: Input<'_>) -> Result<String, String> {
    let name = text(input)?;
    let name = name.trim_matches('/');
    let sound = !name.is_empty() && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if sound { Ok(name.to_owned()) } else { wanted("a control group such as mainstay", input) }
}
