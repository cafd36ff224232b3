use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use spec::diagnostic::Severity;
use spec::manifest::ObjectValue;

use super::*;

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/decrypt/fixtures").join(name);
    std::fs::read(path).expect("the fixture is there")
}

/// The keys in a file of the fixtures, which git keeps with other permissions.
fn keys(name: &str) -> Keys {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("key.txt");
    std::fs::write(&path, fixture(name)).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    Keys::load(Some(&path))
}

fn findings(file: &ParsedFile) -> String {
    file.objects.diagnostics.iter().map(|found| format!("{}; {:?}\n", found.message, found.hint)).collect()
}

/// `Kind/name key=value key=value` of each object.
fn shown(file: &ParsedFile) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let object = |object: &spec::manifest::Object| {
        let data: Vec<String> = match &object.value {
            ObjectValue::Secret(secret) => {
                secret.data.iter().map(|(key, value)| format!(" {key}={:?}", text(value.expose()))).collect()
            }
            ObjectValue::Config(config) => config.0.keys().map(|key| format!(" {key}")).collect(),
            _ => Vec::new(),
        };
        format!("{}/{}{}", object.id.kind, object.id.name, data.concat())
    };
    file.objects.objects.iter().map(object).collect()
}

const SHORT: &str = r#"Secret/database password="canary-of-a-password""#;
const LONG: &str =
    r#"Secret/database empty="" note="two\nlines: with \"quotes\" and ü" password="canary-of-a-password""#;

#[test]
fn files_open_with_the_right_key() {
    let keys = keys("key.txt");
    let check = |name: &str, expected: &[&str]| {
        let file = parse(name, &fixture(name), &keys, Keyless::Refuse);
        let got = shown(&file);
        assert_eq!(got.len(), expected.len(), "{name}: {got:?}\n{}", findings(&file));
        for (got, expected) in got.iter().zip(expected) {
            assert!(got.starts_with(expected), "{name}: {got}");
        }
        assert!(!file.objects.diagnostics.iter().any(Diagnostic::is_error), "{name}: {}", findings(&file));
        assert!(file.opened.is_some() && !file.hides, "{name}");
    };
    check("secret.yaml.age", &[SHORT]);
    check("armored.yaml", &[SHORT]);
    check("values.yaml", &[LONG]);
    check("values.json", &[LONG]);
    // For two hosts, with all but a few values sealed.
    check("two.json", &[LONG]);
    check("several.yaml", &[LONG, "ConfigMap/settings"]);
    check("all.yaml", &[LONG]);
    check("only.yaml", &[LONG, "ConfigMap/settings"]);
    check("config.yaml", &["ConfigMap/settings"]);
}

#[test]
fn pieces_of_a_long_file_are_put_together() {
    let keys = keys("key.txt");
    let identities = keys.get().expect("there are some");
    assert_eq!(age::open(&fixture("long.age"), identities).expect("it opens"), vec![b'x'; 66_000]);
    assert_eq!(age::open(&fixture("empty.age"), identities).expect("it opens"), b"");
    // Cut at each place where a piece ends, and elsewhere: never a shorter file.
    let long = fixture("long.age");
    for left in [long.len() - 1, long.len() - 448 - 16, long.len() - 65_536, 150, 40, 0] {
        assert!(age::open(&long[..left], identities).is_err(), "{left}");
    }
}

#[test]
fn any_changed_byte_is_noticed() {
    let keys = keys("key.txt");
    let identities = keys.get().expect("there are some");
    let good = fixture("secret.yaml.age");
    for at in 0..good.len() {
        let mut other = good.clone();
        other[at] ^= 1;
        assert!(age::open(&other, identities).is_err(), "byte {at}");
    }
}

#[test]
fn what_does_not_open_says_why() {
    let (ours, theirs) = (keys("key.txt"), keys("other.txt"));
    let check = |name: &str, bytes: &[u8], keys: &Keys, expected: &[&str]| {
        let file = parse(name, bytes, keys, Keyless::Refuse);
        let found = findings(&file);
        assert!(file.objects.objects.is_empty() && file.opened.is_none(), "{name}");
        assert!(file.objects.unnamed_broken, "{name}: what was applied before stays");
        for expected in expected.iter().chain(&["cannot decrypt"]) {
            assert!(found.contains(expected), "{name}: {found}");
        }
        assert!(!found.contains("canary") && !found.contains("AGE-SECRET"), "{found}");
    };
    let values = String::from_utf8(fixture("values.yaml")).expect("text");
    check("secret.yaml.age", &fixture("secret.yaml.age"), &Keys::default(), &["no age identity", "`age_identity`"]);
    check("values.yaml", values.as_bytes(), &Keys::default(), &["no age identity"]);
    check(
        "foreign.yaml.age",
        &fixture("foreign.yaml.age"),
        &ours,
        &["encrypted for somebody else", "this host is age1"],
    );
    check("values.yaml", values.as_bytes(), &theirs, &["encrypted for age1", "sops updatekeys"]);
    check("cut.yaml.age", &fixture("secret.yaml.age")[..120], &ours, &["damaged"]);
    check("armored.yaml", &fixture("armored.yaml")[..300], &ours, &["damaged: its armor is not whole"]);
    // The work of somebody without the key: another label, a value moved, a value taken away, the block taken away.
    check("l.yaml", values.replace("tier: \"db\"", "tier: \"web\"").as_bytes(), &ours, &["sops.mac"]);
    check("m.yaml", values.replace("password:", "username:").as_bytes(), &ours, &["`stringData.username`", "moved"]);
    let without = values.lines().filter(|line| !line.contains("note:")).collect::<Vec<_>>().join("\n");
    check("w.yaml", without.as_bytes(), &ours, &["sops.mac"]);
    let only = String::from_utf8(fixture("only.yaml")).expect("text");
    let added = only.replacen("stringData:\n", "stringData:\n    extra: \"evil\"\n", 1);
    check("a.yaml", added.as_bytes(), &ours, &["`stringData.extra` is not encrypted"]);
    let replaced: Vec<String> = only
        .lines()
        .map(|line| if line.contains("password: ENC") { "    password: \"evil\"".to_owned() } else { line.to_owned() })
        .collect();
    check("r.yaml", replaced.join("\n").as_bytes(), &ours, &["`stringData.password` is not encrypted"]);
    let bare = values.split("sops:").next().expect("a first part");
    check("b.yaml", bare.as_bytes(), &ours, &["no `sops` block"]);
    check("p.yaml", values.replace("    age:\n", "    ago:\n").as_bytes(), &ours, &["for nobody and not for age"]);
    let groups = values.replace("sops:\n", "sops:\n    key_groups:\n        - hc_vault: []\n");
    check("g.yaml", groups.as_bytes(), &ours, &["key_groups"]);
}

