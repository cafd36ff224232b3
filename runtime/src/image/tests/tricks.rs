//! More that registries get wrong: documents that become large in memory, numbers and digests that only look right,
//! HTTP at its edges, ranges that lie, and compressed streams at the limits of their formats. What is odd and right
//! after all is pulled.

use std::time::Duration;

use serde_json::json;
use spec::digest::Digest;

use super::bad::{
    Answer, CHUNKED, check_all, edited, entry, image_of, index, on_config, on_layer, on_manifest, reconfigured,
    redirect, sized, steps,
};
use super::fake::{
    Layer, OCI_INDEX, OCI_MANIFEST, Server, Step, TestImage, blob, http, layer, manifest, raw, truncated,
};
use super::{patient, reference, rig, root};
use crate::image::unpack::testkit::{file, gzip, tar};

type Cases = Vec<(&'static str, Answer, &'static str)>;

fn documents() -> Cases {
    let zeros = format!("[{}]", vec!["0"; 1_000_000].join(","));
    let with = |body: String| on_manifest(http(200, &[("content-type", OCI_MANIFEST)], body));
    let many = zeros.clone();
    vec![
        ("a million values nobody reads", with(format!("{{\"schemaVersion\":2,\"x\":{zeros}}}")), "too many values"),
        (
            "a million values of schema 1",
            with(format!("{{\"schemaVersion\":2,\"fsLayers\":{zeros}}}")),
            "too many values",
        ),
        (
            "a million annotations",
            edited(|m| m["layers"][0]["annotations"] = json!({"a": vec![0; 1_000_000]})),
            "too many values",
        ),
        (
            "a million values in the config",
            reconfigured(move |c| c["x"] = serde_json::from_str(&many).expect("a list")),
            "too many values",
        ),
        ("a byte order mark", with(format!("\u{feff}{}", TestImage::usual().json())), "cannot read the manifest"),
        ("zeros behind it", with(format!("{}\0\0\0", TestImage::usual().json())), "cannot read the manifest"),
        ("larger than any manifest", with(" ".repeat(5 << 20)), "is larger than 4194304"),
        (
            "two digests stated",
            on_manifest(http(
                200,
                &[
                    ("docker-content-digest", &Digest::of(b"a").to_string()),
                    ("docker-content-digest", &Digest::of(b"b").to_string()),
                ],
                "{}",
            )),
            "two different Docker-Content-Digest",
        ),
        (
            "a digest with a line break",
            edited(|m| m["layers"][0]["digest"] = json!(format!("sha256:{}\n", "ab".repeat(32)))),
            "is not a sha256 digest",
        ),
        (
            "a digest of two parts",
            edited(|m| m["layers"][0]["digest"] = json!(format!("sha256:{0},sha256:{0}", "ab".repeat(32)))),
            "is not a sha256 digest",
        ),
        ("a size in floating point", edited(|m| m["layers"][0]["size"] = json!(1e3)), "makes no sense"),
        ("a size of minus nothing", edited(|m| m["layers"][0]["size"] = json!(-0.0)), "makes no sense"),
        (
            "a layer larger than the disk",
            edited(|m| m["layers"][0]["size"] = json!(1_u64 << 49)),
            "larger than the disk",
        ),
        ("a layer that claims to be empty", edited(|m| m["layers"][1]["size"] = json!(0)), "wrong length of layer 2"),
        (
            "an empty config",
            edited(|m| {
                m["config"]["size"] = json!(0);
                m["config"]["digest"] = json!(Digest::of(b""));
            }),
            "config not found",
        ),
        ("the config as a layer", edited(|m| m["layers"][1]["digest"] = m["config"]["digest"].clone()), "wrong length"),
        ("a layer as the config", edited(|m| m["config"]["digest"] = m["layers"][0]["digest"].clone()), "wrong length"),
        ("layers in a layer", edited(|m| m["layers"][0] = json!([{"digest": "sha256:"}])), "cannot read the manifest"),
        ("null for a layer", edited(|m| m["layers"][0] = json!(null)), "cannot read the manifest"),
        (
            "a layer that is an image",
            edited(|m| m["layers"][0]["mediaType"] = json!(OCI_MANIFEST)),
            "layer 1 has the media type",
        ),
        (
            "an index of nothing but indexes",
            index(json!([{"mediaType": OCI_INDEX, "digest": "x", "size": 1}])),
            "`x` is not",
        ),
        ("entries that are text", index(json!(["a", "b"])), "cannot read the manifest"),
        (
            "a platform that is a number",
            index(json!([{"mediaType": OCI_MANIFEST, "digest": "x", "size": 1, "platform": 7}])),
            "cannot read the manifest",
        ),
        ("a huge entry", index(entry(&Digest::of(b"x").to_string(), json!(1_u64 << 49))), "wrong length of manifest"),
        (
            "diff ids that are numbers",
            reconfigured(|c| c["rootfs"]["diff_ids"] = json!([1, 2])),
            "cannot read the config",
        ),
        (
            "the same diff id twice",
            reconfigured(|c| c["rootfs"]["diff_ids"][1] = c["rootfs"]["diff_ids"][0].clone()),
            "expected sha256:",
        ),
        (
            "no architecture and another system",
            reconfigured(|c| {
                c["os"] = json!("plan9");
                c["architecture"] = json!("amd64");
            }),
            "is for plan9/amd64",
        ),
        (
            "a layer's digest twice",
            with(TestImage::usual().json().to_string().replacen(
                "\"digest\":",
                &format!("\"digest\":\"{}\",\"digest\":", Digest::of(b"x")),
                1,
            )),
            "cannot read the manifest",
        ),
        (
            "a digest without its algorithm",
            edited(|m| m["layers"][0]["digest"] = json!("ab".repeat(32))),
            "is not a sha256",
        ),
        (
            "a digest one digit too long",
            edited(|m| m["layers"][0]["digest"] = json!(format!("sha256:{}a", "ab".repeat(32)))),
            "is not a sha256 digest",
        ),
        (
            "a digest of letters that look alike",
            edited(|m| m["layers"][0]["digest"] = json!(format!("sha256:{}\u{0430}", "a".repeat(62)))),
            "is not a sha256 digest",
        ),
        ("the config's size in words", edited(|m| m["config"]["size"] = json!("many")), "cannot read the manifest"),
        ("a config of negative size", edited(|m| m["config"]["size"] = json!(-2)), "its size `-2` makes no sense"),
        ("a config of no size", edited(|m| m["config"]["size"] = json!(null)), "cannot read the manifest"),
        (
            "a type of ten thousand letters",
            on_manifest(http(200, &[("content-type", &"x".repeat(10_000))], TestImage::usual().json().to_string())),
            "ambiguous",
        ),
        (
            "more diff ids than layers",
            reconfigured(|c| {
                c["rootfs"]["diff_ids"].as_array_mut().expect("a list").push(json!(Digest::of(b"x")));
            }),
            "2 layers and the config 3 diff ids",
        ),
        ("a rootfs of text", reconfigured(|c| c["rootfs"] = json!("layers")), "cannot read the config"),
        ("diff ids of nothing", reconfigured(|c| c["rootfs"]["diff_ids"] = json!(null)), "cannot read the config"),
        (
            "an environment without end",
            reconfigured(|c| c["config"]["Env"] = json!(vec!["A=b"; 300_000])),
            "too many values",
        ),
    ]
}

