//! Text to token ids and back: tokenizer, chat template, incremental detokenizing, the check of a pair's vocabulary.

use serde::{Deserialize, Serialize};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or whatever else the chat template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}
