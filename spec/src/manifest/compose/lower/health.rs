//! `healthcheck` as probes: readiness for dependants, and liveness since an unhealthy service is restarted.

use std::collections::BTreeMap;

use super::Lower;
use crate::codes;
use crate::health::{HEAL_LABEL, Numbers, heals, liveness};
use crate::manifest::compose::sink::Hint;
use crate::manifest::compose::tree::{Tree, Val, join_key};
use crate::pod::{ContainerSpec, Handler};

/// What `test` says.
enum Test {
    /// This is to be run.
    Run(Handler),
    /// There is to be no check.
    None,
    /// Nothing: that of the image counts.
    OfImage,
}

impl Lower<'_, '_> {
    pub(super) fn health(
        &mut self,
        tree: &Tree,
        path: &str,
        labels: &BTreeMap<String, String>,
        container: &mut ContainerSpec,
    ) {
        let Some(check) = tree.get("healthcheck").filter(|check| check.map().is_some()) else { return };
        let path = join_key(path, "healthcheck");
        if check.bool_of("disable") == Some(true) {
            container.no_image_check = true;
            return;
        }
        let test = self.test(check, &path);
        let positive = |key: &str| check.duration_of(key).filter(|length| length.0 > 0);
        let retries = check.int_of("retries").filter(|retries| *retries != 0);
        if retries.is_some_and(|retries| retries < 0)
            && let Some(at) = check.get("retries")
        {
            self.sink().error(
                codes::OUT_OF_RANGE,
                at,
                &join_key(&path, "retries"),
                "the number of retries is negative",
            );
        }
        let numbers = Numbers {
            interval: positive("interval"),
            timeout: positive("timeout"),
            start_period: positive("start_period"),
            start_interval: positive("start_interval"),
            retries: retries.and_then(|retries| u32::try_from(retries).ok()),
        };
        match test {
            Test::None => container.no_image_check = true,
            Test::OfImage => container.image_check = (numbers != Numbers::default()).then_some(numbers),
            Test::Run(handler) => {
                let readiness = numbers.readiness(handler);
                if labels.get(HEAL_LABEL).is_none_or(|label| heals(label)) {
                    container.liveness = Some(liveness(&readiness));
                }
                container.readiness = Some(readiness);
            }
        }
    }

    fn test(&mut self, check: &Tree, path: &str) -> Test {
        let shell = |command: &str| Test::Run(Handler::Exec(["/bin/sh", "-c", command].map(str::to_owned).to_vec()));
        let Some(test) = check.get("test") else { return Test::OfImage };
        let path = join_key(path, "test");
        match &test.val {
            Val::Str(text) if text.is_empty() => Test::OfImage,
            Val::Str(text) => shell(text),
            Val::Seq(items) => {
                let words: Vec<String> = items.iter().filter_map(Tree::text).collect();
                match words.split_first() {
                    None => Test::OfImage,
                    Some((first, rest)) => match (first.as_str(), rest) {
                        ("NONE", _) => Test::None,
                        ("CMD", rest) if !rest.is_empty() => Test::Run(Handler::Exec(rest.to_vec())),
                        ("CMD-SHELL", rest) if !rest.is_empty() => shell(&rest.join(" ")),
                        ("CMD" | "CMD-SHELL", _) => {
                            let message = format!("`{first}` needs a command after it");
                            self.sink().error(codes::BAD_VALUE, test, &path, message);
                            Test::None
                        }
                        _ => {
                            let message = "a `test` list starts with CMD, CMD-SHELL or NONE";
                            self.sink()
                                .error(codes::BAD_VALUE, test, &path, message)
                                .help("put CMD before the command, or write it as a string");
                            Test::None
                        }
                    },
                }
            }
            _ => Test::OfImage,
        }
    }
}
