//! Images on disk: OCI image layout (directory and archive) and the archive that `docker save` writes.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::{Image, digest, to_bytes};

const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Every file of an OCI image layout, by relative path.
fn layout(images: &[(&str, &Image)]) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![("oci-layout".to_owned(), OCI_LAYOUT.as_bytes().to_vec())];
    let mut entries: Vec<Value> = Vec::new();
    for (name, image) in images {
        let mut entry = image.top.json();
        if let Some(object) = entry.as_object_mut() {
            // The OCI annotation is the tag alone or a whole reference; containerd's is always the whole reference.
            object.insert(
                "annotations".to_owned(),
                json!({"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}),
            );
        }
        entries.push(entry);
        let manifests = image.manifests.iter().map(|(digest, (_, bytes))| (digest, bytes));
        for (digest, bytes) in manifests.chain(&image.blobs) {
            let path = format!("blobs/{}", digest.replace(':', "/"));
            if !files.iter().any(|(known, _)| *known == path) {
                files.push((path, bytes.to_vec()));
            }
        }
    }
    let index =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries});
    files.push(("index.json".to_owned(), to_bytes(&index)));
    files.sort();
    files
}

/// Writes an OCI image layout directory; each image gets its name as `org.opencontainers.image.ref.name`.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_oci_layout(dir: &Path, images: &[(&str, &Image)]) -> std::io::Result<()> {
    for (path, bytes) in layout(images) {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, bytes)?;
    }
    Ok(())
}

fn write_tar(file: &Path, files: Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    let mut builder = tar::Builder::new(std::io::BufWriter::new(std::fs::File::create(file)?));
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, path, bytes.as_slice())?;
    }
    builder.into_inner()?.flush()
}

/// Writes the same as one tar.
///
/// # Errors
/// When the file cannot be written.
pub fn write_oci_archive(file: &Path, images: &[(&str, &Image)]) -> std::io::Result<()> {
    write_tar(file, layout(images))
}

/// Writes what `docker save` writes (version 1.2: `manifest.json`, one plain tar per layer).
///
/// # Errors
/// When the file cannot be written.
pub fn write_docker_archive(file: &Path, images: &[(&str, &Image)]) -> std::io::Result<()> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut manifest = Vec::new();
    for (name, image) in images {
        let config = format!("{}.json", image.config.digest.trim_start_matches("sha256:"));
        let bytes = image.blobs.get(&image.config.digest).expect("an image holds its config");
        files.push((config.clone(), bytes.to_vec()));
        let mut layers = Vec::new();
        for layer in &image.plain_layers {
            let path = format!("{}/layer.tar", digest(layer).trim_start_matches("sha256:"));
            files.push((path.clone(), layer.to_vec()));
            layers.push(path);
        }
        manifest.push(json!({"Config": config, "RepoTags": [name], "Layers": layers}));
    }
    files.push(("manifest.json".to_owned(), to_bytes(&Value::Array(manifest))));
    files.sort();
    files.dedup_by(|a, b| a.0 == b.0);
    write_tar(file, files)
}
