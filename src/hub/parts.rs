//! How much of a model is fetched.

use crate::checkpoint::Checkpoint;

pub(super) const CONFIG_FILE: &str = "config.json";
const TOKENIZER_FILE: &str = "tokenizer.json";
/// All that a checkpoint's text and shape are read from.
pub(super) const SMALL_FILES: [&str; 6] = [
    CONFIG_FILE,
    "generation_config.json",
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

/// How much of a model is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parts {
    /// config.json, which says the model's shape.
    Config,
    /// That, the tokenizer, the chat template and the rest that is small.
    Text,
    /// Those and the weights.
    All,
}

impl Parts {
    /// Whether `checkpoint` has what no model can do without.
    pub(super) fn are_in(self, checkpoint: &Checkpoint) -> bool {
        let has_weights =
            || checkpoint.weight_files().is_ok_and(|files| files.iter().all(|file| checkpoint.has(file)));
        checkpoint.has(CONFIG_FILE)
            && (self < Self::Text || checkpoint.has(TOKENIZER_FILE))
            && (self < Self::All || has_weights())
    }
}
