//! Images through the real binary: logins, formats, faults of the registry, what is fetched and what is not.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use serde_json::json;
use tests::agent::Output;
use tests::image::{
    Compression, Format, fixture_builder, fixture_image, host_architecture, scratch_image, write_docker_archive,
    write_oci_layout,
};
use tests::manifest::pod;
use tests::registry::Auth;
use tests::{Agent, Fault, Image, ImageBuilder, Layer, Registry, Sandbox, require_root};

fn world(name: &str) -> (Sandbox, Registry) {
    (Sandbox::new(name), Registry::start())
}

/// What a finished container of an image says.
fn said(sandbox: &Sandbox, image: &str, arguments: &[&str]) -> String {
    // A name of its own, so that no answer of an earlier one is taken for its.
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let name = format!("said-{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let mut wanted = pod(&name, image, arguments);
    wanted["spec"]["restartPolicy"] = json!("Never");
    sandbox.write(&format!("{name}.json"), &wanted.to_string());
    let mut agent = Agent::start(sandbox);
    agent.wait_status("the container has ended", |status| {
        status.containers(&name).first().filter(|c| c.state == "exited").map(|_| ())
    });
    agent.cli(&["logs", &name]).ok().stdout
}

#[test]
fn every_kind_of_image_is_pulled_once() {
    if !require_root("every_kind_of_image_is_pulled_once") {
        return;
    }
    let (sandbox, registry) = world("kinds");
    let both = |compression: Compression| {
        fixture_builder().layer(Layer::new().file("/etc/more", "more\n").compress(compression))
    };
    let foreign = || ImageBuilder::new().layer(Layer::new().file("/a", "b")).architecture("s390x").build();
    let here = format!("linux/{}", host_architecture());
    let index = |format| Image::index(format, &[("linux/s390x", foreign()), (&here, fixture_image())]);
    let images = [
        ("oci-gzip:1", fixture_image()),
        ("oci-zstd:1", both(Compression::Zstd).build()),
        ("oci-plain:1", both(Compression::None).build()),
        ("docker:1", both(Compression::Gzip).docker().build()),
        ("oci-index:1", index(Format::Oci)),
        ("docker-list:1", index(Format::Docker)),
    ];
    for (name, image) in &images {
        let reference = registry.push(name, image);
        registry.forget();
        sandbox.cli(&["pull", &reference]).ok();
        // By digest as well.
        let by_digest = format!("{}@{}", reference.trim_end_matches(":1"), image.digest());
        sandbox.cli(&["pull", &by_digest]).ok();
        // The base layer came with the first image and never again.
        let blobs = registry.count(&fixture_image().layers[0]);
        assert_eq!(blobs, usize::from(*name == "oci-gzip:1"), "{name}: {:#?}", registry.seen());
    }
    let listed = sandbox.json(&["images"]);
    for (name, _) in &images {
        assert!(listed.to_string().contains(name.trim_end_matches(":1")), "{name}: {listed:#}");
    }
}

#[test]
fn logins_come_from_the_docker_config() {
    if !require_root("logins_come_from_the_docker_config") {
        return;
    }
    let (sandbox, registry) = world("logins");
    let image = registry.push("private/app:1", &fixture_image());
    let config = sandbox.dir().join("docker");
    std::fs::create_dir(&config).expect("the directory is ours");
    let login = |password: &str| {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("user:{password}"));
        let auths = json!({"auths": {registry.address().to_string(): {"auth": auth}}});
        std::fs::write(config.join("config.json"), auths.to_string()).expect("the directory is ours");
    };
    let pull = || -> Output {
        let mut command = sandbox.command();
        command.args(["pull", &image]).env("DOCKER_CONFIG", &config);
        sandbox.finish(command, &["pull", &image])
    };
    for auth in [Auth::Basic("user".into(), "right".into()), Auth::Bearer("user".into(), "right".into())] {
        registry.require(auth.clone());
        login("wrong");
        let refused = pull();
        assert_eq!(refused.code, 2, "{auth:?}: {refused:?}");
        assert!(refused.stderr.contains("private/app"), "{}", refused.stderr);
        assert!(!refused.stderr.contains("wrong\""), "a password is never shown: {}", refused.stderr);
        login("right");
        pull().ok();
    }
    registry.require(Auth::BearerAnonymous);
    sandbox.cli(&["pull", &image]).ok();
}

