//! `[[archive]]`: tar archives that hold manifests.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spec::digest::Digest;

use super::tables::{self, Named};

/// An archive that is a source, as configured. It never holds a credential, only the name of a file with one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveSource {
    /// Its name here: a label, and the name of its directory below the data directory.
    pub name: String,
    /// `https://`; `http://` on this host only.
    pub url: String,
    /// `sha256:` and the digest of the file that is served. Another version is another digest.
    pub digest: String,
    /// The directory in it with the manifests, after `strip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// So many leading directories of each name are left out, as `tar --strip-components` does.
    #[serde(default)]
    pub strip: usize,
    /// File with a token that is sent as `Authorization: Bearer`, or `credential:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

impl ArchiveSource {
    /// Where its revisions are kept.
    #[must_use]
    pub fn directory(&self, data_dir: &Path) -> PathBuf {
        data_dir.join("archives").join(&self.name)
    }

    /// For people: `https://host/fleet.tar.gz@sha256:0123456789ab`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}@{}", self.url, self.digest.chars().take(19).collect::<String>())
    }

    /// The digest without its algorithm.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.digest.strip_prefix("sha256:").unwrap_or_default()
    }

    /// Whether the content of the served file is what was asked for.
    #[must_use]
    pub fn is_this(&self, bytes: &[u8]) -> bool {
        Digest::of(bytes).hex() == self.hex()
    }
}

impl Named for ArchiveSource {
    const KEY: &'static str = "archive";

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<(), String> {
        let about = |message: &str| Err(message.to_owned());
        let (secure, rest) = match (self.url.strip_prefix("https://"), self.url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return about("expected https://host/path"),
        };
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.is_empty() || authority.contains('@') {
            return about("expected a host in the URL and no credentials: name a file with `token_file`");
        }
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        if !secure && !matches!(host, "127.0.0.1" | "localhost" | "[::1]") {
            return about("http is for 127.0.0.1 only: use https");
        }
        let digits = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if self.hex().len() != 64 || !self.hex().chars().all(digits) {
            return about("expected `digest` as sha256: and 64 digits: `sha256sum FILE` tells them");
        }
        if let Some(path) = &self.path
            && !tables::is_below(path)
        {
            return about("expected `path` below the top of the archive");
        }
        if self.token_file.as_ref().is_some_and(|file| !crate::credential::is_valid(file)) {
            return about("expected an absolute path or credential:NAME in `token_file`");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::read;
    use super::super::values::Input;
    use super::ArchiveSource;

    #[test]
    fn what_is_an_archive() {
        let check = |fields: &str, want: Option<&str>| {
            let fields = fields.replace("DIGEST", &format!("digest='sha256:{}'", "0a".repeat(32)));
            match (read::<ArchiveSource>(Input::Text(&format!("[{{ {fields} }}]"))), want) {
                (Ok(_), None) => {}
                (Err(error), Some(want)) => assert!(error.contains(want), "{fields}: {error}"),
                (read, want) => panic!("{fields}: {read:?} instead of {want:?}"),
            }
        };
        check("name='a', url='https://host/x.tar.gz', DIGEST", None);
        check("name='a', url='http://127.0.0.1:8080/x.tar', DIGEST, strip=1, path='hosts/web'", None);
        check("name='a', url='https://host/x', DIGEST, token_file='credential:t'", None);
        check("name='a', url='https://host/x'", Some("missing field `digest`"));
        check("name='a', url='https://host/x', digest='sha256:00'", Some("64 digits"));
        check("name='a', url='http://host/x', DIGEST", Some("use https"));
        check("name='a', url='https://me:x@host/x', DIGEST", Some("no credentials"));
        check("name='a', url='/x', DIGEST", Some("expected https"));
        check("name='a', url='https://host/x', DIGEST, path='../x'", Some("below the top"));
        check("name='a', url='https://host/x', DIGEST, token_file='t'", Some("absolute path"));
        check("name='../a', url='https://host/x', DIGEST", Some("expected a name"));
        check("name='a', url='https://h/x', DIGEST }, { name='a', url='https://i/x', DIGEST", Some("twice"));
    }
}
