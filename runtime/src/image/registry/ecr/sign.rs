//! Signatures of AWS requests, version 4. Pure.
//!
//! Source: IAM user guide, "Create a signed AWS API request". Only what ECR needs: no query, paths without escapes.

use std::time::SystemTime;

use ring::hmac;
use spec::digest::Digest;

/// What is signed.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// Lower-case names, sorted, with trimmed values.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

/// What a signature is good for.
pub(super) struct Scope<'a> {
    /// As [`amz_date`] gives it.
    pub(super) date: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

impl Request<'_> {
    /// The `Authorization` header.
    pub(super) fn authorization(&self, key_id: &str, secret: &str, scope: &Scope<'_>) -> String {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let hash = Digest::of(self.body).hex();
        let canonical = format!("{}\n{}\n\n{headers}\n{names}\n{hash}", self.method, self.path);
        let day: String = scope.date.chars().take(8).collect();
        let credential = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
        let digest = Digest::of(canonical.as_bytes()).hex();
        let text = format!("AWS4-HMAC-SHA256\n{}\n{credential}\n{digest}", scope.date);
        let signature = hex(&mac(&key(secret, &day, scope), &text));
        format!("AWS4-HMAC-SHA256 Credential={key_id}/{credential}, SignedHeaders={names}, Signature={signature}")
    }
}

fn key(secret: &str, day: &str, scope: &Scope<'_>) -> Vec<u8> {
    let first = mac(format!("AWS4{secret}").as_bytes(), day);
    [scope.region, scope.service, "aws4_request"].into_iter().fold(first, |key, part| mac(&key, part))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `YYYYMMDDTHHMMSSZ`.
pub(super) fn amz_date(now: SystemTime) -> String {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    // Days since 0000-03-01, so that the leap day is the last of its year (Hinnant, "chrono-Compatible Low-Level Date
    // Algorithms").
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// "get-vanilla" of AWS's published test suite for version 4 signatures.
    #[test]
    fn the_published_example_is_signed_as_published() {
        let headers = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
        let request = Request { method: "GET", path: "/", headers: &headers, body: b"" };
        let scope = Scope { date: "20150830T123600Z", region: "us-east-1", service: "service" };
        assert_eq!(
            request.authorization("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", &scope),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
    }

    #[test]
    fn dates_are_written_as_aws_wants_them() {
        for (seconds, expected) in [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (1_440_938_160, "20150830T123600Z"),
            (1_709_251_199, "20240229T235959Z"),
            (4_102_444_800, "21000101T000000Z"),
        ] {
            assert_eq!(amz_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
