//! Images without a registry: OCI layouts (directory or archive) and Docker archives into the store, or any image
//! into a plain directory.

mod bundle;
mod flat;
mod plan;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use spec::image_ref::ImageRef;

use super::registry::check_host;
use super::store::{CompressedBlob, Image, Origin, Store, StoreError};
use super::unpack::Compression;
use crate::image::hash::Sha256;

pub use flat::{Flattened, Source, unpack_to};

use bundle::{Bundle, Section};
use plan::{Planned, PlannedLayer, plan};

/// Loads every image of an OCI layout directory, an OCI archive or a Docker archive (plain, gzip or zstd). Answers
/// each image once for each of its references, or without one.
pub fn load(store: &Store, path: &Path) -> Result<Vec<(Option<ImageRef>, Image)>, StoreError> {
    let bundle = Bundle::open(path, &store.root().join("tmp"), store.limits())?;
    let images = plan(&bundle)?;
    for image in &images {
        check_host(&image.config).map_err(|error| bundle.fault(error.to_string()))?;
    }
    store.check_room(missing(store, &bundle, &images)?)?;
    let mut loaded = Vec::new();
    for planned in images {
        loaded.extend(load_one(store, &bundle, &planned)?);
    }
    Ok(loaded)
}

/// Bytes of layers, as they are in the bundle, that are not in the store yet.
fn missing(store: &Store, bundle: &Bundle, images: &[Planned]) -> Result<u64, StoreError> {
    let mut sizes = BTreeMap::new();
    for layer in images.iter().flat_map(|image| &image.layers) {
        if !sizes.contains_key(&layer.diff_id) && !store.has_layer(&layer.diff_id) {
            sizes.insert(layer.diff_id, bundle.file(&layer.name)?.map_or(0, |section| section.size()));
        }
    }
    Ok(sizes.into_values().fold(0, u64::saturating_add))
}

fn load_one(store: &Store, bundle: &Bundle, planned: &Planned) -> Result<Vec<(Option<ImageRef>, Image)>, StoreError> {
    for layer in &planned.layers {
        if store.has_layer(&layer.diff_id) {
            continue;
        }
        let mut reader = open_layer(bundle, layer)?;
        let mut pending = store.unpack_layer(&layer.diff_id, Compression::None, &mut reader)?;
        if let Some(blob) = reader.finish(bundle, layer)? {
            pending.set_compressed(blob);
        }
        pending.commit()?;
    }
    let put = |reference: Option<&ImageRef>| {
        store.put_image_from(Origin::Loaded, reference, &planned.manifest, &planned.config)
    };
    if planned.references.is_empty() {
        return Ok(vec![(None, put(None)?)]);
    }
    let named = planned.references.iter().map(|reference| Ok((Some(reference.clone()), put(Some(reference))?)));
    named.collect()
}

/// The stored bytes of a layer, hashed while they are read.
#[derive(Debug)]
pub(crate) struct LayerReader {
    section: Section,
    hash: Option<Sha256>,
    count: u64,
}

pub(crate) fn open_layer(bundle: &Bundle, layer: &PlannedLayer) -> Result<LayerReader, StoreError> {
    let section = bundle.file(&layer.name)?;
    let section = section.ok_or_else(|| bundle.fault(format!("`{}` is missing", layer.name)))?;
    // Stored bytes that are not compressed are hashed for the diff id already.
    let hash = layer.blob.filter(|(digest, _)| *digest != layer.diff_id).map(|_| Sha256::new());
    Ok(LayerReader { section, hash, count: 0 })
}

impl Read for LayerReader {
    fn read(&mut self, target: &mut [u8]) -> std::io::Result<usize> {
        let count = self.section.read(target)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&target[..count]);
        }
        self.count += count as u64;
        Ok(count)
    }
}

impl LayerReader {
    /// Compares what was read with what the manifest says.
    pub(crate) fn finish(self, bundle: &Bundle, layer: &PlannedLayer) -> Result<Option<CompressedBlob>, StoreError> {
        let Some((expected, size)) = layer.blob else { return Ok(None) };
        if size != self.count {
            let reason = format!("`{}` has {} bytes, its manifest says {size}", layer.name, self.count);
            return Err(bundle.fault(reason));
        }
        if let Some(hash) = self.hash {
            let found = hash.digest();
            if found != expected {
                return Err(StoreError::Damaged { path: bundle.path().join(&layer.name), expected, found });
            }
        }
        Ok(Some(CompressedBlob { digest: expected, size }))
    }
}

#[cfg(test)]
mod tests;
