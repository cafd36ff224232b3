//! What containers use - volumes, networks, images - as far as those who made it were asked. A saved inspection says
//! nothing of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::container::{list, pairs, text};
use super::mounts;

/// Answers of `volume inspect`, `network inspect` and `image inspect`.
#[derive(Debug, Default)]
pub(super) struct Known {
    volumes: BTreeMap<String, Value>,
    networks: BTreeMap<String, Value>,
    /// Names of images by id.
    images: BTreeMap<String, String>,
    /// Names of containers by id.
    containers: BTreeMap<String, String>,
}

impl Known {
    /// What the inspections of containers say of each other.
    pub(super) fn of(inspected: &[Value]) -> Self {
        let named = |found: &Value| (text(&found["Id"]).to_owned(), container_name(found).to_owned());
        let containers = inspected.iter().map(named).filter(|(id, name)| !id.is_empty() && !name.is_empty());
        Self { containers: containers.collect(), ..Self::default() }
    }

    /// Asks for what these containers use: the kind of object, then names or ids of such.
    pub(super) fn ask(&mut self, inspected: &[Value], ask: &mut dyn FnMut(&'static str, Vec<String>) -> Vec<Value>) {
        let mut wanted = |kind, names: BTreeSet<String>| {
            if names.is_empty() { Vec::new() } else { ask(kind, names.into_iter().collect()) }
        };
        let volumes = inspected.iter().flat_map(mounts::volumes).map(|mount| text(&mount["Name"]).to_owned());
        for found in wanted("volume", volumes.collect()) {
            self.volumes.insert(text(&found["Name"]).to_owned(), found);
        }
        let networks = inspected.iter().flat_map(|found| pairs(&found["NetworkSettings"]["Networks"]));
        let networks = networks.map(|(name, _)| name).filter(|name| is_own(name)).cloned();
        for found in wanted("network", networks.collect()) {
            // podman writes names of fields small.
            let name = found["Name"].as_str().unwrap_or_else(|| text(&found["name"])).to_owned();
            self.networks.insert(name, found);
        }
        let by_id = |found: &&Value| is_image_id(text(&found["Config"]["Image"]), found);
        let images = inspected.iter().filter(by_id).map(|found| image_id(found).to_owned());
        for found in wanted("image", images.collect()) {
            let names = [list(&found["RepoTags"]), list(&found["RepoDigests"])].concat();
            if let Some(name) = names.into_iter().find(|name| !name.contains("<none>")) {
                self.images.insert(text(&found["Id"]).trim_start_matches("sha256:").to_owned(), name.to_owned());
            }
        }
    }

    pub(super) fn volume(&self, name: &str) -> Option<&Value> {
        self.volumes.get(name)
    }

    pub(super) fn network(&self, name: &str) -> Option<&Value> {
        self.networks.get(name)
    }

    /// A name for the image of a container that was made from an id.
    pub(super) fn image(&self, inspected: &Value) -> Option<&str> {
        self.images.get(image_id(inspected)).map(String::as_str)
    }

    /// A text in which containers whose namespaces are shared go by their names.
    pub(super) fn with_names(&self, said: &str) -> String {
        let shared = |said: String, (id, name): (&String, &String)| {
            said.replace(&format!("container:{id}"), &format!("container:{name}"))
        };
        self.containers.iter().fold(said.to_owned(), shared)
    }
}

pub(super) fn container_name(inspected: &Value) -> &str {
    text(&inspected["Name"]).trim_start_matches('/')
}

/// Whether somebody made this network: the others are there from the start.
pub(super) fn is_own(network: &str) -> bool {
    !matches!(network, "" | "default" | "bridge" | "host" | "none" | "podman" | "private")
        && !["slirp4netns", "pasta", "container:"].iter().any(|start| network.starts_with(start))
}

fn image_id(inspected: &Value) -> &str {
    text(&inspected["Image"]).trim_start_matches("sha256:")
}

/// Whether the image is named by its id or the beginning of it, which means something on that host only.
pub(super) fn is_image_id(name: &str, inspected: &Value) -> bool {
    let name = name.trim_start_matches("sha256:");
    // Nobody types less; a name that happens to begin an id is not to be taken for one.
    name.len() > 3 && image_id(inspected).starts_with(name)
}
