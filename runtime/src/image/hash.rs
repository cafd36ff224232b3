//! SHA-256 over the bytes of layers.
//!
//! ring's, not sha2's: with the processor's SHA instructions they are as fast as each other, but without them (older
//! Xeons, many virtual machines) ring still has vectorised assembly, and hashing is the largest part of a pull there.

use ring::digest::{Context, SHA256};
use spec::digest::Digest;

/// A digest in the making.
#[derive(Clone)]
pub(crate) struct Sha256(Context);

impl Sha256 {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn digest(self) -> Digest {
        let mut bytes = [0; 32];
        // As long as the algorithm says, which is SHA-256.
        bytes.copy_from_slice(self.0.finish().as_ref());
        Digest::from_bytes(bytes)
    }
}

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sha256")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_digest_of_the_whole() {
        let mut hash = Sha256::new();
        for piece in [&b"one"[..], b"", b" two"] {
            hash.update(piece);
        }
        assert_eq!(hash.digest(), Digest::of(b"one two"));
    }
}
