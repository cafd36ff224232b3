use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::super::*;

/// Runs `adopt` on a saved inspection: the exit code, what was said, and the answer.
fn run(inspected: &Value, dir: &Path, json: bool) -> (u8, String, String) {
    let saved = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(saved.path(), inspected.to_string()).expect("written");
    let from = saved.path().display().to_string();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io { out: &mut out, err: &mut err, json, color: false, now: 0 };
    let wanted = Wanted { from: &from, dir: Some(dir), sources: &[], names: &[] };
    let code = adopt(&wanted, &mut io).expect("it runs to its end");
    (code, String::from_utf8_lossy(&err).into_owned(), String::from_utf8_lossy(&out).into_owned())
}

fn named(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"Id": format!("id-{name}"), "Name": name, "Config": {"Image": "x:1"}})).collect()
}

#[test]
fn a_file_that_is_there_stops_no_other() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let there = dir.path().join("b.compose.yaml");
    std::fs::write(&there, "mine").expect("written");
    let (code, said, _) = run(&named(&["a", "b", "c"]), dir.path(), false);
    assert!(code == 1 && said.contains("error: cannot write") && said.contains("b.compose.yaml"), "{code} {said}");
    assert_eq!(std::fs::read_to_string(there).expect("it is there"), "mine");
    for name in ["a", "c"] {
        assert!(dir.path().join(format!("{name}.compose.yaml")).exists() && said.contains(&format!("{name}.compose")));
    }
    assert_eq!(run(&named(&["a", "b", "c"]), dir.path(), true).0, 1);
}

#[test]
fn each_container_has_a_file_of_its_own() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (code, said, _) = run(&named(&["Odd.Name_x", "odd-name_x", "odd-name_x-2"]), dir.path(), false);
    assert_eq!(code, 0, "{said}");
    let mut files: Vec<String> = std::fs::read_dir(dir.path())
        .expect("a directory")
        .map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(files, ["odd-name_x-2-2.compose.yaml", "odd-name_x-2.compose.yaml", "odd-name_x.compose.yaml"]);
}

#[test]
fn an_answer_in_json_writes_the_files_as_well() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (code, _, answer) = run(&named(&["a"]), &dir.path().join("new"), true);
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let file = dir.path().join("new/a.compose.yaml");
    let text = std::fs::read_to_string(&file).expect("it was written");
    assert!(code == 0 && answer["files"][0]["compose"] == text && answer["refused"] == 0, "{answer}");
    assert_eq!(std::fs::metadata(file).expect("it is there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_validate_refuses_is_said_at_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let inspected = json!([{"Id": "1", "Name": "a", "Config": {"Image": "x:1"},
        "HostConfig": {"ExtraHosts": ["no-address"]}}]);
    let (code, said, _) = run(&inspected, dir.path(), false);
    assert!(code == 0 && said.contains("note: `validate` refuses the file: "), "{said}");
    assert_eq!(check::errors("a.compose.yaml", "services: {a: {image: x}}"), Vec::<String>::new());
}

#[test]
fn containers_whose_namespaces_are_shared_go_by_their_names() {
    let id = "ab".repeat(32);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let inspected = json!([
        {"Id": id, "Name": "/db", "Config": {"Image": "x:1"}},
        {"Id": "1", "Name": "/a", "Config": {"Image": "x:1"}, "HostConfig": {"NetworkMode": format!("container:{id}")}},
        {"Id": "2", "Name": "/b", "Config": {"Image": "x:1"}, "HostConfig": {"PidMode": format!("container:{id}")}},
    ]);
    let (code, said, _) = run(&inspected, dir.path(), false);
    assert!(code == 1 && said.contains("`container:db` is not a value of `--network`"), "{said}");
    assert!(said.contains("it was `container:db`") && !said.contains(&id), "{said}");
}
