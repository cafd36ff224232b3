use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::https::poll;
use super::*;
use crate::config::{ArchiveSource, OciSource};

/// An archive of entries: name, kind and content. Names are written as they are.
fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o4777);
        let linked = kind.is_symlink() || kind.is_hard_link();
        if linked {
            header.set_link_name(content).expect("short");
        }
        let content = if linked || kind.is_dir() { "" } else { content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).expect("in memory");
    }
    builder.into_inner().expect("in memory")
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

/// Serves these bytes for as long as the test runs; its URL and how it was asked.
async fn serve(status: u16, bytes: Vec<u8>) -> (String, Arc<std::sync::Mutex<Vec<String>>>) {
    let (address, asked) = serve_with(move |_| (status, bytes.clone())).await;
    (format!("http://{address}/x.tar"), asked)
}

/// Answers each request by its first line.
async fn serve_with(
    answer: impl Fn(&str) -> (u16, Vec<u8>) + Send + 'static,
) -> (std::net::SocketAddr, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("it is bound");
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&buffer[..read]).into_owned();
            let first = request.lines().next().unwrap_or_default().to_owned();
            seen.lock().expect("not poisoned").push(request);
            let (status, bytes) = answer(&first);
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len());
            drop(stream.write_all(head.as_bytes()).await);
            if !first.starts_with("HEAD") {
                drop(stream.write_all(&bytes).await);
            }
        }
    });
    (address, asked)
}

async fn source(bytes: &[u8], strip: usize, path: Option<&str>) -> ArchiveSource {
    let (url, _) = serve(200, bytes.to_vec()).await;
    ArchiveSource {
        name: "fleet".to_owned(),
        url,
        digest: format!("sha256:{}", Digest::of(bytes).hex()),
        path: path.map(Into::into),
        strip,
        token_file: None,
    }
}

const FILE: tar::EntryType = tar::EntryType::Regular;
const DIR: tar::EntryType = tar::EntryType::Directory;

fn read(home: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(home.join("current").join(name)).ok()
}

#[tokio::test]
async fn an_archive_is_unpacked_and_switched_to() {
    let home = tempfile::tempdir().expect("a directory for the test");
    let home = home.path();
    let first =
        packed(&archive(&[("top/", DIR, ""), ("top/hosts/web/a.yaml", FILE, "one"), ("top/b.yaml", FILE, "b")]));
    let one = source(&first, 1, Some("hosts/web")).await;
    assert_eq!(poll(&one, home).await.expect("it is there"), one.hex());
    assert_eq!(read(home, "a.yaml").as_deref(), Some("one"));
    assert_eq!(read(home, "b.yaml"), None);
    // The same with all of it, and another one without compression.
    let all = source(&first, 1, None).await;
    poll(&all, home).await.expect("it is there");
    assert_eq!(read(home, "b.yaml").as_deref(), Some("b"));
    let second = archive(&[("./a.yaml", FILE, "two")]);
    let two = source(&second, 0, None).await;
    poll(&two, home).await.expect("it is there");
    assert_eq!((read(home, "a.yaml").as_deref(), read(home, "b.yaml")), (Some("two"), None));
    use std::os::unix::fs::MetadataExt as _;
    let mode = std::fs::metadata(home.join("current/a.yaml")).expect("there").mode();
    assert_eq!(mode & 0o7000, 0, "no bit of the archive's modes counts");
}

#[tokio::test]
async fn what_is_there_is_not_asked_for_again() {
    let home = tempfile::tempdir().expect("a directory for the test");
    let bytes = archive(&[("a.yaml", FILE, "one")]);
    let (url, asked) = serve(200, bytes.clone()).await;
    let token = home.path().join("token");
    std::fs::write(&token, "canary\n").expect("written");
    std::os::unix::fs::chown(&token, None, None).expect("it is ours");
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("it is ours");
    let source = ArchiveSource { url, token_file: Some(token), ..source(&bytes, 0, None).await };
    for _ in 0..3 {
        poll(&source, home.path()).await.expect("it is there");
    }
    let asked = asked.lock().expect("not poisoned").clone();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].contains("authorization: Bearer canary\r\n"), "{asked:?}");
}

