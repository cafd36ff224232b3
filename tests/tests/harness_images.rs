//! The images and the registry of the harness are what others take for images and a registry.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use serde_json::Value;
use tests::http::{get, get_with};
use tests::image::{
    Compression, Format, digest, fixture_image, host_architecture, scratch_image, write_docker_archive,
    write_oci_archive, write_oci_layout,
};
use tests::registry::Auth;
use tests::sandbox::skipped;
use tests::{Fault, Image, ImageBuilder, Layer, Registry};

fn two_layers() -> Image {
    ImageBuilder::new()
        .layer(Layer::new().dir("/etc").file("/etc/a", "a\n".repeat(5000)))
        .layer(Layer::new().whiteout("/etc/a").file("/etc/b", "b").compress(Compression::Zstd))
        .entrypoint(&["/bin/x"])
        .build()
}

/// What skopeo makes of a source: a second opinion on formats. `None` where it is not installed.
fn skopeo(test: &str, arguments: &[&str]) -> Option<Value> {
    let output = match Command::new("skopeo").args(["--insecure-policy", "inspect"]).args(arguments).output() {
        Ok(output) => output,
        Err(e) => {
            // An optional second opinion: without it the test still checks what it can, so CI does not fail.
            eprintln!("{test}: no second opinion: cannot run skopeo: {e}");
            return None;
        }
    };
    assert!(output.status.success(), "skopeo: {}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("skopeo prints JSON"))
}

#[test]
fn layouts_and_archives_are_read_by_others() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let image = two_layers();
    let path = |name: &str| dir.path().join(name);
    write_oci_layout(&path("layout"), &[("one", &image)]).expect("the directory is ours");
    write_oci_archive(&path("oci.tar"), &[("one", &image)]).expect("the directory is ours");
    let plain = ImageBuilder::new().layer(Layer::new().file("/a", "b")).build();
    write_docker_archive(&path("docker.tar"), &[("example.org/one:1", &plain)]).expect("the directory is ours");
    check_layout(&path("layout"), &image);
    let text = |name: &str| path(name).display().to_string();
    for source in [format!("oci:{}:one", text("layout")), format!("oci-archive:{}:one", text("oci.tar"))] {
        if let Some(seen) = skopeo("layouts", &[&source]) {
            assert_eq!(seen["Digest"], image.digest());
            assert_eq!(seen["Layers"].as_array().map(Vec::len), Some(2));
            assert_eq!(seen["Architecture"], host_architecture());
        }
    }
    if let Some(seen) = skopeo("docker archive", &[&format!("docker-archive:{}", text("docker.tar"))]) {
        assert_eq!(seen["Layers"].as_array().map(Vec::len), Some(1));
    }
}

fn check_layout(dir: &Path, image: &Image) {
    let read = |path: &str| std::fs::read(dir.join(path)).expect("the layout has this file");
    let index: Value = serde_json::from_slice(&read("index.json")).expect("the index is JSON");
    assert_eq!(index["manifests"][0]["digest"], image.digest());
    for (name, bytes) in &image.blobs {
        assert_eq!(&digest(&read(&format!("blobs/{}", name.replace(':', "/")))), name);
        assert_eq!(&digest(bytes), name);
    }
}

#[test]
fn the_fixture_runs_from_the_files_of_its_image() {
    // Without a container: the loader and the libraries of the image are used in place.
    let files = tests::image::fixture_files();
    let names: Vec<&str> = files.iter().map(|(path, ..)| path.as_str()).collect();
    assert!(names.contains(&"/bin/fixture") && names.contains(&"/etc/passwd"), "{names:?}");
    assert!(names.iter().any(|name| name.contains("libc")), "{names:?}");
    assert!(fixture_image().layers.len() == 1);
    if !tests::require_root("the_fixture_runs_from_the_files_of_its_image") {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    for (path, bytes, mode) in &files {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().expect("files are below the root")).expect("the directory is ours");
        std::fs::write(&path, bytes).expect("the directory is ours");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).expect("the file is ours");
    }
    let output = Command::new("chroot").arg(dir.path()).args(["/bin/fixture", "cat", "/etc/group"]).output();
    let output = output.expect("chroot is part of every Linux");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("extra:x:2000:app"));
}

#[test]
fn skopeo_reads_from_the_registry_with_every_kind_of_login() {
    let registry = Registry::start();
    let image = Image::index(
        Format::Oci,
        &[(&format!("linux/{}", host_architecture()), two_layers()), ("linux/s390x", scratch_image(&[("/a", "b")]))],
    );
    let reference = registry.push("team/app:1.2", &image);
    let secret = || ("user".to_owned(), "pass".to_owned());
    let cases = [
        (Auth::Anonymous, None),
        (Auth::Basic(secret().0, secret().1), Some("user:pass")),
        (Auth::BearerAnonymous, None),
        (Auth::Bearer(secret().0, secret().1), Some("user:pass")),
    ];
    for (auth, login) in cases {
        registry.require(auth.clone());
        let source = format!("docker://{reference}");
        let mut arguments = vec!["--tls-verify=false"];
        arguments.extend(login.iter().flat_map(|login| ["--creds", login]));
        arguments.push(&source);
        if let Some(seen) = skopeo("registry", &arguments) {
            assert_eq!(seen["RepoTags"], serde_json::json!(["1.2"]), "{auth:?}");
            assert_eq!(seen["Layers"].as_array().map(Vec::len), Some(2), "{auth:?}");
        }
    }
}

