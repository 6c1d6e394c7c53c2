//! Converts text to token ids and back: tokenizer, chat template, incremental detokenizing, and the check that a pair
//! shares its vocabulary.
//!
//! All of it gives the results of `transformers` with the same checkpoint, which golden tests check. The files of a
//! checkpoint are untrusted: panics of the tokenizer library become errors, and templates are rendered in a sandbox
//! (see [`ChatTemplate`]).

mod config;
mod contain;
mod continuation;
mod control_tokens;
mod conversation;
mod detokenize;
mod jinja;
mod length;
mod sandbox;
mod template;
mod tokenizer;
mod tokenizer_fault;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::ids::TokenId;

use control_tokens::ControlTokens;
pub use conversation::{Conversation, Message};
pub use detokenize::Detokenizer;
pub use jinja::{CLOCK, clock};
pub use template::ChatTemplate;
pub use tokenizer::{Special, Tokenizer, check_same_vocabulary};

/// Turns prompts into token ids: a model's tokenizer and, if it has one, its chat template. Cheap to clone, safe to
/// share between threads.
#[derive(Debug, Clone)]
pub struct Text {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    /// Tokens of the longest prompt; `None` if it is not known.
    longest_prompt: Option<usize>,
    /// The control tokens that are plain text in a conversation, if they are to be.
    control_tokens: Option<Arc<ControlTokens>>,
    notes: Arc<Notes>,
}

/// What is strange about the files or the prompts, and still works.
#[derive(Debug, Default)]
struct Notes {
    warnings: Mutex<Vec<String>>,
    has_doubled_beginning: AtomicBool,
}

impl Notes {
    fn add(&self, warnings: impl IntoIterator<Item = String>) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).extend(warnings);
    }
}

