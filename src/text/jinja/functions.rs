//! The functions that a template finds: Jinja's and those of `transformers`.

use std::sync::atomic::{AtomicU8, AtomicUsize};
use std::sync::{Arc, Mutex};

use minijinja::{Error, State, Value};

use super::value::args::{Args, as_int, needed};
use super::value::dict::Dict;
use super::value::objects::{Builtin, Cycler, Joiner, Namespace, Range};
use super::value::{Kind, kind, list, refused, repr, sequence, type_name};
use super::{meter, strftime};

/// The longest range that Jinja's sandbox allows.
const LONGEST_RANGE: usize = 100_000;

type Call = fn(&mut State<'_, '_>, &Args) -> Result<Value, Error>;

/// The functions by their names.
pub(super) fn all() -> Vec<(&'static str, Value)> {
    let functions: [(&'static str, Call); 7] = [
        ("range", range),
        ("dict", |_, args| dict_of(args).map(Value::from_object)),
        ("namespace", |_, args| namespace(args)),
        ("cycler", |_, args| cycler(args)),
        ("joiner", |_, args| joiner(args)),
        ("strftime_now", strftime_now),
        ("raise_exception", raise_exception),
    ];
    functions.into_iter().map(|(name, call)| (name, Value::from_object(Builtin { name, call }))).collect()
}

fn range(_: &mut State, args: &Args) -> Result<Value, Error> {
    let [first, second, step] = args.bind("range", ["/start", "/stop", "/step"])?;
    let first = as_int(&needed(first, "range")?, "range")?;
    let (start, stop) = match second {
        Some(stop) => (first, as_int(&stop, "range")?),
        None => (0, first),
    };
    let step = step.map_or(Ok(1), |step| as_int(&step, "range"))?;
    if step == 0 {
        return Err(refused("range(): the step is not zero"));
    }
    let range = range_of(start, stop, step);
    match sequence::length(&range) {
        Some(length) if length <= LONGEST_RANGE => Ok(range),
        _ => Err(refused(format!("range(): too many items, over {LONGEST_RANGE}"))),
    }
}

/// A range of any length.
pub(super) fn range_of(start: i64, stop: i64, step: i64) -> Value {
    let span =
        if step > 0 { i128::from(stop) - i128::from(start) } else { i128::from(start) - i128::from(stop) };
    let step_length = i128::from(step).abs().max(1);
    let length = usize::try_from((span + step_length - 1) / step_length).unwrap_or(0);
    Value::from_object(Range { start, stop, step, length: if span <= 0 { 0 } else { length } })
}

/// `dict(...)`: a mapping or pairs, then keywords.
fn dict_of(args: &Args) -> Result<Dict, Error> {
    let mut dict = Dict::default();
    if args.positional.len() > 1 {
        return Err(refused("dict() takes one argument and keywords"));
    }
    if let Some(source) = args.positional.first() {
        if let Kind::Dict(source) = kind(source) {
            dict = source.clone();
        } else {
            for pair in sequence::items(source)? {
                let [name, value] = <[Value; 2]>::try_from(sequence::items(&pair)?)
                    .map_err(|_| refused("dict(): an item is no pair"))?;
                dict.insert(name, value)?;
            }
        }
    }
    for (name, value) in &args.keywords {
        dict.insert_text(name, value.clone());
    }
    Ok(dict)
}

/// `dict.fromkeys(...)`.
pub(super) fn dict_from_keys(args: &Args) -> Result<Value, Error> {
    let [keys, value] = args.bind("fromkeys", ["/iterable", "/value"])?;
    let value = value.unwrap_or_else(|| Value::from(()));
    let mut dict = Dict::default();
    for key in sequence::items(&needed(keys, "fromkeys")?)? {
        dict.insert(key, value.clone())?;
    }
    Ok(Value::from_object(dict))
}

fn namespace(args: &Args) -> Result<Value, Error> {
    let dict = dict_of(args)?;
    for (name, _) in dict.iter() {
        check_namespace_name(name.as_str().unwrap_or_default())?;
    }
    let namespace = Arc::new(Namespace(Mutex::new(dict)));
    meter::keep(&namespace);
    Ok(Value::from_dyn_object(namespace))
}

/// `transformers` refuses what could reach Python's internals.
pub(super) fn check_namespace_name(name: &str) -> Result<(), Error> {
    if name.starts_with('_') {
        return Err(refused(format!("a namespace's attribute does not begin with an underscore: {name:?}")));
    }
    Ok(())
}

fn cycler(args: &Args) -> Result<Value, Error> {
    if args.positional.is_empty() || !args.keywords.is_empty() {
        return Err(refused("cycler() takes one item or more"));
    }
    Ok(Value::from_object(Cycler { items: args.positional.clone(), position: AtomicUsize::new(0) }))
}

fn joiner(args: &Args) -> Result<Value, Error> {
    let [separator] = args.bind("joiner", ["sep"])?;
    let separator = separator.unwrap_or_else(|| Value::from(", "));
    Ok(Value::from_object(Joiner { separator, used: AtomicU8::new(0) }))
}

fn raise_exception(_: &mut State, args: &Args) -> Result<Value, Error> {
    let [message] = args.bind("raise_exception", ["message"])?;
    let message = needed(message, "raise_exception")?;
    Err(super::refusal::refusal(repr::to_text(&message)?.into_owned()))
}

fn strftime_now(state: &mut State, args: &Args) -> Result<Value, Error> {
    let [format] = args.bind("strftime_now", ["format"])?;
    let format = needed(format, "strftime_now")?;
    let format = format
        .as_str()
        .ok_or_else(|| refused(format!("strftime_now() needs a str, not {}", type_name(&format))))?;
    strftime::now(state, format).map(Value::from)
}

/// The items of the targets of an assignment: `shape` has a number of items, or a list of the shapes of the items.
pub(super) fn unpacked(value: &Value, shape: &Value) -> Result<Value, Error> {
    let Kind::List(shapes) = kind(shape) else { return Ok(value.clone()) };
    let items = match kind(value) {
        Kind::Undefined => return Err(refused("an undefined value cannot be unpacked")),
        _ => sequence::items(value)?,
    };
    if items.len() != shapes.len() {
        return Err(refused(format!(
            "{} values cannot be unpacked into {} names",
            items.len(),
            shapes.len()
        )));
    }
    if shapes.iter().all(Value::is_none) && matches!(kind(value), Kind::List(_) | Kind::Tuple(_)) {
        return Ok(value.clone());
    }
    let items: Result<Vec<Value>, Error> =
        items.iter().zip(shapes).map(|(item, shape)| unpacked(item, shape)).collect();
    items.map(list)
}
