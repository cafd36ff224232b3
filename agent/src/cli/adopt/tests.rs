use serde_json::json;
use spec::manifest::compose::convert::Converted;

use super::*;

fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/adopt/fixtures").join(name);
    serde_json::from_slice(&std::fs::read(path).expect("the fixture is there")).expect("JSON")
}

/// The Compose text for the only container, which must be valid, and the notes.
fn adopted(inspected: &Value) -> (String, Vec<String>) {
    adopted_with(inspected, &Known::default())
}

/// The same, when this is known of what the container uses.
fn adopted_with(inspected: &Value, known: &Known) -> (String, Vec<String>) {
    let found = container::container(&inspected[0], known).expect("a container");
    let name = found.name.clone();
    let Converted { text, notes, .. } = found.convert().expect("it is understood");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join(file_name(&name, &[]));
    std::fs::write(&file, &text).expect("written");
    let project = crate::discover::Project { dir: dir.path().to_owned(), name: None, files: vec![file] };
    let loaded = crate::discover::load_project(&project, crate::discover::Neighbours::Unknown).expect("loaded");
    let errors: Vec<_> = loaded.diagnostics.iter().filter(|found| found.is_error()).collect();
    assert!(errors.is_empty(), "{text}\n{errors:?}");
    // Which values are quoted is the converter's business.
    (text.replace('"', ""), notes)
}

mod docker;
mod files;
mod objects;
mod podman;

#[test]
fn files_go_to_no_directory_that_the_agent_reads() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let source = dir.path().join("manifests");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&source, &link).expect("linked");
    for there in [false, true] {
        if there {
            std::fs::create_dir(&source).expect("made");
        }
        for inside in [source.clone(), source.join("new"), link.join("new"), source.join("../manifests")] {
            let refused = outside_of_sources(&inside, std::slice::from_ref(&source));
            assert!(refused.is_err() || (!there && inside != source && inside != source.join("new")), "{inside:?}");
        }
        for outside in [dir.path().to_owned(), dir.path().join("manifests-2"), dir.path().join("adopted")] {
            assert_eq!(outside_of_sources(&outside, std::slice::from_ref(&source)), Ok(()), "{outside:?}");
        }
    }
    // Those that the agent was started with count as much as those of the configuration.
    let settings = Settings { run_dir: dir.path().to_owned(), ..Settings::default() };
    crate::record::write(&settings.sources_file(), &std::slice::from_ref(&source)).expect("written");
    assert_eq!(sources(&settings), [PathBuf::from("/etc/mainstay/manifests"), source.clone()]);
    let told = outside_of_sources(&source, std::slice::from_ref(&source)).expect_err("it is refused");
    assert!(told.place.is_some() && told.causes.len() == 1 && told.hint.is_some(), "{told:?}");
}

#[test]
fn containers_are_named_as_docker_names_them() {
    let found = json!({"Id": "c69df0839799aa", "Name": "/shop"});
    for (name, is) in
        [("shop", true), ("c69df0839799aa", true), ("c69d", true), ("sho", false), ("", false), ("d", false)]
    {
        assert_eq!(container::is_called(&found, name), is, "{name}");
    }
}

#[test]
fn what_is_no_container_of_its_own_is_passed_over() {
    assert_eq!(container::container(&json!({"Name": "infra", "IsInfra": true}), &Known::default()), None);
    assert_eq!(container::container(&json!({"no": "container"}), &Known::default()), None);
}
