//! Python's comparisons.

use std::cmp::Ordering;

use minijinja::value::DynObject;
use minijinja::{Error, Value};
use num_bigint::BigInt;

use super::dict::{Dict, key};
use super::objects::{self, Generator, Range, Shows, View};
use super::{DEEPEST, Kind, kind, number, refused, sequence, too_deep, type_name};
use crate::text::jinja::meter;

/// `left == right`.
pub(in crate::text::jinja) fn equal(left: &Value, right: &Value) -> Result<bool, Error> {
    equal_at(left, right, 0)
}

fn equal_at(left: &Value, right: &Value, depth: usize) -> Result<bool, Error> {
    if depth > DEEPEST {
        return Err(too_deep());
    }
    meter::check_cancelled()?;
    Ok(match (kind(left), kind(right)) {
        (Kind::Undefined, Kind::Undefined) | (Kind::None, Kind::None) => true,
        (Kind::Str(left), Kind::Str(right)) => left == right,
        (Kind::List(left), Kind::List(right)) | (Kind::Tuple(left), Kind::Tuple(right)) => {
            left.len() == right.len() && all_equal(left, right, depth)?
        }
        (Kind::Dict(left), Kind::Dict(right)) => equal_dicts(left, right, depth)?,
        (Kind::Object(left), Kind::Object(right)) => equal_objects(left, right)?,
        _ if number::is_number(left) && number::is_number(right) => {
            order_of_numbers(left, right) == Some(Ordering::Equal)
        }
        _ => false,
    })
}

