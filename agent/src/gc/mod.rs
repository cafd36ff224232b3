//! Removes images that nobody needs, by itself: by age, and when the disk is short ([`logs`] does it for logs).
//!
//! The rules are kubelet's (Kubernetes documentation, "Garbage Collection", container images): above the high threshold
//! images go, longest unused first, until the low one is reached; what was used a moment ago stays. Never one that a pod
//! runs on, a manifest names, somebody pinned, or no registry can give back (see [`roots`] and `runtime::image::gc`).
//! Nothing is removed before the sources were read once.

pub mod logs;
pub mod roots;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use runtime::image::gc::{PruneOptions, Removed};
use runtime::image::store::{Store, StoreError};
use tokio::sync::watch;

use crate::clock::SharedClock;
use crate::config::ImageGcSettings;
use crate::events::{Event, EventKind, Journal, Word};
use crate::telemetry::Metrics;

/// An image that was used so short a time ago stays (kubelet's imageMinimumGCAge).
const MINIMUM_AGE: Duration = Duration::from_secs(120);
/// When a pull runs out of space, looks are no closer together than this.
const SHORTAGE_PAUSE: Duration = Duration::from_secs(10);
/// Images that an event names.
const NAMED: usize = 5;

/// The part of the agent that removes images.
pub struct ImageGc {
    /// What it looks after.
    pub store: Store,
    /// Where the records are that say what is needed.
    pub data_dir: PathBuf,
    /// When, and what.
    pub settings: ImageGcSettings,
    /// Counts.
    pub metrics: Metrics,
    /// Tells people.
    pub journal: Journal,
    /// Time of events.
    pub clock: SharedClock,
    /// Turns true when it is known what manifests name.
    pub ready: watch::Receiver<bool>,
}

/// What one look at the disk came to.
#[derive(Debug, Default)]
struct Pass {
    removed: Removed,
    /// How full the file system is now, in per cent.
    used: u8,
}

#[derive(Debug, thiserror::Error)]
enum GcError {
    #[error(transparent)]
    Roots(#[from] roots::RootsError),
    #[error("cannot remove images")]
    Store(#[from] StoreError),
    #[error("cannot remove images: the thread ended early")]
    Thread,
}

impl ImageGc {
    /// Looks now and then, until the future is dropped.
    pub async fn run(mut self) {
        if self.ready.wait_for(|ready| *ready).await.is_err() {
            return;
        }
        let shortage = self.store.shortage();
        let mut complained: Option<String> = None;
        loop {
            let short = tokio::select! {
                () = tokio::time::sleep(self.settings.period) => false,
                () = shortage.notified() => true,
            };
            let complaint = match self.pass(short).await {
                Ok(pass) => {
                    self.tell(&pass);
                    (pass.used >= self.settings.high_percent).then(|| {
                        format!("the disk of the images is {} % full, and no image is left that could go", pass.used)
                    })
                }
                Err(error) => Some(spec::causes::chain(&error)),
            };
            if complaint.is_some() && complaint != complained {
                let message = complaint.clone().unwrap_or_default();
                tracing::warn!(message, "images not removed");
                self.event(EventKind::Warning, Word::IMAGE_GC_FAILED, message);
            }
            complained = complaint;
            if short {
                tokio::time::sleep(SHORTAGE_PAUSE).await;
            }
        }
    }

    async fn pass(&self, short: bool) -> Result<Pass, GcError> {
        let (store, data, settings) = (self.store.clone(), self.data_dir.clone(), self.settings);
        let pass = tokio::task::spawn_blocking(move || collect(&store, &data, settings, short)).await;
        let pass = pass.map_err(|_| GcError::Thread)??;
        self.metrics.image_gc(pass.removed.images.len() as u64, pass.removed.bytes, pass.used);
        Ok(pass)
    }

    fn tell(&self, pass: &Pass) {
        let Removed { references, images, bytes, .. } = &pass.removed;
        if images.is_empty() {
            return;
        }
        let mut names: Vec<String> = references.iter().take(NAMED).map(ToString::to_string).collect();
        if references.len() > NAMED {
            names.push(format!("{} more", references.len() - NAMED));
        }
        let (count, names) = (images.len(), names.join(", "));
        tracing::info!(images = count, bytes, names, "images removed");
        let mib = bytes.div_ceil(1 << 20);
        let message = format!("{count} unused image(s) removed, {mib} MiB: {names}");
        self.event(EventKind::Normal, Word::IMAGE_GC, message);
    }

    fn event(&self, kind: EventKind, reason: Word, message: String) {
        self.journal.record(Event::of_node(self.clock.unix(), kind, reason, message));
    }
}

/// One look. `short`: a pull has found too little space, so that the high threshold does not matter.
fn collect(store: &Store, data: &Path, settings: ImageGcSettings, short: bool) -> Result<Pass, GcError> {
    let keep = roots::all(data, store)?;
    for image in &keep {
        // One that is named and was never pulled has no time to set.
        if store.image_by_digest(image)?.is_some() {
            store.touch(image)?;
        }
    }
    let now = SystemTime::now();
    let mut removed = Removed::default();
    if let Some(older_than) = settings.max_age {
        add(&mut removed, prune(store, &keep, now, older_than.max(MINIMUM_AGE), None)?);
    }
    let high = if short { 0 } else { settings.high_percent };
    add(&mut removed, prune(store, &keep, now, MINIMUM_AGE, Some((high, settings.low_percent)))?);
    Ok(Pass { removed, used: store.used_percent()? })
}

fn prune(
    store: &Store,
    keep: &BTreeSet<spec::digest::Digest>,
    now: SystemTime,
    older_than: Duration,
    thresholds: Option<(u8, u8)>,
) -> Result<Removed, StoreError> {
    store.prune(&PruneOptions { keep: keep.clone(), now, older_than, thresholds, loaded: false })
}

fn add(all: &mut Removed, more: Removed) {
    all.references.extend(more.references);
    all.images.extend(more.images);
    all.layers.extend(more.layers);
    all.bytes = all.bytes.saturating_add(more.bytes);
}
