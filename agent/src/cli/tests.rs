//! Outputs as a whole, over the interface of an agent that does nothing.

use clap::{CommandFactory as _, FromArgMatches as _};

use super::args::{Cli, Format};
use super::output::Io;
use super::{code_of, dispatch};
use crate::api::testing::{Fixture, busy_snapshot};

/// The moment of all tests.
const NOW: i64 = 1_700_000_060;

/// Exit code, stdout and stderr of a command, in the form of a terminal session. The directory's name is replaced.
fn run(dir: &std::path::Path, line: &str) -> String {
    let words = ["mainstay", "--config", "/dev/null", "--run-dir"].map(str::to_owned).into_iter();
    let words = words.chain([dir.join("run").display().to_string(), "--data-dir".to_owned()]);
    let words = words
        .chain([dir.join("data").display().to_string()])
        .chain(line.split_whitespace().map(|word| word.replace("DIR", &dir.display().to_string())));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    // The width of the terminal that the tests happen to run in must not matter.
    let parsed = Cli::command().term_width(100).try_get_matches_from(words);
    let code = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => {
            let json = cli.common.output == Format::Json;
            let mut io = Io { out: &mut out, err: &mut err, json, color: false, now: NOW };
            let outcome = dispatch(cli, &mut io);
            code_of(outcome, &mut err, false)
        }
        Err(error) => {
            err.extend(error.to_string().bytes());
            u8::try_from(error.exit_code()).expect("exit codes are small")
        }
    };
    let (out, err) = (String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
    let marked: String = err.lines().map(|line| format!("! {line}\n")).collect();
    format!("$ {line}\n{out}{marked}[{code}]\n").replace(&dir.display().to_string(), "DIR")
}

/// Compares the session of some commands with a kept one; `UPDATE_SNAPSHOTS=1` writes it anew.
async fn check(snapshot: &str, expected: &str, fixture: Option<&Fixture>, lines: &'static [&'static str]) {
    let empty = tempfile::tempdir().expect("a temporary directory can be made");
    let dir = fixture.map_or(empty.path(), |fixture| fixture.dir.path()).to_owned();
    let session = move || lines.iter().map(|line| run(&dir, line)).collect::<Vec<_>>().join("\n");
    let found = tokio::task::spawn_blocking(session).await.expect("no command panics");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        let path = format!("{}/src/cli/snapshots/{snapshot}.txt", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, &found).expect("the snapshot can be written");
    } else {
        assert!(found == expected, "{snapshot} changed (UPDATE_SNAPSHOTS=1 accepts):\n{found}\nexpected:\n{expected}");
    }
}

macro_rules! check {
    ($snapshot:literal, $fixture:expr, $lines:expr) => {
        check($snapshot, include_str!(concat!("snapshots/", $snapshot, ".txt")), $fixture, $lines).await
    };
}

#[tokio::test]
async fn commands_say_clearly_that_no_agent_is_running() {
    check!("no_agent", None, &["status", "ps", "ps -o json", "events -f", "events", "events -o json"]);
}

#[tokio::test]
async fn reading_commands_show_a_busy_agent() {
    let fixture = Fixture::start().await;
    fixture.publish(busy_snapshot());
    check!(
        "busy",
        Some(&fixture),
        &["status", "status web", "status jobs/worker", "status wbe", "status --wait 0s", "ps", "ps -o json",]
    );
}

#[tokio::test]
async fn usage_errors_end_with_two() {
    check!("usage", None, &["nope", "status --nope", "--set x ps", "--set brigde=x config"]);
}

#[tokio::test]
async fn events_are_shown_with_time_reason_and_object() {
    use crate::events::{Event, EventKind};
    let fixture = Fixture::start().await;
    let event = |kind, reason: &str, message: &str| Event {
        unix_millis: 1_700_000_000_123,
        kind,
        reason: reason.to_owned(),
        workload: Some("Deployment/default/web".to_owned()),
        pod: None,
        container: None,
        cause: None,
        message: message.to_owned(),
    };
    fixture.journal.record(event(EventKind::Normal, "missing", "create pod web-0: missing"));
    fixture.journal.record(event(EventKind::Warning, "backing_off", "container `web` waits\u{1b}[2J"));
    check!(
        "events",
        Some(&fixture),
        &["events", "events -w", "events -n 1 -o json", "events nope", "events --since 30s"]
    );
}

