//! One entry for each thing that can be set: its name in files, its variable, its flag, what it means, how it is
//! read and how it is shown.

use runtime::image::registry::RegistryConfig;
use serde_json::{Value, json};

use super::values::{self, Input};
use super::{LogFormat, LogLimit, Settings, tables};

/// One setting.
pub struct Key {
    /// Name in files; a dot stands for a table.
    pub name: &'static str,
    /// What it means, in one line.
    pub help: &'static str,
    /// Not shown in `mainstay config`; for tests.
    pub hidden: bool,
    /// Reads a value into the settings.
    pub(super) set: fn(&mut Settings, Input<'_>) -> Result<(), String>,
    /// The value now.
    pub(super) show: fn(&Settings) -> Value,
}

impl Key {
    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("MAINSTAY_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// The flag that sets it.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace(['.', '_'], "-"))
    }

    /// The value now, for `mainstay config`.
    #[must_use]
    pub fn value(&self, settings: &Settings) -> Value {
        (self.show)(settings)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! key {
    ($name:literal, $help:literal, |$s:ident, $input:ident| $set:expr, |$v:ident| $show:expr) => {
        Key {
            name: $name,
            help: $help,
            hidden: false,
            set: |$s, $input| {
                $set;
                Ok(())
            },
            show: |$v| $show,
        }
    };
}

/// Every setting, in the order in which they are shown.
pub const KEYS: &[Key] = &[
    key!("data_dir", "directory of what survives a reboot", |s, i| s.data_dir = values::path(i)?, |s| json!(
        s.data_dir
    )),
    key!("run_dir", "directory of sockets and of what one boot needs", |s, i| s.run_dir = values::path(i)?, |s| json!(
        s.run_dir
    )),
    key!("sources", "directories with manifests", |s, i| s.sources = values::paths(i)?, |s| json!(s.sources)),
    // It names files with credentials but never holds one itself.
    key!("git", "Git repositories with manifests", |s, i| s.git = tables::read(i)?, |s| serde_json::to_value(&s.git)
        .unwrap_or(Value::Null)),
    // It names files with tokens but never holds one itself.
    key!("archive", "tar archives with manifests, by URL and digest", |s, i| s.archives = tables::read(i)?, |s| {
        serde_json::to_value(&s.archives).unwrap_or(Value::Null)
    }),
    key!("oci", "artifacts in registries with manifests, by tag or digest", |s, i| s.oci = tables::read(i)?, |s| {
        serde_json::to_value(&s.oci).unwrap_or(Value::Null)
    }),
    // It names a file with a secret but never holds one itself.
    key!(
        "sync_hook",
        "`listen` and `secret_file`: where a webhook has every source asked at once, `none` for nowhere",
        |s, i| s.sync_hook = values::optional(i, super::hook::read)?,
        |s| match &s.sync_hook {
            Some(hook) => serde_json::to_value(hook).unwrap_or(Value::Null),
            None => json!("none"),
        }
    ),
    key!(
        "age_identity",
        "file with the keys that open encrypted manifests, `credential:NAME` for one of systemd, `none` for no key",
        |s, i| s.age_identity = values::optional(i, values::credential)?,
        |s| s.age_identity.as_ref().map_or(json!("none"), |path| json!(path))
    ),
    // It names files with credentials; a URL that is a secret belongs into one of them.
    key!("webhook", "receivers of events", |s, i| s.webhooks = tables::read(i)?, |s| serde_json::to_value(&s.webhooks)
        .unwrap_or(Value::Null)),
    key!(
        "metrics_listen",
        "address of metrics and health, `none` for the socket only",
        |s, i| s.metrics_listen = values::optional(i, values::address)?,
        |s| s.metrics_listen.map_or(json!("none"), |a| json!(a))
    ),
    key!(
        "traces",
        "OpenTelemetry collector that gets a span for each action, such as http://127.0.0.1:4318, or `none`",
        |s, i| s.traces = values::optional(i, values::collector)?,
        |s| json!(s.traces.as_deref().unwrap_or("none"))
    ),
    key!(
        "log_format",
        "`text` or `json`",
        |s, i| s.log_format = match values::text(i)?.as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => return Err(format!("expected text or json, found `{other}`")),
        },
        |s| json!(match s.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    ),
    key!(
        "log_level",
        "filter of log lines: a level, or `target=level` pairs",
        |s, i| {
            let text = values::text(i)?;
            let filter = tracing_subscriber::EnvFilter::try_new(&text);
            filter.map_err(|_| format!("expected error, warn, info, debug, trace or a filter, found `{text}`"))?;
            s.log_level = text;
        },
        |s| json!(s.log_level)
    ),
    key!("bridge", "name of the pods' bridge", |s, i| s.bridge = values::interface(i)?, |s| json!(s.bridge)),
    key!(
        "subnet",
        "IPv4 range of the pods, `none` to choose one that is free",
        |s, i| s.subnet = values::optional(i, values::subnet)?,
        |s| json!(s.subnet.as_deref().unwrap_or("none"))
    ),
    key!(
        "service_subnet",
        "IPv4 range of the virtual addresses of Services, `none` to choose one that is free",
        |s, i| s.service_subnet = values::optional(i, values::subnet)?,
        |s| json!(s.service_subnet.as_deref().unwrap_or("none"))
    ),
    key!("cgroup_parent", "parent of all control groups", |s, i| s.cgroup_parent = values::cgroup(i)?, |s| json!(
        s.cgroup_parent
    )),
    key!("node_name", "name of this node", |s, i| s.node_name = values::text(i)?, |s| json!(s.node_name)),
    key!("node_labels", "labels of this node", |s, i| s.node_labels = values::pairs(i)?, |s| json!(s.node_labels)),
    key!(
        "node_metadata",
        "more labels of this node from EC2's metadata service: `ec2`, the address of one like it, or `none`",
        |s, i| s.node_metadata = values::optional(i, values::metadata)?,
        |s| json!(match s.node_metadata.as_deref() {
            None => "none",
            Some(values::EC2) => "ec2",
            Some(other) => other,
        })
    ),
    key!("resync", "sources are read again at least this often", |s, i| s.resync = values::duration(i)?, |s| json!(
        humantime::format_duration(s.resync).to_string()
    )),
    // What a registry's table holds may name files with credentials but never holds one itself.
    key!("registries", "mirrors, plain http and certificates by registry", |s, i| s.registries = registries(i)?, |s| {
        serde_json::to_value(&s.registries).unwrap_or(Value::Null)
    }),
    key!(
        "runtimes",
        "OCI runtimes beside the built-in one, which pods select by name (`runtimeClassName`)",
        |s, i| s.runtimes = super::runtimes::runtimes(i)?,
        |s| serde_json::to_value(&s.runtimes).unwrap_or(Value::Null)
    ),
    key!(
        "max_parallel_starts",
        "containers started at the same time",
        |s, i| s.max_parallel_starts = values::number(i, 1, 1024)?,
        |s| json!(s.max_parallel_starts)
    ),
    key!(
        "max_parallel_pulls",
        "images pulled from one registry at the same time",
        |s, i| s.max_parallel_pulls = values::number(i, 1, 64)?,
        |s| json!(s.max_parallel_pulls)
    ),
    key!(
        "image_gc.high_percent",
        "unused images are removed when their disk is so full",
        |s, i| s.image_gc.high_percent = percent(i)?,
        |s| json!(s.image_gc.high_percent)
    ),
    key!(
        "image_gc.low_percent",
        "and then until it is only so full",
        |s, i| s.image_gc.low_percent = percent(i)?,
        |s| json!(s.image_gc.low_percent)
    ),
    key!(
        "image_gc.max_age",
        "images unused for so long are removed in any case, `none` to keep them",
        |s, i| s.image_gc.max_age = values::optional(i, values::duration)?,
        |s| match s.image_gc.max_age {
            Some(age) => json!(humantime::format_duration(age).to_string()),
            None => json!("none"),
        }
    ),
    key!(
        "image_gc.period",
        "the disk of the images is looked at so often",
        |s, i| s.image_gc.period = values::duration(i)?,
        |s| json!(humantime::format_duration(s.image_gc.period).to_string())
    ),
    key!(
        "log_max_size",
        "a container's log file is rotated at this size",
        |s, i| {
            let size = values::bytes(i)?;
            if size < 4096 {
                return Err(format!("expected at least 4Ki, found {size}"));
            }
            s.log_max_size = size;
        },
        |s| json!(s.log_max_size)
    ),
    key!(
        "log_max_files",
        "log files kept of each container",
        |s, i| s.log_max_files = values::number(i, 1, 1000)?,
        |s| json!(s.log_max_files)
    ),
    key!(
        "memory_high_percent",
        "so far between request and limit of memory a container of Kubernetes is slowed down (cgroup v2), 0 for never",
        |s, i| s.memory_high_percent = values::number(i, 0, 100)?,
        |s| json!(s.memory_high_percent)
    ),
    key!(
        "log_total_size",
        "what the logs of all containers may take together, `auto` for a tenth of the disk and at most 4Gi, or `none`",
        |s, i| s.log_total_size = match values::text(i).as_deref() {
            Ok("auto") => LogLimit::Auto,
            Ok("none") => LogLimit::Unlimited,
            _ => match values::bytes(i)? {
                size @ 0..0x10_0000 => return Err(format!("expected at least 1Mi, found {size}")),
                size => LogLimit::Bytes(size),
            },
        },
        |s| match s.log_total_size {
            LogLimit::Auto => json!("auto"),
            LogLimit::Unlimited => json!("none"),
            LogLimit::Bytes(size) => json!(size),
        }
    ),
    key!(
        "allow_metadata",
        "pods may reach the cloud's metadata address",
        |s, i| s.allow_metadata = values::boolean(i)?,
        |s| json!(s.allow_metadata)
    ),
    key!(
        "removal_budget.min",
        "so many workloads may always vanish at once",
        |s, i| s.removal_budget.min = values::number(i, 0, u32::MAX)?,
        |s| json!(s.removal_budget.min)
    ),
    key!(
        "removal_budget.percent",
        "so many percent of the running workloads may vanish at once",
        |s, i| s.removal_budget.percent = values::number(i, 0, 100)?,
        |s| json!(s.removal_budget.percent)
    ),
    key!(
        "generations",
        "converged states of the node that are kept, with their images, for `rollback`",
        |s, i| s.generations = values::number(i, 1, 1000)?,
        |s| json!(s.generations)
    ),
    key!(
        "maintenance_windows",
        "when changes are let through, such as `Mon-Fri 22:00-04:00 Europe/Berlin`; `;` between several",
        |s, i| s.maintenance_windows = values::windows(i)?,
        |s| json!(s.maintenance_windows.iter().map(ToString::to_string).collect::<Vec<_>>())
    ),
    Key {
        name: "boot_id",
        help: "stands in for the kernel's boot id",
        hidden: true,
        set: |s, i| {
            s.boot_id = Some(values::text(i)?);
            Ok(())
        },
        show: |s| json!(s.boot_id),
    },
];

/// The table of registries, when the runtime can make sense of it; else what is wrong and in which part.
fn registries(input: Input<'_>) -> Result<toml::Table, String> {
    let table = values::table(input)?;
    let read = |table: toml::Table| table.try_into::<RegistryConfig>();
    let Err(error) = read(table.clone()) else { return Ok(table) };
    let alone = |(name, value): &(&String, &toml::Value)| {
        value.is_table() && read(toml::Table::from_iter([((*name).clone(), (*value).clone())])).is_err()
    };
    let part = table.iter().find(alone).map(|(name, _)| format!("`{name}`: ")).unwrap_or_default();
    Err(format!("{part}{}", tables::told(&error)))
}

fn percent(input: Input<'_>) -> Result<u8, String> {
    values::number(input, 1, 100).map(|number| u8::try_from(number).unwrap_or(100))
}
