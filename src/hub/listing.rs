//! The hub's description of a repository: its commit and its files.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::client::Client;
use super::messages::Messages;
use super::name::ModelName;
use crate::checkpoint::hex;
use crate::error::Error;

/// The time limit for the hub's answer about a repository. Transfers have no limit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The hub's description of a repository at a revision.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    /// The commit.
    pub sha: String,
    #[serde(rename = "siblings")]
    files: Vec<HubFile>,
    /// False, or how access is granted: "auto" or "manual".
    #[serde(default)]
    gated: Value,
}

#[derive(Debug, Deserialize)]
pub(super) struct HubFile {
    #[serde(rename = "rfilename")]
    pub name: String,
    pub size: Option<u64>,
    /// Git's id of the file, or of its pointer if the file is stored in LFS.
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    /// The entry in LFS, if the file is stored there.
    pub lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Lfs {
    pub sha256: String,
}

/// The reason why there is no listing.
pub(super) enum Unlisted {
    /// The hub did not answer, for this reason.
    Unreachable(String),
    /// The hub answered that there is no such repository or revision.
    Refused(Error),
}

impl Listing {
    /// Asks the hub for the files of a repository.
    pub fn ask(client: &Client, name: &ModelName, messages: &Messages) -> Result<Self, Unlisted> {
        let unreachable = |error: &ureq::Error| Unlisted::Unreachable(error.to_string());
        let request = client.describe(name).config().http_status_as_error(false);
        let answer = request.timeout_recv_response(Some(ANSWER_TIMEOUT)).build().call();
        let mut answer = answer.map_err(|error| unreachable(&error))?;
        let code = answer.headers().get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or("");
        match (answer.status().as_u16(), code) {
            (200, _) => {}
            (404, "RevisionNotFound") => return Err(Unlisted::Refused(messages.no_revision(name))),
            (401 | 403, "GatedRepo") => return Err(Unlisted::Refused(messages.gated(name))),
            (401 | 403 | 404, _) => return Err(Unlisted::Refused(messages.no_repository(name))),
            (status, _) => return Err(Unlisted::Unreachable(format!("it answers with status {status}"))),
        }
        let listing: Self = answer.body_mut().read_json().map_err(|error| unreachable(&error))?;
        let is_commit = listing.sha.len() == 40 && is_hex(&listing.sha);
        if is_commit {
            Ok(listing)
        } else {
            Err(Unlisted::Unreachable(format!("it answers with {:?} as a commit", listing.sha)))
        }
    }

    pub fn find(&self, name: &str) -> Option<&HubFile> {
        self.files.iter().find(|file| file.name == name)
    }

    pub fn is_gated(&self) -> bool {
        !matches!(self.gated, Value::Null | Value::Bool(false))
    }
}

impl HubFile {
    /// The name of the file's blob: the hash that the hub gives, as `huggingface_hub` names it. Some mirrors give none;
    /// then the name is made from the file's own, which stands for the same bytes in one commit.
    pub fn blob_name(&self, repository: &str, commit: &str) -> String {
        let hash = self.lfs.as_ref().map(|lfs| &lfs.sha256).or(self.blob_id.as_ref());
        let is_hash = |hash: &&String| matches!(hash.len(), 40 | 64) && is_hex(hash);
        let made = || hex(&Sha256::digest(format!("{repository} {commit} {}", self.name)));
        hash.filter(is_hash).cloned().unwrap_or_else(made)
    }
}

fn is_hex(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_hexdigit())
}
