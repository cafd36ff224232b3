//! Archives that try to reach outside: whatever the answer, nothing outside of the layer has changed afterwards.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use proptest::prelude::*;

use super::*;

/// Everything that can be seen of the places an attack may hit: names, content, attributes, and the time of the last
/// change of each inode.
fn outside(work: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for place in [Path::new("/tmp/victim"), &work.join("victim")] {
        lines.extend(tree(place));
        for name in ["", "file", "dir", "dir/inner", "link", "fifo"] {
            let meta = std::fs::symlink_metadata(place.join(name)).expect("still there");
            lines.push(format!("{} {} {}.{}", name, meta.ino(), meta.ctime(), meta.ctime_nsec()));
        }
    }
    let mut names: Vec<_> = ["/tmp", "/"]
        .iter()
        .flat_map(|path| std::fs::read_dir(path).expect("listed"))
        .map(|entry| format!("{:?}", entry.expect("entry").file_name()))
        .collect();
    names.sort();
    lines.extend(names);
    lines
}

fn victim(place: &Path) {
    std::fs::create_dir_all(place.join("dir")).expect("made");
    std::fs::write(place.join("file"), "precious").expect("written");
    std::fs::write(place.join("dir/inner"), "precious").expect("written");
    std::os::unix::fs::symlink("file", place.join("link")).expect("linked");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("made");
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Expect {
    /// It has to be an error.
    Refused,
    /// Whatever comes of it stays inside.
    Contained,
}

fn check(name: &str, bytes: &[u8], expect: Expect) {
    let work = tempfile::tempdir_in("/tmp").expect("temporary directory");
    victim(&work.path().join("victim"));
    let fs = work.path().join("fs");
    std::fs::create_dir(&fs).expect("made");
    let before = outside(work.path());
    let limits = Limits { entries: 2000, file_bytes: 8 << 20, reserve_bytes: Some(0), ..Limits::default() };
    let open = rustix::fs::open(&fs, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).expect("open");
    let list = tempfile::tempfile_in(work.path()).expect("list");
    let result = unpack(&mut &*bytes, open, list, &limits, None);
    assert_eq!(outside(work.path()), before, "{name}: something outside has changed");
    if expect == Expect::Refused {
        assert!(result.is_err(), "{name}: not refused, made {:#?}", tree(&fs));
    }
    remove_path(&fs).unwrap_or_else(|e| panic!("{name}: cannot remove the layer: {e}"));
    assert_eq!(outside(work.path()), before, "{name}: removing the layer has changed something outside");
}

/// One entry of every kind at a path.
fn all_kinds(path: &str) -> Vec<(&'static str, Item)> {
    let (directory, name) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path));
    let beside = |name: &str| if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
    vec![
        ("file", file(path, "evil")),
        ("directory", Item { mode: 0o777, uid: 9, ..dir(path) }),
        ("symlink", symlink(path, "/etc/passwd")),
        ("hardlink", hardlink(path, "seed")),
        ("fifo", Item { mode: 0o666, ..item(b'6', path) }),
        ("device", Item { device: (1, 3), mode: 0o666, ..item(b'3', path) }),
        ("whiteout", file(&beside(&format!(".wh.{name}")), "")),
        ("opaque", file(&format!("{path}/.wh..wh..opq"), "")),
    ]
}

#[test]
fn paths_that_lead_outside_are_refused() {
    isolated(|| {
        victim(Path::new("/tmp/victim"));
        let paths = [
            "../victim/file",
            "../../tmp/victim/file",
            "a/../../victim/file",
            "./../victim/dir",
            "a/b/../../../victim/link",
            ".././victim/new",
            "../../../../../../../../tmp/victim/new",
            "/../tmp/victim/file",
        ];
        let mut count = 0;
        for path in paths {
            for (kind, entry) in all_kinds(path) {
                check(&format!("{kind} at {path}"), &tar(&[file("seed", "x"), entry.clone()]), Expect::Refused);
                let long =
                    pax(&[("path", &String::from_utf8_lossy(&entry.path))], Item { path: b"ok".to_vec(), ..entry });
                check(&format!("{kind} at {path} by PAX"), &tar(&[file("seed", "x"), long]), Expect::Refused);
                count += 2;
            }
        }
        for path in ["/tmp/victim/file", "//tmp/victim/dir", "/tmp/../tmp/victim/new", "./tmp/victim/link"] {
            for (kind, entry) in all_kinds(path) {
                check(&format!("{kind} at {path}"), &tar(&[file("seed", "x"), entry]), Expect::Contained);
                count += 1;
            }
        }
        for path in ["..", "../", "/..", "a/../..", ".", "", "a/.."] {
            for (kind, entry) in
                all_kinds(path).into_iter().filter(|(kind, _)| !matches!(*kind, "directory" | "opaque" | "whiteout"))
            {
                check(&format!("{kind} at {path:?}"), &tar(&[file("seed", "x"), entry]), Expect::Refused);
                count += 1;
            }
        }
        for name in [".wh.", ".wh..", ".wh...", "a/.wh...", "../.wh.victim", ".wh.x/y", "a/.wh.b/c"] {
            check(name, &tar(&[dir("a"), file(name, "")]), Expect::Refused);
            count += 1;
        }
        assert!(count > 150, "{count} cases");
    });
}

