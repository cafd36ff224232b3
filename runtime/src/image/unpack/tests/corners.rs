//! Corners of the format: names at their limits, numbers at theirs, extensions that come twice or say nothing, and
//! archives that are small but make work.

use std::time::{Duration, Instant};

use super::*;

const LIMITS: fn() -> Limits = || Limits { reserve_bytes: Some(0), ..Limits::default() };

/// What became of an archive: the tree's lines, or the error with its cause.
fn outcome(bytes: &[u8], limits: &Limits) -> Result<Vec<String>, String> {
    let (work, result) = run(bytes, limits);
    match result {
        Ok(_) => Ok(tree(&work.path().join("fs")).into_iter().filter(|line| !line.starts_with("/ dir ")).collect()),
        Err(error) => Err(spec::causes::chain(&error)),
    }
}

/// The archive is unpacked, and a line of the tree has all these parts.
fn taken(name: &str, items: &[Item], parts: &[&str]) {
    match outcome(&tar(items), &LIMITS()) {
        Ok(lines) if lines.iter().any(|line| parts.iter().all(|part| line.contains(part))) => {}
        Ok(lines) => panic!("{name}: no line with {parts:?} in {lines:#?}"),
        Err(error) => panic!("{name}: {error}"),
    }
}

fn refused(name: &str, items: &[Item], expected: &str) {
    match outcome(&tar(items), &LIMITS()) {
        Err(error) => assert!(error.contains(expected), "{name}: {error}"),
        Ok(lines) => panic!("{name}: not refused: {lines:#?}"),
    }
}

fn bytes_path(path: &[u8], item: Item) -> Item {
    Item { pax: vec![(b"path".to_vec(), path.to_vec())], ..item }
}

#[test]
fn names_and_numbers_at_their_limits() {
    isolated(|| {
        let n = |count: usize| "n".repeat(count);
        taken("a name of 255 bytes", &[bytes_path(n(255).as_bytes(), file("f", "1"))], &[&n(255), "file 1 1"]);
        refused("a name of 256 bytes", &[bytes_path(n(256).as_bytes(), file("f", "1"))], "the length of a name");
        let hidden = [b".wh.".as_slice(), n(255).as_bytes()].concat();
        taken("a whiteout of the longest name", &[bytes_path(&hidden, file("f", ""))], &[&n(255), "whiteout"]);
        let hidden = [b".wh.".as_slice(), n(256).as_bytes()].concat();
        refused("a whiteout of too long a name", &[bytes_path(&hidden, file("f", ""))], "the length of a name");
        let long = format!("{}f", format!("{}/", n(199)).repeat(20));
        taken("a path of 4001 bytes", &[bytes_path(long.as_bytes(), file("f", "1"))], &["/f file 1 1"]);
        refused("a path of 5000 bytes", &[bytes_path("a/".repeat(2500).as_bytes(), file("f", ""))], "a path");
        refused("a link target of 5000 bytes", &[pax(&[("linkpath", &n(5000))], symlink("l", "x"))], "symbolic link");
        taken(
            "a link target of 4000 bytes",
            &[pax(&[("linkpath", &"t/".repeat(2000))], symlink("l", "x"))],
            &["/l link"],
        );
        for (name, path, shown) in [
            ("a line break", &b"a\nb"[..], "a\\nb"),
            ("an escape", b"\x1b[2Jx", "\\x1b[2Jx"),
            ("no UTF-8", b"\xff\xfe", "\\xff\\xfe"),
            ("a backslash", b"a\\..\\b", "a\\\\..\\\\b"),
            ("dots that are a name", b"...", "/... file"),
            ("a blank", b" ", "/  file"),
            ("a dash", b"-rf", "/-rf file"),
            ("a percent sign", b"%2e%2e", "/%2e%2e file"),
            ("a NUL's picture", "\u{2400}".as_bytes(), "\\xe2\\x90\\x80"),
            ("dots of full width", "\u{ff0e}\u{ff0e}".as_bytes(), "\\xef\\xbc\\x8e"),
        ] {
            taken(name, &[bytes_path(path, file("f", "1"))], &[shown, "file 1 1"]);
        }
        for (name, time, shown) in [
            ("before 1970", "-1", " -1.0"),
            ("long before", "-2147483648", " -2147483648.0"),
            ("in the year 2242", "8589934592", " 8589934592.0"),
            ("in the year of nobody", "99999999999999", "/f file"),
            ("at the end of numbers", "9223372036854775807", "/f file"),
            ("at the begin of numbers", "-9223372036854775807", "/f file"),
            ("with many digits", "1.99999999999999999999", " 1.999999999"),
            ("with a dot", "5.", " 5.0"),
        ] {
            taken(name, &[pax(&[("mtime", time)], file("f", "1"))], &["/f file", shown]);
            taken(name, &[pax(&[("mtime", time)], dir("f"))], &["/f dir"]);
        }
        for id in ["0", "65535", "65536", "2097151", "2097152", "2147483648", "4294967294"] {
            taken("an owner", &[pax(&[("uid", id), ("gid", id)], file("f", "1"))], &[&format!(" {id}:{id} ")]);
        }
        for id in ["4294967295", "4294967296", "-1", "1.5", "0x10", " 1", "root"] {
            refused("an owner that is none", &[pax(&[("uid", id)], file("f", "1"))], "id");
        }
        for mode in [0o100_644, 0o777, 0o7777, 0o1_000_644] {
            let shown = format!(" {:o} 0:0 ", mode & 0o7777);
            taken("a mode with more bits", &[Item { mode, ..file("f", "1") }], &["/f file", &shown]);
        }
    });
}

