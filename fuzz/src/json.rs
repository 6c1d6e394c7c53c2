//! Damages JSON as a tree, so that most of it stays readable.

use serde_json::{Map, Value, json};

use crate::Random;

/// What stands for raw text in a tree: `RAW` + text as a string becomes the text itself, also where it is no JSON.
const RAW: &str = "\u{1}raw:";

/// Values at which readers break.
const RAW_VALUES: [&str; 22] = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "-1e400",
    "-0",
    "-0.0",
    "1E308",
    "5e-324",
    "0.1",
    "1e-5",
    "2147483647",
    "-2147483649",
    "4294967296",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "1.0",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "tru",
];

/// Parses a seed; a seed with values that JSON lacks is no tree.
pub fn parse(text: &[u8]) -> Option<Value> {
    serde_json::from_slice(text).ok()
}

pub fn print(value: &Value) -> Vec<u8> {
    let text = value.to_string();
    let mut parts = text.split("\"\\u0001raw:");
    let mut printed = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // The raw text is a JSON string up to its closing quote.
        let mut end = 0;
        let bytes = part.as_bytes();
        while end < bytes.len() && bytes[end] != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        let inner: String = serde_json::from_str(&format!("\"{}\"", &part[..end])).unwrap_or_default();
        printed.push_str(&inner);
        printed.push_str(&part[(end + 1).min(part.len())..]);
    }
    printed.into_bytes()
}

/// Changes some node of `tree`; `others` are trees to take nodes from, `words` are strings that mean something.
pub fn damage(random: &mut Random, tree: &mut Value, others: &[Value], words: &[&str]) {
    let count = nodes(tree);
    let chosen = random.below(count);
    let other = (!others.is_empty()).then(|| {
        let other = &others[random.below(others.len())];
        let at = random.below(nodes(other));
        node(other, at).clone()
    });
    let Some(target) = node_mut(tree, chosen) else { return };
    match random.below(10) {
        0..3 => *target = odd_value(random, words),
        3 => *target = other.unwrap_or_default(),
        4..6 => damage_scalar(random, target, words),
        _ => match target {
            Value::Object(fields) => damage_object(random, fields, other, words),
            Value::Array(items) => damage_array(random, items, other, words),
            _ => damage_scalar(random, target, words),
        },
    }
}

fn odd_value(random: &mut Random, words: &[&str]) -> Value {
    match random.below(14) {
        0 => Value::Null,
        1 => json!(random.once_in(2)),
        2 => json!(random.below(300) as i64 - 20),
        3 => json!(1_u64 << random.below(64)),
        4 => json!((1_u64 << random.below(64)) - 1),
        5 => json!(f64::from_bits(random.next())),
        6..9 => json!(format!("{RAW}{}", random.pick(&RAW_VALUES))),
        9 => json!(""),
        10 => json!("\u{feff}\u{1b}[2J\u{0}\u{202e}x".repeat(1 << random.below(8))),
        11 => json!("x".repeat(1 << random.below(17))),
        12 if !words.is_empty() => json!(random.pick(words)),
        _ => {
            let depth = 1 << random.below(9);
            (0..depth).fold(
                json!({}),
                |inner, _| if random.once_in(2) { json!([inner]) } else { json!({ "": inner }) },
            )
        }
    }
}

fn damage_scalar(random: &mut Random, value: &mut Value, words: &[&str]) {
    match value {
        Value::Number(number) => {
            let n = number.as_f64().unwrap_or_default();
            let n = match random.below(6) {
                0 => -n,
                1 => n + 1.0,
                2 => n - 1.0,
                3 => n * 2.0,
                4 => n / 2.0,
                _ => n * 1e6,
            };
            *value = if n.fract() == 0.0 && n.abs() < 9e15 { json!(n as i64) } else { json!(n) };
        }
        Value::String(text) => {
            let mut bytes = std::mem::take(text).into_bytes();
            super::mutate::damage_bytes(random, &mut bytes, words);
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        Value::Bool(is) => *is = !*is,
        other => *other = odd_value(random, words),
    }
}

fn damage_object(random: &mut Random, fields: &mut Map<String, Value>, other: Option<Value>, words: &[&str]) {
    let keys: Vec<String> = fields.keys().cloned().collect();
    let key = if keys.is_empty() { String::new() } else { keys[random.below(keys.len())].clone() };
    match random.below(5) {
        0 => drop(fields.shift_remove(&key)),
        1 => {
            let value = fields.shift_remove(&key).unwrap_or_default();
            let name = if words.is_empty() || random.once_in(3) {
                "\u{0}".to_owned()
            } else {
                random.pick(words).to_owned()
            };
            fields.insert(name, value);
        }
        2 if !words.is_empty() => {
            let value = other.unwrap_or_else(|| odd_value(random, words));
            fields.insert(random.pick(words).to_owned(), value);
        }
        3 => {
            // The same key twice.
            let value = odd_value(random, words);
            let raw = format!("{RAW}{},{}", json!(key), json!(key));
            fields.insert(raw, value);
        }
        _ => drop(fields.insert(key, other.unwrap_or_default())),
    }
}

fn damage_array(random: &mut Random, items: &mut Vec<Value>, other: Option<Value>, words: &[&str]) {
    let place = random.place(items.len());
    match random.below(4) {
        0 if place < items.len() => drop(items.remove(place)),
        1 if place < items.len() => {
            let copy = items[place].clone();
            items.extend(std::iter::repeat_n(copy, 1 << random.below(7)));
        }
        2 => items.truncate(place),
        _ => items.insert(place, other.unwrap_or_else(|| odd_value(random, words))),
    }
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}

fn nodes(value: &Value) -> usize {
    1 + children(value).map(nodes).sum::<usize>()
}

fn node(value: &Value, at: usize) -> &Value {
    let mut at = at;
    if at == 0 {
        return value;
    }
    at -= 1;
    for child in children(value) {
        let size = nodes(child);
        if at < size {
            return node(child, at);
        }
        at -= size;
    }
    value
}

fn node_mut(value: &mut Value, at: usize) -> Option<&mut Value> {
    if at == 0 {
        return Some(value);
    }
    let mut at = at - 1;
    let children: Box<dyn Iterator<Item = &mut Value>> = match value {
        Value::Array(items) => Box::new(items.iter_mut()),
        Value::Object(fields) => Box::new(fields.values_mut()),
        _ => return None,
    };
    for child in children {
        let size = nodes(child);
        if at < size {
            return node_mut(child, at);
        }
        at -= size;
    }
    None
}
