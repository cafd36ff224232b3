//! What registries get wrong, by mistake or on purpose: each case ends in time with an error that names the fault,
//! and no image comes of it.

use std::time::{Duration, Instant};

use futures_util::future::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use spec::digest::Digest;

use super::fake::{
    Layer, OCI_INDEX, OCI_MANIFEST, Reply, Request, Server, Step, TestImage, blob, http, layer, manifest, noise, raw,
    truncated,
};
use super::{patient, quick, reference, rig, root};

/// What a registry answers instead of the right thing; `None` for the right thing.
pub(super) type Answer = Box<dyn Fn(&Request, &TestImage) -> Option<Reply> + Send + Sync>;

pub(super) fn on_manifest(reply: Reply) -> Answer {
    Box::new(move |request, _| request.is_manifest().then(|| reply.clone()))
}

pub(super) fn on_config(reply: impl Fn(&Request, &[u8]) -> Reply + Send + Sync + 'static) -> Answer {
    Box::new(move |request, image| request.is_blob(image.config_digest()).then(|| reply(request, &image.config)))
}

pub(super) fn on_layer(reply: impl Fn(&Request, &[u8]) -> Reply + Send + Sync + 'static) -> Answer {
    Box::new(move |request, image| request.is_blob(image.last().digest).then(|| reply(request, &image.last().bytes)))
}

/// The manifest with something changed in it.
pub(super) fn edited(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Answer {
    Box::new(move |request, image| {
        request.is_manifest().then(|| {
            let mut value = image.json();
            change(&mut value);
            manifest(&value)
        })
    })
}

/// The config with something changed in it, and a manifest that fits.
pub(super) fn reconfigured(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Answer {
    Box::new(move |request, image| {
        let mut config: Value = serde_json::from_slice(&image.config).expect("its own config");
        change(&mut config);
        let config = config.to_string();
        let digest = Digest::of(config.as_bytes());
        if request.is_blob(digest) {
            return Some(http(200, &[], config));
        }
        let mut value = image.json();
        value["config"]["digest"] = json!(digest);
        value["config"]["size"] = json!(config.len());
        request.is_manifest().then(|| manifest(&value))
    })
}

/// Another image altogether, consistent in itself.
pub(super) fn image_of(layers: Vec<Layer>) -> Answer {
    let other = TestImage::new(layers);
    Box::new(move |request, _| Some(other.answer(request)))
}

pub(super) fn index(entries: Value) -> Answer {
    on_manifest(manifest(&json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})))
}

pub(super) fn entry(digest: &str, size: Value) -> Value {
    json!([{"mediaType": OCI_MANIFEST, "digest": digest, "size": size,
        "platform": {"os": "linux", "architecture": "amd64"}}])
}

pub(super) fn redirect(location: &str) -> Answer {
    on_manifest(http(302, &[("location", location)], ""))
}

pub(super) fn steps(head: &str, step: Step) -> Reply {
    Reply::Steps(vec![Step::Send(head.as_bytes().to_vec()), step])
}

pub(super) const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

pub(super) fn chunked(bytes: &[u8]) -> Reply {
    let size = format!("{:x}\r\n", bytes.len());
    raw([CHUNKED.as_bytes(), size.as_bytes(), bytes, b"\r\n0\r\n\r\n"].concat())
}

pub(super) fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1;
    }
    bytes
}

pub(super) fn sized(bytes: &[u8]) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", bytes.len())
}

