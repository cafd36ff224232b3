//! Layers laid over each other.

use super::*;

/// Layers, and the lines of the tree they mean when laid over each other.
fn check_flat(name: &str, layers: &[Vec<u8>], expected: &[&str]) {
    let s = setup();
    let short = |path: &Path| -> Vec<String> {
        let lines = tree(path).into_iter().map(|line| line.replace(" 0:0 1000000.0", "").replace("file 1 ", "file "));
        lines.filter(|line| line != "/ dir 755 0:0 0.0").collect()
    };
    let path = s.work.path().join("image.tar");
    std::fs::write(&path, archive(&docker_files(layers, &["flat:1"]))).expect("written");
    let direct = s.work.path().join("direct");
    unpack_to(Source::Path(&path, None), &direct, s.store.limits()).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(short(&direct), expected, "{name}, from the archive");
    // An empty directory is as good, and gets the image's attributes.
    let image = load(&s.store, &path).unwrap_or_else(|e| panic!("{name}: {e}")).remove(0).1;
    let stored = s.work.path().join("stored");
    std::fs::create_dir(&stored).expect("made");
    unpack_to(Source::Stored(&s.store, &image), &stored, s.store.limits()).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(short(&stored), expected, "{name}, from the store");
    // What a container sees: the root directory is its own.
    let mounted = s.work.path().join("mounted");
    std::fs::create_dir(&mounted).expect("made");
    // Without a writable directory the kernel wants two at least.
    let empty = ["empty", "empty-too"].map(|name| s.work.path().join(name));
    empty.iter().for_each(|path| std::fs::create_dir(path).expect("made"));
    let layers: Vec<_> = empty.into_iter().chain(image.layers.iter().cloned()).collect();
    crate::image::overlay::mount_overlay(&layers, None, &mounted).unwrap_or_else(|e| panic!("{name}: {e}"));
    let without_root = |lines: &[String]| lines.iter().filter(|l| !l.starts_with("/ ")).cloned().collect::<Vec<_>>();
    // The kernel counts the names that a file has in the store.
    let uncounted = |path: &Path| {
        let lines = tree(path).into_iter().map(|line| match line.split_once(" file ") {
            Some((name, rest)) => format!("{name} {}", rest.split_once(' ').expect("a count").1),
            None => line,
        });
        without_root(&lines.collect::<Vec<_>>())
    };
    assert_eq!(uncounted(&mounted), uncounted(&direct), "{name}, mounted");
    rustix::mount::unmount(&mounted, rustix::mount::UnmountFlags::empty()).expect("unmounted");
    // Saved and loaded again it is the same.
    let saved = s.work.path().join("saved.tar");
    crate::image::save::save(&s.store, &[ImageRef::parse("flat:1").expect("reference")], &saved).expect("saved");
    let again = s.work.path().join("again");
    unpack_to(Source::Path(&saved, None), &again, s.store.limits()).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(without_root(&short(&again)), without_root(&short(&stored)), "{name}, saved");
    assert!(s.store.verify(None).expect("verified").is_good(), "{name}");
    s.store.remove_image(&image.digest, &Default::default()).expect("removed");
    for kind in ["layers", "fixups", "records", "tmp"] {
        assert_eq!(std::fs::read_dir(s.store.root().join(kind)).expect("listed").count(), 0, "{name}: {kind}");
    }
}

