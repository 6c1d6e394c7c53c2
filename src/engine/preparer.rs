//! The text work of requests, separate from the engine so that another thread can do it.

use serde_json::{Map, Value};

use super::request::{Prompt, Request};
use crate::error::Result;
use crate::ids::TokenId;
use crate::profile;
use crate::text::{Conversation, Text};

/// Turns the prompts of requests into token ids, with the expert's tokenizer and chat template. It can be shared between
/// threads and cloned at little cost.
///
/// An [`Engine`](super::Engine) prepares what it is given. A request that is prepared already takes it no time, so a thread
/// that prepares requests leaves the engine's thread free to keep the device busy.
#[derive(Debug, Clone)]
pub struct Preparer {
    text: Text,
    template_variables: Map<String, Value>,
}

impl Preparer {
    /// A preparer whose chat template is given no variables.
    pub fn new(text: Text) -> Self {
        Self { text, template_variables: Map::new() }
    }

    /// The same request with [`Prompt::Tokens`].
    ///
    /// # Errors
    /// [`Error::Request`](crate::Error::Request) if the chat template or the tokenizer refuses the prompt.
    pub fn prepare(&self, request: Request) -> Result<Request> {
        let prompt = Prompt::Tokens(self.token_ids(request.prompt)?);
        Ok(Request { prompt, ..request })
    }

    pub(super) fn token_ids(&self, prompt: Prompt) -> Result<Vec<TokenId>> {
        let _range = profile::range(c"prepare");
        prompt.into_ids(&self.text, &self.template_variables)
    }

    /// The token ids of a conversation.
    ///
    /// # Errors
    /// [`Error::Request`](crate::Error::Request) if there is no chat template or it refuses the conversation.
    pub fn chat_ids(&self, conversation: &Conversation) -> Result<Vec<TokenId>> {
        self.text.prompt_ids(conversation, &self.template_variables)
    }

    /// The variables that the chat template is given beside the conversation, such as `enable_thinking`.
    pub fn set_template_variables(&mut self, variables: Map<String, Value>) {
        self.template_variables = variables;
    }

    /// Sets whether control tokens in a conversation are plain text: see [`Text::set_sanitize_control_tokens`].
    pub fn set_sanitize_control_tokens(&mut self, sanitize: bool) {
        self.text.set_sanitize_control_tokens(sanitize);
    }

    /// The tokenizer and the chat template.
    pub fn text(&self) -> &Text {
        &self.text
    }
}