/// Manifests that cannot be had.
fn unavailable() -> Vec<(&'static str, Answer, &'static str)> {
    let slow = Duration::from_millis(15);
    vec![
        ("no such image", on_manifest(http(404, &[], "{}")), "image not found"),
        ("a 404 page", on_manifest(http(404, &[("content-type", "text/html")], "<h1>no")), "image not found"),
        ("410", on_manifest(http(410, &[], "")), "answered 410"),
        ("401 without challenge", on_manifest(http(401, &[], "")), "wrong or missing credentials"),
        ("403", on_manifest(http(403, &[], "")), "wrong or missing credentials"),
        ("500 for ever", on_manifest(http(500, &[], "oops")), "answered 500 for image: oops"),
        ("502 page", on_manifest(http(502, &[("content-type", "text/html")], "<html>")), "answered 502"),
        ("503 for a day", on_manifest(http(503, &[("retry-after", "86400")], "")), "answered 503"),
        ("429 for an hour", on_manifest(http(429, &[("retry-after", "3600")], "")), "asks to wait 3600s"),
        ("429 for ever", on_manifest(http(429, &[("retry-after", "99999999999999999999")], "")), "limits the rate"),
        ("429 again and again", on_manifest(http(429, &[], "")), "limits the rate"),
        ("204", on_manifest(http(204, &[], "")), "answered 204"),
        ("206 unasked", on_manifest(http(206, &[], "{}")), "answered 206"),
        ("304 unasked", on_manifest(http(304, &[], "")), "answered 304"),
        ("300", on_manifest(http(300, &[], "")), "answered 300"),
        ("418", on_manifest(http(418, &[], "")), "answered 418"),
        ("status 999", on_manifest(http(999, &[], "")), "answered 999"),
        ("status 000", on_manifest(raw("HTTP/1.1 000 x\r\n\r\n")), "broke off its answer"),
        ("closes at once", on_manifest(raw("")), "broke off its answer"),
        ("resets", on_manifest(Reply::Steps(vec![Step::Reset])), "broke off its answer"),
        ("never answers", on_manifest(Reply::Steps(vec![Step::Hang])), "sent nothing for 1s"),
        ("speaks SSH", on_manifest(raw("SSH-2.0-OpenSSH_9.2\r\n")), "broke off its answer"),
        ("HTTP/0.9", on_manifest(raw("{\"schemaVersion\":2}")), "broke off its answer"),
        ("TLS alert", on_manifest(raw(b"\x15\x03\x01\x00\x02\x02\x28".to_vec())), "broke off its answer"),
        ("zero bytes", on_manifest(raw(vec![0; 4096])), "broke off its answer"),
        (
            "head without end",
            on_manifest(steps("HTTP/1.1 200 OK\r\n", Step::Endless(b"x-a: b\r\n".to_vec()))),
            "registry",
        ),
        (
            "one endless header",
            on_manifest(steps("HTTP/1.1 200 OK\r\nx: ", Step::Endless(vec![b'a'; 999]))),
            "registry",
        ),
        ("head drips", on_manifest(Reply::Steps(vec![Step::Drip(vec![b'H'; 999], slow)])), "registry"),
        (
            "head drips well-formed",
            on_manifest(steps("HTTP/1.1 200 OK\r\n", Step::Drip(b"a: b\r\n".repeat(200), slow))),
            "sent nothing",
        ),
        (
            "informational answers for ever",
            on_manifest(Reply::Steps(vec![Step::Drip(b"HTTP/1.1 103 Early\r\n\r\n".repeat(99), slow / 15)])),
            "registry",
        ),
        (
            "body never comes",
            on_manifest(steps("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", Step::Hang)),
            "sent nothing",
        ),
        (
            "body drips",
            on_manifest(steps("HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n", Step::Drip(vec![b' '; 900], slow))),
            "sent ",
        ),
        (
            "body drips in chunks",
            on_manifest(steps(CHUNKED, Step::Drip(b"1\r\n{\r\n".repeat(500), Duration::from_millis(4)))),
            "sent ",
        ),
        (
            "endless body",
            on_manifest(steps(CHUNKED, Step::Endless([b"ff\r\n".as_slice(), &[b' '; 255], b"\r\n"].concat()))),
            "registry `127.0.0.1:",
        ),
        (
            "endless body without length",
            on_manifest(steps("HTTP/1.1 200 OK\r\n\r\n", Step::Endless(vec![b'{'; 4096]))),
            "registry `127.0.0.1:",
        ),
        ("ten gigabytes", on_manifest(http(200, &[("content-length", "10000000000")], "")), "is larger than 4194304"),
        ("bad chunk size", on_manifest(raw([CHUNKED, "zz\r\n{}"].concat())), "broke off its answer"),
        ("huge chunk size", on_manifest(raw([CHUNKED, "fffffffffffffffff\r\n{}"].concat())), "broke off its answer"),
        ("chunks end early", on_manifest(raw([CHUNKED, "5\r\n{}"].concat())), "broke off its answer"),
        ("negative length", on_manifest(http(200, &[("content-length", "-1")], "")), "broke off its answer"),
        ("length in words", on_manifest(http(200, &[("content-length", "many")], "")), "broke off its answer"),
        (
            "two lengths",
            on_manifest(raw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}")),
            "broke off",
        ),
        ("length too long", on_manifest(truncated(&[b' '; 900], 20)), "ended image after 20 of 900 bytes"),
        ("compressed unasked", on_manifest(http(200, &[("content-encoding", "gzip")], "")), "Content-Encoding `gzip`"),
        ("a login page", on_manifest(http(200, &[("content-type", "text/html; charset=x")], "<html>")), "a web page"),
    ]
}

