//! Replicas, updates, limits and restarts.

use super::Lower;
use crate::codes;
use crate::manifest::compose::sink::Hint;
use crate::manifest::compose::tree::{Tree, Val, join_key};
use crate::manifest::compose::units;
use crate::pod::{ContainerSpec, DiskLimit, PodSpec, RestartBackoff, RestartPolicy};
use crate::time::Millis;
use crate::workload::{OnFailure, RollbackStrategy, UpdateStrategy};

/// Restart timing of the Docker engine (moby, restartmanager.go).
const FIRST_WAIT: Millis = Millis(100);
const LONGEST_WAIT: Millis = Millis::from_secs(60);
const RESET_AFTER: Millis = Millis::from_secs(10);

impl Lower<'_, '_> {
    pub(super) fn scale(&mut self, tree: &Tree, path: &str) -> (u32, UpdateStrategy) {
        let deploy = tree.get("deploy");
        let path_deploy = join_key(path, "deploy");
        let replicas = deploy.and_then(|deploy| deploy.int_of("replicas"));
        let scale = tree.int_of("scale");
        if let (Some(a), Some(b), Some(at)) = (replicas, scale, tree.get("scale"))
            && a != b
        {
            let message = "`scale` and `deploy.replicas` differ";
            self.sink().error(codes::CONFLICT, at, &join_key(path, "scale"), message).help("keep one of them");
        }
        let mut count = 1;
        for (value, at, path) in [
            (scale, tree.get("scale"), join_key(path, "scale")),
            (replicas, deploy.and_then(|deploy| deploy.get("replicas")), join_key(&path_deploy, "replicas")),
        ] {
            let (Some(value), Some(at)) = (value, at) else { continue };
            match u32::try_from(value) {
                Ok(value) if value <= 1000 => count = value,
                _ => {
                    let message = format!("{value} is not a number of containers; 0 to 1000 are possible");
                    self.sink().error(codes::OUT_OF_RANGE, at, &path, message);
                }
            }
        }
        if let Some(mode) = deploy.and_then(|deploy| deploy.get("mode")) {
            match mode.str() {
                Some("global") => count = 1,
                Some(job @ ("replicated-job" | "global-job")) => {
                    let message = format!("the mode `{job}` is not supported");
                    self.sink()
                        .error(codes::REJECTED_FIELD, mode, &join_key(&path_deploy, "mode"), message)
                        .help("use `restart: on-failure` for something that runs to its end");
                }
                _ => {}
            }
        }
        (count, self.strategy(deploy, count, &path_deploy))
    }

    /// How updates go: stop-first one by one unless `update_config` says otherwise.
    fn strategy(&mut self, deploy: Option<&Tree>, replicas: u32, path: &str) -> UpdateStrategy {
        let rollback = deploy
            .and_then(|deploy| deploy.get("rollback_config"))
            .map(|config| self.rollback(config, replicas, &join_key(path, "rollback_config")));
        let stop_first = UpdateStrategy { max_surge: 0, max_unavailable: 1, rollback, ..UpdateStrategy::default() };
        let Some(update) = deploy.and_then(|deploy| deploy.get("update_config")) else { return stop_first };
        let (max_surge, max_unavailable) = self.pace(update, replicas, &join_key(path, "update_config"));
        UpdateStrategy {
            max_surge,
            max_unavailable,
            on_failure: match update.text_of("failure_action") {
                Some("rollback") => OnFailure::Rollback,
                Some("continue") => OnFailure::Continue,
                _ => OnFailure::Pause,
            },
            delay: update.duration_of("delay").unwrap_or_default(),
            monitor: update.duration_of("monitor").unwrap_or_default(),
            ..stop_first
        }
    }

    fn rollback(&mut self, config: &Tree, replicas: u32, path: &str) -> RollbackStrategy {
        if config.text_of("failure_action") == Some("rollback")
            && let Some(action) = config.get("failure_action")
        {
            let message = "a rollback cannot be rolled back";
            self.sink()
                .error(codes::BAD_VALUE, action, &join_key(path, "failure_action"), message)
                .help("use `continue` or `pause`");
        }
        let (max_surge, max_unavailable) = self.pace(config, replicas, path);
        RollbackStrategy {
            max_surge,
            max_unavailable,
            delay: config.duration_of("delay").unwrap_or_default(),
            monitor: config.duration_of("monitor").unwrap_or_default(),
            on_failure: match config.text_of("failure_action") {
                Some("continue") => OnFailure::Continue,
                _ => OnFailure::Pause,
            },
        }
    }

