//! Labels of the node from the metadata service of EC2 (IMDSv2), when `node_metadata` asks for them.
//!
//! They are asked for when the agent starts or reloads, soon again when that brought nothing, and from time to time. What
//! was found is kept, so that a service that does not answer changes nothing: a label that is missing would be a wish to
//! run nothing of what selects it.
//!
//! Source: EC2 user guide, "Instance metadata categories".

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::imds::{ImdsError, Session};

/// How often it is asked whether its answers have changed.
const RENEW: Duration = Duration::from_secs(15 * 60);
/// When it is asked again after it has not answered; twice as long after each further time.
const AGAIN: Duration = Duration::from_secs(5);
/// Pauses between the tries: the network of a machine that boots may not be there yet.
const PAUSES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(2)];
/// Tags that are looked at (EC2 allows 50).
const MAX_TAGS: usize = 100;
/// What stands before the name of a tag in the name of its label.
const TAG: &str = "ec2.tag/";

/// What is asked, and the label that it becomes; the first two are those of Kubernetes' well-known labels.
const CATEGORIES: [(&str, &str); 4] = [
    ("instance-type", "node.kubernetes.io/instance-type"),
    ("placement/availability-zone", "topology.kubernetes.io/zone"),
    ("placement/region", "topology.kubernetes.io/region"),
    ("instance-id", INSTANCE),
];

type Labels = BTreeMap<String, String>;

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("ec2-labels.json")
}

/// What was found by the last agent that asked on this instance.
#[must_use]
pub fn known(data_dir: &Path) -> Labels {
    let instance = std::fs::read_to_string(ASSET_TAG).unwrap_or_default();
    known_on(instance.trim(), data_dir)
}

/// Where the firmware of an instance of the Nitro system has its id (EC2 user guide, "Instance identity"); others have none.
const ASSET_TAG: &str = "/sys/class/dmi/id/board_asset_tag";
const INSTANCE: &str = "mainstay/instance-id";

/// A disk that was made into an image has the labels of another instance on it.
fn known_on(instance: &str, data_dir: &Path) -> Labels {
    let found: Labels = crate::record::read(&file(data_dir)).unwrap_or_default();
    let other = instance.starts_with("i-") && found.get(INSTANCE).is_some_and(|id| id != instance);
    if other { Labels::new() } else { found }
}

/// Labels, and whether the service itself has just told them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Those of the configuration, and below them the others.
    pub labels: Labels,
    /// Whether they are those of now.
    pub fresh: bool,
}

/// Configured labels, and below them those that the service tells, or told when it was asked last.
pub async fn with_labels(endpoint: Option<&str>, data_dir: &Path, configured: &Labels) -> Found {
    let Some(endpoint) = endpoint else { return Found { labels: configured.clone(), fresh: true } };
    // Who knows what was found last need not wait.
    let mut pauses = if known(data_dir).is_empty() { PAUSES.iter() } else { [].iter() };
    let found = loop {
        match ask(endpoint).await {
            Ok(found) => break found,
            Err(error) => match pauses.next() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => {
                    let error = spec::causes::chain(&error);
                    tracing::warn!(error, "labels of the node are those that were found last");
                    return Found { labels: merged(configured, known(data_dir)), fresh: false };
                }
            },
        }
    };
    if found != known(data_dir)
        && let Err(error) = crate::record::write(&file(data_dir), &found)
    {
        tracing::warn!(%error, "cannot note the labels of the node");
    }
    tracing::info!(labels = ?found, "labels of the node from its metadata service");
    Found { labels: merged(configured, found), fresh: true }
}

/// Returns once the service tells other labels than those that are in use. Tags of an instance can change at any time, and
/// what was not told at the start may come soon.
pub async fn changed(endpoint: &str, configured: &Labels, in_use: &Found) {
    let mut pause = if in_use.fresh { RENEW } else { AGAIN };
    loop {
        tokio::time::sleep(pause).await;
        let differs = differs(endpoint, configured, &in_use.labels).await;
        if differs == Some(true) {
            return;
        }
        pause = next(pause, differs.is_some());
    }
}

/// How long to wait behind a look that came after this pause.
fn next(pause: Duration, answered: bool) -> Duration {
    if answered { RENEW } else { (pause * 2).min(RENEW) }
}

/// Whether other labels are told; a service that is away says nothing about labels.
async fn differs(endpoint: &str, configured: &Labels, in_use: &Labels) -> Option<bool> {
    ask(endpoint).await.ok().map(|found| merged(configured, found) != *in_use)
}

/// Labels by somebody's hand count before those that were found.
#[must_use]
pub fn merged(configured: &Labels, mut found: Labels) -> Labels {
    found.extend(configured.clone());
    found
}

