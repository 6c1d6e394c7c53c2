//! Python's `pprint.pformat` at its width of 80.

use minijinja::{Error, Value};

use super::meter;
use super::strings::split;
use super::strings::trim::is_space;
use super::value::dict::Dict;
use super::value::{DEEPEST, Kind, compare, kind, list, repr, too_deep, tuple, type_name};

const WIDTH: usize = 80;

/// `pformat(value)`.
pub(super) fn pformat(value: &Value) -> Result<String, Error> {
    let sorted = with_sorted_keys(value, 0)?;
    let mut out = String::new();
    write(&sorted, Place { indent: 0, allowance: 0, level: 0 }, &mut out)?;
    Ok(out)
}

/// Where a value is written.
#[derive(Clone, Copy)]
struct Place {
    indent: usize,
    /// The characters that follow on the last line.
    allowance: usize,
    level: usize,
}

/// All dictionaries are written in the order of their keys.
fn with_sorted_keys(value: &Value, depth: usize) -> Result<Value, Error> {
    if depth > DEEPEST {
        return Err(too_deep());
    }
    let inner = |items: &[Value]| {
        items.iter().map(|item| with_sorted_keys(item, depth + 1)).collect::<Result<_, _>>()
    };
    meter::charge(value)?;
    Ok(match kind(value) {
        Kind::List(items) => list(inner(items)?),
        Kind::Tuple(items) => tuple(inner(items)?),
        Kind::Dict(dict) => {
            let names = dict.keys();
            let keyed = names.iter().map(|name| (name.clone(), name.clone())).collect();
            // Keys without an order are sorted by the names of their types.
            let names = compare::sort(keyed, false).or_else(|_| {
                let by_type = names.iter().map(|name| (Value::from(type_name(name)), name.clone())).collect();
                compare::sort(by_type, false)
            })?;
            let mut sorted = Dict::default();
            for name in names {
                let value = dict.get(&name)?.cloned().unwrap_or_default();
                sorted.insert(name, with_sorted_keys(&value, depth + 1)?)?;
            }
            Value::from_object(sorted)
        }
        _ => value.clone(),
    })
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn write(value: &Value, place: Place, out: &mut String) -> Result<(), Error> {
    let text = repr::repr(value)?;
    meter::charge_text(&text)?;
    if length(&text) <= WIDTH.saturating_sub(place.indent + place.allowance) {
        out.push_str(&text);
        return Ok(());
    }
    let inside = Place { level: place.level + 1, ..place };
    match kind(value) {
        Kind::Dict(dict) if dict.len() > 0 => write_dict(dict, inside, out),
        Kind::List(items) => write_items(items, ["[", "]"], inside, out),
        Kind::Tuple(items) => {
            write_items(items, if items.len() == 1 { ["(", ",)"] } else { ["(", ")"] }, inside, out)
        }
        Kind::Str(text) if !value.is_safe() => {
            write_text(text, inside, out);
            Ok(())
        }
        _ => {
            out.push_str(&text);
            Ok(())
        }
    }
}

fn next_line(indent: usize) -> String {
    format!(",\n{}", " ".repeat(indent))
}

fn write_dict(dict: &Dict, place: Place, out: &mut String) -> Result<(), Error> {
    let indent = place.indent + 1;
    out.push('{');
    for (index, (name, value)) in dict.iter().enumerate() {
        if index > 0 {
            out.push_str(&next_line(indent));
        }
        let name = repr::repr(name)?;
        out.push_str(&name);
        out.push_str(": ");
        let allowance = if index + 1 == dict.len() { place.allowance + 1 } else { 1 };
        write(value, Place { indent: indent + length(&name) + 2, allowance, level: place.level }, out)?;
    }
    out.push('}');
    Ok(())
}

fn write_items(
    items: &[Value],
    [open, close]: [&str; 2],
    place: Place,
    out: &mut String,
) -> Result<(), Error> {
    let indent = place.indent + 1;
    out.push_str(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push_str(&next_line(indent));
        }
        let allowance = if index + 1 == items.len() { place.allowance + close.len() } else { 1 };
        write(item, Place { indent, allowance, level: place.level }, out)?;
    }
    out.push_str(close);
    Ok(())
}

/// A text that is too long for its line becomes several, one a line.
fn write_text(text: &str, place: Place, out: &mut String) {
    let outermost = usize::from(place.level == 1);
    let (indent, allowance) = (place.indent + outermost, place.allowance + outermost);
    let width = WIDTH.saturating_sub(indent);
    let quoted = |text: &str| {
        let mut out = String::new();
        repr::quote(text, &mut out);
        out
    };
    let mut chunks = Vec::new();
    let lines = split::lines(text, true);
    for (index, line) in lines.iter().enumerate() {
        let is_last_line = index + 1 == lines.len();
        let whole = quoted(line);
        if length(&whole) <= width.saturating_sub(if is_last_line { allowance } else { 0 }) {
            chunks.push(whole);
            continue;
        }
        let parts = parts(line);
        let mut current = String::new();
        for (index, part) in parts.iter().enumerate() {
            let candidate = format!("{current}{part}");
            let is_last = is_last_line && index + 1 == parts.len();
            if length(&quoted(&candidate)) > width.saturating_sub(if is_last { allowance } else { 0 }) {
                if !current.is_empty() {
                    chunks.push(quoted(&current));
                }
                (*part).clone_into(&mut current);
            } else {
                current = candidate;
            }
        }
        if !current.is_empty() {
            chunks.push(quoted(&current));
        }
    }
    if let [only] = chunks.as_slice() {
        out.push_str(only);
        return;
    }
    let separator = format!("\n{}", " ".repeat(indent));
    let joined = chunks.join(&separator);
    out.push_str(&if outermost == 1 { format!("({joined})") } else { joined });
}

/// Words with the white space behind them.
fn parts(line: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let word = rest.find(is_space).unwrap_or(rest.len());
        let end = rest[word..].find(|character| !is_space(character)).map_or(rest.len(), |end| word + end);
        parts.push(&rest[..end]);
        rest = &rest[end..];
    }
    parts
}
