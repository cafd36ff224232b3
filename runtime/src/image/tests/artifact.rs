//! Artifacts from registries on loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use spec::digest::Digest;
use spec::image_ref::ImageRef;

use super::fake::{OCI_INDEX, OCI_MANIFEST, Reply, Request, Server, blob, http, manifest};
use super::{quick, reference, rig};
use crate::image::artifact::Artifact;
use crate::image::registry::{HostConfig, RegistryConfig};

const LIMIT: u64 = 1000;

/// An artifact of the files: title and content.
#[derive(Clone)]
struct Fleet {
    manifest: Vec<u8>,
    files: Vec<Vec<u8>>,
}

impl Fleet {
    fn new(files: &[(Option<&str>, &str)]) -> Self {
        let layers = files.iter().map(|(title, content)| {
            let mut layer = json!({"mediaType": "application/vnd.cncf.flux.content.v1.tar+gzip",
                "digest": Digest::of(content.as_bytes()), "size": content.len()});
            if let Some(title) = title {
                layer["annotations"] = json!({"org.opencontainers.image.title": title});
            }
            layer
        });
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers.collect::<Vec<_>>()});
        let files = files.iter().map(|(_, content)| content.as_bytes().to_vec()).collect();
        Self { manifest: manifest.to_string().into_bytes(), files }
    }

    fn answer(&self, request: &Request) -> Reply {
        if request.is_manifest() {
            let digest = Digest::of(&self.manifest).to_string();
            let headers = [("content-type", OCI_MANIFEST), ("docker-content-digest", &digest)];
            return http(200, &headers, self.manifest.clone());
        }
        match self.files.iter().find(|file| request.is_blob(Digest::of(file))) {
            Some(file) => blob(request, file),
            None => http(404, &[], "{}"),
        }
    }
}

async fn fetch(config: RegistryConfig, name: &ImageRef, known: Option<Digest>) -> Result<Option<Artifact>, String> {
    let artifacts = rig(config).puller.artifacts();
    artifacts.fetch(name, known, LIMIT).await.map_err(|error| spec::causes::chain(&error))
}

#[tokio::test]
async fn an_artifact_is_fetched_once_for_each_digest() {
    let fleet = Fleet::new(&[(Some("web.yaml"), "one"), (None, "two")]);
    let (digest, served) = (Digest::of(&fleet.manifest), fleet.clone());
    let server = Server::start(move |request| served.answer(request));
    let name = reference(&server, "fleet:main");
    let artifact = fetch(quick(), &name, None).await.expect("it is there").expect("it is new");
    assert_eq!(artifact.digest, digest);
    let layers: Vec<_> = artifact.layers.iter().map(|layer| (layer.title.as_deref(), &layer.bytes[..])).collect();
    assert_eq!(layers, [(Some("web.yaml"), &b"one"[..]), (None, b"two")]);

    let before = server.requests().len();
    assert_eq!(fetch(quick(), &name, Some(digest)).await, Ok(None));
    let asked: Vec<String> = server.requests().split_off(before).into_iter().map(|request| request.method).collect();
    assert_eq!(asked, ["HEAD"], "the digest is enough");

    let pinned = name.with_digest(digest);
    assert_eq!(fetch(quick(), &pinned, Some(digest)).await, Ok(None));
    assert_eq!(server.requests().len(), before + 1, "what a digest names does not change");
    assert!(fetch(quick(), &pinned, None).await.expect("it is there").is_some());
}

#[tokio::test]
async fn what_is_no_artifact_is_refused() {
    let check = |reply: Reply, layer: Option<Reply>, want: &'static str| async move {
        let server = Server::start(move |request| match (request.is_manifest(), &layer) {
            (true, _) => reply.clone(),
            (false, Some(layer)) => layer.clone(),
            (false, None) => http(404, &[], "{}"),
        });
        let error = fetch(quick(), &reference(&server, "fleet:main"), None).await.expect_err(want);
        assert!(error.contains(want), "{want}: {error}");
    };
    let one = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "layers": [{"digest": Digest::of(b"one"), "size": 3}]});
    let large = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "layers": [{"digest": Digest::of(b"one"), "size": 600}, {"digest": Digest::of(b"two"), "size": 600}]});
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []});
    check(manifest(&one), Some(http(200, &[], "eno")), "wrong digest of layer 1 of 1").await;
    check(manifest(&one), None, "not found").await;
    check(manifest(&large), None, "1200 bytes, at most 1000").await;
    check(manifest(&index), None, "an index of several").await;
    check(http(200, &[], "<html>"), None, "cannot read the manifest").await;
    check(http(404, &[], "{}"), None, "answered 404").await;
}

#[tokio::test]
async fn logins_and_mirrors_are_those_of_images() {
    let fleet = Fleet::new(&[(None, "one")]);
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let server = Server::start(move |request| {
        // me:secret
        if request.header("authorization") == "Basic bWU6c2VjcmV0" {
            return fleet.answer(request);
        }
        count.fetch_add(1, Ordering::SeqCst);
        http(401, &[("www-authenticate", "Basic realm=\"fleet\"")], "{}")
    });
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("auth.json");
    let logins = json!({"auths": {server.address.to_string(): {"auth": "bWU6c2VjcmV0"}}});
    std::fs::write(&file, logins.to_string()).expect("written");
    let error = fetch(quick(), &reference(&server, "fleet:main"), None).await.expect_err("no login");
    assert!(error.contains("wrong or missing credentials"), "{error}");
    assert_eq!(refused.load(Ordering::SeqCst), 1);
    let away = Server::start(|_| http(503, &[], "{}"));
    let mirrors = vec![format!("http://{}", away.address), format!("http://{}", server.address)];
    let hosts = [("registry.invalid".to_owned(), HostConfig { mirrors, ..HostConfig::default() })].into();
    let config = RegistryConfig { credential_files: Some(vec![file]), hosts, tries: 1, ..quick() };
    let name = ImageRef::parse("registry.invalid/fleet:main").expect("a reference");
    assert!(fetch(config, &name, None).await.expect("a mirror has it").is_some());
}
