//! The error type. Every message names the file, line or field and, where there is one, the remedy.

use std::borrow::Cow;
use std::fmt::{Display, LowerExp, Write};
use std::io;
use std::path::{Path, PathBuf};

/// An error. [`Error::exit_code`] distinguishes bad input (2) from a failure at work (1).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting out of range or settings that contradict each other.
    #[error("{}", shown(.0, MESSAGE))]
    Setting(String),
    /// A file (of a checkpoint, a dataset, a manifest) with invalid contents.
    #[error("{}: {}", shown(&path.to_string_lossy(), PATH), shown(message, MESSAGE))]
    File {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// An invalid line of a JSONL file.
    #[error("{}:{line}: {}", shown(&path.to_string_lossy(), PATH), shown(message, MESSAGE))]
    Line {
        /// The file at fault.
        path: PathBuf,
        /// The number of the line, counted from 1.
        line: usize,
        /// What is wrong and what to do.
        message: String,
    },
    /// Several invalid lines of a JSONL file: the messages of the first, and what to do about them all.
    #[error("{}", messages.join("\n"))]
    Lines {
        /// One line of text each.
        messages: Vec<String>,
    },
    /// One request that cannot be served (a template that fails, a prompt longer than the window).
    #[error("{}", shown(.0, MESSAGE))]
    Request(String),
    /// The operating system refused a file.
    #[error("{}: {action}: {source}{}", shown(&path.to_string_lossy(), PATH), remedy(source))]
    Io {
        /// The file at fault.
        path: PathBuf,
        /// The action that failed, such as "cannot open".
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A model could not be fetched: no network, an interrupted transfer, or no space for it.
    #[error("{}", shown(.0, MESSAGE))]
    Download(String),
    /// The device failed or has too little memory.
    #[error("{}", shown(.0, MESSAGE))]
    Device(String),
    /// The operating system refused a thread or another resource.
    #[error("{}", shown(.0, MESSAGE))]
    System(String),
}

/// Errors of Linux for which the standard library has no stable kind. `ELOOP`: symbolic links that lead to each other.
const TOO_MANY_LINKS: i32 = 40;
/// `ENOMEM`: the process may not have more memory.
const NO_MEMORY: i32 = 12;
/// `EMFILE`: the process may not open more files.
const OPEN_FILES: i32 = 24;
/// `EFBIG`: a file may not become larger.
const FILE_SIZE: i32 = 27;

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A [`Error::File`].
    pub fn file(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::File { path: path.as_ref().to_owned(), message: message.into() }
    }

    /// A [`Error::Line`].
    pub fn line(path: impl AsRef<Path>, line: usize, message: impl Into<String>) -> Self {
        Self::Line { path: path.as_ref().to_owned(), line, message: message.into() }
    }

    /// For `map_err`: an [`Error::Io`] at `path` while doing `action`.
    pub fn io(path: impl AsRef<Path>, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { path, action, source }
    }

    /// For `map_err`: the system refuses to start a thread.
    pub fn refused_thread(error: &io::Error) -> Self {
        Self::System(format!(
            "the system refuses a thread: {error}; raise the limits on processes (ulimit -u) and on memory (ulimit -v)"
        ))
    }

    /// The message in lines: one, or one for each invalid line of a file.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Lines { messages } => messages.clone(),
            error => vec![error.to_string()],
        }
    }

    /// The process's exit code for this error: 2 for bad input or settings (including a path that does not exist or
    /// cannot be written), 1 for a
    /// failure at work.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Setting(_)
            | Self::File { .. }
            | Self::Line { .. }
            | Self::Lines { .. }
            | Self::Request(_) => 2,
            Self::Io { source, .. } if source.raw_os_error() == Some(TOO_MANY_LINKS) => 2,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::AlreadyExists
                | io::ErrorKind::InvalidFilename
                | io::ErrorKind::ReadOnlyFilesystem => 2,
                _ => 1,
            },
            Self::Download(_) | Self::Device(_) | Self::System(_) => 1,
        }
    }
}

/// What to do about an error of the system, where its reason does not say it.
pub fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(NO_MEMORY) => "; end other programs, or raise the limit on memory (ulimit -v)",
        Some(OPEN_FILES) => "; raise the limit on open files (ulimit -n)",
        Some(FILE_SIZE) => "; raise the limit on the size of files (ulimit -f)",
        _ => "",
    }
}

/// Characters of the beginning and of the end of a message that are shown, if it is longer than both: what is wrong, and the
/// remedy. Names and values that a file holds can make a message of megabytes.
const MESSAGE: [usize; 2] = [900, 400];
/// The same of a path. A file can name another, with a name that no system takes.
const PATH: [usize; 2] = [200, 300];

/// `text` without its middle if it is long.
fn shown(text: &str, [first, last]: [usize; 2]) -> Cow<'_, str> {
    if text.len() <= first + last {
        return Cow::Borrowed(text);
    }
    let begin: String = text.chars().take(first).collect();
    let rest = &text[begin.len()..];
    match rest.char_indices().rev().nth(last - 1) {
        Some((end, _)) if end > 0 => Cow::Owned(format!("{begin} ... {}", &rest[end..])),
        _ => Cow::Borrowed(text),
    }
}

/// A number for a message: with an exponent if it would have more digits than anybody reads.
pub fn number(value: impl Display + LowerExp) -> String {
    let plain = value.to_string();
    if plain.len() <= LONGEST_NUMBER { plain } else { format!("{value:e}") }
}

/// Characters of a number that is written without an exponent.
const LONGEST_NUMBER: usize = 24;

/// Characters of a line of a message. A longer line is cut.
const LONGEST_LINE: usize = 400;

/// A text of unknown origin as one line of a message: control characters are escaped, so that a terminal shows them, and a
/// long text is cut.
pub fn excerpt(text: &str) -> Cow<'_, str> {
    let is_plain = |character: char| !character.is_control() && !changes_direction(character);
    if text.len() <= LONGEST_LINE && text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut line = String::new();
    for (index, character) in text.char_indices() {
        if line.len() >= LONGEST_LINE {
            // Writing to a string does not fail.
            let _ = write!(line, "... ({} more bytes)", text.len() - index);
            break;
        }
        if is_plain(character) {
            line.push(character);
        } else {
            line.extend(character.escape_default());
        }
    }
    Cow::Owned(line)
}

/// Whether a terminal writes what follows in another direction.
fn changes_direction(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
