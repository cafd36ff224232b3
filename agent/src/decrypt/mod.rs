//! Manifests that are encrypted in the repository: whole files of age, and values of SOPS with keys of age.
//!
//! Owns the identities while a reading lasts. What is opened stays in memory; where a last good version is kept, it is
//! sealed with the node's key like every other Secret. Nothing here writes a file or a log line.

mod age;
mod bech32;
mod sops;

use std::path::Path;

use spec::codes;
use spec::diagnostic::Diagnostic;
use spec::manifest::{FileObjects, ObjectValue, ParseOptions, parse_file};

use crate::credential;
use age::{AgeError, Identity};
use sops::Sops;

/// Why an encrypted manifest cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DecryptError {
    /// There is no identity.
    #[error("no age identity is configured")]
    NoIdentity,
    /// The identity cannot be used.
    #[error("the age identity cannot be used: {why}")]
    Unusable {
        /// Why, as it was told when it was read: it is said again for each file.
        why: String,
        /// What to do.
        hint: String,
    },
    /// The file is for somebody else.
    #[error("{}", for_others(recipients, ours))]
    NotForUs {
        /// Who can open it, where the file tells.
        recipients: Vec<String>,
        /// Who we are.
        ours: Vec<String>,
    },
    /// It was changed since it was encrypted, or is not whole.
    #[error("the file is damaged: {0}")]
    Damaged(&'static str),
    /// A value was changed or moved since it was encrypted.
    #[error("the value at `{0}` does not open: it was changed or moved after it was encrypted")]
    Value(String),
    /// A value of a Secret that is not encrypted, where the code covers encrypted values only.
    #[error("the value at `{0}` is not encrypted, and the code (`mac_only_encrypted`) covers encrypted values only")]
    Open(String),
    /// The code over all values does not fit.
    #[error("the code over all values (`sops.mac`) does not fit: something was changed, added or removed")]
    Mac,
    /// Encrypted values without the block that tells how.
    #[error("it has encrypted values but no `sops` block")]
    NoMetadata,
    /// No key of age in it.
    #[error("SOPS encrypted it for {} and not for age", if .0.is_empty() { "nobody" } else { .0 })]
    NoAge(String),
    /// The key is split.
    #[error("its key is split into groups (`sops.key_groups`), which is not supported")]
    KeyGroups,
}

fn for_others(recipients: &[String], ours: &[String]) -> String {
    let to = if recipients.is_empty() { "somebody else".to_owned() } else { recipients.join(", ") };
    format!("it is encrypted for {to}, and this host is {}", ours.join(", "))
}

impl DecryptError {
    /// What the reader can do.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoIdentity => {
                "set `age_identity` to a file that only root can read, or to `credential:NAME` of systemd".to_owned()
            }
            Self::Unusable { hint, .. } => hint.clone(),
            Self::NotForUs { ours, .. } => match ours.first() {
                Some(recipient) => format!(
                    "encrypt it for {recipient} as well (`age -r`, or `sops updatekeys` after a change of .sops.yaml)"
                ),
                None => "put an identity into the file that `age_identity` names".to_owned(),
            },
            Self::Damaged(_) | Self::NoMetadata => {
                "restore the file from the repository and encrypt it anew".to_owned()
            }
            Self::Value(_) | Self::Open(_) | Self::Mac => {
                "change encrypted files with `sops FILE` only; find the change with `git log -p`".to_owned()
            }
            Self::NoAge(_) => "add an age recipient to .sops.yaml and run `sops updatekeys`".to_owned(),
            Self::KeyGroups => "encrypt it with one group of keys".to_owned(),
        }
    }
}

/// The identities of this host, or why there are none.
#[derive(Default)]
pub struct Keys(Option<Result<Vec<Identity>, DecryptError>>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[keys]")
    }
}

impl Keys {
    /// Reads the file that the setting names. What is wrong with it is told only where it is needed.
    #[must_use]
    pub fn load(setting: Option<&Path>) -> Self {
        let read = |path: &Path| {
            let bytes = credential::read(path)
                .map_err(|error| DecryptError::Unusable { why: spec::causes::chain(&error), hint: error.hint() })?;
            let text = String::from_utf8_lossy(&bytes);
            let lines = text.lines().map(str::trim).enumerate();
            let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
            let keys: Result<Vec<Identity>, DecryptError> = keys
                .map(|(at, line)| {
                    Identity::parse(line).ok_or_else(|| DecryptError::Unusable {
                        why: format!("line {} of {} is no identity of the kind X25519", at + 1, path.display()),
                        hint: "write one `AGE-SECRET-KEY-1...` a line, as `age-keygen` does".to_owned(),
                    })
                })
                .collect();
            keys
        };
        Self(setting.map(read))
    }

    /// Tells one state of the keys from another; holds nothing of them.
    #[must_use]
    pub fn stamp(&self) -> String {
        match &self.0 {
            None => String::new(),
            Some(Ok(identities)) => identities.iter().map(|identity| identity.recipient() + " ").collect(),
            Some(Err(error)) => error.to_string(),
        }
    }

    fn get(&self) -> Result<&[Identity], DecryptError> {
        match &self.0 {
            None => Err(DecryptError::NoIdentity),
            Some(Ok(identities)) => Ok(identities),
            Some(Err(error)) => Err(error.clone()),
        }
    }
}

/// What to do about an encrypted file where there is no key that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyless {
    /// It is an error: the file is to be applied.
    Refuse,
    /// It is a warning, and what can be seen without the key is checked.
    Outline,
}