impl Text {
    /// The tokenizer and the template of `checkpoint`.
    ///
    /// # Errors
    /// As [`Tokenizer::load`] and [`ChatTemplate::load`].
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        let (tokenizer, template) = (Tokenizer::load(checkpoint)?, ChatTemplate::load(checkpoint)?);
        let notes = Notes::default();
        notes.add(tokenizer.warnings().iter().cloned());
        Ok(Self { tokenizer, template, longest_prompt: None, control_tokens: None, notes: Arc::new(notes) })
    }

    /// Takes the warnings that were not taken yet: about the files, and about prompts that were made since.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a warning.
    pub(crate) fn warn(&self, warning: String) {
        self.notes.add([warning]);
    }

    /// Refuses prompts of more tokens by their length alone where that is certain, before they are tokenized.
    pub(crate) fn set_longest_prompt(&mut self, tokens: usize) {
        self.longest_prompt = Some(tokens);
    }

    /// Sets whether control tokens that are written in a conversation are plain text, so that only the template's own are
    /// control tokens. By default they are not, as in transformers.
    ///
    /// Control tokens are the special tokens, and the other added tokens that the template's own text holds (or those of
    /// `chat_control_tokens` in `tokenizer_config.json`).
    pub fn set_sanitize_control_tokens(&mut self, sanitize: bool) {
        self.control_tokens = sanitize.then(|| {
            let sources = self.template.as_ref().map(ChatTemplate::sources).unwrap_or_default();
            Arc::new(ControlTokens::new(self.tokenizer.control_tokens(&sources)))
        });
    }

    /// # Errors
    /// [`Error::Request`] if `text` has certainly more tokens than a prompt may have.
    fn check_length(&self, text: &str) -> Result<()> {
        let (Some(window), least) = (self.longest_prompt, self.tokenizer.least_tokens(text)) else {
            return Ok(());
        };
        if least < window {
            return Ok(());
        }
        let bytes = text.len();
        Err(Error::Request(format!(
            "the prompt has {bytes} bytes, which are {least} tokens or more and leave no room in the window of {window}"
        )))
    }

    /// Warns once of a prompt that begins with the same token twice.
    fn check_beginning(&self, ids: &[TokenId]) {
        let Some(begin) = self.tokenizer.beginning_of_text() else { return };
        if ids.starts_with(&[begin, begin]) && !self.notes.has_doubled_beginning.swap(true, Ordering::Relaxed)
        {
            let name = self.tokenizer.token_of(begin).unwrap_or_default();
            self.warn(format!(
                "a prompt begins with {name} twice: the template or the prompt writes it, and it is added too"
            ));
        }
    }

    /// The token ids of a rendered conversation, in which control tokens are marked.
    fn ids_of_marked(&self, rendered: &str, control_tokens: &ControlTokens) -> Result<Vec<TokenId>> {
        let mut ids = Vec::new();
        for (index, (part, is_plain)) in control_tokens.parts(rendered).into_iter().enumerate() {
            if !part.is_empty() {
                ids.extend(self.tokenizer.encode_part(part, index > 0, is_plain)?);
            }
        }
        Ok(ids)
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
        self.render(conversation, kwargs).map(|(_, ids)| ids)
    }

    /// A conversation as text and as the token ids that [`Text::prompt_ids`] gives.
    ///
    /// # Errors
    /// Those of [`Text::prompt_ids`].
    pub fn render(
        &self,
        conversation: &Conversation,
        kwargs: &Map<String, Value>,
    ) -> Result<(String, Vec<TokenId>)> {
        let template = self.template.as_ref().ok_or_else(|| {
            Error::Request(format!(
                "{} has no chat template beside it (chat_template.jinja, or chat_template in tokenizer_config.json): this \
                 looks like a base model; is it the amateur? Or use the `prompt` column",
                self.tokenizer.path().display()
            ))
        })?;
        let (text, ids) = if let Some(control_tokens) = &self.control_tokens {
            let (mut conversation, mut kwargs) = (conversation.clone(), kwargs.clone());
            control_tokens.mark_conversation(&mut conversation);
            control_tokens.mark_object(&mut kwargs);
            let marked = template.render(&conversation, &kwargs)?;
            self.check_length(&marked)?;
            let text = control_tokens.parts(&marked).into_iter().map(|(part, _)| part).collect();
            (text, self.ids_of_marked(&marked, control_tokens)?)
        } else {
            let text = template.render(conversation, kwargs)?;
            self.check_length(&text)?;
            let ids = self.tokenizer.encode(&text, Special::None)?;
            (text, ids)
        };
        self.check_beginning(&ids);
        Ok((text, ids))
    }

    /// The token ids of a plain prompt. The tokenizer adds the special tokens that its configuration names, such as a
    /// BOS.
    ///
    /// # Errors
    /// [`Error::Request`] if the tokenizer refuses the text.
    pub fn prompt_ids_of_text(&self, text: &str) -> Result<Vec<TokenId>> {
        self.check_length(text)?;
        let ids = self.tokenizer.encode(text, Special::AsConfigured)?;
        self.check_beginning(&ids);
        Ok(ids)
    }

    /// A plain prompt with the special tokens that are added to it, as text and as the token ids that
    /// [`Text::prompt_ids_of_text`] gives.
    ///
    /// # Errors
    /// Those of [`Text::prompt_ids_of_text`].
    pub fn render_text(&self, text: &str) -> Result<(String, Vec<TokenId>)> {
        let ids = self.prompt_ids_of_text(text)?;
        let own = self.tokenizer.encode(text, Special::None)?;
        let start = (0..=ids.len().saturating_sub(own.len())).find(|start| ids[*start..].starts_with(&own));
        let names =
            |ids: &[TokenId]| ids.iter().filter_map(|id| self.tokenizer.token_of(*id)).collect::<String>();
        let rendered = match start {
            Some(start) => {
                let (before, after) = (&ids[..start], &ids[start + own.len()..]);
                format!("{}{text}{}", names(before), names(after))
            }
            None => text.to_owned(),
        };
        Ok((rendered, ids))
    }
}
