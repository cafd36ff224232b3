//! OCI images built in memory, reproducibly: the same input gives the same bytes.
//!
//! Media types and layouts follow the OCI image specification 1.1 and, where asked, Docker's image manifest v2 schema 2.

mod fixture;
mod layer;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

pub use fixture::{fixture_builder, fixture_files, fixture_image, scratch_image};
pub use layer::{Compression, Entry, Layer};
pub use store::{write_docker_archive, write_oci_archive, write_oci_layout};

/// `sha256:...` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    let hash = sha2::Sha256::digest(bytes);
    hash.iter().fold(String::from("sha256:"), |text, byte| format!("{text}{byte:02x}"))
}

/// The architecture of this machine in the words of image indexes.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Which vocabulary of media types an image uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `application/vnd.oci.image.*`
    #[default]
    Oci,
    /// `application/vnd.docker.distribution.*`, schema 2.
    Docker,
}

impl Format {
    fn manifest(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    fn index(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.index.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Oci, Compression::None) => "application/vnd.oci.image.layer.v1.tar",
            (Self::Oci, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Self::Oci, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Self::Docker, Compression::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Self::Docker, Compression::Zstd) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
            (Self::Docker, Compression::None) => "application/vnd.docker.image.rootfs.diff.tar",
        }
    }
}

/// A reference to a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type.
    pub media_type: String,
    /// `sha256:...`
    pub digest: String,
    /// Bytes.
    pub size: usize,
}

impl Descriptor {
    fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self { media_type: media_type.to_owned(), digest: digest(bytes), size: bytes.len() }
    }

    fn json(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.size})
    }
}

/// An image or an index of images, with every blob that belongs to it.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest or index that a tag points at.
    pub top: Descriptor,
    /// Every manifest of it by digest: the index, the images' manifests.
    pub manifests: BTreeMap<String, (String, Arc<Vec<u8>>)>,
    /// Configs and layers by digest.
    pub blobs: BTreeMap<String, Arc<Vec<u8>>>,
    /// Digests of the (first) image's compressed layers, lowest first.
    pub layers: Vec<String>,
    /// The (first) image's config.
    pub config: Descriptor,
    /// The uncompressed layers, lowest first: what a Docker archive holds.
    plain_layers: Vec<Arc<Vec<u8>>>,
}

impl Image {
    /// Digest of what a tag points at.
    pub fn digest(&self) -> &str {
        &self.top.digest
    }

    /// An index over images for `os/architecture[/variant]` platforms.
    pub fn index(format: Format, images: &[(&str, Image)]) -> Image {
        let first = &images.first().expect("an index has at least one image").1;
        let mut all = first.clone();
        let mut entries = Vec::new();
        for (platform, image) in images {
            all.manifests.extend(image.manifests.clone());
            all.blobs.extend(image.blobs.clone());
            let mut words = platform.split('/');
            let mut entry = image.top.json();
            let mut place = Map::new();
            for key in ["os", "architecture", "variant"] {
                if let Some(word) = words.next() {
                    place.insert(key.to_owned(), json!(word));
                }
            }
            if let Some(object) = entry.as_object_mut() {
                object.insert("platform".to_owned(), Value::Object(place));
            }
            entries.push(entry);
        }
        let bytes = to_bytes(&json!({"schemaVersion": 2, "mediaType": format.index(), "manifests": entries}));
        all.top = Descriptor::of(format.index(), &bytes);
        all.manifests.insert(all.top.digest.clone(), (format.index().to_owned(), Arc::new(bytes)));
        all
    }
}

fn to_bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a JSON value has no key that is not a string")
}

/// Puts an image together from layers and the runtime part of its config.
#[derive(Debug, Clone, Default)]
pub struct ImageBuilder {
    layers: Vec<Layer>,
    config: Map<String, Value>,
    format: Format,
    architecture: Option<String>,
    wrong_diff_ids: bool,
}

impl ImageBuilder {
    /// An image without layers and without a command.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer on top.
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    fn set(mut self, key: &str, value: Value) -> Self {
        self.config.insert(key.to_owned(), value);
        self
    }

    /// `Entrypoint`.
    pub fn entrypoint(self, words: &[&str]) -> Self {
        self.set("Entrypoint", json!(words))
    }

    /// `Cmd`.
    pub fn cmd(self, words: &[&str]) -> Self {
        self.set("Cmd", json!(words))
    }

    /// `Env`, as `NAME=value`.
    pub fn env(self, variables: &[&str]) -> Self {
        self.set("Env", json!(variables))
    }

    /// `User`: a name, an id, or both with a group.
    pub fn user(self, user: &str) -> Self {
        self.set("User", json!(user))
    }

