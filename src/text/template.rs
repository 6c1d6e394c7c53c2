//! The chat template of a checkpoint, rendered as `transformers` renders it.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::config::{TOKENIZER_CONFIG_FILE, TokenizerConfig};
use super::conversation::Conversation;
use super::sandbox::{Failure, LONGEST_SOURCE, Sandbox, too_long};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};

const TEMPLATE_FILE: &str = "chat_template.jinja";

/// A chat template. Cheap to clone, safe to share between threads.
///
/// A template is a program of the model's publisher. It sees only the conversation and the clock. Its steps, output,
/// memory and time are limited, so a template that does not end is an error.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    sandbox: Sandbox,
    /// `bos_token` and the other named tokens.
    special_tokens: Map<String, Value>,
    tells_time: bool,
}

impl ChatTemplate {
    /// Loads the template of a checkpoint: `chat_template.jinja`, or else `chat_template` in `tokenizer_config.json`;
    /// of several, the one named `default`. `None` if the checkpoint has no template.
    ///
    /// # Errors
    /// [`Error::File`] if the template does not parse, naming its line, or the configuration is not what it should be.
    pub fn load(checkpoint: &Checkpoint) -> Result<Option<Self>> {
        let config = TokenizerConfig::load(checkpoint)?;
        let Some((path, source)) = find(checkpoint, &config)? else { return Ok(None) };
        let sandbox = Sandbox::compile(&source).map_err(|failure| match failure {
            Failure::Unavailable(message) => unavailable(&message),
            Failure::Refused(message) | Failure::Failed(message) => {
                Error::file(path, format!("the chat template does not parse: {message}"))
            }
        })?;
        let mut special_tokens: Map<String, Value> =
            config.named_tokens.into_iter().map(|(name, token)| (name, token.into())).collect();
        if !config.extra_tokens.is_empty() {
            special_tokens.insert("extra_special_tokens".to_owned(), json!(config.extra_tokens));
        }
        let tells_time = source.contains("strftime_now");
        Ok(Some(Self { shared: Arc::new(Shared { sandbox, special_tokens, tells_time }) }))
    }

    /// All text that the template holds, in pieces separated by NUL.
    pub(super) fn literals(&self) -> &str {
        self.shared.sandbox.literals()
    }

    /// Whether the template may write the current date. A run that must be repeatable fixes the clock with the
    /// variable [`CLOCK`](super::CLOCK).
    pub fn tells_time(&self) -> bool {
        self.shared.tells_time
    }

    /// Renders a conversation up to where the assistant speaks next; `kwargs` are further variables, such as
    /// `enable_thinking`.
    ///
    /// # Errors
    /// [`Error::Request`] with the template's own words if it refuses the conversation, or with the line at which it
    /// fails or the limit that it exceeds.
    pub fn render(&self, conversation: &Conversation, kwargs: &Map<String, Value>) -> Result<String> {
        let variables = self.variables(conversation, kwargs)?;
        self.shared.sandbox.render(variables).map_err(|failure| match failure {
            Failure::Unavailable(message) => unavailable(&message),
            Failure::Refused(message) => {
                Error::Request(format!("the chat template refuses the conversation: {message}"))
            }
            Failure::Failed(message) => Error::Request(format!("the chat template fails: {message}")),
        })
    }

    fn variables(
        &self,
        conversation: &Conversation,
        kwargs: &Map<String, Value>,
    ) -> Result<Map<String, Value>> {
        if let Some(name) =
            ["messages", "add_generation_prompt"].iter().find(|name| kwargs.contains_key(**name))
        {
            return Err(Error::Request(format!("the template's variable {name} is not for kwargs to set")));
        }
        let mut messages = json!(conversation.messages);
        messages.as_array_mut().into_iter().flatten().for_each(name_reasoning);
        let mut variables = self.shared.special_tokens.clone();
        variables.extend([
            ("tools".to_owned(), Value::Null),
            ("documents".to_owned(), Value::Null),
            ("messages".to_owned(), messages),
            ("add_generation_prompt".to_owned(), json!(true)),
        ]);
        variables.extend(kwargs.clone());
        let of_row = [("tools", &conversation.tools), ("documents", &conversation.documents)];
        variables.extend(
            of_row.into_iter().filter_map(|(name, list)| Some((name.to_owned(), json!(list.as_ref()?)))),
        );
        Ok(variables)
    }
}

fn unavailable(message: &str) -> Error {
    Error::System(format!("the chat template cannot run: {message}"))
}

/// The template's source, and the file that holds it.
fn find(checkpoint: &Checkpoint, config: &TokenizerConfig) -> Result<Option<(PathBuf, String)>> {
    if let Some(bytes) = checkpoint.find(TEMPLATE_FILE)? {
        let path = checkpoint.path(TEMPLATE_FILE);
        if bytes.len() > LONGEST_SOURCE {
            return Err(Error::file(path, format!("the chat template does not parse: {}", too_long())));
        }
        return match std::str::from_utf8(&bytes) {
            Ok(source) => Ok(Some((path, source.to_owned()))),
            Err(error) => Err(Error::file(path, format!("not UTF-8: {error}"))),
        };
    }
    let Some(entry) = &config.chat_template else { return Ok(None) };
    let default = match entry {
        Value::Array(templates) => {
            let named_default = templates.iter().find(|template| template["name"] == "default");
            named_default.map(|template| &template["template"])
        }
        entry => Some(entry),
    };
    let path = checkpoint.path(TOKENIZER_CONFIG_FILE);
    match default.and_then(Value::as_str) {
        Some(source) => Ok(Some((path, source.to_owned()))),
        None => Err(Error::file(
            path,
            "chat_template is neither a template nor a list with one named \"default\"",
        )),
    }
}

/// A message's reasoning has had several names. Each is set, as in `transformers`, so that templates of all ages find
/// theirs.
fn name_reasoning(message: &mut Value) {
    let Value::Object(message) = message else { return };
    let names = ["reasoning_content", "thinking", "reasoning"];
    let reasoning = names.iter().filter_map(|name| message.get(*name)).find(|reasoning| !reasoning.is_null());
    if let Some(reasoning) = reasoning.cloned() {
        message.entry("thinking").or_insert_with(|| reasoning.clone());
        message.insert("reasoning_content".to_owned(), reasoning);
    }
}
