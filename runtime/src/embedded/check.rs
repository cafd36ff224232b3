//! What can be known to be wrong with a pod before it is made: asked while the pod that it replaces still runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use spec::causes::chain;
use spec::observed::{PodRecord, PortKey};
use spec::pod::VolumeSource;

use super::{Inner, config, failure, program, records, transient};
use crate::api::{ContainerStart, FailureClass, Result};
use crate::volume;

impl Inner {
    /// Looks at volumes, devices, configurations and ports of a pod that does not exist yet. Makes nothing.
    pub(super) fn check_pod(&self, record: &Arc<PodRecord>) -> Result<()> {
        let operation = format!("prepare pod `{}`", record.name);
        volume::check(record, &self.dirs()).map_err(|error| transient(&operation)(error.into()))?;
        for volume in &record.spec.volumes {
            let VolumeSource::Image { image, .. } = &volume.source else { continue };
            let found =
                self.volume_image(record, &volume.name, image).map_err(|error| transient(&operation)(error.into()))?;
            if found.is_none() {
                let why = format!("image `{image}` of volume `{}` is not in the store", volume.name);
                return Err(failure(operation, FailureClass::Transient, why));
            }
        }
        for container in record.spec.all_containers() {
            for device in &container.devices {
                if !Path::new(&device.host_path).exists() {
                    let why =
                        format!("container `{}` needs device {}, which is not there", container.name, device.host_path);
                    return Err(failure(operation, FailureClass::Transient, why));
                }
            }
        }
        self.runtime_of(record, &operation)?;
        self.check_configurations(record, &operation)?;
        self.check_ports(record, &operation)
    }

    /// Whether each image fits what its container asks of it: something to run, a user that exists and may be.
    fn check_configurations(&self, record: &Arc<PodRecord>, operation: &str) -> Result<()> {
        for container in record.spec.all_containers() {
            let Some(digest) = record.images.get(&container.name) else { continue };
            let image = self.store.image_by_digest(digest).map_err(|error| transient(operation)(error.into()))?;
            let Some(image) = image else {
                let why = format!("image {digest} of container `{}` is not in the store", container.name);
                return Err(failure(operation, FailureClass::Transient, why));
            };
            let start = ContainerStart {
                pod: Arc::clone(record),
                container: Arc::new(container.clone()),
                attempt: 0,
                series: 0,
                image: *digest,
                env: Vec::new(),
                files: BTreeMap::new(),
            };
            let inputs = config::Inputs {
                start: &start,
                image: &image,
                layout: self.layout(),
                attempt: &self.layout().attempt(&record.uid, &container.name, 0),
                volumes: Vec::new(),
                users: None,
                runtime: None,
                options: &self.options,
            };
            let permanent = |error| super::config_failure(operation, error);
            let made = config::container_config(inputs).map_err(permanent)?;
            // Without an old pod there is nothing to save, and a container that fails to start has its rules: a Job fails.
            if let Some(why) = program::fault(&made, container)
                && records::pods(self.layout()).0.iter().any(|pod| pod.workload == record.workload)
            {
                return Err(failure(operation, FailureClass::Permanent, why));
            }
            config::stop_signal(container, Some(&image)).map_err(permanent)?;
        }
        Ok(())
    }

    /// Whether the ports of the host are free or ours.
    fn check_ports(&self, record: &PodRecord, operation: &str) -> Result<()> {
        if record.spec.host_network {
            return Ok(());
        }
        let ports = record.spec.all_containers().flat_map(|container| &container.ports);
        let keys: Vec<PortKey> = ports
            .filter_map(|port| {
                let host_port = port.host_port?;
                Some(PortKey { protocol: port.protocol, host_ip: port.host_ip, host_port })
            })
            .collect();
        let faults = self.network.check_ports(keys.iter());
        if faults.is_empty() || self.is_on_the_host(record) {
            return Ok(());
        }
        let why = faults.iter().map(|fault| chain(fault)).collect::<Vec<_>>().join("; ");
        Err(failure(operation, FailureClass::Transient, why))
    }

    /// Whether a pod of the same workload is on the host's network: the port may be taken by what is to be replaced.
    fn is_on_the_host(&self, record: &PodRecord) -> bool {
        let (pods, _) = records::pods(self.layout());
        pods.iter().any(|pod| pod.workload == record.workload && pod.spec.host_network)
    }
}
