//! Iteration, length, indexes and slices, as Python has them.

use minijinja::{Error, Value};

use super::objects::{Generator, Range, View};
use super::{Kind, MOST_ITEMS, args, check_items, kind, list, refused, text, tuple, type_name};

/// The items that iterating over `value` gives. A generator is empty afterwards.
///
/// # Errors
/// If it is not iterable, or a generator fails.
pub(in crate::text::jinja) fn items(value: &Value) -> Result<Vec<Value>, Error> {
    match kind(value) {
        Kind::Undefined => Ok(Vec::new()),
        Kind::Str(text) => {
            check_items(text.chars().take(MOST_ITEMS + 1).count())?;
            Ok(text.chars().map(Value::from).collect())
        }
        Kind::List(items) | Kind::Tuple(items) => Ok(items.to_vec()),
        Kind::Dict(dict) => Ok(dict.keys()),
        Kind::Object(object) => {
            if let Some(generator) = object.downcast_ref::<Generator>() {
                return std::iter::from_fn(|| generator.next()).collect();
            }
            if let Some(view) = object.downcast_ref::<View>() {
                return Ok(view.items.clone());
            }
            if let Some(range) = object.downcast_ref::<Range>() {
                return Ok(range.items());
            }
            Err(not_iterable(value))
        }
        _ => Err(not_iterable(value)),
    }
}

fn not_iterable(value: &Value) -> Error {
    refused(format!("a value of type {} is not iterable", type_name(value)))
}

/// Whether `iter(value)` succeeds.
pub(in crate::text::jinja) fn is_iterable(value: &Value) -> bool {
    match kind(value) {
        Kind::Undefined | Kind::Str(_) | Kind::List(_) | Kind::Tuple(_) | Kind::Dict(_) => true,
        Kind::Object(object) => object.is::<Generator>() || object.is::<View>() || object.is::<Range>(),
        _ => false,
    }
}

/// `len(value)`; `None` if it has no length.
pub(in crate::text::jinja) fn length(value: &Value) -> Option<usize> {
    match kind(value) {
        Kind::Undefined => Some(0),
        Kind::Str(text) => Some(text.chars().count()),
        Kind::List(items) | Kind::Tuple(items) => Some(items.len()),
        Kind::Dict(dict) => Some(dict.len()),
        Kind::Object(object) => match (object.downcast_ref::<View>(), object.downcast_ref::<Range>()) {
            (Some(view), _) => Some(view.items.len()),
            (_, Some(range)) => Some(range.length),
            _ => None,
        },
        _ => None,
    }
}

/// The item at an index, which counts from the end if it is negative; `None` if there is none or `value` has no
/// indexes.
pub(in crate::text::jinja) fn at(value: &Value, index: i64) -> Option<Value> {
    let place = |length: usize| {
        let index = if index < 0 { index.checked_add(i64::try_from(length).ok()?)? } else { index };
        usize::try_from(index).ok().filter(|index| *index < length)
    };
    match kind(value) {
        Kind::Str(characters) => {
            let place =
                if index < 0 { place(characters.chars().count())? } else { usize::try_from(index).ok()? };
            characters.chars().nth(place).map(|character| text(character.to_string(), value.is_safe()))
        }
        Kind::List(items) | Kind::Tuple(items) => items.get(place(items.len())?).cloned(),
        Kind::Object(object) => {
            let range = object.downcast_ref::<Range>()?;
            range.get(place(range.length)?)
        }
        _ => None,
    }
}

/// `value[start:stop:step]`.
pub(in crate::text::jinja) fn slice(value: &Value, bounds: [&Value; 3]) -> Result<Value, Error> {
    let mut given = [None; 3];
    for (slot, bound) in given.iter_mut().zip(bounds) {
        if !bound.is_none() {
            *slot = Some(args::as_int(bound, "slice")?);
        }
    }
    match kind(value) {
        Kind::Str(characters) => {
            let characters: Vec<char> = characters.chars().collect();
            let chosen = slice_places(characters.len(), given)?.map(|place| characters[place]);
            Ok(text(chosen.collect(), value.is_safe()))
        }
        Kind::List(items) => {
            Ok(list(slice_places(items.len(), given)?.map(|place| items[place].clone()).collect()))
        }
        Kind::Tuple(items) => {
            Ok(tuple(slice_places(items.len(), given)?.map(|place| items[place].clone()).collect()))
        }
        Kind::Object(object) if object.is::<Range>() => {
            let items = items(value)?;
            let (start, stop, step) = slice_bounds(items.len(), given)?;
            let range = object.downcast_ref::<Range>().ok_or_else(|| not_iterable(value))?;
            let place = |index: i64| range.start.saturating_add(range.step.saturating_mul(index));
            Ok(super::super::functions::range_of(place(start), place(stop), range.step.saturating_mul(step)))
        }
        _ => Err(refused(format!("a value of type {} has no slices", type_name(value)))),
    }
}

/// `slice.indices`: the first place, the end and the step.
fn slice_bounds(length: usize, [start, stop, step]: [Option<i64>; 3]) -> Result<(i64, i64, i64), Error> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let step = step.unwrap_or(1).max(-i64::MAX);
    if step == 0 {
        return Err(refused("a slice's step is not zero"));
    }
    let (lowest, highest) = if step < 0 { (-1, length - 1) } else { (0, length) };
    let clamp = |bound: Option<i64>, default: i64| match bound {
        None => default,
        Some(bound) if bound < 0 => bound.saturating_add(length).max(lowest),
        Some(bound) => bound.min(highest),
    };
    let (first, last) = if step < 0 { (highest, lowest) } else { (lowest, highest) };
    Ok((clamp(start, first), clamp(stop, last), step))
}

fn slice_places(length: usize, given: [Option<i64>; 3]) -> Result<impl Iterator<Item = usize>, Error> {
    let (start, stop, step) = slice_bounds(length, given)?;
    let mut place = start;
    Ok(std::iter::from_fn(move || {
        let inside = if step > 0 { place < stop } else { place > stop };
        let current = usize::try_from(place).ok().filter(|_| inside);
        place = place.saturating_add(step);
        current
    }))
}
