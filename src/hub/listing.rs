//! The hub's description of a repository: its commit and its files.

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::cache::is_commit;
use super::client::Client;
use super::messages::{Messages, Reason};
use super::name::ModelName;
use crate::checkpoint::{WEIGHTS_ENDING, hex};
use crate::error::Error;

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
    /// The hub did not answer, or it answered something else.
    Unusable(Reason),
    /// The hub answered that there is no such repository or revision.
    Refused(Error),
}

impl Listing {
    /// Asks the hub for the files of a repository.
    pub fn ask(client: &Client, name: &ModelName, messages: &Messages) -> Result<Self, Unlisted> {
        let odd = |what: &str| Unlisted::Unusable(Reason::Odd(what.to_owned()));
        let answer = client.describe(name).config().http_status_as_error(false).build().call();
        let mut answer =
            answer.map_err(|error| Unlisted::Unusable(Reason::Unreachable(error.to_string())))?;
        let code = answer.headers().get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or("");
        match (answer.status().as_u16(), code) {
            (200, _) => {}
            (404, "RevisionNotFound") => return Err(Unlisted::Refused(messages.no_revision(name))),
            (401 | 403, "GatedRepo") => return Err(Unlisted::Refused(messages.gated(name))),
            (401 | 403 | 404, _) => return Err(Unlisted::Refused(messages.no_repository(name))),
            (status, _) => return Err(odd(&format!("status {status}"))),
        }
        let listing: Self = answer
            .body_mut()
            .read_json()
            .map_err(|_| odd("something other than the description of a repository"))?;
        if is_commit(&listing.sha) { Ok(listing) } else { Err(odd("a description without a commit")) }
    }

    pub fn find(&self, name: &str) -> Option<&HubFile> {
        self.files.iter().find(|file| file.name == name)
    }

    pub fn is_gated(&self) -> bool {
        !matches!(self.gated, Value::Null | Value::Bool(false))
    }
}

impl HubFile {
    /// Whether it may have any size.
    pub fn is_weights(&self) -> bool {
        self.name.ends_with(WEIGHTS_ENDING)
    }

    /// The name of the file's blob: the hash that the hub gives, as `huggingface_hub` names it. Some mirrors give none;
    /// then the name is made from the file's own, which stands for the same bytes in one commit.
    pub fn blob_name(&self, repository: &str, commit: &str) -> String {
        let hash = self.lfs.as_ref().map(|lfs| &lfs.sha256).or(self.blob_id.as_ref());
        let is_hash =
            |hash: &&String| matches!(hash.len(), 40 | 64) && hash.chars().all(|c| c.is_ascii_hexdigit());
        let made = || hex(&Sha256::digest(format!("{repository} {commit} {}", self.name)));
        hash.filter(is_hash).cloned().unwrap_or_else(made)
    }
}
