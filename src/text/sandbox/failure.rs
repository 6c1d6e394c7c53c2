//! Why a template returned no text.

use std::error::Error as _;

use minijinja::{Error, ErrorKind};

use crate::error::excerpt;
use crate::text::jinja::Refusal;

/// Steps of the template engine that a render may take. A message takes some hundreds.
pub(super) const MOST_STEPS: u64 = 4_000_000;

/// The reason why a template returned no text.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::text) enum Failure {
    /// The template refused by `raise_exception`.
    Refused(String),
    /// The template is wrong or exceeds a limit.
    Failed(String),
    /// The template could not run, which is not its fault.
    Unavailable(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut root: &(dyn std::error::Error + 'static) = &error;
        while let Some(cause) = root.source() {
            root = cause;
        }
        if let Some(Refusal(message)) = root.downcast_ref() {
            return Self::Refused(excerpt(message).into_owned());
        }
        if error.kind() == ErrorKind::OutOfFuel {
            return Self::Failed(format!("it runs away: it takes more than {MOST_STEPS} steps"));
        }
        let line = error.line().map_or_else(String::new, |line| format!("line {line}: "));
        let detail = error.detail().map_or_else(String::new, |detail| format!(": {detail}"));
        let cause = error.source().map_or_else(String::new, |_| format!(": {root}"));
        Self::Failed(excerpt(&format!("{line}{}{detail}{cause}", error.kind())).into_owned())
    }
}
