//! What a pull does when the registry means well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use spec::digest::Digest;
use spec::image_ref::ImageRef;
use spec::pod::PullPolicy;

use super::fake::{
    OCI_INDEX, OCI_MANIFEST, Reply, Server, Step, TestImage, blob, http, layer, manifest, noise, raw, truncated,
};
use super::{patient, quick, reference, rig, root, text};
use crate::api::PullProgress;
use crate::image::registry::RegistryConfig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_of_every_compression_is_pulled_and_not_fetched_again() {
    if !root() {
        return;
    }
    let image = TestImage::new(vec![
        layer("gzip", "a", b"one"),
        layer("zstd", "b", &noise(1, 200_000)),
        layer("plain", "c", &noise(2, 100_000)),
    ]);
    let (digest, served) = (image.digest(), image.clone());
    let server = Server::start(move |request| served.answer(request));
    let rig = rig(patient());
    let name = reference(&server, "team/app:1");
    assert_eq!(rig.pull(&name, &Vec::new()).await.expect("it is pulled").digest, digest);
    assert_eq!(server.count("/blobs/"), 4);
    rig.pull(&name, &Vec::new()).await.expect("it is there");
    assert_eq!(server.count("/blobs/"), 4, "equal digests are not fetched again");
    let manifests = server.requests().iter().filter(|r| r.is_manifest() && r.method == "GET").count();
    assert_eq!(manifests, 1, "an unchanged tag costs one HEAD");
}