#[test]
fn layers_are_laid_over_each_other_as_a_container_sees_them() {
    isolated(|| {
        let base = || tar(&[dir("d"), file("d/a", "1"), file("d/b", "2"), file("f", "3"), dir("e"), file("e/x", "4")]);
        check_flat(
            "one layer",
            &[base()],
            &["/d dir 755", "/d/a file 1 644", "/d/b file 2 644", "/e dir 755", "/e/x file 4 644", "/f file 3 644"],
        );
        check_flat("no layer", &[], &[]);
        check_flat("an empty layer", &[tar(&[])], &[]);
        check_flat(
            "whiteouts",
            &[
                base(),
                tar(&[file(".wh.e", ""), dir("d"), file("d/.wh.a", ""), file(".wh.f", ""), file(".wh.never", "")]),
            ],
            &["/d dir 755", "/d/b file 2 644"],
        );
        check_flat(
            "opaque",
            &[
                base(),
                tar(&[dir("d"), file("d/new", "5"), file("d/.wh..wh..opq", ""), file(".wh.e", ""), file(".wh.f", "")]),
            ],
            &["/d dir 755", "/d/new file 5 644"],
        );
        check_flat(
            "everything hidden",
            &[base(), tar(&[file(".wh..wh..opq", ""), file("new", "5")])],
            &["/new file 5 644"],
        );
        check_flat(
            "whiteouts in the lowest layer",
            &[tar(&[file(".wh.a", ""), dir("d"), file("d/.wh..wh..opq", ""), file("d/.wh.x", ""), file("d/f", "1")])],
            &["/d dir 755", "/d/f file 1 644"],
        );
        check_flat(
            "removed and made again",
            &[
                base(),
                tar(&[file(".wh.d", "")]),
                tar(&[dir("d"), file("d/c", "5")]),
                tar(&[file(".wh.e", ""), file(".wh.f", "")]),
            ],
            &["/d dir 755", "/d/c file 5 644"],
        );
        check_flat(
            "replaced types",
            &[base(), tar(&[file("d", "5"), dir("f"), symlink("e", "d")])],
            &["/d file 5 644", "/e link -> d 777", "/f dir 755"],
        );
        check_flat(
            "a directory over a link",
            &[tar(&[dir("t"), symlink("l", "t")]), tar(&[dir("l"), file("l/f", "1")])],
            &["/l dir 755", "/l/f file 1 644", "/t dir 755"],
        );
        check_flat(
            "attributes of the upper layer",
            &[
                base(),
                tar(&[
                    Item { mode: 0o700, uid: 5, ..dir("d") },
                    file(".wh.e", ""),
                    file(".wh.f", ""),
                    Item { mode: 0o750, ..dir("./") },
                ]),
            ],
            &["/ dir 750", "/d dir 700 5:0 1000000.0", "/d/a file 1 644", "/d/b file 2 644"],
        );
        check_flat(
            "a directory that the upper layer does not describe",
            &[tar(&[Item { mode: 0o1777, ..dir("tmp") }]), tar(&[file("tmp/f", "1")])],
            &["/tmp dir 1777", "/tmp/f file 1 644"],
        );
        check_flat(
            "a directory that several layers do not describe",
            &[
                tar(&[Item { mode: 0o710, uid: 3, ..dir("a") }, Item { mode: 0o2755, gid: 4, ..dir("a/b") }]),
                tar(&[file("a/b/f", "1")]),
                tar(&[file("a/b/c/g", "2")]),
            ],
            &[
                "/a dir 710 3:0 1000000.0",
                "/a/b dir 2755 0:4 1000000.0",
                "/a/b/c dir 755 0:0 0.0",
                "/a/b/c/g file 2 644",
                "/a/b/f file 1 644",
            ],
        );
        check_flat(
            "a directory that is removed before it is used",
            &[
                tar(&[Item { mode: 0o700, ..dir("a") }, file("a/x", "1")]),
                tar(&[file(".wh.a", "")]),
                tar(&[file("a/f", "1")]),
            ],
            &["/a dir 755 0:0 0.0", "/a/f file 1 644"],
        );
        check_flat(
            "the same layer twice",
            &[base(), tar(&[file(".wh.d", ""), file(".wh.e", "")]), base()],
            &["/d dir 755", "/d/a file 1 644", "/d/b file 2 644", "/e dir 755", "/e/x file 4 644", "/f file 3 644"],
        );
        check_flat(
            "hard links and others",
            &[
                tar(&[
                    file("a", "1"),
                    hardlink("b", "a"),
                    Item { mode: 0o4755, ..file("s", "2") },
                    item(b'6', "p"),
                    Item { device: (1, 3), ..item(b'3', "n") },
                    pax(&[("SCHILY.xattr.user.x", "y")], file("x", "3")),
                ]),
                tar(&[dir("z")]),
            ],
            &[
                "/a file 2 1 644",
                "/b file 2 1 644",
                "/n device 103 644",
                "/p fifo 644",
                "/s file 2 4755",
                "/x file 3 644",
                "/z dir 755",
            ],
        );
    });
}