/// Archives of forges are often served from elsewhere: there the token has nothing to do.
#[tokio::test]
async fn a_token_does_not_follow_a_redirect_to_another_host() {
    let home = tempfile::tempdir().expect("a directory for the test");
    let bytes = archive(&[("a.yaml", FILE, "one")]);
    let (elsewhere, asked) = serve(200, bytes.clone()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let url = format!("http://{}/x.tar", listener.local_addr().expect("it is bound"));
    let first = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a request");
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.expect("it is sent");
        let answer =
            format!("HTTP/1.1 302 x\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.expect("it listens");
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    });
    let token = home.path().join("token");
    std::fs::write(&token, "canary").expect("written");
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("it is ours");
    let source = ArchiveSource { url, token_file: Some(token), ..source(&bytes, 0, None).await };
    poll(&source, home.path()).await.expect("it is there");
    assert!(first.await.expect("one request").contains("Bearer canary"));
    let asked = asked.lock().expect("not poisoned").concat();
    assert!(asked.contains("GET /x.tar") && !asked.contains("canary"), "{asked}");
}

#[tokio::test]
async fn what_is_wrong_changes_nothing() {
    let home = tempfile::tempdir().expect("a directory for the test");
    let home = home.path();
    let good = archive(&[("a.yaml", FILE, "good")]);
    poll(&source(&good, 0, None).await, home).await.expect("it is there");
    let bad = |entries: &[(&str, tar::EntryType, &str)]| archive(entries);
    let other = bad(&[("a.yaml", FILE, "bad")]);
    let (gone, _) = serve(404, Vec::new()).await;
    let mut wrong_digest = source(&other, 0, None).await;
    wrong_digest.digest = format!("sha256:{}", "00".repeat(32));
    let cases = [
        (wrong_digest, "has the digest sha256:"),
        (ArchiveSource { url: gone, ..source(&other, 0, None).await }, "answered 404"),
        (
            source(&bad(&[("a.yaml", FILE, "bad"), ("l", tar::EntryType::Symlink, "/etc")]), 0, None).await,
            "`l` is neither",
        ),
        (source(&bad(&[("h", tar::EntryType::Link, "/etc/passwd")]), 0, None).await, "`h` is neither"),
        (source(&bad(&[("d", tar::EntryType::Char, "")]), 0, None).await, "`d` is neither"),
        (source(&bad(&[("x/../../out.yaml", FILE, "bad")]), 0, None).await, "outside of the archive"),
        (source(&bad(&[("/out.yaml", FILE, "bad")]), 0, None).await, "outside of the archive"),
        (source(&bad(&[("a.yaml", FILE, "1"), ("a.yaml", FILE, "2")]), 0, None).await, "cannot unpack"),
        (source(&other, 0, Some("nowhere")).await, "no directory `nowhere`"),
        (source(&other[..300], 0, None).await, "cannot unpack"),
    ];
    for (source, expected) in cases {
        let error = spec::causes::chain(&poll(&source, home).await.expect_err(expected));
        assert!(error.contains(expected), "{expected}: {error}");
        assert_eq!(read(home, "a.yaml").as_deref(), Some("good"), "{expected}");
        assert!(!home.join("out.yaml").exists() && !home.join("draft/out.yaml").exists(), "{expected}");
    }
}