/// Redirects that are not followed.
fn redirects() -> Vec<(&'static str, Answer, &'static str)> {
    let long = format!("/{}", "a".repeat(20_000));
    vec![
        ("redirect nowhere", on_manifest(http(302, &[], "")), "it has no Location"),
        ("redirect to nothing", redirect(" "), "its Location is empty"),
        ("two ways", on_manifest(http(307, &[("location", "/a"), ("location", "/b")], "")), "several Locations"),
        ("in circles", redirect("?"), "more than 10 redirects"),
        (
            "slowly in circles",
            on_manifest(Reply::Steps(vec![
                Step::Drip(vec![b'\n'; 1], Duration::from_millis(300)),
                Step::Send(b"HTTP/1.1 302 x\r\nlocation: ?\r\ncontent-length: 0\r\n\r\n".to_vec()),
            ])),
            "took longer than 2s for image",
        ),
        ("to a file", redirect("file:///etc/passwd"), "`file:` is neither http nor https"),
        ("to a script", redirect("javascript:alert(1)"), "`javascript:` is neither"),
        ("to a socket", redirect("unix:///run/docker.sock"), "`unix:` is neither"),
        ("with a user", redirect("http://root:toor@127.0.0.1/"), "holds a user name"),
        ("to plain http outside", redirect("http://192.0.2.1/x"), "over http without TLS"),
        ("to the metadata service", redirect("http://169.254.169.254/latest/meta-data"), "over http without TLS"),
        ("not an address", redirect("http://[::1/x"), "is not an address"),
        ("no host", redirect("http://"), "is not an address"),
        ("bad port", redirect("http://127.0.0.1:99999/"), "is not an address"),
        ("not text", on_manifest(raw(b"HTTP/1.1 302 x\r\nlocation: \xff\xfe\r\n\r\n".to_vec())), "is not text"),
        ("very long", redirect(&long), "longer than 16 KiB"),
    ]
}