#[test]
fn hard_links_reach_the_layers_below() {
    isolated(|| {
        let base = || {
            let base = [dir("d"), file("d/a", "1"), file("f", "2"), symlink("l", "d"), symlink("s", "/etc/passwd")];
            tar(&base)
        };
        let rest = ["/d dir 755", "/d/a file 1 644", "/f file 2 644", "/l link -> d 777", "/s link -> /etc/passwd 777"];
        let with = |more: &[&'static str], without: &[&str]| {
            let mut lines: Vec<&str> = rest.iter().copied().filter(|line| !without.contains(line)).collect();
            lines.extend(more);
            lines.sort_unstable();
            lines
        };
        let cases = [
            (
                "one",
                vec![base(), tar(&[hardlink("b", "d/a")])],
                with(&["/b file 2 1 644", "/d/a file 2 1 644"], &["/d/a file 1 644"]),
            ),
            (
                "through a link, absolute, into a new directory, two layers down",
                vec![base(), tar(&[]), tar(&[hardlink("n/b", "/l/a"), hardlink("n/c", "n/b")])],
                with(
                    &["/d/a file 3 1 644", "/n dir 755 0:0 0.0", "/n/b file 3 1 644", "/n/c file 3 1 644"],
                    &["/d/a file 1 644"],
                ),
            ),
            (
                "the target is replaced in the same layer",
                vec![base(), tar(&[hardlink("b", "f"), file("f", "new")])],
                with(&["/b file 2 644", "/f file new 644"], &["/f file 2 644"]),
            ),
            (
                "the target is removed later",
                vec![base(), tar(&[hardlink("b", "f")]), tar(&[file(".wh.f", "")])],
                with(&["/b file 2 644"], &["/f file 2 644"]),
            ),
            (
                "the link is replaced or removed later",
                vec![
                    base(),
                    tar(&[hardlink("b", "f"), hardlink("c", "f"), hardlink("e/b", "f")]),
                    tar(&[file("b", "new"), file(".wh.c", ""), file(".wh.e", "")]),
                ],
                with(&["/b file new 644"], &[]),
            ),
            (
                "the link is replaced in its own layer",
                vec![base(), tar(&[hardlink("b", "f"), file("b", "new"), hardlink("c", "f"), dir("c")])],
                with(&["/b file new 644", "/c dir 755"], &[]),
            ),
            (
                "it takes the place of something",
                vec![base(), tar(&[file("x", "old")]), tar(&[hardlink("x", "f"), hardlink("d", "f")])],
                vec![
                    "/d file 3 2 644",
                    "/f file 3 2 644",
                    "/l link -> d 777",
                    "/s link -> /etc/passwd 777",
                    "/x file 3 2 644",
                ],
            ),
            (
                "a link of a link",
                vec![base(), tar(&[hardlink("b", "f")]), tar(&[hardlink("c", "b")])],
                with(&["/b file 3 2 644", "/c file 3 2 644", "/f file 3 2 644"], &["/f file 2 644"]),
            ),
            (
                "to a symbolic link",
                vec![base(), tar(&[hardlink("t", "s")])],
                with(&["/t link -> /etc/passwd 777"], &[]),
            ),
            ("to itself", vec![base(), tar(&[hardlink("f", "f")])], with(&[], &[])),
        ];
        for (name, layers, expected) in cases {
            check_flat(name, &layers, &expected);
        }
    });
}

#[test]
fn hard_links_to_nothing_are_refused() {
    isolated(|| {
        let base = || tar(&[dir("d"), file("d/a", "1"), file("f", "2")]);
        for (name, layers) in [
            ("in no layer", vec![base(), tar(&[hardlink("b", "none")])]),
            ("outside", vec![base(), tar(&[symlink("o", "/"), hardlink("b", "o/etc/passwd")])]),
            ("in a later layer", vec![base(), tar(&[hardlink("b", "g")]), tar(&[file("g", "1")])]),
            ("a directory", vec![base(), tar(&[hardlink("b", "d")])]),
            ("below a file", vec![base(), tar(&[hardlink("b", "f/x")])]),
            ("removed by the layer", vec![base(), tar(&[file(".wh.f", ""), hardlink("b", "f")])]),
            ("removed before", vec![base(), tar(&[file(".wh.f", "")]), tar(&[hardlink("b", "f")])]),
            ("hidden by the layer", vec![base(), tar(&[file("d/.wh..wh..opq", ""), hardlink("b", "d/a")])]),
            ("hidden before", vec![base(), tar(&[file(".wh..wh..opq", "")]), tar(&[hardlink("b", "f")])]),
            ("in the lowest layer", vec![tar(&[hardlink("b", "f")])]),
        ] {
            let s = setup();
            let path = s.work.path().join("image.tar");
            std::fs::write(&path, archive(&docker_files(&layers, &["bad:1"]))).expect("written");
            load(&s.store, &path).map(drop).expect_err(name);
            assert!(s.store.images().expect("listed").is_empty(), "{name}");
            let direct = s.work.path().join("direct");
            unpack_to(Source::Path(&path, None), &direct, s.store.limits()).expect_err(name);
            assert!(!direct.exists(), "{name}");
        }
    });
}

#[test]
fn a_hundred_layers_are_laid_over_each_other() {
    isolated(|| {
        let layers: Vec<Vec<u8>> = (0..120)
            .map(|n| tar(&[file(&format!("f{}", n % 10), &n.to_string()), file(&format!(".wh.f{}", (n + 5) % 10), "")]))
            .collect();
        check_flat(
            "120 layers",
            &layers,
            &["/f5 file 115 644", "/f6 file 116 644", "/f7 file 117 644", "/f8 file 118 644", "/f9 file 119 644"],
        );
    });
}
