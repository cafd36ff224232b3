//! Finds the programs under test next to the test executable, and has cargo bring them up to date first.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use nix::fcntl::{Flock, FlockArg};

/// The binary `name` of the workspace package `package`, built for the profile of this test executable.
///
/// `cargo test --workspace` alone leaves `mainstay` as it was built before, or not at all, so cargo is asked once per
/// test process (it answers at once when nothing changed), one process at a time. `MAINSTAY_BIN` names a finished one.
///
/// # Panics
/// When it cannot be built and there is none.
pub fn built(package: &str, name: &str) -> PathBuf {
    // Guards "asked once per process"; held while cargo runs so that other tests wait for it.
    static DONE: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    if name == "mainstay"
        && let Some(path) = std::env::var_os("MAINSTAY_BIN")
    {
        return path.into();
    }
    let mut done = DONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = done.get(name) {
        return path.clone();
    }
    let fixture =
        name == "fixture" && fresh(&profile_dir().join(name), &workspace_root().join("tests/src/bin/fixture"));
    let path = if fixture { profile_dir().join(name) } else { build(package, name) };
    done.insert(name.to_owned(), path.clone());
    path
}

/// The mainstay binary.
pub fn mainstay() -> PathBuf {
    built("agent", "mainstay")
}

/// Whether a program is younger than each of its sources; `cargo test` has then just built it.
fn fresh(program: &Path, sources: &Path) -> bool {
    let time = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let Some(built) = time(program) else { return false };
    let Ok(entries) = std::fs::read_dir(sources) else { return false };
    entries.flatten().all(|entry| time(&entry.path()).is_some_and(|changed| changed <= built))
}

fn build(package: &str, name: &str) -> PathBuf {
    let profile_dir = profile_dir();
    let path = profile_dir.join(name);
    let lock = profile_dir.join(".mainstay-tests.lock");
    let file = File::create(&lock).unwrap_or_else(|e| panic!("cannot create {}: {e}", lock.display()));
    let _held = Flock::lock(file, FlockArg::LockExclusive).expect("a regular file can be locked");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace_root()).args(["build", "--quiet", "-p", package, "--bin", name]);
    if let Some(target) = profile_dir.parent() {
        command.arg("--target-dir").arg(target);
    }
    // `cargo test` describes this crate to its tests. Build scripts that look at such a variable (that of ring does) would
    // run again, and all that depends on them would be built anew: minutes, at each change between the two.
    let describes = |name: &str| {
        matches!(name, "CARGO_MANIFEST_DIR" | "CARGO_MANIFEST_PATH" | "CARGO_CRATE_NAME" | "CARGO_BIN_NAME" | "OUT_DIR")
            || name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_BIN_EXE_")
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(describes)) {
        command.env_remove(name);
    }
    if profile_dir.ends_with("release") {
        command.arg("--release");
    }
    match command.output() {
        Ok(output) if output.status.success() => {}
        // A copied test executable, without cargo around: what is there counts.
        Err(_) if path.exists() => {}
        Ok(output) => panic!("cannot build {name}:\n{}", String::from_utf8_lossy(&output.stderr)),
        Err(e) => panic!("cannot run cargo to build {name}: {e}"),
    }
    assert!(path.exists(), "cargo built {name}, but {} does not exist", path.display());
    path
}

/// `target/debug` or `target/release`: the test executable is in `deps/` below it.
fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("/proc is mounted");
    let dir = exe.parent().expect("an executable is in a directory");
    if dir.ends_with("deps") { dir.parent().unwrap_or(dir).to_owned() } else { dir.to_owned() }
}

/// The root of the workspace.
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is a directory of the workspace")
}
