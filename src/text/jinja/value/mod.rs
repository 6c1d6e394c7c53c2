//! Python's values on top of the template engine's: what kind a value is, and how values are made.

pub(super) mod args;
pub(super) mod attributes;
pub(super) mod compare;
pub(super) mod dict;
pub(super) mod from_json;
pub(super) mod number;
pub(super) mod objects;
pub(super) mod operators;
pub(super) mod repr;
pub(super) mod sequence;

use minijinja::value::{DynObject, Tuple, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use num_bigint::BigInt;

use dict::Dict;
use objects::{Group, Wide};

/// The longest text that one operation may make, in bytes. A template that multiplies text exceeds it before memory is
/// short.
pub(super) const LONGEST_TEXT: usize = 64 << 20;

/// The most items of a list. Words of the largest prompts are fewer.
pub(super) const MOST_ITEMS: usize = 1 << 22;

/// The deepest nesting of values that is printed, compared or written as JSON. Python's own limit is about 1,000 calls.
pub(super) const DEEPEST: usize = 900;

/// An error at work.
pub(super) fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// What Python would call the type of a value.
pub(super) enum Kind<'value> {
    Undefined,
    None,
    Bool(bool),
    Int(i128),
    /// An integer that needs more than 127 bits.
    Wide(&'value BigInt),
    Float(f64),
    Str(&'value str),
    List(&'value [Value]),
    Tuple(&'value [Value]),
    Dict(&'value Dict),
    Object(&'value DynObject),
}

/// The kind of `value`.
pub(super) fn kind(value: &Value) -> Kind<'_> {
    if let Some(text) = value.as_str() {
        return Kind::Str(text);
    }
    match value.kind() {
        ValueKind::None => Kind::None,
        ValueKind::Bool => Kind::Bool(value.is_true()),
        ValueKind::Number => number_kind(value),
        _ => value.as_object().map_or(Kind::Undefined, object_kind),
    }
}

fn number_kind(value: &Value) -> Kind<'_> {
    if value.is_integer() {
        return i128::try_from(value.clone()).map_or(Kind::Undefined, Kind::Int);
    }
    f64::try_from(value.clone()).map_or(Kind::Undefined, Kind::Float)
}

fn object_kind(object: &DynObject) -> Kind<'_> {
    if let Some(dict) = object.downcast_ref::<Dict>() {
        Kind::Dict(dict)
    } else if let Some(items) = object.downcast_ref::<Vec<Value>>() {
        Kind::List(items)
    } else if let Some(items) = object.downcast_ref::<Tuple>() {
        Kind::Tuple(items)
    } else if let Some(wide) = object.downcast_ref::<Wide>() {
        Kind::Wide(&wide.0)
    } else if let Some(group) = object.downcast_ref::<Group>() {
        Kind::Tuple(&group.0)
    } else {
        Kind::Object(object)
    }
}

/// The name of a value's type, for messages.
pub(super) fn type_name(value: &Value) -> &'static str {
    match kind(value) {
        Kind::Undefined => "undefined",
        Kind::None => "NoneType",
        Kind::Bool(_) => "bool",
        Kind::Int(_) | Kind::Wide(_) => "int",
        Kind::Float(_) => "float",
        Kind::Str(_) => "str",
        Kind::List(_) => "list",
        Kind::Tuple(_) => "tuple",
        Kind::Dict(_) => "dict",
        Kind::Object(object) => objects::type_name(object),
    }
}

/// A list.
pub(super) fn list(items: Vec<Value>) -> Value {
    Value::from_object(items)
}

/// A tuple.
pub(super) fn tuple(items: Vec<Value>) -> Value {
    Value::from(Tuple::from(items))
}

/// A text; `safe` if it is markup, which is not escaped again.
pub(super) fn text(text: String, safe: bool) -> Value {
    if safe { Value::from_safe_string(text) } else { Value::from(text) }
}

/// A text of at most [`LONGEST_TEXT`].
pub(super) fn check_length(length: Option<usize>) -> Result<(), Error> {
    match length {
        Some(length) if length <= LONGEST_TEXT => Ok(()),
        _ => Err(refused(format!("a text is too large, over {} MiB", LONGEST_TEXT >> 20))),
    }
}

/// A list of at most [`MOST_ITEMS`].
pub(super) fn check_items(count: usize) -> Result<(), Error> {
    if count <= MOST_ITEMS {
        Ok(())
    } else {
        Err(refused(format!("a list has more than {MOST_ITEMS} items")))
    }
}

/// The error for a value that is nested too deep.
pub(super) fn too_deep() -> Error {
    refused("a value is nested too deep")
}
