//! One row of the input: its id, its prompt, and the columns that pass through.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::columns::{self, present, string, value, value_or_json};
use super::id::Id;
use super::messages::{self, FinalAnswer};
use super::remarks::Remark;
use super::schema::{OUTPUT_COLUMNS, excerpt};
use crate::text::{Conversation, Message};

pub use super::columns::Columns;

/// The prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// `prompt`: plain text for the models, without a chat template.
    Text(String),
    /// `instruction`, one turn of the user; or the conversation under `messages`, `conversations` or `prompt`.
    Chat(Conversation),
    /// The reason why the line is no prompt. Only an input that skips invalid lines has such rows.
    Invalid(String),
}

impl Body {
    /// The record's instruction; of a conversation, the text of the user's last turn, or of the last turn if the user has
    /// none; empty if the line is no prompt.
    pub fn instruction(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Chat(Conversation { messages, .. }) => {
                let of_user = messages.iter().rfind(|message| message.role() == Some("user"));
                of_user.or(messages.last()).map_or_else(String::new, Message::text)
            }
            Self::Invalid(_) => String::new(),
        }
    }
}

/// One row of the input.
#[derive(Debug, Clone)]
pub struct InputRow {
    /// The id of the line, or `conv_{line}` if it has none.
    pub id: Id,
    /// The number of the line, counted from 1; blank lines count.
    pub line: usize,
    /// The prompt.
    pub body: Body,
    /// All columns but `id` and `instruction`.
    pub columns: Columns,
}

/// A line that is no row.
#[derive(Debug)]
pub(super) struct BadLine {
    /// The id, if it can be read.
    pub id: Option<Id>,
    /// What is wrong and the remedy.
    pub message: String,
}

impl From<String> for BadLine {
    fn from(message: String) -> Self {
        Self { id: None, message }
    }
}

/// The id of a line that has none.
pub(super) fn id_of_line(line: usize) -> Id {
    Id::Text(format!("conv_{line}"))
}

impl InputRow {
    /// Parses line number `line`. A column that is null counts as missing. What the row does that a user may not expect
    /// is added to `remarks`.
    pub(super) fn parse(
        bytes: &[u8],
        line: usize,
        final_answer: FinalAnswer,
        remarks: &mut Vec<Remark>,
    ) -> Result<Self, BadLine> {
        let mut columns = columns::parse(bytes)?;
        let id = match present(&columns, "id") {
            Some(json) => Id::from_json(json)?,
            None => id_of_line(line),
        };
        let with_id = |message| BadLine { id: Some(id.clone()), message };
        if let Some(name) = OUTPUT_COLUMNS.iter().find(|name| columns.contains_key(**name)) {
            let message = format!("column {name:?} is one that the output defines; rename or remove it");
            return Err(with_id(message));
        }
        let body = body(&columns, final_answer, remarks).map_err(with_id)?;
        columns.shift_remove("id");
        columns.shift_remove("instruction");
        remarks.extend(Remark::of_columns(&columns));
        Ok(Self { id, line, body, columns })
    }

    /// The row of a line that is none: its columns are left out, since they may be what is wrong.
    pub(super) fn invalid(id: Id, line: usize, message: &str) -> Self {
        Self { id, line, body: Body::Invalid(format!("line {line}: {message}")), columns: Columns::new() }
    }
}

fn body(columns: &Columns, final_answer: FinalAnswer, remarks: &mut Vec<Remark>) -> Result<Body, String> {
    let sources = ["instruction", "prompt", "messages", "conversations"];
    let found: Vec<_> = sources.iter().filter_map(|name| Some((*name, present(columns, name)?))).collect();
    let (name, json) = match found[..] {
        [] => return Err(no_prompt(columns)),
        [found] => found,
        [(first, _), (second, _), ..] => {
            return Err(format!("both {first} and {second}; keep the one that is to be answered"));
        }
    };
    let (messages, continue_final_message) = match name {
        "instruction" => (instruction(json, columns, remarks)?, false),
        "prompt" if !json.get().starts_with('[') => {
            return match value::<String>("prompt", "a string of text or a list of messages", json)? {
                text if text.is_empty() => Err("prompt is empty; give it text or remove the line".into()),
                text => Ok(Body::Text(text)),
            };
        }
        name => messages::parse(name, json, final_answer)?,
    };
    let conversation = Conversation {
        messages,
        tools: objects(columns, "tools", "JSON schemas")?,
        documents: objects(columns, "documents", "objects")?,
        continue_final_message,
        template_variables: template_variables(columns)?,
    };
    Ok(Body::Chat(with_system(conversation, columns, remarks)?))
}

