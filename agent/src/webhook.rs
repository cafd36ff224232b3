//! Tells others what happens here: events of the journal as HTTP requests, by the settings under `[[webhook]]`.
//!
//! Each webhook has a queue with an end and a task of its own, so that a receiver that is slow or away holds up nobody
//! and fills no memory. A request that fails is tried again for about a minute; what is given up is counted and logged,
//! and never becomes an event itself. What waits is lost when the agent ends: the journal is what is kept.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use crate::config::Webhook;
use crate::credential::{self, CredentialError};
use crate::events::Record;
use crate::telemetry::Metrics;

/// Events that may wait for one receiver.
const QUEUE: usize = 256;

/// A request that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(10);

/// Pauses between the tries.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
];

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
enum SendError {
    /// The URL or header cannot be had.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The file with the header has something else in it.
    #[error("the file with the header is not of the form `Name: value`")]
    Header,
    /// The receiver cannot be reached. The URL may be a secret and is not said.
    #[error("cannot reach the receiver")]
    Request(#[source] reqwest::Error),
    /// It says no.
    #[error("the receiver answered {0}")]
    Refused(reqwest::StatusCode),
}

impl SendError {
    /// Whether the same request may succeed later.
    fn may_pass(&self) -> bool {
        match self {
            Self::Credential(_) | Self::Header | Self::Request(_) => true,
            Self::Refused(status) => status.is_server_error() || matches!(status.as_u16(), 408 | 429),
        }
    }
}

/// Sends events to one receiver until the journal ends.
pub async fn run(webhook: Webhook, node: String, events: broadcast::Receiver<Arc<Record>>, metrics: Metrics) {
    deliver(webhook, node, events, metrics, &PAUSES).await;
}

async fn deliver(
    webhook: Webhook,
    node: String,
    mut events: broadcast::Receiver<Arc<Record>>,
    metrics: Metrics,
    pauses: &[Duration],
) {
    metrics.webhook(&webhook.name);
    let client = match crate::http::builder(LIMIT).build() {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(webhook = webhook.name, error = spec::causes::chain(&error), "webhook not used");
            return;
        }
    };
    let (queue, mut waiting) = mpsc::channel::<Arc<Record>>(QUEUE);
    let collect = async {
        loop {
            match events.recv().await {
                Ok(record) if webhook.wants(&record.event) => {
                    if queue.try_send(record).is_err() {
                        metrics.notification(&webhook.name, "dropped", 1);
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => metrics.notification(&webhook.name, "dropped", missed),
                Err(RecvError::Closed) => return,
            }
        }
    };
    let send = async {
        while let Some(record) = waiting.recv().await {
            let body = webhook.body(&node, &record);
            let mut pauses = pauses.iter();
            let outcome = loop {
                match post(&client, &webhook, &body).await {
                    Ok(()) => break "ok",
                    Err(error) => match pauses.next().filter(|_| error.may_pass()) {
                        Some(pause) => tokio::time::sleep(*pause).await,
                        None => {
                            let error = spec::causes::chain(&error);
                            tracing::warn!(webhook = webhook.name, event = record.number, error, "event not sent");
                            break "error";
                        }
                    },
                }
            };
            metrics.notification(&webhook.name, outcome, 1);
        }
    };
    tokio::select! {
        () = collect => {}
        () = send => {}
    }
}

async fn post(client: &reqwest::Client, webhook: &Webhook, body: &str) -> Result<(), SendError> {
    let url = match &webhook.url_file {
        Some(file) => text(&credential::read(file)?),
        None => webhook.url.clone().unwrap_or_default(),
    };
    let mut request = client.post(url).header("content-type", "application/json").body(body.to_owned());
    if let Some(file) = &webhook.header_file {
        let line = text(&credential::read(file)?);
        let (name, value) = line.split_once(':').ok_or(SendError::Header)?;
        let name = reqwest::header::HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| SendError::Header)?;
        let mut value = reqwest::header::HeaderValue::from_str(value.trim()).map_err(|_| SendError::Header)?;
        value.set_sensitive(true);
        request = request.header(name, value);
    }
    let answer = request.send().await.map_err(|error| SendError::Request(error.without_url()))?;
    if answer.status().is_success() { Ok(()) } else { Err(SendError::Refused(answer.status())) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::events::{Event, EventKind};

    fn record(number: u64, kind: EventKind, reason: &str) -> Arc<Record> {
        let event = Event {
            unix_millis: 1_700_000_000_000,
            kind,
            reason: reason.to_owned(),
            workload: Some("Deployment/default/web".to_owned()),
            pod: None,
            container: None,
            cause: None,
            message: "it said \"no\"".to_owned(),
        };
        Arc::new(Record { number, event })
    }

    /// Answers one request after the other with these codes; what it was sent.
    async fn receiver(codes: &'static [u16]) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let url = format!("http://{}/hook", listener.local_addr().expect("it is bound"));
        let serving = tokio::spawn(async move {
            let mut seen = Vec::new();
            for code in codes {
                let (mut stream, _) = listener.accept().await.expect("a request");
                let (mut text, mut buffer) = (String::new(), [0; 4096]);
                loop {
                    let read = stream.read(&mut buffer).await.expect("it is sent");
                    text.push_str(&String::from_utf8_lossy(&buffer[..read]));
                    let length = text
                        .to_ascii_lowercase()
                        .split("content-length: ")
                        .nth(1)
                        .and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
                    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
                    if read == 0 || (body.is_some() && body >= length) {
                        break;
                    }
                }
                let answer = format!("HTTP/1.1 {code} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.expect("it listens");
                seen.push(text);
            }
            seen
        });
        (url, serving)
    }

    fn webhook(fields: &str) -> Webhook {
        let table: toml::Table = format!("name = 'chat'\n{fields}").parse().expect("TOML");
        table.try_into().expect("a webhook")
    }

    const QUICK: [Duration; 2] = [Duration::from_millis(1); 2];

    #[tokio::test]
    async fn chosen_events_are_sent_and_tried_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let header = dir.path().join("header");
        std::fs::write(&header, "X-Token: canary\n").expect("written");
        std::fs::set_permissions(&header, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
        let (url, serving) = receiver(&[503, 200, 400, 500, 500, 500, 204]).await;
        let fields = format!(
            "url = '{url}'\nevents = ['warning', 'rolled_back']\nheader_file = '{}'\n\
             template = '{{\"text\": \"${{node}} ${{workload}} ${{reason}}: ${{message}}\"}}'",
            header.display()
        );
        let (events, receiver) = broadcast::channel(16);
        let metrics = Metrics::new();
        let sending = tokio::spawn({
            let metrics = metrics.clone();
            async move { deliver(webhook(&fields), "n1".to_owned(), receiver, metrics, &QUICK).await }
        });
        for record in [
            record(1, EventKind::Normal, "created"),
            record(2, EventKind::Warning, "exited"),
            record(3, EventKind::Normal, "rolled_back"),
            record(4, EventKind::Warning, "given_up"),
            record(5, EventKind::Warning, "last"),
        ] {
            events.send(record).expect("it listens");
        }
        let seen = serving.await.expect("seven requests");
        let reasons: Vec<&str> = seen
            .iter()
            .map(|text| {
                ["exited", "rolled_back", "given_up", "last"].into_iter().find(|r| text.contains(r)).unwrap_or("")
            })
            .collect();
        assert_eq!(reasons, ["exited", "exited", "rolled_back", "given_up", "given_up", "given_up", "last"]);
        for text in &seen {
            assert!(text.contains("x-token: canary"), "{text}");
            let (_, body) = text.split_once("\r\n\r\n").expect("a body");
            let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
            let said = body["text"].as_str().expect("text");
            assert!(said.starts_with("n1 Deployment/default/web ") && said.ends_with(": it said \"no\""), "{said}");
        }
        drop(events);
        sending.await.expect("it ends with the journal");
        assert!(metrics.text().contains(r#"mainstay_notifications_total{outcome="error",webhook="chat"} 2"#));
    }

    #[tokio::test]
    async fn a_receiver_that_never_answers_holds_nobody_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let url = format!("url = 'http://{}/'", listener.local_addr().expect("it is bound"));
        let (events, receiver) = broadcast::channel(1024);
        let metrics = Metrics::new();
        metrics.webhook("chat");
        let sending = tokio::spawn({
            let metrics = metrics.clone();
            async move { deliver(webhook(&url), "n1".to_owned(), receiver, metrics, &QUICK).await }
        });
        for number in 0..400 {
            events.send(record(number, EventKind::Warning, "exited")).expect("it listens");
        }
        let none = r#"mainstay_notifications_total{outcome="dropped",webhook="chat"} 0"#;
        let dropped = || metrics.text().lines().all(|line| line != none);
        tokio::time::timeout(Duration::from_secs(20), async {
            while !dropped() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("what does not fit is dropped and counted");
        sending.abort();
    }
}
