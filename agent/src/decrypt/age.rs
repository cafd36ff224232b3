//! The file format of age (age-encryption.org/v1), for reading, with keys of the kind X25519.
//!
//! Every file is checked as a whole: the header by its code, the content piece by piece, and that nothing is missing at
//! the end. Passphrases, SSH keys and plugins are for people, not for hosts, and are not read.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::{hkdf, hmac};

use super::bech32;

const VERSION: &[u8] = b"age-encryption.org/v1\n";
const ARMOR_BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const ARMOR_END: &str = "-----END AGE ENCRYPTED FILE-----";
/// Bytes of content in each piece, and of its code behind it.
const PIECE: usize = 64 * 1024;
const TAG: usize = 16;

/// A key that opens files.
pub(super) struct Identity {
    secret: [u8; 32],
    public: [u8; 32],
}

impl Identity {
    /// From `AGE-SECRET-KEY-1...`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let secret: [u8; 32] = bech32::decode("age-secret-key-", text)?.try_into().ok()?;
        let public = x25519_dalek::x25519(secret, x25519_dalek::X25519_BASEPOINT_BYTES);
        Some(Self { secret, public })
    }

    /// What files are encrypted to: `age1...`.
    pub(super) fn recipient(&self) -> String {
        bech32::encode("age", &self.public)
    }

    /// The key of a file from what was written for this identity.
    fn unwrap(&self, share: &[u8; 32], body: &[u8]) -> Option<Vec<u8>> {
        let shared = x25519_dalek::x25519(self.secret, *share);
        if shared == [0; 32] {
            return None;
        }
        let key = derived(&shared, &[share.as_slice(), &self.public].concat(), b"age-encryption.org/v1/X25519");
        open_piece(&key, [0; 12], body)
    }
}

/// Why a file cannot be opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AgeError {
    /// None of the identities fits.
    NotForUs,
    /// It is not what age wrote.
    Damaged(&'static str),
}

/// Whether this is a file of age, in either form.
pub(super) fn is_age(bytes: &[u8]) -> bool {
    bytes.starts_with(VERSION) || bytes.trim_ascii_start().starts_with(ARMOR_BEGIN.as_bytes())
}

/// Opens a file with the first identity that fits.
pub(super) fn open(bytes: &[u8], identities: &[Identity]) -> Result<Vec<u8>, AgeError> {
    let bare;
    let bytes = if bytes.starts_with(VERSION) {
        bytes
    } else {
        bare = unarmored(bytes)?;
        &bare
    };
    let header = Header::parse(bytes)?;
    let file_key = header.stanzas.iter().find_map(|(share, body)| {
        identities.iter().find_map(|identity| identity.unwrap(share, body)).filter(|key| key.len() == 16)
    });
    let file_key = file_key.ok_or(AgeError::NotForUs)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &derived(&file_key, b"", b"header"));
    hmac::verify(&key, header.covered, &header.mac).map_err(|_| AgeError::Damaged("its header was changed"))?;
    content(&file_key, header.rest)
}

/// Whether the file looks whole as far as that can be told without a key.
pub(super) fn check(bytes: &[u8]) -> Result<(), AgeError> {
    match open(bytes, &[]) {
        Ok(_) | Err(AgeError::NotForUs) => Ok(()),
        Err(error) => Err(error),
    }
}

fn unarmored(bytes: &[u8]) -> Result<Vec<u8>, AgeError> {
    let damaged = || AgeError::Damaged("its armor is not whole");
    let text = std::str::from_utf8(bytes).map_err(|_| damaged())?.trim();
    let body = text.strip_prefix(ARMOR_BEGIN).and_then(|text| text.strip_suffix(ARMOR_END)).ok_or_else(damaged)?;
    let body: String = body.lines().map(str::trim).collect();
    STANDARD.decode(body).map_err(|_| damaged())
}

struct Header<'a> {
    /// Share and wrapped key of each entry of the kind X25519.
    stanzas: Vec<([u8; 32], Vec<u8>)>,
    /// What the code is over.
    covered: &'a [u8],
    mac: Vec<u8>,
    rest: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, AgeError> {
        let damaged = || AgeError::Damaged("its header is not whole");
        let mut at = VERSION.len();
        let line = |at: &mut usize| -> Result<&'a str, AgeError> {
            let rest = bytes.get(*at..).ok_or_else(damaged)?;
            let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
            *at += end + 1;
            std::str::from_utf8(rest.get(..end).unwrap_or_default()).map_err(|_| damaged())
        };
        if !bytes.starts_with(VERSION) {
            return Err(AgeError::Damaged("it is of another version than age-encryption.org/v1"));
        }
        let mut stanzas = Vec::new();
        loop {
            let begin = at;
            let head = line(&mut at)?;
            if let Some(mac) = head.strip_prefix("--- ") {
                let mac = STANDARD_NO_PAD.decode(mac).map_err(|_| damaged())?;
                let (covered, rest) = (bytes.get(..begin + 3), bytes.get(at..));
                let (covered, rest) = (covered.ok_or_else(damaged)?, rest.ok_or_else(damaged)?);
                return Ok(Self { stanzas, covered, mac, rest });
            }
            let words = head.strip_prefix("-> ").ok_or_else(damaged)?;
            let mut body = String::new();
            loop {
                let part = line(&mut at)?;
                body.push_str(part);
                // Lines have 64 characters; a shorter one, which may be empty, is the last.
                if part.len() < 64 {
                    break;
                }
            }
            if let Some(share) = words.strip_prefix("X25519 ") {
                let share = STANDARD_NO_PAD.decode(share).map_err(|_| damaged())?;
                let share = share.try_into().map_err(|_| damaged())?;
                stanzas.push((share, STANDARD_NO_PAD.decode(body).map_err(|_| damaged())?));
            }
        }
    }
}

/// 32 bytes by HKDF-SHA-256.
fn derived(key: &[u8], salt: &[u8], info: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key);
    let filled = extracted.expand(&[info], hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut out));
    filled.expect("32 bytes are one block of SHA-256");
    out
}

fn open_piece(key: &[u8; 32], nonce: [u8; 12], bytes: &[u8]) -> Option<Vec<u8>> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?);
    let mut buffer = bytes.to_vec();
    let length = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut buffer).ok()?.len();
    buffer.truncate(length);
    Some(buffer)
}

/// The content: pieces that are numbered, the last one marked.
fn content(file_key: &[u8], bytes: &[u8]) -> Result<Vec<u8>, AgeError> {
    let damaged = || AgeError::Damaged("its content was changed or cut off");
    let (nonce, bytes) = bytes.split_at_checked(16).ok_or_else(damaged)?;
    let key = derived(file_key, nonce, b"payload");
    let mut out = Vec::with_capacity(bytes.len());
    let mut pieces = bytes.chunks(PIECE + TAG).enumerate().peekable();
    if pieces.peek().is_none() {
        return Err(damaged());
    }
    while let Some((number, piece)) = pieces.next() {
        let mut nonce = [0; 12];
        if let Some(counter) = nonce.get_mut(3..11) {
            counter.copy_from_slice(&(number as u64).to_be_bytes());
        }
        if let Some(last) = nonce.last_mut() {
            *last = u8::from(pieces.peek().is_none());
        }
        let opened = open_piece(&key, nonce, piece).ok_or_else(damaged)?;
        // Only a file without content has an empty piece.
        if opened.is_empty() && number > 0 {
            return Err(damaged());
        }
        out.extend_from_slice(&opened);
    }
    Ok(out)
}
