//! Standard output, where commands print what was asked for.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stdout};
use std::path::Path;

use serde::Serialize;

use codit::error::{Error, Result};

const NAME: &str = "standard output";

/// Standard output, for [`write!`] and [`writeln!`]. Unlike [`println!`] it does not panic if nobody reads any more.
pub struct Output;

impl Output {
    /// Writes formatted text.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written: see [`is_closed`].
    #[allow(clippy::unused_self, reason = "the signature that `write!` and `writeln!` call")]
    pub fn write_fmt(&self, text: Arguments<'_>) -> Result<()> {
        stdout().write_fmt(text).map_err(Error::io(NAME, "cannot write"))
    }

    /// Writes a report as JSON.
    ///
    /// # Errors
    /// Those of [`Output::write_fmt`].
    pub fn write_json(&self, report: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(report)
            .map_err(|error| Error::Device(format!("cannot print the report: {error}")))?;
        writeln!(self, "{text}")
    }
}

/// Writes what is still held back.
///
/// # Errors
/// [`Error::Io`] if it cannot be written: see [`is_closed`].
pub fn flush() -> Result<()> {
    stdout().flush().map_err(Error::io(NAME, "cannot write"))
}

/// Whether `error` says that the reader of standard output has gone, as in `codit pairs | head -3`.
pub fn is_closed(error: &Error) -> bool {
    matches!(error, Error::Io { path, source, .. }
        if path == Path::new(NAME) && source.kind() == ErrorKind::BrokenPipe)
}
