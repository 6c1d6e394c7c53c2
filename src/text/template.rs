//! The chat template of a checkpoint, rendered as `transformers` renders it.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::config::{TOKENIZER_CONFIG_FILE, TokenizerConfig};
use super::continuation::Continuation;
use super::conversation::Conversation;
use super::sandbox::{Failure, LONGEST_SOURCE, Sandbox, too_long};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};

const TEMPLATE_FILE: &str = "chat_template.jinja";
const TOOL_USE_FILE: &str = "additional_chat_templates/tool_use.jinja";

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
    /// The template for conversations; `None` if the checkpoint has only one for tools.
    default: Option<Sandbox>,
    /// The template named `tool_use`, for conversations with tools.
    tool_use: Option<Sandbox>,
    /// `bos_token` and the other named tokens.
    special_tokens: Map<String, Value>,
    tells_time: bool,
}

impl ChatTemplate {
    /// Loads the template of a checkpoint: `chat_template.jinja` with what is in `additional_chat_templates`, or else
    /// `chat_template` in `tokenizer_config.json`. Of several, the one named `tool_use` renders conversations with tools,
    /// and `default` the others. `None` if the checkpoint has no template.
    ///
    /// # Errors
    /// [`Error::File`] if the template does not parse, naming its line, or the configuration is not what it should be.
    pub fn load(checkpoint: &Checkpoint) -> Result<Option<Self>> {
        let config = TokenizerConfig::load(checkpoint)?;
        let Some(Sources { path, default, tool_use }) = find(checkpoint, &config)? else { return Ok(None) };
        let compile = |source: Option<&String>| {
            source.map(|source| Sandbox::compile(source)).transpose().map_err(|failure| match failure {
                Failure::Unavailable(message) => unavailable(&message),
                Failure::Refused(message) | Failure::Failed(message) => {
                    // The engine's word for an operator whose operands this program hands to a function.
                    let message =
                        message.replace(TOO_MANY, "an expression of more than 2,000 parts is not supported");
                    Error::file(path.clone(), format!("the chat template does not parse: {message}"))
                }
            })
        };
        let tells_time =
            [&default, &tool_use].into_iter().flatten().any(|source| source.contains("strftime_now"));
        Ok(Some(Self {
            shared: Arc::new(Shared {
                default: compile(default.as_ref())?,
                tool_use: compile(tool_use.as_ref())?,
                special_tokens: config
                    .named_tokens
                    .into_iter()
                    .map(|(name, token)| (name, token.into()))
                    .collect(),
                tells_time,
            }),
        }))
    }

    /// The sources of all templates.
    pub(super) fn sources(&self) -> String {
        let sandboxes = [&self.shared.default, &self.shared.tool_use].into_iter().flatten();
        sandboxes.map(Sandbox::source).collect::<Vec<_>>().join("\0")
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
        let mut variables = self.variables(conversation, kwargs)?;
        let continuation = conversation
            .continue_final_message
            .then(|| Continuation::mark(&mut variables["messages"]))
            .transpose()
            .map_err(Error::Request)?;
        let has_tools = variables.get("tools").is_some_and(|tools| !tools.is_null());
        let tool_use = self.shared.tool_use.as_ref().filter(|_| has_tools);
        let sandbox = tool_use.or(self.shared.default.as_ref()).ok_or_else(|| {
            Error::Request("the checkpoint has no chat template named \"default\", only others".to_owned())
        })?;
        let rendered = sandbox.render(variables).map_err(|failure| match failure {
            Failure::Unavailable(message) => unavailable(&message),
            Failure::Refused(message) => {
                Error::Request(format!("the chat template refuses the conversation: {message}"))
            }
            Failure::Failed(message) => Error::Request(format!("the chat template fails: {message}")),
        })?;
        match continuation {
            Some(continuation) => continuation.cut(rendered).map_err(Error::Request),
            None => Ok(rendered),
        }
    }

