//! Bech32 (BIP 173) without its limit on length: how age writes keys.

const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

fn checksum(values: impl IntoIterator<Item = u8>) -> u32 {
    const STEPS: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.into_iter().fold(1, |sum, value| {
        let top = sum >> 25;
        let shifted = ((sum & 0x01ff_ffff) << 5) ^ u32::from(value);
        STEPS.iter().enumerate().filter(|(bit, _)| (top >> bit) & 1 == 1).fold(shifted, |sum, (_, step)| sum ^ step)
    })
}

fn expanded(prefix: &str) -> impl Iterator<Item = u8> {
    let (high, low) = (prefix.bytes().map(|byte| byte >> 5), prefix.bytes().map(|byte| byte & 31));
    high.chain(std::iter::once(0)).chain(low)
}

/// The same bits in groups of another size; `None` when bits are left over that are not zero.
fn regroup(values: impl IntoIterator<Item = u8>, from: u32, to: u32, pad: bool) -> Option<Vec<u8>> {
    let (mut held, mut bits, mut out) = (0_u32, 0, Vec::new());
    for value in values {
        held = ((held << from) | u32::from(value)) & 0x0fff;
        bits += from;
        while bits >= to {
            bits -= to;
            out.push(u8::try_from((held >> bits) & ((1 << to) - 1)).ok()?);
        }
    }
    let rest = (held << (to - bits)) & ((1 << to) - 1);
    if pad && bits > 0 {
        out.push(u8::try_from(rest).ok()?);
    } else if !pad && (bits >= from || rest != 0) {
        return None;
    }
    Some(out)
}

/// The bytes behind a prefix; `None` when anything about the text is wrong.
pub(super) fn decode(prefix: &str, text: &str) -> Option<Vec<u8>> {
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) && text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let text = text.to_ascii_lowercase();
    let values: Vec<u8> = text
        .strip_prefix(prefix)?
        .strip_prefix('1')?
        .bytes()
        .map(|byte| ALPHABET.iter().position(|other| *other == byte).and_then(|at| u8::try_from(at).ok()))
        .collect::<Option<_>>()?;
    if checksum(expanded(prefix).chain(values.iter().copied())) != 1 {
        return None;
    }
    let data = values.get(..values.len().checked_sub(6)?)?;
    regroup(data.iter().copied(), 5, 8, false)
}

/// Bytes as text behind a prefix.
pub(super) fn encode(prefix: &str, bytes: &[u8]) -> String {
    let values = regroup(bytes.iter().copied(), 8, 5, true).unwrap_or_default();
    let sum = checksum(expanded(prefix).chain(values.iter().copied()).chain([0; 6])) ^ 1;
    let check = (0..6).rev().map(|at| u8::try_from((sum >> (5 * at)) & 31).unwrap_or(0));
    let letters = values.iter().copied().chain(check);
    let letters = letters.filter_map(|value| ALPHABET.get(usize::from(value)).map(|byte| char::from(*byte)));
    format!("{prefix}1{}", letters.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn text_and_bytes_become_each_other() {
        for length in [0, 1, 5, 20, 32, 33] {
            let bytes: Vec<u8> = (0..length).map(|at| at * 7 + 3).collect();
            let text = encode("age", &bytes);
            assert_eq!(decode("age", &text).as_deref(), Some(&bytes[..]), "{text}");
            assert_eq!(decode("age", &text.to_uppercase()).as_deref(), Some(&bytes[..]));
            assert_eq!(decode("aga", &text), None);
            // A letter that is wrong is always noticed.
            for at in 4..text.len() {
                let mut other = text.clone().into_bytes();
                other[at] = if other[at] == b'q' { b'p' } else { b'q' };
                assert_eq!(decode("age", std::str::from_utf8(&other).expect("ASCII")), None, "{text} at {at}");
            }
        }
        // An example of BIP 173.
        let example = "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw";
        assert_eq!(decode("abcdef", example).map(|bytes| encode("abcdef", &bytes)).as_deref(), Some(example));
        assert_eq!(decode("age", "age1Qq"), None);
    }
}
