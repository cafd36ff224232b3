//! What libcontainer says about a failure in its log: its errors carry no more than "failed to prepare rootfs".
//!
//! Its processes are clones of the shim, so the lines go over the pipe that the executor's failures use.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::sys;

/// Mark of such a line on the pipe.
const MARK: &str = "detail: ";

/// The pipe, or -1 when this process does not use it any more: its number may then belong to another file.
static PIPE: AtomicI32 = AtomicI32::new(-1);

struct Details;

#[derive(Default)]
struct Text {
    message: String,
    error: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "err" | "error" => self.error = format!(": {value:?}"),
            _ => {}
        }
    }
}

impl Subscriber for Details {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let line = format!("{MARK}{}{}\n", text.message, text.error).replace("\n\n", "\n");
        let pipe = PIPE.load(Ordering::Relaxed);
        if pipe >= 0 {
            let _ = sys::write_raw(pipe, line.as_bytes());
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Sends errors that libcontainer logs, in this process and its clones, to a pipe.
pub(super) fn send_to(pipe: RawFd) {
    PIPE.store(pipe, Ordering::Relaxed);
    // Only fails when there is a subscriber already, which a shim has not.
    let _ = tracing::subscriber::set_global_default(Details);
}

/// Stops that in this process; its clones go on.
pub(super) fn stop() {
    PIPE.store(-1, Ordering::Relaxed);
}

/// Splits what came over the pipe: the first detail, which is nearest to the cause, and the rest.
pub(super) fn split(text: &str) -> (Option<&str>, String) {
    let first = text.lines().find_map(|line| line.strip_prefix(MARK));
    let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with(MARK)).collect();
    (first, rest.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_detail_is_nearest_to_the_cause() {
        let (first, rest) = split("detail: failed to open x: ENOENT\ndetail: failed to mount\n{\"stage\":1}\n");
        assert_eq!(first, Some("failed to open x: ENOENT"));
        assert_eq!(rest, "{\"stage\":1}");
        assert_eq!(split(""), (None, String::new()));
    }
}
