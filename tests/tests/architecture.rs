//! The arrows that may never exist, enforced: crates and modules depend on each other in one direction only, decisions
//! are pure, `unsafe` has its place, and files stay readable.

use std::fs;
use std::path::Path;

use tests::binary::workspace_root;
use tests::source::{files, has_word, is_test_file, paths, reaches, scrub, without_tests};

/// A rule about the sources below a directory or in one file.
struct Rule {
    /// Where it holds: a directory or a module without its `.rs`.
    place: &'static str,
    /// Paths that must not be reached.
    paths: &'static [&'static str],
    /// Words that must not be written.
    words: &'static [&'static str],
    why: &'static str,
}

const PAST_THE_TRAIT: &[&str] = &[
    "runtime::image",
    "runtime::container",
    "runtime::network",
    "runtime::volume",
    "runtime::store",
    "runtime::shim",
    "runtime::sys",
    "runtime::embedded",
];

const RULES: &[Rule] = &[
    Rule {
        place: "spec/src",
        paths: &[
            "std::fs",
            "std::process",
            "std::env",
            "std::thread",
            "std::os",
            "std::net::TcpStream",
            "std::net::TcpListener",
            "std::net::UdpSocket",
            "std::net::ToSocketAddrs",
            "tokio",
            "rand",
            "getrandom",
            "tracing",
            "log",
            "runtime",
            "agent",
        ],
        words: &["Instant", "SystemTime", "unsafe", "println", "eprintln"],
        why: "spec is values and decisions: no I/O, async, clock, randomness, logging",
    },
    Rule {
        place: "runtime/src",
        paths: &["agent", "spec::manifest", "spec::parse", "spec::validate", "spec::plan", "spec::compose"],
        words: &[],
        why: "runtime is hands: it knows containers, not manifests or plans",
    },
    Rule {
        place: "agent/src/reconciler",
        paths: PAST_THE_TRAIT,
        words: &["SystemTime"],
        why: "the loop sees the runtime through its trait and the clock through agent::clock",
    },
    Rule {
        place: "agent/src/executor",
        paths: PAST_THE_TRAIT,
        words: &["SystemTime"],
        why: "the executor sees the runtime through its trait",
    },
    Rule {
        place: "agent/src/executor",
        paths: &["spec::plan::plan", "crate::reconciler"],
        words: &[],
        why: "the executor does what it is told and decides nothing",
    },
    Rule {
        place: "agent/src/probe",
        paths: PAST_THE_TRAIT,
        words: &["SystemTime"],
        why: "probes see the runtime through its trait",
    },
    Rule { place: "agent/src/api", paths: PAST_THE_TRAIT, words: &[], why: "the API reads the snapshot and the trait" },
    Rule {
        place: "agent/src/source",
        paths: &["runtime"],
        words: &["remove_file", "remove_dir_all", "remove_dir"],
        why: "sources are read, never deleted",
    },
];

/// What code at a place breaks: the forbidden things found.
fn broken(rule: &Rule, code: &str) -> Vec<String> {
    let reached = paths(code);
    let mut found: Vec<String> =
        rule.paths.iter().filter(|path| reaches(&reached, path)).map(|path| (*path).to_owned()).collect();
    found.extend(rule.words.iter().filter(|word| has_word(code, word)).map(|word| (*word).to_owned()));
    found
}

/// `(relative path, code)` of every source file that is no test, of all crates.
fn sources() -> Vec<(String, String)> {
    let root = workspace_root();
    let mut all = Vec::new();
    for package in ["spec", "runtime", "agent", "tests"] {
        for file in files(&root.join(package).join("src")) {
            let inside = file.strip_prefix(root.join(package)).expect("it was found there");
            if !is_test_file(inside) {
                let text = fs::read_to_string(&file).expect("sources are readable");
                let relative = file.strip_prefix(root).expect("it was found there").display().to_string();
                all.push((relative, without_tests(&text).to_owned()));
            }
        }
    }
    assert!(all.len() > 20, "the sources were found");
    all
}

