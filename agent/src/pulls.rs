//! How far pulls are: put into an answer at the moment of asking, so that nothing has to be told while nobody looks.

use std::collections::BTreeSet;
use std::sync::Arc;

use runtime::api::{Pulls, RunningPull};
use spec::image_ref::ImageRef;
use spec::pod::{PodSpec, VolumeSource};

use crate::status::{PullStatus, Snapshot};

/// The snapshot with the pulls that run now; workloads that wait for one say how far it is.
#[must_use]
pub fn shown(snapshot: Arc<Snapshot>, pulls: Pulls) -> Arc<Snapshot> {
    if pulls.running.is_empty() {
        return snapshot;
    }
    let mut shown = Snapshot::clone(&snapshot);
    let mut running: Vec<PullStatus> = pulls.running.iter().map(status).collect();
    running.sort_by(|a, b| a.image.cmp(&b.image));
    for wait in shown.workloads.iter_mut().flat_map(|workload| &mut workload.waiting) {
        let of: Vec<String> = running.iter().filter(|pull| wait.images.contains(&pull.image)).map(sentence).collect();
        if !of.is_empty() {
            wait.message = format!("pulling {}", of.join("; "));
        }
    }
    shown.pulls = running;
    Arc::new(shown)
}

/// Every image that a pod needs, those of volumes included.
pub(crate) fn images(spec: &PodSpec) -> BTreeSet<&ImageRef> {
    let volumes = spec.volumes.iter().filter_map(|volume| match &volume.source {
        VolumeSource::Image { image, .. } => Some(image),
        _ => None,
    });
    spec.all_containers().filter_map(|container| container.image.as_ref()).chain(volumes).collect()
}

/// What is about to be fetched, for the journal.
pub(crate) fn beginning(pull: &RunningPull) -> String {
    let missing = pull.layers - pull.done.min(pull.layers);
    let layers = if pull.layers == 1 { "layer" } else { "layers" };
    format!("fetching {missing} of {} {layers} of {}, {}", pull.layers, pull.reference, amount(pull.bytes))
}

fn status(pull: &RunningPull) -> PullStatus {
    PullStatus {
        image: pull.reference.to_string(),
        layers: pull.layers,
        done: pull.done,
        bytes: pull.bytes,
        received: pull.received,
    }
}

fn sentence(pull: &PullStatus) -> String {
    let PullStatus { image, layers, done, bytes, received } = pull;
    match layers {
        0 => format!("{image}: asking its registry"),
        1 => format!("{image}: {done} of 1 layer, {} of {}", amount(*received), amount(*bytes)),
        _ => format!("{image}: {done} of {layers} layers, {} of {}", amount(*received), amount(*bytes)),
    }
}

/// Bytes in the units of events.
pub(crate) fn amount(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        _ => format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{WaitStatus, WorkloadStatus};

    fn pull(image: &str, layers: usize, done: usize, bytes: u64, received: u64) -> RunningPull {
        RunningPull { reference: ImageRef::parse(image).expect("a reference"), layers, done, bytes, received }
    }

    #[test]
    fn who_waits_for_an_image_is_told_how_far_it_is() {
        let full = |image: &str| ImageRef::parse(image).expect("a reference").to_string();
        let waiting = |reason: &str, images: &[&str]| WorkloadStatus {
            waiting: vec![WaitStatus {
                reason: reason.to_owned(),
                message: "as before".to_owned(),
                images: images.iter().map(|image| full(image)).collect(),
            }],
            ..WorkloadStatus::default()
        };
        let before = Arc::new(Snapshot {
            workloads: vec![
                waiting("pulling", &["web:1", "side:1"]),
                waiting("pulling", &["other:1"]),
                waiting("dependency", &[]),
            ],
            ..Snapshot::default()
        });
        assert!(Arc::ptr_eq(&before, &shown(Arc::clone(&before), Pulls::default())), "nothing to be told");
        let running = vec![pull("web:1", 10, 3, 188_743_680, 42_991_616), pull("side:1", 0, 0, 0, 0)];
        let after = shown(Arc::clone(&before), Pulls { running, fetched: 0 });
        let said: Vec<&str> = after.workloads.iter().map(|workload| workload.waiting[0].message.as_str()).collect();
        let first = format!(
            "pulling {}: asking its registry; {}: 3 of 10 layers, 41.0 MiB of 180.0 MiB",
            full("side:1"),
            full("web:1")
        );
        assert_eq!(said, [first.as_str(), "as before", "as before"]);
        assert_eq!(after.pulls.len(), 2);
        assert_eq!(after.pulls[1].received, 42_991_616);
    }

    #[test]
    fn the_beginning_says_what_is_to_come() {
        for (layers, done, bytes, expected) in
            [(10, 3, 5 << 20, "fetching 7 of 10 layers of "), (1, 0, 1000, "fetching 1 of 1 layer of ")]
        {
            let text = beginning(&pull("web:1", layers, done, bytes, 0));
            assert!(text.starts_with(expected) && text.ends_with(&amount(bytes)), "{text}");
        }
    }
}
