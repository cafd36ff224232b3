//! Pods in the network namespace of another service's pod (Compose `network_mode: service:NAME`), such as those that
//! are to reach the world through a VPN and in no other way. Never falls back to a network of their own.

use spec::observed::{Addresses, PodRecord, PodUid};
use spec::workload::WorkloadKind;

use super::{Inner, layout::Layout, records, transient};
use crate::api::Result;
use crate::network::{self, NamespaceRequest};

/// The pod whose network a pod is in, written beside its namespaces.
const FILE: &str = "network-of";

/// Why a pod cannot join.
#[derive(Debug, thiserror::Error)]
#[error("service `{0}` has no pod whose network could be joined")]
struct NoPod(String);

/// The pod whose network this one is in, if it is in another's.
pub(super) fn owner(layout: &Layout, uid: &PodUid) -> Option<PodUid> {
    let text = std::fs::read_to_string(layout.pod_run(uid).join(FILE)).ok()?;
    (!text.is_empty()).then_some(PodUid(text))
}

impl Inner {
    /// Puts a pod into the network of the newest pod of another service, which answers with its addresses. Its IPC and
    /// UTS namespaces are its own.
    pub(super) fn join_network(&self, record: &PodRecord, service: &str, hostname: String) -> Result<Addresses> {
        let operation = format!("create pod `{}`", record.name);
        let layout = self.layout();
        let owner = self.newest_pod(record, service);
        let owner = owner.ok_or_else(|| transient(&operation)(NoPod(service.to_owned()).into()))?;
        let namespaces = layout.namespaces(&record.uid);
        if !network::is_pinned(&namespaces.join("net")) {
            let request = NamespaceRequest {
                net: false,
                ipc: !record.spec.host_ipc,
                uts: true,
                hostname: Some(hostname),
                domainname: record.spec.domainname.clone(),
                sysctls: record.spec.sysctls.clone(),
            };
            network::create_namespaces(&namespaces, &request, None)
                .and_then(|()| network::share_network_namespace(&layout.namespaces(&owner), &namespaces))
                .map_err(|error| transient(&operation)(error.into()))?;
            std::fs::write(layout.pod_run(&record.uid).join(FILE), &owner.0)
                .map_err(|error| transient(&operation)(error.into()))?;
        }
        Ok(self.addresses_of(&record.uid, record))
    }

    fn newest_pod(&self, record: &PodRecord, service: &str) -> Option<PodUid> {
        let (own, layout) = (&record.workload, self.layout());
        let (pods, _) = records::pods(layout);
        pods.into_iter()
            .filter(|other| {
                let of = &other.workload;
                of.kind == WorkloadKind::Service && of.namespace == own.namespace && of.name == service
            })
            .filter(|other| network::is_pinned(&layout.namespaces(&other.uid).join("net")))
            .max_by_key(|other| (other.created_unix, other.created))
            .map(|other| other.uid)
    }

    /// The addresses that a pod is known by: those of its first network, or of the pod whose network it is in.
    pub(super) fn addresses_of(&self, uid: &PodUid, record: &PodRecord) -> Addresses {
        let owner = record.spec.network_of.as_ref().and_then(|_| owner(self.layout(), uid));
        // Networks are listed by name; the first the pod names is the one it is known by.
        let all = self.network.addresses(owner.as_ref().unwrap_or(uid));
        let first = record.spec.networks.first().and_then(|attachment| all.get(&attachment.network));
        first.or_else(|| all.values().next()).copied().unwrap_or_default()
    }
}

/// Where the files of /etc that belong to a pod's network are: with the pod whose network it is (Docker shares them).
pub(super) fn etc_dir(layout: &Layout, record: &PodRecord, file: &str) -> std::path::PathBuf {
    let shared = if file == "hostname" { None } else { owner(layout, &record.uid) };
    let of_owner = shared.map(|owner| layout.pod_run(&owner)).filter(|dir| dir.join(file).exists());
    of_owner.unwrap_or_else(|| layout.pod_run(&record.uid))
}
