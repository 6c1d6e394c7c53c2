//! The messages of a row: those of chat APIs and trainers (`role`, `content`), and those of `ShareGPT` (`from`, `value`).

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::columns;
use super::schema::excerpt;
use crate::text::Message;

/// What becomes of a conversation whose last turn is the assistant's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FinalAnswer {
    /// The row is refused.
    #[default]
    Refused,
    /// The response continues it.
    Continued,
    /// It is left out, and the turn before it is answered.
    Dropped,
}

/// Fields beside `content` with which a message says something.
const OTHER_CONTENT: [&str; 6] =
    ["tool_calls", "function_call", "tool_responses", "reasoning_content", "reasoning", "thinking"];

/// The messages of column `name`, and whether the response continues the last of them.
pub(super) fn parse(
    name: &str,
    json: &RawValue,
    final_answer: FinalAnswer,
) -> Result<(Vec<Message>, bool), String> {
    let shape = "an array of {\"role\": string, \"content\": string}";
    let turns: Vec<Value> = columns::value(name, shape, json)?;
    let mut messages = Vec::with_capacity(turns.len());
    for (index, turn) in turns.into_iter().enumerate() {
        let place = format!("{name}[{index}]");
        let Value::Object(fields) = turn else {
            let kind = kind_of(&turn);
            return Err(format!("{name} must be {shape}, and is not: {place} is {kind}, expected an object"));
        };
        messages.push(message(&place, fields, name == "conversations")?);
    }
    if messages.is_empty() {
        return Err(format!("{name} is empty; give it a user's turn or remove the line"));
    }
    let is_continued = end(name, &mut messages, final_answer)?;
    Ok((messages, is_continued))
}

/// Checks the last turn; returns whether the response continues it.
fn end(name: &str, messages: &mut Vec<Message>, final_answer: FinalAnswer) -> Result<bool, String> {
    let is_answer = |message: &Message| matches!(message.role(), Some("assistant" | "model"));
    if final_answer == FinalAnswer::Dropped {
        while messages.last().is_some_and(is_answer) {
            messages.pop();
        }
    }
    let Some(last) = messages.last() else {
        return Err(format!("{name} has turns of the assistant alone; give it a user's turn"));
    };
    if is_answer(last) && final_answer == FinalAnswer::Continued {
        return match last.fields().get("content") {
            Some(Value::String(_)) => Ok(true),
            Some(Value::Array(parts)) if parts.iter().any(|part| part["text"].is_string()) => Ok(true),
            _ => Err(format!(
                "the last of {name} has no content that --continue-final-message could continue; give it text"
            )),
        };
    }
    match last.role() {
        Some("user") if last.text().trim().is_empty() => {
            Err(format!("the last of {name} is empty; give it text or remove the line"))
        }
        Some("system" | "developer") => {
            Err(format!("the last of {name} is by {:?}; end with the user's turn to be answered", role(last)))
        }
        _ if is_answer(last) => Err(format!(
            "the last of {name} is by {:?}; end with the user's turn to be answered, or give --continue-final-message \
             to continue it, or --drop-final-answer to answer the turn before it",
            role(last)
        )),
        _ => Ok(false),
    }
}

fn role(message: &Message) -> String {
    excerpt(message.role().unwrap_or_default())
}

/// One message, with all its fields.
fn message(place: &str, fields: Map<String, Value>, is_share_gpt: bool) -> Result<Message, String> {
    let fields = named(fields, is_share_gpt);
    match fields.get("role") {
        Some(Value::String(role)) if !role.is_empty() => {}
        None | Some(Value::Null) => {
            return Err(format!("{place}: missing field `role`; name the speaker, such as user"));
        }
        Some(_) => return Err(format!("{place}.role must be a string such as user")),
    }
    check_tool_calls(place, &fields)?;
    check_content(place, &fields)?;
    Ok(Message::from(fields))
}

