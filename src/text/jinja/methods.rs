//! The methods of dictionaries, lists, tuples and numbers that change nothing.

use minijinja::{Error, Value};

use super::value::args::{Args, as_int, needed};
use super::value::dict::Dict;
use super::value::objects::{Shows, View};
use super::value::{Kind, compare, kind, list, number, refused};

pub(super) const OF_DICTS: [&str; 6] = ["copy", "fromkeys", "get", "items", "keys", "values"];
pub(super) const OF_LISTS: [&str; 3] = ["copy", "count", "index"];
pub(super) const OF_TUPLES: [&str; 2] = ["count", "index"];
pub(super) const OF_INTS: [&str; 4] = ["as_integer_ratio", "bit_count", "bit_length", "conjugate"];
pub(super) const OF_FLOATS: [&str; 2] = ["conjugate", "is_integer"];

/// `dict.name(...)`.
pub(super) fn of_dict(dict: &Dict, name: &str, args: &Args) -> Result<Value, Error> {
    if name == "get" {
        let [key, default] = args.bind(name, ["/key", "/default"])?;
        let found = dict.get(&needed(key, name)?)?.cloned();
        return Ok(found.or(default).unwrap_or_else(|| Value::from(())));
    }
    if name == "fromkeys" {
        return super::functions::dict_from_keys(args);
    }
    let [] = args.bind(name, [])?;
    Ok(match name {
        "items" => View::of(dict, Shows::Items),
        "keys" => View::of(dict, Shows::Keys),
        "values" => View::of(dict, Shows::Values),
        _ => Value::from_object(dict.clone()),
    })
}

/// `list.name(...)` or `tuple.name(...)`.
pub(super) fn of_sequence(
    receiver: &Value,
    items: &[Value],
    name: &str,
    args: &Args,
) -> Result<Value, Error> {
    if name == "copy" {
        let [] = args.bind(name, [])?;
        return Ok(list(items.to_vec()));
    }
    if name == "count" {
        let [sought] = args.bind(name, ["/value"])?;
        let sought = needed(sought, name)?;
        let mut count = 0;
        for item in items {
            count += usize::from(compare::equal(item, &sought)?);
        }
        return Ok(Value::from(count));
    }
    let [sought, start, stop] = args.bind(name, ["/value", "/start", "/stop"])?;
    let sought = needed(sought, name)?;
    let place = |bound: Option<Value>, default: usize| -> Result<usize, Error> {
        let Some(bound) = bound else { return Ok(default) };
        let bound = as_int(&bound, name)?;
        let bound = if bound < 0 { bound.saturating_add(items.len() as i64).max(0) } else { bound };
        Ok(usize::try_from(bound).unwrap_or(usize::MAX))
    };
    let (start, stop) = (place(start, 0)?, place(stop, items.len())?);
    for (index, item) in items.iter().enumerate().take(stop).skip(start) {
        if compare::equal(item, &sought)? {
            return Ok(Value::from(index));
        }
    }
    Err(refused(format!("index(): the value is not in the {}", super::value::type_name(receiver))))
}

/// `int.name()` or `float.name()`.
pub(super) fn of_number(receiver: &Value, name: &str, args: &Args) -> Result<Value, Error> {
    let [] = args.bind(name, [])?;
    if let Kind::Float(float) = kind(receiver) {
        return Ok(if name == "is_integer" {
            Value::from(number::integral(float).is_some())
        } else {
            receiver.clone()
        });
    }
    let big = number::to_big(receiver).unwrap_or_default();
    Ok(match name {
        "bit_length" => Value::from(big.bits()),
        "bit_count" => Value::from(big.magnitude().count_ones()),
        "as_integer_ratio" => super::value::tuple(vec![number::from_big(big), Value::from(1)]),
        _ => number::from_big(big),
    })
}
