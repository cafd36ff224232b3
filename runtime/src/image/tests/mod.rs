//! Pulls from registries on loopback: good ones, odd ones, hostile ones.

mod artifact;
mod auth;
mod bad;
#[cfg(feature = "ecr")]
mod ecr;
mod fake;
mod good;
mod h2;
mod mutated;
mod tls;
mod tricks;

use std::time::Duration;

use spec::image_ref::ImageRef;
use spec::pod::PullPolicy;

use super::pull::{PullError, Puller};
use super::registry::RegistryConfig;
use super::store::{Image, Store};
use super::unpack::testkit::root;
use crate::api::PullCredentials;

/// Limits that make a stall show within a test.
fn quick() -> RegistryConfig {
    RegistryConfig {
        connect_timeout: Duration::from_secs(1),
        stall_limit: Duration::from_secs(1),
        retry_pause: Duration::from_millis(4),
        retry_after_limit: Duration::from_secs(1),
        tries: 3,
        credential_files: Some(Vec::new()),
        ..RegistryConfig::default()
    }
}

/// Limits that a busy machine does not run into, for cases in which nothing stalls.
fn patient() -> RegistryConfig {
    let limit = Duration::from_secs(15);
    RegistryConfig { connect_timeout: limit, stall_limit: limit, ..quick() }
}

/// A puller into a store of its own.
struct Rig {
    puller: Puller,
    store: Store,
    _directory: tempfile::TempDir,
}

fn rig(config: RegistryConfig) -> Rig {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(directory.path()).expect("a store");
    Rig { puller: Puller::new(store.clone(), config), store, _directory: directory }
}

impl Rig {
    /// Pulls with the policy `Always` for amd64, within half a minute.
    async fn pull(&self, reference: &ImageRef, credentials: &PullCredentials) -> Result<Image, PullError> {
        let pull = self.puller.pull(reference, PullPolicy::Always, Some("linux/amd64"), credentials, None);
        tokio::time::timeout(Duration::from_secs(30), pull).await.expect("a pull never hangs")
    }

    /// The error of a pull that must fail, with causes and hint.
    async fn refused(&self, reference: &ImageRef, credentials: &PullCredentials) -> String {
        let pull = self.puller.pull(reference, PullPolicy::Always, Some("linux/amd64"), credentials, None);
        match tokio::time::timeout(Duration::from_secs(30), pull).await {
            Ok(Ok(image)) => format!("pulled {}", image.digest),
            Ok(Err(error)) => text(error, reference),
            Err(_) => "hangs".to_owned(),
        }
    }

    /// Nothing can be seen of any image, and nothing half-done is left behind.
    fn has_no_image(&self) -> bool {
        let empty = |name| std::fs::read_dir(self.store.root().join(name)).expect("a directory").next().is_none();
        ["tmp", "records", "refs"].into_iter().all(empty)
    }
}

fn reference(server: &fake::Server, rest: &str) -> ImageRef {
    ImageRef::parse(&format!("{}/{rest}", server.address)).expect("a reference")
}

/// An error with all its causes and its hint.
fn text(error: PullError, reference: &ImageRef) -> String {
    let error = error.into_runtime(reference);
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    format!("{text} [hint: {}]", error.hint.unwrap_or_default())
}
