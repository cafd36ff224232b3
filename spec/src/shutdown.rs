//! In which order pods are stopped at a shutdown: whoever depends on another one goes before it.

use std::collections::{BTreeMap, BTreeSet};

use crate::workload::WorkloadId;

/// Groups of workloads, each to be stopped after the ones before it. `depends_on` tells what a workload needs.
///
/// Workloads that need each other in a circle are stopped together, at the end: there is no better order for them.
#[must_use]
pub fn order(
    workloads: &BTreeSet<WorkloadId>,
    depends_on: &BTreeMap<WorkloadId, BTreeSet<WorkloadId>>,
) -> Vec<BTreeSet<WorkloadId>> {
    let mut left = workloads.clone();
    let mut groups = Vec::new();
    while !left.is_empty() {
        let needed = |id: &WorkloadId| {
            left.iter().any(|other| other != id && depends_on.get(other).is_some_and(|needs| needs.contains(id)))
        };
        let free: BTreeSet<WorkloadId> = left.iter().filter(|id| !needed(id)).cloned().collect();
        let group = if free.is_empty() { left.clone() } else { free };
        left.retain(|id| !group.contains(id));
        groups.push(group);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::WorkloadKind;

    fn id(name: &str) -> WorkloadId {
        WorkloadId { kind: WorkloadKind::Service, namespace: "shop".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn dependents_go_first() {
        // "a>b": a needs b. Expected: groups in order, names in each sorted.
        let check = |all: &str, needs: &str, expected: &str| {
            let workloads = all.split_whitespace().map(id).collect();
            let mut depends: BTreeMap<WorkloadId, BTreeSet<WorkloadId>> = BTreeMap::new();
            for pair in needs.split_whitespace() {
                let (who, what) = pair.split_once('>').expect("a pair");
                depends.entry(id(who)).or_default().insert(id(what));
            }
            let groups: Vec<String> = order(&workloads, &depends)
                .iter()
                .map(|group| group.iter().map(|id| id.name.clone()).collect::<Vec<_>>().join(" "))
                .collect();
            assert_eq!(groups.join(" | "), expected, "{all}: {needs}");
        };
        check("", "", "");
        check("a b c", "", "a b c");
        check("web api db", "web>api api>db", "web | api | db");
        check("web api db job", "web>db api>db", "api job web | db");
        check("a b c", "a>b b>a", "c | a b");
        check("a", "a>a", "a");
        // What is needed and not there changes nothing.
        check("a b", "a>gone gone>b", "a b");
    }
}