fn all_equal(left: &[Value], right: &[Value], depth: usize) -> Result<bool, Error> {
    for (left, right) in left.iter().zip(right) {
        if !equal_at(left, right, depth + 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn equal_dicts(left: &Dict, right: &Dict, depth: usize) -> Result<bool, Error> {
    if left.len() != right.len() {
        return Ok(false);
    }
    for (name, value) in left.iter() {
        match right.get(name)? {
            Some(other) if equal_at(value, other, depth + 1)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

fn equal_objects(left: &DynObject, right: &DynObject) -> Result<bool, Error> {
    if let (Some(left), Some(right)) = (left.downcast_ref::<Range>(), right.downcast_ref::<Range>()) {
        return Ok(left.length == right.length
            && (left.length == 0
                || left.start == right.start && (left.length == 1 || left.step == right.step)));
    }
    if let (Some(left), Some(right)) = (left.downcast_ref::<View>(), right.downcast_ref::<View>())
        && left.shows != Shows::Values
        && right.shows != Shows::Values
    {
        if left.items.len() != right.items.len() {
            return Ok(false);
        }
        for item in &left.items {
            if !holds(&right.items, item)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    let address = objects::address(left);
    Ok(address != 0 && address == objects::address(right))
}

fn holds(items: &[Value], item: &Value) -> Result<bool, Error> {
    for other in items {
        if equal(other, item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The order of two numbers by their exact values; `None` beside a NaN.
fn order_of_numbers(left: &Value, right: &Value) -> Option<Ordering> {
    match (kind(left), kind(right)) {
        (Kind::Float(left), Kind::Float(right)) => left.partial_cmp(&right),
        (Kind::Float(float), _) => {
            order_of_int_and_float(&number::to_big(right)?, float).map(Ordering::reverse)
        }
        (_, Kind::Float(float)) => order_of_int_and_float(&number::to_big(left)?, float),
        _ => Some(number::to_big(left)?.cmp(&number::to_big(right)?)),
    }
}

fn order_of_int_and_float(int: &BigInt, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    if float.is_infinite() {
        return Some(if float > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let order = int.cmp(&number::truncated(float));
    Some(order.then_with(|| 0.0.partial_cmp(&float.fract()).unwrap_or(Ordering::Equal)))
}

/// The order of two values; `None` beside a NaN.
///
/// # Errors
/// If Python has no order of their types.
pub(in crate::text::jinja) fn order(left: &Value, right: &Value) -> Result<Option<Ordering>, Error> {
    order_at(left, right, 0)
}

fn order_at(left: &Value, right: &Value, depth: usize) -> Result<Option<Ordering>, Error> {
    if depth > DEEPEST {
        return Err(too_deep());
    }
    match (kind(left), kind(right)) {
        (Kind::Str(left), Kind::Str(right)) => Ok(Some(left.cmp(right))),
        (Kind::List(left), Kind::List(right)) | (Kind::Tuple(left), Kind::Tuple(right)) => {
            for (left, right) in left.iter().zip(right) {
                if !equal_at(left, right, depth + 1)? {
                    return order_at(left, right, depth + 1);
                }
            }
            Ok(Some(left.len().cmp(&right.len())))
        }
        _ if number::is_number(left) && number::is_number(right) => Ok(order_of_numbers(left, right)),
        _ => Err(refused(format!("no order between {} and {}", type_name(left), type_name(right)))),
    }
}

/// `left < right`, as `sorted` asks it.
pub(in crate::text::jinja) fn less(left: &Value, right: &Value) -> Result<bool, Error> {
    Ok(order(left, right)? == Some(Ordering::Less))
}

/// `item in container`.
pub(in crate::text::jinja) fn contains(container: &Value, item: &Value) -> Result<bool, Error> {
    match kind(container) {
        Kind::Str(text) => match item.as_str() {
            Some(part) => Ok(text.contains(part)),
            None => Err(refused(format!("'in' a str needs a str, not {}", type_name(item)))),
        },
        Kind::Dict(dict) => Ok(dict.get(item)?.is_some()),
        Kind::List(items) | Kind::Tuple(items) => holds(items, item),
        Kind::Undefined => Ok(false),
        Kind::Object(object) => {
            if let Some(generator) = object.downcast_ref::<Generator>() {
                while let Some(other) = generator.next() {
                    if equal(&other?, item)? {
                        return Ok(true);
                    }
                }
                return Ok(false);
            }
            holds(&sequence::items(container)?, item)
        }
        _ => Err(refused(format!("a {} holds no items", type_name(container)))),
    }
}

/// `left is right`, as far as it can be seen.
pub(in crate::text::jinja) fn same(left: &Value, right: &Value) -> bool {
    match (kind(left), kind(right)) {
        (Kind::Undefined, Kind::Undefined) | (Kind::None, Kind::None) => true,
        (Kind::Bool(left), Kind::Bool(right)) => left == right,
        (Kind::Int(left), Kind::Int(right)) => left == right,
        (Kind::Float(left), Kind::Float(right)) => left == right,
        (Kind::Str(left_text), Kind::Str(right_text)) => {
            left_text == right_text && left.is_safe() == right.is_safe()
        }
        _ => match (left.as_object(), right.as_object()) {
            (Some(left), Some(right)) => {
                let address = objects::address(left);
                address != 0 && address == objects::address(right)
            }
            _ => false,
        },
    }
}

/// Sorts values by their keys, stable, as `sorted` does. (The standard library's sort may panic without a total order,
/// which a NaN does not have.)
pub(in crate::text::jinja) fn sort(
    mut items: Vec<(Value, Value)>,
    reverse: bool,
) -> Result<Vec<Value>, Error> {
    // Reversed before and after, equal items keep their order.
    if reverse {
        items.reverse();
    }
    let mut sorted = merge_sort(items)?;
    if reverse {
        sorted.reverse();
    }
    Ok(sorted.into_iter().map(|(_, item)| item).collect())
}

fn merge_sort(mut items: Vec<(Value, Value)>) -> Result<Vec<(Value, Value)>, Error> {
    if items.len() < 2 {
        return Ok(items);
    }
    let upper = merge_sort(items.split_off(items.len() / 2))?;
    let lower = merge_sort(items)?;
    let mut merged = Vec::with_capacity(lower.len() + upper.len());
    let (mut lower, mut upper) = (lower.into_iter().peekable(), upper.into_iter().peekable());
    while let (Some(left), Some(right)) = (lower.peek(), upper.peek()) {
        let next = if less(&right.0, &left.0)? { upper.next() } else { lower.next() };
        merged.extend(next);
    }
    merged.extend(lower);
    merged.extend(upper);
    Ok(merged)
}

/// Whether a value can be a key.
pub(in crate::text::jinja) fn is_hashable(value: &Value) -> bool {
    key(value).is_ok()
}
