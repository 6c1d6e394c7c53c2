//! Keeps control tokens that are written in a conversation from being control tokens, as transformers'
//! `sanitize_control_tokens` does.
//!
//! Before the template is rendered, each control token in a string of the conversation is put between two marks, which
//! are characters of private use. After that, what lies between marks is encoded as plain text. What the template writes
//! itself has no marks.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::conversation::Conversation;

const START: char = '\u{f0000}';
const END: char = '\u{f0001}';

/// Texts to look for, by their first characters; of each, the longest first.
#[derive(Debug, Default)]
pub(super) struct ControlTokens(HashMap<char, Vec<String>>);

impl ControlTokens {
    pub(super) fn new(tokens: impl IntoIterator<Item = String>) -> Self {
        let mut by_start: HashMap<char, Vec<String>> = HashMap::new();
        for token in tokens {
            if let Some(first) = token.chars().next() {
                by_start.entry(first).or_default().push(token);
            }
        }
        for tokens in by_start.values_mut() {
            tokens.sort_by_key(|token| std::cmp::Reverse(token.len()));
        }
        Self(by_start)
    }

    /// The token that `text` begins with.
    fn at_start<'text>(&self, text: &'text str) -> Option<&'text str> {
        let found =
            self.0.get(&text.chars().next()?)?.iter().find(|token| text.starts_with(token.as_str()))?;
        Some(&text[..found.len()])
    }

    /// Marks the control tokens in all strings of a conversation. Names of fields are not marked.
    pub(super) fn mark_conversation(&self, conversation: &mut Conversation) {
        for message in &mut conversation.messages {
            self.mark_object(message.fields_mut());
        }
        let lists = [&mut conversation.tools, &mut conversation.documents];
        lists.into_iter().flatten().flatten().for_each(|value| self.mark(value));
    }

    /// Marks the control tokens in all strings of an object.
    pub(super) fn mark_object(&self, object: &mut Map<String, Value>) {
        object.values_mut().for_each(|value| self.mark(value));
    }

    fn mark(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.marked(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.mark(item)),
            Value::Object(entries) => self.mark_object(entries),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn marked(&self, text: &str) -> String {
        // Marks in the text itself would forge one.
        let text = text.replace([START, END], "");
        let mut marked = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            let token = self.at_start(rest);
            if let Some(token) = token {
                marked.extend([START]);
                marked.push_str(token);
                marked.push(END);
            } else {
                marked.push(first);
            }
            rest = &rest[token.map_or(first.len_utf8(), str::len)..];
        }
        marked
    }

    /// The parts of a rendered text, with whether each is plain text. A mark without its other is left out, and what is
    /// on either side of it stays apart.
    pub(super) fn parts<'text>(&self, rendered: &'text str) -> Vec<(&'text str, bool)> {
        let mut parts = Vec::new();
        let mut rest = rendered;
        while let Some(mark) = rest.find([START, END]) {
            parts.push((&rest[..mark], false));
            let after = &rest[mark + START.len_utf8()..];
            let token = rest[mark..].starts_with(START).then(|| self.at_start(after)).flatten();
            rest = match token.filter(|token| after[token.len()..].starts_with(END)) {
                Some(token) => {
                    parts.push((token, true));
                    &after[token.len() + END.len_utf8()..]
                }
                None => after,
            };
        }
        parts.push((rest, false));
        parts
    }
}
