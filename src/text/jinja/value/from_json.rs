//! JSON as Python's `json.loads` reads it.

use minijinja::Value;
use serde_json::Value as Json;

use super::dict::Dict;
use super::number;

/// The variables of a template.
pub(in crate::text) fn variables(entries: &serde_json::Map<String, Json>) -> Value {
    Value::from_object(dict_of(entries))
}

/// The value of `json`.
fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => from_number(&number.to_string()),
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => super::list(items.iter().map(from_json).collect()),
        Json::Object(entries) => Value::from_object(dict_of(entries)),
    }
}

fn dict_of(entries: &serde_json::Map<String, Json>) -> Dict {
    let mut dict = Dict::default();
    for (name, value) in entries {
        dict.insert_text(name, from_json(value));
    }
    dict
}

/// A number without a fraction and an exponent is an integer, of any width.
fn from_number(text: &str) -> Value {
    if text.contains(['.', 'e', 'E']) {
        return Value::from(text.parse::<f64>().unwrap_or(f64::NAN));
    }
    match text.parse::<i64>() {
        Ok(number) => Value::from(number),
        Err(_) => text.parse().map_or_else(|_| Value::from(f64::NAN), number::from_big),
    }
}
