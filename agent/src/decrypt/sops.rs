//! Files of SOPS: YAML or JSON in which each value is encrypted by itself and a code stands over all of them.
//!
//! Values are replaced where they are written and the `sops` block is emptied, so that lines stay where they are. The
//! form is that of SOPS 3 (aes/cipher.go, sops.go): `ENC[AES256_GCM,data:..,iv:..,tag:..,type:..]`, with the keys on
//! the way to the value, each followed by `:`, as additional data. The code is SHA-512 over all values in order. What
//! counts as encrypted is what is written so: the code covers the other values too.

use aes_gcm::aead::consts::U32;
use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::aes::Aes256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use spec::load::{Document, Limits, load};
use spec::node::{Node, Span, Value};

use super::DecryptError;
use super::age::{self, AgeError, Identity};

const MARK: &str = "ENC[AES256_GCM,";

/// What the code begins with when it is over encrypted values only (`mac_only_encrypted`): SHA-256 of `sops`.
const ONLY_ENCRYPTED: [u8; 32] = [
    0x8a, 0x3f, 0xd2, 0xad, 0x54, 0xce, 0x66, 0x52, 0x7b, 0x10, 0x34, 0xf3, 0xd1, 0x47, 0xbe, 0x0b, 0x0b, 0x97, 0x5b,
    0x3b, 0xf4, 0x4f, 0x72, 0xc6, 0xfd, 0xad, 0xec, 0x81, 0x76, 0xf2, 0x7d, 0x69,
];

/// A file of SOPS, read.
pub(super) struct Sops<'t> {
    text: &'t str,
    documents: Vec<Document>,
}

/// An encrypted value in its parts.
struct Sealed {
    data: Vec<u8>,
    iv: Vec<u8>,
    tag: Vec<u8>,
    kind: String,
}

impl Sealed {
    fn parse(text: &str) -> Option<Self> {
        let inner = text.strip_prefix(MARK)?.strip_suffix(']')?;
        let mut parts = inner.split(',');
        let mut part = |name: &str| parts.next()?.strip_prefix(name);
        let mut bytes = |name: &str| STANDARD.decode(part(name)?).ok();
        let (data, iv, tag) = (bytes("data:")?, bytes("iv:")?, bytes("tag:")?);
        let kind = part("type:")?.to_owned();
        parts.next().is_none().then_some(Self { data, iv, tag, kind })
    }

    fn open(&self, key: &[u8], context: &str) -> Option<Vec<u8>> {
        let mut joined = self.data.clone();
        joined.extend_from_slice(&self.tag);
        let payload = Payload { msg: &joined, aad: context.as_bytes() };
        // SOPS writes nonces of 32 bytes; very old versions wrote 12.
        if let Ok(nonce) = <[u8; 32]>::try_from(self.iv.as_slice()) {
            aes_gcm::AesGcm::<Aes256, U32>::new_from_slice(key).ok()?.decrypt(&nonce.into(), payload).ok()
        } else {
            let nonce = <[u8; 12]>::try_from(self.iv.as_slice()).ok()?;
            aes_gcm::Aes256Gcm::new_from_slice(key).ok()?.decrypt(&nonce.into(), payload).ok()
        }
    }
}