fn holds_at(place: &str, file: &str) -> bool {
    file.strip_prefix(place).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

#[test]
fn forbidden_arrows_do_not_exist() {
    let mut problems = Vec::new();
    for (file, text) in sources() {
        let code = scrub(&text);
        for rule in RULES.iter().filter(|rule| holds_at(rule.place, &file)) {
            for found in broken(rule, &code) {
                problems.push(format!("{file} uses {found}: {}", rule.why));
            }
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// Names of a manifest's dependencies in the sections that reach the product.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines() {
        if let Some(section) = line.trim().strip_prefix('[') {
            inside = matches!(section.trim_end_matches(']'), "dependencies" | "build-dependencies");
        } else if inside && let Some((name, _)) = line.split_once('=') {
            names.push(name.trim().split('.').next().unwrap_or_default().to_owned());
        }
    }
    names
}

const FORBIDDEN_DEPENDENCIES: &[(&str, &[&str])] = &[
    (
        "spec",
        &[
            "runtime", "agent", "tests", "tokio", "nix", "libc", "rustix", "reqwest", "tracing", "rand", "notify",
            "axum",
        ],
    ),
    ("runtime", &["agent", "tests", "axum", "clap", "notify", "prometheus"]),
    ("agent", &["tests", "libcontainer", "oci-spec"]),
    ("tests", &["agent"]),
];

fn broken_dependencies(package: &str, manifest: &str) -> Vec<String> {
    let have = dependencies(manifest);
    let (_, forbidden) = FORBIDDEN_DEPENDENCIES.iter().find(|(name, _)| *name == package).expect("it is in the table");
    forbidden.iter().filter(|name| have.iter().any(|each| each == *name)).map(|name| (*name).to_owned()).collect()
}

#[test]
fn crates_depend_in_one_direction() {
    for (package, _) in FORBIDDEN_DEPENDENCIES {
        let path = workspace_root().join(package).join("Cargo.toml");
        let manifest = fs::read_to_string(path).expect("each crate has a manifest");
        assert!(!dependencies(&manifest).is_empty());
        assert_eq!(broken_dependencies(package, &manifest), Vec::<String>::new(), "{package}/Cargo.toml");
    }
}

#[test]
fn unsafe_is_in_modules_named_sys_only() {
    let misplaced: Vec<String> = sources()
        .into_iter()
        .filter(|(file, text)| {
            !Path::new(file).components().any(|part| matches!(part.as_os_str().to_str(), Some("sys" | "sys.rs")))
                && has_word(&scrub(text), "unsafe")
        })
        .map(|(file, _)| file)
        .collect();
    assert!(misplaced.is_empty(), "`unsafe` outside of a module named sys: {misplaced:?}");
}

#[test]
fn files_stay_readable() {
    let long: Vec<String> = sources()
        .into_iter()
        .map(|(file, text)| (text.lines().count(), file))
        .filter(|(lines, _)| *lines > 800)
        .map(|(lines, file)| format!("{file}: {lines} lines without tests"))
        .collect();
    assert!(long.is_empty(), "split these: {long:?}");
}

/// Every rule is seen to find what it forbids, and to let through what only looks alike.
#[test]
fn planted_arrows_are_found() {
    let finds = |place: &str, code: &str| {
        let code = scrub(code);
        RULES.iter().filter(|rule| holds_at(rule.place, place)).flat_map(|rule| broken(rule, &code)).next().is_some()
    };
    let cases = [
        ("spec/src/plan.rs", "use std::fs;", true),
        ("spec/src/plan/mod.rs", "use std::{collections::BTreeMap, fs::File};", true),
        ("spec/src/plan.rs", "let now = std::time::Instant::now();", true),
        ("spec/src/plan.rs", "use std::net::{IpAddr, TcpStream};", true),
        ("spec/src/plan.rs", "tracing::info!(\"x\");", true),
        ("spec/src/plan.rs", "use std::net::{IpAddr, Ipv4Addr}; // std::fs\nlet a = \"tokio::x\";", false),
        ("spec/src/plan.rs", "let operand = brand::new(); x.logic::<u8>();", false),
        ("runtime/src/container/mod.rs", "use spec::plan::Action;", true),
        ("runtime/src/lib.rs", "fn f(x: spec::manifest::Pod) {}", true),
        ("runtime/src/lib.rs", "use spec::{pod::ContainerSpec, observed::PodFacts};", false),
        ("agent/src/reconciler.rs", "use runtime::store::Store;", true),
        ("agent/src/executor/mod.rs", "runtime::image::pull().await", true),
        ("agent/src/executor/mod.rs", "use runtime::api::{Runtime, PortKey};", false),
        ("agent/src/main.rs", "use runtime::embedded::Embedded;", false),
        ("agent/src/source/mod.rs", "std::fs::remove_file(path)", true),
        ("agent/src/source/mod.rs", "std::fs::read(path)", false),
        ("agent/src/sources.rs", "std::fs::remove_file(path)", false),
    ];
    for (place, code, expected) in cases {
        assert_eq!(finds(place, code), expected, "{place}: {code}");
    }
    assert_eq!(broken_dependencies("spec", "[dependencies]\ntokio.workspace = true\n"), ["tokio"]);
    assert_eq!(broken_dependencies("runtime", "[dependencies]\nagent = { path = \"x\" }\n"), ["agent"]);
    assert_eq!(broken_dependencies("spec", "[dev-dependencies]\ntokio = \"1\"\n"), Vec::<String>::new());
}
