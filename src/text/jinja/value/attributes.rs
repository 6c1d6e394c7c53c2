//! `value.name`, `value[key]` and `value.name(...)`, with what Jinja's sandbox hides.

use std::sync::atomic::Ordering;

use minijinja::value::DynObject;
use minijinja::{Error, State, Value};

use super::args::Args;
use super::objects::{Bound, Builtin, Cycler, Group, Joiner, Namespace, Range, is_loop};
use super::{Kind, args, kind, number, refused, repr, sequence, text, type_name};
use crate::text::jinja::macros::Macro;
use crate::text::jinja::{functions, methods, strings};

/// The methods of lists and dictionaries that change them. The sandbox hides them.
const CHANGING: [&str; 12] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "__setitem__",
];

/// The attributes of every value of Python. The sandbox hides them.
fn is_internal(name: &str) -> bool {
    name.len() > 4 && name.starts_with("__") && name.ends_with("__")
}

/// Whether Python's type of `value` has a method of this name.
fn has_method(value: &Value, name: &str) -> bool {
    match kind(value) {
        Kind::Str(_) => strings::METHODS.contains(&name),
        Kind::Dict(_) => methods::OF_DICTS.contains(&name),
        Kind::List(_) => methods::OF_LISTS.contains(&name),
        Kind::Tuple(_) => methods::OF_TUPLES.contains(&name),
        Kind::Bool(_) | Kind::Int(_) | Kind::Wide(_) => methods::OF_INTS.contains(&name),
        Kind::Float(_) => methods::OF_FLOATS.contains(&name),
        Kind::Object(object) => {
            (object.is::<Cycler>() && ["next", "reset"].contains(&name))
                || (object.is::<Range>() && methods::OF_TUPLES.contains(&name))
                || (object.downcast_ref::<Builtin>().is_some_and(|builtin| builtin.name == "dict")
                    && name == "fromkeys")
                || (is_loop(object) && ["cycle", "changed"].contains(&name))
        }
        _ => false,
    }
}

fn hides_change(value: &Value, name: &str) -> bool {
    matches!(kind(value), Kind::List(_) | Kind::Dict(_)) && CHANGING.contains(&name)
}

/// `value.name`: the attribute, or else the item of that key, or else undefined.
pub(in crate::text::jinja) fn attribute(value: &Value, name: &str) -> Result<Value, Error> {
    check_defined(value, name)?;
    if let Some(found) = python_attribute(value, name) {
        return Ok(found);
    }
    match kind(value) {
        Kind::Dict(dict) => Ok(dict.get_text(name).cloned().unwrap_or_default()),
        _ => Ok(Value::UNDEFINED),
    }
}

/// `value[key]`: the item, or else the attribute of that name, or else undefined.
pub(in crate::text::jinja) fn item(value: &Value, key: &Value) -> Result<Value, Error> {
    if matches!(kind(value), Kind::Undefined) {
        return Err(refused(format!("an undefined value has no item {}", repr::repr(key)?)));
    }
    let found = match (kind(value), kind(key)) {
        (Kind::Dict(dict), _) => dict.get(key).ok().flatten().cloned(),
        (_, Kind::Int(_) | Kind::Bool(_)) => sequence::at(value, args::as_int(key, "[]")?),
        _ => None,
    };
    if let Some(found) = found {
        return Ok(found);
    }
    Ok(key.as_str().and_then(|name| python_attribute(value, name)).unwrap_or_default())
}

fn check_defined(value: &Value, name: &str) -> Result<(), Error> {
    if matches!(kind(value), Kind::Undefined) {
        return Err(refused(format!("an undefined value has no attribute {name:?}")));
    }
    Ok(())
}

/// What `getattr` finds. What the sandbox hides is undefined.
fn python_attribute(value: &Value, name: &str) -> Option<Value> {
    if is_internal(name) || hides_change(value, name) {
        return Some(Value::UNDEFINED);
    }
    if has_method(value, name) {
        return Some(Value::from_object(Bound { receiver: value.clone(), name: name.to_owned() }));
    }
    match kind(value) {
        Kind::Bool(_) | Kind::Int(_) | Kind::Wide(_) => match name {
            "real" | "numerator" => number::to_big(value).map(number::from_big),
            "imag" => Some(Value::from(0)),
            "denominator" => Some(Value::from(1)),
            _ => None,
        },
        Kind::Float(_) => match name {
            "real" => Some(value.clone()),
            "imag" => Some(Value::from(0.0)),
            _ => None,
        },
        Kind::Tuple(_) => {
            let Group([grouper, list]) = value.downcast_object_ref::<Group>()?;
            match name {
                "grouper" => Some(grouper.clone()),
                "list" => Some(list.clone()),
                _ => None,
            }
        }
        Kind::Object(object) => object_attribute(object, name),
        _ => None,
    }
}