/// A file of a source, parsed.
#[derive(Clone, Default)]
pub struct ParsedFile {
    /// Its objects and what is wrong.
    pub objects: FileObjects,
    /// Its text when it was encrypted and is open now.
    pub opened: Option<Vec<u8>>,
    /// Its lines as they are on the disk fit the places in the findings.
    pub lines_fit: bool,
    /// There may be objects in it that nobody here can see.
    pub hides: bool,
}

impl std::fmt::Debug for ParsedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.objects.name)
    }
}

/// Parses a file, and opens it first when it is encrypted.
#[must_use]
pub fn parse(name: &str, bytes: &[u8], keys: &Keys, keyless: Keyless) -> ParsedFile {
    let sops = Sops::read(name, bytes);
    let is_age = age::is_age(bytes);
    if sops.is_none() && !is_age {
        let objects = parse_file(name, bytes, &ParseOptions::default());
        return ParsedFile { objects, lines_fit: true, ..ParsedFile::default() };
    }
    let opened = match &sops {
        Some(sops) => keys.get().and_then(|identities| sops.open(identities)),
        None => keys.get().and_then(|identities| whole(bytes, identities)),
    };
    match opened {
        Ok(text) => {
            let mut objects = parse_file(name, &text, &ParseOptions { secret: true, ..ParseOptions::default() });
            let found = shown_all_the_same(name, &objects, sops.as_ref());
            objects.diagnostics.extend(found);
            ParsedFile { objects, opened: Some(text), lines_fit: sops.is_some(), hides: false }
        }
        Err(error) => locked(name, bytes, sops.as_ref(), &error, keyless),
    }
}

fn whole(bytes: &[u8], identities: &[Identity]) -> Result<Vec<u8>, DecryptError> {
    age::open(bytes, identities).map_err(|error| match error {
        AgeError::NotForUs => DecryptError::NotForUs {
            recipients: Vec::new(),
            ours: identities.iter().map(Identity::recipient).collect(),
        },
        AgeError::Damaged(what) => DecryptError::Damaged(what),
    })
}

/// Objects of an open file that are no Secret: their values are not kept secret from here on.
fn shown_all_the_same(name: &str, file: &FileObjects, sops: Option<&Sops<'_>>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (index, object) in file.objects.iter().enumerate() {
        let next = file.objects.get(index + 1).map_or(u32::MAX, |next| next.span.line);
        let encrypted = sops.is_none_or(|sops| sops.has_values_between(object.span.line, next));
        if encrypted && !matches!(object.value, ObjectValue::Secret(_)) {
            let message = format!("{} was encrypted, but only Secrets stay secret here", object.id);
            let hint = "move the encrypted values into a Secret: those of other objects are shown by `plan` and `diff`";
            found.push(Diagnostic::warning(codes::ENCRYPTED, name, None, message).hint(hint));
        }
    }
    found
}

/// A file that stays closed: what was applied of it before stays.
fn locked(name: &str, bytes: &[u8], sops: Option<&Sops<'_>>, error: &DecryptError, keyless: Keyless) -> ParsedFile {
    let lenient =
        keyless == Keyless::Outline && matches!(error, DecryptError::NoIdentity | DecryptError::Unusable { .. });
    let visible = sops.filter(|sops| !sops.hides_objects());
    // Without a key there still is a form to be checked.
    let outline = match sops {
        Some(sops) => sops.outline().map(|text| if visible.is_some() { text } else { String::new() }),
        None => age::check(bytes).map(|()| String::new()).map_err(|error| match error {
            AgeError::Damaged(what) => DecryptError::Damaged(what),
            AgeError::NotForUs => DecryptError::NoIdentity,
        }),
    };
    match (lenient, outline) {
        (true, Ok(outline)) => {
            let mut objects =
                parse_file(name, outline.as_bytes(), &ParseOptions { secret: true, ..ParseOptions::default() });
            objects.not_a_manifest = false;
            let what = if visible.is_some() { "its encrypted values were" } else { "what is in it was" };
            let message = format!("the file is encrypted, and {error}: {what} not checked");
            let hint = "with a key: `--set age_identity=/path/of/the/key`";
            objects.diagnostics.insert(0, Diagnostic::warning(codes::ENCRYPTED, name, None, message).hint(hint));
            ParsedFile { objects, lines_fit: visible.is_some(), hides: visible.is_none(), opened: None }
        }
        (_, outline) => {
            let error = match (&outline, error) {
                // A damaged file is one whoever has the key.
                (Err(worse), DecryptError::NoIdentity) => worse,
                _ => error,
            };
            let found =
                Diagnostic::error(codes::ENCRYPTED, name, None, format!("cannot decrypt the manifest: {error}"));
            let seen = outline.as_ref().ok();
            let seen = seen.map(|text| parse_file(name, text.as_bytes(), &ParseOptions::default()));
            let broken = seen.into_iter().flat_map(|file| {
                file.objects.into_iter().map(|object| object.id).chain(file.broken).collect::<Vec<_>>()
            });
            let objects = FileObjects {
                name: name.to_owned(),
                broken: broken.collect(),
                unnamed_broken: true,
                diagnostics: vec![found.hint(error.hint())],
                ..FileObjects::default()
            };
            ParsedFile { objects, ..ParsedFile::default() }
        }
    }
}

#[cfg(test)]
mod tests;