/// Manifests that come, and are wrong.
fn manifests() -> Vec<(&'static str, Answer, &'static str)> {
    let other = Digest::of(b"other").to_string();
    let with = |headers: &[(&str, &str)], body: &str| on_manifest(http(200, headers, body));
    let v1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let deep_field = format!("{{\"schemaVersion\":2,\"a\":{deep}}}");
    let many = json!(vec![entry(&other, json!(7)).get(0).cloned().unwrap_or_default(); 1001]);
    vec![
        ("empty", with(&[], ""), "cannot read the manifest"),
        ("not JSON", with(&[], "manifest"), "cannot read the manifest"),
        ("an array", with(&[], "[]"), "cannot read the manifest"),
        ("null", with(&[], "null"), "cannot read the manifest"),
        ("very deep", with(&[], &deep), "cannot read the manifest"),
        ("a deep field", with(&[], &deep_field), "cannot read the manifest"),
        (
            "not UTF-8",
            on_manifest(http(200, &[], b"{\"schemaVersion\":2,\"mediaType\":\"\xff\"}".to_vec())),
            "cannot read",
        ),
        ("two values", with(&[], "{\"schemaVersion\":2}{}"), "cannot read the manifest"),
        ("field twice", with(&[], "{\"schemaVersion\":2,\"schemaVersion\":2}"), "cannot read the manifest"),
        ("other digest stated", with(&[("docker-content-digest", &other)], "{}"), "wrong digest of image"),
        ("digest with a path", with(&[("docker-content-digest", "sha256:../../etc/passwd")], "{}"), "is not a digest"),
        ("empty digest", with(&[("docker-content-digest", "")], "{}"), "is not a digest"),
        ("no schema", edited(|m| m["schemaVersion"] = json!(null)), "its schemaVersion is none"),
        ("schema 1", with(&[("content-type", v1)], "{\"schemaVersion\":1,\"fsLayers\":[]}"), "schema version 1"),
        ("schema 1 as 2", edited(|m| m["fsLayers"] = json!([])), "schema version 1"),
        ("schema 3", edited(|m| m["schemaVersion"] = json!(3)), "its schemaVersion is 3"),
        ("schema in words", edited(|m| m["schemaVersion"] = json!("2")), "cannot read the manifest"),
        (
            "unknown type",
            edited(|m| m["mediaType"] = json!("application/vnd.x+json")),
            "media type is `application/vnd.x+json`",
        ),
        ("says two types", with(&[("content-type", OCI_INDEX)], &TestImage::usual().json().to_string()), "ambiguous"),
        ("both forms", edited(|m| m["manifests"] = json!([])), "it has both `manifests` and `layers`"),
        (
            "index as manifest",
            with(&[("content-type", OCI_MANIFEST)], "{\"schemaVersion\":2,\"manifests\":[]}"),
            "sent as a manifest and is an index",
        ),
        (
            "a chart",
            edited(|m| m["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json")),
            "artifact of type `application/vnd.cncf.helm",
        ),
        (
            "a signature",
            edited(|m| {
                m["artifactType"] = json!("application/x-sig");
                m["config"]["mediaType"] = json!("application/vnd.oci.empty.v1+json");
            }),
            "artifact of type `application/x-sig`",
        ),
        ("no config", edited(|m| m["config"] = json!(null)), "it has no `config`"),
        ("no layers", edited(|m| m["layers"] = json!(null)), "it has no `layers`"),
        ("layers are text", edited(|m| m["layers"] = json!("none")), "cannot read the manifest"),
        (
            "foreign layer",
            edited(|m| {
                m["layers"][0]["mediaType"] = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
            }),
            "layer 1 is kept outside the registry",
        ),
        (
            "encrypted layer",
            edited(|m| m["layers"][1]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")),
            "layer 2 is encrypted",
        ),
        (
            "layer of another type",
            edited(|m| m["layers"][1]["mediaType"] = json!("application/x-rpm\u{1b}[2J")),
            "layer 2 has the media type `application/x-rpm [2J`",
        ),
        ("layer without type", edited(|m| m["layers"][1]["mediaType"] = json!(null)), "layer 2 has no media type"),
        (
            "layer digest with a path",
            edited(|m| m["layers"][0]["digest"] = json!("sha256:../../../../etc/shadow")),
            "`sha256:../../../../etc/shadow` is not a sha256 digest",
        ),
        (
            "layer digest in capitals",
            edited(|m| m["layers"][0]["digest"] = json!(format!("sha256:{}", "A".repeat(64)))),
            "is not a sha256 digest",
        ),
        (
            "layer digest sha512",
            edited(|m| m["layers"][0]["digest"] = json!(format!("sha512:{}", "a".repeat(128)))),
            "is not a sha256 digest",
        ),
        ("layer digest empty", edited(|m| m["layers"][0]["digest"] = json!("")), "is not a sha256 digest"),
        ("layer without digest", edited(|m| m["layers"][0]["digest"] = json!(null)), "cannot read the manifest"),
        (
            "config digest with a query",
            edited(|m| m["config"]["digest"] = json!("sha256:a?b#c")),
            "descriptor of config",
        ),
        ("negative size", edited(|m| m["layers"][0]["size"] = json!(-1)), "its size `-1` makes no sense"),
        ("half a byte", edited(|m| m["layers"][0]["size"] = json!(0.5)), "its size `0.5` makes no sense"),
        ("exabytes", edited(|m| m["layers"][0]["size"] = json!(u64::MAX)), "makes no sense"),
        ("size in words", edited(|m| m["layers"][0]["size"] = json!("12")), "cannot read the manifest"),
        ("huge config", edited(|m| m["config"]["size"] = json!(1_000_000_000)), "descriptor of config: its size"),
        ("too many layers", edited(|m| m["layers"] = json!(vec![m["layers"][0].clone(); 500])), "too many layers: 500"),
        (
            "more layers than diff ids",
            edited(|m| m["layers"] = json!(vec![m["layers"][0].clone(); 3])),
            "3 layers and the config 2 diff ids",
        ),
        ("layers swapped", edited(|m| m["layers"].as_array_mut().expect("layers").reverse()), "expected sha256:"),
        ("empty index", index(json!([])), "no image for linux/amd64: the index has none"),
        (
            "no entry for this",
            index(
                json!([{"mediaType": OCI_MANIFEST, "digest": other, "size": 7, "platform": {"os": "linux", "architecture": "mips\n\u{7}"}}]),
            ),
            "the index has linux/mips",
        ),
        ("entry with a path", index(entry("sha256:/../../x", json!(7))), "`sha256:/../../x` is not a sha256 digest"),
        ("entry of negative size", index(entry(&other, json!(-7))), "its size `-7` makes no sense"),
        (
            "entry not there",
            Box::new(|request, image| {
                let found = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entry(&Digest::of(b"no").to_string(), json!(7))});
                if request.target.ends_with("latest") { Some(manifest(&found)) } else { Some(image.answer(request)) }
            }),
            "not found",
        ),
        (
            "entry that is another",
            Box::new(|request, image| {
                let found = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entry(&Digest::of(b"no").to_string(), json!(image.manifest.len()))});
                if request.target.ends_with("latest") { Some(manifest(&found)) } else { Some(manifest(&image.json())) }
            }),
            "wrong digest of manifest",
        ),
        (
            "entry of another size",
            Box::new(|request, image| {
                let found = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entry(&image.digest().to_string(), json!(3))});
                request.target.ends_with("latest").then(|| manifest(&found))
            }),
            "wrong length of manifest",
        ),
        ("entries without end", index(many), "too many images in the index"),
        (
            "indexes in indexes",
            Box::new(|request, _| {
                // Six levels; each is named by the digest of the next.
                let mut levels = vec!["{}".to_owned()];
                for _ in 0..6 {
                    let last = levels.last().expect("a level");
                    let entries =
                        json!([{"mediaType": OCI_INDEX, "digest": Digest::of(last.as_bytes()), "size": last.len()}]);
                    levels.push(json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string());
                }
                let named = |level: &&String| request.target.ends_with(&Digest::of(level.as_bytes()).to_string());
                let level = levels.iter().find(named).or(levels.last()).expect("a level");
                request.is_manifest().then(|| http(200, &[("content-type", OCI_INDEX)], level.as_str()))
            }),
            "indexes are nested more than 3 deep",
        ),
    ]
}