#[test]
fn credentials_do_not_follow_a_redirect() {
    if !require_root("credentials_do_not_follow_a_redirect") {
        return;
    }
    let (sandbox, registry) = world("redirect");
    let image = registry.push("app:1", &fixture_image());
    registry.require(Auth::BearerAnonymous);
    registry.fail("/blobs/", Fault::Redirect);
    sandbox.cli(&["pull", &image]).ok();
    let redirected: Vec<_> = registry.seen().into_iter().filter(|seen| seen.redirected).collect();
    assert!(!redirected.is_empty());
    assert!(redirected.iter().all(|seen| !seen.authorized), "{redirected:#?}");
}

#[test]
fn a_bad_image_is_refused_with_a_reason() {
    if !require_root("a_bad_image_is_refused_with_a_reason") {
        return;
    }
    let (sandbox, registry) = world("bad");
    let refused = |reference: &str, words: &[&str]| {
        let output = sandbox.cli(&["pull", reference]);
        assert_eq!(output.code, 2, "{reference}: {output:?}");
        let text = output.stderr.to_lowercase();
        assert!(words.iter().any(|word| text.contains(word)), "none of {words:?} in: {}", output.stderr);
        let listed = sandbox.json(&["images"]).to_string();
        let name = reference.rsplit('/').next().unwrap_or_default().split(':').next().unwrap_or_default();
        assert!(!listed.contains(name), "{name} is half there: {listed}");
    };
    refused(&registry.reference("nothing:1"), &["not found", "404", "no such", "unknown"]);
    let foreign = ImageBuilder::new().layer(Layer::new().file("/a", "b")).architecture("s390x").build();
    let other = registry.push("foreign:1", &Image::index(Format::Oci, &[("linux/s390x", foreign)]));
    refused(&other, &["platform", "architecture", "amd64", "arm64"]);
    let liar =
        registry.push("liar:1", &ImageBuilder::new().layer(Layer::new().file("/a", "b")).wrong_diff_ids().build());
    refused(&liar, &["its content has digest"]);
    let image = registry.push("corrupt:1", &scratch_image(&[("/etc/a", "a")]));
    registry.fail("/v2/corrupt/blobs/", Fault::Corrupt);
    refused(&image, &["digest"]);
    registry.heal();
    registry.fail("/v2/corrupt/blobs/", Fault::Truncate(20));
    refused(&image, &["ended", "incomplete", "short", "closed", "bytes", "body"]);
    registry.heal();
    sandbox.cli(&["pull", &image]).ok();
}

#[test]
fn a_busy_registry_is_asked_again() {
    if !require_root("a_busy_registry_is_asked_again") {
        return;
    }
    let (sandbox, registry) = world("busy");
    for (n, fault) in [Fault::TooMany(1), Fault::Status(503), Fault::Down].into_iter().enumerate() {
        let image = registry.push(&format!("app:{n}"), &scratch_image(&[("/etc/n", &n.to_string())]));
        registry.fail_times("/manifests/", fault.clone(), 1);
        registry.fail_times("/blobs/", fault, 1);
        sandbox.cli(&["pull", &image]).ok();
        registry.heal();
    }
}

/// A pod waits for its registry and starts when it is back, without anybody's help.
#[test]
fn a_pod_starts_when_its_registry_is_back() {
    if !require_root("a_pod_starts_when_its_registry_is_back") {
        return;
    }
    let (sandbox, registry) = world("back");
    let image = registry.push("app:1", &fixture_image());
    registry.fail("/v2/", Fault::Status(500));
    sandbox.write("a.json", &pod("a", &image, &["sleep", "forever"]).to_string());
    let mut agent = Agent::start(&sandbox);
    agent.wait_for("the registry was asked", tests::agent::SOON, |_| (registry.count("/v2/") > 0).then_some(()));
    assert!(agent.status().pids("a").is_empty());
    registry.heal();
    agent.wait_ready("a", 1);
}

