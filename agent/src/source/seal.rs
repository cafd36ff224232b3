//! The node key, and files that only it opens: AES-256-GCM, since last good versions contain Secrets.

use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use spec::secret::MacKey;

/// What can go wrong with a sealed file.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The disk refuses.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// read or write.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what was written, or another key sealed it.
    #[error("{} cannot be opened with this node's key", .0.display())]
    Foreign(PathBuf),
    /// The kernel gives no random numbers.
    #[error("no random numbers")]
    Random,
}

/// The key of this install: 32 random bytes, root-only.
pub struct NodeKey([u8; 32]);

impl NodeKey {
    /// Reads the key.
    ///
    /// # Errors
    /// It is not there or damaged.
    pub fn load(path: &Path) -> Result<Self, SealError> {
        let read = std::fs::read(path);
        let bytes = read.map_err(|source| SealError::Io { verb: "read", path: path.to_owned(), source })?;
        <[u8; 32]>::try_from(bytes.as_slice()).map(Self).map_err(|_| SealError::Foreign(path.to_owned()))
    }

    /// Reads the key, or makes one. A damaged one is put aside: an agent that does not start would be worse.
    ///
    /// # Errors
    /// It can be neither read nor written.
    pub fn load_or_make(path: &Path) -> Result<Self, SealError> {
        match Self::load(path) {
            Err(SealError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(SealError::Foreign(_)) => {
                tracing::error!(file = %path.display(), "damaged node key put aside: last good versions cannot be opened");
                crate::record::put_aside(path);
            }
            other => return other,
        }
        let mut key = [0u8; 32];
        SystemRandom::new().fill(&mut key).map_err(|_| SealError::Random)?;
        write_private(path, &key)?;
        Ok(Self(key))
    }

    /// Makes sure that the key of a data directory is there: kept as it is, had back from its copy in the run directory,
    /// or made. The copy saves a node whose key was lost while containers run: with another key every hash of a secret
    /// would be another one, and everything that uses one would be replaced.
    ///
    /// # Errors
    /// It can be neither read nor written.
    pub fn ensure(data_dir: &Path, run_dir: &Path) -> Result<(), SealError> {
        let (path, copy) = (data_dir.join("node.key"), run_dir.join("node.key"));
        match (Self::load(&path), Self::load(&copy)) {
            (Ok(key), Ok(known)) if key.0 == known.0 => Ok(()),
            (Ok(key), _) => write_private(&copy, &key.0),
            (Err(error), Ok(known)) => {
                tracing::error!(%error, "node key had back from its copy");
                if matches!(error, SealError::Foreign(_)) {
                    crate::record::put_aside(&path);
                }
                write_private(&path, &known.0)
            }
            (Err(_), Err(_)) => write_private(&copy, &Self::load_or_make(&path)?.0),
        }
    }

    /// The key of secret hashes, derived so that one says nothing of the other.
    #[must_use]
    pub fn mac_key(&self) -> MacKey {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &self.0);
        let tag = ring::hmac::sign(&key, b"mainstay secret hashes 1");
        let mut derived = [0u8; 32];
        for (to, from) in derived.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        MacKey::new(derived)
    }

    fn sealing(&self) -> Result<LessSafeKey, SealError> {
        UnboundKey::new(&AES_256_GCM, &self.0).map(LessSafeKey::new).map_err(|_| SealError::Random)
    }

    /// Seals bytes into a file, replacing it durably.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), SealError> {
        let mut nonce = [0u8; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError::Random)?;
        let mut sealed = bytes.to_vec();
        self.sealing()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)
            .map_err(|_| SealError::Random)?;
        let mut file = nonce.to_vec();
        file.extend(sealed);
        write_private(path, &file)
    }

    /// Opens a sealed file; `None` when it is not there.
    ///
    /// # Errors
    /// It cannot be read or was not sealed with this key.
    pub fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, SealError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SealError::Io { verb: "read", path: path.to_owned(), source }),
        };
        let foreign = || SealError::Foreign(path.to_owned());
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or_else(foreign)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| foreign())?;
        let mut sealed = sealed.to_vec();
        let open = self.sealing()?.open_in_place(nonce, Aad::empty(), &mut sealed).map_err(|_| foreign())?.to_vec();
        Ok(Some(open))
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), SealError> {
    crate::record::write_bytes(path, bytes).map_err(|source| SealError::Io {
        verb: "write",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_key_comes_back_from_its_copy() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (data, run) = (dir.path().join("data"), dir.path().join("run"));
        std::fs::create_dir_all(&data).expect("made");
        std::fs::create_dir_all(&run).expect("made");
        let key = |dir: &Path| NodeKey::load(&dir.join("node.key")).expect("there").0;
        NodeKey::ensure(&data, &run).expect("made");
        let first = key(&data);
        for damage in [None, Some("short")] {
            match damage {
                None => std::fs::remove_file(data.join("node.key")).expect("there"),
                Some(text) => std::fs::write(data.join("node.key"), text).expect("written"),
            }
            NodeKey::ensure(&data, &run).expect("had back");
            assert_eq!((key(&data), key(&run)), (first, first), "{damage:?}");
        }
        std::fs::remove_file(run.join("node.key")).expect("there");
        NodeKey::ensure(&data, &run).expect("copied");
        assert_eq!(key(&run), first, "after a reboot there is no copy");
    }

    #[test]
    fn what_is_sealed_opens_only_with_the_same_key() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let key = NodeKey::load_or_make(&dir.path().join("node.key")).expect("made");
        let file = dir.path().join("sealed");
        key.write(&file, b"hunter2").expect("written");
        assert!(!std::fs::read(&file).expect("read").windows(7).any(|w| w == b"hunter2"));
        let again = NodeKey::load_or_make(&dir.path().join("node.key")).expect("read");
        assert_eq!(again.read(&file).expect("opened").as_deref(), Some(&b"hunter2"[..]));
        let other = NodeKey::load_or_make(&dir.path().join("other.key")).expect("made");
        assert!(matches!(other.read(&file), Err(SealError::Foreign(_))));
        std::fs::write(&file, b"short").expect("damaged");
        assert!(matches!(key.read(&file), Err(SealError::Foreign(_))));
    }
}