    /// `WorkingDir`.
    pub fn working_dir(self, path: &str) -> Self {
        self.set("WorkingDir", json!(path))
    }

    /// `StopSignal`.
    pub fn stop_signal(self, signal: &str) -> Self {
        self.set("StopSignal", json!(signal))
    }

    /// `Healthcheck`, with this time between two checks and this many failures in a row that count.
    pub fn healthcheck(self, test: &[&str], interval_ms: u64, retries: u32) -> Self {
        self.set("Healthcheck", json!({"Test": test, "Interval": interval_ms * 1_000_000, "Retries": retries}))
    }

    /// `Volumes`.
    pub fn volumes(self, paths: &[&str]) -> Self {
        let volumes: Map<String, Value> = paths.iter().map(|p| ((*p).to_owned(), json!({}))).collect();
        self.set("Volumes", Value::Object(volumes))
    }

    /// `Labels`.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        let labels = self.config.entry("Labels").or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            labels.insert(name.to_owned(), json!(value));
        }
        self
    }

    /// Media types of Docker's schema 2 instead of OCI's.
    pub fn docker(mut self) -> Self {
        self.format = Format::Docker;
        self
    }

    /// An architecture that is not this machine's.
    pub fn architecture(mut self, architecture: &str) -> Self {
        self.architecture = Some(architecture.to_owned());
        self
    }

    /// Lies about the diff ids: the blobs' digests are right, what they unpack to is not what the config says.
    pub fn wrong_diff_ids(mut self) -> Self {
        self.wrong_diff_ids = true;
        self
    }

    /// The finished image.
    pub fn build(self) -> Image {
        let mut blobs = BTreeMap::new();
        let (mut layers, mut diff_ids, mut plain_layers) = (Vec::new(), Vec::new(), Vec::new());
        for layer in &self.layers {
            let plain = layer.tar();
            let packed = layer.compression.pack(&plain);
            diff_ids.push(if self.wrong_diff_ids { digest(b"something else") } else { digest(&plain) });
            layers.push(Descriptor::of(self.format.layer(layer.compression), &packed));
            blobs.insert(digest(&packed), Arc::new(packed));
            plain_layers.push(Arc::new(plain));
        }
        let config = to_bytes(&json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": self.architecture.as_deref().unwrap_or(host_architecture()),
            "os": "linux",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": layers.iter().map(|_| json!({"created_by": "mainstay tests"})).collect::<Vec<_>>(),
        }));
        let config_descriptor = Descriptor::of(self.format.config(), &config);
        blobs.insert(config_descriptor.digest.clone(), Arc::new(config));
        let manifest = to_bytes(&json!({
            "schemaVersion": 2,
            "mediaType": self.format.manifest(),
            "config": config_descriptor.json(),
            "layers": layers.iter().map(Descriptor::json).collect::<Vec<_>>(),
        }));
        let top = Descriptor::of(self.format.manifest(), &manifest);
        Image {
            manifests: BTreeMap::from([(top.digest.clone(), (top.media_type.clone(), Arc::new(manifest)))]),
            top,
            blobs,
            layers: layers.into_iter().map(|l| l.digest).collect(),
            config: config_descriptor,
            plain_layers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(compression: Compression) -> Image {
        ImageBuilder::new()
            .layer(Layer::new().dir("/etc").file("/etc/motd", "hello\n").compress(compression))
            .layer(Layer::new().whiteout("/etc/motd").symlink("/etc/link", "motd"))
            .entrypoint(&["/bin/x"])
            .build()
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            assert_eq!(small(compression).digest(), small(compression).digest());
        }
        assert_ne!(small(Compression::Gzip).digest(), small(Compression::Zstd).digest());
    }

    #[test]
    fn diff_ids_are_of_the_uncompressed_layers() {
        let image = small(Compression::Gzip);
        let config: Value =
            serde_json::from_slice(&image.blobs[&image.config.digest]).expect("the config is JSON that we wrote");
        let listed = &config["rootfs"]["diff_ids"];
        let real: Vec<String> = image.plain_layers.iter().map(|l| digest(l)).collect();
        assert_eq!(listed, &json!(real));
        assert_ne!(image.layers, real);
    }

    #[test]
    fn an_index_holds_the_blobs_of_all() {
        let other = ImageBuilder::new().layer(Layer::new().file("/a", "b")).architecture("riscv64").build();
        let both = Image::index(
            Format::Docker,
            &[("linux/amd64", small(Compression::Gzip)), ("linux/riscv64", other.clone())],
        );
        assert_eq!(both.manifests.len(), 3);
        assert!(both.blobs.contains_key(&other.config.digest));
        assert!(both.top.media_type.ends_with("manifest.list.v2+json"));
    }
}
