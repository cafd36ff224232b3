//! Which images a bundle holds: OCI layouts by their `index.json`, Docker archives by their `manifest.json`.
//!
//! Digests are checked for everything that is read here; layers are checked while they are unpacked.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use spec::digest::Digest;
use spec::image_ref::ImageRef;

use super::bundle::Bundle;
use crate::image::registry::check_file;
use crate::image::store::{StoreError, parse_config, parse_json, parse_manifest};

/// Largest index, manifest or configuration.
const MAX_JSON: u64 = 8 << 20;
/// Indexes inside of indexes.
const MAX_NESTING: usize = 4;
/// Manifests looked at in one bundle.
const MAX_MANIFESTS: usize = 1000;
/// Manifests and configurations of all images of one bundle together; they are kept in memory.
const MAX_PLANNED: usize = 64 << 20;

/// One image to be loaded.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) references: Vec<ImageRef>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    /// Lowest first.
    pub(crate) layers: Vec<PlannedLayer>,
}

/// Where a layer is, and what it has to be.
#[derive(Debug, Clone)]
pub(crate) struct PlannedLayer {
    pub(crate) name: String,
    pub(crate) diff_id: Digest,
    /// Digest and size of the stored bytes, when the format tells.
    pub(crate) blob: Option<(Digest, u64)>,
}

#[derive(Debug, Clone, Deserialize)]
struct Descriptor {
    #[serde(default, rename = "mediaType")]
    media_type: Option<String>,
    digest: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The architecture of this host as images name it (Go's GOARCH).
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "x86" => "386",
        other => other,
    }
}

/// Every image of a bundle, for this host's platform.
pub(crate) fn plan(bundle: &Bundle) -> Result<Vec<Planned>, StoreError> {
    if let Some(index) = bundle.small("index.json", MAX_JSON)? {
        return oci(bundle, &index);
    }
    if let Some(manifest) = bundle.small("manifest.json", MAX_JSON)? {
        return docker(bundle, &manifest);
    }
    Err(bundle.fault("it has neither `index.json` (OCI layout) nor `manifest.json` (docker save)".to_owned()))
}

fn oci(bundle: &Bundle, index: &[u8]) -> Result<Vec<Planned>, StoreError> {
    let index: Index = parse_json("index", index)?;
    let mut groups: BTreeMap<Option<String>, Vec<Descriptor>> = BTreeMap::new();
    for descriptor in index.manifests.unwrap_or_default() {
        groups.entry(written_name(&descriptor)).or_default().push(descriptor);
    }
    let mut seen = 0;
    let mut planned: Vec<Planned> = Vec::new();
    let mut refused = None;
    for (name, descriptors) in groups {
        let reference = match &name {
            Some(name) => reference_of(bundle, name)?,
            None => None,
        };
        let mut leaves = Vec::new();
        for descriptor in descriptors {
            collect(bundle, descriptor, 0, &mut seen, &mut leaves)?;
        }
        // Without names and platforms they are so many images; else one image for so many platforms.
        let alone = name.is_none() && leaves.iter().all(|leaf| leaf.platform.is_none());
        let chosen =
            if alone { leaves } else { choose(leaves).map_err(|found| refused = Some(found)).into_iter().collect() };
        for leaf in chosen {
            let digest = parse_digest(bundle, &leaf.digest)?;
            let image = oci_image(bundle, digest)?;
            match planned.iter_mut().find(|planned| planned.manifest == image.manifest) {
                Some(known) => known.references.extend(reference.clone()),
                None => planned.push(Planned { references: reference.clone().into_iter().collect(), ..image }),
            }
            check_size(bundle, &planned)?;
        }
    }
    match (planned.is_empty(), refused) {
        (false, None) => Ok(planned),
        (false, Some(found)) => {
            tracing::warn!(path = %bundle.path().display(), found, "image for other platforms passed over");
            Ok(planned)
        }
        (true, Some(found)) => {
            let host = host_architecture();
            Err(bundle.fault(format!("it has no image for linux/{host}, only for {found}")))
        }
        (true, None) => Err(bundle.fault("its index lists no image".to_owned())),
    }
}