#[test]
fn nothing_is_reached_through_links() {
    isolated(|| {
        victim(Path::new("/tmp/victim"));
        let targets = [
            "/tmp/victim",
            "../victim",
            "../../victim",
            "../../tmp/victim",
            "/proc/self/root/tmp/victim",
            "/proc/self/cwd",
            "/proc/1/root/tmp/victim",
            "..",
            "/",
            ".",
            "l",
            "/tmp/victim/link",
            "../victim/file",
        ];
        for target in targets {
            let pivot = symlink("l", target);
            for below in ["l/file", "l/dir", "l/dir/inner", "l/new", "l/../victim/file", "l/tmp/victim/file", "l"] {
                for (kind, entry) in all_kinds(below) {
                    let name = format!("l -> {target}, {kind} at {below}");
                    check(&name, &tar(&[file("seed", "x"), pivot.clone(), entry.clone()]), Expect::Contained);
                    let chain = [
                        file("seed", "x"),
                        pivot.clone(),
                        symlink("m", "l"),
                        Item {
                            path: [b"m".as_slice(), entry.path.strip_prefix(b"l").unwrap_or(b"")].concat(),
                            ..entry
                        },
                    ];
                    check(&format!("{name}, by m"), &tar(&chain), Expect::Contained);
                }
            }
        }
    });
}

#[test]
fn hard_links_reach_nothing_outside() {
    isolated(|| {
        victim(Path::new("/tmp/victim"));
        for target in ["../victim/file", "../../tmp/victim/file", "a/../../victim/file", "..", "", "/", "."] {
            check(target, &tar(&[hardlink("h", target), file("h", "evil")]), Expect::Refused);
        }
        for target in ["/tmp/victim/file", "l/file", "l", "m/file", "l/dir", "/proc/self/root/tmp/victim/file"] {
            for after in [
                file("h", "evil"),
                Item { mode: 0o4777, uid: 5, ..hardlink("h", target) },
                pax(&[("SCHILY.xattr.user.x", "y")], hardlink("h", target)),
                Item { data: b"evil".to_vec(), ..hardlink("h", target) },
                Item { mode: 0o777, ..dir("h") },
                file("h/x", "evil"),
                symlink("h", "/tmp/victim"),
            ] {
                for pivot in ["/tmp/victim", "../victim", "/tmp/victim/file"] {
                    let items = [symlink("l", pivot), symlink("m", "l"), hardlink("h", target), after.clone()];
                    check(&format!("{target} by {pivot}, then {:?}", after.kind), &tar(&items), Expect::Contained);
                }
            }
        }
    });
}

#[test]
fn what_takes_the_place_of_something_else_removes_nothing_outside() {
    isolated(|| {
        victim(Path::new("/tmp/victim"));
        let firsts = [
            vec![symlink("x", "/tmp/victim")],
            vec![symlink("x", "../victim")],
            vec![dir("x"), symlink("x/l", "/tmp/victim"), symlink("x/m", "../../victim"), dir("x/d/e/f")],
            vec![dir("x"), hardlink("x/self", "x"), file("x/f", "1")],
            vec![item(b'6', "x")],
            vec![file(".wh.x", "")],
        ];
        for first in &firsts {
            for (kind, second) in all_kinds("x").into_iter().chain(all_kinds("x/l")).chain(all_kinds("x/l/file")) {
                let mut items = vec![file("seed", "s")];
                items.extend(first.clone());
                items.push(second.clone());
                items.push(second);
                check(&format!("{:?} then {kind}", first[0].kind), &tar(&items), Expect::Contained);
            }
        }
    });
}

