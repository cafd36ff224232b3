//! Trees and what is found in them.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::{Listing, MAX_BYTES, SourceError, discover, discover_closed};

/// Makes a tree: `path` is a file with its own name in it, `path/` a directory, `path -> target` a symlink.
fn tree(entries: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    for entry in entries {
        let (path, target) = entry.split_once(" -> ").map_or((*entry, None), |(path, target)| (path, Some(target)));
        let full = dir.path().join(path.trim_end_matches('/'));
        std::fs::create_dir_all(full.parent().expect("it has one")).expect("it can be made");
        match target {
            Some(target) => symlink(target, &full).expect("it can be made"),
            None if path.ends_with('/') => std::fs::create_dir_all(&full).expect("it can be made"),
            None => std::fs::write(&full, path).expect("it can be written"),
        }
    }
    dir
}

/// `path=content` or `path!error` of everything that is found.
fn found(root: &Path) -> Vec<String> {
    shown(root, &discover(root).expect("it can be listed"))
}

fn shown(root: &Path, listing: &Listing) -> Vec<String> {
    let show = |file: &super::FoundFile| {
        let path = file.path.strip_prefix(root).unwrap_or(&file.path).display().to_string();
        match &file.result {
            Ok(bytes) if bytes == path.as_bytes() => path,
            Ok(bytes) => format!("{path}={}", String::from_utf8_lossy(bytes)),
            Err(error) => format!("{path}!{error}"),
        }
    };
    listing.files.iter().map(show).collect()
}

#[track_caller]
fn check(entries: &[&str], expected: &[&str]) {
    let dir = tree(entries);
    assert_eq!(found(dir.path()), expected, "{entries:?}");
}

#[test]
fn manifests_are_found_at_every_depth_and_leftovers_are_not() {
    check(&["b.yaml", "a.yml", "d/c.json", "d/e/f.toml"], &["a.yml", "b.yaml", "d/c.json", "d/e/f.toml"]);
    check(&["README.md", "x", "yaml", "script.sh", "a.yaml.txt"], &[]);
    check(
        &[".a.yaml", ".git/a.yaml", "a.yaml~", "a.yaml.swp", "a.yaml.bak", "a.yaml.orig", "a.yaml.tmp", "a.yaml.rej"],
        &[],
    );
    check(&["d.bak/a.yaml", "d~/a.yaml"], &[]);
    check(&["d.yaml/a.yaml"], &["d.yaml/a.yaml"]);
    check(&[], &[]);
}

#[test]
fn symlinks_are_followed_and_everything_counts_once() {
    check(&["a.yaml", "b.yaml -> a.yaml"], &["a.yaml"]);
    check(&["0.yaml -> a.yaml", "a.yaml"], &["a.yaml"]);
    check(&["0 -> d", "d/a.yaml"], &["d/a.yaml"]);
    check(&["d/a.yaml", "d/loop -> ..", "d/self -> ."], &["d/a.yaml"]);
    check(
        &["x.yaml -> y.yaml", "y.yaml -> x.yaml"],
        &[
            "x.yaml!the symlink leads to `y.yaml`, which does not exist",
            "y.yaml!the symlink leads to `x.yaml`, which does not exist",
        ],
    );
    check(
        &["x.yaml -> nowhere", "readme -> nowhere"],
        &["x.yaml!the symlink leads to `nowhere`, which does not exist"],
    );
    check(&["a.d/", "a.d/link -> ../b.d", "b.d/link -> ../c.d", "c.d/x.yaml"], &["c.d/x.yaml"]);
}

#[test]
fn a_tree_that_is_swapped_by_a_link_is_read_through_it_once() {
    let entries = [
        "..2024_1/web.yaml",
        "..2024_1/sub/db.yaml",
        "..data -> ..2024_1",
        "web.yaml -> ..data/web.yaml",
        "sub -> ..data/sub",
    ];
    check(&entries, &["sub/db.yaml=..2024_1/sub/db.yaml", "web.yaml=..2024_1/web.yaml"]);
}

#[test]
fn ignore_files_count_for_their_directory_and_below() {
    let dir = tree(&["a.yaml", "b/a.yaml", "b/keep.yaml", "charts/x/y.yaml", "c/a.yaml", "link -> charts"]);
    std::fs::write(dir.path().join(".mainstayignore"), "charts/\nlink/\n/a.yaml\n").expect("it can be written");
    std::fs::write(dir.path().join("b/.mainstayignore"), "*\n!keep.yaml\n").expect("it can be written");
    assert_eq!(found(dir.path()), ["b/keep.yaml", "c/a.yaml"]);
}

