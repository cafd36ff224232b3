//! Cron schedules as a form of text.

/// What is wrong with a schedule, if anything.
#[must_use]
pub fn fault(text: &str) -> Option<String> {
    crate::cron::Schedule::parse(text).err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in [
            "* * * * *",
            "*/5 0-6,12 1 JAN-mar mon-FRI",
            "0 0 31 12 0",
            "5/15 * ? * ?",
            "@daily",
            "@every 1h30m",
            "@every 1.5h",
            "  0   3 * * 6 ",
            "0 0 1,15 * *",
            "0 0 * * */7",
            "59/4000000000 * * * *",
        ] {
            assert_eq!(fault(good), None, "{good}");
        }
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "* * * * 7",
            "*/0 * * * *",
            "5-1 * * * *",
            "a * * * *",
            "@never",
            "TZ=UTC 0 0 * * *",
            "1, * * * *",
            "@every",
            "@every x",
            "@every 99999999999h",
            "-1 * * * *",
            "* * * * mon-",
            "1.5 * * * *",
        ] {
            assert!(fault(bad).is_some(), "{bad}");
        }
    }
}
