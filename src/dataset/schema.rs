//! The names of the output's columns, and how values are quoted in messages.

use crate::error;

/// The columns that the output defines and no input may hold. (`id` and `instruction` are taken from the input.)
pub(super) const OUTPUT_COLUMNS: [&str; 11] = [
    "sample_index",
    "is_completed",
    "response",
    "res_metadata",
    "score",
    "expert_logprobs",
    "amateur_logprobs",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "error",
];

/// The beginning of a value that may be long, for a message.
pub(super) fn excerpt(text: &str) -> String {
    const KEPT: usize = 60;
    match text.char_indices().nth(KEPT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// A message of bounded length without control characters: what it quotes comes from a file.
pub(super) fn bounded(message: &str) -> String {
    error::excerpt(message).into_owned()
}