    /// `order` and `parallelism` as surge and unavailable pods.
    fn pace(&mut self, config: &Tree, replicas: u32, path: &str) -> (u32, u32) {
        let parallelism = self.parallelism(config, replicas, path);
        if config.text_of("order") == Some("start-first") { (parallelism, 0) } else { (0, parallelism) }
    }

    fn parallelism(&mut self, config: &Tree, replicas: u32, path: &str) -> u32 {
        let Some(value) = config.int_of("parallelism") else { return 1 };
        match u32::try_from(value) {
            Ok(0) => replicas.max(1),
            Ok(value) => value,
            Err(_) => {
                if let Some(at) = config.get("parallelism") {
                    let message = format!("{value} is not a number of containers");
                    self.sink().error(codes::OUT_OF_RANGE, at, &join_key(path, "parallelism"), message);
                }
                1
            }
        }
    }

    pub(super) fn resources(&mut self, tree: &Tree, path: &str, container: &mut ContainerSpec) {
        let resources = tree.get("deploy").and_then(|deploy| deploy.get("resources"));
        let limits = resources.and_then(|resources| resources.get("limits"));
        let reserved = resources.and_then(|resources| resources.get("reservations"));
        let path_limits = format!("{path}.deploy.resources.limits");
        let path_reserved = format!("{path}.deploy.resources.reservations");
        for (old, section, key, name) in [
            ("cpus", limits, "cpus", "deploy.resources.limits.cpus"),
            ("mem_limit", limits, "memory", "deploy.resources.limits.memory"),
            ("pids_limit", limits, "pids", "deploy.resources.limits.pids"),
            ("mem_reservation", reserved, "memory", "deploy.resources.reservations.memory"),
        ] {
            let (Some(a), Some(b)) = (tree.get(old), section.and_then(|section| section.get(key))) else { continue };
            let equal = match key {
                "memory" => a.bytes() == b.bytes(),
                _ => a.text().and_then(|a| a.parse::<f64>().ok()) == b.text().and_then(|b| b.parse::<f64>().ok()),
            };
            // What is malformed was told.
            let sound = match key {
                "memory" => a.bytes().is_some() && b.bytes().is_some(),
                _ => [a, b].iter().all(|n| n.text().is_some_and(|text| text.parse::<f64>().is_ok())),
            };
            if !equal && sound {
                let message = format!("`{old}` and `{name}` differ");
                self.sink().error(codes::CONFLICT, a, &join_key(path, old), message).help("keep one of them");
            }
        }
        let r = &mut container.resources;
        r.cpu_limit_milli = self.cores(tree, "cpus", path).or(limits.and_then(|l| self.cores(l, "cpus", &path_limits)));
        if r.cpu_limit_milli.is_none()
            && let Some(quota) = tree.number_of("cpu_quota").filter(|quota| *quota > 0.0)
        {
            let period = tree.number_of("cpu_period").filter(|period| *period > 0.0).unwrap_or(100_000.0);
            r.cpu_limit_milli = units::cpus(&(quota / period).to_string());
        }
        r.cpu_request_milli = reserved.and_then(|l| self.cores(l, "cpus", &path_reserved));
        r.memory_limit = tree.bytes_of("mem_limit").or(limits.and_then(|l| l.bytes_of("memory"))).filter(|b| *b > 0);
        r.memory_request =
            tree.bytes_of("mem_reservation").or(reserved.and_then(|l| l.bytes_of("memory"))).filter(|b| *b > 0);
        r.memory_swap_limit = match tree.get("memswap_limit") {
            Some(at) if at.text().as_deref() == Some("-1") => Some(-1),
            Some(at) => at.bytes().and_then(|bytes| i64::try_from(bytes).ok()).filter(|bytes| *bytes > 0),
            None => None,
        };
        r.pids_limit = tree
            .number_of("pids_limit")
            .or(limits.and_then(|l| l.number_of("pids")))
            .map(|pids| {
                #[expect(clippy::cast_possible_truncation, reason = "a float cast saturates")]
                let pids = pids as i64;
                pids
            })
            .filter(|pids| *pids != 0);
        r.cpu_shares = tree.number_of("cpu_shares").filter(|shares| *shares > 0.0).map(|shares| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is above zero")]
            let shares = shares as u64;
            shares
        });
        if let (Some(swap), Some(memory)) = (r.memory_swap_limit, r.memory_limit)
            && let Some(at) = tree.get("memswap_limit")
            && u64::try_from(swap).is_ok_and(|swap| swap < memory)
        {
            let message = "`memswap_limit` counts memory and swap together and is below the memory limit";
            let path = join_key(path, "memswap_limit");
            self.sink().error(codes::CONFLICT, at, &path, message).help("raise it, or leave it out");
        }
        let cpuset = tree.text_of("cpuset").map(str::to_owned);
        if let (Some(text), Some(at)) = (&cpuset, tree.get("cpuset"))
            && !text.split(',').all(|part| super::super::ports::host_range(part.trim()).is_ok())
        {
            let message = format!("`{text}` is not a list of CPUs");
            self.sink()
                .error(codes::BAD_VALUE, at, &join_key(path, "cpuset"), message)
                .help("write it like 0-3 or 0,2");
        }
        container.resources.cpuset = cpuset;
        container.resources.oom_score_adj =
            self.ranged(tree, "oom_score_adj", -1000..=1000, path).and_then(|value| i32::try_from(value).ok());
        container.resources.oom_kill_disable = tree.bool_of("oom_kill_disable").unwrap_or(false);
        if let Some(blkio) = tree.get("blkio_config") {
            let path = join_key(path, "blkio_config");
            container.resources.blkio_weight =
                self.ranged(blkio, "weight", 0..=1000, &path).and_then(|w| u16::try_from(w).ok()).filter(|w| *w >= 10);
            container.resources.disk_limits = self.disk_limits(blkio, &path);
        }
        for (at, path) in reserved.map(|r| r.items_of("devices", &path_reserved)).unwrap_or_default() {
            self.gpu(at, &path, container);
        }
        match tree.get("gpus").map(|t| (&t.val, t)) {
            Some((Val::Str(_), _)) => container.cdi_devices.push("nvidia.com/gpu=all".to_owned()),
            Some((Val::Seq(_), _)) => {
                for (at, path) in tree.items_of("gpus", path) {
                    self.gpu(at, &path, container);
                }
            }
            _ => {}
        }
    }

    /// The limits of each device, in the order in which devices are named first.
    fn disk_limits(&mut self, blkio: &Tree, path: &str) -> Vec<DiskLimit> {
        type Rate = fn(&mut DiskLimit) -> &mut Option<u64>;
        let keys: [(&str, Rate); 4] = [
            ("device_read_bps", |limit| &mut limit.read_bps),
            ("device_write_bps", |limit| &mut limit.write_bps),
            ("device_read_iops", |limit| &mut limit.read_iops),
            ("device_write_iops", |limit| &mut limit.write_iops),
        ];
        let mut limits: Vec<DiskLimit> = Vec::new();
        for (key, rate) in keys {
            for (at, path) in blkio.items_of(key, path) {
                let Some(device) = at.text_of("path") else { continue };
                let value = at.bytes_of("rate").filter(|value| *value > 0);
                if value.is_none()
                    && let Some(at) = at.get("rate")
                {
                    let message = "this is no rate";
                    let path = join_key(&path, "rate");
                    self.sink().error(codes::BAD_VALUE, at, &path, message).help("write it like 12mb or 500");
                }
                let index = limits.iter().position(|limit| limit.path == device).unwrap_or(limits.len());
                if index == limits.len() {
                    limits.push(DiskLimit { path: device.to_owned(), ..DiskLimit::default() });
                }
                if let Some(limit) = limits.get_mut(index) {
                    *rate(limit) = value;
                }
            }
        }
        limits
    }

    fn cores(&mut self, tree: &Tree, key: &str, path: &str) -> Option<u64> {
        let value = tree.number_of(key)?;
        let milli = units::cpus(&value.to_string());
        if milli.is_none()
            && let Some(at) = tree.get(key)
        {
            let message = format!("{value} is not a number of cores");
            self.sink().error(codes::OUT_OF_RANGE, at, &join_key(path, key), message);
        }
        milli.filter(|milli| *milli > 0)
    }

    fn ranged(&mut self, tree: &Tree, key: &str, range: std::ops::RangeInclusive<i64>, path: &str) -> Option<i64> {
        let value = tree.int_of(key)?;
        if range.contains(&value) {
            return Some(value);
        }
        if let Some(at) = tree.get(key) {
            let message = format!("{value} is out of range: {} to {}", range.start(), range.end());
            self.sink().error(codes::OUT_OF_RANGE, at, &join_key(path, key), message);
        }
        None
    }

    /// A device reservation as CDI devices.
    fn gpu(&mut self, at: &Tree, path: &str, container: &mut ContainerSpec) {
        let driver = at.text_of("driver").unwrap_or("nvidia");
        let ids = at.strings_of("device_ids");
        if !ids.is_empty() && at.get("count").is_some() {
            let message = "`count` and `device_ids` exclude each other";
            self.sink().error(codes::CONFLICT, at, path, message).help("keep one of them");
            return;
        }
        match driver {
            "cdi" => container.cdi_devices.extend(ids.into_iter().map(|(id, _)| id)),
            "nvidia" if !ids.is_empty() => {
                container.cdi_devices.extend(ids.into_iter().map(|(id, _)| format!("nvidia.com/gpu={id}")));
            }
            "nvidia" => match at.int_of("count").filter(|count| *count >= 0) {
                Some(count) => {
                    container.cdi_devices.extend((0..count.min(64)).map(|index| format!("nvidia.com/gpu={index}")));
                }
                None => container.cdi_devices.push("nvidia.com/gpu=all".to_owned()),
            },
            other => {
                let message = format!("devices of the driver `{other}` are not supported");
                self.sink()
                    .error(codes::REJECTED_RESOURCE, at, path, message)
                    .help("use `driver: cdi` and name CDI devices in `device_ids`");
            }
        }
    }

    pub(super) fn restart(&mut self, tree: &Tree, path: &str, spec: &mut PodSpec) {
        let mut backoff = RestartBackoff {
            initial: Some(FIRST_WAIT),
            max: Some(LONGEST_WAIT),
            reset_after: Some(RESET_AFTER),
            max_attempts: None,
        };
        let text = tree.text_of("restart").unwrap_or("no");
        let mut policy = match text.split_once(':').map_or((text, None), |(name, count)| (name, Some(count))) {
            ("no", None) => RestartPolicy::Never,
            ("always" | "unless-stopped", None) => RestartPolicy::Always,
            ("on-failure", None) => RestartPolicy::OnFailure,
            ("on-failure", Some(count)) if count.parse::<u32>().is_ok() => {
                backoff.max_attempts = count.parse().ok().filter(|count| *count > 0);
                RestartPolicy::OnFailure
            }
            _ => {
                if let Some(at) = tree.get("restart") {
                    let message = format!("`{text}` is not a restart policy");
                    self.sink()
                        .error(codes::BAD_VALUE, at, &join_key(path, "restart"), message)
                        .help("use \"no\", always, unless-stopped, on-failure or on-failure:3");
                }
                RestartPolicy::Never
            }
        };
        // `deploy.restart_policy` takes the place of `restart`.
        if let Some(own) = tree.get("deploy").and_then(|deploy| deploy.get("restart_policy")) {
            policy = match own.text_of("condition") {
                Some("none" | "no") => RestartPolicy::Never,
                Some("on-failure") => RestartPolicy::OnFailure,
                _ => RestartPolicy::Always,
            };
            backoff.max_attempts = own.int_of("max_attempts").and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
            if let Some(delay) = own.duration_of("delay").filter(|delay| delay.0 > 0) {
                (backoff.initial, backoff.max) = (Some(delay), Some(delay));
            }
            if let Some(window) = own.duration_of("window").filter(|window| window.0 > 0) {
                backoff.reset_after = Some(window);
            }
        }
        spec.restart_policy = Some(policy);
        spec.restart_backoff = Some(backoff);
    }
}
