//! Tables of layers and what comes out of them.

use std::path::Path;

use super::{Layers, Loaded};

fn layers(dir: &Path, files: &[(&str, &str)], environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Layers {
    std::fs::create_dir_all(dir.join("conf.d")).expect("the temporary directory is writable");
    for (name, text) in files {
        std::fs::write(dir.join(name), text).expect("the temporary directory is writable");
    }
    let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    Layers {
        config: None,
        environment: own(environment),
        flags: own(flags),
        default_config: Some(dir.join("config.toml")),
    }
}

/// The value of a setting and where it came from, as `mainstay config` would show them.
fn check(
    key: &str,
    files: &[(&str, &str)],
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
    value: &str,
    origin: &str,
) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let loaded: Loaded = match layers(dir.path(), files, environment, flags).load() {
        Ok(loaded) => loaded,
        Err(error) => panic!("{key}: {error:?}"),
    };
    let entries = loaded.entries();
    let entry = entries.iter().find(|entry| entry.key.name == key).expect("the key exists");
    let shown = entry.origin.to_string().replace(&format!("{}/", dir.path().display()), "");
    assert_eq!((entry.value.to_string().as_str(), shown.as_str()), (value, origin), "{key}");
}

#[test]
fn later_layers_win_and_say_where_a_value_came_from() {
    let file = ("config.toml", "# first\nbridge = \"one0\"\n");
    let early = ("conf.d/10-a.toml", "bridge = 'two0'");
    let late = ("conf.d/20-b.toml", "\n\nbridge = 'three0'");
    let ignored = ("conf.d/30-c.toml.bak", "nonsense");
    let variable = ("MAINSTAY_BRIDGE", "four0");
    let flag = ("bridge", "five0");
    check("bridge", &[], &[], &[], "\"mainstay0\"", "default");
    check("bridge", &[file], &[], &[], "\"one0\"", "config.toml:2");
    check("bridge", &[late], &[], &[], "\"three0\"", "conf.d/20-b.toml:3");
    check("bridge", &[file, late, early, ignored], &[], &[], "\"three0\"", "conf.d/20-b.toml:3");
    check("bridge", &[file, early], &[variable], &[], "\"four0\"", "variable MAINSTAY_BRIDGE");
    check("bridge", &[file, early], &[variable], &[flag], "\"five0\"", "flag --bridge");
}