#[test]
fn extensions_that_say_little_or_much() {
    isolated(|| {
        let x = |records: &[(&str, &str)]| {
            let records: Vec<_> = records.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
            Item { data: pax_bytes(&records), ..item(b'x', "pax") }
        };
        taken("an empty extended header", &[x(&[]), file("f", "1")], &["/f file"]);
        taken(
            "two of them: the last counts",
            &[x(&[("path", "a")]), x(&[("path", "b")]), file("f", "1")],
            &["/b file"],
        );
        taken(
            "keys nobody knows",
            &[x(&[("LIBARCHIVE.creationtime", "1"), ("a.b", "c")]), file("f", "1")],
            &["/f file"],
        );
        taken("a comment", &[x(&[("comment", "x\ny"), ("hdrcharset", "BINARY")]), file("f", "1")], &["/f file"]);
        taken("times nobody needs", &[x(&[("atime", "x"), ("ctime", "-")]), file("f", "1")], &["/f file"]);
        let long = |kind: u8, name: &[u8]| Item { data: name.to_vec(), ..item(kind, "././@LongLink") };
        taken("a long name without NUL", &[long(b'L', b"a/long/name"), file("f", "1")], &["/a/long/name file"]);
        taken("a long name with more behind NUL", &[long(b'L', b"name\0more\0"), file("f", "1")], &["/name file"]);
        taken("two long names", &[long(b'L', b"a\0"), long(b'L', b"b\0"), file("f", "1")], &["/b file"]);
        taken("a long name and PAX", &[long(b'L', b"a\0"), x(&[("path", "b")]), file("f", "1")], &["/b file"]);
        taken("a long target of a file", &[long(b'K', b"t\0"), file("f", "1")], &["/f file 1 1"]);
        refused("a long name of nothing", &[long(b'L', b"\0"), file("f", "1")], "refused");
        refused("a long name that leads out", &[long(b'L', b"../../x\0"), file("f", "1")], "outside");
        refused("a long target that leads out", &[long(b'K', b"../x\0"), hardlink("h", "f")], "outside");
        refused("a long name and no entry", &[long(b'L', b"a\0")], "extended header");
        refused("a sparse file by name only", &[x(&[("GNU.sparse.name", "s")]), file("f", "1")], "sparse");
        refused(
            "a sparse name that leads out",
            &[x(&[("GNU.sparse.size", "1"), ("GNU.sparse.map", "0,1"), ("GNU.sparse.name", "../s")]), file("f", "1")],
            "outside",
        );
        let xattr = |name: &str, value: &str| x(&[(&format!("SCHILY.xattr.{name}"), value)]);
        taken("an attribute without a name", &[xattr("", "1"), file("f", "1")], &["/f file"]);
        taken("an attribute of the host", &[xattr("trusted.overlay.metacopy", ""), file("f", "1")], &["/f file"]);
        taken(
            "an attribute on a device",
            &[xattr("user.a", "1"), Item { device: (1, 3), ..item(b'3', "n") }],
            &["/n device"],
        );
        refused("a capability that is none", &[xattr("security.capability", "x"), file("f", "1")], "attribute");
        refused("an attribute of one megabyte", &[xattr("user.a", &"v".repeat(100_000)), file("f", "1")], "attribute");
        refused(
            "a name of an attribute",
            &[xattr(&format!("user.{}", "n".repeat(300)), "1"), file("f", "1")],
            "attribute",
        );
        let many: Vec<(String, String)> =
            (0..5000).map(|n| (format!("SCHILY.xattr.user.n{n}"), "v".repeat(90))).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        // Whether they fit is for the file system to say; that it is said, for the unpacker.
        if let Err(error) = outcome(&tar(&[x(&many), file("f", "1")]), &LIMITS()) {
            assert!(error.contains("attributes do not fit"), "{error}");
        }
    });
}

