//! What the library's errors about a `tokenizer.json` mean to a user.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::excerpt;

/// The parts of the file that have a type, and the beginning of the name that the library gives to each.
const PARTS: [(&str, &str); 5] = [
    ("normalizer", "Normalizer"),
    ("pre_tokenizer", "PreTokenizer"),
    ("post_processor", "PostProcessor"),
    ("decoder", "Decoder"),
    (MODEL, "Model"),
];
const MODEL: &str = "model";
const UNKNOWN: &str = "did not match any variant of untagged enum ";

/// The message for `error`, which the library has about `file`. Where no form of a part fits, the library names only its own
/// type; the message names the part and the types that the file gives it.
pub(super) fn explain(file: &[u8], error: &str) -> String {
    let part = error.split_once(UNKNOWN).and_then(|(_, name)| {
        PARTS.iter().find(|(_, beginning)| name.starts_with(beginning)).map(|(part, _)| *part)
    });
    let remedy = "download it again, or save it again with the current tokenizers library";
    match part {
        Some(part) => {
            let types = types(file, part);
            let types = if types.is_empty() { "no type".to_owned() } else { format!("type {types}") };
            format!(
                "its {part} has {types} or a field in it of a form that tokenizers 0.23 does not know; {remedy}"
            )
        }
        None if error.contains(UNKNOWN) => {
            format!("an entry has a form that tokenizers 0.23 does not know ({}); {remedy}", excerpt(error))
        }
        None => format!("{}; {remedy}", excerpt(error)),
    }
}

/// The message for `error`, which the library has about a text.
pub(super) fn explain_text(error: &str) -> String {
    if error.contains("retry-limit") {
        return "the tokenizer's pattern gives up on a run of characters this long; shorten the text"
            .to_owned();
    }
    excerpt(error).into_owned()
}

/// The types that are written in the part, in their order.
fn types(file: &[u8], part: &str) -> String {
    let parts: BTreeMap<String, &RawValue> = serde_json::from_slice(file).unwrap_or_default();
    let Some(written) = parts.get(part) else { return String::new() };
    let mut found = Vec::new();
    if part == MODEL {
        // Its vocabulary is not looked through.
        let model: BTreeMap<String, &RawValue> = serde_json::from_str(written.get()).unwrap_or_default();
        found.extend(model.get("type").map(ToString::to_string));
    } else {
        collect(&serde_json::from_str(written.get()).unwrap_or_default(), &mut found);
    }
    excerpt(&found.join(", ")).into_owned()
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("type").map(Value::to_string));
            fields.values().for_each(|value| collect(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}
