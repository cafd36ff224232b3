//! Archives that are unusual but mean something: compared with the tree they mean.

use super::*;

/// Lines of the tree without the common attributes: root's, mode 644 or 755, the kit's time.
fn check(name: &str, bytes: &[u8], expected: &[&str]) {
    let limits = Limits { reserve_bytes: Some(0), ..Limits::default() };
    let (work, result) = run(bytes, &limits);
    result.unwrap_or_else(|e| panic!("{name}: {e}: {:?}", std::error::Error::source(&e)));
    let short = |line: String| {
        let line = line.replace(" 0:0 1000000.0", "").replace("file 1 ", "file ");
        match (line.contains(" dir ") || line.contains(" link "), line.contains(" file ")) {
            (true, _) => line.replace(" 755", "").replace(" 777", ""),
            (_, true) => line.replace(" 644", ""),
            _ => line,
        }
    };
    let found: Vec<String> =
        tree(&work.path().join("fs")).into_iter().map(short).filter(|line| line != "/ dir 0:0 0.0").collect();
    assert_eq!(found, expected, "{name}");
}

fn raw(item: Item, change: impl FnOnce(&mut [u8; 512])) -> Vec<u8> {
    let mut bytes = item.bytes();
    let mut block: [u8; 512] = bytes[..512].try_into().expect("a header");
    change(&mut block);
    seal(&mut block);
    bytes[..512].copy_from_slice(&block);
    bytes
}

fn end(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), vec![0; 1024]].concat()
}