impl<'t> Sops<'t> {
    /// Reads a file; `None` when it is none of SOPS.
    pub(super) fn read(name: &str, bytes: &'t [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        if !text.contains(MARK) {
            return None;
        }
        let documents = load(name, bytes, &Limits::default()).documents;
        documents.iter().any(|document| has_sealed(&document.node)).then_some(Self { text, documents })
    }

    /// What the file says about its own encryption.
    fn metadata(&self) -> Result<&Node, DecryptError> {
        self.documents.iter().find_map(|document| document.node.get("sops")).ok_or(DecryptError::NoMetadata)
    }

    /// The file with values in the place of encrypted ones.
    pub(super) fn open(&self, identities: &[Identity]) -> Result<Vec<u8>, DecryptError> {
        let metadata = self.metadata()?;
        let key = data_key(metadata, identities)?;
        let only_encrypted =
            matches!(metadata.get("mac_only_encrypted").map(|node| &node.value), Some(Value::Bool(true)));
        let mut walk = Walk {
            text: self.text,
            open: Some(&key),
            hash: ring::digest::Context::new(&ring::digest::SHA512),
            only_encrypted,
            is_secret: false,
            found: Vec::new(),
        };
        if only_encrypted {
            walk.hash.update(&ONLY_ENCRYPTED);
        }
        for document in &self.documents {
            walk.document(&document.node)?;
        }
        let sum: String = walk.hash.finish().as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        let text = |key: &str| metadata.get(key).and_then(Node::as_str).unwrap_or_default();
        let mac = Sealed::parse(text("mac")).and_then(|mac| mac.open(&key, text("lastmodified")));
        if mac.as_deref() != Some(sum.as_bytes()) {
            return Err(DecryptError::Mac);
        }
        Ok(self.with(walk.found).into_bytes())
    }

    /// The file with something harmless of the same type in the place of encrypted values, to check the rest of it.
    pub(super) fn outline(&self) -> Result<String, DecryptError> {
        age_entries(self.metadata()?)?;
        let mut walk = Walk {
            text: self.text,
            open: None,
            hash: ring::digest::Context::new(&ring::digest::SHA512),
            only_encrypted: false,
            is_secret: false,
            found: Vec::new(),
        };
        for document in &self.documents {
            walk.document(&document.node)?;
        }
        Ok(self.with(walk.found))
    }

    /// Whether a value between these lines is encrypted.
    pub(super) fn has_values_between(&self, first: u32, end: u32) -> bool {
        fn within(node: &Node, lines: &std::ops::Range<u32>) -> bool {
            match &node.value {
                Value::String(text, _) => text.starts_with(MARK) && lines.contains(&node.span.line),
                Value::Seq(items) => items.iter().any(|item| within(item, lines)),
                Value::Map(map) => map.iter().any(|(key, entry)| key != "sops" && within(&entry.node, lines)),
                Value::Null | Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) => false,
            }
        }
        self.documents.iter().any(|document| within(&document.node, &(first..end)))
    }

    /// Whether even what kind of object it is cannot be seen.
    pub(super) fn hides_objects(&self) -> bool {
        let sealed = |node: Option<&Node>| node.and_then(Node::as_str).is_some_and(|text| text.starts_with(MARK));
        self.documents.iter().map(|document| &document.node).any(|root| {
            let name = root.get("metadata").and_then(|metadata| metadata.get("name"));
            sealed(root.get("kind")) || sealed(root.get("apiVersion")) || sealed(name)
        })
    }

    /// The text with these places replaced and without what SOPS says about itself.
    fn with(&self, mut places: Vec<(usize, usize, String)>) -> String {
        for document in &self.documents {
            let entry = document.node.as_map().and_then(|map| map.get("sops"));
            places.extend(entry.map(|entry| block(self.text, entry.key_span, entry.node.span)));
        }
        places.sort();
        places.dedup();
        let (mut out, mut at) = (String::with_capacity(self.text.len()), 0);
        for (start, end, with) in places {
            out.push_str(self.text.get(at..start).unwrap_or_default());
            out.push_str(&with);
            at = at.max(end);
        }
        out.push_str(self.text.get(at..).unwrap_or_default());
        out
    }
}

/// Where the `sops` block is and what stands there instead: as many lines with nothing in them.
fn block(text: &str, key: Span, value: Span) -> (usize, usize, String) {
    let line = text.get(..key.start).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
    let own_line = text.get(line..key.start).is_some_and(|before| before.is_empty() || before == "\u{feff}");
    let (mut start, mut end) = (key.start, value.end);
    if own_line {
        // In block style it goes to the next line that begins at the margin.
        let mut at = text.get(key.start..).and_then(|rest| rest.find('\n')).map_or(text.len(), |nl| key.start + nl + 1);
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let length = rest.find('\n').map_or(rest.len(), |newline| newline + 1);
            if !rest.starts_with([' ', '\t', '\n', '\r']) {
                break;
            }
            at += length;
        }
        end = at;
    } else {
        // In flow style, JSON among it, a comma goes with it.
        let before = text.get(..start).unwrap_or_default().trim_end_matches(['"', '\'']).trim_end();
        let after = text.get(end..).unwrap_or_default().trim_start();
        if before.ends_with(',') {
            start = before.len() - 1;
        } else {
            start = before.len();
            if after.starts_with(',') {
                end = text.len() - after.len() + 1;
            }
        }
    }
    let lines = text.get(start..end).unwrap_or_default().matches('\n').count();
    (start, end, "\n".repeat(lines))
}

fn has_sealed(node: &Node) -> bool {
    match &node.value {
        Value::String(text, _) => text.starts_with(MARK),
        Value::Seq(items) => items.iter().any(has_sealed),
        Value::Map(map) => map.values().any(|entry| has_sealed(&entry.node)),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) => false,
    }
}

/// The recipients of age and what is written for each.
fn age_entries<'n>(metadata: &'n Node) -> Result<Vec<(&'n str, &'n str)>, DecryptError> {
    if metadata.get("key_groups").and_then(Node::as_seq).is_some_and(|groups| !groups.is_empty()) {
        return Err(DecryptError::KeyGroups);
    }
    let entries = metadata.get("age").and_then(Node::as_seq).unwrap_or_default();
    if entries.is_empty() {
        let with = |key: &&&str| metadata.get(key).and_then(Node::as_seq).is_some_and(|keys| !keys.is_empty());
        let others = ["pgp", "kms", "gcp_kms", "azure_kv", "hc_vault"];
        let others: Vec<&str> = others.iter().filter(with).copied().collect();
        return Err(DecryptError::NoAge(others.join(", ")));
    }
    let entry = |node: &'n Node| Some((node.get("recipient")?.as_str()?, node.get("enc")?.as_str()?));
    let entries: Option<Vec<_>> = entries.iter().map(entry).collect();
    entries.ok_or(DecryptError::Damaged("an entry under `sops.age` lacks `recipient` or `enc`"))
}

