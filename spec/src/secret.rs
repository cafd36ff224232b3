//! Secret values, which never print and never serialise, and the keyed hash that stands for them.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Bytes of a secret. There is deliberately no `Display`, no `Serialize`, and `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Takes the bytes in.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes themselves; only for handing them to a container or sealing them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The key of this install's secret hashes: random, root-only on disk, so that a hash in a record does not
/// let anyone try out guesses.
#[derive(Clone)]
pub struct MacKey([u8; 32]);

impl MacKey {
    /// From 32 random bytes.
    #[must_use]
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The keyed hash of a value.
    #[must_use]
    pub fn mac(&self, value: &[u8]) -> SecretMac {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(value);
        let bytes: [u8; 32] = mac.finalize().into_bytes().into();
        SecretMac(crate::digest::Digest::from_bytes(bytes).hex())
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key]")
    }
}

/// Stands for a secret value in records and comparisons: equal values have equal hashes on one install.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretMac(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        assert_eq!(format!("{:?}", SecretBytes::new(b"hunter2".to_vec())), "[secret]");
    }

    #[test]
    fn the_hash_depends_on_key_and_value() {
        let (a, b) = (MacKey::new([1; 32]), MacKey::new([2; 32]));
        assert_eq!(a.mac(b"x"), a.mac(b"x"));
        assert_ne!(a.mac(b"x"), a.mac(b"y"));
        assert_ne!(a.mac(b"x"), b.mac(b"x"));
    }
}