#[test]
fn broken_archives_are_refused() {
    let header = |change: &dyn Fn(&mut [u8; 512])| {
        let mut block = file("f", "").header();
        change(&mut block);
        seal(&mut block);
        [block.as_slice(), &[0; 1024]].concat()
    };
    isolated(|| {
        victim(Path::new("/tmp/victim"));
        let good = tar(&[file("f", "12345"), dir("d")]);
        let mut cases: Vec<(String, Vec<u8>)> = vec![
            ("no archive".into(), b"hello, world".repeat(100)),
            ("a short text".into(), b"hello".to_vec()),
            ("checksum".into(), {
                let mut b = good.clone();
                b[0] = b'g';
                b
            }),
            ("size of garbage".into(), header(&|b| b[124..136].copy_from_slice(b"zzzzzzzzzzz\0"))),
            ("size below zero".into(), header(&|b| b[124..136].copy_from_slice(&[0xff; 12]))),
            (
                "size of exabytes".into(),
                header(&|b| b[124..136].copy_from_slice(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")),
            ),
            ("owner of garbage".into(), header(&|b| b[108..116].copy_from_slice(b"abcdefg\0"))),
            ("owner -1".into(), header(&|b| b[108..116].copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xff"))),
            ("owner of 40 bits".into(), header(&|b| b[108..116].copy_from_slice(b"\x80\0\0\xff\xff\xff\xff\xff"))),
            ("a prefix that leads out".into(), header(&|b| b[345..347].copy_from_slice(b".."))),
            ("mode of garbage".into(), header(&|b| b[100..108].copy_from_slice(b"rwxr-xr\0"))),
            ("mode below zero".into(), header(&|b| b[100..108].fill(0xff))),
            ("time of garbage".into(), header(&|b| b[136..148].copy_from_slice(b"yesterday..."))),
            (
                "time beyond time".into(),
                header(&|b| b[136..148].copy_from_slice(b"\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
            ),
            (
                "device below zero".into(),
                header(&|b| {
                    b[156] = b'3';
                    b[329..337].fill(0xff);
                }),
            ),
            ("unknown type".into(), header(&|b| b[156] = b'Z')),
            ("a multi-volume part".into(), header(&|b| b[156] = b'M')),
            ("sparse without GNU".into(), header(&|b| b[156] = b'S')),
            (
                "device too large".into(),
                header(&|b| {
                    b[156] = b'3';
                    b[329..337].copy_from_slice(b"7777777\0");
                }),
            ),
            ("symlink to nothing".into(), header(&|b| b[156] = b'2')),
            (
                "PAX header last".into(),
                Item { data: pax_bytes(&[(b"path".to_vec(), b"x".to_vec())]), ..item(b'x', "p") }.bytes(),
            ),
            ("entry after the end".into(), [vec![0; 512], tar(&[file("late", "")])].concat()),
        ];
        for text in [
            "x",
            "5 a=b",
            "999 path=x\n",
            "0 a=b\n",
            "11 path=xyz ",
            "7 =abc\n",
            "9 novalu\n",
            "-1 a=b\n",
            "99999999999999999999 a=b\n",
        ] {
            let broken = Item { data: text.as_bytes().to_vec(), ..item(b'x', "p") };
            cases.push((format!("PAX {text:?}"), [broken.bytes(), tar(&[file("f", "")])].concat()));
        }
        for (key, value) in [
            ("size", "99999999999999999999"),
            ("size", "-1"),
            ("size", "9223372036854775808"),
            ("uid", "4294967295"),
            ("uid", "x"),
            ("gid", "99999999999"),
            ("mtime", "abc"),
            ("mtime", "1.2.3"),
            ("path", "a\0b"),
            ("linkpath", "a\0b"),
            ("GNU.sparse.major", "2"),
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.foo", "1"),
        ] {
            cases.push((format!("PAX {key}={value}"), tar(&[pax(&[(key, value)], file("f", ""))])));
        }
        for (name, map) in [
            ("odd count", "0,1,2"),
            ("overlap", "0,3,2,2"),
            ("beyond", "8,5"),
            ("overflow", "18446744073709551615,5"),
            ("text", "a,b"),
            ("short", "0,4"),
        ] {
            let records = [("GNU.sparse.size", "10"), ("GNU.sparse.map", map)];
            cases.push((format!("sparse 0.1 {name}"), tar(&[pax(&records, file("f", "12345"))])));
        }
        for map in ["2\n0\n1\n", "1\n0\nx\n", "99999999999\n0\n", "1\n0\n99999\n", "-1\n", "1"] {
            let mut data = map.as_bytes().to_vec();
            data.resize(512, 0);
            let records = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "10")];
            cases.push((format!("sparse 1.0 {map:?}"), tar(&[pax(&records, Item { data, ..file("f", "") })])));
        }
        for key in ["path", "linkpath", "size", "GNU.sparse.major"] {
            let data = pax_bytes(&[(key.into(), b"5".to_vec())]);
            cases.push((
                format!("global {key}"),
                [Item { data, ..item(b'g', "g") }.bytes(), tar(&[file("f", "x")])].concat(),
            ));
        }
        let whole = tar(&[pax(&[("mtime", "1.5")], file("f", &"x".repeat(700))), dir("d")]);
        for cut in [1, 511, 513, 1000, 1024, 1100, 1537, 2000, 2230, 2561] {
            cases.push((format!("cut at {cut}"), whole[..cut].to_vec()));
        }
        let packed = gzip(&whole);
        for cut in [2, 10, packed.len() / 2, packed.len() - 9, packed.len() - 1] {
            cases.push((format!("gzip cut at {cut}"), packed[..cut].to_vec()));
        }
        let mut wrong = packed.clone();
        let last = wrong.len() - 6;
        wrong[last] ^= 1;
        cases.push(("gzip with a wrong check sum".into(), wrong));
        let packed = zstd::encode_all(whole.as_slice(), 3).expect("memory");
        for cut in [5, packed.len() / 2, packed.len() - 1] {
            cases.push((format!("zstd cut at {cut}"), packed[..cut].to_vec()));
        }
        for (name, bytes) in &cases {
            check(name, bytes, Expect::Refused);
        }
        assert!(cases.len() > 60, "{} cases", cases.len());
    });
}

#[test]
fn bombs_are_stopped_by_limits() {
    fn stopped(name: &str, bytes: &[u8], limits: &Limits, what: &str) {
        let (work, result) = run(bytes, limits);
        match result {
            Err(UnpackError::Limit { what: found, .. }) if found.contains(what) => {}
            other => panic!("{name}: {other:?}"),
        }
        drop(work);
    }
    isolated(|| {
        let limits = Limits { reserve_bytes: Some(0), ..Limits::default() };
        let zeros = vec![0u8; 4 << 20];
        let big = tar(&[Item { data: zeros.clone(), ..file("f", "") }]);
        let small = Limits { ratio: 100, ratio_free_bytes: 1 << 20, ..limits.clone() };
        stopped("gzip of zeros", &gzip(&big), &small, "ratio");
        stopped("zstd of zeros", &zstd::encode_all(big.as_slice(), 3).expect("memory"), &small, "ratio");
        stopped("bytes", &big, &Limits { archive_bytes: 1 << 20, ..limits.clone() }, "uncompressed layer");
        stopped("file bytes", &big, &Limits { file_bytes: 1 << 20, ..limits.clone() }, "all files");
        let claims = tar(&[Item { size: Some(0o7_777_777_777), ..file("f", "") }]);
        stopped("claimed size", &claims, &Limits { file_bytes: 1 << 20, ..limits.clone() }, "all files");
        let sparse = pax(&[("GNU.sparse.size", "9000000000000000000"), ("GNU.sparse.map", "0,1")], file("f", "1"));
        stopped("sparse", &tar(&[sparse]), &limits, "all files");
        let many: Vec<Item> = (0..50).map(|n| file(&format!("f{n}"), "")).collect();
        stopped("entries", &tar(&many), &Limits { entries: 49, ..limits.clone() }, "entries");
        let deep = pax(&[("path", &"d/".repeat(60))], dir("d"));
        stopped("depth", &tar(std::slice::from_ref(&deep)), &Limits { depth: 50, ..limits.clone() }, "depth");
        stopped("implied entries", &tar(&[deep, file("f", "")]), &Limits { entries: 50, ..limits.clone() }, "entries");
        stopped(
            "path",
            &tar(&[pax(&[("path", &"d/".repeat(2100))], dir("d"))]),
            &Limits { depth: 9999, ..limits.clone() },
            "length of a path",
        );
        stopped("name", &tar(&[pax(&[("path", &"n".repeat(256))], dir("d"))]), &limits, "length of a name");
        let links: Vec<Item> = (0..8)
            .map(|n| {
                if n == 0 {
                    dir("l0/x/x/x/x/x/x/x/x")
                } else {
                    symlink(&format!("l{n}"), &format!("l{}/x/x/x/x", n - 1))
                }
            })
            .collect();
        let climb = [links, vec![dir("l7/y/y/y/y/y/y/y/y")]].concat();
        stopped("depth through links", &tar(&climb), &Limits { depth: 16, ..limits.clone() }, "depth");
        let huge = Item { size: Some(2 << 20), data: vec![b'x'; 2 << 20], ..item(b'x', "p") };
        stopped("PAX header", &[huge.bytes(), tar(&[])].concat(), &limits, "extended header");
        let huge = Item { size: Some(2 << 20), data: vec![b'x'; 2 << 20], ..item(b'L', "p") };
        stopped("long name", &[huge.bytes(), tar(&[])].concat(), &limits, "extended header");
        let (_work, result) = run(&big, &Limits { reserve_bytes: Some(1 << 60), ..limits.clone() });
        assert!(matches!(result, Err(UnpackError::Space { .. })), "{result:?}");
        let full = tar(&[Item { data: vec![1; 300 << 20], ..file("f", "") }]);
        let (_work, result) = run(&full, &limits);
        assert!(matches!(result, Err(UnpackError::Full { .. })), "{result:?}");
    });
}

#[test]
fn a_tree_of_any_depth_is_removed() {
    isolated(|| {
        let work = tempfile::tempdir_in("/tmp").expect("temporary directory");
        let top = work.path().join("top");
        std::fs::create_dir(&top).expect("made");
        let mut at = rustix::fs::open(&top, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).expect("open");
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::from_raw_mode(0o700)).expect("made");
            at = tree::open_directory(std::os::fd::AsFd::as_fd(&at), b"d").expect("open");
        }
        remove_path(&top).expect("removed");
        assert!(!top.exists());
    });
}

fn any_item() -> impl Strategy<Value = Item> {
    let names = prop::sample::select(vec![
        "a",
        "b",
        "a/b",
        "a/b/c",
        "./",
        "../victim/file",
        "/tmp/victim/file",
        "a/../..",
        "a/.wh.b",
        ".wh.a",
        "a/.wh..wh..opq",
        "b/file",
        "b/dir/inner",
    ]);
    let links = prop::sample::select(vec![
        "a",
        "b",
        "a/b",
        "..",
        "../victim",
        "/tmp/victim",
        "/tmp/victim/file",
        "/",
        "b/file",
        "../../victim",
    ]);
    let kinds = prop::sample::select(b"012356".to_vec());
    (names, links, kinds, 0u32..0o10000).prop_map(|(path, link, kind, mode)| {
        let data = if kind == b'0' { b"evil".to_vec() } else { Vec::new() };
        let device = if kind == b'3' { (1, 3) } else { (0, 0) };
        Item { link: link.as_bytes().to_vec(), mode, data, device, ..item(kind, path) }
    })
}

/// Random sequences of hostile entries, and random damage to an archive's bytes: no panic, no change outside.
/// `MAINSTAY_FUZZ_SECONDS` makes it run for longer.
#[test]
fn random_archives_stay_inside() {
    isolated(|| {
        victim(Path::new("/tmp/victim"));
        let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
        let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
        let archives = (prop::collection::vec(any_item(), 1..8), damage, any::<bool>());
        let seconds = std::env::var("MAINSTAY_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
        let mut rounds = 0;
        loop {
            one_round(&config, &archives);
            rounds += 1;
            if std::time::Instant::now() >= end {
                break;
            }
        }
        eprintln!("{} archives", rounds * config.cases);
    });
}

type Damaged = (Vec<Item>, Vec<(prop::sample::Index, u8)>, bool);

fn one_round(config: &ProptestConfig, archives: &impl Strategy<Value = Damaged>) {
    let mut runner = proptest::test_runner::TestRunner::new(config.clone());
    let outcome = runner.run(archives, |(items, damage, sealed)| {
        let mut bytes = tar(&items);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            // With a right checksum the damage is looked at as content, not only as damage.
            let start = at / 512 * 512;
            if sealed && let Some(block) = bytes.get_mut(start..start + 512) {
                let block: &mut [u8; 512] = block.try_into().expect("a block");
                seal(block);
            }
        }
        check("random", &bytes, Expect::Contained);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