#[test]
fn odd_archives_mean_what_they_say() {
    isolated(|| {
        let long = "n".repeat(200);
        let long_path = format!("{}/{}", "d".repeat(120), "f".repeat(150));
        check("nothing at all", b"", &[]);
        check("only the end", &[0; 1024], &[]);
        check("only half of the end", &[0; 512], &[]);
        check("a piece of zeros", &[0; 100], &[]);
        check("ten blocks of zeros", &[0; 10240], &[]);
        check("no end", &file("f", "1").bytes(), &["/f file 1"]);
        check("no padding", &file("f", "1").bytes()[..513], &["/f file 1"]);
        check("garbage behind the end", &[tar(&[file("f", "1")]), b"garbage".repeat(999)].concat(), &["/f file 1"]);
        check(
            "garbage behind half of the end",
            &[file("f", "1").bytes(), vec![0; 512], vec![b'x'; 700]].concat(),
            &["/f file 1"],
        );
        check("doubled entry", &tar(&[file("f", "first"), file("f", "2")]), &["/f file 2"]);
        check("file replaces directory", &tar(&[dir("x"), file("x/y/z", "1"), file("x", "2")]), &["/x file 2"]);
        check("directory replaces file", &tar(&[file("x", "1"), dir("x")]), &["/x dir opaque"]);
        check(
            "directory replaces link",
            &tar(&[dir("t"), symlink("x", "t"), dir("x"), file("x/f", "1")]),
            &["/t dir", "/x dir opaque", "/x/f file 1"],
        );
        check("link replaces directory", &tar(&[dir("x"), file("x/f", "1"), symlink("x", "t")]), &["/x link -> t"]);
        check("link replaces file", &tar(&[file("x", "1"), symlink("x", "t")]), &["/x link -> t"]);
        check(
            "file replaces link",
            &tar(&[symlink("x", "t"), file("x", "1"), file("t", "2")]),
            &["/t file 2", "/x file 1"],
        );
        check(
            "same directory again",
            &tar(&[dir("x"), file("x/f", "1"), Item { mode: 0o700, ..dir("x/") }]),
            &["/x dir 700", "/x/f file 1"],
        );
        check(
            "child before parent",
            &tar(&[file("x/f", "1"), Item { mode: 0o750, ..dir("x") }]),
            &["/x dir 750", "/x/f file 1"],
        );
        check(
            "below a link",
            &tar(&[symlink("lib", "usr/lib"), dir("usr"), dir("usr/lib"), file("lib/f", "1")]),
            &["/lib link -> usr/lib", "/usr dir", "/usr/lib dir", "/usr/lib/f file 1"],
        );
        check(
            "below an absolute link",
            &tar(&[symlink("lib", "/usr/lib"), file("lib/f", "1")]),
            &["/lib link -> /usr/lib", "/usr dir 0:0 0.0", "/usr/lib dir 0:0 0.0", "/usr/lib/f file 1"],
        );
        check(
            "below a link out",
            &tar(&[dir("a"), symlink("a/l", "../../../b"), file("a/l/f", "1")]),
            &["/a dir", "/a/l link -> ../../../b", "/b dir 0:0 0.0", "/b/f file 1"],
        );
        check(
            "links to links",
            &tar(&[dir("c"), symlink("a", "b"), symlink("b", "./c/."), file("a/f", "1")]),
            &["/a link -> b", "/b link -> ./c/.", "/c dir", "/c/f file 1"],
        );
        check(
            "dots",
            &tar(&[file("./a/./b//c", "1"), file("a/x/../d", "2")]),
            &["/a dir 0:0 0.0", "/a/b dir 0:0 0.0", "/a/b/c file 1", "/a/d file 2"],
        );
        check("absolute", &tar(&[file("/etc/f", "1")]), &["/etc dir 0:0 0.0", "/etc/f file 1"]);
        check("hard link to link", &tar(&[symlink("l", "t"), hardlink("h", "l")]), &["/h link -> t", "/l link -> t"]);
        check("hard link absolute", &tar(&[file("f", "1"), hardlink("h", "/f")]), &["/f file 2 1", "/h file 2 1"]);
        check(
            "hard link through link",
            &tar(&[dir("d"), file("d/f", "1"), symlink("l", "d"), hardlink("h", "l/f")]),
            &["/d dir", "/d/f file 2 1", "/h file 2 1", "/l link -> d"],
        );
        check("hard link to itself", &tar(&[file("f", "1"), hardlink("f", "./f")]), &["/f file 1"]);
        check(
            "hard link twice",
            &tar(&[file("f", "1"), hardlink("h", "f"), hardlink("h", "f")]),
            &["/f file 2 1", "/h file 2 1"],
        );
        check(
            "hard link with a size",
            &tar(&[file("f", "1"), Item { size: Some(5), ..hardlink("h", "f") }, file("g", "2")]),
            &["/f file 2 1", "/g file 2", "/h file 2 1"],
        );
        check(
            "hard link replaces",
            &tar(&[file("f", "1"), file("h", "2"), hardlink("h", "f")]),
            &["/f file 2 1", "/h file 2 1"],
        );
        check(
            "replaced original",
            &tar(&[file("f", "1"), hardlink("h", "f"), file("f", "2")]),
            &["/f file 2", "/h file 1"],
        );
        check(
            "directory with a size",
            &tar(&[Item { size: Some(512), ..dir("d") }, file("f", "1")]),
            &["/d dir", "/f file 1"],
        );
        check("file name with a slash", &tar(&[item(b'0', "d/"), file("f", "1")]), &["/d dir 644", "/f file 1"]);
        check(
            "v7",
            &end(&[
                raw(Item { kind: 0, ..file("f", "1") }, |b| b[257..].fill(0)),
                raw(Item { kind: 0, ..dir("d/") }, |b| b[257..].fill(0)),
            ]),
            &["/d dir", "/f file 1"],
        );
        check("contiguous file", &tar(&[Item { kind: b'7', ..file("f", "1") }]), &["/f file 1"]);
        check("volume label", &tar(&[item(b'V', "label"), file("f", "1")]), &["/f file 1"]);
        check(
            "signed checksum",
            &end(&[{
                let mut bytes = file("f\u{e9}", "1").bytes();
                let signed: i64 = bytes[..512]
                    .iter()
                    .enumerate()
                    .map(|(at, b)| if (148..156).contains(&at) { 32 } else { i64::from(b.cast_signed()) })
                    .sum();
                bytes[148..156].copy_from_slice(format!("{signed:06o}\0 ").as_bytes());
                bytes
            }]),
            &["/f\\xc3\\xa9 file 1"],
        );
        check(
            "name of any bytes",
            &tar(&[Item { path: b"a\xff\nb".to_vec(), ..file("", "1") }]),
            &["/a\\xff\\nb file 1"],
        );
        check(
            "prefix",
            &end(&[raw(file("f", "1"), |b| b[345..348].copy_from_slice(b"p/q"))]),
            &["/p dir 0:0 0.0", "/p/q dir 0:0 0.0", "/p/q/f file 1"],
        );
        check(
            "an absolute prefix",
            &end(&[raw(file("f", "1"), |b| b[345..347].copy_from_slice(b"/p"))]),
            &["/p dir 0:0 0.0", "/p/f file 1"],
        );
        check("a time below zero", &end(&[raw(file("f", "1"), |b| b[136..148].fill(0xff))]), &["/f file 1 0:0 -1.0"]);
        check(
            "GNU has no prefix",
            &end(&[raw(file("f", "1"), |b| {
                b[257..265].copy_from_slice(b"ustar  \0");
                b[345..348].copy_from_slice(b"p/q");
            })]),
            &["/f file 1"],
        );
        let name = Item { data: [long_path.as_bytes(), b"\0"].concat(), ..item(b'L', "././@LongLink") };
        let directory = "d".repeat(120);
        let file_name = "f".repeat(150);
        let made = [format!("/{directory} dir 0:0 0.0"), format!("/{directory}/{file_name} file 1")];
        check("GNU long name", &tar(&[name, file("short", "1")]), &[&made[0], &made[1]]);
        check("PAX path", &tar(&[pax(&[("path", &long_path)], file("short", "1"))]), &[&made[0], &made[1]]);
        let target = Item { data: [long.as_bytes(), b"\0"].concat(), ..item(b'K', "././@LongLink") };
        check("GNU long link", &tar(&[target, symlink("l", "short")]), &[&format!("/l link -> {long}")]);
        check(
            "PAX linkpath",
            &tar(&[pax(&[("linkpath", &long)], symlink("l", "short"))]),
            &[&format!("/l link -> {long}")],
        );
        check("PAX taken back", &tar(&[pax(&[("path", "x"), ("path", "")], file("f", "1"))]), &["/f file 1"]);
        check("PAX twice", &tar(&[pax(&[("path", "x"), ("path", "y")], file("f", "1"))]), &["/y file 1"]);
        check(
            "PAX owner",
            &tar(&[pax(&[("uid", "3000000000"), ("gid", "65536")], file("f", "1"))]),
            &["/f file 1 644 3000000000:65536 1000000.0"]
                .map(|l: &str| Box::leak(l.replace(" 644", "").into_boxed_str()) as &str),
        );
        check(
            "PAX size",
            &end(&[pax(&[("size", "3")], Item { size: Some(0), data: b"abc".to_vec(), ..file("f", "") }).bytes()]),
            &["/f file abc"],
        );
        check("time before 1970", &tar(&[pax(&[("mtime", "-1.25")], file("f", "1"))]), &["/f file 1 0:0 -2.750000000"]);
        check(
            "nanoseconds",
            &tar(&[pax(&[("mtime", "1.1234567891")], file("f", "1"))]),
            &["/f file 1 0:0 1.123456789"],
        );
        check(
            "base-256 owner",
            &end(&[raw(file("f", "1"), |b| b[108..116].copy_from_slice(b"\x80\0\0\0\0\x20\0\0"))]),
            &["/f file 1 2097152:0 1000000.0"],
        );
        check(
            "global header",
            &[
                Item {
                    data: pax_bytes(&[(b"comment".to_vec(), b"commit".to_vec())]),
                    ..item(b'g', "pax_global_header")
                }
                .bytes(),
                tar(&[file("f", "1")]),
            ]
            .concat(),
            &["/f file 1"],
        );
        check(
            "modes",
            &tar(&[
                Item { mode: 0o6755, ..file("f", "1") },
                Item { mode: 0o1777, ..dir("d") },
                Item { mode: 0, ..file("z", "0") },
            ]),
            &["/d dir 1777", "/f file 1 6755", "/z file 0 0"],
        );
        check(
            "setgid directory",
            &tar(&[Item { mode: 0o2755, gid: 7, ..dir("d") }, file("d/f", "1"), dir("d/e")]),
            &["/d dir 2755 0:7 1000000.0", "/d/e dir", "/d/f file 1"],
        );
        check(
            "devices",
            &tar(&[
                Item { device: (1, 3), mode: 0o666, ..item(b'3', "null") },
                Item { device: (7, 0), mode: 0o660, gid: 6, ..item(b'4', "loop") },
                item(b'6', "fifo"),
            ]),
            &["/fifo fifo 644", "/loop device 700 660 0:6 1000000.0", "/null device 103 666"],
        );
        check("whiteout", &tar(&[dir("d"), file("d/.wh.f", "")]), &["/d dir", "/d/f whiteout"]);
        check("whiteout of what is here", &tar(&[file("f", "1"), file(".wh.f", "")]), &["/f file 1"]);
        check("whiteout before what is here", &tar(&[file(".wh.f", ""), file("f", "1")]), &["/f file 1"]);
        check(
            "whiteout of a directory that is here",
            &tar(&[dir("d"), file("d/f", "1"), file(".wh.d", "")]),
            &["/d dir opaque", "/d/f file 1"],
        );
        check(
            "whiteout before a directory",
            &tar(&[file(".wh.d", ""), dir("d"), file("d/f", "1")]),
            &["/d dir opaque", "/d/f file 1"],
        );
        check(
            "whiteout before what is below",
            &tar(&[file(".wh.d", ""), file("d/f", "1")]),
            &["/d dir 0:0 0.0 opaque", "/d/f file 1"],
        );
        check(
            "opaque after",
            &tar(&[dir("d"), file("d/f", "1"), file("d/.wh..wh..opq", "")]),
            &["/d dir opaque", "/d/f file 1"],
        );
        check(
            "opaque before its directory",
            &tar(&[file("d/.wh..wh..opq", ""), Item { mode: 0o700, ..dir("d") }]),
            &["/d dir 700 opaque"],
        );
        check(
            "aufs",
            &tar(&[file(".wh..wh.aufs", ""), dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", "x"), file("f", "1")]),
            &["/f file 1"],
        );
        check("device 0:0 is a whiteout", &tar(&[item(b'3', "w")]), &["/w whiteout"]);
        check("hundreds of levels", &tar(&[pax(&[("path", &format!("{}f", "d/".repeat(254)))], file("f", ""))]), &{
            let mut lines: Vec<String> = (1..255).map(|n| format!("/{} dir 0:0 0.0", vec!["d"; n].join("/"))).collect();
            lines.push(format!("/{}f file ", "d/".repeat(254)));
            lines.sort();
            lines.into_iter().map(|l| Box::leak(l.into_boxed_str()) as &str).collect::<Vec<_>>()
        });
    });
}

#[test]
fn sparse_files_of_every_format_are_filled_in() {
    isolated(|| {
        let full = "abc\0\0\0\0de\0";
        let line = format!("/f file {}", full.as_bytes().escape_ascii());
        let records = [("GNU.sparse.size", "10"), ("GNU.sparse.map", "0,3,7,2")];
        check("0.1", &tar(&[pax(&records, file("f", "abcde")), dir("z")]), &[&line, "/z dir"]);
        let records = [
            ("GNU.sparse.size", "10"),
            ("GNU.sparse.numblocks", "2"),
            ("GNU.sparse.offset", "0"),
            ("GNU.sparse.numbytes", "3"),
            ("GNU.sparse.offset", "7"),
            ("GNU.sparse.numbytes", "2"),
        ];
        check("0.0", &tar(&[pax(&records, file("f", "abcde")), dir("z")]), &[&line, "/z dir"]);
        let mut data = b"2\n0\n3\n7\n2\n".to_vec();
        data.resize(512, 0);
        data.extend(b"abcde");
        let records = [
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.name", "f"),
            ("GNU.sparse.realsize", "10"),
        ];
        check(
            "1.0",
            &tar(&[pax(&records, Item { data, ..file("GNUSparseFile.0/f", "") }), dir("z")]),
            &[&line, "/z dir"],
        );
        let old = |count: usize| {
            let number = |n: usize| format!("{n:011o}\0").into_bytes();
            let mut extra = Vec::new();
            let mut data = Vec::new();
            let mut header = Item { kind: b'S', ..file("f", "") };
            let mut pairs: Vec<Vec<u8>> = Vec::new();
            for n in 0..count {
                pairs.push([number(n * 10), number(2)].concat());
                data.extend(b"ab");
            }
            header.size = Some(data.len() as u64);
            let mut block = header.header();
            block[257..265].copy_from_slice(b"ustar  \0");
            block[345..].fill(0);
            let mut rest = pairs.into_iter();
            for slot in 0..4 {
                if let Some(pair) = rest.next() {
                    block[386 + slot * 24..410 + slot * 24].copy_from_slice(&pair);
                }
            }
            block[483..495].copy_from_slice(&number(count * 10));
            let mut rest: Vec<Vec<u8>> = rest.collect();
            block[482] = u8::from(!rest.is_empty());
            while !rest.is_empty() {
                let mut more = vec![0u8; 512];
                for (slot, pair) in rest.drain(..rest.len().min(21)).enumerate() {
                    more[slot * 24..slot * 24 + 24].copy_from_slice(&pair);
                }
                more[504] = u8::from(!rest.is_empty());
                extra.extend(more);
            }
            seal(&mut block);
            data.resize(data.len().next_multiple_of(512), 0);
            end(&[block.to_vec(), extra, data, dir("z").bytes()])
        };
        for count in [0, 1, 4, 5, 25, 26, 60] {
            let content = "ab\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00".repeat(count);
            check(&format!("old GNU, {count} parts"), &old(count), &[&format!("/f file {content}"), "/z dir"]);
        }
    });
}

#[test]
fn only_harmless_attributes_are_set() {
    isolated(|| {
        let capability = "\u{1}\0\0\u{2}\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let bytes = tar(&[
            pax(
                &[("SCHILY.xattr.security.capability", capability), ("SCHILY.xattr.user.note", "a=b\n\0c")],
                Item { mode: 0o4755, uid: 5, ..file("f", "1") },
            ),
            pax(
                &[
                    ("SCHILY.xattr.trusted.overlay.opaque", "y"),
                    ("SCHILY.xattr.user.overlay.opaque", "y"),
                    ("SCHILY.xattr.security.selinux", "x"),
                    ("SCHILY.xattr.system.posix_acl_access", "x"),
                    ("SCHILY.xattr.user.d", "1"),
                ],
                dir("d"),
            ),
            pax(&[("SCHILY.xattr.trusted.overlay.redirect", "/x"), ("SCHILY.xattr.user.x", "y")], symlink("l", "f")),
        ]);
        let (work, result) = run(&bytes, &Limits { reserve_bytes: Some(0), ..Limits::default() });
        result.expect("unpacked");
        let names = |name: &str| {
            let mut list = vec![0u8; 4096];
            let length = rustix::fs::llistxattr(work.path().join("fs").join(name), &mut list).expect("listed");
            let mut names: Vec<String> = String::from_utf8_lossy(&list[..length])
                .split('\0')
                .filter(|n| !n.is_empty())
                .map(str::to_owned)
                .collect();
            names.sort();
            names
        };
        assert_eq!(names("f"), ["security.capability", "user.note"]);
        assert_eq!(names("d"), ["user.d"]);
        assert!(names("l").is_empty());
        let mut value = [0u8; 64];
        let length = rustix::fs::lgetxattr(work.path().join("fs/f"), "user.note", &mut value).expect("read");
        assert_eq!(&value[..length], b"a=b\n\0c");
    });
}

#[test]
fn compressed_streams_of_several_parts_are_one_layer() {
    isolated(|| {
        let bytes = tar(&[file("f", "1"), file("g", "2")]);
        let (one, two) = bytes.split_at(700);
        let expected = ["/f file 1", "/g file 2"];
        check("two gzip members", &[gzip(one), gzip(two)].concat(), &expected);
        check("zeros behind gzip", &[gzip(&bytes), vec![0; 100]].concat(), &expected);
        check("garbage behind gzip", &[gzip(&bytes), b"garbage".to_vec()].concat(), &expected);
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).expect("memory");
        check("two zstd frames", &[zstd(one), zstd(two)].concat(), &expected);
        let skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd".to_vec();
        check("skippable zstd frames", &[skippable.clone(), zstd(one), zstd(two), skippable].concat(), &expected);
        check("gzip of nothing", &gzip(b""), &[]);
    });
}
