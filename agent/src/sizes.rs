//! Measures now and then what images and named volumes take of the disk, for metrics. Nobody decides by it.
//!
//! Walking volumes costs in proportion to their files, so that it is done in the background, with a rest that is long
//! against the work, and a scrape only reads what was found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::image::store::{Store, StoreError};

use crate::telemetry::Metrics;

/// Between two rounds.
const PERIOD: Duration = Duration::from_secs(300);
/// A round that takes long is followed by so many times its length of rest: at most half a per cent of one core.
const REST: u32 = 200;
/// Volumes that get a series of their own, the largest first.
const MAX_VOLUMES: usize = 200;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Images, and bytes of their layers, shared ones once.
    pub images: (usize, u64),
    /// Bytes of named volumes by name.
    pub volumes: BTreeMap<String, u64>,
}

/// Measures until the future is dropped.
pub async fn run(store: Store, data_dir: PathBuf, metrics: Metrics) {
    loop {
        let (store, data_dir, metrics) = (store.clone(), data_dir.clone(), metrics.clone());
        let measured = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            match measure(&store, &data_dir) {
                Ok(sizes) => metrics.sizes(&sizes),
                Err(error) => tracing::warn!(error = spec::causes::chain(&error), "images not measured"),
            }
            begun.elapsed()
        });
        let took = measured.await.unwrap_or_default();
        tokio::time::sleep(PERIOD.max(took.saturating_mul(REST))).await;
    }
}

fn measure(store: &Store, data_dir: &Path) -> Result<Sizes, StoreError> {
    let usage = store.disk_usage()?;
    let mut found: Vec<(String, u64)> = Vec::new();
    // What cannot be read, or goes meanwhile, has no series.
    for entry in std::fs::read_dir(data_dir.join("volumes")).into_iter().flatten().flatten() {
        if let (Ok(name), Ok(bytes)) = (entry.file_name().into_string(), runtime::volume::usage(&entry.path())) {
            found.push((name, bytes));
        }
    }
    found.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    found.truncate(MAX_VOLUMES);
    Ok(Sizes { images: (usage.images.len(), usage.total), volumes: found.into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_measured_and_the_smallest_of_too_many_left_out() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let store = Store::open(&dir.path().join("images")).expect("a store");
        assert_eq!(measure(&store, dir.path()).expect("measured"), Sizes::default(), "nothing is there yet");
        for number in 0..=MAX_VOLUMES {
            let volume = dir.path().join(format!("volumes/v{number}"));
            std::fs::create_dir_all(&volume).expect("a directory");
            // One file system block for all but the first.
            std::fs::write(volume.join("f"), vec![1; 100 * number]).expect("a file");
        }
        std::fs::write(dir.path().join("volumes/v7/f"), vec![1; 1 << 20]).expect("a file");
        let sizes = measure(&store, dir.path()).expect("measured");
        assert_eq!(sizes.volumes.len(), MAX_VOLUMES);
        assert!(sizes.volumes.get("v7").is_some_and(|bytes| (1 << 20..2 << 20).contains(bytes)), "{sizes:?}");
        assert!(!sizes.volumes.contains_key("v0"), "the smallest is left out");
    }
}