/// The fields by the names that templates read: `role` and `content` for `from` and `value` of `ShareGPT`.
fn named(mut fields: Map<String, Value>, is_share_gpt: bool) -> Map<String, Value> {
    if fields.contains_key("role") {
        if is_share_gpt && let Some(Value::String(role)) = fields.get_mut("role") {
            *role = speaker(role).to_owned();
        }
        return fields;
    }
    let Some(Value::String(from)) = fields.shift_remove("from") else { return fields };
    let said = fields.shift_remove("value").unwrap_or(Value::Null);
    let call = matches!(&*from, "function_call" | "tool_call").then(|| tool_calls(&said)).flatten();
    let mut renamed = Map::new();
    renamed.insert("role".to_owned(), json!(speaker(&from)));
    match call {
        Some(calls) => renamed.insert("tool_calls".to_owned(), calls),
        None => renamed.insert("content".to_owned(), said),
    };
    for (name, value) in fields {
        renamed.entry(name).or_insert(value);
    }
    renamed
}

/// The role of a speaker of `ShareGPT`.
fn speaker(from: &str) -> &str {
    match from {
        "human" => "user",
        "gpt" | "chatgpt" | "bard" | "bing" | "bot" | "model" | "function_call" | "tool_call" => "assistant",
        "function" | "observation" | "function_response" | "tool_response" => "tool",
        other => other,
    }
}

/// The calls that the text of a `function_call` turn holds: `{"name": ..., "arguments": ...}`, or a list of such.
fn tool_calls(said: &Value) -> Option<Value> {
    let parsed = serde_json::from_str(said.as_str()?).ok()?;
    let calls = match parsed {
        Value::Array(calls) => calls,
        call => vec![call],
    };
    let is_call = |call: &Value| call["name"].is_string() && !call["arguments"].is_null();
    let has_calls = !calls.is_empty() && calls.iter().all(is_call);
    has_calls.then(|| calls.into_iter().map(|call| json!({"type": "function", "function": call})).collect())
}

fn check_tool_calls(place: &str, fields: &Map<String, Value>) -> Result<(), String> {
    match fields.get("tool_calls") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Array(calls)) if calls.iter().all(Value::is_object) => Ok(()),
        Some(other) => {
            Err(format!("{place}.tool_calls must be a list of objects, and is {}", kind_of(other)))
        }
    }
}

/// Checks that the content is text or parts of text. The result of a tool may be any value.
fn check_content(place: &str, fields: &Map<String, Value>) -> Result<(), String> {
    let is_result = matches!(fields["role"].as_str(), Some("tool" | "function" | "ipython" | "observation"));
    match fields.get("content") {
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(parts)) => {
            let mut parts = parts.iter().enumerate();
            parts.try_for_each(|(index, part)| {
                check_part(&format!("{place}.content[{index}]"), part, is_result)
            })
        }
        None | Some(Value::Null) => {
            if OTHER_CONTENT.iter().any(|name| fields.get(*name).is_some_and(|value| !value.is_null())) {
                return Ok(());
            }
            Err(format!("{place}: missing field `content`; give the message a text"))
        }
        Some(_) if is_result => Ok(()),
        Some(other) => {
            let kind = kind_of(other);
            Err(format!("{place}.content is {kind}, expected a string or a list of text parts"))
        }
    }
}

fn check_part(place: &str, part: &Value, is_result: bool) -> Result<(), String> {
    let kind = part.get("type").and_then(Value::as_str);
    match kind {
        Some("text") | None if part["text"].is_string() => Ok(()),
        Some("thinking" | "reasoning") => Ok(()),
        Some("text") => Err(format!("{place} has no text, expected a string under \"text\"")),
        Some(kind) if !is_result || ["image", "audio", "video"].iter().any(|name| kind.contains(name)) => {
            let kind = excerpt(kind);
            Err(format!(
                "{place} is a part of type {kind:?}, and the models read text alone; remove the line"
            ))
        }
        _ if is_result => Ok(()),
        _ => {
            let kind = kind_of(part);
            Err(format!(
                "{place} is {kind}, expected a string as the whole content or parts of type \"text\""
            ))
        }
    }
}

/// The kind of a JSON value, in words.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
