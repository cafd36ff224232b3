//! Values with units: bytes (`1gb`, `512m`), durations (`1m30s`), booleans, file modes.

use crate::time::Millis;

/// Bytes as docker/go-units reads them: a number, then `b`, `k`, `m`, `g`, `t` or `p`, each with `b` or `ib` after it,
/// in either case. All are powers of 1024.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok().filter(|_| number.contains(|c: char| c.is_ascii_digit()))?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    let value = number * f64::from(1_u32 << (shift % 30)) * f64::from(1_u32 << (shift - shift % 30).min(30));
    // The product is exact for whole numbers up to 2^53, which is 8 PiB.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to lie in range before")]
    (value.is_finite() && (0.0..9e18).contains(&value)).then_some(value as u64)
}

/// A duration as Go reads it: numbers with units (`h`, `m`, `s`, `ms`, `us`, `ns`, also `w` and `d` for Compose),
/// one after the other. A number alone is not a duration, but `0` is.
pub(super) fn duration(text: &str) -> Option<Millis> {
    if text == "0" {
        return Some(Millis(0));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0.0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        if !number.contains(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let number: f64 = number.parse().ok()?;
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        nanos += number
            * match unit {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                "d" => 86_400e9,
                "w" => 604_800e9,
                _ => return None,
            };
        rest = next;
    }
    let millis = (nanos / 1e6).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to lie in range before")]
    (millis.is_finite() && millis < 9.2e12).then_some(Millis(millis as u64))
}

/// A boolean as Compose casts it from a string (compose-go, `toBoolean`): `1` and `t` are none.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "y" | "yes" | "on" => Some(true),
        "false" | "n" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A file mode in octal digits, such as `0440`.
pub(super) fn mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777)
}

/// Cores as thousandths: `0.5` is 500.
pub(super) fn cpus(text: &str) -> Option<u64> {
    let value: f64 = text.trim().parse().ok()?;
    let milli = (value * 1000.0).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to lie in range before")]
    (milli.is_finite() && (0.0..1e9).contains(&milli)).then_some(milli as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        #[rustfmt::skip]
        let good = [
            ("0", 0), ("1", 1), ("1b", 1), ("1k", 1 << 10), ("1kb", 1 << 10), ("1KiB", 1 << 10), ("512m", 512 << 20),
            ("1G", 1 << 30), ("1gb", 1 << 30), ("1.5GiB", 3 << 29), ("2T", 2 << 40), ("1p", 1 << 50), ("1 g", 1 << 30), ("0.5m", 1 << 19), (".5m", 1 << 19),
        ];
        for (text, expected) in good {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in ["", "m", "-1", "1x", "1mm", "1.2.3", ".g", "1e9", "inf", "1  g", "99999999999p", "Mi", "1Mi"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn durations() {
        #[rustfmt::skip]
        let good = [
            ("0", 0), ("10s", 10_000), ("1m30s", 90_000), ("1.5s", 1500), ("500ms", 500), ("1h", 3_600_000),
            ("1us", 1), ("1d", 86_400_000), ("1w", 604_800_000), ("2h45m", 9_900_000), ("+1s", 1000), ("0s", 0),
        ];
        for (text, expected) in good {
            assert_eq!(duration(text), Some(Millis(expected)), "{text}");
        }
        for text in ["", "10", "s", "1x", "-1s", "1s ", "1 s", ".s", "1.2.3s", "ten", "99999999999999w"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn other_units() {
        assert_eq!(mode("0440"), Some(0o440));
        assert_eq!(mode("0o17"), Some(0o17));
        assert_eq!(mode("888"), None);
        assert_eq!(cpus("0.5"), Some(500));
        assert_eq!(cpus("-1"), None);
        assert_eq!(cpus("nan"), None);
        assert_eq!(
            (boolean("Yes"), boolean("off"), boolean("maybe"), boolean("1")),
            (Some(true), Some(false), None, None)
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[0-9.a-zµ +-]{0,20}") {
            let _ = (bytes(&text), duration(&text), mode(&text), cpus(&text));
        }
    }
}
