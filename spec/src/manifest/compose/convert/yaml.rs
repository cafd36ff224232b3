//! Writing of Compose files: mappings in order, strings quoted where YAML would read something else.

use std::fmt::Write as _;

/// A value to write.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Yaml {
    /// Written as it is: numbers and booleans.
    Plain(String),
    /// Text.
    Str(String),
    /// A list.
    List(Vec<Yaml>),
    /// A mapping.
    Map(Vec<(String, Yaml)>),
}

impl From<&str> for Yaml {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

impl From<String> for Yaml {
    fn from(text: String) -> Self {
        Self::Str(text)
    }
}

impl Yaml {
    /// Whether it is a mapping or list without entries.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Map(pairs) => pairs.is_empty(),
            Self::List(items) => items.is_empty(),
            Self::Plain(_) | Self::Str(_) => false,
        }
    }

    /// Sets a key of a mapping; what this is else becomes a mapping.
    pub(super) fn set(&mut self, key: &str, value: Self) {
        let slot = self.slot(key);
        *slot = value;
    }

    /// Appends to the list of a key.
    pub(super) fn push(&mut self, key: &str, value: Self) {
        let slot = self.slot(key);
        match slot {
            Self::List(items) => items.push(value),
            _ => *slot = Self::List(vec![value]),
        }
    }

    /// The value of a key, which is made when it is missing.
    pub(super) fn slot(&mut self, key: &str) -> &mut Self {
        if !matches!(self, Self::Map(_)) {
            *self = Self::Map(Vec::new());
        }
        let Self::Map(pairs) = self else { unreachable!("made a mapping above") };
        let at = match pairs.iter().position(|(other, _)| other == key) {
            Some(at) => at,
            None => {
                pairs.push((key.to_owned(), Self::Map(Vec::new())));
                pairs.len() - 1
            }
        };
        &mut pairs[at].1
    }

    /// The text of a file.
    pub(super) fn write(&self) -> String {
        let mut out = String::new();
        self.block(0, &mut out);
        out
    }

    fn block(&self, indent: usize, out: &mut String) {
        let pad = " ".repeat(indent);
        match self {
            Self::Map(pairs) => {
                for (key, value) in pairs {
                    let _ = write!(out, "{pad}{}:", scalar(key));
                    value.after(indent + 2, out);
                }
            }
            Self::List(items) => {
                for item in items {
                    let _ = write!(out, "{pad}-");
                    match item {
                        Self::Map(pairs) if !pairs.is_empty() => {
                            let mut inner = String::new();
                            item.block(indent + 2, &mut inner);
                            let _ = write!(out, " {}", inner.trim_start());
                        }
                        _ => item.after(indent + 2, out),
                    }
                }
            }
            Self::Plain(text) => {
                let _ = writeln!(out, "{pad}{text}");
            }
            Self::Str(text) => {
                let _ = writeln!(out, "{pad}{}", scalar(text));
            }
        }
    }

    fn after(&self, indent: usize, out: &mut String) {
        match self {
            Self::Map(pairs) if pairs.is_empty() => out.push_str(" {}\n"),
            Self::List(items) if items.is_empty() => out.push_str(" []\n"),
            Self::Map(_) | Self::List(_) => {
                out.push('\n');
                self.block(indent, out);
            }
            Self::Plain(text) => {
                let _ = writeln!(out, " {text}");
            }
            Self::Str(text) => {
                let _ = writeln!(out, " {}", scalar(text));
            }
        }
    }
}

/// A string without quotes where that is safe, else as a JSON string, which is YAML too.
fn scalar(text: &str) -> String {
    let safe_start = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '.' || c == '_');
    let safe = safe_start
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./=@+,$ ".contains(c))
        && !text.ends_with(' ')
        && !text.contains(" #");
    let word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", ".inf", ".nan"];
    let number = text.parse::<f64>().is_ok();
    if safe && !number && !word.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_again(texts in proptest::collection::vec("[ -~é\n\t]{0,10}", 1..5)) {
            let mut yaml = Yaml::Map(Vec::new());
            for text in &texts {
                yaml.push("list", Yaml::Str(text.clone()));
            }
            let loaded = crate::load::load("x", yaml.write().as_bytes(), &crate::load::Limits::default());
            proptest::prop_assert!(loaded.diagnostics.is_empty(), "{}", yaml.write());
            let list = loaded.documents[0].node.get("list").and_then(|n| n.as_seq()).expect("a list");
            let read: Vec<&str> = list.iter().filter_map(crate::node::Node::as_str).collect();
            proptest::prop_assert_eq!(read, texts);
        }
    }
}
