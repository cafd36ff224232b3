//! What is read from the manifest of an artifact that is no image: its layers, whatever their types.
//!
//! Source: OCI image specification 1.1, manifest.md ("Guidelines for Artifact Usage").

use super::{Descriptor, Kind, MAX_ENTRIES, ManifestError, RawDocument, parse};

/// The name of a layer's file (OCI image specification, annotations.md, "Pre-Defined Annotation Keys").
const TITLE: &str = "org.opencontainers.image.title";

/// A layer of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Which blob.
    pub(crate) blob: Descriptor,
    /// The name of the file that it was made of, when it says one.
    pub(crate) title: Option<String>,
}

/// Reads the manifest of an artifact. An image is one as well.
pub(crate) fn read(bytes: &[u8], content_type: Option<&str>) -> Result<Vec<Part>, ManifestError> {
    let raw: RawDocument = parse("manifest", bytes)?;
    if let Kind::Index = raw.kind(content_type)? {
        return Err(ManifestError::NotAnArtifact("it is an index of several".to_owned()));
    }
    let layers = raw.layers.unwrap_or_default();
    if layers.is_empty() {
        return Err(ManifestError::NotAnArtifact("it has no layers".to_owned()));
    }
    if layers.len() > MAX_ENTRIES {
        return Err(ManifestError::TooMany { what: "layers", found: layers.len(), limit: MAX_ENTRIES });
    }
    let parts = layers.into_iter().enumerate().map(|(index, layer)| {
        let title = layer.annotations.as_ref().and_then(|all| all.get(TITLE)).and_then(serde_json::Value::as_str);
        let title = title.map(str::to_owned);
        Ok(Part { blob: layer.read(format!("layer {}", index + 1))?, title })
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_artifact() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let check = |text: &str, kind: Option<&str>, want: Result<&[Option<&str>], &str>| {
            let text = text.replace("DIGEST", &digest);
            match (read(text.as_bytes(), kind), want) {
                (Ok(parts), Ok(want)) => {
                    let titles: Vec<Option<&str>> = parts.iter().map(|part| part.title.as_deref()).collect();
                    assert_eq!(titles, want, "{text}");
                }
                (Err(error), Err(want)) => assert!(error.to_string().contains(want), "{text}: {error}"),
                (read, want) => panic!("{text}: {read:?} instead of {want:?}"),
            }
        };
        let manifest = Some("application/vnd.oci.image.manifest.v1+json");
        let flux = r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.flux.config.v1+json","digest":"DIGEST",
            "size":2},"layers":[{"mediaType":"application/vnd.cncf.flux.content.v1.tar+gzip","digest":"DIGEST","size":9}]}"#;
        check(flux, manifest, Ok(&[None]));
        let oras = r#"{"schemaVersion":2,"artifactType":"application/x","layers":[{"digest":"DIGEST","size":9,
            "annotations":{"org.opencontainers.image.title":"web.yaml"}},{"digest":"DIGEST","size":1}]}"#;
        check(oras, None, Ok(&[Some("web.yaml"), None]));
        check(r#"{"schemaVersion":2,"manifests":[]}"#, None, Err("an index"));
        check(r#"{"schemaVersion":2,"manifests":[]}"#, manifest, Err("ambiguous"));
        check(r#"{"schemaVersion":2,"layers":[]}"#, None, Err("no layers"));
        check(r#"{"schemaVersion":2,"layers":[{"digest":"sha256:0","size":1}]}"#, None, Err("layer 1"));
        check(r#"{"schemaVersion":1,"layers":[]}"#, None, Err("schema version 1"));
        check("[]", None, Err("cannot read the manifest"));
    }
}
