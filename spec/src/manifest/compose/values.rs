//! Typed reading of values that the check has passed. A value of a wrong form reads as missing: the check has told.

use super::tree::{Place, Tree, Val};
use super::units;
use crate::time::Millis;

impl Tree {
    /// The text of a key; an empty one counts as missing.
    pub(super) fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key)?.str().filter(|text| !text.is_empty())
    }

    /// A boolean of a key.
    pub(super) fn bool_of(&self, key: &str) -> Option<bool> {
        self.get(key)?.boolean()
    }

    /// An integer of a key.
    pub(super) fn int_of(&self, key: &str) -> Option<i64> {
        self.get(key)?.integer()
    }

    /// A number of a key.
    pub(super) fn number_of(&self, key: &str) -> Option<f64> {
        let tree = self.get(key)?;
        match &tree.val {
            Val::Float(value) => Some(*value),
            Val::Str(text) => text.parse().ok(),
            #[expect(clippy::cast_precision_loss, reason = "no such number is that large")]
            Val::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// A size of a key.
    pub(super) fn bytes_of(&self, key: &str) -> Option<u64> {
        self.get(key)?.bytes()
    }

    /// A duration of a key.
    pub(super) fn duration_of(&self, key: &str) -> Option<Millis> {
        units::duration(self.get(key)?.str()?)
    }

    /// This as a boolean.
    pub(super) fn boolean(&self) -> Option<bool> {
        match &self.val {
            Val::Bool(value) => Some(*value),
            Val::Str(text) => units::boolean(text),
            _ => None,
        }
    }

    /// This as an integer.
    pub(super) fn integer(&self) -> Option<i64> {
        match &self.val {
            Val::Int(value) => Some(*value),
            Val::Str(text) => text.parse().ok(),
            #[expect(clippy::cast_possible_truncation, reason = "the check takes whole numbers only")]
            Val::Float(value) => Some(*value as i64),
            _ => None,
        }
    }

    /// This as a size.
    pub(super) fn bytes(&self) -> Option<u64> {
        match &self.val {
            Val::Int(value) => u64::try_from(*value).ok(),
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates")]
            Val::Float(value) => Some(*value as u64),
            Val::Str(text) => units::bytes(text),
            _ => None,
        }
    }

    /// A string, or a list of them, as a list.
    pub(super) fn strings_of(&self, key: &str) -> Vec<(String, Place)> {
        super::session::strings(self.get(key))
    }

    /// A mapping, or a list of `key=value`, as pairs; `None` for a key without value.
    pub(super) fn pairs_of(&self, key: &str) -> Vec<(String, Option<String>, Place)> {
        match self.get(key).map(|tree| &tree.val) {
            Some(Val::Map(map)) => {
                map.iter().map(|(key, item)| (key.clone(), item.tree.text(), item.tree.place)).collect()
            }
            Some(Val::Seq(items)) => items
                .iter()
                .filter_map(|item| {
                    let text = item.str()?;
                    Some(match text.split_once('=') {
                        Some((key, value)) => (key.to_owned(), Some(value.to_owned()), item.place),
                        None => (text.to_owned(), None, item.place),
                    })
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The items of a list with their paths.
    pub(super) fn items_of<'t>(&'t self, key: &str, path: &str) -> Vec<(&'t Self, String)> {
        let path = super::tree::join_key(path, key);
        let items = self.get(key).and_then(Self::seq).unwrap_or_default();
        items.iter().enumerate().map(|(index, item)| (item, super::tree::join_index(&path, index))).collect()
    }
}
