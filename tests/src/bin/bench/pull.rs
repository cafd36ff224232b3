//! Cold pulls of an image with ten layers, beside pipelines of standard tools and installed engines, all from the same
//! registry on loopback, whose own CPU time is not counted.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tests::image::{Compression, Image, ImageBuilder, Layer};

use crate::Options;
use crate::peers::Dockerd;
use crate::table::{MAINSTAY, Sample, Table};
use crate::world::{World, installed};

/// Bytes of each layer, about: one large, as images have, and smaller ones on it. 430 MB together.
const LAYERS: [usize; 10] = [130, 80, 60, 50, 40, 30, 20, 12, 6, 2];

/// gzip and zstd.
pub(crate) fn measure(options: &Options) -> Vec<Table> {
    let kinds = [("gzip", Compression::Gzip, "igzip"), ("zstd", Compression::Zstd, "zstd")];
    kinds.into_iter().map(|(name, compression, tool)| one(options, name, compression, tool)).collect()
}

fn one(options: &Options, name: &str, compression: Compression, tool: &str) -> Table {
    let world = World::new("pull");
    let image = make(compression);
    let reference = world.registry.reference(&format!("bench/large:{name}"));
    world.registry.push(&format!("bench/large:{name}"), &image);
    let packed: usize = image.layers.iter().filter_map(|digest| image.blobs.get(digest)).map(|blob| blob.len()).sum();
    let mut table =
        Table::new(format!("Cold pull, {} {name} layers, {} MB packed", image.layers.len(), packed / 1_000_000));
    let urls: Vec<String> = image
        .layers
        .iter()
        .map(|digest| format!("http://{}/v2/bench/large/blobs/{digest}", world.registry.address()))
        .collect();
    let work = world.sandbox.data().join("peers");
    for _ in 0..options.runs {
        clear(&world.sandbox.data());
        let mut command = world.sandbox.command();
        command.args(["pull", &reference]).stdout(Stdio::piped()).stderr(Stdio::null());
        let lap = world.meter.start();
        let mut child = command.spawn().expect("the binary can be started");
        // Containers can start once the line is there; the process ends when all of it is on the disk.
        let output = child.stdout.take().expect("it is piped");
        let reading = std::thread::spawn(move || drop(BufReader::new(output).lines().next()));
        let peak = peak(child, || {
            let read = reading.is_finished();
            read.then(|| lap.done())
        });
        let (usable, peak) = peak;
        table.add("cold pull", "ms", MAINSTAY, usable);
        table.add("cold pull and sync", "ms", MAINSTAY, lap.done());
        table.add("peak memory", "MB RSS", MAINSTAY, Sample { wall: peak, cpu: None });
        let lap = world.meter.start();
        world.sandbox.cli(&["pull", &reference]).ok();
        table.add("pull again", "ms", MAINSTAY, lap.done());

        if installed(tool) && installed("curl") {
            for (who, digests) in [("floor: curl, tar x2", false), ("floor with digests", true)] {
                clear(&world.sandbox.data());
                fs::create_dir_all(&work).expect("the directory is ours");
                let lap = world.meter.start();
                pipelines(&work, &urls, tool, digests);
                table.add("cold pull", "ms", who, lap.done());
                nix::unistd::sync();
                table.add("cold pull and sync", "ms", who, lap.done());
            }
        }
        engines(&world, &reference, &work, &mut table);
        clear(&world.sandbox.data());
    }
    table.note(format!(
        "floor: `curl | {tool} -dc | tar x`, two layers at a time; with digests: openssl over both ends."
    ));
    table
}

/// Each layer by a pipeline of its own, two at a time.
fn pipelines(work: &Path, urls: &[String], tool: &str, digests: bool) {
    let hash = if digests { "| tee >(openssl dgst -sha256 >/dev/null) " } else { "" };
    let script = format!(
        "set -o pipefail; mkdir -p $0/$1 && curl -sf $2 {hash}| {tool} -dc {hash}| tar x -C $0/$1 --numeric-owner"
    );
    let list: String = urls.iter().enumerate().map(|(at, url)| format!("{at} {url}\n")).collect();
    let file = work.join("list");
    fs::write(&file, list).expect("the directory is ours");
    let input = fs::File::open(&file).expect("it was just written");
    let status = Command::new("xargs")
        .args(["-P2", "-L1", "bash", "-c", &script])
        .arg(work)
        .stdin(input)
        .status()
        .expect("xargs is installed");
    assert!(status.success(), "the floor of pulls failed");
}

