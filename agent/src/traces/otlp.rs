//! Traces as OTLP: each action that was carried out is a span, and those for one version of a workload are one
//! trace, from its pull to its ports.
//!
//! Sent as OTLP over HTTP with JSON, by the HTTP client that is here anyway, when `traces` names a collector. A queue
//! with an end lies between: a collector that is slow or away holds up nobody, and what does not fit is left out.
//!
//! Source: OpenTelemetry Protocol 1.x, "OTLP/HTTP", "JSON Protobuf Encoding".

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use spec::digest::Digest;
use tokio::sync::mpsc;

use super::Done;

/// Spans that may wait.
const QUEUE: usize = 2048;
/// Spans of one request.
const BATCH: usize = 256;
/// After the first span of a request, others are waited for so long.
const GATHER: Duration = Duration::from_secs(2);
/// A request that takes longer has failed; its spans are lost.
const LIMIT: Duration = Duration::from_secs(10);

/// Takes spans. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Traces(mpsc::Sender<Value>);

impl Traces {
    /// Spans go to the collector at this address (`http://127.0.0.1:4318`) until the future is dropped.
    pub fn to(collector: &str, node: &str) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, spans) = mpsc::channel(QUEUE);
        let url = format!("{}/v1/traces", collector.trim_end_matches('/'));
        let resource = json!({"attributes": [
            text("service.name", "mainstay"),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("host.name", node),
        ]});
        (Self(sender), send(url, resource, spans))
    }

    /// Notes an action that has ended just now.
    pub fn done(&self, done: &Done<'_>) {
        let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Full: the collector is slow or away.
        let _ = self.0.try_send(span(done, end));
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn span(done: &Done<'_>, end: Duration) -> Value {
    let start = end.saturating_sub(done.elapsed);
    let (workload, version) = match done.workload {
        Some((workload, version)) => (workload.to_string(), version.to_owned()),
        None => (String::new(), start.as_nanos().to_string()),
    };
    // The agent may end in the middle of a version: the next one goes on with the same trace.
    let trace = Digest::of(format!("{workload}\n{version}").as_bytes()).hex();
    let own = Digest::of(format!("{trace}\n{}\n{}", done.action, end.as_nanos()).as_bytes()).hex();
    let mut attributes = vec![text("mainstay.reason", done.reason)];
    if done.workload.is_some() {
        attributes.extend([text("mainstay.workload", &workload), text("mainstay.revision", &version)]);
    }
    json!({
        "traceId": trace.get(..32),
        "spanId": own.get(..16),
        "name": done.action,
        // SPAN_KIND_INTERNAL
        "kind": 1,
        "startTimeUnixNano": start.as_nanos().to_string(),
        "endTimeUnixNano": end.as_nanos().to_string(),
        "attributes": attributes,
        // STATUS_CODE_ERROR, STATUS_CODE_OK
        "status": done.error.map_or(json!({"code": 1}), |error| json!({"code": 2, "message": error})),
    })
}

async fn send(url: String, resource: Value, mut spans: mpsc::Receiver<Value>) {
    let client = match crate::http::builder(LIMIT).build() {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(error = spec::causes::chain(&error), "traces not sent");
            return;
        }
    };
    let mut complained = None;
    while let Some(first) = spans.recv().await {
        let mut batch = vec![first];
        let gathered = async {
            while batch.len() < BATCH {
                match spans.recv().await {
                    Some(span) => batch.push(span),
                    None => return,
                }
            }
        };
        // The end of the time is the normal case.
        let _ = tokio::time::timeout(GATHER, gathered).await;
        let scope = json!({"scope": {"name": "mainstay"}, "spans": batch});
        let body = json!({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]});
        let request = client.post(&url).header("content-type", "application/json").body(body.to_string());
        let complaint = match request.send().await {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("the collector answered {}", answer.status())),
            Err(error) => Some(spec::causes::chain(&error)),
        };
        if let Some(error) = complaint.as_ref().filter(|_| complaint != complained) {
            tracing::warn!(error, "traces not sent");
        }
        complained = complaint;
    }
}

#[cfg(test)]
mod tests {
    use spec::workload::{WorkloadId, WorkloadKind};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn actions_of_one_version_are_one_trace_of_a_collector() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        let (traces, sending) = Traces::to(&format!("http://{address}/"), "node-7");
        let sending = tokio::spawn(sending);
        let id = WorkloadId { kind: WorkloadKind::Deployment, namespace: "default".to_owned(), name: "web".to_owned() };
        let one = Done {
            workload: Some((&id, "aaaa")),
            action: "pull",
            reason: "images_needed",
            error: None,
            elapsed: Duration::from_millis(1500),
        };
        traces.done(&one);
        traces.done(&Done { action: "create_pod", error: Some("no room"), ..one });
        traces.done(&Done { workload: Some((&id, "bbbb")), ..one });
        traces.done(&Done { workload: None, action: "publish_ports", ..one });

        let (mut stream, _) = listener.accept().await.expect("it connects");
        let mut request = String::new();
        let mut buffer = [0; 16 * 1024];
        while !request.ends_with("]}]}") {
            let read = stream.read(&mut buffer).await.expect("a request");
            assert!(read > 0, "{request}");
            request.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.expect("it listens");
        assert!(request.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{request}");
        let (_, body) = request.split_once("\r\n\r\n").expect("a body");
        let body: Value = serde_json::from_str(body).expect("JSON");
        let found = &body["resourceSpans"][0];
        assert_eq!(found["resource"]["attributes"][2]["value"]["stringValue"], "node-7");
        let spans = found["scopeSpans"][0]["spans"].as_array().expect("spans");
        let names: Vec<&str> = spans.iter().filter_map(|span| span["name"].as_str()).collect();
        assert_eq!(names, ["pull", "create_pod", "pull", "publish_ports"]);
        let trace = |index: usize| spans[index]["traceId"].as_str().expect("an id");
        assert!(trace(0) == trace(1) && trace(0) != trace(2) && trace(2) != trace(3));
        assert!(spans.iter().all(|span| span["traceId"].as_str().is_some_and(|id| id.len() == 32)));
        assert_eq!(spans[0]["spanId"].as_str().map(str::len), Some(16));
        assert_ne!(spans[0]["spanId"], spans[2]["spanId"]);
        let nanos = |key: &str| spans[0][key].as_str().and_then(|text| text.parse::<u64>().ok()).expect("a time");
        assert_eq!(nanos("endTimeUnixNano") - nanos("startTimeUnixNano"), 1_500_000_000);
        assert_eq!(spans[0]["status"], json!({"code": 1}));
        assert_eq!(spans[1]["status"], json!({"code": 2, "message": "no room"}));
        let attributes = json!([
            {"key": "mainstay.reason", "value": {"stringValue": "images_needed"}},
            {"key": "mainstay.workload", "value": {"stringValue": "Deployment/default/web"}},
            {"key": "mainstay.revision", "value": {"stringValue": "aaaa"}},
        ]);
        assert_eq!(spans[0]["attributes"], attributes);
        drop(traces);
        sending.await.expect("it ends with the last sender");
    }
}
