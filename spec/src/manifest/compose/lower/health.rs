//! `healthcheck` as probes: readiness for dependants, and liveness since an unhealthy service is restarted.

use super::Lower;
use crate::codes;
use crate::manifest::compose::sink::Hint;
use crate::manifest::compose::tree::{Tree, Val, join_key};
use crate::manifest::compose::units;
use crate::pod::{ContainerSpec, Handler, Probe};
use crate::time::Millis;

/// A label with `false` keeps an unhealthy service from being restarted.
const HEAL_LABEL: &str = "mainstay.heal";

/// Defaults of the Docker engine (moby, daemon/health.go).
const INTERVAL: Millis = Millis::from_secs(30);
const TIMEOUT: Millis = Millis::from_secs(30);
const START_INTERVAL: Millis = Millis::from_secs(5);
const RETRIES: u32 = 3;

impl Lower<'_, '_> {
    pub(super) fn health(&mut self, tree: &Tree, path: &str, container: &mut ContainerSpec) {
        let Some(check) = tree.get("healthcheck").filter(|check| check.map().is_some()) else { return };
        let path = join_key(path, "healthcheck");
        if check.bool_of("disable") == Some(true) {
            return;
        }
        let Some(handler) = self.test(check, &path) else { return };
        let positive = |key: &str| check.duration_of(key).filter(|length| length.0 > 0);
        let interval = positive("interval").unwrap_or(INTERVAL);
        let start_period = positive("start_period");
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
        let probe = Probe {
            handler,
            period: Some(interval),
            timeout: Some(positive("timeout").unwrap_or(TIMEOUT)),
            failure_threshold: Some(retries.and_then(|r| u32::try_from(r).ok()).unwrap_or(RETRIES)),
            start_period,
            start_interval: start_period.map(|_| positive("start_interval").unwrap_or(START_INTERVAL)),
            ..Probe::default()
        };
        let heals = tree
            .pairs_of("labels")
            .into_iter()
            .find(|(name, _, _)| name == HEAL_LABEL)
            .and_then(|(_, value, _)| units::boolean(&value?))
            .unwrap_or(true);
        if heals {
            // Docker's first check comes one interval after the start; so late does the first failure count.
            let first = if start_period.is_some() { probe.start_interval.unwrap_or(START_INTERVAL) } else { interval };
            container.liveness = Some(Probe { initial_delay: Some(first), ..probe.clone() });
        }
        container.readiness = Some(probe);
    }

    fn test(&mut self, check: &Tree, path: &str) -> Option<Handler> {
        let shell = |command: &str| Handler::Exec(["/bin/sh", "-c", command].map(str::to_owned).to_vec());
        let Some(test) = check.get("test") else {
            let message = "without `test` there is no health check: that of the image is not used";
            self.sink().warn(codes::NO_EFFECT, check, path, message).help("add `test:`");
            return None;
        };
        let path = join_key(path, "test");
        match &test.val {
            Val::Str(text) if text.is_empty() => None,
            Val::Str(text) => Some(shell(text)),
            Val::Seq(items) => {
                let words: Vec<String> = items.iter().filter_map(Tree::text).collect();
                match words.split_first() {
                    None => None,
                    Some((first, rest)) => match (first.as_str(), rest) {
                        ("NONE", _) => None,
                        ("CMD", rest) if !rest.is_empty() => Some(Handler::Exec(rest.to_vec())),
                        ("CMD-SHELL", rest) if !rest.is_empty() => Some(shell(&rest.join(" "))),
                        ("CMD" | "CMD-SHELL", _) => {
                            let message = format!("`{first}` needs a command after it");
                            self.sink().error(codes::BAD_VALUE, test, &path, message);
                            None
                        }
                        _ => {
                            let message = "a `test` list starts with CMD, CMD-SHELL or NONE";
                            self.sink()
                                .error(codes::BAD_VALUE, test, &path, message)
                                .help("put CMD before the command, or write it as a string");
                            None
                        }
                    },
                }
            }
            _ => None,
        }
    }
}
