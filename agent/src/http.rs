//! The HTTP client for what this agent sends or asks by itself: events and traces. Never for
//! images, whose registries have rules of their own.

use std::time::Duration;

/// A client that gives a request up after `limit` and follows no redirect: what is sent goes where the configuration
/// says and nowhere else.
pub(crate) fn builder(limit: Duration) -> reqwest::ClientBuilder {
    runtime::install_crypto();
    reqwest::Client::builder().timeout(limit).redirect(reqwest::redirect::Policy::none()).user_agent("mainstay")
}
