//! `str(value)` and `repr(value)`.

use std::borrow::Cow;
use std::fmt::Write;

use minijinja::value::DynObject;
use minijinja::{Error, Value};

use super::objects::{self, Namespace, Range, Shows, View};
use super::{DEEPEST, Kind, check_length, kind, number, refused, too_deep, type_name};
use crate::text::jinja::macros::Macro;

/// `str(value)`.
pub(in crate::text::jinja) fn to_text(value: &Value) -> Result<Cow<'_, str>, Error> {
    match kind(value) {
        Kind::Str(text) => Ok(Cow::Borrowed(text)),
        Kind::Undefined => Ok(Cow::Borrowed("")),
        _ => repr(value).map(Cow::Owned),
    }
}

/// `repr(value)`.
pub(in crate::text::jinja) fn repr(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write_repr(value, 0, &mut Vec::new(), &mut out)?;
    Ok(out)
}

/// `open` has the namespaces that are being written: one of them may be inside of itself.
fn write_repr(value: &Value, depth: usize, open: &mut Vec<usize>, out: &mut String) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(too_deep());
    }
    check_length(Some(out.len()))?;
    match kind(value) {
        Kind::Undefined => out.push_str("Undefined"),
        Kind::None => out.push_str("None"),
        Kind::Bool(true) => out.push_str("True"),
        Kind::Bool(false) => out.push_str("False"),
        // Writing to a string does not fail.
        Kind::Int(number) => write!(out, "{number}").unwrap_or_default(),
        Kind::Wide(number) => write!(out, "{number}").unwrap_or_default(),
        Kind::Float(float) => out.push_str(&number::float_text(float)),
        Kind::Str(text) if value.is_safe() => {
            out.push_str("Markup(");
            quote(text, out);
            out.push(')');
        }
        Kind::Str(text) => quote(text, out),
        Kind::List(items) => write_items(items, ["[", "]"], depth, open, out)?,
        Kind::Tuple(items) if items.len() == 1 => write_items(items, ["(", ",)"], depth, open, out)?,
        Kind::Tuple(items) => write_items(items, ["(", ")"], depth, open, out)?,
        Kind::Dict(dict) => write_pairs(dict.iter(), depth, open, out)?,
        Kind::Object(object) => write_object(value, object, depth, open, out)?,
    }
    Ok(())
}

fn write_items(
    items: &[Value],
    [start, end]: [&str; 2],
    depth: usize,
    open: &mut Vec<usize>,
    out: &mut String,
) -> Result<(), Error> {
    out.push_str(start);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_repr(item, depth + 1, open, out)?;
    }
    out.push_str(end);
    Ok(())
}

fn write_pairs<'pair>(
    pairs: impl Iterator<Item = &'pair (Value, Value)>,
    depth: usize,
    open: &mut Vec<usize>,
    out: &mut String,
) -> Result<(), Error> {
    out.push('{');
    for (index, (name, value)) in pairs.enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_repr(name, depth + 1, open, out)?;
        out.push_str(": ");
        write_repr(value, depth + 1, open, out)?;
    }
    out.push('}');
    Ok(())
}

fn write_object(
    value: &Value,
    object: &DynObject,
    depth: usize,
    open: &mut Vec<usize>,
    out: &mut String,
) -> Result<(), Error> {
    if let Some(view) = object.downcast_ref::<View>() {
        let name = match view.shows {
            Shows::Keys => "dict_keys([",
            Shows::Values => "dict_values([",
            Shows::Items => "dict_items([",
        };
        return write_items(&view.items, [name, "])"], depth, open, out);
    }
    if let Some(range) = object.downcast_ref::<Range>() {
        let Range { start, stop, step, .. } = range;
        let step = if *step == 1 { String::new() } else { format!(", {step}") };
        write!(out, "range({start}, {stop}{step})").unwrap_or_default();
    } else if let Some(namespace) = object.downcast_ref::<Namespace>() {
        let address = objects::address(object);
        if open.contains(&address) {
            out.push_str("<Namespace {...}>");
            return Ok(());
        }
        open.push(address);
        // The lock is not held while the values are written: one of them may be the namespace itself.
        let entries = namespace.dict().clone();
        out.push_str("<Namespace ");
        write_pairs(entries.iter(), depth + 1, open, out)?;
        out.push('>');
        open.pop();
    } else if let Some(declared) = object.downcast_ref::<Macro>() {
        write!(out, "<Macro '{}'>", declared.name()).unwrap_or_default();
    } else if objects::is_loop(object) {
        let count = |name: &str| object.get_value(&Value::from(name)).unwrap_or_default();
        write!(out, "<LoopContext {}/{}>", count("index"), count("length")).unwrap_or_default();
    } else {
        let message =
            format!("the text of a {} has a random address, so it is no text for a prompt", type_name(value));
        return Err(refused(message));
    }
    Ok(())
}

/// `repr` of a text.
pub(in crate::text::jinja) fn quote(text: &str, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if character == mark => {
                out.push('\\');
                out.push(mark);
            }
            _ if is_printable(character) => out.push(character),
            _ => {
                let code = u32::from(character);
                match code {
                    ..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                }
                .unwrap_or_default();
            }
        }
    }
    out.push(mark);
}

/// `str.isprintable` of one character.
pub(in crate::text::jinja) fn is_printable(character: char) -> bool {
    use unicode_properties::GeneralCategory::{
        Control, Format, LineSeparator, ParagraphSeparator, PrivateUse, SpaceSeparator, Surrogate, Unassigned,
    };
    use unicode_properties::UnicodeGeneralCategory;
    match character {
        ' '..='~' => true,
        _ => !matches!(
            character.general_category(),
            Control
                | Format
                | LineSeparator
                | ParagraphSeparator
                | PrivateUse
                | SpaceSeparator
                | Surrogate
                | Unassigned
        ),
    }
}
