//! What rows do that a user may not expect. Each is said once for an input.

use super::columns::{Columns, present};

/// Columns that loaders take for the answer that is to be learned.
const ANSWERS: [&str; 7] = ["output", "completion", "chosen", "rejected", "text", "answer", "target"];

/// Columns that other datasets use for a part of the prompt.
const NOT_READ: [&str; 3] = ["context", "system_prompt", "question"];

/// One thing that rows do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remark {
    /// `input` is joined to the instruction.
    Joined,
    /// `history` gives the earlier turns.
    History,
    /// `system` gives the system message.
    System,
    /// A column of [`ANSWERS`] passes through.
    Answer(&'static str),
    /// A column of [`NOT_READ`] passes through.
    NotRead(&'static str),
}

impl Remark {
    /// What is to be said of the columns that pass through.
    pub fn of_columns(columns: &Columns) -> impl Iterator<Item = Self> {
        let is_there = |name: &&&'static str| present(columns, name).is_some();
        let answers = ANSWERS.iter().filter(is_there).map(|name| Self::Answer(name));
        answers.chain(NOT_READ.iter().filter(is_there).map(|name| Self::NotRead(name)))
    }

    /// The remark in words; `line` is the first line that it is true of.
    pub fn describe(self, line: usize) -> String {
        match self {
            Self::Joined => {
                format!("column input is joined to the instruction, as Alpaca does (first in line {line})")
            }
            Self::History => format!("column history gives the earlier turns (first in line {line})"),
            Self::System => format!("column system gives the system message (first in line {line})"),
            Self::Answer(name) => format!(
                "column {name} is kept beside response; it is the input's, not the models' (first in line {line})"
            ),
            Self::NotRead(name) => {
                format!("column {name} is copied, but is no part of the prompt (first in line {line})")
            }
        }
    }
}
