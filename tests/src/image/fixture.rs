//! The standard test image: the `fixture` program with the libraries that it loads on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{Image, ImageBuilder, Layer};
use crate::binary::built;

const PASSWD: &str = "root:x:0:0:root:/root:/sbin/nologin\napp:x:1000:1000:app:/home/app:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\napp:x:1000:\nextra:x:2000:app\nnobody:x:65534:\n";

/// The program and every shared object it needs, by the path at which its loader looks for them.
///
/// The loader itself is asked, as `ldd` does (ld.so(8), LD_TRACE_LOADED_OBJECTS), so no static libc is needed.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listing = Command::new(program)
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .output()
        .expect("the fixture was just built for this machine");
    let mut paths = Vec::new();
    for line in String::from_utf8_lossy(&listing.stdout).lines() {
        // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)` or `/lib64/ld-linux-x86-64.so.2 (0x...)`
        let right = line.split_once("=>").map_or(line, |(_, right)| right);
        if let Some(path) = right.split_whitespace().next().filter(|word| word.starts_with('/')) {
            paths.push(PathBuf::from(path));
        }
    }
    paths
}

/// Path inside the image, content, mode of everything in the standard image.
pub fn fixture_files() -> Vec<(String, Vec<u8>, u32)> {
    let program = built("tests", "fixture");
    let read = |path: &Path| std::fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    let mut files = vec![
        ("/bin/fixture".to_owned(), read(&program), 0o755),
        ("/etc/passwd".to_owned(), PASSWD.into(), 0o644),
        ("/etc/group".to_owned(), GROUP.into(), 0o644),
    ];
    for path in libraries(&program) {
        files.push((path.to_string_lossy().into_owned(), read(&path), 0o755));
    }
    files
}

/// A base layer: each parent directory once, then the files.
fn layer_of(files: &[(String, Vec<u8>, u32)]) -> Layer {
    let mut dirs: Vec<String> = Vec::new();
    for (path, ..) in files {
        for (at, _) in path.match_indices('/').skip(1) {
            let dir = path.get(..at).expect("the index is of an ASCII slash").to_owned();
            if !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
    }
    dirs.sort();
    let mut layer = Layer::new();
    for dir in dirs {
        layer = layer.dir(&dir);
    }
    for (path, content, mode) in files {
        layer = layer.entry(path, super::Entry::File(content.clone()), *mode, (0, 0));
    }
    layer
}

/// The base layer of the standard image, made once.
fn base() -> &'static Layer {
    static BASE: OnceLock<Layer> = OnceLock::new();
    BASE.get_or_init(|| {
        layer_of(&fixture_files())
            .entry("/tmp", super::Entry::Dir, 0o1777, (0, 0))
            .dir("/home")
            .entry("/home/app", super::Entry::Dir, 0o755, (1000, 1000))
            .entry("/root", super::Entry::Dir, 0o700, (0, 0))
    })
}

/// `/bin/fixture` as entrypoint, `serve` as default command, /etc/passwd and /etc/group, /tmp. Made once per process.
pub fn fixture_image() -> Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| fixture_builder().build()).clone()
}

/// The standard image before it is built, to change its config or add layers.
pub fn fixture_builder() -> ImageBuilder {
    ImageBuilder::new()
        .layer(base().clone())
        .entrypoint(&["/bin/fixture"])
        .cmd(&["serve"])
        .env(&["PATH=/bin", "FROM_IMAGE=yes"])
}

/// The smallest thing that is an image: these files, no command.
pub fn scratch_image(files: &[(&str, &str)]) -> Image {
    let files: Vec<(String, Vec<u8>, u32)> =
        files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec(), 0o644)).collect();
    ImageBuilder::new().layer(layer_of(&files)).build()
}
