//! The name of a model on the hub.

use std::fmt;
use std::str::FromStr;

use crate::checkpoint::is_path;
use crate::error::{Error, Result};

/// The branch of a name without a revision.
const MAIN: &str = "main";

/// `owner/name`, optionally `@revision`: a branch, a tag or a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    /// `owner/name`.
    pub repository: String,
    /// The text after the `@`; the branch main without one.
    pub revision: Option<String>,
}

impl ModelName {
    /// The branch, tag or commit.
    pub(super) fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }
}

impl FromStr for ModelName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if is_path(text) {
            return Err(Error::file(text, "no such folder"));
        }
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (text, None),
        };
        let is_plain = |part: &str, extra: &[char]| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c) || extra.contains(&c))
                && !part.contains("..")
        };
        let is_repository = repository
            .split_once('/')
            .is_some_and(|(owner, name)| is_plain(owner, &[]) && is_plain(name, &[]));
        if !is_repository || !revision.is_none_or(|revision| is_plain(revision, &['/'])) {
            return Err(Error::Setting(format!(
                "{text:?} is neither a folder nor a Hugging Face id, which is owner/name or owner/name@revision, \
                 such as Qwen/Qwen3-8B"
            )));
        }
        Ok(Self { repository: repository.to_owned(), revision: revision.map(str::to_owned) })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}