fn object_attribute(object: &DynObject, name: &str) -> Option<Value> {
    if let Some(namespace) = object.downcast_ref::<Namespace>() {
        return namespace.dict().get_text(name).cloned();
    }
    if let Some(declared) = object.downcast_ref::<Macro>() {
        return declared.attribute(name);
    }
    if let Some(cycler) = object.downcast_ref::<Cycler>() {
        return match name {
            "current" => Some(cycler.current()),
            "pos" => Some(Value::from(cycler.position.load(Ordering::Relaxed))),
            "items" => Some(super::tuple(cycler.items.clone())),
            _ => None,
        };
    }
    if let Some(joiner) = object.downcast_ref::<Joiner>() {
        return match name {
            "sep" => Some(joiner.separator.clone()),
            "used" => Some(Value::from(joiner.used.load(Ordering::Relaxed) != 0)),
            _ => None,
        };
    }
    if let Some(range) = object.downcast_ref::<Range>() {
        return match name {
            "start" => Some(Value::from(range.start)),
            "stop" => Some(Value::from(range.stop)),
            "step" => Some(Value::from(range.step)),
            _ => None,
        };
    }
    if is_loop(object) { object.get_value(&Value::from(name)) } else { None }
}

/// `value.name = new`, which only a namespace allows.
pub(in crate::text::jinja) fn set(value: &Value, name: &str, new: Value) -> Result<(), Error> {
    let Some(namespace) = value.downcast_object_ref::<Namespace>() else {
        return Err(refused(format!("cannot assign an attribute of a value of type {}", type_name(value))));
    };
    functions::check_namespace_name(name)?;
    namespace.dict().insert_text(name, new);
    Ok(())
}

/// `receiver.name(...)`.
pub(in crate::text::jinja) fn call_method(
    state: &mut State,
    receiver: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    check_defined(receiver, name)?;
    if is_internal(name) || hides_change(receiver, name) {
        return Err(refused(format!("{name}() of a {} is not safe to call", type_name(receiver))));
    }
    if has_method(receiver, name) {
        return own_method(state, receiver, name, args);
    }
    let callee = attribute(receiver, name)?;
    if matches!(kind(&callee), Kind::Undefined) {
        return Err(refused(format!("a {} has no method {name}()", type_name(receiver))));
    }
    call(state, &callee, args)
}

fn own_method(state: &mut State, receiver: &Value, name: &str, values: &[Value]) -> Result<Value, Error> {
    if let Some(object) = receiver.as_object()
        && is_loop(object)
    {
        return loop_method(state, receiver, name, values);
    }
    let args = Args::new(values)?;
    match kind(receiver) {
        Kind::Str(text) => strings::call(text, receiver.is_safe(), name, &args),
        Kind::Dict(dict) => methods::of_dict(dict, name, &args),
        Kind::List(items) | Kind::Tuple(items) => methods::of_sequence(receiver, items, name, &args),
        Kind::Object(object) => {
            if let Some(cycler) = object.downcast_ref::<Cycler>() {
                if name == "reset" {
                    cycler.position.store(0, Ordering::Relaxed);
                    return Ok(Value::from(()));
                }
                return Ok(cycler.advance());
            }
            if object.is::<Range>() {
                return methods::of_sequence(receiver, &sequence::items(receiver)?, name, &args);
            }
            functions::dict_from_keys(&args)
        }
        _ => methods::of_number(receiver, name, &args),
    }
}

/// `loop.cycle` is Python's; `loop.changed` is the engine's, which remembers the last values.
fn loop_method(state: &mut State, receiver: &Value, name: &str, values: &[Value]) -> Result<Value, Error> {
    if name == "changed" {
        return receiver.call_method(state, name, values);
    }
    if values.is_empty() {
        return Err(refused("loop.cycle() has no items"));
    }
    let index = attribute(receiver, "index0")?.as_usize().unwrap_or_default();
    Ok(values[index % values.len()].clone())
}

/// `callee(...)`.
pub(in crate::text::jinja) fn call(
    state: &mut State,
    callee: &Value,
    args: &[Value],
) -> Result<Value, Error> {
    if !is_callable(callee) {
        return Err(refused(format!("a value of type {} is not callable", type_name(callee))));
    }
    callee.call(state, args)
}

/// `callable(value)`.
pub(in crate::text::jinja) fn is_callable(value: &Value) -> bool {
    match kind(value) {
        // `Undefined` has a `__call__`, which fails.
        Kind::Undefined => true,
        Kind::Object(object) => {
            object.is::<Bound>()
                || object.is::<Builtin>()
                || object.is::<Macro>()
                || object.is::<Joiner>()
                || is_loop(object)
        }
        _ => false,
    }
}

/// The getter of the filters' `attribute`: a path with dots, whose numbers are indexes.
pub(in crate::text::jinja) fn path(
    value: &Value,
    path: &Value,
    default: Option<&Value>,
) -> Result<Value, Error> {
    let mut found = value.clone();
    let mut step = |key: &Value| -> Result<(), Error> {
        found = item(&found, key)?;
        if let Some(default) = default
            && matches!(kind(&found), Kind::Undefined)
        {
            found = default.clone();
        }
        Ok(())
    };
    match path.as_str() {
        Some(names) => {
            for name in names.split('.') {
                let is_index = !name.is_empty() && name.chars().all(strings::character::is_digit);
                match number::parse_int(name, 10).filter(|_| is_index) {
                    Some(index) => step(&number::from_big(index))?,
                    None => step(&Value::from(name))?,
                }
            }
        }
        None if path.is_none() => {}
        None => step(path)?,
    }
    Ok(found)
}

/// The lower case of a text; other values stay as they are.
pub(in crate::text::jinja) fn without_case(value: Value) -> Value {
    match value.as_str() {
        Some(cased) => text(strings::case::lower(cased), value.is_safe()),
        None => value,
    }
}
