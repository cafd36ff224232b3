//! The image that is built into this program: one layer with one small web server, so that the first steps need no
//! registry. `quickstart/web.rs` is its source; the build script compiles it.

use serde_json::json;
use spec::digest::Digest;
use spec::image_ref::ImageRef;

use super::store::{Image, Origin, Store, StoreError};
use super::tarball::{END, TarEntry, padding};
use super::unpack::Compression;

/// What the image is called.
pub const QUICKSTART: &str = "mainstay.local/web:1";

/// The web server: static, for the architecture of this program.
static WEB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/web"));

/// Puts the quick-start image into the store, unless it is there. The same program always makes the same image.
pub fn ensure_quickstart(store: &Store) -> Result<Image, StoreError> {
    let reference = ImageRef::parse(QUICKSTART).map_err(|error| StoreError::Invalid { reason: error.to_string() })?;
    let layer = layer();
    let diff_id = Digest::of(&layer);
    let config = config(&diff_id);
    let manifest = manifest(&config, &diff_id, layer.len());
    // An older program's image of the same name is replaced, one of the same content is not touched.
    if let Some(image) = store.image(&reference)?
        && image.digest == Digest::of(&manifest)
    {
        return Ok(image);
    }
    if !store.has_layer(&diff_id) {
        store.unpack_layer(&diff_id, Compression::None, &mut layer.as_slice())?.commit()?;
    }
    store.put_image_from(Origin::Builtin, Some(&reference), &manifest, &config)
}

fn layer() -> Vec<u8> {
    let mut archive = Vec::new();
    for (path, mode) in
        [("./", 0o755), ("dev/", 0o755), ("etc/", 0o755), ("proc/", 0o555), ("sys/", 0o555), ("tmp/", 0o1777)]
    {
        let entry = TarEntry { path: path.into(), kind: b'5', mode, ..TarEntry::default() };
        archive.extend_from_slice(&entry.header());
    }
    archive.extend_from_slice(&TarEntry::file("web", 0o755, WEB.len() as u64).header());
    archive.extend_from_slice(WEB);
    archive.extend_from_slice(padding(WEB.len() as u64));
    archive.extend_from_slice(&END);
    archive
}

fn config(diff_id: &Digest) -> Vec<u8> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            // Not root: the server needs no right at all.
            "User": "65532:65532",
            "ExposedPorts": {"8080/tcp": {}},
            "Env": ["PATH=/"],
            "Entrypoint": ["/web"],
            "WorkingDir": "/",
            "Labels": {"org.opencontainers.image.title": "mainstay quick start"},
            "StopSignal": "SIGTERM"
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]}
    })
    .to_string()
    .into_bytes()
}

fn manifest(config: &[u8], diff_id: &Digest, size: usize) -> Vec<u8> {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(config),
            "size": config.len()
        },
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": diff_id, "size": size}]
    })
    .to_string()
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::process::{Command, Stdio};

    use super::*;
    use crate::image::unpack::testkit::root;

    #[test]
    fn the_image_is_the_same_every_time() {
        if !root() {
            return;
        }
        let work = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(work.path()).expect("opened");
        let image = ensure_quickstart(&store).expect("made");
        let again = ensure_quickstart(&store).expect("there");
        assert_eq!((image.digest, image.layers.len(), image.origin), (again.digest, 1, Origin::Builtin));
        let web = image.layers[0].join("web");
        assert_eq!(std::fs::read(&web).expect("read"), WEB);
        serves(&web);
    }

    /// The program answers requests, several on one connection, and ends on SIGTERM.
    fn serves(web: &std::path::Path) {
        // A free port: bound, looked at, released.
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port();
        let mut server = Command::new(web)
            .env("PORT", port.to_string())
            .env("GREETING", "<hi> & bye")
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut log = BufReader::new(server.stdout.take().expect("piped"));
        let mut line = String::new();
        log.read_line(&mut line).expect("read");
        assert_eq!(line, format!("listening on port {port}\n"));
        let connect = || {
            let stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("connected");
            stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("set");
            stream
        };
        let ask = |request: &str| {
            let mut stream = connect();
            stream.write_all(request.as_bytes()).expect("written");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("read");
            answer
        };
        let page = ask("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("<h1>&lt;hi&gt; &amp; bye</h1>"), "{page}");
        let two = ask("GET /healthz HTTP/1.1\r\n\r\nGET /none HTTP/1.1\r\nconnection: Close\r\n\r\n");
        assert_eq!((two.matches("200 OK").count(), two.matches("404 Not Found").count()), (1, 1), "{two}");
        assert!(ask("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx").starts_with("HTTP/1.1 405 "));
        assert!(!ask("HEAD / HTTP/1.0\r\n\r\n").contains("<html"));
        let idle: Vec<_> = (0..600).map(|_| connect()).collect();
        assert!(ask("GET /healthz HTTP/1.0\r\n\r\n").ends_with("ok\n"), "more connections than it has room for");
        drop(idle);
        let pid = rustix::process::Pid::from_child(&server);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
        assert_eq!(server.wait().expect("ended").code(), Some(0));
    }
}
