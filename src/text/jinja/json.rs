//! The filter `tojson` of `transformers`: Python's `json.dumps`.

use std::fmt::Write;

use minijinja::{Error, Value};

use super::value::args::{Args, as_int, as_text, flag, some};
use super::value::{
    DEEPEST, Kind, check_length, compare, kind, number, refused, sequence, too_deep, tuple, type_name,
};

/// The options of `json.dumps`.
struct Style {
    ascii: bool,
    /// One level of indentation; without it all is on one line.
    indent: Option<String>,
    between: String,
    after_key: String,
    sort_keys: bool,
}

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn dumps(value: &Value, args: &Args) -> Result<Value, Error> {
    let [ascii, indent, separators, sort_keys] =
        args.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match some(indent) {
        None => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => {
                let count = usize::try_from(as_int(&indent, "tojson")?).unwrap_or(0);
                check_length(Some(count)).map_err(|_| refused("tojson: the indent is too wide"))?;
                " ".repeat(count)
            }
        }),
    };
    let (between, after_key) = match some(separators) {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(separators) => match sequence::items(&separators)?.as_slice() {
            [between, after_key] => {
                (as_text(between, "tojson")?.to_owned(), as_text(after_key, "tojson")?.to_owned())
            }
            _ => return Err(refused("tojson: separators are two texts")),
        },
    };
    let style = Style {
        ascii: flag(ascii.as_ref(), false),
        indent,
        between,
        after_key,
        sort_keys: flag(sort_keys.as_ref(), false),
    };
    let mut out = String::new();
    style.write(value, 0, &mut out)?;
    Ok(Value::from(out))
}

impl Style {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(too_deep());
        }
        check_length(Some(out.len()))?;
        match kind(value) {
            Kind::None => out.push_str("null"),
            Kind::Bool(flag) => out.push_str(if flag { "true" } else { "false" }),
            // Writing to a string does not fail.
            Kind::Int(number) => write!(out, "{number}").unwrap_or_default(),
            Kind::Wide(number) => write!(out, "{number}").unwrap_or_default(),
            Kind::Float(float) => out.push_str(&float_text(float)),
            Kind::Str(text) => self.write_text(text, out),
            Kind::List(items) | Kind::Tuple(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.start_item(index, depth + 1, out)?;
                    self.write(item, depth + 1, out)?;
                }
                if !items.is_empty() {
                    self.new_line(depth, out)?;
                }
                out.push(']');
            }
            Kind::Dict(dict) => {
                let entries: Vec<(Value, Value)> = dict.iter().cloned().collect();
                self.write_entries(entries, depth, out)?;
            }
            Kind::Undefined | Kind::Object(_) => {
                return Err(refused(format!("tojson: a value of type {} is not JSON", type_name(value))));
            }
        }
        Ok(())
    }

    fn write_entries(
        &self,
        mut entries: Vec<(Value, Value)>,
        depth: usize,
        out: &mut String,
    ) -> Result<(), Error> {
        if self.sort_keys {
            let pairs =
                entries.into_iter().map(|(name, value)| (name.clone(), tuple(vec![name, value]))).collect();
            let sorted = compare::sort(pairs, false)?;
            entries = sorted
                .iter()
                .filter_map(|pair| match kind(pair) {
                    Kind::Tuple([name, value]) => Some((name.clone(), value.clone())),
                    _ => None,
                })
                .collect();
        }
        out.push('{');
        for (index, (name, value)) in entries.iter().enumerate() {
            self.start_item(index, depth + 1, out)?;
            self.write_key(name, out)?;
            out.push_str(&self.after_key);
            self.write(value, depth + 1, out)?;
        }
        if !entries.is_empty() {
            self.new_line(depth, out)?;
        }
        out.push('}');
        Ok(())
    }

    fn write_key(&self, name: &Value, out: &mut String) -> Result<(), Error> {
        let text = match kind(name) {
            Kind::Str(text) => text.to_owned(),
            Kind::None => "null".to_owned(),
            Kind::Bool(flag) => if flag { "true" } else { "false" }.to_owned(),
            Kind::Int(number) => number.to_string(),
            Kind::Wide(number) => number.to_string(),
            Kind::Float(float) => float_text(float),
            _ => return Err(refused(format!("tojson: a key of type {} is not JSON", type_name(name)))),
        };
        self.write_text(&text, out);
        Ok(())
    }

    fn start_item(&self, index: usize, depth: usize, out: &mut String) -> Result<(), Error> {
        if index > 0 {
            out.push_str(&self.between);
        }
        self.new_line(depth, out)
    }

    fn new_line(&self, depth: usize, out: &mut String) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            check_length(indent.len().checked_mul(depth).and_then(|added| added.checked_add(out.len())))?;
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
        Ok(())
    }

    fn write_text(&self, text: &str, out: &mut String) {
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\0'..='\u{1f}' => write!(out, "\\u{:04x}", u32::from(character)).unwrap_or_default(),
                ' '..='~' => out.push(character),
                _ if self.ascii => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}").unwrap_or_default();
                    }
                }
                _ => out.push(character),
            }
        }
        out.push('"');
    }
}

fn float_text(float: f64) -> String {
    if float.is_nan() {
        "NaN".to_owned()
    } else if float.is_infinite() {
        if float > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else {
        number::float_text(float)
    }
}