    fn variables(
        &self,
        conversation: &Conversation,
        kwargs: &Map<String, Value>,
    ) -> Result<Map<String, Value>> {
        let is_set = |name: &&&str| {
            kwargs.contains_key(**name) || conversation.template_variables.contains_key(**name)
        };
        if let Some(name) = ["messages", "add_generation_prompt"].iter().find(is_set) {
            return Err(Error::Request(format!("the template's variable {name} is not for kwargs to set")));
        }
        let mut messages = json!(conversation.messages);
        messages.as_array_mut().into_iter().flatten().for_each(normalize);
        let mut variables = self.shared.special_tokens.clone();
        variables.extend([
            ("tools".to_owned(), Value::Null),
            ("documents".to_owned(), Value::Null),
            ("messages".to_owned(), messages),
            ("add_generation_prompt".to_owned(), json!(!conversation.continue_final_message)),
        ]);
        variables.extend(kwargs.clone());
        variables.extend(conversation.template_variables.clone());
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

/// The sources of a checkpoint's templates, and the file that holds them.
struct Sources {
    path: PathBuf,
    default: Option<String>,
    tool_use: Option<String>,
}

fn find(checkpoint: &Checkpoint, config: &TokenizerConfig) -> Result<Option<Sources>> {
    if let Some(default) = read(checkpoint, TEMPLATE_FILE)? {
        let tool_use = read(checkpoint, TOOL_USE_FILE)?;
        let path = checkpoint.path(TEMPLATE_FILE);
        return Ok(Some(Sources { path, default: Some(default), tool_use }));
    }
    let Some(entry) = &config.chat_template else { return Ok(None) };
    let path = checkpoint.path(TOKENIZER_CONFIG_FILE);
    let templates = match entry {
        Value::String(default) => {
            return Ok(Some(Sources { path, default: Some(default.clone()), tool_use: None }));
        }
        Value::Array(templates) if !templates.is_empty() => templates,
        _ => {
            return Err(Error::file(
                path,
                "chat_template is neither a template nor a list of templates with a name and a template each",
            ));
        }
    };
    let mut sources = Sources { path, default: None, tool_use: None };
    for template in templates {
        let (Some(name), Some(source)) = (template["name"].as_str(), template["template"].as_str()) else {
            let message = "chat_template is a list with an entry that has no name or no template";
            return Err(Error::file(sources.path, message));
        };
        match name {
            "default" => sources.default = Some(source.to_owned()),
            "tool_use" => sources.tool_use = Some(source.to_owned()),
            _ => {}
        }
    }
    if sources.default.is_none() && sources.tool_use.is_none() {
        let message = "chat_template is neither a template nor a list with one named \"default\"";
        return Err(Error::file(sources.path, message));
    }
    Ok(Some(sources))
}

const TOO_MANY: &str = "Too many arguments in function call";

fn read(checkpoint: &Checkpoint, file: &str) -> Result<Option<String>> {
    let Some(bytes) = checkpoint.find(file)? else { return Ok(None) };
    if bytes.len() > LONGEST_SOURCE {
        let message = format!("the chat template does not parse: {}", too_long());
        return Err(Error::file(checkpoint.path(file), message));
    }
    match std::str::from_utf8(&bytes) {
        Ok(source) => Ok(Some(source.to_owned())),
        Err(error) => Err(Error::file(checkpoint.path(file), format!("not UTF-8: {error}"))),
    }
}

/// Drops the fields that are null, and names a message's reasoning. It has had several names; each is set, as in
/// `transformers`, so that templates of all ages find theirs.
fn normalize(message: &mut Value) {
    let Value::Object(fields) = message else { return };
    fields.retain(|_, value| !value.is_null());
    let names = ["reasoning_content", "thinking", "reasoning"];
    let Some(reasoning) = names.iter().find_map(|name| fields.get(*name)).cloned() else { return };
    let mut named = Map::new();
    named.insert("thinking".to_owned(), reasoning.clone());
    named.append(fields);
    named.insert("reasoning_content".to_owned(), reasoning);
    *fields = named;
}
