//! `'{}'.format(value)`.

use minijinja::{Error, Value};

use super::{percent, spec};
use crate::text::jinja::html;
use crate::text::jinja::value::args::Args;
use crate::text::jinja::value::dict::Dict;
use crate::text::jinja::value::{Kind, attributes, check_length, kind, number, refused, repr};

/// Where the fields take their values from.
struct Source<'value> {
    positional: &'value [Value],
    keywords: Vec<(&'value str, &'value Value)>,
    mapping: Option<&'value Dict>,
    /// The next automatic number; `None` once a field has a number of its own.
    next: Option<usize>,
    numbered: bool,
    safe: bool,
}

/// `pattern.format(...)`; markup escapes the values that it takes.
pub(in crate::text::jinja) fn braces(pattern: &str, args: &Args, safe: bool) -> Result<String, Error> {
    let keywords = args.keywords.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let mut source = Source {
        positional: &args.positional,
        keywords,
        mapping: None,
        next: Some(0),
        numbered: false,
        safe,
    };
    formatted(pattern, &mut source, 2)
}

/// `pattern.format_map(mapping)`.
pub(in crate::text::jinja) fn braces_of_map(
    pattern: &str,
    mapping: &Value,
    safe: bool,
) -> Result<String, Error> {
    let Kind::Dict(dict) = kind(mapping) else { return Err(refused("format_map() needs a dict")) };
    let mut source = Source {
        positional: &[],
        keywords: Vec::new(),
        mapping: Some(dict),
        next: Some(0),
        numbered: false,
        safe,
    };
    formatted(pattern, &mut source, 2)
}

fn formatted(pattern: &str, source: &mut Source, depth: usize) -> Result<String, Error> {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if rest.starts_with(brace) {
            out.push_str(brace);
            rest = &rest[1..];
        } else if brace == "}" {
            return Err(refused("format(): a single '}'"));
        } else {
            let end = end_of_field(rest)?;
            out.push_str(&field(&rest[..end], source, depth)?);
            rest = &rest[end + 1..];
        }
        check_length(Some(out.len()))?;
    }
    out.push_str(rest);
    Ok(out)
}

fn end_of_field(text: &str) -> Result<usize, Error> {
    let (mut depth, mut in_item) = (0, false);
    for (at, character) in text.char_indices() {
        match character {
            '[' if depth == 0 => in_item = true,
            ']' => in_item = false,
            '{' if !in_item => depth += 1,
            '}' if !in_item && depth == 0 => return Ok(at),
            '}' if !in_item => depth -= 1,
            _ => {}
        }
    }
    Err(refused("format(): a field has no end"))
}

fn field(field: &str, source: &mut Source, depth: usize) -> Result<String, Error> {
    if depth == 0 {
        return Err(refused("format(): fields are nested too deep"));
    }
    let bracket = |at: usize| field[..at].matches('[').count() > field[..at].matches(']').count();
    let split = field.char_indices().find(|(at, character)| "!:".contains(*character) && !bracket(*at));
    let (name, rest) = split.map_or((field, ""), |(at, _)| field.split_at(at));
    let (conversion, rest) = match rest.strip_prefix('!') {
        Some(rest) => {
            let conversion =
                rest.chars().next().ok_or_else(|| refused("format(): a conversion is missing"))?;
            (Some(conversion), &rest[conversion.len_utf8()..])
        }
        None => (None, rest),
    };
    let spec = match rest.strip_prefix(':') {
        Some(spec) => spec,
        None if rest.is_empty() => "",
        None => return Err(refused("format(): ':' is expected after the conversion")),
    };
    let value = source.value(name)?;
    let value = match conversion {
        None => value,
        Some('s') => Value::from(repr::to_text(&value)?.into_owned()),
        Some('r') => Value::from(repr::repr(&value)?),
        Some('a') => Value::from(percent::ascii(&repr::repr(&value)?)),
        Some(other) => return Err(refused(format!("format(): no conversion {other:?}"))),
    };
    let spec = formatted(spec, source, depth - 1)?;
    let text = spec::apply(&value, &spec)?;
    Ok(if source.safe && !value.is_safe() { html::escaped(&text) } else { text })
}

impl Source<'_> {
    fn value(&mut self, path: &str) -> Result<Value, Error> {
        let end = path.find(['.', '[']).unwrap_or(path.len());
        let (first, mut rest) = path.split_at(end);
        let mut value = self.first(first)?;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                value = attributes::attribute(&value, &after[..end])?;
                rest = &after[end..];
            } else {
                let after =
                    rest.strip_prefix('[').ok_or_else(|| refused("format(): only '.' or '[' follow ']'"))?;
                let end = after.find(']').ok_or_else(|| refused("format(): a ']' is missing"))?;
                value = attributes::item(&value, &index_or_name(&after[..end]))?;
                rest = &after[end + 1..];
            }
        }
        Ok(value)
    }

    fn first(&mut self, name: &str) -> Result<Value, Error> {
        let number = if name.is_empty() {
            if self.numbered {
                return Err(refused("format(): numbered and automatic fields do not mix"));
            }
            let number = self.next.unwrap_or(0);
            self.next = Some(number + 1);
            Some(number)
        } else if name.chars().all(|digit| digit.is_ascii_digit()) {
            if self.next.is_some_and(|next| next > 0) {
                return Err(refused("format(): numbered and automatic fields do not mix"));
            }
            self.numbered = true;
            name.parse().ok()
        } else {
            None
        };
        let found = match (number, self.mapping) {
            (Some(number), None) => self.positional.get(number).cloned(),
            (Some(_), Some(_)) => return Err(refused("format_map(): a field has no name")),
            (None, Some(mapping)) => mapping.get_text(name).cloned(),
            (None, None) => {
                self.keywords.iter().find(|(keyword, _)| *keyword == name).map(|(_, value)| (*value).clone())
            }
        };
        found.ok_or_else(|| refused(format!("format(): no value for the field {{{name}}}")))
    }
}

fn index_or_name(key: &str) -> Value {
    match number::parse_int(key, 10).filter(|_| key.chars().all(|digit| digit.is_ascii_digit())) {
        Some(index) => number::from_big(index),
        None => Value::from(key),
    }
}
