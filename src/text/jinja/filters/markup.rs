//! Filters of HTML and of URLs.

use std::fmt::Write;

use minijinja::{Error, State, Value};

use crate::text::jinja::html;
use crate::text::jinja::value::args::{Args, flag};
use crate::text::jinja::value::operators::escapes;
use crate::text::jinja::value::{Kind, kind, refused, repr, sequence, text};

pub(super) fn apply(state: &State, name: &str, value: &Value, args: &Args) -> Result<Value, Error> {
    if name == "xmlattr" {
        let [autospace] = args.bind(name, ["autospace"])?;
        return attributes(state, value, flag(autospace.as_ref(), true));
    }
    let [] = args.bind(name, [])?;
    let plain = repr::to_text(value)?;
    Ok(match name {
        "safe" => Value::from_safe_string(plain.into_owned()),
        "forceescape" => Value::from_safe_string(html::escaped(&plain)),
        "striptags" => Value::from(html::without_tags(&plain)),
        "urlencode" => Value::from(urlencode(value, &plain)?),
        _ => html::escape(value)?,
    })
}

fn attributes(state: &State, value: &Value, autospace: bool) -> Result<Value, Error> {
    let Kind::Dict(dict) = kind(value) else { return Err(refused("xmlattr needs a dict")) };
    let mut written = Vec::new();
    for (name, value) in dict.iter() {
        if matches!(kind(value), Kind::None | Kind::Undefined) {
            continue;
        }
        let key = name.as_str().ok_or_else(|| refused("xmlattr: a name is no str"))?;
        if key.contains([' ', '\t', '\n', '\r', '\u{b}', '\u{c}', '/', '>', '=']) {
            return Err(refused(format!("xmlattr: {key:?} is no name of an attribute")));
        }
        written.push(format!("{}=\"{}\"", html::escape(name)?, html::escape(value)?));
    }
    let mut attributes = written.join(" ");
    if autospace && !attributes.is_empty() {
        attributes.insert(0, ' ');
    }
    Ok(text(attributes, escapes(state)))
}

fn urlencode(value: &Value, plain: &str) -> Result<String, Error> {
    let pairs = match kind(value) {
        Kind::Dict(dict) => dict.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect(),
        Kind::Str(_) => return Ok(quoted(plain, false)),
        _ if !sequence::is_iterable(value) => return Ok(quoted(plain, false)),
        _ => {
            let items = sequence::items(value)?;
            items.iter().map(sequence::items).collect::<Result<Vec<_>, _>>()?
        }
    };
    let mut written = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let [name, value] = pair.as_slice() else { return Err(refused("urlencode: an item is no pair")) };
        written.push(format!(
            "{}={}",
            quoted(&repr::to_text(name)?, true),
            quoted(&repr::to_text(value)?, true)
        ));
    }
    Ok(written.join("&"))
}

/// `urllib.parse.quote`, or `quote_plus` for a query.
fn quoted(text: &str, for_query: bool) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                quoted.push(char::from(byte));
            }
            b'/' if !for_query => quoted.push('/'),
            b' ' if for_query => quoted.push('+'),
            // Writing to a string does not fail.
            _ => write!(quoted, "%{byte:02X}").unwrap_or_default(),
        }
    }
    quoted
}
