//! The parts of Python that chat templates use: string methods, `json.dumps`, `strftime`. `minijinja` with its
//! pycompat has most of it; this file has the differences.

use std::borrow::Cow;
use std::fmt::Write;

use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, filters};
use minijinja_contrib::pycompat;
use serde_json::Value as Json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The template variable that fixes the clock, in RFC 3339. A run that is resumed on another day then renders the
/// same prompts.
pub const CLOCK: &str = "codit_clock";

/// The widest indentation of `tojson`.
const WIDEST_INDENT: usize = 64;

/// Adds the filters, functions and methods.
pub(super) fn install(environment: &mut Environment) {
    environment.set_unknown_method_callback(method);
    environment.add_filter("trim", trim);
    environment.add_filter("tojson", tojson);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("items", items);
    environment.add_filter("string", |value: &Value| text(value).into_owned());
    environment.add_test("iterable", is_iterable);
    environment.add_test("sequence", is_iterable);
    environment.add_function("strftime_now", strftime_now);
}

fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str()
        && let Some(result) = string_method(text, name, args)?
    {
        return Ok(result);
    }
    pycompat::unknown_method_callback(state, value, name, args)
}

/// The methods of `str` that pycompat lacks or implements differently; `None` for all others.
fn string_method(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let result = match name {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            Value::from(strip(text, chars, name != "rstrip", name != "lstrip"))
        }
        "split" if args.first().is_none_or(Value::is_none) => {
            let (_, most): (Option<Value>, Option<i64>) = from_args(args)?;
            words(text, most.and_then(|most| usize::try_from(most).ok())).into_iter().collect()
        }
        "rsplit" => {
            let (separator, most): (&str, Option<i64>) = from_args(args)?;
            let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
            let mut parts: Vec<&str> = text.rsplitn(most.saturating_add(1), separator).collect();
            parts.reverse();
            parts.into_iter().map(Value::from).collect()
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let parts = if name == "partition" {
                text.split_once(separator)
                    .map_or((text, "", ""), |(before, after)| (before, separator, after))
            } else {
                text.rsplit_once(separator)
                    .map_or(("", "", text), |(before, after)| (before, separator, after))
            };
            Value::from(parts)
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "title" => {
            let () = from_args(args)?;
            Value::from(title(text))
        }
        "splitlines" => {
            let (keep_ends,): (Option<bool>,) = from_args(args)?;
            lines(text, keep_ends.unwrap_or(false)).into_iter().map(Value::from).collect()
        }
        "isspace" => {
            let () = from_args(args)?;
            Value::from(!text.is_empty() && text.chars().all(is_space))
        }
        _ => return Ok(None),
    };
    Ok(Some(result))
}

fn trim(value: &Value, chars: Option<&str>) -> String {
    strip(&text(value), chars, true, true).to_owned()
}

/// The length of the undefined value, which Python has too.
fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() { Ok(0) } else { filters::length(value) }
}

fn items(value: &Value) -> Result<Value, Error> {
    if value.is_undefined() { Ok(Value::from_iter::<[Value; 0]>([])) } else { filters::items(value) }
}

/// The values that Python can iterate over. To Jinja, strings and dictionaries are sequences too.
fn is_iterable(value: &Value) -> bool {
    let kinds =
        [ValueKind::Undefined, ValueKind::String, ValueKind::Seq, ValueKind::Map, ValueKind::Iterable];
    kinds.contains(&value.kind())
}

/// `str.isspace`: Unicode's white space and four separators of ASCII.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

fn strip<'text>(text: &'text str, chars: Option<&str>, start: bool, end: bool) -> &'text str {
    let stripped =
        |character: char| chars.map_or_else(|| is_space(character), |chars| chars.contains(character));
    let text = if start { text.trim_start_matches(stripped) } else { text };
    if end { text.trim_end_matches(stripped) } else { text }
}

/// `str.split` without a separator: at most `most` splits, and white space around words is gone.
fn words(text: &str, most: Option<usize>) -> Vec<Value> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let end = if most == Some(words.len()) { None } else { rest.find(is_space) };
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        words.push(Value::from(word));
        rest = after.trim_start_matches(is_space);
    }
    words
}

/// `str.splitlines`.
fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let ends_line = |character: char| matches!(character, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(ends_line).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        let break_length =
            if after.starts_with("\r\n") { 2 } else { after.chars().next().map_or(0, char::len_utf8) };
        lines.push(if keep_ends { &rest[..end + break_length] } else { line });
        rest = &after[break_length..];
    }
    lines
}