#[test]
fn pull_policies_are_those_of_kubernetes() {
    if !require_root("pull_policies_are_those_of_kubernetes") {
        return;
    }
    let (sandbox, registry) = world("policies");
    let image = registry.push("app:1", &fixture_image());
    let latest = registry.push("app:latest", &fixture_image());
    let with = |name: &str, image: &str, policy: Option<&str>| {
        let mut wanted = pod(name, image, &["sleep", "forever"]);
        if let Some(policy) = policy {
            wanted["spec"]["containers"][0]["imagePullPolicy"] = json!(policy);
        }
        sandbox.write(&format!("{name}.json"), &wanted.to_string());
    };
    let mut agent = Agent::start(&sandbox);
    with("never", &image, Some("Never"));
    agent.wait_status("the pod is known", |status| status.workload("never").map(|_| ()));
    with("first", &image, None);
    agent.wait_ready("first", 1);
    assert_eq!(registry.count("/app/manifests/1"), 1, "{:#?}", registry.seen());
    // There now: a tag is not asked for again by default, `:latest` and `Always` are.
    with("second", &image, None);
    agent.wait_ready("second", 1);
    assert_eq!(registry.count("/app/manifests/1"), 1, "{:#?}", registry.seen());
    with("always", &image, Some("Always"));
    agent.wait_ready("always", 1);
    assert!(registry.count("/app/manifests/1") >= 2, "{:#?}", registry.seen());
    sandbox.cli(&["pull", &latest]).ok();
    let before = registry.count("/app/manifests/latest");
    with("latest", &latest, None);
    agent.wait_ready("latest", 1);
    assert!(registry.count("/app/manifests/latest") > before, "{:#?}", registry.seen());
}

#[test]
fn layers_are_stacked_with_whiteouts() {
    if !require_root("layers_are_stacked_with_whiteouts") {
        return;
    }
    let (sandbox, registry) = world("layers");
    let image = fixture_builder()
        .layer(Layer::new().dir("/d").file("/d/old", "old\n").file("/d/gone", "gone\n").file("/kept", "kept\n"))
        .layer(Layer::new().dir("/d").opaque("/d").file("/d/new", "new\n").whiteout("/etc/group"))
        // A hard link to a file that only a lower layer has.
        .layer(Layer::new().hardlink("/linked", "/kept"))
        .build();
    let reference = registry.push("layers:1", &image);
    assert_eq!(said(&sandbox, &reference, &["cat", "/d/new"]), "new\n");
    for (path, there) in
        [("/d/old", false), ("/d/gone", false), ("/etc/group", false), ("/kept", true), ("/linked", true)]
    {
        let text = said(&sandbox, &reference, &["cat", path]);
        assert_eq!(!text.contains("cannot read"), there, "{path}: {text}");
    }
}

#[test]
fn layouts_and_docker_archives_are_loaded() {
    if !require_root("layouts_and_docker_archives_are_loaded") {
        return;
    }
    let sandbox = Sandbox::new("load");
    let layout = sandbox.dir().join("layout");
    write_oci_layout(&layout, &[("example.org/layout:1", &fixture_image())]).expect("the directory is ours");
    let archive = sandbox.dir().join("docker.tar");
    write_docker_archive(&archive, &[("example.org/docker:2", &fixture_image())]).expect("the directory is ours");
    for path in [&layout, &archive] {
        sandbox.cli(&["load", &path.display().to_string()]).ok();
    }
    for image in ["example.org/layout:1", "example.org/docker:2"] {
        let env = said(&sandbox, image, &["env"]);
        assert!(env.contains("FROM_IMAGE=yes"), "{env}");
    }
}

