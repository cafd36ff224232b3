//! Images as their manifests and configurations describe them. Both come from outside: odd ones are read with
//! patience, broken ones are errors.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::SystemTime;

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use spec::digest::Digest;
use spec::image_ref::ImageRef;

use super::layer::LayerRecord;
use super::records::Stored;
use super::{MAX_LAYERS, Store, StoreError};
use crate::image::json::{MAX_VALUES, too_many_values};
use crate::image::unpack::UnpackError;

/// Largest manifest (OCI distribution specification: registries should take 4 MiB, clients may refuse more).
const MAX_MANIFEST: usize = 4 << 20;
/// Largest configuration.
const MAX_CONFIG: usize = 8 << 20;

/// Bytes of paths in the records of all layers of one image.
const MAX_NOTED: usize = 64 << 20;

/// Where an image came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// From a registry, which can give it again.
    Pulled,
    /// From a file or directory: removing it by itself would lose it.
    Loaded,
    /// From the program itself.
    Builtin,
}

/// An image that containers can be made of.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Digest of its configuration: what Docker calls the image id.
    pub config_digest: Digest,
    /// Its configuration.
    pub config: ImageConfiguration,
    /// The same as it was written, for what the OCI type does not have (Docker's `Healthcheck`, `Shell`).
    pub config_json: Value,
    /// Digests of its uncompressed layers, lowest first, as the configuration lists them.
    pub diff_ids: Vec<Digest>,
    /// Bytes of its files.
    pub size: u64,
    /// Directories to stack, lowest first. May be fewer than `diff_ids`: a layer that is there twice is stacked once
    /// (overlayfs refuses it twice, and its upper place covers the lower one), and what is below a layer that hides
    /// everything is left out.
    pub layers: Vec<PathBuf>,
    /// Where it came from.
    pub origin: Origin,
}

/// What `images` lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Digest of its configuration.
    pub config: Digest,
    /// What it is called; nothing when its tag has moved on.
    pub references: Vec<ImageRef>,
    /// Digests of its uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// Bytes of its files, those shared with other images included.
    pub size: u64,
    /// Where it came from.
    pub origin: Origin,
    /// Nothing but a file can give it again: it came from one, or it has only names that were given here.
    pub irreplaceable: bool,
    /// Kept whatever its age.
    pub pinned: bool,
    /// All of its layers are there; else it has to be pulled again.
    pub complete: bool,
    /// When it was last used or recorded.
    pub last_used: SystemTime,
}

/// What a manifest says that matters here.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ManifestBody {
    pub(crate) config: Descriptor,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
}

/// A pointer to content.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Descriptor {
    pub(crate) digest: Digest,
    #[serde(default)]
    pub(crate) size: u64,
}

/// A parsed configuration.
#[derive(Debug)]
pub(crate) struct ParsedConfig {
    pub(crate) config: ImageConfiguration,
    pub(crate) json: Value,
    pub(crate) diff_ids: Vec<Digest>,
}

/// Reads JSON from outside, of a bounded number of values.
pub(crate) fn parse_json<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, StoreError> {
    if let Some(found) = too_many_values(bytes) {
        let reason = format!("its {what} holds {found} values, the limit is {MAX_VALUES}");
        return Err(StoreError::Invalid { reason });
    }
    serde_json::from_slice(bytes).map_err(|source| StoreError::Json { what, source })
}

pub(crate) fn parse_manifest(bytes: &[u8]) -> Result<ManifestBody, StoreError> {
    if bytes.len() > MAX_MANIFEST {
        return Err(StoreError::Invalid { reason: "its manifest is larger than 4 MiB".to_owned() });
    }
    let body: ManifestBody = parse_json("manifest", bytes)?;
    if body.layers.len() > MAX_LAYERS {
        let reason = format!("it has {} layers, and no more than {MAX_LAYERS} can be stacked", body.layers.len());
        return Err(StoreError::Invalid { reason });
    }
    Ok(body)
}

/// Reads a configuration as Docker and OCI tools write them: `null` means absent, and what does not matter for
/// running may be missing.
pub(crate) fn parse_config(bytes: &[u8]) -> Result<ParsedConfig, StoreError> {
    if bytes.len() > MAX_CONFIG {
        return Err(StoreError::Invalid { reason: "its configuration is larger than 8 MiB".to_owned() });
    }
    let mut json: Value = parse_json("configuration", bytes)?;
    without_nulls(&mut json);
    let Some(object) = json.as_object() else {
        return Err(StoreError::Invalid { reason: "its configuration is no object".to_owned() });
    };
    let mut typed = object.clone();
    // For people only: an odd one is no reason to refuse the image.
    typed.remove("history");
    typed.entry("architecture").or_insert_with(|| Value::from(""));
    typed.entry("os").or_insert_with(|| Value::from("linux"));
    let rootfs = typed.entry("rootfs").or_insert_with(|| Value::Object(serde_json::Map::new()));
    if let Some(rootfs) = rootfs.as_object_mut() {
        rootfs.entry("type").or_insert_with(|| Value::from("layers"));
        rootfs.entry("diff_ids").or_insert_with(|| Value::Array(Vec::new()));
    }
    let config: ImageConfiguration = serde_json::from_value(Value::Object(typed))
        .map_err(|source| StoreError::Json { what: "configuration", source })?;
    let mut diff_ids = Vec::new();
    for text in config.rootfs().diff_ids() {
        let diff_id = Digest::parse(text).map_err(|error| StoreError::Invalid { reason: error.to_string() })?;
        diff_ids.push(diff_id);
    }
    if diff_ids.len() > MAX_LAYERS {
        let reason = format!("it has {} layers, and no more than {MAX_LAYERS} can be stacked", diff_ids.len());
        return Err(StoreError::Invalid { reason });
    }
    Ok(ParsedConfig { config, json, diff_ids })
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

impl Store {
    pub(super) fn read_image(&self, stored: &Stored) -> Result<Image, StoreError> {
        let parsed = parse_config(&self.read_content("configs", &stored.config)?)?;
        let stack = self.stack(&stored.diff_ids)?;
        let size = stack.iter().map(|layer| layer.size).sum();
        let mut layers: Vec<PathBuf> = stack.iter().map(|layer| self.layer_path(&layer.diff_id).join("fs")).collect();
        if stored.fixup {
            layers.push(self.fixup_path(&stored.manifest));
        }
        Ok(Image {
            digest: stored.manifest,
            config_digest: stored.config,
            config: parsed.config,
            config_json: parsed.json,
            diff_ids: stored.diff_ids.clone(),
            size,
            layers,
            origin: stored.origin,
        })
    }

    /// The layers that are stacked for these diff ids, lowest first; see [`Image::layers`].
    pub(crate) fn stack(&self, diff_ids: &[Digest]) -> Result<Vec<LayerRecord>, StoreError> {
        let mut stack = Vec::new();
        let mut seen = BTreeSet::new();
        let mut noted = 0;
        for diff_id in diff_ids.iter().rev() {
            if !seen.insert(*diff_id) {
                continue;
            }
            let record = self.layer_record(diff_id)?.ok_or(StoreError::MissingLayer { diff_id: *diff_id })?;
            noted += record.noted();
            if noted > MAX_NOTED {
                let what = "the size of the names of directories and links that depend on lower layers";
                return Err(StoreError::Fixup { source: UnpackError::Limit { what, limit: MAX_NOTED as u64 } });
            }
            let hides_all = record.root_opaque;
            stack.push(record);
            if hides_all {
                break;
            }
        }
        stack.reverse();
        Ok(stack)
    }
}