fn http_at_its_edges() -> Cases {
    let body = || TestImage::usual().json().to_string();
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    vec![
        ("101", on_manifest(raw("HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")), "registry `127.0.0.1"),
        ("101 without upgrade", on_manifest(raw("HTTP/1.1 101 x\r\n\r\n")), "registry `127.0.0.1"),
        ("205", on_manifest(http(205, &[], "")), "answered 205"),
        ("226", on_manifest(http(226, &[], body())), "answered 226"),
        ("402", on_manifest(http(402, &[], "")), "answered 402"),
        ("421", on_manifest(http(421, &[], "")), "answered 421"),
        ("451", on_manifest(http(451, &[], "{\"errors\":[{\"message\":\"no\\u001b[2J\"}]}")), "answered 451"),
        ("511", on_manifest(http(511, &[("location", "http://login/")], "")), "answered 511"),
        (
            "503 until never",
            on_manifest(http(503, &[("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")], "")),
            "answered 503",
        ),
        ("503 until minus one", on_manifest(http(503, &[("retry-after", "-1")], "")), "answered 503"),
        ("429 in half a second", on_manifest(http(429, &[("retry-after", "0.5")], "")), "limits the rate"),
        (
            "many headers",
            on_manifest(raw(format!("HTTP/1.1 200 OK\r\n{}\r\n", "x-a: b\r\n".repeat(20_000)))),
            "registry `127.0.0.1",
        ),
        (
            "line breaks of one byte, and a space before the colon",
            on_manifest(raw("HTTP/1.1 200 OK\ncontent-length : 2\n\n{}")),
            "registry `127.0.0.1",
        ),
        (
            "trailers without end",
            on_manifest(steps(&format!("{CHUNKED}{}0\r\n", chunk(&body())), Step::Endless(b"x: y\r\n".to_vec()))),
            "registry `127.0.0.1",
        ),
        (
            "an extension without end",
            on_manifest(steps(&format!("{CHUNKED}2;"), Step::Endless(vec![b'x'; 999]))),
            "registry `127.0.0.1",
        ),
        (
            "chunks of no end mark",
            on_manifest(steps(&format!("{CHUNKED}{}", chunk(&body())), Step::Hang)),
            "registry `127.0.0.1",
        ),
        ("a redirect to a data address", redirect("data:application/json,{}"), "`data:` is neither"),
        ("a redirect to ftp", redirect("ftp://127.0.0.1/x"), "`ftp:` is neither"),
        ("a redirect to all addresses", redirect("http://0.0.0.0/x"), "over http without TLS"),
        ("a redirect to a number", redirect("http://2130706434.example/x"), "over http without TLS"),
        ("a redirect with a line break", on_manifest(raw("HTTP/1.1 302 x\r\nlocation: /a\r\n b\r\n\r\n")), "registry"),
        (
            "a body to a redirect without end",
            on_manifest(steps("HTTP/1.1 302 x\r\nlocation: file:///x\r\n\r\n", Step::Endless(vec![7; 999]))),
            "`file:` is neither",
        ),
        (
            "an error without end",
            on_manifest(steps("HTTP/1.1 404 x\r\n\r\n", Step::Endless(vec![b'e'; 999]))),
            "image not found",
        ),
        (
            "an error that drips",
            on_manifest(steps("HTTP/1.1 404 x\r\n\r\n", Step::Drip(vec![b'e'; 9999], Duration::from_millis(15)))),
            "image not found",
        ),
        (
            "gzip below the chunks",
            on_manifest(raw("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")),
            "cannot read the manifest",
        ),
        (
            "a chunk of negative size",
            on_manifest(raw([CHUNKED, "-2\r\n{}\r\n0\r\n\r\n"].concat())),
            "broke off its answer",
        ),
        ("brotli", on_manifest(http(200, &[("content-encoding", "br")], body())), "Content-Encoding `br`"),
        (
            "gzip twice",
            on_manifest(http(200, &[("content-encoding", "gzip, gzip")], body())),
            "Content-Encoding `gzip, g",
        ),
        ("a status of four digits", on_manifest(raw("HTTP/1.1 2000 OK\r\ncontent-length: 2\r\n\r\n{}")), "broke off"),
        ("HTTP/3.7", on_manifest(raw("HTTP/3.7 200 OK\r\ncontent-length: 2\r\n\r\n{}")), "broke off its answer"),
        ("a name with a NUL", on_manifest(raw("HTTP/1.1 200 OK\r\nx\0y: z\r\n\r\n{}")), "broke off its answer"),
        ("an echo", on_manifest(raw("GET /v2/team/app/manifests/latest HTTP/1.1\r\nhost: x\r\n\r\n")), "broke off"),
        ("a redirect to the dark", redirect("http://127.0.0.1:1/x"), "registry `127.0.0.1:1`"),
        ("a redirect to https without TLS", redirect_to_https(), "registry `127.0.0.1"),
        ("a redirect to no port", redirect("http://127.0.0.1:0/x"), "registry `127.0.0.1"),
        ("a redirect to gopher", redirect("gopher://127.0.0.1/_GET"), "`gopher:` is neither"),
        ("a redirect to a file of this host", redirect("FILE:///etc/passwd"), "`file:` is neither"),
        ("a redirect over backslashes", redirect("\\\\192.0.2.1\\x"), "over http without TLS"),
        (
            "a config in two places",
            on_config(|_, _| http(302, &[("location", "/a"), ("location", "/b")], "")),
            "several Locations",
        ),
    ]
}

