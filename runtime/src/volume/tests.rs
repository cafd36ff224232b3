//! Volumes of whole pods.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::sync::Arc;

use spec::pod::{ContainerSpec, FilesVolume, HostPathKind, PodSpec};
use spec::secret::SecretBytes;
use spec::workload::{SourceRef, WorkloadId, WorkloadKind};

use super::*;
use crate::api::FileContent;

struct Bench {
    dir: tempfile::TempDir,
    dirs: VolumeDirs,
}

impl Drop for Bench {
    fn drop(&mut self) {
        mounts::unmount_below(self.dir.path()).expect("unmounted");
    }
}

/// Directories of a test; `None`, with a reason, without root.
fn bench() -> Option<Bench> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: mounting needs root");
        return None;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dirs = VolumeDirs { data: dir.path().join("data"), run: dir.path().join("run") };
    Some(Bench { dir, dirs })
}

fn pod(volumes: &[(&str, VolumeSource)], change: impl FnOnce(&mut PodSpec)) -> PodRecord {
    let volumes = volumes.iter().map(|(name, source)| Volume { name: (*name).to_owned(), source: source.clone() });
    let mut spec = PodSpec { volumes: volumes.collect(), ..PodSpec::default() };
    change(&mut spec);
    PodRecord {
        uid: PodUid("0123456789abcdef".to_owned()),
        workload: WorkloadId { kind: WorkloadKind::Pod, namespace: "n".to_owned(), name: "p".to_owned() },
        ordinal: 0,
        revision: String::new(),
        name: "p".to_owned(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        depends_on: Vec::new(),
        source: SourceRef { file: "f".to_owned(), line: 1 },
        spec: Arc::new(spec),
        images: BTreeMap::new(),
        created_unix: 0,
        created: spec::time::Timestamp(0),
        boot_id: String::new(),
        run: None,
        bound: BTreeMap::new(),
    }
}

fn file_set(memory: bool, text: &str) -> FileSet {
    let file = FileContent { bytes: SecretBytes::new(text.into()), mode: 0o644, owner: None };
    FileSet { memory, files: BTreeMap::from([("key".to_owned(), file)]) }
}

fn empty_dir(memory: bool, size_limit: Option<u64>) -> VolumeSource {
    VolumeSource::EmptyDir { memory, size_limit }
}

#[test]
fn every_kind_is_made_ready_kept_and_removed() {
    let Some(bench) = bench() else { return };
    let host = bench.dir.path().join("host").to_str().expect("plain").to_owned();
    let files = || VolumeSource::Files(FilesVolume::default());
    let pod = pod(
        &[
            ("disk", empty_dir(false, Some(1000))),
            ("memory", empty_dir(true, Some(1 << 20))),
            ("config", files()),
            ("secret", files()),
            ("named", VolumeSource::Named { name: "n/claim".to_owned() }),
            ("host", VolumeSource::HostPath { path: host.clone(), kind: HostPathKind::DirectoryOrCreate }),
        ],
        |_| {},
    );
    let sets =
        BTreeMap::from([("config".to_owned(), file_set(false, "c")), ("secret".to_owned(), file_set(true, "s"))]);
    let prepared = prepare(&pod, &sets, &bench.dirs).expect("ready");
    let source = |name: &str| prepared[name].source.clone();
    let tmpfs =
        |path: &Path| nix::sys::statfs::statfs(path).expect("there").filesystem_type() == nix::sys::statfs::TMPFS_MAGIC;
    for (name, in_memory, mode, read_only) in [
        ("disk", false, 0o777, false),
        ("memory", true, 0o1777, false),
        ("config", false, 0o755, true),
        ("secret", true, 0o755, true),
        ("named", false, 0o777, false),
        ("host", false, 0o755, false),
    ] {
        let got = fs::metadata(source(name)).expect("there").mode() & 0o777;
        assert_eq!(got, mode & 0o777, "{name}");
        assert!(!in_memory || tmpfs(&source(name)), "{name}");
        assert_eq!(prepared[name].read_only, read_only, "{name}");
    }
    // Whoever passes the directories above gets no further.
    let above = |name: &str| source(name).parent().expect("it is in one").to_owned();
    let of_all = above("named").parent().expect("they are in one").to_owned();
    for (name, volumes) in [("memory", above("memory")), ("secret", above("secret")), ("named", of_all)] {
        assert_eq!(fs::metadata(&volumes).expect("there").mode() & 0o077, 0, "{name}");
    }
    assert_eq!(prepared["disk"].size_limit, Some(1000));
    assert_eq!(fs::read_to_string(source("secret").join("key")).expect("there"), "s");
    let full = fs::write(source("memory").join("big"), vec![0; 2 << 20]).expect_err("above the limit");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);

    for name in ["disk", "named", "host"] {
        fs::write(source(name).join("mine"), name).expect("writable");
    }
    assert_eq!(prepare(&pod, &sets, &bench.dirs).expect("ready"), prepared, "the same again");
    assert!(source("disk").join("mine").exists());
    // A container has left a mount and a link to what is not the pod's.
    symlink(&host, source("disk").join("link")).expect("made");
    fs::create_dir(source("disk").join("mount")).expect("made");
    mount(Some(host.as_str()), &source("disk").join("mount"), None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .expect("mounted");

    remove_pod_volumes(&pod.uid, &bench.dirs).expect("removed");
    remove_pod_volumes(&pod.uid, &bench.dirs).expect("gone already");
    for name in ["disk", "memory", "config", "secret"] {
        assert!(!source(name).exists(), "{name}");
    }
    for name in ["named", "host"] {
        assert!(source(name).join("mine").exists(), "{name} outlives the pod");
    }
    assert_eq!(mounts::below(bench.dir.path()).expect("readable").count(), 0);
}

#[test]
fn files_are_updated_behind_a_mount() {
    let Some(bench) = bench() else { return };
    let pod = pod(&[("config", VolumeSource::Files(FilesVolume::default()))], |_| {});
    let sets = |text| BTreeMap::from([("config".to_owned(), file_set(false, text))]);
    let prepared = prepare(&pod, &sets("old"), &bench.dirs).expect("ready");
    let view = bench.dir.path().join("view");
    fs::create_dir(&view).expect("made");
    mount(Some(&prepared["config"].source), &view, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("mounted");
    assert!(update_files(&pod, &sets("old"), &bench.dirs).expect("the same").is_empty());
    assert_eq!(files_differ(&pod, &sets("new"), &bench.dirs).expect("looked at"), ["config"]);
    assert_eq!(update_files(&pod, &sets("new"), &bench.dirs).expect("swapped"), ["config"]);
    assert!(files_differ(&pod, &sets("new"), &bench.dirs).expect("looked at").is_empty());
    assert_eq!(fs::read_to_string(view.join("key")).expect("there"), "new");
    let error = prepare(&pod, &BTreeMap::new(), &bench.dirs).expect_err("nothing to fill it with");
    assert_eq!(error.to_string(), "cannot fill volume `config`: its files were not resolved");
}

#[test]
fn the_group_of_the_pod_can_write() {
    let Some(bench) = bench() else { return };
    let volumes = [
        ("disk", empty_dir(false, None)),
        ("memory", empty_dir(true, None)),
        ("named", VolumeSource::Named { name: "v".to_owned() }),
    ];
    let pod = pod(&volumes, |spec| spec.fs_group = Some(2000));
    for (name, volume) in prepare(&pod, &BTreeMap::new(), &bench.dirs).expect("ready") {
        let m = fs::metadata(volume.source).expect("there");
        assert_eq!((m.gid(), m.mode() & 0o2770), (2000, 0o2770), "{name}");
    }
}

#[test]
fn sub_paths_lead_into_their_volume_or_nowhere() {
    let Some(bench) = bench() else { return };
    let volumes = [("disk", empty_dir(false, None)), ("config", VolumeSource::Files(FilesVolume::default()))];
    let pod = pod(&volumes, |spec| spec.containers = vec![ContainerSpec::default()]);
    let sets = BTreeMap::from([("config".to_owned(), file_set(false, "c"))]);
    let prepared = prepare(&pod, &sets, &bench.dirs).expect("ready");
    symlink("/etc", prepared["disk"].source.join("evil")).expect("made");
    let ask = |volume: &str, sub_path: Option<&str>| {
        let mount = VolumeMount { volume: volume.to_owned(), ..VolumeMount::default() };
        source_for(&pod.uid, "c", 0, &mount, sub_path, &prepared, &bench.dirs)
    };
    assert_eq!(ask("disk", None).expect("the volume itself"), prepared["disk"].source);
    assert_eq!(ask("disk", Some("")).expect("the volume itself"), prepared["disk"].source);
    let made = ask("disk", Some("a/b")).expect("made");
    fs::write(made.join("x"), "").expect("writable");
    assert!(prepared["disk"].source.join("a/b/x").exists());
    let file = ask("config", Some("key")).expect("there, behind two links");
    assert_eq!(fs::read_to_string(file).expect("a file"), "c");
    for (volume, sub_path, expected) in [
        ("disk", "evil", "a link in it leads out of the volume"),
        ("disk", "evil/passwd", "a link in it leads out of the volume"),
        ("config", "none", "cannot open a subPath of"),
        ("none", "x", "cannot find volume `none` in the pod"),
    ] {
        let error = ask(volume, Some(sub_path)).expect_err(sub_path).to_string();
        assert!(error.contains(expected), "{error}");
    }
    remove_pod_volumes(&pod.uid, &bench.dirs).expect("removed");
}
