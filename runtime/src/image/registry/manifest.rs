//! Manifests and indexes: what is read from them, and what is refused by name.
//!
//! Pure. The bytes have passed their digest check; what they say is hostile all the same.
//!
//! Sources: OCI image specification 1.1 (manifest.md, image-index.md, descriptor.md); docker's "Image Manifest
//! Version 2, Schema 2".

use serde::Deserialize;
use spec::digest::Digest;

use super::errors::clean;
use crate::image::json::{MAX_VALUES, too_many_values};
use crate::image::store::MAX_LAYERS;
use crate::image::unpack::Compression;

pub(crate) mod artifact;
mod platform;

pub(crate) use platform::Platform;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Entries of an index that are looked at.
const MAX_ENTRIES: usize = 1000;
/// Largest config (containers/image uses the same limit for all its metadata, 4 MiB; docker's builder exceeds it).
const MAX_CONFIG: u64 = 8 * 1024 * 1024;

/// Why a manifest, index or config cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not of the expected form.
    #[error("cannot read the {what}: {reason}")]
    Unreadable {
        /// "manifest", "index", "config".
        what: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// Schema 1 of docker's manifests.
    #[error("cannot use a manifest of schema version 1: docker gave it up in 2017, and its content has no digest")]
    SchemaOne,
    /// Something that is not a container image.
    #[error("not a container image: {0}")]
    NotAnImage(String),
    /// Something that is no single artifact.
    #[error("not an artifact: {0}")]
    NotAnArtifact(String),
    /// Header and content say different things (CVE-2021-41190).
    #[error("ambiguous manifest: {0}")]
    Ambiguous(String),
    /// A descriptor is unusable.
    #[error("cannot use the descriptor of {what}: {reason}")]
    Descriptor {
        /// "layer 3", "config".
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// More of something than there may be.
    #[error("too many {what}: {found}, the limit is {limit}")]
    TooMany {
        /// "layers".
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// No entry of the index fits.
    #[error("no image for {wanted}: the index has {available}")]
    NoPlatform {
        /// `linux/amd64`.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// The config names another platform.
    #[error("the image is for {found}, not for {wanted}")]
    WrongPlatform {
        /// `linux/amd64`.
        wanted: String,
        /// What the config says.
        found: String,
    },
    /// Config and manifest do not fit together.
    #[error("the manifest has {layers} layers and the config {diff_ids} diff ids")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the config.
        diff_ids: usize,
    },
}

/// Where content is: its digest and size, checked for sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<(Descriptor, Compression)>,
}

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    /// One image.
    Manifest(Manifest),
    /// Of several: where the one for the wanted platform is, and whether the index says what it is for.
    Chosen(Descriptor, bool),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    fs_layers: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: Option<String>,
    digest: String,
    size: serde_json::Number,
    artifact_type: Option<String>,
    platform: Option<RawPlatform>,
    annotations: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

impl Document {
    /// Reads a manifest or index, and chooses from an index.
    pub(crate) fn read(bytes: &[u8], content_type: Option<&str>, wanted: &Platform) -> Result<Self, ManifestError> {
        let raw: RawDocument = parse("manifest", bytes)?;
        let kind = raw.kind(content_type)?;
        match kind {
            Kind::Manifest => raw.manifest().map(Self::Manifest),
            Kind::Index => raw.choose(wanted),
        }
    }
}

/// Whether the config of an image that comes from a file says that it is for this host.
pub(crate) fn check_host(config: &[u8]) -> Result<(), ManifestError> {
    parse::<RawTarget>("config", config)?.check(&Platform::of_host(), true)
}

/// Whether a manifest that comes from a file is one of an image. Types that tools leave out are no reason to refuse it.
pub(crate) fn check_file(bytes: &[u8]) -> Result<(), ManifestError> {
    let mut raw: RawDocument = parse("manifest", bytes)?;
    raw.schema_version.get_or_insert(2);
    if let Some(config) = &mut raw.config {
        config.media_type.get_or_insert_with(|| OCI_CONFIG.to_owned());
    }
    for layer in raw.layers.iter_mut().flatten() {
        layer.media_type.get_or_insert_with(|| "application/vnd.oci.image.layer.v1.tar".to_owned());
    }
    match raw.kind(None)? {
        Kind::Manifest => raw.manifest().map(drop),
        Kind::Index => Err(ManifestError::Ambiguous("an index stands where a manifest is named".to_owned())),
    }
}

enum Kind {
    Manifest,
    Index,
}

fn kind_of(media_type: &str) -> Option<Kind> {
    match media_type {
        OCI_MANIFEST | DOCKER_MANIFEST => Some(Kind::Manifest),
        OCI_INDEX | DOCKER_LIST => Some(Kind::Index),
        _ => None,
    }
}

impl RawDocument {
    fn kind(&self, content_type: Option<&str>) -> Result<Kind, ManifestError> {
        let schema_one = |t: &str| t.starts_with("application/vnd.docker.distribution.manifest.v1");
        if content_type.is_some_and(schema_one)
            || self.media_type.as_deref().is_some_and(schema_one)
            || self.schema_version == Some(1)
            || self.fs_layers.is_some()
        {
            return Err(ManifestError::SchemaOne);
        }
        if self.schema_version != Some(2) {
            let found = self.schema_version.map_or("none".to_owned(), |version| version.to_string());
            let reason = format!("its schemaVersion is {found}, not 2");
            return Err(ManifestError::Unreadable { what: "manifest", reason });
        }
        if self.manifests.is_some() && (self.layers.is_some() || self.config.is_some()) {
            let reason = "it has both `manifests` and `layers` or `config`".to_owned();
            return Err(ManifestError::Ambiguous(reason));
        }
        // Types that say only how it is encoded leave the word to the content.
        let content_type = content_type.filter(|t| {
            !matches!(*t, "application/json" | "text/plain" | "application/octet-stream" | "binary/octet-stream")
        });
        if let (Some(header), Some(field)) = (content_type, self.media_type.as_deref())
            && !header.eq_ignore_ascii_case(field)
        {
            return Err(ManifestError::Ambiguous(format!(
                "its mediaType is `{}`, and it was sent as `{}`",
                clean(field, 100),
                clean(header, 100)
            )));
        }
        let kind = match content_type.or(self.media_type.as_deref()) {
            Some(named) => kind_of(&named.to_ascii_lowercase())
                .ok_or_else(|| ManifestError::NotAnImage(format!("its media type is `{}`", clean(named, 100))))?,
            None if self.manifests.is_some() => Kind::Index,
            None => Kind::Manifest,
        };
        match kind {
            Kind::Index if self.manifests.is_none() => {
                Err(ManifestError::Ambiguous("it was sent as an index and has no `manifests`".to_owned()))
            }
            Kind::Manifest if self.manifests.is_some() => {
                Err(ManifestError::Ambiguous("it was sent as a manifest and is an index".to_owned()))
            }
            kind => Ok(kind),
        }
    }

    fn manifest(self) -> Result<Manifest, ManifestError> {
        let missing =
            |what: &str| ManifestError::Unreadable { what: "manifest", reason: format!("it has no `{what}`") };
        let config = self.config.ok_or_else(|| missing("config"))?;
        match config.media_type.as_deref() {
            Some(OCI_CONFIG | DOCKER_CONFIG) => {}
            other => {
                let named = self.artifact_type.as_deref().or(other).unwrap_or("nothing");
                let reason = format!("it is an artifact of type `{}`", clean(named, 100));
                return Err(ManifestError::NotAnImage(reason));
            }
        }
        let config = config.read("config".to_owned())?;
        if config.size > MAX_CONFIG {
            let reason = format!("its size is {} bytes, the limit is {MAX_CONFIG}", config.size);
            return Err(ManifestError::Descriptor { what: "config".to_owned(), reason });
        }
        let layers = self.layers.ok_or_else(|| missing("layers"))?;
        if layers.len() > MAX_LAYERS {
            return Err(ManifestError::TooMany { what: "layers", found: layers.len(), limit: MAX_LAYERS });
        }
        let layers = layers.into_iter().enumerate().map(|(index, layer)| {
            let what = format!("layer {}", index + 1);
            let kind = layer_kind(layer.media_type.as_deref())
                .map_err(|reason| ManifestError::NotAnImage(format!("{what} {reason}")))?;
            Ok((layer.read(what)?, kind))
        });
        Ok(Manifest { config, layers: layers.collect::<Result<_, ManifestError>>()? })
    }

    fn choose(self, wanted: &Platform) -> Result<Document, ManifestError> {
        let entries = self.manifests.unwrap_or_default();
        if entries.len() > MAX_ENTRIES {
            return Err(ManifestError::TooMany {
                what: "images in the index",
                found: entries.len(),
                limit: MAX_ENTRIES,
            });
        }
        let mut best: Option<(u8, &RawDescriptor)> = None;
        let mut available = Vec::new();
        let mut unnamed = Vec::new();
        for entry in entries.iter().filter(|entry| entry.may_be_an_image()) {
            let Some(platform) = entry.platform.as_ref().map(RawPlatform::named) else {
                unnamed.push(entry);
                continue;
            };
            let rank = wanted.rank(&platform);
            if let Some(rank) = rank
                && best.is_none_or(|(known, _)| rank < known)
            {
                best = Some((rank, entry));
            }
            available.push(clean(&platform.to_string(), 40));
        }
        let (chosen, named) = match (best, unnamed.as_slice()) {
            (Some((_, entry)), _) => (entry, true),
            // An index of one image need not say what it is for; the config does.
            (None, [only]) if available.is_empty() => (*only, false),
            _ => {
                let mut shown = available.iter().take(12).cloned().collect::<Vec<_>>().join(", ");
                if available.len() > 12 {
                    shown.push_str(", ...");
                }
                let available = if shown.is_empty() { "none".to_owned() } else { shown };
                return Err(ManifestError::NoPlatform { wanted: wanted.to_string(), available });
            }
        };
        chosen.read_ref("image in the index".to_owned()).map(|descriptor| Document::Chosen(descriptor, named))
    }
}

impl RawDescriptor {
    fn may_be_an_image(&self) -> bool {
        let attestation = |a: &serde_json::Map<String, serde_json::Value>| {
            a.get("vnd.docker.reference.type").and_then(serde_json::Value::as_str) == Some("attestation-manifest")
        };
        let kind = self.media_type.as_deref().is_none_or(|t| kind_of(&t.to_ascii_lowercase()).is_some());
        kind && self.artifact_type.is_none() && !self.annotations.as_ref().is_some_and(attestation)
    }

    fn read(self, what: String) -> Result<Descriptor, ManifestError> {
        self.read_ref(what)
    }

    fn read_ref(&self, what: String) -> Result<Descriptor, ManifestError> {
        let digest = match Digest::parse(&self.digest) {
            Ok(digest) => digest,
            Err(_) => {
                let reason = format!("`{}` is not a sha256 digest", clean(&self.digest, 100));
                return Err(ManifestError::Descriptor { what, reason });
            }
        };
        // Larger than any disk: the sum of several must not overflow either.
        match self.size.as_u64().filter(|size| *size < 1 << 50) {
            Some(size) => Ok(Descriptor { digest, size }),
            None => {
                let reason = format!("its size `{}` makes no sense", clean(&self.size.to_string(), 40));
                Err(ManifestError::Descriptor { what, reason })
            }
        }
    }
}

impl RawPlatform {
    fn named(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

/// OCI image specification, layer.md, "Media Types"; docker's names beside them.
fn layer_kind(media_type: Option<&str>) -> Result<Compression, String> {
    let Some(media_type) = media_type else { return Err("has no media type".to_owned()) };
    let suffix = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
    ]
    .iter()
    .find_map(|prefix| media_type.strip_prefix(prefix));
    match suffix {
        Some("") => return Ok(Compression::None),
        Some("+gzip" | ".gzip") => return Ok(Compression::Gzip),
        Some("+zstd" | ".zstd") => return Ok(Compression::Zstd),
        _ => {}
    }
    let shown = clean(media_type, 100);
    Err(if media_type.contains("foreign") {
        format!("is kept outside the registry (`{shown}`), as layers of Windows are")
    } else if media_type.ends_with("+encrypted") {
        format!("is encrypted (`{shown}`)")
    } else {
        format!("has the media type `{shown}`")
    })
}

/// What is needed of an image's config before its layers are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(flatten)]
    platform: RawTarget,
    rootfs: RawRootfs,
}

/// What a config says that its image is for.
#[derive(Deserialize)]
struct RawTarget {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
}

impl RawTarget {
    /// What is left out fits: images made from scratch, with nothing to run in them. Where an index has chosen among
    /// variants, its word counts: many configs do not tell theirs.
    fn check(&self, wanted: &Platform, named: bool) -> Result<(), ManifestError> {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let (os, architecture) = (text(&self.os), text(&self.architecture));
        let found = Platform::new(&os, &architecture, self.variant.as_deref());
        let fits = match (architecture.is_empty(), named) {
            (true, _) => wanted.is_like(&found, false),
            (false, true) => wanted.is_like(&found, true),
            (false, false) => wanted.rank(&found).is_some(),
        };
        if fits {
            return Ok(());
        }
        Err(ManifestError::WrongPlatform { wanted: wanted.to_string(), found: clean(&found.to_string(), 40) })
    }
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    diff_ids: Vec<String>,
}

impl Config {
    /// Reads a config and checks it against its manifest and the wanted platform. `named`: an index says that it is for it.
    pub(crate) fn read(
        bytes: &[u8],
        manifest: &Manifest,
        wanted: &Platform,
        named: bool,
    ) -> Result<Self, ManifestError> {
        let raw: RawConfig = parse("config", bytes)?;
        raw.platform.check(wanted, named)?;
        if raw.rootfs.kind.as_deref().is_some_and(|kind| kind != "layers") {
            let reason =
                format!("its rootfs is of type `{}`", clean(raw.rootfs.kind.as_deref().unwrap_or_default(), 40));
            return Err(ManifestError::Unreadable { what: "config", reason });
        }
        let (layers, count) = (manifest.layers.len(), raw.rootfs.diff_ids.len());
        if layers != count {
            return Err(ManifestError::LayerCount { layers, diff_ids: count });
        }
        let diff_ids = raw.rootfs.diff_ids.iter().enumerate().map(|(index, text)| {
            Digest::parse(text).map_err(|_| ManifestError::Descriptor {
                what: format!("layer {}", index + 1),
                reason: format!("its diff id `{}` is not a sha256 digest", clean(text, 100)),
            })
        });
        Ok(Self { diff_ids: diff_ids.collect::<Result<_, _>>()? })
    }
}

fn parse<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, ManifestError> {
    if let Some(found) = too_many_values(bytes) {
        return Err(ManifestError::TooMany { what: "values in its JSON", found, limit: MAX_VALUES });
    }
    serde_json::from_slice(bytes)
        .map_err(|error| ManifestError::Unreadable { what, reason: clean(&error.to_string(), 200) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces that hostile manifests are made of.
    const WORDS: [&str; 26] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"schemaVersion\":2",
        "\"mediaType\":",
        "\"manifests\":[",
        "\"layers\":[",
        "\"config\":{",
        "\"digest\":",
        "\"size\":",
        "-1",
        "1e308",
        "18446744073709551616",
        "null",
        "true",
        "\"\"",
        "\"sha256:00\"",
        "\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}",
        "\\u0000",
        "\"",
        "\"application/vnd.oci.image.manifest.v1+json\"",
        "\"rootfs\":{\"diff_ids\":[",
        "\"fsLayers\":[]",
    ];

    #[test]
    fn a_config_says_what_its_image_is_for() {
        let manifest = Manifest { config: Descriptor { digest: Digest::of(b""), size: 0 }, layers: Vec::new() };
        for (platform, wanted, unnamed, named) in [
            (r#""os":"linux","architecture":"amd64""#, "linux/amd64", true, true),
            (r#""os":"linux","architecture":"arm64""#, "linux/amd64", false, false),
            (r#""os":"windows","architecture":"amd64""#, "linux/amd64", false, false),
            (r#""os":"windows""#, "linux/amd64", false, false),
            (r#""os":"windows","architecture":"""#, "linux/amd64", false, false),
            (r#""os":"","architecture":"""#, "linux/amd64", true, true),
            (r#""os":null,"architecture":null"#, "linux/amd64", true, true),
            (r#""x":1"#, "linux/amd64", true, true),
            (r#""architecture":"x86_64""#, "linux/amd64", true, true),
            (r#""architecture":"amd64","variant":"v3""#, "linux/amd64", false, true),
            // Without a variant it is taken for v7, which an index knows better.
            (r#""os":"linux","architecture":"arm""#, "linux/arm/v6", false, true),
            (r#""os":"linux","architecture":"arm","variant":"v5""#, "linux/arm/v7", true, true),
        ] {
            let config = format!(r#"{{{platform},"rootfs":{{"type":"layers","diff_ids":[]}}}}"#);
            let wanted = Platform::parse(wanted).expect("a platform");
            for (by_index, expected) in [(false, unnamed), (true, named)] {
                let read = Config::read(config.as_bytes(), &manifest, &wanted, by_index);
                assert_eq!(read.is_ok(), expected, "{platform} for {wanted}, named {by_index}: {read:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            picks in proptest::collection::vec(0..WORDS.len(), 0..40),
            noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..8),
        ) {
            let mut bytes: Vec<u8> = picks.iter().flat_map(|pick| WORDS[*pick].bytes()).collect();
            bytes.extend(noise);
            let wanted = Platform::of_host();
            let empty = Manifest { config: Descriptor { digest: Digest::of(b""), size: 0 }, layers: Vec::new() };
            for kind in [None, Some(OCI_INDEX), Some(DOCKER_MANIFEST)] {
                let _ = Document::read(&bytes, kind, &wanted);
            }
            let _ = Config::read(&bytes, &empty, &wanted, false);
        }
    }
}
