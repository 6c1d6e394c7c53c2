//! JSON as Python writes it: the standard's, and the bare words `NaN`, `Infinity` and `-Infinity`.
//!
//! Python's `json` module writes these words for numbers that are not finite, and reads them again. So transformers
//! accepts a checkpoint with such a field, used or not, and codit does too. A number that a 64-bit float cannot hold
//! (`1e999`) is infinite to Python and is treated likewise.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde_json::Result;

/// Reads a value. A number that is not finite becomes `null`.
///
/// # Errors
/// If `bytes` are not JSON, or the value is not a `T`.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    read(bytes, |_| Cow::Borrowed("null"))
}

/// Reads a value. A number that is not finite becomes a string with its text, so that a reader that needs a number can
/// name what it found.
pub(crate) fn from_slice_quoting<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    read(bytes, |word| Cow::Owned(format!("{word:?}")))
}

fn read<T: DeserializeOwned>(bytes: &[u8], replacement: impl Fn(&str) -> Cow<'static, str>) -> Result<T> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        let message =
            "it begins with a byte order mark, which Python refuses too; save it as UTF-8 without one";
        return Err(serde::de::Error::custom(message));
    }
    match serde_json::from_slice(bytes) {
        Ok(value) => Ok(value),
        // The usual file is read once and copied never.
        Err(error) => match standard(bytes, replacement) {
            Some(text) => serde_json::from_slice(&text),
            None => Err(error),
        },
    }
}

/// `bytes` with another text in place of each number that is not finite; `None` if there is none.
fn standard(bytes: &[u8], replacement: impl Fn(&str) -> Cow<'static, str>) -> Option<Vec<u8>> {
    let (mut text, mut copied) = (Vec::new(), 0);
    for word in (Words { bytes, next: 0 }) {
        let Ok(number) = std::str::from_utf8(&bytes[word.clone()]) else { continue };
        if is_not_finite(number) {
            text.extend_from_slice(&bytes[copied..word.start]);
            text.extend_from_slice(replacement(number).as_bytes());
            copied = word.end;
        }
    }
    text.extend_from_slice(&bytes[copied..]);
    (copied > 0).then_some(text)
}

/// Whether Python reads `word` as a number that is not finite.
fn is_not_finite(word: &str) -> bool {
    // Rust reads `inf` and `nan` in any case, which JSON does not have; its numbers begin with a digit.
    let is_number = || word.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit());
    matches!(word, "NaN" | "Infinity" | "-Infinity")
        || is_number() && word.parse::<f64>().is_ok_and(f64::is_infinite)
}

/// The ranges of the words outside of strings: numbers, `true`, `null`, and others that may not be JSON.
struct Words<'a> {
    bytes: &'a [u8],
    next: usize,
}

impl Iterator for Words<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        loop {
            let start = self.next;
            let rest = &self.bytes[start..];
            let length = rest.iter().take_while(|byte| is_of_word(byte)).count();
            match rest.first()? {
                b'"' => self.next += string_length(rest),
                _ if length == 0 => self.next += 1,
                _ => {
                    self.next += length;
                    return Some(start..self.next);
                }
            }
        }
    }
}

/// The bytes of the string at the start of `text`, with its quotation marks. One that does not end takes all.
fn string_length(text: &[u8]) -> usize {
    let mut is_escaped = false;
    let end = text.iter().skip(1).position(|byte| {
        let ends = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn value(text: &str) -> Option<Value> {
        from_slice(text.as_bytes()).ok()
    }

    #[test]
    fn numbers_that_are_not_finite_become_null() {
        let text =
            r#"{"a": [0.0, Infinity], "b": -Infinity,"c":NaN, "d": 1e999, "e": [-1E400 ,2], "f": 1e-999}"#;
        let expected = json!({"a": [0.0, null], "b": null, "c": null, "d": null, "e": [null, 2], "f": 0.0});
        assert_eq!(value(text), Some(expected));
        let digits = "9".repeat(400);
        assert_eq!(value(&digits), Some(Value::Null));
        assert_eq!(value("NaN"), Some(Value::Null));
    }

    #[test]
    fn strings_and_keys_stay() {
        let text = r#"{"NaN": "Infinity", "a\"": "\\", "b": NaN, "c": "x \" NaN , -Infinity"}"#;
        let expected = json!({"NaN": "Infinity", "a\"": "\\", "b": null, "c": "x \" NaN , -Infinity"});
        assert_eq!(value(text), Some(expected));
    }

    #[test]
    fn quoted_words_keep_their_text() {
        let value: Value = from_slice_quoting(b"[-Infinity, 1e999, \"NaN\"]").unwrap_or_default();
        assert_eq!(value, json!(["-Infinity", "1e999", "NaN"]));
    }

    #[test]
    fn what_python_refuses_is_refused() {
        for text in [
            "nan",
            "inf",
            "-NaN",
            "+Infinity",
            "infinity",
            "NaNa",
            "[NaN",
            "{NaN: 1}",
            "\"NaN",
            "1e",
            "",
            "\u{feff}{}",
        ] {
            assert_eq!(value(text), None, "{text}");
        }
    }
}