fn written_name(descriptor: &Descriptor) -> Option<String> {
    let annotations = descriptor.annotations.as_ref()?;
    let keys = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
    keys.iter().find_map(|key| annotations.get(*key)).filter(|name| !name.is_empty()).cloned()
}

/// `org.opencontainers.image.ref.name` is a whole reference to some tools, and a bare tag to others (skopeo, the
/// specification's own examples). A bare word is taken as the tag of an image that is called like the file.
fn reference_of(bundle: &Bundle, name: &str) -> Result<Option<ImageRef>, StoreError> {
    if name.contains([':', '/', '@']) {
        return ImageRef::parse(name).map(Some).map_err(|error| bundle.fault(error.to_string()));
    }
    let stem = bundle.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = stem.split('.').next().unwrap_or_default().to_ascii_lowercase();
    match ImageRef::parse(&format!("localhost/{stem}:{name}")) {
        Ok(reference) => Ok(Some(reference)),
        Err(error) => {
            // The tag itself may be the fault, and that is the image's.
            ImageRef::parse(&format!("localhost/x:{name}")).map_err(|_| bundle.fault(error.to_string()))?;
            Ok(None)
        }
    }
}

/// Follows indexes down to manifests.
fn collect(
    bundle: &Bundle,
    descriptor: Descriptor,
    depth: usize,
    seen: &mut usize,
    leaves: &mut Vec<Descriptor>,
) -> Result<(), StoreError> {
    *seen += 1;
    if depth > MAX_NESTING || *seen > MAX_MANIFESTS {
        return Err(bundle.fault("its index has too many entries, or entries nested too deep".to_owned()));
    }
    let is_attestation = descriptor
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key("vnd.docker.reference.type"));
    if is_attestation {
        return Ok(());
    }
    let is_index = match descriptor.media_type.as_deref() {
        Some(
            "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json",
        ) => true,
        Some("application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json") => {
            false
        }
        Some("") | None => {
            let bytes = blob(bundle, parse_digest(bundle, &descriptor.digest)?)?;
            let content: Value = parse_json("manifest", &bytes)?;
            content.get("manifests").is_some()
        }
        // Something that is kept beside images: a signature, a chart.
        Some(_) => return Ok(()),
    };
    if !is_index {
        leaves.push(descriptor);
        return Ok(());
    }
    let bytes = blob(bundle, parse_digest(bundle, &descriptor.digest)?)?;
    let index: Index = parse_json("index", &bytes)?;
    for below in index.manifests.unwrap_or_default() {
        collect(bundle, below, depth + 1, seen, leaves)?;
    }
    Ok(())
}

/// The manifest for this host; else the platforms there are.
fn choose(leaves: Vec<Descriptor>) -> Result<Descriptor, String> {
    let rank = |leaf: &Descriptor| match &leaf.platform {
        Some(platform) if platform.os == "linux" && platform.architecture == host_architecture() => {
            match (platform.architecture.as_str(), platform.variant.as_deref()) {
                (_, None | Some("")) | ("arm64", Some("v8")) | ("amd64", Some("v1")) => Some(0),
                _ => Some(2),
            }
        }
        Some(_) => None,
        None => Some(1),
    };
    let names = leaves.iter().filter_map(|leaf| leaf.platform.as_ref());
    let mut names: Vec<String> = names.map(|p| format!("{}/{}", p.os, p.architecture)).collect();
    names.dedup();
    let mut ranked: Vec<(u8, Descriptor)> =
        leaves.into_iter().filter_map(|leaf| rank(&leaf).map(|rank| (rank, leaf))).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    match ranked.into_iter().next() {
        Some((_, leaf)) => Ok(leaf),
        None if names.is_empty() => Err("nothing".to_owned()),
        None => Err(names.join(", ")),
    }
}