#[test]
fn whiteouts_in_odd_places() {
    isolated(|| {
        let opq = |at: &str| file(&format!("{at}.wh..wh..opq"), "");
        taken("a whiteout that is a directory", &[dir("d"), dir("d/.wh.x")], &["/d/x whiteout"]);
        taken("a whiteout that is a link", &[symlink(".wh.x", "/etc")], &["/x whiteout"]);
        taken("a whiteout that is a hard link", &[file("f", "1"), hardlink(".wh.x", "f")], &["/x whiteout"]);
        taken("a whiteout with content", &[file(".wh.x", "content")], &["/x whiteout"]);
        taken("a whiteout twice", &[file(".wh.x", ""), file(".wh.x", "")], &["/x whiteout"]);
        taken("a whiteout of blanks", &[file(".wh.  ", "")], &["/   whiteout"]);
        taken("opaque twice", &[dir("d"), opq("d/"), opq("d/"), file("d/f", "1")], &["/d dir", "opaque"]);
        taken("opaque that is a directory", &[dir("d"), dir("d/.wh..wh..opq")], &["/d dir", "opaque"]);
        taken("opaque through a link", &[dir("d"), symlink("l", "d"), opq("l/")], &["/d dir", "opaque"]);
        taken(
            "a directory in the place of a file",
            &[file("d", "1"), dir("d"), file("d/f", "1")],
            &["/d dir", "opaque"],
        );
        taken("a directory in the place of a link", &[symlink("d", "x"), dir("d")], &["/d dir", "opaque"]);
        refused("opaque below a file", &[file("d", "1"), opq("d/")], "no directory");
        taken("opaque that is a link", &[dir("d"), symlink("d/.wh..wh..opq", "/etc")], &["/d dir", "opaque"]);
        taken("a whiteout through a link", &[dir("d"), symlink("l", "d"), file("l/.wh.f", "")], &["/d/f whiteout"]);
        taken("a whiteout through a link out", &[symlink("l", "../../d"), file("l/.wh.f", "")], &["/d/f whiteout"]);
        taken("a whiteout of a link", &[dir("d"), symlink("l", "d"), file(".wh.l", "")], &["/l link -> d"]);
        taken("a link in the place of a whiteout", &[file(".wh.l", ""), symlink("l", "/etc")], &["/l link -> /etc"]);
        taken(
            "a device in its place",
            &[file(".wh.n", ""), Item { device: (1, 3), ..item(b'3', "n") }],
            &["/n device"],
        );
        refused("a whiteout below a file", &[file("d", "1"), file("d/.wh.f", "")], "no directory");
        refused(
            "a hard link to opaque",
            &[dir("d"), file("d/.wh..wh..opq", ""), hardlink("h", "d/.wh..wh..opq")],
            "reserved",
        );
        refused("a hard link to a whiteout", &[file(".wh.x", ""), hardlink("h", ".wh.x")], "reserved");
        refused("a hard link to what is removed", &[file(".wh.x", ""), hardlink("h", "x")], "removes");
        refused("below a whiteout's name", &[file("a/.wh.b/c", "")], "reserved");
        refused("a whiteout of the layer", &[file(".wh..", "")], "whiteout of nothing");
        for items in [
            vec![dir("d"), opq("d/"), file("d/.wh.f", "")],
            vec![dir("d"), file("d/.wh.f", ""), opq("d/")],
            vec![dir("d"), opq("d/"), item(b'3', "d/f")],
            vec![opq(""), item(b'3', "f"), file("d/.wh.f", "")],
        ] {
            let lines = outcome(&tar(&items), &LIMITS()).expect("unpacked");
            assert!(!lines.iter().any(|line| line.contains("whiteout")), "nothing is below to be hidden: {lines:?}");
        }
    });
}