#[test]
fn credentials_are_asked_for_and_checked() {
    let registry = Registry::start();
    registry.push("app:1", &scratch_image(&[("/a", "b")]));
    let manifest = "/v2/app/manifests/1";
    let status = |header: Option<&str>| {
        let headers: Vec<(&str, &str)> = header.map(|value| ("Authorization", value)).into_iter().collect();
        get_with(registry.address(), manifest, &headers).expect("the registry answers").status
    };
    assert_eq!(status(None), 200);
    registry.require(Auth::Bearer("u".into(), "p".into()));
    let refused = get(registry.address(), manifest).expect("the registry answers");
    assert_eq!(refused.status, 401);
    let challenge = refused.head.header("www-authenticate").expect("a 401 says how");
    assert!(challenge.starts_with("Bearer realm=\"http://127.0.0.1:"), "{challenge}");
    assert!(challenge.contains("scope=\"repository:app:pull\""), "{challenge}");
    assert_eq!(status(Some("Bearer wrong")), 401);
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("u:p"));
    let token = |basic: &str| {
        get_with(registry.address(), "/token?service=test-registry", &[("Authorization", basic)])
            .expect("the registry answers")
    };
    assert_eq!(token("Basic d3Jvbmc=").status, 401);
    let given: Value = serde_json::from_slice(&token(&basic).body).expect("a token is JSON");
    assert_eq!(status(Some(&format!("Bearer {}", given["token"].as_str().expect("a token is text")))), 200);
}

#[test]
fn each_fault_shows() {
    let registry = Registry::start();
    let image = two_layers();
    registry.push("app:1", &image);
    let blob = image.layers[0].clone();
    let path = format!("/v2/app/blobs/{blob}");
    let fetch = || get(registry.address(), &path);
    let whole = fetch().expect("the registry answers").body;
    assert_eq!(digest(&whole), blob);

    registry.fail_times("/blobs/", Fault::Down, 1);
    assert!(fetch().is_err());
    assert_eq!(fetch().expect("the fault was for one request").body, whole);

    registry.fail("/blobs/", Fault::Status(503));
    assert_eq!(fetch().expect("the registry answers").status, 503);
    registry.heal();

    registry.fail("/blobs/", Fault::TooMany(7));
    let busy = fetch().expect("the registry answers");
    assert_eq!((busy.status, busy.head.header("retry-after")), (429, Some("7")));
    registry.heal();

    registry.fail("/blobs/", Fault::Truncate(10));
    assert_eq!(fetch().expect_err("the body is cut").kind(), std::io::ErrorKind::UnexpectedEof);
    registry.heal();

    registry.fail("/blobs/", Fault::Corrupt);
    let other = fetch().expect("the registry answers").body;
    assert_eq!(other.len(), whole.len());
    assert_ne!(digest(&other), blob);
    registry.heal();

    registry.fail("/blobs/", Fault::Slow(whole.len() / 3, Duration::from_millis(1)));
    assert_eq!(fetch().expect("slow is not broken").body, whole);
    registry.heal();

    registry.fail("/blobs/", Fault::Redirect);
    let moved = fetch().expect("the registry answers");
    let location = moved.head.header("location").expect("a redirect says where").to_owned();
    let (host, rest) = location.trim_start_matches("http://").split_once('/').expect("an address has a path");
    assert_ne!(host, registry.address().to_string());
    assert_eq!(get(host, &format!("/{rest}")).expect("the second origin answers").body, whole);
    assert!(registry.seen().last().is_some_and(|seen| seen.redirected));
}

#[test]
fn ranges_are_served_and_requests_counted() {
    let registry = Registry::start();
    let image = two_layers();
    registry.push("app:1", &image);
    let path = format!("/v2/app/blobs/{}", image.layers[0]);
    let whole = get(registry.address(), &path).expect("the registry answers").body;
    let part = get_with(registry.address(), &path, &[("Range", "bytes=5-")]).expect("the registry answers");
    assert_eq!(part.status, 206);
    assert_eq!(part.body, whole[5..]);
    let past = get_with(registry.address(), &path, &[("Range", "bytes=99999999-")]).expect("the registry answers");
    assert_eq!(past.status, 416);
    registry.fail("/blobs/", Fault::NoRanges);
    let all = get_with(registry.address(), &path, &[("Range", "bytes=5-")]).expect("the registry answers");
    assert_eq!((all.status, all.body.len()), (200, whole.len()));
    assert_eq!(registry.count("/blobs/"), 4);
    assert_eq!(registry.seen()[1].range.as_deref(), Some("bytes=5-"));
    assert_eq!(registry.connections(), 4);
    assert_eq!(get(registry.address(), "/v2/other/manifests/1").expect("the registry answers").status, 404);
}

#[test]
fn a_skipped_test_is_written_down() {
    // The variable is for a child, so that no other test of this process sees it.
    if std::env::var_os("MAINSTAY_SKIPPED_PROBE").is_some() {
        skipped("probe", "to see it written down");
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = dir.path().join("skipped");
    let exe = std::env::current_exe().expect("/proc is mounted");
    let status = Command::new(exe)
        .args(["--exact", "a_skipped_test_is_written_down"])
        .env("MAINSTAY_SKIPPED_PROBE", "1")
        .env("MAINSTAY_SKIPPED", &file)
        .output()
        .expect("this executable runs");
    assert!(status.status.success());
    assert_eq!(std::fs::read_to_string(file).expect("it was written"), "skipped: probe: to see it written down\n");
    assert!(String::from_utf8_lossy(&status.stderr).contains("skipped: probe"), "{status:?}");
}
