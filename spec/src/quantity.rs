//! Kubernetes quantities: `500m`, `1.5`, `128Mi`, `1e3` (apimachinery, `resource.Quantity`).

/// A quantity in thousandths, rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    milli: i128,
}

impl Quantity {
    /// Reads a quantity; `None` when it is malformed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        // Beyond this no unit of a quantity makes sense on a host, and the arithmetic below cannot overflow.
        if whole.trim_start_matches('0').len() > 19 || fraction.len() > 18 {
            return Self::huge(whole, negative);
        }
        let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
        let fraction_digits = i32::try_from(fraction.len()).ok()?;
        let (binary, exponent) = scale(suffix)?;
        // value = digits * 2^binary * 10^(exponent - fraction), in thousandths.
        let power = exponent + 3 - fraction_digits;
        let base = digits.checked_shl(binary).filter(|shifted| shifted >> binary == digits)?;
        let milli = if power >= 0 {
            10i128.checked_pow(power.unsigned_abs()).and_then(|p| base.checked_mul(p)).unwrap_or(i128::MAX)
        } else {
            match 10i128.checked_pow(power.unsigned_abs()) {
                Some(divisor) => base.div_euclid(divisor) + i128::from(base.rem_euclid(divisor) != 0),
                None => i128::from(base != 0),
            }
        };
        Some(Self { milli: if negative { -milli } else { milli } })
    }

    fn huge(whole: &str, negative: bool) -> Option<Self> {
        let milli = if whole.trim_start_matches('0').len() > 19 { i128::MAX } else { return None };
        Some(Self { milli: if negative { -milli } else { milli } })
    }

    /// Thousandths, as for CPU; `None` when negative or beyond 64 bits.
    #[must_use]
    pub fn milli(self) -> Option<u64> {
        u64::try_from(self.milli).ok()
    }

    /// Whole units rounded up, as for bytes; `None` when negative. Capped at the largest signed 64-bit number, as
    /// Kubernetes does.
    #[must_use]
    pub fn units(self) -> Option<u64> {
        let units = self.milli / 1000 + i128::from(self.milli % 1000 > 0);
        (self.milli >= 0).then(|| u64::try_from(units).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs()))
    }

    /// Whether it is below zero.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.milli < 0
    }

    /// Whether it is zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.milli == 0
    }

    /// Whether it has no fraction.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.milli % 1000 == 0
    }
}

/// The power of two and the power of ten of a suffix.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            (0, exponent.strip_prefix('+').unwrap_or(exponent).parse::<i32>().ok()?.clamp(-60, 60))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, milli) in [
            ("1", 1000),
            ("0", 0),
            ("500m", 500),
            ("0.5", 500),
            (".5", 500),
            ("1.", 1000),
            ("+2", 2000),
            ("1k", 1_000_000),
            ("1Ki", 1_024_000),
            ("1.5Ki", 1_536_000),
            ("128Mi", 134_217_728_000),
            ("1e3", 1_000_000),
            ("1E3", 1_000_000),
            ("1E", 1_000_000_000_000_000_000_000),
            ("1e-3", 1),
            ("1n", 1),
            ("1u", 1),
            ("-1", -1000),
            ("100000000000000000000000", i128::MAX),
        ] {
            assert_eq!(Quantity::parse(text).map(|q| q.milli), Some(milli), "{text}");
        }
        for text in
            ["", "m", "1K", "1 Mi", "1MiB", "Mi", "1.2.3", "1mm", "0x1", "1e", "1e+", "--1", ".", "1MB", "1gi", "ten"]
        {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
        assert_eq!(Quantity::parse("100m").and_then(Quantity::units), Some(1));
        assert_eq!(Quantity::parse("-1").and_then(Quantity::units), None);
    }
}