#[test]
fn kinds_that_meet() {
    isolated(|| {
        let fifo = item(b'6', "p");
        let device = Item { device: (1, 3), ..item(b'3', "n") };
        taken("a hard link to a fifo", &[fifo.clone(), hardlink("h", "p")], &["/h fifo"]);
        taken("a hard link to a device", &[device.clone(), hardlink("h", "n")], &["/h device 103"]);
        taken(
            "a hard link to a hard link",
            &[file("f", "1"), hardlink("g", "f"), hardlink("h", "g")],
            &["/h file 3 1"],
        );
        taken("a fifo in the place of a directory", &[dir("p"), file("p/f", "1"), fifo.clone()], &["/p fifo"]);
        taken("a file in the place of a fifo", &[fifo.clone(), file("p", "1")], &["/p file 1 1"]);
        taken(
            "a link in the place of a directory, then what is below",
            &[dir("d"), file("d/a", "1"), symlink("d", "e"), file("d/b", "2")],
            &["/e/b file 1 2"],
        );
        taken("a link with a size", &[Item { size: Some(512), ..symlink("l", "t") }, file("f", "1")], &["/f file 1 1"]);
        taken("a fifo with a size", &[Item { size: Some(512), ..fifo.clone() }, file("f", "1")], &["/f file 1 1"]);
        taken("names that differ in case", &[file("F", "1"), file("f", "2")], &["/F file 1 1"]);
        taken("a link of dots", &[symlink("l", "."), file("l/l/l/f", "1")], &["/f file 1 1"]);
        taken("a link to the root", &[symlink("l", "/"), file("l/f", "1")], &["/f file 1 1"]);
        taken("a link above the root", &[symlink("l", "/../../.."), file("l/f", "1")], &["/f file 1 1"]);
        refused("below a fifo", &[fifo.clone(), file("p/f", "1")], "no directory");
        refused("below a device", &[device.clone(), file("n/f", "1")], "no directory");
        refused("below a link to a file", &[file("f", "1"), symlink("l", "f"), file("l/g", "1")], "no directory");
        refused("below a link to itself", &[symlink("l", "l"), file("l/f", "1")], "too many symbolic links");
        refused(
            "below links in a circle",
            &[symlink("a", "b"), symlink("b", "a"), dir("a/d")],
            "too many symbolic links",
        );
        refused("a hard link to a directory", &[dir("d"), hardlink("h", "d")], "hard link to a directory");
        refused("a hard link to the directory above", &[dir("d"), hardlink("d/h", "d/..")], "root directory");
        refused("a hard link out by dots", &[dir("d"), hardlink("h", "d/../../x")], "outside");
        for kind in [b'A', b'E', b'I', b'N', b'z', 0x80] {
            refused("a kind of nobody", &[item(kind, "f")], "its type is none");
        }
        let x = |key: &[u8]| Item { data: pax_bytes(&[(key.to_vec(), b"1".to_vec())]), ..item(b'x', "pax") };
        refused("a key with a NUL", &[x(b"SCHILY.xattr.user.a\0b"), file("f", "1")], "without a key");
        taken("attributes of another writer", &[x(b"LIBARCHIVE.xattr.user.a"), file("f", "1")], &["/f file 1 1"]);
        taken(
            "an attribute of a kind of nobody",
            &[x(b"SCHILY.xattr.btrfs.compression"), file("f", "1")],
            &["/f file"],
        );
        taken("an attribute without its kind", &[x(b"SCHILY.xattr.user."), file("f", "1")], &["/f file"]);
        let global = Item { data: pax_bytes(&[(b"uid".to_vec(), b"7".to_vec())]), ..item(b'g', "g") };
        let path = Item { data: pax_bytes(&[(b"path".to_vec(), b"a".to_vec())]), ..item(b'x', "pax") };
        taken("a global header between", &[path, global, file("f", "1")], &["/a file 1 1", " 0:0 "]);
    });
}