/// Above the threshold everything goes that nothing needs, and nothing else.
#[test]
fn unused_images_go_by_themselves_when_the_disk_is_short() {
    if !require_root("unused_images_go_by_themselves_when_the_disk_is_short") {
        return;
    }
    let (mut sandbox, registry) = world("image-gc");
    sandbox.limit_data(300);
    let ballast = |name: &str| {
        let layer = Layer::new().file(&format!("/{name}"), vec![0; 20 << 20]);
        registry.push(&format!("{name}:1"), &ImageBuilder::new().layer(layer).build())
    };
    let app = registry.push("app:1", &fixture_image());
    let [unused, cron, pinned] = ["unused", "cron", "pinned"].map(ballast);
    for image in [&unused, &cron, &pinned] {
        sandbox.cli(&["pull", image]).ok();
    }
    sandbox.cli(&["pin", &pinned]).ok();
    let archive = sandbox.dir().join("loaded.tar");
    write_docker_archive(&archive, &[("example.org/loaded:1", &scratch_image(&[("/a", "a")]))]).expect("a file");
    sandbox.cli(&["load", &archive.display().to_string()]).ok();
    // Used a moment ago is a reason to stay as well.
    let an_hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    for entry in std::fs::read_dir(sandbox.data().join("images/records")).expect("records") {
        let file = std::fs::File::open(entry.expect("a record").path()).expect("readable");
        file.set_modified(an_hour_ago).expect("the file is ours");
    }
    sandbox.write("a.json", &pod("a", &app, &["sleep", "forever"]).to_string());
    let job = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "rare"},
        "spec": {"schedule": "0 0 29 2 *", "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": cron}]
        }}}}}
    });
    sandbox.write("cron.json", &job.to_string());
    let settings = [
        ("MAINSTAY_IMAGE_GC_HIGH_PERCENT", "10"),
        ("MAINSTAY_IMAGE_GC_LOW_PERCENT", "1"),
        ("MAINSTAY_IMAGE_GC_PERIOD", "1s"),
    ];
    let mut agent = Agent::start_with(&sandbox, &[], &settings);
    agent.wait_ready("a", 1);
    let listed = |agent: &mut Agent<'_>| agent.json(&["images"]).to_string();
    agent.wait_for("the unused image is gone", tests::agent::SOON, |agent| {
        (!listed(agent).contains("/unused:1")).then_some(())
    });
    let left = listed(&mut agent);
    for name in ["/app:1", "/cron:1", "/pinned:1", "/loaded:1"] {
        assert!(left.contains(name), "{name} was needed: {left}");
    }
    let events = agent.cli(&["events"]).ok().stdout;
    assert!(events.contains("image_gc") && events.contains("/unused:1"), "{events}");
    // It says so once when nothing is left that could go.
    agent.wait_for("the complaint", tests::agent::SOON, |agent| {
        agent.cli(&["events"]).ok().stdout.contains("image_gc_failed").then_some(())
    });
    // An explicit command takes what manifests only name, and never what a pod runs on or what is pinned.
    agent.cli(&["prune", "--older-than", "0s", "--named", "--loaded"]).ok();
    let left = listed(&mut agent);
    for (name, stays) in [("/app:1", true), ("/cron:1", false), ("/pinned:1", true), ("/loaded:1", false)] {
        assert_eq!(left.contains(name), stays, "{name}: {left}");
    }
}

/// Bytes that do not compress, so that a layer is as large as it is asked for.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn a_running_pull_is_seen_in_status_metrics_and_events() {
    if !require_root("a_running_pull_is_seen_in_status_metrics_and_events") {
        return;
    }
    let (sandbox, registry) = world("progress");
    let base = registry.push("base:1", &fixture_image());
    sandbox.cli(&["pull", &base]).ok();
    let big = fixture_builder().layer(Layer::new().file("/big", noise(3 << 20)).compress(Compression::None)).build();
    let image = registry.push("app:1", &big);
    let big_layer = big.layers.last().expect("a layer").clone();
    registry.fail(&big_layer, Fault::Slow(64 << 10, Duration::from_millis(60)));
    sandbox.write("a.json", &pod("a", &image, &["sleep", "forever"]).to_string());
    let mut agent = Agent::start(&sandbox);
    let said = agent.wait_for("bytes of the pull are told", tests::agent::SOON, |agent| {
        let told = agent.cli(&["status"]).ok().stdout;
        let line = told.lines().find(|line| line.contains("pulling 127.0.0.1"))?.to_owned();
        (!line.contains(" 0 KiB of")).then_some(line)
    });
    let (known, all) = (big.layers.len() - 1, big.layers.len());
    assert!(said.contains(&format!("{image}: {known} of {all} layers, ")) && said.ends_with(" of 3.0 MiB"), "{said}");
    assert!(agent.cli(&["why", "a"]).ok().stdout.contains("pulling 127.0.0.1"));
    let running = agent.metrics();
    assert_eq!(running.sum("mainstay_image_pulls_running", &[]), Some(1.0));
    assert!(running.sum("mainstay_image_pull_remaining_bytes", &[]).is_some_and(|left| left > 0.0));
    assert!(running.sum("mainstay_image_pull_bytes_total", &[]).is_some_and(|bytes| bytes > 0.0));
    registry.heal();
    agent.wait_ready("a", 1);
    let ended = agent.metrics();
    assert_eq!(ended.sum("mainstay_image_pulls_running", &[]), Some(0.0));
    assert_eq!(ended.sum("mainstay_image_pull_remaining_bytes", &[]), Some(0.0));
    assert!(ended.sum("mainstay_image_pull_bytes_total", &[]).is_some_and(|bytes| bytes >= f64::from(3 << 20)));
    assert!(!agent.cli(&["status"]).ok().stdout.contains("pulling"));
    let events = agent.cli(&["events"]).ok().stdout;
    let began = events.find(&format!("fetching 1 of {all} layers of {image}, 3.0 MiB")).expect(&events);
    let end = events.find("3.0 MiB fetched in ").expect(&events);
    assert!(began < end, "{events}");
}

