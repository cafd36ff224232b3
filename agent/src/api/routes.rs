//! Answers from the last snapshot, and commands to the loop.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use runtime::api::ContainerStats;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use spec::observed::PodUid;
use tokio::sync::oneshot;

use super::Shared;
use super::error::Failure;
use crate::orders::Order;
use crate::reconciler::{Command, Event};
use crate::reload::{Request, Verdict};
use crate::status::{
    NetworkEntry, PausedStatus, PodStatus, RemovalStatus, Snapshot, StatsAnswer, StatsEntry, StepStatus, WorkloadStatus,
};
use crate::telemetry;

type Answer<T> = Result<Json<T>, Failure>;

/// A pod with the workload it belongs to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodEntry {
    workload: String,
    #[serde(flatten)]
    pod: PodStatus,
}

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlanAnswer {
    converged: bool,
    steps: Vec<StepStatus>,
    removal: Option<RemovalStatus>,
    paused: Vec<PausedStatus>,
}

pub(super) async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let snapshot = Arc::clone(&shared.state.snapshot.borrow());
    let readings = telemetry::gather(shared.state.runtime.as_ref(), &snapshot).await;
    shared.state.metrics.pulls(&shared.state.runtime.pulls());
    ([(header::CONTENT_TYPE, telemetry::CONTENT_TYPE)], shared.state.metrics.text_with(&readings))
}

pub(super) async fn version(State(shared): State<Shared>) -> Json<Value> {
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "api": 1,
        "pid": std::process::id(),
        "instance": shared.state.reload.instance.as_ref(),
        "exe": shared.state.reload.exe,
    }))
}

/// Answers when the loop does.
pub(super) async fn ping(State(shared): State<Shared>) -> Answer<Value> {
    if crate::systemd::answers(&shared.state.commands).await {
        return Ok(Json(json!({})));
    }
    Err(Failure::failed("the loop has ended".to_owned()))
}

pub(super) async fn status(State(shared): State<Shared>) -> Json<Arc<Snapshot>> {
    Json(current(&shared))
}

/// What the loop has published, with the pulls as far as they are now.
fn current(shared: &Shared) -> Arc<Snapshot> {
    let snapshot = Arc::clone(&shared.state.snapshot.borrow());
    crate::pulls::shown(snapshot, shared.state.runtime.pulls())
}

pub(super) async fn plan(State(shared): State<Shared>) -> Json<PlanAnswer> {
    let snapshot = shared.state.snapshot.borrow();
    Json(PlanAnswer {
        converged: snapshot.converged,
        steps: snapshot.plan.clone(),
        removal: snapshot.removal.clone(),
        paused: snapshot.paused.clone(),
    })
}

pub(super) async fn config(State(shared): State<Shared>) -> Json<Value> {
    let shown = crate::config::KEYS.iter().filter(|key| !key.hidden);
    Json(shown.map(|key| (key.name.to_owned(), key.value(&shared.state.settings))).collect())
}

pub(super) async fn pods(State(shared): State<Shared>) -> Json<Vec<PodEntry>> {
    let snapshot = shared.state.snapshot.borrow();
    Json(snapshot.workloads.iter().flat_map(|workload| workload.pods.iter().map(|pod| entry(workload, pod))).collect())
}

fn entry(workload: &WorkloadStatus, pod: &PodStatus) -> PodEntry {
    let workload = format!("{}/{}/{}", workload.kind, workload.namespace, workload.name);
    PodEntry { workload, pod: pod.clone() }
}

pub(super) async fn pod(State(shared): State<Shared>, Path(uid): Path<String>) -> Answer<PodEntry> {
    find(&shared, &uid).map(Json)
}

fn find(shared: &Shared, uid: &str) -> Result<PodEntry, Failure> {
    let snapshot = shared.state.snapshot.borrow();
    let mut pods = snapshot.workloads.iter().flat_map(|workload| workload.pods.iter().map(move |pod| (workload, pod)));
    let found = pods.find(|(_, pod)| pod.uid == uid);
    found.map(|(workload, pod)| entry(workload, pod)).ok_or_else(|| {
        Failure::not_found(format!("there is no pod with the id `{uid}`")).hint("GET /v1/pods lists them")
    })
}

pub(super) async fn log_files(
    State(shared): State<Shared>,
    Path((uid, container)): Path<(String, String)>,
) -> Answer<Vec<PathBuf>> {
    container_of(&shared, &uid, &container)?;
    let runtime = Arc::clone(&shared.state.runtime);
    let files = tokio::task::spawn_blocking(move || runtime.log_files(&PodUid(uid), &container)).await;
    files.map(Json).map_err(|error| Failure::failed(error.to_string()))
}

pub(super) async fn all_stats(State(shared): State<Shared>) -> Json<StatsAnswer> {
    let snapshot = Arc::clone(&shared.state.snapshot.borrow());
    let readings = telemetry::gather(shared.state.runtime.as_ref(), &snapshot).await;
    let mut containers: Vec<StatsEntry> = readings
        .containers
        .into_iter()
        .map(|([namespace, workload, pod, container], stats)| StatsEntry { namespace, workload, pod, container, stats })
        .collect();
    // Readings come as they are ready.
    containers.sort_by(|a, b| (&a.namespace, &a.pod, &a.container).cmp(&(&b.namespace, &b.pod, &b.container)));
    let pods = readings
        .pods
        .into_iter()
        .map(|([namespace, workload, pod], stats)| NetworkEntry { namespace, workload, pod, stats })
        .collect();
    Json(StatsAnswer { containers, pods })
}

