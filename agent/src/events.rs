//! What happened, for people.

/// How it is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// As it should be.
    Normal,
    /// Somebody may want to look.
    Warning,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, in milliseconds of Unix time.
    pub unix_millis: i64,
    /// How it is meant.
    pub kind: EventKind,
    /// The same word as in the plan.
    pub reason: String,
    /// Workload it is about.
    pub workload: Option<String>,
    /// Pod it is about.
    pub pod: Option<String>,
    /// Container it is about.
    pub container: Option<String>,
    /// A sentence.
    pub message: String,
}

/// Where events are kept.
#[derive(Debug, Clone, Default)]
pub struct Journal;

impl Journal {
    /// Writes an event down.
    pub fn record(&self, event: Event) {
        tracing::debug!(reason = event.reason, "{}", event.message);
    }
}
