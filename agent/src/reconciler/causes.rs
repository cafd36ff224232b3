//! The chain from cause to effect, as it is written to the journal: what changed, what was done for it, and how
//! containers ended.

use spec::observed::{ContainerFacts, Exit, PodRecord, PodUid};
use spec::plan::{Action, Goals, Step};
use spec::workload::{Desired, WorkloadId};

use super::{EventKind, Reconciler, event};
use crate::events::{Event as JournalEvent, Word};

impl Reconciler {
    /// Writes something down that nothing of this agent caused.
    pub(super) fn say(&mut self, reason: Word, workload: Option<&WorkloadId>, message: String) -> u64 {
        tracing::info!(reason = reason.as_str(), workload = workload.map(tracing::field::display), "{message}");
        self.journal.record(event(self.clock.unix(), EventKind::Normal, reason, workload, message))
    }

    /// Writes something down that is of the node and needs attention.
    pub(super) fn warn(&mut self, reason: Word, message: String) {
        tracing::warn!(reason = reason.as_str(), "{message}");
        self.journal.record(event(self.clock.unix(), EventKind::Warning, reason, None, message));
    }

    /// An event of a step, with what it is about and what caused it.
    pub(super) fn step_event(&self, step: &Step, kind: EventKind, reason: Word, message: String) -> JournalEvent {
        let mut event = event(self.clock.unix(), kind, reason, step.workload.as_ref(), message);
        let (pod, container) = match &step.action {
            Action::StartContainer { pod, container, .. } | Action::StopContainer { pod, container, .. } => {
                (Some(pod.record.name.clone()), Some(container.clone()))
            }
            Action::RestorePod { pod }
            | Action::StopPod { pod, .. }
            | Action::FailPod { pod, .. }
            | Action::UpdateFiles { pod, .. } => (Some(pod.record.name.clone()), None),
            Action::CreatePod { name, .. } => (Some(name.clone()), None),
            Action::Prepare { .. }
            | Action::Remember { .. }
            | Action::Publish { .. }
            | Action::PublishServices { .. }
            | Action::SetNames { .. } => (None, None),
        };
        (event.pod, event.container) = (pod, container);
        event.cause = step.workload.as_ref().and_then(|id| self.causes.get(id)).copied();
        event
    }

    /// Writes down what is wished otherwise than before. At the start of an agent only what does not run so already.
    pub(super) fn note_changes(&mut self, goals: &Goals, desired: &Desired) {
        let first = self.goals.workloads.is_empty() && self.passes == 0;
        let mut found: Vec<(WorkloadId, String)> = Vec::new();
        for (id, goal) in &goals.workloads {
            let file = &goal.workload.source.file;
            let message = match self.goals.workloads.get(id) {
                None => {
                    let runs = self
                        .observed
                        .pods
                        .values()
                        .any(|pod| pod.record.workload == *id && pod.record.revision == goal.revision);
                    if first && runs {
                        continue;
                    }
                    format!("{file}: new")
                }
                Some(old) if old.revision != goal.revision => {
                    let changes = spec::diff::changes(&old.workload.template.spec, &goal.workload.template.spec);
                    let shown: Vec<String> = changes.iter().take(5).map(ToString::to_string).collect();
                    let shown = if shown.is_empty() { "labels or annotations".to_owned() } else { shown.join("; ") };
                    format!("{file}: {shown}")
                }
                Some(old) if old.files != goal.files => {
                    let (configs, secrets) = spec::hold::references(&goal.workload.template.spec);
                    let key = |name: &String| (id.namespace.clone(), name.clone());
                    let configs = configs
                        .iter()
                        .filter(|name| self.desired.configs.get(&key(name)) != desired.configs.get(&key(name)));
                    let secrets = secrets
                        .iter()
                        .filter(|name| self.desired.secrets.get(&key(name)) != desired.secrets.get(&key(name)));
                    let configs = configs.map(|name| format!("ConfigMap {name}"));
                    let names: Vec<String> = configs.chain(secrets.map(|name| format!("Secret {name}"))).collect();
                    format!("content of {} changed", names.join(", "))
                }
                Some(old) if old.workload.controller != goal.workload.controller => {
                    format!("{file}: number of pods or strategy")
                }
                Some(_) => continue,
            };
            found.push((id.clone(), message));
        }
        for (id, old) in self.goals.workloads.iter().filter(|(id, _)| !goals.workloads.contains_key(id)) {
            found.push((id.clone(), format!("{}: it is gone from there", old.workload.source.file)));
        }
        for (id, message) in found {
            let number = self.say(Word::SOURCE_CHANGED, Some(&id), message);
            self.causes.insert(id, number);
        }
    }

    /// Writes down that an attempt has ended, once.
    pub(super) fn note_exit(
        &mut self,
        record: &PodRecord,
        name: &str,
        before: Option<&ContainerFacts>,
        after: &ContainerFacts,
    ) {
        let Some(exit) = after.exit() else { return };
        // What had ended before this agent saw it was written down by the one before, as far as there was one.
        let known = before.is_none_or(|before| before.attempt == after.attempt && !before.is_running());
        if known {
            return;
        }
        let id = &record.workload;
        let ordered = exit.stopped || self.observed.stopping.contains_key(&record.uid);
        let bad = !ordered && (exit.code != 0 || exit.oom);
        let kind = if bad { EventKind::Warning } else { EventKind::Normal };
        let word = if exit.oom { Word::OOM_KILLED } else { Word::EXITED };
        let mut event = event(self.clock.unix(), kind, word, Some(id), sentence(name, &record.name, exit));
        (event.pod, event.container) = (Some(record.name.clone()), Some(name.to_owned()));
        event.cause = self.causes.get(id).copied();
        let number = self.journal.record(event);
        if !ordered {
            self.causes.insert(id.clone(), number);
        }
    }

    /// A pod's name.
    pub(super) fn pod_name(&self, uid: &PodUid) -> Option<String> {
        self.observed.pods.get(uid).map(|pod| pod.record.name.clone())
    }
}

fn sentence(container: &str, pod: &str, exit: &Exit) -> String {
    let how = match (exit.oom, exit.signal, &exit.error) {
        (true, ..) => "was killed for want of memory".to_owned(),
        (_, _, Some(error)) => format!("could not start: {error}"),
        (_, Some(signal), _) => format!("was ended by signal {signal}"),
        (_, None, None) => format!("ended with code {}", exit.code),
    };
    let ran = exit.started.map(|started| exit.finished.since(started).as_duration());
    let ran =
        ran.map(|ran| format!(" after {}", humantime::format_duration(std::time::Duration::from_secs(ran.as_secs()))));
    let said = exit.message.as_deref().map(|text| format!(": {}", text.trim())).unwrap_or_default();
    format!("container {container} of pod {pod} {how}{}{said}", ran.unwrap_or_default())
}