fn data_key(metadata: &Node, identities: &[Identity]) -> Result<Vec<u8>, DecryptError> {
    let entries = age_entries(metadata)?;
    for (_, sealed) in &entries {
        match age::open(sealed.as_bytes(), identities) {
            Ok(key) if key.len() == 32 => return Ok(key),
            Ok(_) => return Err(DecryptError::Damaged("the key in it has another length than 32 bytes")),
            Err(AgeError::NotForUs) => {}
            Err(AgeError::Damaged(what)) => return Err(DecryptError::Damaged(what)),
        }
    }
    Err(DecryptError::NotForUs {
        recipients: entries.iter().map(|(recipient, _)| (*recipient).to_owned()).collect(),
        ours: identities.iter().map(Identity::recipient).collect(),
    })
}

/// One way through all values.
struct Walk<'t> {
    text: &'t str,
    /// The data key; without it values are not opened.
    open: Option<&'t [u8]>,
    hash: ring::digest::Context,
    only_encrypted: bool,
    /// This document is a Secret.
    is_secret: bool,
    /// From, to, and what stands there instead.
    found: Vec<(usize, usize, String)>,
}

impl Walk<'_> {
    fn document(&mut self, root: &Node) -> Result<(), DecryptError> {
        let mut path = Vec::new();
        self.is_secret = root.get("kind").and_then(Node::as_str) == Some("Secret");
        for (key, entry) in root.as_map().into_iter().flatten().filter(|(key, _)| *key != "sops") {
            path.push(key.clone());
            self.value(&entry.node, &mut path)?;
            path.pop();
        }
        Ok(())
    }

    fn value(&mut self, node: &Node, path: &mut Vec<String>) -> Result<(), DecryptError> {
        match &node.value {
            Value::Map(map) => {
                for (key, entry) in map {
                    path.push(key.clone());
                    self.value(&entry.node, path)?;
                    path.pop();
                }
            }
            // The place in a list is no part of the path.
            Value::Seq(items) => items.iter().try_for_each(|item| self.value(item, path))?,
            Value::String(text, _) if text.starts_with(MARK) => self.sealed(node, text, path)?,
            Value::String(text, _) => self.plain(text, path)?,
            Value::Bool(true) => self.plain("True", path)?,
            Value::Bool(false) => self.plain("False", path)?,
            Value::Int(number) => self.plain(&number.to_string(), path)?,
            Value::UInt(number) => self.plain(&number.to_string(), path)?,
            Value::Float(number) => self.plain(&number.to_string(), path)?,
            Value::Null => {}
        }
        Ok(())
    }

    fn plain(&mut self, text: &str, path: &[String]) -> Result<(), DecryptError> {
        if !self.only_encrypted {
            self.hash.update(text.as_bytes());
            return Ok(());
        }
        // Nothing vouches for it: who has no key could have put it there. SOPS leaves keys with this ending open itself.
        let of_secret = self.is_secret && matches!(path.first().map(String::as_str), Some("data" | "stringData"));
        if of_secret && !text.is_empty() && !path.iter().any(|key| key.ends_with("_unencrypted")) {
            return Err(DecryptError::Open(path.join(".")));
        }
        Ok(())
    }

    fn sealed(&mut self, node: &Node, text: &str, path: &[String]) -> Result<(), DecryptError> {
        let failed = || DecryptError::Value(path.join("."));
        let sealed = Sealed::parse(text).ok_or_else(failed)?;
        // A value that came through an alias is written elsewhere.
        let (start, end) = (node.span.start, node.span.end);
        let written = self.text.get(start..end).ok_or_else(failed)?;
        if written.trim_matches(['"', '\'']) != text {
            return Err(failed());
        }
        let with = match self.open {
            None => match sealed.kind.as_str() {
                "int" | "float" => "0".to_owned(),
                "bool" => "false".to_owned(),
                _ => "\"\"".to_owned(),
            },
            Some(key) => {
                let opened = sealed.open(key, &format!("{}:", path.join(":"))).ok_or_else(failed)?;
                self.hash.update(&opened);
                let opened = String::from_utf8(opened).map_err(|_| failed())?;
                match sealed.kind.as_str() {
                    "int" | "float" if opened.parse::<f64>().is_ok() => opened,
                    "bool" => opened.to_ascii_lowercase(),
                    // JSON's strings are strings of YAML as well.
                    "str" | "bytes" => serde_json::to_string(&opened).map_err(|_| failed())?,
                    _ => return Err(failed()),
                }
            }
        };
        self.found.push((start, end, with));
        Ok(())
    }
}