/// Whether a tag has changed is asked with HEAD; whatever is answered to that, the image is what GET gives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_answer_to_head_is_no_answer() {
    if !root() {
        return;
    }
    let other = Digest::of(b"other").to_string();
    for (name, head) in [
        ("405", http(405, &[], "")),
        ("404", http(404, &[], "")),
        ("403", http(403, &[], "")),
        ("no digest", http(200, &[], "")),
        ("another digest", http(200, &[("docker-content-digest", &other)], "")),
        ("no digest at all", http(200, &[("docker-content-digest", "sha256:../x")], "")),
        ("closed", raw("")),
        ("with a body", raw("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody")),
        ("in circles", http(302, &[("location", "?")], "")),
    ] {
        let image = TestImage::usual();
        let (digest, served) = (image.digest(), image.clone());
        let server = Server::start(move |request| match request.method.as_str() {
            "HEAD" => head.clone(),
            _ => served.answer(request),
        });
        let rig = rig(patient());
        let reference = reference(&server, "app:1");
        for _ in 0..2 {
            let found = rig.refused(&reference, &Vec::new()).await;
            assert_eq!(found, format!("pulled {digest}"), "{name}");
        }
        assert_eq!(server.count("/blobs/"), 3, "{name}: nothing is fetched twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_are_those_of_kubernetes() {
    if !root() {
        return;
    }
    let image = TestImage::usual();
    let away = Arc::new(AtomicBool::new(false));
    let (served, gone) = (image.clone(), Arc::clone(&away));
    let server = Server::start(move |request| match gone.load(Ordering::SeqCst) {
        true => Reply::Steps(vec![Step::Reset]),
        false => served.answer(request),
    });
    let rig = rig(patient());
    let name = reference(&server, "app:1");
    let get = |policy| rig.puller.pull(&name, policy, Some("linux/amd64"), const { &Vec::new() }, None);
    let error = text(get(PullPolicy::Never).await.expect_err("it is not there"), &name);
    assert!(error.contains("imagePullPolicy is Never"), "{error}");
    get(PullPolicy::IfNotPresent).await.expect("it is fetched");
    let before = server.requests().len();
    get(PullPolicy::IfNotPresent).await.expect("it is there");
    get(PullPolicy::Never).await.expect("it is there");
    assert_eq!(server.requests().len(), before, "the registry was not asked");
    away.store(true, Ordering::SeqCst);
    let error = text(get(PullPolicy::Always).await.expect_err("the registry is away"), &name);
    assert!(error.contains("is in the store, but imagePullPolicy is Always"), "{error}");
    assert!(error.contains("broke off its answer"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_digest_is_pulled_and_checked() {
    if !root() {
        return;
    }
    let image = TestImage::usual();
    let (digest, served) = (image.digest(), image.clone());
    let server = Server::start(move |request| match request.target.contains(&Digest::of(b"other").to_string()) {
        true => manifest(&served.json()),
        false => served.answer(request),
    });
    let rig = rig(patient());
    let name = reference(&server, &format!("app:1@{digest}"));
    assert_eq!(rig.pull(&name, &Vec::new()).await.expect("it is pulled").digest, digest);
    let other = reference(&server, &format!("other@{}", Digest::of(b"other")));
    let error = text(rig.pull(&other, &Vec::new()).await.expect_err("it is another"), &other);
    assert!(error.contains("wrong digest of image"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_is_followed_to_the_platform() {
    if !root() {
        return;
    }
    let (image, other) = (TestImage::usual(), TestImage::new(vec![layer("gzip", "x", b"other")]));
    let entry = |bytes: &[u8], os: &str, arch: &str| {
        json!({"mediaType": OCI_MANIFEST, "digest": Digest::of(bytes), "size": bytes.len(),
            "platform": {"os": os, "architecture": arch}})
    };
    let mut attestation = entry(&other.manifest, "linux", "amd64");
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        attestation, entry(&other.manifest, "unknown", "unknown"), entry(&other.manifest, "linux", "arm64"),
        entry(&image.manifest, "linux", "amd64"),
    ]});
    let outer = index.to_string();
    let nested = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        {"mediaType": OCI_INDEX, "digest": Digest::of(outer.as_bytes()), "size": outer.len()}]});
    let (digest, served) = (image.digest(), image.clone());
    let server = Server::start(move |request| match request.target.rsplit_once('/').map(|(_, name)| name) {
        Some("latest") => manifest(&index),
        Some("nested") => manifest(&nested),
        Some(name) if name == Digest::of(outer.as_bytes()).to_string() => manifest(&index),
        _ => served.answer(request),
    });
    let rig = rig(patient());
    for tag in ["latest", "nested"] {
        let name = reference(&server, &format!("app:{tag}"));
        assert_eq!(rig.pull(&name, &Vec::new()).await.expect(tag).digest, digest);
    }
    let name = reference(&server, "app");
    let none = rig.puller.pull(&name, PullPolicy::Always, Some("linux/s390x"), const { &Vec::new() }, None).await;
    let error = text(none.expect_err("there is none"), &name);
    assert!(
        error.contains("no image for linux/s390x: the index has unknown/unknown, linux/arm64, linux/amd64"),
        "{error}"
    );
}

/// Pulls the usual image from a registry that answers the requests for its last layer in this way.
async fn layer_answers(answer: impl Fn(&super::fake::Request, &[u8]) -> Reply + Send + Sync + 'static) -> Server {
    layer_answers_with(patient(), answer).await
}

async fn layer_answers_with(
    config: crate::image::registry::RegistryConfig,
    answer: impl Fn(&super::fake::Request, &[u8]) -> Reply + Send + Sync + 'static,
) -> Server {
    let image = TestImage::usual();
    let served = image.clone();
    let server = Server::start(move |request| match request.is_blob(served.last().digest) {
        true => answer(request, &served.last().bytes),
        false => served.answer(request),
    });
    let rig = rig(config);
    let name = reference(&server, "app");
    let pulled = rig.pull(&name, &Vec::new()).await;
    assert_eq!(pulled.map(|i| i.digest).map_err(|error| text(error, &name)), Ok(image.digest()));
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_layer_goes_on_where_it_broke() {
    if !root() {
        return;
    }
    let server = layer_answers(|request, bytes| match request.count {
        0 => truncated(bytes, 100_000),
        _ => blob(request, bytes),
    })
    .await;
    let ranges: Vec<_> =
        server.requests().iter().map(|r| r.header("range").to_owned()).filter(|r| !r.is_empty()).collect();
    assert_eq!(ranges, ["bytes=100000-"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_without_ranges_sends_all_of_it_again() {
    if !root() {
        return;
    }
    layer_answers(|request, bytes| match request.count {
        0 => truncated(bytes, 100_000),
        _ => http(200, &[], bytes),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_that_pass_are_waited_for() {
    if !root() {
        return;
    }
    for first in [
        http(503, &[], "busy"),
        http(500, &[], ""),
        http(429, &[("retry-after", "0")], ""),
        http(429, &[("retry-after", "never")], ""),
        raw(""),
        Reply::Steps(vec![Step::Reset]),
        raw("HTTP/1.1 200 OK\r\ncontent-le"),
    ] {
        layer_answers(move |request, bytes| match request.count {
            0 => first.clone(),
            _ => blob(request, bytes),
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_stalls_half_way_goes_on() {
    if !root() {
        return;
    }
    layer_answers_with(quick(), |request, bytes| match request.count {
        0 => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", bytes.len());
            let sent = [head.as_bytes(), bytes.get(..290_000).expect("inside")].concat();
            Reply::Steps(vec![Step::Send(sent), Step::Hang])
        }
        _ => blob(request, bytes),
    })
    .await;
}

/// Silence counts from the last byte, and what comes after a retry has no limit of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_falls_silent_holds_a_pull_for_two_stall_limits() {
    if !root() {
        return;
    }
    for name in ["no answer", "a head", "a slow head"] {
        let image = TestImage::new(vec![layer("", "bin/app", &noise(7, 300_000))]);
        let served = image.clone();
        let server = Server::start(move |request| {
            let layer = served.last();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", layer.bytes.len()).into_bytes();
            let first = match (request.count, name) {
                _ if !request.is_blob(layer.digest) => return served.answer(request),
                (0, _) => Step::Send([&head, layer.bytes.get(..290_000).expect("inside")].concat()),
                (_, "a head") => Step::Send(head),
                (_, "a slow head") => Step::Drip(head, Duration::from_millis(18)),
                _ => Step::Send(Vec::new()),
            };
            Reply::Steps(vec![first, Step::Hang])
        });
        let rig = rig(quick());
        let start = std::time::Instant::now();
        let error = rig.refused(&reference(&server, "app:1"), &Vec::new()).await;
        let took = start.elapsed();
        assert!(error.contains("sent nothing for 1s"), "{name}: {error}");
        assert!((1900..2800).contains(&took.as_millis()), "{name}: {took:?}");
        assert_eq!(server.count(&image.last().digest.to_string()), 2, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_may_come_in_chunks_and_without_length() {
    if !root() {
        return;
    }
    let chunked = |bytes: &[u8]| {
        let mut body = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for chunk in bytes.chunks(7000) {
            body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body
    };
    layer_answers(move |_, bytes| raw([chunked(bytes), b"0\r\n\r\n".to_vec()].concat())).await;
    layer_answers(|_, bytes| raw([b"HTTP/1.0 200 OK\r\n\r\n", bytes].concat())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_carries_no_login_to_another_host() {
    if !root() {
        return;
    }
    let image = TestImage::usual();
    let bytes = image.last().bytes.clone();
    let storage = Server::start(move |request| blob(request, &bytes));
    let address = storage.address;
    let server = layer_answers(move |request, _| match request.target.contains("moved") {
        true => http(307, &[("location", &format!("http://{address}/bucket/x?signature=s"))], ""),
        false => http(302, &[("location", &format!("{}?moved", request.target))], ""),
    })
    .await;
    assert_eq!(server.count("/blobs/"), 4);
    assert!(storage.requests().iter().all(|request| request.header("authorization").is_empty()));
    assert_eq!(storage.count("/bucket/x?signature=s"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_pulls_are_one_and_layers_are_shared() {
    if !root() {
        return;
    }
    let image = TestImage::usual();
    let served = image.clone();
    let server = Server::start(move |request| served.answer(request));
    let rig = rig(patient());
    let (a, b) = (reference(&server, "a:1"), reference(&server, "b:1"));
    let none = Vec::new();
    let pulls = (0..20).map(|index| rig.pull(if index % 2 == 0 { &a } else { &b }, &none));
    for pulled in futures_util::future::join_all(pulls).await {
        assert_eq!(pulled.expect("it is pulled").digest, image.digest());
    }
    for layer in &image.layers {
        assert_eq!(server.count(&layer.digest.to_string()), 1, "one download for all");
    }
    assert_eq!(server.requests().iter().filter(|r| r.is_manifest()).count(), 2, "one pull for each reference");
}

/// Whatever a registry that hangs says its layers are: nobody who pulls from another one waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_hangs_keeps_no_other_waiting() {
    if !root() {
        return;
    }
    for hangs_at in ["config", "layer"] {
        let image = TestImage::new(vec![layer("gzip", "bin/app", &noise(7, 300_000))]);
        let (served, stuck) = (image.clone(), image.clone());
        let good = Server::start(move |request| served.answer(request));
        let bad = Server::start(move |request| {
            let config = request.is_blob(stuck.config_digest());
            if request.is_blob(stuck.last().digest) || (hangs_at == "config" && config) {
                return Reply::Steps(vec![Step::Hang]);
            }
            stuck.answer(request)
        });
        let rig = rig(RegistryConfig { parallel_images: 1, parallel_downloads: 1, ..patient() });
        let (a, b, none) = (reference(&bad, "app:1"), reference(&good, "app:1"), Vec::new());
        let start = std::time::Instant::now();
        let honest = async {
            let at = if hangs_at == "config" { image.config_digest() } else { image.last().digest };
            while bad.count(&at.to_string()) == 0 {
                tokio::task::yield_now().await;
            }
            rig.pull(&b, &none).await
        };
        let pulled = tokio::select! {
            pulled = honest => pulled,
            other = rig.pull(&a, &none) => panic!("{hangs_at}: {other:?}"),
        };
        assert_eq!(pulled.expect("it is pulled").digest, image.digest(), "{hangs_at}");
        assert!(start.elapsed() < Duration::from_secs(10), "{hangs_at}: {:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_is_given_up_leaves_nothing_and_does_not_block_the_next() {
    if !root() {
        return;
    }
    let image = TestImage::usual();
    let (served, hang) = (image.clone(), Arc::new(AtomicBool::new(true)));
    let hanging = Arc::clone(&hang);
    let server = Server::start(move |request| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", served.last().bytes.len());
        match request.is_blob(served.last().digest) && hanging.load(Ordering::SeqCst) {
            true => Reply::Steps(vec![Step::Send(head.into_bytes()), Step::Hang]),
            false => served.answer(request),
        }
    });
    let rig = rig(patient());
    let name = reference(&server, "app");
    let given_up = tokio::time::timeout(Duration::from_millis(150), rig.pull(&name, &Vec::new())).await;
    assert!(given_up.is_err());
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while !rig.has_no_image() && std::time::Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
    assert!(rig.has_no_image(), "what was unpacked is gone");
    hang.store(false, Ordering::SeqCst);
    assert_eq!(rig.pull(&name, &Vec::new()).await.expect("it is pulled").digest, image.digest());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_tells_each_layer() {
    if !root() {
        return;
    }
    let image = TestImage::usual();
    let served = image.clone();
    let server = Server::start(move |request| served.answer(request));
    let rig = rig(patient());
    let name = reference(&server, "app");
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    rig.puller
        .pull(&name, PullPolicy::Always, Some("linux/amd64"), &Vec::new(), Some(sender))
        .await
        .expect("it is pulled");
    let mut told = Vec::new();
    while let Ok(message) = receiver.try_recv() {
        told.push(message);
    }
    for layer in &image.layers {
        let (digest, size) = (layer.digest, layer.bytes.len() as u64);
        assert!(told.contains(&PullProgress::Layer { digest, size, present: false }), "{told:?}");
        assert!(told.contains(&PullProgress::Bytes { digest, received: size }), "{told:?}");
        assert!(told.contains(&PullProgress::Done { digest }), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirrors_are_asked_first_and_the_registry_after_them() {
    if !root() {
        return;
    }
    let image = TestImage::usual();
    let served = image.clone();
    let origin = Server::start(move |request| served.answer(request));
    let empty = Server::start(|_| http(404, &[], ""));
    let served = image.clone();
    let wrong = Server::start(move |request| match request.is_manifest() {
        true => served.answer(request),
        false => http(200, &[], "not it"),
    });
    let mut config = patient();
    let mirrors = vec![format!("http://{}/proxy", empty.address), wrong.address.to_string()];
    let host = super::super::registry::HostConfig { mirrors, ..Default::default() };
    config.hosts.insert(origin.address.to_string(), host);
    let rig = rig(config);
    let name = reference(&origin, "team/app");
    assert_eq!(rig.pull(&name, &Vec::new()).await.expect("it is pulled").digest, image.digest());
    let asked = empty.requests();
    let expected = format!("/v2/proxy/team/app/manifests/latest?ns={}", origin.address.to_string().replace(':', "%3A"));
    assert_eq!(asked.iter().map(|r| r.target.clone()).collect::<Vec<_>>(), [expected]);
    assert!(wrong.count("/blobs/") > 0);
    let missing = ImageRef::parse(&format!("{}/team/app@{}", origin.address, Digest::of(b"no"))).expect("a reference");
    let error = text(rig.pull(&missing, &Vec::new()).await.expect_err("nobody has it"), &missing);
    assert!(error.contains("no mirror has it (image not found"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bandwidth_limit_is_kept() {
    if !root() {
        return;
    }
    let image = TestImage::usual();
    let (size, served) = (image.layers.iter().map(|layer| layer.bytes.len()).sum::<usize>(), image.clone());
    let server = Server::start(move |request| served.answer(request));
    let rig = rig(crate::image::registry::RegistryConfig { bytes_per_second: Some(1_000_000), ..patient() });
    let start = std::time::Instant::now();
    rig.pull(&reference(&server, "app"), &Vec::new()).await.expect("it is pulled");
    assert!(start.elapsed() >= Duration::from_micros(size as u64), "{size} bytes in {:?}", start.elapsed());
}
