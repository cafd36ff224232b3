//! Arrays of tables: `[[git]]`, `[[archive]]`, `[[oci]]`, `[[webhook]]`, and what they have in common.

use std::path::{Component, Path};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::values::Input;

/// One table of such an array.
pub(super) trait Named: DeserializeOwned {
    /// Its name in the configuration.
    const KEY: &'static str;

    /// What it is called: a label, and the name of its directory below the data directory.
    fn name(&self) -> &str;

    /// Whether its other values fit together.
    fn check(&self) -> Result<(), String>;
}

/// Reads the list; in text it is TOML's array of tables. Each needs a name of its own.
pub(super) fn read<T: Named>(input: Input<'_>) -> Result<Vec<T>, String> {
    let told = |error: toml::de::Error| error.message().to_owned();
    let mut table = match input {
        Input::Toml(value) => toml::Table::from_iter([(T::KEY.to_owned(), value.clone())]),
        Input::Text(text) => format!("{} = {text}", T::KEY).parse().map_err(told)?,
    };
    // The text may hold more lines than the value; what they say would be lost.
    let value = table.remove(T::KEY).filter(|_| table.is_empty()).ok_or("expected a list of tables")?;
    let values: Vec<toml::Value> = value.try_into().map_err(told)?;
    let tables: Vec<T> =
        values.into_iter().enumerate().map(|(index, one)| table_of(index, one)).collect::<Result<_, _>>()?;
    for (index, one) in tables.iter().enumerate() {
        let name = one.name();
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 63 || name.starts_with('-') || !name.chars().all(fits) {
            return Err(format!("expected a name of a-z, 0-9 and `-`, found `{name}`"));
        }
        one.check().map_err(|message| format!("`{name}`: {message}"))?;
        if tables.iter().take(index).any(|other| other.name() == name) {
            return Err(format!("`{name}` is there twice"));
        }
    }
    Ok(tables)
}

/// One table; a complaint names it and what may have been meant.
fn table_of<T: Named>(index: usize, value: toml::Value) -> Result<T, String> {
    let called = value.get("name").and_then(toml::Value::as_str).map(|name| format!("`{name}`"));
    value.try_into().map_err(|error: toml::de::Error| {
        let called = called.unwrap_or_else(|| format!("number {}", index + 1));
        format!("{called}: {}", told(&error))
    })
}

/// A complaint, with what may have been meant by a name that is none.
pub(super) fn told(error: &toml::de::Error) -> String {
    let mut words = error.message().split('`').skip(1).step_by(2);
    let meant = words.next().and_then(|wrong| Some((wrong, super::layers::nearest(wrong, words)?)));
    match meant.filter(|_| error.message().starts_with("unknown field")) {
        Some((wrong, meant)) => format!("unknown field `{wrong}`, did you mean `{meant}`?"),
        None => error.message().to_owned(),
    }
}

/// Whether a path names something below the place that it is joined to.
pub(super) fn is_below(path: &Path) -> bool {
    !path.as_os_str().is_empty() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// How often a remote is asked by default.
pub(super) fn poll() -> Duration {
    Duration::from_secs(60)
}

/// `poll` as text.
pub(super) mod length {
    use std::time::Duration;

    pub(in super::super) fn serialize<S: serde::Serializer>(length: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*length))
    }

    pub(in super::super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(from)?;
        match humantime::parse_duration(&text) {
            Ok(length) if length >= Duration::from_secs(1) => Ok(length),
            Ok(_) => Err(serde::de::Error::custom("`poll` must be at least 1s")),
            Err(_) => Err(serde::de::Error::custom(format!("expected a length of time such as 1m, found `{text}`"))),
        }
    }
}
