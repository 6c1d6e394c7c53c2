//! One line of the input as columns: a JSON object that every reader of JSON understands in the same way.

use std::collections::HashSet;
use std::fmt;

use indexmap::IndexMap;
use serde::de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::schema::excerpt;

/// Columns that pass through to the output, in their order and exactly as they were written.
pub type Columns = IndexMap<String, Box<RawValue>>;

/// Parses the columns of a line; the error says what is wrong, at which column of the text, and the remedy.
pub(super) fn parse(bytes: &[u8]) -> Result<Columns, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        format!("not UTF-8 from byte {} on; convert the file (iconv does that)", error.valid_up_to() + 1)
    })?;
    if let Some(at) = text.find('\0') {
        return Err(format!(
            "holds NUL bytes (a tail lost in a crash, or UTF-16?) at column {}; write the file again, as UTF-8",
            at + 1
        ));
    }
    if let Some(at) = text.find('\r') {
        let message = "a carriage return inside the line";
        return Err(format!("{message}, at column {}; end each line with a line feed", at + 1));
    }
    let Object(columns) = serde_json::from_str(text).map_err(|error| describe(&error, text))?;
    for (name, value) in &columns {
        // The value is a part of the text, so the distance of their addresses is its place in the line.
        let start = value.get().as_ptr() as usize - text.as_ptr() as usize;
        check(value.get()).map_err(|fault| fault.describe(name, start))?;
    }
    Ok(columns.into_iter().map(|(name, value)| (name, value.to_owned())).collect())
}

/// Whether the column is there. Null counts as missing.
pub(super) fn present<'a>(columns: &'a Columns, name: &str) -> Option<&'a RawValue> {
    columns.get(name).map(|json| &**json).filter(|json| json.get() != "null")
}

/// The value of column `name`, which must be what `shape` says.
pub(super) fn value<T: DeserializeOwned>(name: &str, shape: &str, json: &RawValue) -> Result<T, String> {
    serde_json::from_str(json.get()).map_err(|error| {
        let reason = without_position(&error);
        format!("{name} must be {shape}, and is not: {reason}")
    })
}

/// The value of a column that holds `T`, or, as many datasets store it, a string with the JSON of `T`. A blank string
/// counts as missing.
pub(super) fn value_or_json<T: DeserializeOwned>(
    name: &str,
    shape: &str,
    json: &RawValue,
) -> Result<Option<T>, String> {
    if !json.get().starts_with('"') {
        return value(name, shape, json).map(Some);
    }
    let text: String = value(name, shape, json)?;
    if matches!(text.trim(), "" | "null") {
        return Ok(None);
    }
    let inner: Box<RawValue> =
        serde_json::from_str(&text).map_err(|_| format!("{name} must be {shape}, and is other text"))?;
    check(inner.get()).map_err(|fault| fault.describe(name, 0))?;
    value(name, shape, &inner).map(Some)
}

/// The text of column `name`.
pub(super) fn string(name: &str, json: &RawValue) -> Result<String, String> {
    value(name, "a string of text", json)
}

fn describe(error: &serde_json::Error, text: &str) -> String {
    let (column, end) = (error.column(), "each line must be one JSON object");
    if error.is_data() {
        let reason = without_position(error);
        return format!("not a row: {reason}, at column {column}{}; {end}", remedy(&reason));
    }
    let from = column.saturating_sub(1).min(text.len());
    let written = text.get(from..).unwrap_or_default();
    let word =
        ["NaN", "Infinity", "None", "True", "False"].into_iter().find(|word| written.starts_with(word));
    if let Some(word) = word {
        return format!(
            "not JSON: {word} at column {column} is Python's; write null, true, false or a string"
        );
    }
    if text.starts_with("{'") {
        return "not JSON: single quotes are Python's; write each row with json.dumps".to_owned();
    }
    let reason = without_position(error);
    if is_half_a_pair(&reason) {
        return format!("a name holds half a surrogate pair at column {column}, which is no text; repair it");
    }
    format!("not JSON: {reason}, at column {column}; {end}")
}

/// Whether `serde_json` refuses a text because of an escape such as `\ud800` that is only a half of a character.
fn is_half_a_pair(reason: &str) -> bool {
    reason.contains("surrogate") || reason.contains("hex escape")
}

/// `serde_json` counts lines from the start of the text that it was given, which here is always one line.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.clone(), |end| text[..end].to_owned())
}

/// A value that some readers of JSON refuse, or that two readers understand in two ways.
struct Fault {
    error: serde_json::Error,
}

impl Fault {
    /// The message for a value that begins behind `start` bytes of the line.
    fn describe(&self, name: &str, start: usize) -> String {
        let column = start + self.error.column();
        let reason = without_position(&self.error);
        let name = excerpt(name);
        if is_half_a_pair(&reason) {
            format!(
                "{name} must be a string of text, and holds half a surrogate pair at column {column}; repair it"
            )
        } else if reason.contains("recursion limit") {
            format!("{name} is nested too deeply, more than 127 levels at column {column}; flatten it")
        } else if reason.contains("number out of range") {
            format!("{name} holds a number that is out of range at column {column}; write it as a string")
        } else {
            format!("{name}: {reason}, at column {column}{}", remedy(&reason))
        }
    }
}

/// The end of the message of a name that is there twice.
const TWICE: &str = "is there twice";

fn remedy(reason: &str) -> &'static str {
    if reason.ends_with(TWICE) { "; keep one of the two" } else { "" }
}

/// Checks that nothing in a JSON text is understood differently by different readers: keys that are there twice, halves of
/// characters, numbers out of a double's range.
///
/// # Errors
/// What is wrong and what to do.
pub fn check_unambiguous(json: &str) -> Result<(), String> {
    check(json).map_err(|fault| fault.describe("the value", 0))
}

/// The key under which `serde_json` hands over the digits of a number, with its feature `arbitrary_precision`.
const NUMBER: &str = "$serde_json::private::Number";

/// Checks that the value has unique keys, whole characters, numbers in the range of a double, and few levels.
fn check(json: &str) -> Result<(), Fault> {
    serde_json::from_str::<Checked>(json).map(drop).map_err(|error| Fault { error })
}

struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Anything)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Checked;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Checked, A::Error> {
        while elements.next_element::<Checked>()?.is_some() {}
        Ok(Checked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Checked, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            if name == NUMBER {
                let number = fields.next_value::<String>()?;
                if number.parse::<f64>().is_ok_and(f64::is_infinite) {
                    return Err(A::Error::custom("number out of range"));
                }
                continue;
            }
            if names.contains(&name) {
                return Err(A::Error::custom(format!("the key {:?} {TWICE}", excerpt(&name))));
            }
            names.insert(name);
            fields.next_value::<Checked>()?;
        }
        Ok(Checked)
    }
}

/// A JSON object whose keys are unique.
struct Object<'a>(IndexMap<String, &'a RawValue>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique;
        impl<'de> Visitor<'de> for Unique {
            type Value = Object<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut columns = IndexMap::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if columns.contains_key(&name) {
                        return Err(A::Error::custom(format!("column {:?} {TWICE}", excerpt(&name))));
                    }
                    columns.insert(name, value);
                }
                Ok(Object(columns))
            }
        }
        deserializer.deserialize_map(Unique)
    }
}