/// The registry itself, at the scheme that it does not speak.
fn redirect_to_https() -> Answer {
    Box::new(|request, _| {
        let host = request.header("host").to_owned();
        request.is_manifest().then(|| http(302, &[("location", &format!("https://{host}/x"))], ""))
    })
}

fn ranges() -> Cases {
    // A layer that breaks after 100,000 bytes, and what comes then.
    let after = |reply: fn(&super::fake::Request, &[u8]) -> super::fake::Reply| {
        on_layer(move |request, bytes| match request.header("range") {
            "" => truncated(bytes, 100_000),
            _ => reply(request, bytes),
        })
    };
    vec![
        (
            "several parts",
            after(|_, bytes| http(206, &[("content-type", "multipart/byteranges; boundary=x")], bytes)),
            "Content-Range `nothing`",
        ),
        (
            "a range of another unit",
            after(|_, bytes| {
                http(206, &[("content-range", &format!("lines 100000-{}/{}", bytes.len() - 1, bytes.len()))], "")
            }),
            "Content-Range `lines",
        ),
        (
            "the right range and too few bytes",
            after(|request, bytes| {
                let mut reply = blob(request, bytes);
                if let super::fake::Reply::Http { body, .. } = &mut reply {
                    body.truncate(10);
                }
                reply
            }),
            "wrong length of layer 2 of 2",
        ),
        (
            "the right range and too many bytes",
            after(|request, bytes| {
                let mut reply = blob(request, bytes);
                if let super::fake::Reply::Http { body, .. } = &mut reply {
                    body.extend_from_slice(b"more");
                }
                reply
            }),
            "wrong length of layer 2 of 2",
        ),
        (
            "the right range in chunks with too many bytes",
            after(|_, bytes| {
                let rest = bytes.get(100_000..).unwrap_or_default();
                let head = format!(
                    "HTTP/1.1 206 x\r\ncontent-range: bytes 100000-{}/{}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n",
                    bytes.len() - 1,
                    bytes.len(),
                    rest.len() + 1
                );
                raw([head.as_bytes(), rest, b"x\r\n0\r\n\r\n"].concat())
            }),
            "is larger than",
        ),
        (
            "the start again, shorter",
            after(|_, bytes| http(200, &[], bytes.get(..50_000).unwrap_or_default())),
            "wrong length",
        ),
        (
            "a range in words",
            after(|_, bytes| {
                let rest = bytes.get(100_000..).unwrap_or_default();
                http(206, &[("content-range", "bytes all-of/it")], rest)
            }),
            "Content-Range `bytes all-of/it`",
        ),
        (
            "a range that ends too early",
            after(|_, bytes| {
                let range = format!("bytes 100000-100009/{}", bytes.len());
                http(206, &[("content-range", &range)], bytes.get(100_000..100_010).unwrap_or_default())
            }),
            "Content-Range `bytes 100000-100009",
        ),
        (
            "a range behind the end",
            after(|_, bytes| http(206, &[("content-range", &format!("bytes */{}", bytes.len()))], "")),
            "Content-Range `bytes */",
        ),
        (
            "a redirect to itself now",
            after(|request, _| http(307, &[("location", &request.target)], "")),
            "more than 10 redirects",
        ),
        (
            "compressed now",
            after(|_, bytes| http(206, &[("content-encoding", "gzip")], bytes)),
            "Content-Encoding `gzip`",
        ),
        ("nothing at all", after(|_, _| http(204, &[], "")), "answered 204"),
        ("it is gone", after(|_, _| http(404, &[], "")), "layer 2 of 2 not found"),
        ("a login now", after(|_, _| http(401, &[("www-authenticate", "Basic")], "")), "wrong or missing credentials"),
        (
            "one byte at a time",
            on_layer(|request, bytes| {
                let start = request.header("range").strip_prefix("bytes=").and_then(|r| r.strip_suffix('-'));
                let start: usize = start.and_then(|start| start.parse().ok()).unwrap_or(0);
                let range = format!("content-range: bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                let status = if start == 0 { "200 OK" } else { "206 x" };
                let length = bytes.len() - start;
                let head = format!("HTTP/1.1 {status}\r\n{range}\r\ncontent-length: {length}\r\n\r\n");
                raw([head.as_bytes(), bytes.get(start..=start).unwrap_or_default()].concat())
            }),
            "broke off its answer",
        ),
        (
            "a layer that comes whole and never ends",
            on_layer(|_, bytes| {
                let head = format!("{CHUNKED}{:x}\r\n", bytes.len());
                steps_of(&[head.as_bytes(), bytes, b"\r\n"].concat(), Step::Endless(b"4\r\nmore\r\n".to_vec()))
            }),
            "is larger than",
        ),
        ("a length that is right and nothing else", on_layer(|_, bytes| raw(sized(bytes))), "broke off its answer"),
    ]
}

fn steps_of(start: &[u8], then: Step) -> super::fake::Reply {
    super::fake::Reply::Steps(vec![Step::Send(start.to_vec()), then])
}

/// A layer of these stored bytes, whose archive would be `plain`.
fn stored(bytes: Vec<u8>, plain: &[u8]) -> Layer {
    Layer { digest: Digest::of(&bytes), bytes, diff_id: Digest::of(plain), media_type: super::fake::OCI_GZIP }
}

fn one_file() -> Vec<u8> {
    tar(&[file("etc/motd", "hello")])
}

/// The header of a zstd frame whose window is so many bytes, as a power of two, and one block of nothing.
fn zstd_window(log: u8) -> Vec<u8> {
    [b"\x28\xb5\x2f\xfd\x00".as_slice(), &[(log - 10) << 3], b"\x01\x00\x00"].concat()
}

/// A frame with a check sum at its end, which is right or not.
fn zstd_checked(bytes: &[u8], broken: bool) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("memory");
    encoder.include_checksum(true).expect("an option");
    std::io::Write::write_all(&mut encoder, bytes).expect("memory");
    let mut packed = encoder.finish().expect("memory");
    if let Some(last) = packed.last_mut().filter(|_| broken) {
        *last ^= 1;
    }
    packed
}