async fn ask(endpoint: &str) -> Result<Labels, ImdsError> {
    let session = Session::open(endpoint).await?;
    let mut found = Labels::new();
    for (category, label) in CATEGORIES {
        if let Some(value) = session.get(category).await?.filter(|value| is_value(value)) {
            found.insert(label.to_owned(), value);
        }
    }
    // Tags are only told when the instance allows it.
    let tags = session.get("tags/instance").await?.unwrap_or_default();
    for tag in tags.lines().map(|tag| tag.trim_end_matches('/')).filter(|tag| is_name(tag)).take(MAX_TAGS) {
        if let Some(value) = session.get(&format!("tags/instance/{tag}")).await?.filter(|value| is_value(value)) {
            found.insert(format!("{TAG}{tag}"), value);
        }
    }
    Ok(found)
}

/// Kubernetes documentation, "Labels and Selectors", syntax: what is no label has nothing that could select it.
fn is_value(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && ends(text.chars().next())
        && ends(text.chars().next_back())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && is_value(text)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A metadata service that insists on its token; `role` is the value of a tag.
    async fn service(role: Arc<Mutex<&'static str>>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 4096];
                let read = stream.read(&mut buffer).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&buffer[..read]).into_owned();
                let line = request.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
                let role = *role.lock().expect("not poisoned");
                let body = match line.as_str() {
                    "PUT /latest/api/token" if request.contains("token-ttl-seconds: ") => Some("the-token"),
                    _ if !request.contains("x-aws-ec2-metadata-token: the-token\r\n") => None,
                    "GET /latest/meta-data/instance-type" => Some("m7g.large"),
                    "GET /latest/meta-data/placement/availability-zone" => Some("eu-west-1a"),
                    "GET /latest/meta-data/placement/region" => Some("eu-west-1"),
                    "GET /latest/meta-data/instance-id" => Some("i-0123456789abcdef0"),
                    "GET /latest/meta-data/tags/instance" => Some("role\nbad name\naws:x\nlong\n"),
                    "GET /latest/meta-data/tags/instance/role" => Some(role),
                    "GET /latest/meta-data/tags/instance/long" => Some("two words"),
                    _ => None,
                };
                let (status, body) = body.map_or((401, ""), |body| (200, body));
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                drop(stream.write_all(answer.as_bytes()).await);
            }
        });
        format!("http://{address}")
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[tokio::test]
    async fn labels_come_from_the_service_and_stay_when_it_is_away() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let endpoint = service(Arc::new(Mutex::new("web"))).await;
        let configured = labels(&[("ec2.tag/role", "db"), ("rack", "7")]);
        let found = |labels: &Labels, fresh| Found { labels: labels.clone(), fresh };
        assert_eq!(with_labels(None, dir.path(), &configured).await, found(&configured, true));
        let all = labels(&[
            ("node.kubernetes.io/instance-type", "m7g.large"),
            ("topology.kubernetes.io/zone", "eu-west-1a"),
            ("topology.kubernetes.io/region", "eu-west-1"),
            ("mainstay/instance-id", "i-0123456789abcdef0"),
            ("ec2.tag/role", "db"),
            ("rack", "7"),
        ]);
        assert_eq!(with_labels(Some(&endpoint), dir.path(), &configured).await, found(&all, true));
        assert_eq!(known(dir.path()).get("ec2.tag/role").map(String::as_str), Some("web"));
        // Nobody listens there.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let away = format!("http://{}", listener.local_addr().expect("it is bound"));
        drop(listener);
        assert_eq!(with_labels(Some(&away), dir.path(), &configured).await, found(&all, false));
        // Firmware that has no id of an instance says nothing; that of another one makes the file somebody else's.
        let role = |instance: &str| known_on(instance, dir.path()).contains_key("ec2.tag/role");
        let ids = ["i-0123456789abcdef0", "", "Not Specified", "i-0fedcba9876543210"];
        assert_eq!(ids.map(role), [true, true, true, false]);
    }

    #[test]
    fn what_was_not_told_at_the_start_is_asked_for_soon() {
        let check = |pause, answered, want| {
            assert_eq!(next(Duration::from_secs(pause), answered), Duration::from_secs(want), "{pause} {answered}");
        };
        check(5, false, 10);
        check(10, false, 20);
        check(640, false, 900);
        check(900, false, 900);
        check(5, true, 900);
    }

    #[tokio::test]
    async fn a_changed_tag_is_noticed_and_a_service_that_is_away_changes_nothing() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let role = Arc::new(Mutex::new("web"));
        let endpoint = service(Arc::clone(&role)).await;
        let configured = labels(&[("rack", "7")]);
        let in_use = with_labels(Some(&endpoint), dir.path(), &configured).await.labels;
        assert_eq!(differs(&endpoint, &configured, &in_use).await, Some(false));
        *role.lock().expect("not poisoned") = "db";
        assert_eq!(differs("http://127.0.0.1:1", &configured, &in_use).await, None, "nobody listens there");
        assert_eq!(differs(&endpoint, &configured, &in_use).await, Some(true));
        let fixed = labels(&[("rack", "7"), ("ec2.tag/role", "web")]);
        assert_eq!(
            differs(&endpoint, &fixed, &in_use).await,
            Some(false),
            "a label of the configuration hides the tag"
        );
    }
}
