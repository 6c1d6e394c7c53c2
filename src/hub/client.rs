//! Requests to the hub.

use std::time::Duration;

use ureq::config::RedirectAuthHeaders;
use ureq::typestate::WithoutBody;
use ureq::{Agent, RequestBuilder};

use super::name::ModelName;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Until an answer begins.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of the hub. It follows redirects, and sends the token to the hub's host alone.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    /// The hub's address, without a trailing slash.
    endpoint: String,
    token: Option<String>,
}

impl Client {
    pub fn new(endpoint: String, token: Option<String>) -> Self {
        let config = Agent::config_builder()
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .user_agent(concat!("codit/", env!("CARGO_PKG_VERSION")));
        Self { agent: config.build().into(), endpoint, token }
    }

    /// The request for the description of a repository at a revision.
    pub fn describe(&self, name: &ModelName) -> RequestBuilder<WithoutBody> {
        let ModelName { repository, .. } = name;
        let revision = name.revision().replace('/', "%2F");
        self.get(&format!("{}/api/models/{repository}/revision/{revision}", self.endpoint))
            .query("blobs", "true")
    }

    /// The request for a file at a commit.
    pub fn file(&self, repository: &str, commit: &str, file: &str) -> RequestBuilder<WithoutBody> {
        self.get(&format!("{}/{repository}/resolve/{commit}/{file}", self.endpoint))
    }

    fn get(&self, url: &str) -> RequestBuilder<WithoutBody> {
        let request = self.agent.get(url);
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }
}
