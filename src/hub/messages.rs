//! The messages for the user if a model cannot be fetched.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::{env, fmt, io};

use super::name::ModelName;
use crate::checkpoint::Parts;
use crate::error::Error;

/// Why the hub is of no use, in words.
pub(super) enum Reason {
    /// It did not answer.
    Unreachable(String),
    /// Its answer is no description of a repository.
    Odd(String),
}

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

    pub fn unusable(&self, name: &ModelName, reason: &Reason) -> Error {
        let endpoint = &self.endpoint;
        let (what, remedy) = match reason {
            Reason::Unreachable(reason) => {
                (format!("is unreachable ({endpoint}{}: {reason})", proxy()), "go online")
            }
            Reason::Odd(answer) => (
                format!("at {endpoint}{} answers with {answer}", proxy()),
                "try again later, or check HF_ENDPOINT",
            ),
        };
        Error::Download(format!(
            "{name} is not in the cache at {}, and the hub {what}; {remedy}, run `{}`, or pass a folder",
            self.cache.display(),
            download(name),
        ))
    }

    /// A file that is listed and not given.
    pub fn withheld(&self, name: &ModelName, file: &str, status: u16) -> Error {
        let remedy = match status {
            401 | 403 => "check that the token in use may read it (HF_TOKEN, or hf auth login)",
            _ => "try again later, or give another revision",
        };
        Error::Download(format!(
            "{}: {} lists {file} and answers with status {status} when it is asked for it; {remedy}",
            name.repository, self.endpoint
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
            "{}: cannot write to the cache at {}: {error}; {}",
            name.repository,
            self.cache.display(),
            match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                    "make room, and the same command goes on where it broke off; or set HF_HOME to a folder on another disk"
                }
                _ => "mend that folder, or set HF_HOME to another",
            }
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

/// The proxy that requests go through, in words.
fn proxy() -> String {
    let variables = ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];
    let found = variables.into_iter().find(|name| env::var_os(name).is_some_and(|value| !value.is_empty()));
    found.map_or(String::new(), |name| format!(" through the proxy that {name} names"))
}