/// `str.title`: a letter after anything but a letter is upper case, the others lower case.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        if inside {
            titled.extend(character.to_lowercase());
        } else {
            titled.extend(character.to_uppercase());
        }
        inside = character.is_alphabetic();
    }
    titled
}

/// The time in the form that `format` says, as C's `strftime`: that of the variable [`CLOCK`] where it is set, else
/// the local time. The date is part of the prompt: see [`super::ChatTemplate::tells_time`].
fn strftime_now(state: &State, format: &str) -> Result<String, Error> {
    let refused =
        |error: String| Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {error}"));
    let items =
        time::format_description::parse_strftime_owned(format).map_err(|error| refused(error.to_string()))?;
    let now = match state.lookup(CLOCK) {
        Some(clock) => {
            let clock = clock.as_str().and_then(|clock| OffsetDateTime::parse(clock, &Rfc3339).ok());
            clock.ok_or_else(|| refused(format!("{CLOCK} is not a time such as 2026-01-31T12:00:00Z")))?
        }
        None => local_time(),
    };
    now.format(&items).map_err(|error| refused(error.to_string()))
}

fn local_time() -> OffsetDateTime {
    OffsetDateTime::now_local().unwrap_or_else(|_| OffsetDateTime::now_utc())
}

/// The local time in the format of [`CLOCK`].
pub fn clock() -> String {
    local_time().format(&Rfc3339).unwrap_or_default()
}

/// The options of `json.dumps`.
struct Style {
    ascii: bool,
    indent: Option<usize>,
    between: String,
    after_key: String,
}

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
#[allow(clippy::needless_pass_by_value)] // the signature of a filter
fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let refused = |reason: String| Error::new(ErrorKind::InvalidOperation, format!("tojson: {reason}"));
    let indent: Option<usize> = options.get("indent")?;
    if indent > Some(WIDEST_INDENT) {
        return Err(refused(format!("indent is over {WIDEST_INDENT}")));
    }
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (between, after_key) = match separators.as_deref() {
        None => (if indent.is_some() { "," } else { ", " }, ": "),
        Some([between, after_key]) => (between.as_str(), after_key.as_str()),
        Some(_) => return Err(refused("separators are two strings".to_owned())),
    };
    let style = Style {
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent,
        between: between.to_owned(),
        after_key: after_key.to_owned(),
    };
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    if value.is_undefined() {
        return Err(refused("the value is undefined".to_owned()));
    }
    let mut json = serde_json::to_value(value).map_err(|error| refused(error.to_string()))?;
    if sort_keys {
        json.sort_all_objects();
    }
    let mut text = String::new();
    style.write(&json, 0, &mut text);
    Ok(text)
}

impl Style {
    fn write(&self, value: &Json, depth: usize, out: &mut String) {
        match value {
            Json::Array(items) if !items.is_empty() => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.start_item(index, depth + 1, out);
                    self.write(item, depth + 1, out);
                }
                self.new_line(depth, out);
                out.push(']');
            }
            Json::Object(entries) if !entries.is_empty() => {
                out.push('{');
                for (index, (key, item)) in entries.iter().enumerate() {
                    self.start_item(index, depth + 1, out);
                    self.write_string(key, out);
                    out.push_str(&self.after_key);
                    self.write(item, depth + 1, out);
                }
                self.new_line(depth, out);
                out.push('}');
            }
            Json::String(text) => self.write_string(text, out),
            Json::Number(number) if number.is_f64() => {
                out.push_str(&float(number.as_f64().unwrap_or_default()));
            }
            other => out.push_str(&other.to_string()),
        }
    }

    fn start_item(&self, index: usize, depth: usize, out: &mut String) {
        if index > 0 {
            out.push_str(&self.between);
        }
        self.new_line(depth, out);
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn write_string(&self, text: &str, out: &mut String) {
        let quoted = Json::from(text).to_string();
        if !self.ascii {
            out.push_str(&quoted);
            return;
        }
        for character in quoted.chars() {
            if matches!(character, ' '..='~') {
                out.push(character);
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a string does not fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
}

/// `str(value)`.
pub(super) fn text(value: &Value) -> Cow<'_, str> {
    match value.as_str() {
        Some(text) => Cow::Borrowed(text),
        None if value.kind() == ValueKind::Number && !value.is_integer() => {
            Cow::Owned(f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float))
        }
        None => Cow::Owned(value.to_string()),
    }
}

/// `float.__repr__`: the shortest digits, with an exponent below 1e-4 and from 1e16 on.
fn float(number: f64) -> String {
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(-4..=15) if number.fract() == 0.0 => format!("{number:.1}"),
        Ok(-4..=15) => number.to_string(),
        Ok(exponent) => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
        Err(_) => scientific,
    }
}
