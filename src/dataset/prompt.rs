//! One line of the input: the prompt, and the columns that pass through.

use indexmap::IndexMap;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::id::Id;
use super::schema::{OUTPUT_COLUMNS, excerpt};
use crate::text::{Conversation, Message};

/// Columns that pass through to the output, in their order and exactly as they were written.
pub type Columns = IndexMap<String, Box<RawValue>>;

/// The prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// `prompt`: plain text for the models, without a chat template.
    Text(String),
    /// `instruction`, one turn of the user, or `messages`.
    Chat(Conversation),
}

impl Body {
    /// The record's instruction; of a conversation, the text of the last turn.
    pub fn instruction(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Chat(conversation) => conversation.messages.last().map_or_else(String::new, Message::text),
        }
    }
}

/// One line of the input.
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

impl InputRow {
    /// Parses line number `line`; the error says what is wrong and the remedy. A column that is null counts as
    /// missing.
    pub(super) fn parse(bytes: &[u8], line: usize) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            format!("not UTF-8 from byte {} on; convert the file", error.valid_up_to() + 1)
        })?;
        if text.contains('\0') {
            return Err(
                "holds NUL bytes (a tail lost in a crash, or UTF-16?); write the file again, as UTF-8".into(),
            );
        }
        if text.contains('\r') {
            return Err("a carriage return inside the line; end each line with a line feed".into());
        }
        let Object(mut columns) = serde_json::from_str(text).map_err(|error| describe(&error))?;
        if let Some(name) = OUTPUT_COLUMNS.iter().find(|name| columns.contains_key(**name)) {
            return Err(format!("column {name:?} is one that the output defines; rename or remove it"));
        }
        let id = match present(&columns, "id") {
            Some(json) => Id::from_json(json)?,
            None => Id::Text(format!("conv_{line}")),
        };
        let body = body(&columns)?;
        columns.shift_remove("id");
        columns.shift_remove("instruction");
        Ok(Self { id, line, body, columns })
    }
}

fn body(columns: &Columns) -> Result<Body, String> {
    let sources = ["instruction", "prompt", "messages"];
    let found: Vec<_> = sources.iter().filter_map(|name| Some((*name, present(columns, name)?))).collect();
    match found[..] {
        [] => Err("no instruction; give the line one of the columns instruction, prompt or messages".into()),
        [("instruction", json)] => said("instruction", string("instruction", json)?)
            .map(|text| Body::Chat(Conversation::of_instruction(text))),
        [("prompt", json)] => match string("prompt", json)? {
            text if text.is_empty() => Err("prompt is empty; give it text or remove the line".into()),
            text => Ok(Body::Text(text)),
        },
        [(_, json)] => messages(json).map(|messages| Body::Chat(messages.into())),
        [(first, _), (second, _), ..] => {
            Err(format!("both {first} and {second}; keep the one that is to be answered"))
        }
    }
}

fn messages(json: &RawValue) -> Result<Vec<Message>, String> {
    let shape = "messages must be an array of {\"role\": string, \"content\": string}";
    let messages: Vec<Message> = serde_json::from_str(json.get())
        .map_err(|error| format!("{shape}, and is not: {}", without_position(&error)))?;
    let Some(last) = messages.last() else {
        return Err("messages is empty; give it a user's turn or remove the line".into());
    };
    if last.role() != Some("user") {
        let role = excerpt(last.role().unwrap_or_default());
        return Err(format!("the last of messages is by {role:?}; end with the user's turn to be answered"));
    }
    said("the last of messages", last.text())?;
    Ok(messages)
}

fn string(name: &str, json: &RawValue) -> Result<String, String> {
    serde_json::from_str(json.get())
        .map_err(|error| format!("{name} must be a string of text, and is not: {}", without_position(&error)))
}

fn said(name: &str, text: String) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err(format!("{name} is empty; give it text or remove the line"));
    }
    Ok(text)
}

fn present<'a>(columns: &'a Columns, name: &str) -> Option<&'a RawValue> {
    columns.get(name).map(|json| &**json).filter(|json| json.get() != "null")
}

fn describe(error: &serde_json::Error) -> String {
    let what = if error.is_data() { "not a row" } else { "not JSON" };
    format!(
        "{what}: {}, at column {}; each line must be one JSON object",
        without_position(error),
        error.column()
    )
}

/// `serde_json` counts lines from the start of the text that it was given, which here is always one line.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.clone(), |end| text[..end].to_owned())
}

/// A JSON object whose keys are unique.
struct Object(Columns);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique;
        impl<'de> Visitor<'de> for Unique {
            type Value = Object;

            fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut columns = Columns::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if columns.contains_key(&name) {
                        return Err(A::Error::custom(format!("column {:?} is there twice", excerpt(&name))));
                    }
                    columns.insert(name, value);
                }
                Ok(Object(columns))
            }
        }
        deserializer.deserialize_map(Unique)
    }
}