pub(super) async fn stats(
    State(shared): State<Shared>,
    Path((uid, container)): Path<(String, String)>,
) -> Answer<ContainerStats> {
    container_of(&shared, &uid, &container)?;
    match shared.state.runtime.stats(&PodUid(uid), &container).await {
        Ok(stats) => Ok(Json(stats)),
        Err(error) => Err(Failure::failed(spec::causes::chain(&error))),
    }
}

fn container_of(shared: &Shared, uid: &str, container: &str) -> Result<(), Failure> {
    let entry = find(shared, uid)?;
    if entry.pod.containers.iter().any(|other| other.name == container) {
        return Ok(());
    }
    Err(Failure::not_found(format!("pod `{}` has no container `{container}`", entry.pod.name)))
}

pub(super) async fn workload(
    State(shared): State<Shared>,
    Path((kind, namespace, name)): Path<(String, String, String)>,
) -> Answer<WorkloadStatus> {
    let snapshot = current(&shared);
    let same = |workload: &&WorkloadStatus| {
        workload.kind.eq_ignore_ascii_case(&kind) && workload.namespace == namespace && workload.name == name
    };
    let found = snapshot.workloads.iter().find(same).cloned();
    found.map(Json).ok_or_else(|| Failure::not_found(format!("there is no workload {kind}/{namespace}/{name}")))
}

/// Sends a command to the loop and waits for its answer.
async fn ask<T>(shared: &Shared, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Failure> {
    let (reply, answer) = oneshot::channel();
    let sent = shared.state.commands.send(Event::Command(command(reply)));
    sent.map_err(|_| Failure::unavailable())?;
    answer.await.map_err(|_| Failure::unavailable())
}

fn parse<'a, T: Deserialize<'a>>(body: &'a Bytes) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::bad_request(format!("the body is not as expected: {error}")))
}

pub(super) async fn down(State(shared): State<Shared>) -> Answer<Value> {
    match ask(&shared, |reply| Command::Down { reply }).await? {
        Ok(()) => Ok(Json(json!({ "down": true }))),
        Err(message) => Err(Failure::failed(message)),
    }
}

pub(super) async fn sync(State(shared): State<Shared>) -> Json<Value> {
    (shared.state.sync)();
    Json(json!({ "reading": true }))
}

/// The number of the reading that holds everything that was in the sources when it was asked for.
pub(super) async fn reading(State(shared): State<Shared>) -> Answer<Value> {
    match (shared.state.reading)().await {
        Ok(number) => Ok(Json(json!({ "reading": number }))),
        Err(_) => Err(Failure::unavailable()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryBody {
    workload: String,
}

pub(super) async fn retry(State(shared): State<Shared>, body: Bytes) -> Answer<Value> {
    let RetryBody { workload } = parse(&body)?;
    let named = workload.clone();
    if ask(&shared, |reply| Command::Retry { workload, reply }).await? {
        return Ok(Json(json!({ "workload": named })));
    }
    Err(Failure::not_found(format!("there is no workload {named}")).hint("write it as Kind/namespace/name"))
}

pub(super) async fn order(State(shared): State<Shared>, body: Bytes) -> Answer<Value> {
    let order: Order = parse(&body)?;
    match ask(&shared, |reply| Command::Order { order, reply }).await? {
        Ok(message) => Ok(Json(json!({ "message": message }))),
        Err(message) => Err(Failure::failed(message)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApproveBody {
    id: String,
}

pub(super) async fn approve(State(shared): State<Shared>, body: Bytes) -> Answer<Value> {
    let ApproveBody { id } = parse(&body)?;
    let named = id.clone();
    if ask(&shared, |reply| Command::Approve { id, reply }).await?.map_err(Failure::failed)? {
        return Ok(Json(json!({ "approved": named })));
    }
    Err(Failure::not_found(format!("nothing with the id `{named}` is held now"))
        .hint("`mainstay status` shows what is"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReloadBody {
    /// A binary that is to take over; without one, what is in the agent's place now.
    binary: Option<PathBuf>,
}

pub(super) async fn reload(State(shared): State<Shared>, body: Bytes) -> Answer<Verdict> {
    let ReloadBody { binary } = parse(&body)?;
    let (reply, answer) = oneshot::channel();
    let sent = shared.state.reload.requests.send(Request { binary, always: true, reply: Some(reply) });
    sent.map_err(|_| Failure::unavailable())?;
    match answer.await.map_err(|_| Failure::unavailable())? {
        Ok(verdict) => Ok(Json(verdict)),
        Err(refusal) => {
            let failure = Failure::failed(spec::causes::chain(&refusal));
            Err(match refusal.hint() {
                Some(hint) => failure.hint(hint),
                None => failure,
            })
        }
    }
}