#[tokio::test]
async fn a_name_finds_its_container_or_lists_the_candidates() {
    use super::names::resolve;
    let mut snapshot = busy_snapshot();
    let mut twin = snapshot.workloads[1].clone();
    twin.namespace = "web".to_owned();
    twin.pods[0].name = "worker-b".to_owned();
    twin.pods[0].uid = "b".to_owned();
    twin.kind = "Deployment".to_owned();
    snapshot.workloads.push(twin);
    let check = |text: &str, expected: &str| {
        let found = match resolve(&snapshot, text) {
            Ok(target) => format!("{} {}", target.pod.name, target.container.name),
            Err(error) => format!("{} {}", error.message, error.causes.join(" ")),
        };
        assert_eq!(found.trim_end(), expected, "{text}");
    };
    check("web", "web-1a2b3c4d-1 nginx");
    check("web-1a2b3c4d-0", "web-1a2b3c4d-0 nginx");
    check("default/web-1a2b3c4d-0/logger", "web-1a2b3c4d-0 logger");
    check("web/logger", "web-1a2b3c4d-0 logger");
    check("default/web/logger", "web-1a2b3c4d-0 logger");
    check("deployment/default/web/nginx", "web-1a2b3c4d-1 nginx");
    check("worker", "`worker` means more than one thing it fits Pod/jobs/worker, Deployment/web/worker");
    check("jobs/worker", "worker worker");
    check("pod/worker", "worker worker");
    check("web/worker", "worker-b worker");
    check("nope", "there is no workload or pod `nope`");
    check("web/nope", "pod `web-1a2b3c4d-0` has no container `nope` it has nginx, logger");
    check("00000000000000ff", "worker worker");
}

/// What people get wrong, and what they read then: everything in `mistakes/`, each file and each directory by itself.
#[tokio::test]
async fn mistakes_are_told_once_and_where_they_are() {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/mistakes");
    let fixture = Fixture::start().await;
    let dir = fixture.dir.path();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(here).expect("the mistakes can be listed") {
        let entry = entry.expect("a mistake can be listed");
        let name = entry.file_name().into_string().expect("a plain name");
        if name.starts_with('.') {
            continue;
        }
        let to = dir.join(&name);
        if entry.path().is_dir() {
            std::fs::create_dir(&to).expect("a directory can be made");
            for inner in std::fs::read_dir(entry.path()).expect("a mistake can be listed") {
                let inner = inner.expect("a mistake can be listed");
                std::fs::copy(inner.path(), to.join(inner.file_name())).expect("a mistake can be copied");
            }
        } else {
            std::fs::copy(entry.path(), &to).expect("a mistake can be copied");
        }
        names.push(name);
    }
    names.sort();
    assert!(names.len() > 100, "only {} mistakes", names.len());
    let lines: Vec<&'static str> =
        names.iter().map(|name| &*Box::leak(format!("validate DIR/{name}").into_boxed_str())).collect();
    check!("mistakes", Some(&fixture), Box::leak(lines.into_boxed_slice()));
}

const WEB: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: app
        image: example.com/web:1.0
        env: [{name: MESSAGE, value: hello}]
        ports: [{containerPort: 80, hostPort: 8080}]
";

const JOB: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: tool}
spec:
  containers:
  - name: tool
    image: example.com/tool:2
";

/// An agent's directory with these manifests below `m/`.
async fn with_manifests(files: &[(&str, &str)]) -> Fixture {
    let fixture = Fixture::start().await;
    for (name, text) in files {
        let path = fixture.dir.path().join("m").join(name);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
        std::fs::write(path, text).expect("it can be written");
    }
    fixture
}

#[tokio::test]
async fn validate_shows_every_problem_with_its_place() {
    let broken = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n  - name: x\n    imagee: y\n";
    let fixture = with_manifests(&[
        ("web.yaml", WEB),
        ("bad/pod.yaml", broken),
        ("values.yaml", "a: 1\n"),
        ("empty.yaml", "# nothing\n"),
    ])
    .await;
    check!(
        "validate",
        Some(&fixture),
        &[
            "validate DIR/m",
            "validate DIR/m/web.yaml",
            "validate DIR/m/web.yaml DIR/m/./web.yaml",
            "validate -o json DIR/m/bad",
            "validate --strict DIR/m/values.yaml",
            "validate DIR/m/values.yaml",
            "validate DIR/m/empty.yaml",
            "validate DIR/nope",
            "validate",
        ]
    );
}