/// Configs that are wrong.
fn configs() -> Vec<(&'static str, Answer, &'static str)> {
    vec![
        ("no config blob", on_config(|_, _| http(404, &[], "")), "config not found"),
        ("other config", on_config(|_, bytes| http(200, &[], flipped(bytes, 5))), "wrong digest of config"),
        ("short config", on_config(|_, _| http(200, &[], "{}")), "wrong length of config"),
        ("long config", on_config(|_, bytes| http(200, &[], [bytes, b" "].concat())), "wrong length of config"),
        ("config that hangs", on_config(|_, bytes| steps(&sized(bytes), Step::Hang)), "sent nothing"),
        (
            "config behind a login",
            on_config(|_, _| http(401, &[("www-authenticate", "Negotiate")], "")),
            "it wants `negotiate`",
        ),
        ("config is a list", reconfigured(|c| *c = json!([])), "cannot read the config"),
        ("no rootfs", reconfigured(|c| c["rootfs"] = json!(null)), "cannot read the config"),
        ("rootfs of another type", reconfigured(|c| c["rootfs"]["type"] = json!("zfs")), "rootfs is of type `zfs`"),
        ("no diff ids", reconfigured(|c| c["rootfs"]["diff_ids"] = json!([])), "2 layers and the config 0 diff ids"),
        (
            "diff id with a path",
            reconfigured(|c| c["rootfs"]["diff_ids"][0] = json!("sha256:../..")),
            "diff id `sha256:../..`",
        ),
        ("wrong diff id", reconfigured(|c| c["rootfs"]["diff_ids"][1] = json!(Digest::of(b"x"))), "expected sha256:"),
        (
            "for another processor",
            reconfigured(|c| c["architecture"] = json!("arm64")),
            "is for linux/arm64, not for linux/amd64",
        ),
        ("for Windows", reconfigured(|c| c["os"] = json!("windows")), "is for windows/amd64"),
        ("config of odd form", reconfigured(|c| c["config"] = json!({"Cmd": 7})), "configuration cannot be parsed"),
    ]
}