/// The moments are chosen by what the registry was asked and by what lies on the disk.
#[test]
fn a_pull_that_is_killed_leaves_nothing_and_goes_on() {
    if !require_root("a_pull_that_is_killed_leaves_nothing_and_goes_on") {
        return;
    }
    let (sandbox, registry) = world("killed");
    let images = sandbox.data().join("images");
    let count = |kind: &str| std::fs::read_dir(images.join(kind)).map_or(0, Iterator::count);
    let written = |at: &str| {
        let mut names = std::fs::read_dir(images.join("tmp")).into_iter().flatten().flatten();
        names.any(|entry| entry.path().join("fs").join(at).exists())
    };
    let layer = |name: &str| Layer::new().file(name, noise(600 << 10)).compress(Compression::Gzip);
    type Moment<'a> = (&'static str, Box<dyn Fn(&Image) -> bool + 'a>);
    let moments: [Moment<'_>; 6] = [
        ("the manifest was asked for", Box::new(|_| registry.count("/manifests/") > 0)),
        ("the configuration was asked for", Box::new(|_| registry.count("/blobs/") > 0)),
        ("a layer was asked for", Box::new(|image| registry.count(&image.layers[0]) > 0)),
        ("a layer is being unpacked", Box::new(|_| written("first"))),
        ("one layer is there and another is not", Box::new(|_| count("layers") == 1)),
        ("the image is recorded", Box::new(|_| count("records") > 0)),
    ];
    for (number, (moment, reached)) in moments.iter().enumerate() {
        // Layers of its own each time: none comes from the pull before.
        let mark = Layer::new().file("/mark", number.to_string()).file("/second", noise(900 << 10));
        let first = layer("/first").file("/mark-too", number.to_string());
        let image = ImageBuilder::new().layer(first).layer(mark).build();
        let reference = registry.push(&format!("app:{number}"), &image);
        registry.forget();
        registry.heal();
        registry.fail("/manifests/", Fault::Slow(64, Duration::from_millis(10)));
        for (layer, pause) in image.layers.iter().zip([8, 20]) {
            registry.fail(layer, Fault::Slow(16 << 10, Duration::from_millis(pause)));
        }
        let mut pull = sandbox.command().args(["pull", &reference]).stderr(Stdio::null()).spawn().expect("it starts");
        let met = tests::agent::poll(moment, tests::agent::SOON, || {
            (reached(&image) || pull.try_wait().expect("the child is ours").is_some()).then_some(())
        });
        pull.kill().expect("the child is ours");
        pull.wait().expect("the child is ours");
        met.expect("the moment comes");
        let listed = sandbox.cli(&["images"]).ok().stdout;
        let whole = number == moments.len() - 1;
        assert!(whole || !listed.contains(&format!("app:{number}")), "{moment}: {listed}");
        assert_eq!(count("tmp"), 0, "{moment}");
        sandbox.cli(&["verify"]).ok();
        registry.heal();
        sandbox.cli(&["pull", &reference]).ok();
        sandbox.cli(&["verify"]).ok();
        assert!(sandbox.cli(&["images"]).ok().stdout.contains(&format!("app:{number}")), "{moment}");
        // So that the next pull finds an empty store.
        sandbox.cli(&["rmi", &reference]).ok();
        assert_eq!((count("layers"), count("records"), count("tmp")), (0, 0, 0), "{moment}");
    }
}
