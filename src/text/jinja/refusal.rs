//! What `raise_exception` raises.

use std::fmt;

use minijinja::{Error, ErrorKind};

/// A template's own refusal, as the source of an engine's error.
#[derive(Debug)]
pub(in crate::text) struct Refusal(pub(in crate::text) String);

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// The error of a template that refuses by `raise_exception`.
pub(super) fn refusal(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Refusal(message))
}