/// Says which columns there are, so that the user sees which one to rename.
fn no_prompt(columns: &Columns) -> String {
    const NAMED: usize = 8;
    let remedy =
        "no instruction; give the line one of the columns instruction, prompt, messages or conversations";
    let names: Vec<String> =
        columns.iter().filter(|(name, _)| *name != "id").map(|(name, _)| excerpt(name)).collect();
    match names.len() {
        0 => remedy.to_owned(),
        NAMED.. => format!("{remedy}; it has: {}, ...", names[..NAMED].join(", ")),
        _ => format!("{remedy}; it has: {}", names.join(", ")),
    }
}

/// The turns of an Alpaca row: earlier turns under `history`, then the instruction, joined with `input`.
fn instruction(
    json: &RawValue,
    columns: &Columns,
    remarks: &mut Vec<Remark>,
) -> Result<Vec<Message>, String> {
    let mut text = string("instruction", json)?;
    if text.trim().is_empty() {
        return Err("instruction is empty; give it text or remove the line".to_owned());
    }
    if let Some(json) = present(columns, "input") {
        let shape = "a string, which is joined to the instruction; rename it if it is something else";
        let input: String = value("input", shape, json)?;
        if !input.trim().is_empty() {
            remarks.push(Remark::Joined);
            text = format!("{text}\n\n{input}");
        }
    }
    let mut messages = Vec::new();
    if let Some(json) = present(columns, "history") {
        let shape = "a list of [instruction, response] pairs; rename it if it is something else";
        let pairs: Vec<[String; 2]> = value("history", shape, json)?;
        if !pairs.is_empty() {
            remarks.push(Remark::History);
        }
        for [instruction, response] in pairs {
            messages.extend([Message::new("user", instruction), Message::new("assistant", response)]);
        }
    }
    messages.push(Message::new("user", text));
    Ok(messages)
}

/// The conversation after the row's own system message, which LLaMA-Factory's formats hold under `system`.
fn with_system(
    conversation: Conversation,
    columns: &Columns,
    remarks: &mut Vec<Remark>,
) -> Result<Conversation, String> {
    let Some(json) = present(columns, "system") else { return Ok(conversation) };
    let shape = "a string, which is the system message; rename it if it is something else";
    let system: String = value("system", shape, json)?;
    let has_system = conversation.messages.first().is_some_and(|first| first.role() == Some("system"));
    if system.trim().is_empty() || has_system {
        return Ok(conversation);
    }
    remarks.push(Remark::System);
    Ok(conversation.with_system(&system))
}

/// The objects of a column that holds a list of them.
fn objects(columns: &Columns, name: &str, what: &str) -> Result<Option<Vec<Value>>, String> {
    let Some(json) = present(columns, name) else { return Ok(None) };
    let shape = format!("a list of {what} for the chat template (rename it if it is something else)");
    let Some(list): Option<Vec<Value>> = value_or_json(name, &shape, json)? else { return Ok(None) };
    match list.iter().position(|element| !element.is_object()) {
        None => Ok(Some(list)),
        Some(index) => {
            let kind = messages::kind_of(&list[index]);
            Err(format!("{name} must be {shape}, and is not: {name}[{index}] is {kind}"))
        }
    }
}

/// The row's own variables for the chat template, as TRL names them.
fn template_variables(columns: &Columns) -> Result<Map<String, Value>, String> {
    let name = "chat_template_kwargs";
    let Some(json) = present(columns, name) else { return Ok(Map::new()) };
    Ok(value_or_json(name, "an object of variables for the chat template", json)?.unwrap_or_default())
}
