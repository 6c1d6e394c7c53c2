//! The messages for the user if a model cannot be fetched.

use std::path::PathBuf;
use std::{fmt, io};

use super::name::ModelName;
use crate::checkpoint::Parts;
use crate::error::Error;

/// The parts of a message.
#[derive(Debug)]
pub(super) struct Messages {
    pub endpoint: String,
    /// The folder of the cache.
    pub cache: PathBuf,
    pub has_token: bool,
}

impl Messages {
    pub fn no_repository(&self, name: &ModelName) -> Error {
        let remedy = if self.has_token {
            "check the name, and that the token in use may read it"
        } else {
            "check the name; if it is private, set HF_TOKEN, or log in with hf auth login"
        };
        Error::Setting(format!(
            "{name} is no folder here, and {} has no such repository or does not show it; {remedy}",
            self.endpoint
        ))
    }

    pub fn no_revision(&self, name: &ModelName) -> Error {
        let (ModelName { repository, .. }, revision) = (name, name.revision());
        let page = format!("{}/{repository}", self.endpoint);
        Error::Setting(format!(
            "{repository} has no revision {revision:?}; give a branch, a tag or a commit of {page}, or none"
        ))
    }

    pub fn gated(&self, name: &ModelName) -> Error {
        let page = format!("{}/{}", self.endpoint, name.repository);
        let remedy = if self.has_token {
            format!(
                "accept its licence at {page} with the account of the token in use (HF_TOKEN, or hf auth login)"
            )
        } else {
            format!(
                "accept its licence at {page}, then set HF_TOKEN to a token of that account, or log in with hf auth login"
            )
        };
        Error::Setting(format!("{} is gated; {remedy}", name.repository))
    }

    pub fn unreachable(&self, name: &ModelName, reason: &str) -> Error {
        Error::Download(format!(
            "{name} is not in the cache at {}, and the hub is unreachable ({}: {reason}); go online, run `{}`, or pass a \
             folder",
            self.cache.display(),
            self.endpoint,
            download(name),
        ))
    }

    pub fn not_cached(&self, name: &ModelName, parts: Parts) -> Error {
        let what = if parts == Parts::Config { "its config.json is" } else { "some of it is" };
        Error::Setting(format!(
            "{name}: {what} not in the cache at {}, and HF_HUB_OFFLINE is set; unset it, run `{}` where there is a \
             network, or pass a folder",
            self.cache.display(),
            download(name),
        ))
    }

    pub fn unwritable(&self, name: &ModelName, error: &io::Error) -> Error {
        Error::Download(format!(
            "{}: cannot write to the cache at {}: {error}; make room, and the same command goes on where it broke \
             off; or set HF_HOME to a folder on another disk",
            name.repository,
            self.cache.display()
        ))
    }

    pub fn broken_off(&self, name: &ModelName, file: &str, error: &dyn fmt::Display) -> Error {
        Error::Download(format!(
            "{}: {file} broke off ({error}) while it came from {}; the same command goes on where it broke off",
            name.repository, self.endpoint
        ))
    }

    pub fn damaged(&self, name: &ModelName, file: &str, fault: &str) -> Error {
        Error::Download(format!(
            "{}: {file} as it came from {} {fault}; it is removed, and the same command fetches it again",
            name.repository, self.endpoint
        ))
    }
}

/// The command that fetches the model into the cache.
fn download(name: &ModelName) -> String {
    let revision = name.revision.as_ref().map(|revision| format!(" --revision {revision}"));
    format!("hf download {}{}", name.repository, revision.unwrap_or_default())
}
