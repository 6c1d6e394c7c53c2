//! Converts text to token ids and back: tokenizer, chat template, incremental detokenizing, and the check that a pair
//! shares its vocabulary.
//!
//! All of it gives the results of `transformers` with the same checkpoint, which golden tests check. The files of a
//! checkpoint are untrusted: panics of the tokenizer library become errors, and templates are rendered in a sandbox
//! (see [`ChatTemplate`]).

mod config;
mod contain;
mod conversation;
mod detokenize;
mod length;
mod python;
mod sandbox;
mod template;
mod tokenizer;

use serde_json::{Map, Value};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::ids::TokenId;

pub use conversation::{Conversation, Message};
pub use detokenize::Detokenizer;
pub use python::{CLOCK, clock};
pub use template::ChatTemplate;
pub use tokenizer::{Special, Tokenizer, check_same_vocabulary};

/// Turns prompts into token ids: a model's tokenizer and, if it has one, its chat template. Cheap to clone, safe to
/// share between threads.
#[derive(Debug, Clone)]
pub struct Text {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
}

impl Text {
    /// The tokenizer and the template of `checkpoint`.
    ///
    /// # Errors
    /// As [`Tokenizer::load`] and [`ChatTemplate::load`].
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        Ok(Self { tokenizer: Tokenizer::load(checkpoint)?, template: ChatTemplate::load(checkpoint)? })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template; a base model may have none.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// The token ids of a conversation, rendered up to where the assistant speaks next. The template writes the
    /// special tokens itself, so the tokenizer adds none.
    ///
    /// # Errors
    /// [`Error::Request`] if there is no template, or it refuses the conversation, or the tokenizer refuses the text.
    pub fn prompt_ids(
        &self,
        conversation: &Conversation,
        kwargs: &Map<String, Value>,
    ) -> Result<Vec<TokenId>> {
        let template = self.template.as_ref().ok_or_else(|| {
            Error::Request(format!(
                "{} has no chat template beside it (chat_template.jinja, or chat_template in tokenizer_config.json); \
                 give plain prompts",
                self.tokenizer.path().display()
            ))
        })?;
        self.tokenizer.encode(&template.render(conversation, kwargs)?, Special::None)
    }

    /// The token ids of a plain prompt. The tokenizer adds the special tokens that its configuration names, such as a
    /// BOS.
    ///
    /// # Errors
    /// [`Error::Request`] if the tokenizer refuses the text.
    pub fn prompt_ids_of_text(&self, text: &str) -> Result<Vec<TokenId>> {
        self.tokenizer.encode(text, Special::AsConfigured)
    }
}