#[test]
fn one_bad_file_leaves_the_others() {
    let dir = tree(&["a.yaml", "d/"]);
    let large = usize::try_from(MAX_BYTES).expect("it fits") + 1;
    std::fs::write(dir.path().join("large.yaml"), vec![b'#'; large]).expect("it can be written");
    std::fs::write(dir.path().join("limit.yml"), vec![b'#'; large - 1]).expect("it can be written");
    nix::unistd::mkfifo(&dir.path().join("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).expect("it can be made");
    let found: Vec<String> = found(dir.path()).into_iter().map(|line| line.chars().take(70).collect()).collect();
    assert_eq!(found[0], "a.yaml");
    assert_eq!(found[1], "large.yaml!the file has 1048577 bytes, at most 1048576 are read");
    assert!(found[2].starts_with("limit.yml=###"));
    assert_eq!(found[3], "pipe.yaml!it is neither a file nor a directory");
}

#[test]
fn a_source_that_cannot_be_listed_is_an_error_and_never_empty() {
    let dir = tree(&["a.yaml"]);
    let missing = discover(&dir.path().join("nope"));
    assert!(matches!(missing, Err(SourceError::Missing(_))), "{missing:?}");
    std::fs::create_dir(dir.path().join(".mainstayignore")).expect("it can be made");
    let odd = discover(dir.path());
    assert!(matches!(odd, Err(SourceError::Ignore { .. })), "{odd:?}");
}

#[test]
fn links_of_a_repository_stay_within_it() {
    let host = tree(&["secret.yaml", "dir/more.yaml"]);
    let (file, dir) = (host.path().join("secret.yaml"), host.path().join("dir"));
    let (file, dir) = (file.display(), dir.display());
    let repository = tree(&[
        "at/a.yaml",
        "at/inside.yaml -> ../other/b.yaml",
        "at/same.yaml -> a.yaml",
        &format!("at/host.yaml -> {file}"),
        &format!("at/tree -> {dir}"),
        &format!("at/notes.txt -> {file}"),
        "at/up.yaml -> ../../../../../../../../etc/hostname",
        "at/more -> deeper",
        "at/deeper/c.yaml",
        "other/b.yaml",
    ]);
    // Read through a link, as the revision that counts is.
    std::os::unix::fs::symlink(repository.path(), host.path().join("current")).expect("it can be made");
    let listing = |path: &str| {
        let root = host.path().join("current").join(path);
        let found = shown(&root, &discover_closed(&root).expect("it can be listed"));
        found.iter().map(|line| line.replace(&host.path().display().to_string(), "HOST")).collect::<Vec<_>>()
    };
    let out = "outside of the directory that is followed";
    assert_eq!(
        listing(""),
        [
            "at/a.yaml".to_owned(),
            "at/deeper/c.yaml".to_owned(),
            format!("at/host.yaml!the symlink leads to `HOST/secret.yaml`, {out}"),
            format!("at/tree!the symlink leads to `HOST/dir`, {out}"),
            format!("at/up.yaml!the symlink leads to `../../../../../../../../etc/hostname`, {out}"),
            "other/b.yaml".to_owned(),
        ]
    );
    let part = listing("at");
    assert!(part.contains(&format!("inside.yaml!the symlink leads to `../other/b.yaml`, {out}")), "{part:?}");
    // A directory of this host may lead wherever it likes.
    let open = discover(&host.path().join("current")).expect("it can be listed");
    assert!(open.files.iter().all(|file| file.result.is_ok()));
}

#[test]
fn a_file_named_by_hand_counts_whatever_its_name() {
    let dir = tree(&["manifest.txt"]);
    let listing = discover(&dir.path().join("manifest.txt")).expect("it can be read");
    assert_eq!(listing.files.len(), 1);
    assert!(listing.directories.is_empty());
}

#[test]
fn another_directory_under_the_same_path_has_another_identity() {
    let dir = tree(&["a/x.yaml", "b/x.yaml"]);
    let identity = || discover(&dir.path().join("a")).expect("it can be listed").identity;
    let first = identity();
    assert_eq!(first, identity());
    std::fs::rename(dir.path().join("a"), dir.path().join("c")).expect("it can be renamed");
    std::fs::rename(dir.path().join("b"), dir.path().join("a")).expect("it can be renamed");
    assert_ne!(first, identity());
}
