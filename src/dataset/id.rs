//! The id of a record.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::schema::excerpt;

/// The id of a record: a JSON string or integer of the input, a string in the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    /// A string.
    Text(String),
    /// An integer with any number of digits.
    Integer(String),
}

impl Id {
    /// The text that makes the id unique and keys the record's noise. The integer 1 and the string "1" are the same.
    pub fn key(&self) -> &str {
        match self {
            Self::Text(key) | Self::Integer(key) => key,
        }
    }

    pub(super) fn from_json(json: &RawValue) -> Result<Self, String> {
        let text = json.get();
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Integer(text.to_owned()));
        }
        match serde_json::from_str(text) {
            Ok(text) => Ok(Self::Text(text)),
            Err(_) => Err(format!("id is {}; make it a string or an integer", excerpt(text))),
        }
    }
}

/// Always a string: a column of numbers and strings breaks the loaders of datasets.
impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.key())
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        Self::from_json(&json).map_err(D::Error::custom)
    }
}
