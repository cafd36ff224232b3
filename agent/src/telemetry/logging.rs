//! Log lines: to stderr, as text or JSON, filtered. Fields carry the values; messages have no variable parts.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;

/// Sets up log lines for this process. Called once; a second call changes nothing.
pub fn init(format: LogFormat, level: &str) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match format {
        LogFormat::Text => lines.with_ansi(color).with_target(false).finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_target(false).finish().try_init(),
    };
    // A subscriber is there already: a test's, or that of an earlier call.
    drop(set);
}
