//! Compiles the quick-start web server (`quickstart/web.rs`) with the compiler that builds this crate.
//!
//! It needs nothing but that compiler and its linker: no libc, no start files, no crate.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=quickstart/web.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let target = variable("TARGET");
    let out = PathBuf::from(variable("OUT_DIR")).join("web");
    let mut compiler = Command::new(variable("RUSTC"));
    compiler.args(["--edition=2024", "--crate-type=bin", "--crate-name=web", "--target", &target]);
    for option in [
        "panic=abort",
        "opt-level=s",
        "codegen-units=1",
        "lto=fat",
        "strip=symbols",
        "relocation-model=static",
        "default-linker-libraries=no",
        "link-arg=-nostartfiles",
        "link-arg=-nostdlib",
        "link-arg=-static",
        // Nothing in the file tells where or when it was made: the same compiler gives the same bytes.
        "link-arg=-Wl,--build-id=none",
        "metadata=mainstay-web",
    ] {
        compiler.args(["-C", option]);
    }
    if target.ends_with("-musl") {
        // Rust brings start files of its own for these targets and links them unless it is told not to.
        compiler.args(["-C", "link-self-contained=no"]);
    }
    if let Ok(linker) = std::env::var("RUSTC_LINKER") {
        compiler.arg("-C").arg(format!("linker={linker}"));
    }
    compiler.arg("--remap-path-prefix").arg(format!("{}=", variable("CARGO_MANIFEST_DIR")));
    compiler.arg("-o").arg(&out).arg("quickstart/web.rs");
    let status = compiler.status().unwrap_or_else(|error| panic!("cannot run rustc: {error}"));
    assert!(status.success(), "cannot compile the quick-start web server: {status}");
}