fn streams() -> Cases {
    let plain = one_file();
    let packed = gzip(&plain);
    let case = |bytes: Vec<u8>| image_of(vec![stored(bytes, &one_file())]);
    let changed = |at: usize, to: u8| {
        let mut bytes = packed.clone();
        if let Some(byte) = bytes.get_mut(at) {
            *byte = to;
        }
        bytes
    };
    let last = packed.len() - 1;
    vec![
        ("gzip of an unknown method", case(changed(2, 9)), "layer 1 of 1"),
        ("gzip with a wrong length", case(changed(last, 9)), "layer 1 of 1"),
        (
            "gzip of two members, the second cut",
            case([packed.clone(), packed.get(..20).unwrap_or_default().to_vec()].concat()),
            "layer 1 of 1",
        ),
        (
            "gzip whose name never ends",
            case([b"\x1f\x8b\x08\x08\0\0\0\0\0\0".as_slice(), &[b'n'; 9999]].concat()),
            "layer 1 of 1",
        ),
        ("zstd of a huge window", case(zstd_window(31)), "layer 1 of 1"),
        ("zstd that skips four gigabytes", case(b"\x50\x2a\x4d\x18\xff\xff\xff\xffabc".to_vec()), "layer 1 of 1"),
        (
            "zstd with garbage behind",
            case([zstd::encode_all(&*plain, 1).expect("memory"), b"garbage".to_vec()].concat()),
            "layer 1 of 1",
        ),
        ("zstd that wants a dictionary", case(b"\x28\xb5\x2f\xfd\x01\x00\x07\x01\x00\x00".to_vec()), "layer 1 of 1"),
        (
            "zstd that holds less than it says",
            case(b"\x28\xb5\x2f\xfd\x20\x64\x19\x00\x00abc".to_vec()),
            "layer 1 of 1",
        ),
        ("zstd with a wrong check sum", case(zstd_checked(&plain, true)), "layer 1 of 1"),
        ("zip", case(b"PK\x03\x04\x14\0\0\0\0\0rest of it".repeat(40)), "layer 1 of 1"),
        ("a program", case([b"\x7fELF\x02\x01\x01\0".as_slice(), &[0; 2000]].concat()), "layer 1 of 1"),
        ("zstd that is no more than its start", case(b"\x28\xb5\x2f\xfd".to_vec()), "layer 1 of 1"),
        ("xz", case(b"\xfd7zXZ\0\0\x04rest of it".repeat(40)), "layer 1 of 1"),
        ("bzip2", case(b"BZh91AY&SY rest of it".repeat(40)), "layer 1 of 1"),
        ("gzip in gzip", case(gzip(&packed)), "layer 1 of 1"),
        ("an archive in place of its own archive", case(tar(&[file("etc/motd", "other")])), "expected sha256:"),
        (
            "a bomb",
            image_of(vec![stored(zstd::encode_all(&*vec![0; 300 << 20], 1).expect("memory"), b"")]),
            "the compression ratio",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_trick_makes_an_image_or_a_hang() {
    if !root() {
        return;
    }
    check_all([documents(), http_at_its_edges(), ranges(), streams()].into_iter().flatten().collect()).await;
}

/// What is odd, and right all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_only_odd_is_pulled() {
    if !root() {
        return;
    }
    let plain = one_file();
    let (one, two) = plain.split_at(600);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).expect("memory");
    let skip = b"\x5a\x2a\x4d\x18\x03\0\0\0abc".to_vec();
    let named = {
        // Flags for more fields than anybody writes: an extra field, a name, a comment.
        let packed = gzip(&plain);
        let rest = packed.get(10..).expect("a member").to_vec();
        [b"\x1f\x8b\x08\x1c\0\0\0\0\0\x03".to_vec(), b"\x04\0abcdname\0comment\0".to_vec(), rest].concat()
    };
    let layers = [
        ("gzip of several members", [gzip(one), gzip(b""), gzip(two)].concat()),
        ("gzip with zeros behind", [gzip(&plain), vec![0; 700]].concat()),
        ("gzip with garbage behind", [gzip(&plain), b"garbage".to_vec()].concat()),
        ("gzip with every field", named),
        ("zstd of several frames", [zstd(one), zstd(b""), zstd(two)].concat()),
        ("zstd between skippable frames", [skip.clone(), zstd(one), skip.clone(), zstd(two), skip].concat()),
        ("a plain archive that says it is gzip", plain.clone()),
        ("zstd that says it is gzip", zstd(&plain)),
        ("zstd with a check sum", zstd_checked(&plain, false)),
        ("gzip of many empty members", [gzip(b"").repeat(5000), gzip(&plain)].concat()),
    ];
    for (name, bytes) in layers {
        let image = TestImage::new(vec![stored(bytes, &plain)]);
        pulled(name, image.clone(), move |request| image.answer(request)).await;
    }
    let twice = TestImage::new(vec![layer("gzip", "a", b"1"), layer("gzip", "b", b"2"), layer("gzip", "a", b"1")]);
    pulled("a layer that is there twice", twice.clone(), move |request| twice.answer(request)).await;
    let none = TestImage::new(Vec::new());
    pulled("an image without layers", none.clone(), move |request| none.answer(request)).await;
    let empty = TestImage::new(vec![stored(gzip(b""), b""), stored(gzip(&[0; 1024]), &[0; 1024])]);
    pulled("layers without entries", empty.clone(), move |request| empty.answer(request)).await;
    let many = TestImage::new((0..150).map(|n| layer("gzip", &format!("f{n}"), b"x")).collect());
    pulled("150 layers", many.clone(), move |request| many.answer(request)).await;
    let usual = TestImage::usual();
    for (name, head) in [
        ("HTTP/1.0", "HTTP/1.0 200 OK\r\n"),
        (
            "a charset",
            "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.oci.image.manifest.v1+json ; charset=UTF-8\r\n",
        ),
        ("capitals", "HTTP/1.1 200 OK\r\nCONTENT-TYPE: Application/Vnd.OCI.Image.Manifest.v1+JSON\r\n"),
        ("no type", "HTTP/1.1 200 OK\r\n"),
        ("any bytes", "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n"),
        ("an encoding that is none", "HTTP/1.1 200 OK\r\ncontent-encoding: identity\r\n"),
        ("a place", "HTTP/1.1 200 OK\r\nlocation: http://192.0.2.1/x\r\n"),
        ("hints before it", "HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n"),
        ("no reason", "HTTP/1.1 200\r\n"),
        ("a digest in sha512", "HTTP/1.1 200 OK\r\ndocker-content-digest: sha512:00\r\n"),
    ] {
        let image = usual.clone();
        pulled(name, usual.clone(), move |request| match request.is_manifest() {
            true => raw([head.as_bytes(), b"connection: close\r\n\r\n", &image.manifest].concat()),
            false => image.answer(request),
        })
        .await;
    }
    for status in [301, 302, 303, 307, 308] {
        let image = usual.clone();
        pulled("redirects of every kind", usual.clone(), move |request| match request.target.contains("?moved") {
            false => http(status, &[("location", &format!("{}?moved#part", request.target))], "gone there"),
            true => image.answer(request),
        })
        .await;
    }
    for host in ["//", "http://"] {
        let image = usual.clone();
        pulled("redirects without a scheme", usual.clone(), move |request| match request.target.contains("?moved") {
            false => {
                let location = format!("{host}{}{}?moved", request.header("host"), request.target);
                http(302, &[("location", &location)], "")
            }
            true => image.answer(request),
        })
        .await;
    }
    // Annotations and fields of the future, and places that nobody goes to.
    let mut extended = usual.json();
    extended["layers"][0]["urls"] = json!(["http://169.254.169.254/", "file:///etc/passwd"]);
    extended["layers"][0]["data"] = json!("bm90IGl0");
    extended["config"]["data"] = json!("e30=");
    extended["annotations"] = json!({"a": "b"});
    extended["subject"] = json!({"mediaType": OCI_MANIFEST, "digest": Digest::of(b"s"), "size": 1});
    extended["future"] = json!([1, {"a": null}]);
    let (image, text) = (usual.clone(), extended.to_string());
    let server = Server::start(move |request| match request.is_manifest() {
        true => manifest(&extended),
        false => image.answer(request),
    });
    let name = reference(&server, "odd");
    assert_eq!(
        rig(patient()).pull(&name, &Vec::new()).await.expect("it is pulled").digest,
        Digest::of(text.as_bytes())
    );
}

async fn pulled(
    name: &str,
    image: TestImage,
    answer: impl Fn(&super::fake::Request) -> super::fake::Reply + Send + Sync + 'static,
) {
    let server = Server::start(answer);
    let rig = rig(patient());
    let found = rig.refused(&reference(&server, "odd"), &Vec::new()).await;
    assert_eq!(found, format!("pulled {}", image.digest()), "{name}");
    assert!(rig.store.verify(None).expect("read").is_good(), "{name}");
}
