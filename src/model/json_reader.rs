//! Reads a JSON object of a checkpoint field by field. Every error names the file, the field, the value that was found and
//! the values that are accepted. A field that is `null` counts as absent, and as in transformers no default replaces it.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::python_json;

/// The most characters of a value that a message quotes.
const QUOTED: usize = 80;

/// A JSON object and its place in a file.
#[derive(Clone)]
pub(super) struct JsonReader {
    path: PathBuf,
    /// The names of the enclosing objects, each followed by a dot.
    prefix: String,
    values: Map<String, Value>,
}

impl JsonReader {
    /// Reads the object that `file` consists of.
    pub fn read(checkpoint: &Checkpoint, file: &str) -> Result<Self> {
        Self::parse(checkpoint, file, &checkpoint.read(file)?)
    }

    /// Reads the object that `file` consists of, or `None` if there is no such file.
    pub fn find(checkpoint: &Checkpoint, file: &str) -> Result<Option<Self>> {
        checkpoint.find(file)?.map(|bytes| Self::parse(checkpoint, file, &bytes)).transpose()
    }

    fn parse(checkpoint: &Checkpoint, file: &str, bytes: &[u8]) -> Result<Self> {
        let path = checkpoint.path(file);
        match python_json::from_slice_quoting(bytes) {
            Ok(values) => Ok(Self { path, prefix: String::new(), values }),
            Err(error) => Err(Error::file(
                path,
                format!("not a JSON object: {error}; correct it, or download it again"),
            )),
        }
    }

    /// Adds the fields of `defaults` that the object lacks.
    pub fn or_defaults(mut self, defaults: Value) -> Self {
        if let Value::Object(defaults) = defaults {
            for (field, default) in defaults {
                self.values.entry(field).or_insert(default);
            }
        }
        self
    }

    /// Adds the fields of `other` that the object lacks.
    pub fn or_fields_of(self, other: &Self) -> Self {
        self.or_defaults(Value::Object(other.values.clone()))
    }

    /// Whether the object has no fields.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether `field` is present and `null`.
    pub fn is_null(&self, field: &str) -> bool {
        self.values.get(field).is_some_and(Value::is_null)
    }

    /// An error about `field`.
    pub fn error(&self, field: &str, message: &str) -> Error {
        Error::file(&self.path, format!("{}{field} {message}", self.prefix))
    }

    /// An error: `field` is not `expected`.
    pub fn unexpected(&self, field: &str, expected: &str) -> Error {
        let Some(value) = self.get(field) else {
            return self.error(field, &format!("is missing; it must be {expected}"));
        };
        let found: String = value.to_string().chars().take(QUOTED).collect();
        self.error(field, &format!("is {found}; it must be {expected}"))
    }

    /// The value of `field`, if present.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.values.get(field).filter(|value| !value.is_null())
    }

    /// The value of `field`, if present, as `read` converts it; `expected` describes what `read` accepts.
    pub fn optional<'a, T>(
        &'a self,
        field: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        self.get(field).map(|value| read(value).ok_or_else(|| self.unexpected(field, expected))).transpose()
    }

    /// A whole number in `1..=most`.
    pub fn count(&self, field: &str, most: usize) -> Result<usize> {
        let expected = format!("a whole number from 1 to {most}");
        let count = |value: &Value| value.as_u64().map(|n| n as usize).filter(|n| (1..=most).contains(n));
        self.optional(field, &expected, count)?.ok_or_else(|| self.unexpected(field, &expected))
    }

    /// Like [`JsonReader::count`]; `default` if absent.
    pub fn count_or(&self, field: &str, most: usize, default: usize) -> Result<usize> {
        self.get(field).map_or(Ok(default), |_| self.count(field, most))
    }

    /// A number within `range`.
    pub fn number(&self, field: &str, range: &RangeInclusive<f64>) -> Result<f64> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let number = |value: &Value| value.as_f64().filter(|x| range.contains(x));
        self.optional(field, &expected, number)?.ok_or_else(|| self.unexpected(field, &expected))
    }

    /// Like [`JsonReader::number`]; `default` if absent.
    pub fn number_or(&self, field: &str, range: &RangeInclusive<f64>, default: f64) -> Result<f64> {
        self.get(field).map_or(Ok(default), |_| self.number(field, range))
    }

    /// A boolean; false if absent.
    pub fn flag(&self, field: &str) -> Result<bool> {
        Ok(self.optional(field, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    /// A string, if present.
    pub fn text(&self, field: &str) -> Result<Option<&str>> {
        self.optional(field, "a string", Value::as_str)
    }

    /// A list of strings, if present.
    pub fn texts(&self, field: &str) -> Result<Option<Vec<&str>>> {
        self.optional(field, "a list of strings", |value| {
            value.as_array()?.iter().map(Value::as_str).collect()
        })
    }

    /// The object in `field`, if present.
    pub fn object(&self, field: &str) -> Result<Option<Self>> {
        let object = self.optional(field, "an object", Value::as_object)?;
        Ok(object.map(|values| Self {
            path: self.path.clone(),
            prefix: format!("{}{field}.", self.prefix),
            values: values.clone(),
        }))
    }
}