fn parse_digest(bundle: &Bundle, text: &str) -> Result<Digest, StoreError> {
    Digest::parse(text).map_err(|error| bundle.fault(error.to_string()))
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A manifest, index or configuration of a layout.
fn blob(bundle: &Bundle, digest: Digest) -> Result<Vec<u8>, StoreError> {
    let name = blob_name(digest);
    let bytes = bundle.small(&name, MAX_JSON)?.ok_or_else(|| bundle.fault(format!("`{name}` is missing")))?;
    let found = Digest::of(&bytes);
    if found != digest {
        return Err(StoreError::Damaged { path: bundle.path().join(name), expected: digest, found });
    }
    Ok(bytes)
}

fn oci_image(bundle: &Bundle, digest: Digest) -> Result<Planned, StoreError> {
    let manifest = blob(bundle, digest)?;
    // What a registry may not send is no image in a file either: charts, schema 1, layers of unknown types.
    check_file(&manifest).map_err(|error| bundle.fault(error.to_string()))?;
    let body = parse_manifest(&manifest)?;
    let config = blob(bundle, body.config.digest)?;
    let diff_ids = parse_config(&config)?.diff_ids;
    if diff_ids.len() != body.layers.len() {
        let (layers, ids) = (body.layers.len(), diff_ids.len());
        return Err(bundle.fault(format!("a manifest has {layers} layers, its configuration {ids}")));
    }
    let layers = body.layers.iter().zip(diff_ids).map(|(layer, diff_id)| PlannedLayer {
        name: blob_name(layer.digest),
        diff_id,
        blob: Some((layer.digest, layer.size)),
    });
    Ok(Planned { references: Vec::new(), layers: layers.collect(), manifest, config })
}

fn docker(bundle: &Bundle, manifest: &[u8]) -> Result<Vec<Planned>, StoreError> {
    let images: Vec<DockerImage> = parse_json("manifest", manifest)?;
    if images.is_empty() {
        return Err(bundle.fault("its `manifest.json` lists no image".to_owned()));
    }
    if images.len() > MAX_MANIFESTS {
        return Err(bundle.fault("its `manifest.json` lists too many images".to_owned()));
    }
    let mut planned = Vec::new();
    for image in images {
        planned.push(docker_image(bundle, image)?);
        check_size(bundle, &planned)?;
    }
    Ok(planned)
}

fn check_size(bundle: &Bundle, planned: &[Planned]) -> Result<(), StoreError> {
    if planned.iter().map(|image| image.manifest.len() + image.config.len()).sum::<usize>() > MAX_PLANNED {
        return Err(
            bundle.fault(format!("manifests and configurations of its images are larger than {MAX_PLANNED} bytes"))
        );
    }
    Ok(())
}

fn docker_image(bundle: &Bundle, image: DockerImage) -> Result<Planned, StoreError> {
    let missing = |name: &str| bundle.fault(format!("`{name}` is missing"));
    let config = bundle.small(&image.config, MAX_JSON)?.ok_or_else(|| missing(&image.config))?;
    let stem = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    // The file's name is its digest where Docker has written it.
    if let Ok(expected) = Digest::parse(&format!("sha256:{stem}")) {
        let found = Digest::of(&config);
        if found != expected {
            return Err(StoreError::Damaged { path: bundle.path().join(&image.config), expected, found });
        }
    }
    let diff_ids = parse_config(&config)?.diff_ids;
    let names = image.layers.unwrap_or_default();
    if diff_ids.len() != names.len() {
        let (layers, ids) = (names.len(), diff_ids.len());
        return Err(bundle.fault(format!("an image has {layers} layers, its configuration {ids}")));
    }
    let mut references = Vec::new();
    for tag in image.repo_tags.unwrap_or_default() {
        references.push(ImageRef::parse(&tag).map_err(|error| bundle.fault(error.to_string()))?);
    }
    let mut layers = Vec::new();
    let mut descriptors = Vec::new();
    for (name, diff_id) in names.into_iter().zip(diff_ids) {
        let size = bundle.file(&name)?.ok_or_else(|| missing(&name))?.size();
        descriptors.push(json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": diff_id,
            "size": size
        }));
        layers.push(PlannedLayer { name, diff_id, blob: None });
    }
    // A Docker archive has no manifest; this one stands for what it says, the same for the same archive.
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(&config),
            "size": config.len()
        },
        "layers": descriptors
    });
    Ok(Planned { references, manifest: manifest.to_string().into_bytes(), config, layers })
}