/// Layers that are wrong.
fn layers() -> Vec<(&'static str, Answer, &'static str)> {
    let slow = Duration::from_millis(15);
    let broken = |bytes: &'static [u8]| {
        let mut broken = layer("plain", "x", b"x");
        (broken.bytes, broken.digest, broken.diff_id) = (bytes.to_vec(), Digest::of(bytes), Digest::of(bytes));
        broken
    };
    let mut gzip_only = layer("gzip", "x", &noise(3, 1000));
    gzip_only.bytes.truncate(600);
    gzip_only.digest = Digest::of(&gzip_only.bytes);
    vec![
        ("no layer", on_layer(|_, _| http(404, &[], "")), "layer 2 of 2 not found"),
        ("layer forbidden", on_layer(|_, _| http(403, &[], "")), "wrong or missing credentials"),
        ("layer 500", on_layer(|_, _| http(500, &[], "")), "answered 500 for layer 2 of 2"),
        ("layer 204", on_layer(|_, _| http(204, &[], "")), "answered 204"),
        (
            "layer 206 unasked",
            on_layer(|_, bytes| http(206, &[("content-range", "bytes 0-1/2")], bytes)),
            "answered 206",
        ),
        ("one bit", on_layer(|_, bytes| http(200, &[], flipped(bytes, 5000))), "wrong digest of layer 2 of 2"),
        (
            "the last bit",
            on_layer(|_, bytes| http(200, &[], flipped(bytes, bytes.len() - 1))),
            "wrong digest of layer 2 of 2",
        ),
        ("zeros", on_layer(|_, bytes| http(200, &[], vec![0; bytes.len()])), "wrong digest of layer 2 of 2"),
        (
            "a page",
            on_layer(|_, _| http(200, &[("content-type", "text/html")], "<html>login</html>")),
            "wrong length of layer 2 of 2",
        ),
        ("nothing", on_layer(|_, _| http(200, &[], "")), "wrong length of layer 2 of 2"),
        ("one byte more", on_layer(|_, bytes| http(200, &[], [bytes, b"x"].concat())), "wrong length of layer 2 of 2"),
        ("one byte more in chunks", on_layer(|_, bytes| chunked(&[bytes, b"x"].concat())), "is larger than"),
        (
            "one byte less in chunks",
            on_layer(|_, bytes| chunked(bytes.get(..bytes.len() - 1).unwrap_or_default())),
            "ended layer 2 of 2 after",
        ),
        ("no chunks", on_layer(|_, _| chunked(b"")), "ended layer 2 of 2 after 0 of"),
        (
            "length of exabytes",
            on_layer(|_, _| http(200, &[("content-length", "9223372036854775807")], "")),
            "wrong length of layer",
        ),
        (
            "endless",
            on_layer(|_, _| steps("HTTP/1.1 200 OK\r\n\r\n", Step::Endless(vec![7; 4096]))),
            "layer 2 of 2 from registry",
        ),
        ("always broken", on_layer(|_, bytes| truncated(bytes, 1000)), "broke off its answer"),
        (
            "stops",
            on_layer(|_, bytes| {
                Reply::Steps(vec![Step::Send([sized(bytes).as_bytes(), &[31, 139]].concat()), Step::Hang])
            }),
            "sent ",
        ),
        ("never starts", on_layer(|_, _| Reply::Steps(vec![Step::Hang])), "sent nothing"),
        ("drips", on_layer(move |_, bytes| steps(&sized(bytes), Step::Drip(bytes.to_vec(), slow))), "sent "),
        (
            "compressed twice",
            on_layer(|_, bytes| http(200, &[("content-encoding", "gzip")], bytes)),
            "Content-Encoding",
        ),
        (
            "layer in circles",
            on_layer(|request, _| http(307, &[("location", &request.target)], "")),
            "more than 10 redirects",
        ),
        (
            "layer from outside",
            on_layer(|_, _| http(307, &[("location", "http://192.0.2.7/layer?secret=s3cr3t")], "")),
            "over http without TLS",
        ),
        (
            "goes on elsewhere",
            on_layer(|request, bytes| match request.header("range") {
                "" => truncated(bytes, 1000),
                _ => http(
                    206,
                    &[("content-range", &format!("bytes 999-{}/{}", bytes.len() - 1, bytes.len()))],
                    bytes.get(999..).unwrap_or_default(),
                ),
            }),
            "where the blob goes on at byte 1000",
        ),
        (
            "goes on without range",
            on_layer(|request, bytes| match request.header("range") {
                "" => truncated(bytes, 1000),
                _ => http(206, &[], bytes.get(1000..).unwrap_or_default()),
            }),
            "Content-Range `nothing`",
        ),
        (
            "goes on as another size",
            on_layer(|request, bytes| match request.header("range") {
                "" => truncated(bytes, 1000),
                _ => http(206, &[("content-range", "bytes 1000-1999/2000")], noise(5, 1000)),
            }),
            "Content-Range `bytes 1000-1999/2000`",
        ),
        (
            "goes on nonsensically",
            on_layer(|request, bytes| match request.header("range") {
                "" => truncated(bytes, 1000),
                _ => http(206, &[("content-range", "bytes 99999999999999999999-0/-1")], ""),
            }),
            "Content-Range",
        ),
        (
            "cannot go on",
            on_layer(|request, bytes| match request.header("range") {
                "" => truncated(bytes, 1000),
                _ => http(416, &[], ""),
            }),
            "answered 416",
        ),
        (
            "goes on with other bytes",
            on_layer(|request, bytes| match request.header("range") {
                "" => truncated(bytes, 1000),
                _ => blob(request, &flipped(bytes, 200_000)),
            }),
            "wrong digest of layer 2 of 2",
        ),
        (
            "starts again with other bytes",
            on_layer(|request, bytes| match request.count {
                0 => truncated(bytes, 100_000),
                _ => http(200, &[], flipped(bytes, 200_000)),
            }),
            "wrong digest of layer 2 of 2",
        ),
        (
            "not an archive",
            image_of(vec![broken(b"this is no archive, only text that goes on for a while")]),
            "layer 1 of 1",
        ),
        (
            "an archive that escapes",
            image_of(vec![layer("gzip", "../../../../tmp/mainstay-escaped", b"x")]),
            "layer 1 of 1",
        ),
        ("gzip cut short", image_of(vec![gzip_only]), "layer 1 of 1"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_wrong_is_taken_and_nothing_hangs() {
    if !root() {
        return;
    }
    check_all([unavailable(), redirects(), manifests(), configs(), layers()].into_iter().flatten().collect()).await;
}

/// A little faster than the lowest rate, for as long as the config is: it ends as a manifest would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_that_drips_ends() {
    if !root() {
        return;
    }
    let mut image = TestImage::usual();
    image.config.resize(9000, b' ');
    let mut manifest = image.json();
    manifest["config"]["digest"] = image.config_digest().to_string().into();
    manifest["config"]["size"] = image.config.len().into();
    image.manifest = manifest.to_string().into_bytes();
    let answer = move |request: &Request, _: &TestImage| {
        if !request.is_blob(image.config_digest()) {
            return Some(image.answer(request));
        }
        let mut steps = vec![Step::Send(sized(&image.config).into_bytes())];
        for part in image.config.chunks(150) {
            steps.push(Step::Send(part[..part.len() - 1].to_vec()));
            steps.push(Step::Drip(part[part.len() - 1..].to_vec(), Duration::from_millis(100)));
        }
        Some(Reply::Steps(steps))
    };
    check_all(vec![("a config that drips", Box::new(answer), "took longer than 4s for config")]).await;
}

/// Checks cases, some at a time, and fails with all that are not as they should be.
pub(super) async fn check_all(cases: Vec<(&'static str, Answer, &'static str)>) {
    let count = cases.len();
    let checks = cases.into_iter().map(|(name, answer, expected)| check(name, answer, expected).boxed());
    let wrong: Vec<_> = stream::iter(checks).buffer_unordered(6).filter_map(std::future::ready).collect().await;
    assert!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// What is not as it should be about a case.
pub(super) async fn check(name: &str, answer: Answer, expected: &str) -> Option<String> {
    let image = TestImage::usual();
    let server = Server::start(move |request| answer(request, &image).unwrap_or_else(|| image.answer(request)));
    // Only where something stalls is a short limit part of the case.
    let stalls = ["sent ", "took longer", "registry"].iter().any(|start| expected.starts_with(start));
    let rig = rig(if stalls { quick() } else { patient() });
    let start = Instant::now();
    let error = rig.refused(&reference(&server, "team/app"), &Vec::new()).await;
    let took = start.elapsed();
    let mut wrong = Vec::new();
    if !error.contains(expected) || error.starts_with("pulled") {
        wrong.push(format!("expected `{expected}`"));
    }
    if error.contains(|c: char| c.is_control()) || error.len() > 1500 || error.contains("s3cr3t") {
        wrong.push("not fit for people".to_owned());
    }
    if !error.contains("[hint: ") {
        wrong.push("no hint".to_owned());
    }
    // One stall of 1 s, or four for a document; generous, since the machine is shared.
    if took > Duration::from_secs(if stalls { 10 } else { 20 }) {
        wrong.push(format!("took {took:?}"));
    }
    if server.requests().len() > 30 {
        wrong.push(format!("{} requests", server.requests().len()));
    }
    // Layers that were under way when another one failed go away by themselves.
    while !rig.has_no_image() && start.elapsed() < took + Duration::from_secs(2) {
        tokio::task::yield_now().await;
    }
    if !rig.has_no_image() {
        wrong.push("something is in the store".to_owned());
    }
    (!wrong.is_empty()).then(|| format!("{name}: {} in: {error}", wrong.join(", ")))
}