/// Writes the records of the pods that these manifests make.
fn record(fixture: &Fixture, files: &[(&str, &str)]) {
    use spec::manifest::{AssembleOptions, Missing, ParseOptions, assemble, parse_file};
    let key = spec::secret::MacKey::new([0; 32]);
    let parsed: Vec<_> =
        files.iter().map(|(name, text)| parse_file(name, text.as_bytes(), &ParseOptions::default())).collect();
    let options = AssembleOptions { mac_key: &key, node_labels: None, missing: Missing::Error };
    let desired = assemble(&parsed, &options).desired;
    for (index, (id, workload)) in desired.workloads.iter().enumerate() {
        let uid = format!("{index:016x}");
        let record = spec::observed::PodRecord {
            uid: spec::observed::PodUid(uid.clone()),
            workload: id.clone(),
            ordinal: 0,
            revision: "r".to_owned(),
            name: format!("{}-0", id.name),
            labels: workload.template.labels.clone(),
            annotations: workload.template.annotations.clone(),
            depends_on: Vec::new(),
            source: workload.source.clone(),
            spec: std::sync::Arc::clone(&workload.template.spec),
            images: Default::default(),
            created_unix: NOW,
            created: spec::time::Timestamp(0),
            boot_id: "b".to_owned(),
            run: None,
            bound: std::collections::BTreeMap::new(),
        };
        let dir = fixture.settings.data_dir.join("pods").join(uid);
        std::fs::create_dir_all(&dir).expect("it can be made");
        let bytes = serde_json::to_vec(&record).expect("it can be written as JSON");
        std::fs::write(dir.join("pod.json"), bytes).expect("it can be written");
    }
}

#[tokio::test]
async fn plan_compares_manifests_with_what_is_recorded_here() {
    let fixture = with_manifests(&[("web.yaml", WEB), ("job.yaml", JOB)]).await;
    check!("plan_empty", Some(&fixture), &["plan DIR/m", "plan DIR/m -o json"]);
    let old = WEB.replace("hello", "good day").replace("app: web}}\n    spec", "app: web, tier: x}}\n    spec");
    record(&fixture, &[("web.yaml", &old), ("job.yaml", JOB), ("old.yaml", &JOB.replace("tool", "old"))]);
    check!("plan_changes", Some(&fixture), &["plan DIR/m", "plan DIR/m/web.yaml -o json"]);
    let records = fixture.settings.data_dir.join("pods/0000000000000000");
    std::fs::remove_dir_all(records).expect("it can be removed");
    std::fs::write(fixture.dir.path().join("m/web.yaml"), old.replace("replicas: 2", "replicas: 1")).expect("written");
    check!("plan_nothing", Some(&fixture), &["plan DIR/m", "plan DIR/m/job.yaml", "plan DIR/m/job.yaml -o json"]);
}

#[tokio::test]
async fn explain_tells_what_becomes_of_a_field() {
    check!(
        "explain",
        None,
        &[
            "explain",
            "explain pod.spec.containers[0].resources",
            "explain deployment.spec.replicas",
            "explain pod.spec.nodeName",
            "explain pod.spec.contaners",
            "explain nope",
            "explain pod.spec.hostNetwork -o json",
            "explain service.healthcheck.interval",
            "explain service.spec.clusterIP",
            "explain compose.volumes",
            "explain service.prots",
        ]
    );
}

#[tokio::test]
async fn help_names_every_command() {
    check!("help", None, &["--help", "run --help", "logs --help"]);
}

#[tokio::test]
async fn images_without_a_store_are_none() {
    check!(
        "images",
        None,
        &[
            "images",
            "images -o json",
            "pull Not:A:Reference",
            "unpack example.com/none:1 DIR/x",
            "load DIR/none",
            "tag example.com/none:1 example.com/other:1",
            "rmi example.com/none:1",
            "prune",
            "df",
            "verify",
            "save -f DIR/x.tar example.com/none:1",
            "exec web -- true",
        ]
    );
}

#[tokio::test]
async fn compose_projects_are_read_like_manifests() {
    let compose = "services:\n  web: {image: \"web:$TAG\", ports: [\"8080:80\"]}\n  db: {image: db:1}\n";
    let fixture = with_manifests(&[
        ("shop/compose.yaml", compose),
        ("shop/.env", "TAG=7\n"),
        ("other/stack.yaml", compose),
        ("bad.compose.yaml", "services:\n  web: {imag: x}\n"),
        ("web.yaml", WEB),
    ])
    .await;
    check!("compose", Some(&fixture), &["validate DIR/m", "validate DIR/m/other/stack.yaml", "plan DIR/m/shop"]);
}

#[tokio::test]
async fn convert_turns_docker_run_into_compose() {
    check!(
        "convert",
        None,
        &[
            "convert -- docker run -d --name web -p 8080:80 -v data:/srv -e A=$b --restart unless-stopped nginx:1.27 nginx -g x",
            "convert -- docker run --rm -it -P alpine sh",
            "convert -- docker run --prot 80 nginx",
            "convert -- docker ps",
            "convert docker run",
            "convert -o json -- docker run nginx",
        ]
    );
}