/// A registry with one artifact of these layers: title and content. Its tag is `main`.
async fn registry(layers: &[(Option<&str>, Vec<u8>)]) -> (OciSource, Digest, Arc<std::sync::Mutex<Vec<String>>>) {
    let mut described = Vec::new();
    for (title, bytes) in layers {
        let mut layer = serde_json::json!({"digest": Digest::of(bytes), "size": bytes.len()});
        if let Some(title) = title {
            layer["annotations"] = serde_json::json!({"org.opencontainers.image.title": title});
        }
        described.push(layer);
    }
    let manifest = serde_json::json!({"schemaVersion": 2, "layers": described}).to_string().into_bytes();
    let digest = Digest::of(&manifest);
    let blobs: Vec<Vec<u8>> = layers.iter().map(|(_, bytes)| bytes.clone()).collect();
    let (address, asked) = serve_with(move |first| {
        let blob = blobs.iter().find(|blob| first.contains(&Digest::of(blob).to_string()));
        match blob {
            _ if first.contains("/manifests/main") => (200, manifest.clone()),
            Some(blob) => (200, blob.clone()),
            None => (404, Vec::new()),
        }
    })
    .await;
    let source = OciSource {
        name: "fleet".to_owned(),
        reference: format!("oci://{address}/ops/fleet:main"),
        path: None,
        strip: 0,
        poll: std::time::Duration::from_secs(60),
    };
    (source, digest, asked)
}

fn artifacts(home: &Path) -> runtime::image::artifact::Artifacts {
    use runtime::image::{pull::Puller, registry::RegistryConfig, store::Store};
    let config = RegistryConfig { credential_files: Some(Vec::new()), tries: 1, ..RegistryConfig::default() };
    Puller::new(Store::open(&home.join("images")).expect("a store"), config).artifacts()
}

#[tokio::test]
async fn an_artifact_is_unpacked_and_switched_to() {
    let home = tempfile::tempdir().expect("a directory for the test");
    let home = home.path();
    let artifacts = artifacts(home);
    let check = async |source: &OciSource, known: Option<&str>| oci::poll(source, home, known, &artifacts).await;

    // What `flux push artifact` makes: one archive with gzip. Whatever else has a title is a file.
    let packed = packed(&archive(&[("web/a.yaml", FILE, "one"), ("b.yaml", FILE, "b")]));
    let (flux, digest, asked) = registry(&[(None, packed.clone()), (Some("web/c.yaml"), b"c".to_vec())]).await;
    let hex = digest.hex();
    assert_eq!(check(&flux, None).await.expect("it is there"), hex);
    assert_eq!((read(home, "web/a.yaml").as_deref(), read(home, "web/c.yaml").as_deref()), (Some("one"), Some("c")));
    // Asked again, it is the same: nothing is fetched.
    let before = asked.lock().expect("not poisoned").len();
    assert_eq!(check(&flux, Some(&hex)).await.expect("it is there"), hex);
    let after = asked.lock().expect("not poisoned").clone();
    assert!(after.iter().skip(before).all(|request| request.contains("/manifests/main")), "{after:?}");
    // Another part of it is.
    let part = OciSource { path: Some("web".into()), ..flux.clone() };
    assert_eq!(check(&part, Some(&hex)).await.expect("it is there"), hex);
    assert_eq!((read(home, "a.yaml").as_deref(), read(home, "b.yaml")), (Some("one"), None));

    // Wrong in any way: nothing changes.
    let link = archive(&[("l", tar::EntryType::Symlink, "/etc")]);
    for (layers, expected) in [
        (vec![(Some("../evil.yaml"), b"x".to_vec())], "outside of the archive"),
        (vec![(Some("/etc/evil.yaml"), b"x".to_vec())], "outside of the archive"),
        (vec![(Some("."), b"x".to_vec())], "no name"),
        (vec![(None, b"x".to_vec())], "cannot unpack"),
        (vec![(None, link)], "`l` is neither"),
        (vec![(None, packed.clone()), (Some("b.yaml"), b"x".to_vec())], "cannot unpack"),
        (vec![], "no layers"),
    ] {
        let (source, ..) = registry(&layers).await;
        let error = spec::causes::chain(&check(&source, Some(&hex)).await.expect_err(expected));
        assert!(error.contains(expected), "{expected}: {error}");
        assert_eq!(read(home, "a.yaml").as_deref(), Some("one"), "{expected}");
    }
    let gone = OciSource { reference: flux.reference.replace(":main", ":other"), ..flux };
    let error = spec::causes::chain(&check(&gone, Some(&hex)).await.expect_err("no such tag"));
    assert!(error.contains("not found") && read(home, "a.yaml").as_deref() == Some("one"), "{error}");
}