/// Engines that are installed, each with a store of its own on the same disk.
fn engines(world: &World, reference: &str, work: &Path, table: &mut Table) {
    let run = |table: &mut Table, who: &str, program: &str, arguments: &[&str]| {
        let lap = world.meter.start();
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
        let sample = lap.done();
        match output {
            Ok(output) if output.status.success() => {
                table.add("cold pull", "ms", who, sample);
                nix::unistd::sync();
                table.add("cold pull and sync", "ms", who, lap.done());
            }
            Ok(output) => eprintln!("bench: {who} failed: {}", String::from_utf8_lossy(&output.stderr).trim()),
            Err(e) => eprintln!("bench: {who}: {e}"),
        }
    };
    let path = |name: &str| work.join(name).to_string_lossy().into_owned();
    let run_dir = world.sandbox.run();
    if installed("podman") {
        clear(&world.sandbox.data());
        let runroot = run_dir.join("podman").to_string_lossy().into_owned();
        let arguments = ["--root", &path("podman"), "--runroot", &runroot, "--storage-driver", "overlay"];
        let mut all = arguments.to_vec();
        all.extend(["pull", "-q", "--tls-verify=false", reference]);
        run(table, "podman", "podman", &all);
        drop(fs::remove_dir_all(&runroot));
    }
    if installed("skopeo") {
        clear(&world.sandbox.data());
        let runroot = run_dir.join("skopeo").to_string_lossy().into_owned();
        let to = format!("containers-storage:[overlay@{}+{runroot}]{reference}", path("skopeo"));
        let from = format!("docker://{reference}");
        run(table, "skopeo", "skopeo", &["copy", "-q", "--src-tls-verify=false", &from, &to]);
        // It leaves its store mounted, and what is mounted is not removed.
        let _ = nix::mount::umount2(&work.join("skopeo/overlay"), nix::mount::MntFlags::MNT_DETACH);
        drop(fs::remove_dir_all(&runroot));
    }
    if installed("dockerd") {
        clear(&world.sandbox.data());
        let more = ["--iptables=false", "--bridge=none"];
        if let Some(daemon) = Dockerd::start(&work.join("docker"), &run_dir.join("docker"), &more) {
            run(table, "docker", "docker", &["-H", &daemon.socket, "pull", "-q", reference]);
        }
    }
}

/// Empties the store between rounds, and lets the disk take everything in.
fn clear(data: &Path) {
    for entry in fs::read_dir(data).into_iter().flatten().flatten() {
        if entry.file_name() != "lost+found" {
            drop(fs::remove_dir_all(entry.path()));
            drop(fs::remove_file(entry.path()));
        }
    }
    nix::unistd::sync();
}

/// Waits for a process, and returns the first sample that `usable` gives and its highest resident memory in MB.
fn peak(mut child: Child, usable: impl Fn() -> Option<Sample>) -> (Sample, f64) {
    let mut first = None;
    let file = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut highest: f64 = 0.0;
    loop {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        highest = highest.max(kib.unwrap_or_default() * 1024.0 / 1e6);
        if let Some(status) = child.try_wait().expect("the child is ours") {
            assert!(status.success(), "the pull failed: {status}");
            let first = first.or_else(&usable).expect("it has printed a line");
            return (first, highest);
        }
        first = first.or_else(&usable);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Words and noise, files of all sizes, the same in each run: like programs and libraries, gzip makes about a third.
fn make(compression: Compression) -> Image {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let words: Vec<Vec<u8>> = (0..4000)
        .map(|_| (0..2 + next() % 8).map(|_| b'a' + u8::try_from(next() % 26).expect("below 26")).collect())
        .collect();
    let mut builder = ImageBuilder::new();
    for (number, megabytes) in LAYERS.into_iter().enumerate() {
        let mut layer = Layer::new().dir(&format!("layer{number}"));
        let (mut left, mut file) = (megabytes * 1_000_000, 0_usize);
        while left > 0 {
            // Many small files, few large ones.
            let size = [900, 3_000, 12_000, 40_000, 400_000][usize::try_from(next() % 5).expect("below 5")].min(left);
            if file.is_multiple_of(200) {
                layer = layer.dir(&format!("layer{number}/{}", file / 200));
            }
            let noisy = next() % 4 == 0;
            let mut content = Vec::with_capacity(size + 16);
            while content.len() < size {
                if noisy {
                    content.extend_from_slice(&next().to_le_bytes());
                } else {
                    let word = usize::try_from(next() % 4000).ok().and_then(|at| words.get(at));
                    content.extend_from_slice(word.map_or(&[][..], Vec::as_slice));
                    content.push(b' ');
                }
            }
            content.truncate(size);
            layer = layer.file(&format!("layer{number}/{}/f{file}", file / 200), content);
            left -= size;
            file += 1;
        }
        builder = builder.layer(layer.compress(compression));
    }
    builder.build()
}