#[test]
fn every_kind_of_value_is_read_from_file_and_text() {
    let file = |text: &'static str| [("config.toml", text)];
    check("sources", &file("sources = ['/a', '/b']"), &[], &[], r#"["/a","/b"]"#, "config.toml:1");
    check("sources", &[], &[("MAINSTAY_SOURCES", "/a:/b")], &[], r#"["/a","/b"]"#, "variable MAINSTAY_SOURCES");
    check("metrics_listen", &file("metrics_listen = 'none'"), &[], &[], "\"none\"", "config.toml:1");
    check("resync", &[], &[], &[("--set resync", "5s")], "\"5s\"", "flag --set resync");
    check("metrics_listen", &[], &[], &[("metrics_listen", "127.0.0.1:0")], "\"127.0.0.1:0\"", "flag --metrics-listen");
    check("resync", &file("resync = '5m'"), &[], &[], "\"5m\"", "config.toml:1");
    check("log_max_size", &file("log_max_size = '2Mi'"), &[], &[], "2097152", "config.toml:1");
    check("log_max_size", &file("log_max_size = 5000"), &[], &[], "5000", "config.toml:1");
    check("log_max_size", &[], &[("MAINSTAY_LOG_MAX_SIZE", "1MB")], &[], "1000000", "variable MAINSTAY_LOG_MAX_SIZE");
    check("node_labels", &file("[node_labels]\na = 'b'"), &[], &[], r#"{"a":"b"}"#, "config.toml:1");
    check("node_labels", &[], &[], &[("node_labels", "a=b,c=")], r#"{"a":"b","c":""}"#, "flag --node-labels");
    check("removal_budget.min", &file("[removal_budget]\nmin = 7"), &[], &[], "7", "config.toml:2");
    check("removal_budget.min", &file("removal_budget.min = 7"), &[], &[], "7", "config.toml:1");
    check(
        "removal_budget.percent",
        &[],
        &[("MAINSTAY_REMOVAL_BUDGET_PERCENT", "50")],
        &[],
        "50",
        "variable MAINSTAY_REMOVAL_BUDGET_PERCENT",
    );
    check("memory_high_percent", &file("memory_high_percent = 90"), &[], &[], "90", "config.toml:1");
    check("allow_metadata", &file("allow_metadata = true"), &[], &[], "true", "config.toml:1");
    check("subnet", &file("subnet = '10.9.0.0/16'"), &[], &[], "\"10.9.0.0/16\"", "config.toml:1");
    check(
        "registries",
        &file("[registries.\"localhost:5000\"]\nplain_http = true"),
        &[],
        &[],
        r#"{"localhost:5000":{"plain_http":true}}"#,
        "config.toml:1",
    );
    check("node_metadata", &file("node_metadata = 'ec2'"), &[], &[], "\"ec2\"", "config.toml:1");
    check(
        "node_metadata",
        &file("node_metadata = 'http://10.0.0.1/'"),
        &[],
        &[],
        "\"http://10.0.0.1\"",
        "config.toml:1",
    );
    #[cfg(feature = "traces")]
    check("traces", &file("traces = 'https://otel:4318'"), &[], &[], "\"https://otel:4318\"", "config.toml:1");
    check("traces", &file("traces = 'none'"), &[], &[], "\"none\"", "config.toml:1");
    check(
        "sync_hook",
        &file("[sync_hook]\nlisten = '0.0.0.0:9642'\nsecret_file = '/h'"),
        &[],
        &[],
        r#"{"listen":"0.0.0.0:9642","secret_file":"/h"}"#,
        "config.toml:1",
    );
    check("boot_id", &[], &[("MAINSTAY_BOOT_ID", "b1")], &[], "\"b1\"", "variable MAINSTAY_BOOT_ID");
}

/// Every problem as `line:column message | hint`.
fn problems(files: &[(&str, &str)], environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let error = layers(dir.path(), files, environment, flags).load().expect_err("the layers are wrong");
    let show = |problem: &super::Problem| {
        let place = problem.place.as_ref();
        let place = place.map(|p| format!("{}:{}:{} ", p.file.display(), p.line, p.column)).unwrap_or_default();
        let hint = problem.hint.as_ref().map(|hint| format!(" | {hint}")).unwrap_or_default();
        format!("{place}{}{hint}", problem.message).replace(&format!("{}/", dir.path().display()), "")
    };
    error.problems.iter().map(show).collect()
}

#[test]
fn every_problem_of_every_layer_is_reported_with_its_place() {
    let found = problems(
        &[
            ("config.toml", "data_dri = '/x'\nbridge = 3\n[removal_budget]\npercent = 101\nmax = 1\n"),
            ("conf.d/a.toml", "resync = \"soon\"\n"),
            ("conf.d/b.toml", "x = = 1\n"),
        ],
        &[("MAINSTAY_SUBNET", "10.0.0.1/8")],
        &[("log_format", "xml")],
    );
    let expected = [
        "config.toml:1:1 unknown setting `data_dri` | did you mean `data_dir`?",
        "config.toml:2:1 `bridge`: expected a string, found integer | bridge is: name of the pods' bridge",
        "config.toml:4:1 `removal_budget.percent`: expected a number from 0 to 100, found 101 | removal_budget.percent \
         is: so many percent of the running workloads may vanish at once",
        "config.toml:5:1 unknown setting `removal_budget.max` | did you mean `removal_budget.min`?",
        "conf.d/a.toml:1:1 `resync`: expected a length of time such as 60s or 5m, found `soon` | resync is: sources \
         are read again at least this often",
        "conf.d/b.toml:1:5 not TOML: extra `=`, expected nothing",
        "variable MAINSTAY_SUBNET: `10.0.0.1/8` has bits set behind its prefix | subnet is: IPv4 range of the pods, \
         `none` to choose one that is free",
        "flag --log-format: expected text or json, found `xml` | log_format is: `text` or `json`",
    ];
    let mut found = found;
    found.sort();
    let mut expected: Vec<String> = expected.iter().map(|line| (*line).to_owned()).collect();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_mistake_about_registries_is_told_with_its_place() {
    let check = |text: &str, expected: &str| {
        let found = problems(&[("config.toml", text)], &[], &[]);
        let hint = "registries is: mirrors, plain http and certificates by registry";
        assert_eq!(found, [format!("config.toml:{expected} | {hint}")], "{text}");
    };
    check(
        "bridge = 'x0'\n[registries.\"docker.io\"]\nmirorrs = ['http://m:5000']\n",
        "2:2 `registries`: `docker.io`: unknown field `mirorrs`, did you mean `mirrors`?",
    );
    check(
        "[registries]\nparalel_layers = 3\n",
        "1:2 `registries`: unknown field `paralel_layers`, did you mean `parallel_layers`?",
    );
    check("[registries]\nstall_limit = 'soon'\n", "1:2 `registries`: expected number at 0");
    let good = "[registries]\nparallel_layers = 3\n[registries.hosts.\"docker.io\"]\nmirrors = []\n";
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    assert!(layers(dir.path(), &[("config.toml", good)], &[], &[]).load().is_ok());
}

#[test]
fn a_named_file_must_exist_and_the_default_one_need_not() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let absent = Layers { default_config: Some(dir.path().join("config.toml")), ..Layers::default() };
    assert!(absent.load().is_ok());
    let named = Layers { config: Some(dir.path().join("config.toml")), ..Layers::default() };
    let error = named.load().expect_err("a named file must exist");
    assert!(error.to_string().contains("cannot read"), "{error}");
}

#[test]
fn a_stranger_in_the_environment_is_a_warning() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let loaded = layers(dir.path(), &[], &[("MAINSTAY_RUNDIR", "/x")], &[]).load().expect("no error");
    assert_eq!(loaded.warnings, ["variable MAINSTAY_RUNDIR sets nothing, did you mean MAINSTAY_RUN_DIR?"]);
}

#[test]
fn names_of_settings_are_unique_in_every_form() {
    let mut names: Vec<String> = super::KEYS.iter().flat_map(|key| [key.flag(), key.variable()]).collect();
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}
