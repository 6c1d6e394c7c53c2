//! A conversation: what a chat template renders.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One turn of a conversation: a JSON object. `role` and `content` are what most templates read; every other field, such as
/// `tool_calls` or `reasoning_content`, reaches the template unchanged and in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Message(Map<String, Value>);

impl Message {
    /// A message of `role`: `system`, `user`, `assistant`, `tool`, or another role that the template knows.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let field = |name: &str, text: String| (name.to_owned(), Value::String(text));
        Self([field("role", role.into()), field("content", content.into())].into_iter().collect())
    }

    /// The speaker; `None` if the message names none.
    pub fn role(&self) -> Option<&str> {
        self.0.get("role").and_then(Value::as_str)
    }

    /// The text of the message: `content`, or its text parts joined; empty if it has no text.
    pub fn text(&self) -> String {
        match self.0.get("content") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
            _ => String::new(),
        }
    }

    /// All fields.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// All fields.
    pub fn fields_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.0
    }
}

impl From<Map<String, Value>> for Message {
    fn from(fields: Map<String, Value>) -> Self {
        Self(fields)
    }
}

/// What a chat template renders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conversation {
    /// The turns.
    pub messages: Vec<Message>,
    /// JSON schemas of the functions that the assistant may call.
    pub tools: Option<Vec<Value>>,
    /// Documents for a template that renders them.
    pub documents: Option<Vec<Value>>,
    /// Whether the response continues the last message instead of answering it.
    pub continue_final_message: bool,
    /// Further variables for the template. They take precedence over those that all conversations share.
    pub template_variables: Map<String, Value>,
}

impl Conversation {
    /// One turn of the user.
    pub fn of_instruction(text: impl Into<String>) -> Self {
        vec![Message::new("user", text)].into()
    }

    /// The same conversation after a system message of `text`, unless it begins with a system message.
    #[must_use]
    pub fn with_system(mut self, text: &str) -> Self {
        if self.messages.first().is_none_or(|first| first.role() != Some("system")) {
            self.messages.insert(0, Message::new("system", text));
        }
        self
    }
}

impl From<Vec<Message>> for Conversation {
    fn from(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }
}