/// Archives whose every entry makes the unpacker look at much: they end at a limit or soon.
#[test]
fn small_archives_make_no_great_work() {
    isolated(|| {
        let quick = |name: &str, items: &[Item], limits: &Limits, stopped: bool| {
            let start = Instant::now();
            let outcome = outcome(&tar(items), limits);
            let took = start.elapsed();
            assert!(took < Duration::from_secs(20), "{name}: {took:?}");
            match (outcome, stopped) {
                (Err(error), true) => assert!(error.contains("looked up"), "{name}: {error}"),
                (Ok(_), false) => {}
                (outcome, _) => panic!("{name}: {:?}", outcome.map(|lines| lines.len())),
            }
        };
        // Forty links, each of hundreds of steps to and fro, for each of the entries behind them.
        let far = |name: &str, target: &str| pax(&[("linkpath", target)], symlink(name, "x"));
        let mut items = vec![dir("a"), far("l0", &"a/../".repeat(800))];
        items.extend((1..39).map(|n| far(&format!("l{n}"), &format!("{}l{}", "a/../".repeat(90), n - 1))));
        items.extend((0..500).map(|n| file(&format!("l38/d{}/f", n % 2), "")));
        quick("links to and fro", &items, &Limits { entries: 1000, ..LIMITS() }, true);
        let mut items: Vec<Item> = (0..3000).map(|n| file(&format!("d/f{n}"), "")).collect();
        items.extend((0..3000).map(|_| file("d/.wh..wh..opq", "")));
        items.extend((0..3000).map(|_| file(".wh.d", "")));
        quick("opaque again and again", &items, &LIMITS(), false);
        let deep = "d/".repeat(250);
        let items: Vec<Item> =
            (0..2000).map(|n| bytes_path(format!("{deep}.wh.f{n}").as_bytes(), file("f", ""))).collect();
        quick("whiteouts in the deep", &items, &LIMITS(), false);
        let items: Vec<Item> = (0..4000).map(|n| file(&format!("i{n}/f"), "")).collect();
        let again: Vec<Item> = (0..4000).flat_map(|_| [file("x", ""), symlink("x", "y")]).collect();
        quick("the same name again and again", &[items, again].concat(), &LIMITS(), false);
    });
}

/// Each directory that a layer uses and does not describe keeps what a lower layer says of it, or the layer is refused.
#[test]
fn directories_that_are_not_described_are_all_known() {
    isolated(|| {
        let name = |length: usize| "n".repeat(length);
        let many = |count: usize, length: usize| -> Vec<Item> {
            (0..count).map(|i| pax(&[("path", &format!("{}{i:06}/f", name(length)))], file("f", ""))).collect()
        };
        let implied = |items: &[Item]| run(&tar(items), &LIMITS()).1.map(|unpacked| unpacked.implied.len());
        assert_eq!(implied(&many(6000, 10)).expect("unpacked"), 6001, "with the root");
        let error = implied(&many(20_000, 200)).expect_err("too much").to_string();
        assert!(error.contains("depend on lower layers is above the limit of 4194304"), "{error}");
    });
}
