//! A desired state in the form in which it is sealed: whole, secrets included, so that it can be had again without its
//! sources.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use spec::secret::SecretBytes;
use spec::workload::{ConfigData, Desired, NetworkSpec, SecretData, Service, Workload};

type Named<T> = Vec<(String, String, T)>;

/// Everything of a [`Desired`].
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Stored {
    workloads: Vec<Arc<Workload>>,
    configs: Named<BTreeMap<String, String>>,
    secrets: Named<(String, BTreeMap<String, String>)>,
    services: Vec<Arc<Service>>,
    networks: Vec<(String, Arc<NetworkSpec>)>,
}

impl Stored {
    pub(super) fn of(desired: &Desired) -> Self {
        let encoded = |data: &[u8]| STANDARD.encode(data);
        let config = |data: &ConfigData| data.0.iter().map(|(key, value)| (key.clone(), encoded(value))).collect();
        let secret = |data: &SecretData| {
            let values = data.data.iter().map(|(key, value)| (key.clone(), encoded(value.expose()))).collect();
            (data.kind.clone(), values)
        };
        let key = |(namespace, name): &(String, String)| (namespace.clone(), name.clone());
        Self {
            workloads: desired.workloads.values().cloned().collect(),
            configs: desired.configs.iter().map(|(k, v)| (key(k).0, key(k).1, config(v))).collect(),
            secrets: desired.secrets.iter().map(|(k, v)| (key(k).0, key(k).1, secret(v))).collect(),
            services: desired.services.values().cloned().collect(),
            networks: desired.networks.iter().map(|(k, v)| (k.clone(), Arc::clone(v))).collect(),
        }
    }

    pub(super) fn into_desired(self) -> Desired {
        let decoded = |data: BTreeMap<String, String>| {
            data.into_iter().filter_map(|(key, value)| Some((key, STANDARD.decode(value).ok()?)))
        };
        let mut desired = Desired::default();
        desired.workloads.extend(self.workloads.into_iter().map(|workload| (workload.id.clone(), workload)));
        for (namespace, name, data) in self.configs {
            desired.configs.insert((namespace, name), Arc::new(ConfigData(decoded(data).collect())));
        }
        for (namespace, name, (kind, data)) in self.secrets {
            let data = decoded(data).map(|(key, value)| (key, SecretBytes::new(value))).collect();
            desired.secrets.insert((namespace, name), Arc::new(SecretData { data, kind }));
        }
        for service in self.services {
            desired.services.insert((service.namespace.clone(), service.name.clone()), service);
        }
        desired.networks.extend(self.networks);
        desired
    }
}
