//! Pulls from registries on loopback: good ones, odd ones, hostile ones.

mod fake;
mod good;

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spec::digest::Digest;
use spec::image_ref::ImageRef;
use spec::pod::PullPolicy;

use super::pull::{BoxError, Compression, ImageStore, PullError, Puller};
use super::registry::RegistryConfig;
use crate::api::PullCredentials;

/// A store in memory that checks what the real one checks.
#[derive(Clone, Default)]
struct MemoryStore(Arc<Mutex<Memory>>);

#[derive(Default)]
struct Memory {
    layers: HashMap<Digest, Vec<u8>>,
    images: HashMap<String, StoredImage>,
}

#[derive(Debug, Clone, PartialEq)]
struct StoredImage {
    digest: Digest,
}

impl ImageStore for MemoryStore {
    type Image = StoredImage;
    type Pending = (Digest, Vec<u8>);

    fn has_layer(&self, diff_id: &Digest) -> bool {
        self.0.lock().expect("the store").layers.contains_key(diff_id)
    }

    fn unpack_layer(
        &self,
        diff_id: &Digest,
        kind: Compression,
        reader: &mut dyn Read,
    ) -> Result<Self::Pending, BoxError> {
        let mut bytes = Vec::new();
        match kind {
            Compression::None => reader.read_to_end(&mut bytes)?,
            Compression::Gzip => flate2::read::MultiGzDecoder::new(reader).read_to_end(&mut bytes)?,
            Compression::Zstd => zstd::Decoder::new(reader)?.read_to_end(&mut bytes)?,
        };
        if Digest::of(&bytes) != *diff_id {
            return Err(format!("diff id is {}, not {diff_id}", Digest::of(&bytes)).into());
        }
        Ok((*diff_id, bytes))
    }

    fn commit(&self, (diff_id, bytes): Self::Pending) -> Result<(), BoxError> {
        self.0.lock().expect("the store").layers.insert(diff_id, bytes);
        Ok(())
    }

    fn put_image(&self, reference: &ImageRef, manifest: &[u8], _: &[u8]) -> Result<Self::Image, BoxError> {
        let image = StoredImage { digest: Digest::of(manifest) };
        self.0.lock().expect("the store").images.insert(reference.to_string(), image.clone());
        Ok(image)
    }

    fn image(&self, reference: &ImageRef) -> Result<Option<Self::Image>, BoxError> {
        Ok(self.0.lock().expect("the store").images.get(&reference.to_string()).cloned())
    }

    fn digest(image: &Self::Image) -> Digest {
        image.digest
    }
}

impl MemoryStore {
    fn is_empty(&self) -> bool {
        self.0.lock().expect("the store").images.is_empty()
    }
}

/// Limits that make a stall show within a test.
fn quick() -> RegistryConfig {
    RegistryConfig {
        connect_timeout: Duration::from_millis(400),
        stall_limit: Duration::from_millis(400),
        retry_pause: Duration::from_millis(4),
        retry_after_limit: Duration::from_secs(1),
        tries: 3,
        credential_files: Some(Vec::new()),
        ..RegistryConfig::default()
    }
}

fn puller(config: RegistryConfig) -> (Puller<MemoryStore>, MemoryStore) {
    let store = MemoryStore::default();
    (Puller::new(store.clone(), config), store)
}

fn reference(server: &fake::Server, rest: &str) -> ImageRef {
    ImageRef::parse(&format!("{}/{rest}", server.address)).expect("a reference")
}

/// Pulls with the policy `Always` for amd64, within ten seconds.
async fn pull(
    puller: &Puller<MemoryStore>,
    reference: &ImageRef,
    credentials: &PullCredentials,
) -> Result<StoredImage, PullError> {
    let pull = puller.pull(reference, PullPolicy::Always, Some("linux/amd64"), credentials, None);
    tokio::time::timeout(Duration::from_secs(10), pull).await.expect("a pull never hangs")
}

/// An error with all its causes and its hint.
fn text(error: PullError, reference: &ImageRef) -> String {
    let error = error.into_runtime(reference);
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    format!("{text} [hint: {}]", error.hint.unwrap_or_default())
}