#[test]
fn objects_of_a_file_that_stays_closed_are_named_where_they_can_be() {
    let file = parse("values.yaml", &fixture("values.yaml"), &Keys::default(), Keyless::Refuse);
    let names: Vec<String> = file.objects.broken.iter().map(ToString::to_string).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names.iter().all(|name| name.contains("database")), "{names:?}");
}

#[test]
fn without_a_key_the_form_is_checked() {
    let check = |name: &str, bytes: &[u8], objects: usize, hides: bool, errors: usize| {
        let file = parse(name, bytes, &Keys::default(), Keyless::Outline);
        let found = findings(&file);
        let wrong = file.objects.diagnostics.iter().filter(|found| found.severity == Severity::Error).count();
        assert_eq!((file.objects.objects.len(), file.hides, wrong), (objects, hides, errors), "{name}: {found}");
        if errors == 0 {
            assert!(found.contains("the file is encrypted, and no age identity is configured: "), "{name}: {found}");
        }
    };
    let values = String::from_utf8(fixture("values.yaml")).expect("text");
    check("secret.yaml.age", &fixture("secret.yaml.age"), 0, true, 0);
    check("armored.yaml", &fixture("armored.yaml"), 0, true, 0);
    check("values.yaml", values.as_bytes(), 1, false, 0);
    check("values.json", &fixture("values.json"), 1, false, 0);
    check("several.yaml", &fixture("several.yaml"), 2, false, 0);
    check("all.yaml", &fixture("all.yaml"), 0, true, 0);
    check("cut.yaml", &fixture("armored.yaml")[..300], 0, false, 1);
    check("typo.yaml", values.replace("stringData", "stringDate").as_bytes(), 0, false, 1);
}

#[test]
fn what_is_no_secret_is_warned_of() {
    let keys = keys("key.txt");
    let check = |name: &str, expected: Option<&str>| {
        let file = parse(name, &fixture(name), &keys, Keyless::Refuse);
        let found = findings(&file);
        match expected {
            Some(expected) => assert!(found.contains(expected), "{name}: {found}"),
            None => assert_eq!(found, "", "{name}"),
        }
    };
    check("config.yaml", Some("was encrypted, but only Secrets stay secret here"));
    check("several.yaml", None);
    check("values.yaml", None);
}

#[test]
fn findings_show_nothing_of_what_was_encrypted() {
    let keys = keys("key.txt");
    // Its values open to text where only base64 may be.
    let text = String::from_utf8(fixture("values.yaml")).expect("text");
    let file = parse("secret.yaml.age", &fixture("secret.yaml.age"), &keys, Keyless::Refuse);
    let opened = file.opened.expect("it opens");
    let wrong = String::from_utf8(opened).expect("text").replace("stringData", "data");
    let file = parse_file("x.yaml", wrong.as_bytes(), &ParseOptions { secret: true, ..ParseOptions::default() });
    assert!(!file.diagnostics.is_empty());
    let rendered = spec::render::render(&file.diagnostics, |_| Some(&wrong), false);
    assert!(!rendered.contains("canary"), "{rendered}");
    // Lines stay where they are.
    let file = parse("values.yaml", text.as_bytes(), &keys, Keyless::Refuse);
    let opened = String::from_utf8(file.opened.expect("it opens")).expect("text");
    assert_eq!(opened.lines().count(), text.lines().count());
    assert_eq!(
        opened.lines().position(|line| line.contains("password")),
        text.lines().position(|l| l.contains("password"))
    );
}

#[test]
fn a_file_with_something_else_than_identities_is_told() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("key.txt");
    let check = |text: &str, mode: u32, expected: &str| {
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
        let file = parse("secret.yaml.age", &fixture("secret.yaml.age"), &Keys::load(Some(&path)), Keyless::Outline);
        let found = findings(&file);
        assert!(found.contains(expected) && !found.contains("QQQQ"), "{found}");
    };
    let key = String::from_utf8(fixture("key.txt")).expect("text");
    check(&key, 0o644, "is open to others (mode 0644");
    check("# ours\nAGE-SECRET-KEY-1QQQQ\n", 0o600, "line 2 of");
    check("AGE-PLUGIN-YUBIKEY-1QQQQ\n", 0o600, "line 1 of");
    check("", 0o600, "put an identity into the file");
}
