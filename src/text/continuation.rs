//! A conversation whose last message the response continues, rendered as `transformers` renders it with
//! `continue_final_message`.

use serde_json::Value;

use super::jinja::is_space;

/// The mark behind the text that is continued. The rendered text ends where the template printed it.
const TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// The text that is continued.
pub(super) struct Continuation {
    text: String,
}

impl Continuation {
    /// Marks the end of the last message's text: its content, or the last text part of its content.
    ///
    /// # Errors
    /// If the last message has no text.
    pub fn mark(messages: &mut Value) -> Result<Self, String> {
        let last = messages.as_array_mut().and_then(|messages| messages.last_mut());
        let text = match last.and_then(|last| last.get_mut("content")) {
            Some(Value::String(text)) => Some(text),
            Some(Value::Array(parts)) => parts.iter_mut().rev().find_map(|part| match part.get_mut("text") {
                Some(Value::String(text)) => Some(text),
                _ => None,
            }),
            _ => None,
        };
        let Some(text) = text else {
            return Err("the last message has no text to continue; give its content".to_owned());
        };
        let continued = Self { text: text.clone() };
        text.push_str(TAG);
        Ok(continued)
    }

    /// The part of `rendered` up to the mark. If the template has stripped the space behind the mark, it also strips
    /// that behind the text.
    ///
    /// # Errors
    /// If the template printed only a part of the text.
    pub fn cut(&self, mut rendered: String) -> Result<String, String> {
        let mark = TAG.trim_end();
        let end = rendered.rfind(mark).filter(|_| rendered.contains(self.text.trim_matches(is_space)));
        let Some(end) = end else {
            let message =
                "the template does not print the whole of the last message, so no response can continue it";
            return Err(message.to_owned());
        };
        let is_stripped = !rendered[end..].starts_with(TAG);
        rendered.truncate(end);
        if is_stripped {
            rendered.truncate(rendered.trim_end_matches(is_space).len());
        }
        Ok(rendered)
    }
}
