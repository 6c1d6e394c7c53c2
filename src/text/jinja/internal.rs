//! The functions that translated templates call.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use minijinja::value::{Object, ObjectRepr};
use minijinja::{Environment, Error, State, Value};

use super::value::args::Args;
use super::value::dict::Dict;
use super::value::objects::Flow;
use super::value::{Kind, attributes, kind, list, number, operators, refused, repr, sequence, type_name};
use super::{filters, functions, html, macros, meter, tests, translate};

type Call = fn(&mut State<'_, '_>, &[Value]) -> Result<Value, Error>;

/// A function of translated templates.
struct Internal {
    name: &'static str,
    call: Call,
}

impl fmt::Debug for Internal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

impl Object for Internal {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        let result = (self.call)(state, args)?;
        if !GIVES_WHAT_IS_THERE.contains(&self.name) {
            meter::charge(&result)?;
        }
        Ok(result)
    }
}

/// The functions whose result was made before.
const GIVES_WHAT_IS_THERE: [&str; 4] = ["codit__attribute", "codit__given", "codit__item", "codit__raw"];

/// An environment for translated templates, with Jinja's functions.
pub(in crate::text) fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::empty();
    environment.set_syntax(translate::syntax()?);
    for (name, call) in INTERNAL {
        environment.add_global(name, Value::from_object(Internal { name, call }));
    }
    for (name, function) in functions::all() {
        environment.add_global(name, function);
    }
    Ok(environment)
}

/// What a template prints for a value.
pub(in crate::text) fn printed<'value>(
    state: &State,
    value: &'value Value,
) -> Result<Cow<'value, str>, Error> {
    let text = repr::to_text(value)?;
    Ok(if operators::escapes(state) && !value.is_safe() { Cow::Owned(html::escaped(&text)) } else { text })
}

/// A fixed number of arguments.
fn some<const N: usize>(args: &[Value]) -> Result<&[Value; N], Error> {
    args.try_into().map_err(|_| refused("a translated call has other arguments"))
}

/// The text among translated arguments.
fn name(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

const INTERNAL: [(&str, Call); 30] = [
    ("codit__attribute", |_, args| {
        some(args).and_then(|[value, attribute]| attributes::attribute(value, name(attribute)))
    }),
    ("codit__arithmetic", |_, args| {
        let (first, rest) = args.split_first().ok_or_else(|| refused("nothing is computed"))?;
        let mut result = first.clone();
        for pair in rest.chunks_exact(2) {
            result = operators::binary(name(&pair[0]), &result, &pair[1])?;
        }
        Ok(result)
    }),
    ("codit__call", |state, args| {
        let (callee, args) = args.split_first().ok_or_else(|| refused("nothing is called"))?;
        attributes::call(state, callee, args)
    }),
    ("codit__compare", |_, args| {
        let (first, rest) = args.split_first().ok_or_else(|| refused("nothing is compared"))?;
        operators::comparison(first, rest)
    }),
    ("codit__concat", |state, args| operators::concat(operators::escapes(state), args)),
    ("codit__dict", |_, args| some(args).and_then(|[entries]| dict(entries))),
    ("codit__filter", |state, args| {
        let [filter, value, rest @ ..] = args else { return Err(refused("nothing is filtered")) };
        filters::apply(state, name(filter), value, &Args::new(rest)?)
    }),
    ("codit__flow", |_, _| Ok(Value::from_object(Flow::default()))),
    ("codit__given", |_, args| {
        let value = argument(args)?;
        Ok(if macros::is_missing(&value) { Value::UNDEFINED } else { value })
    }),
    ("codit__infinity", |_, _| Ok(Value::from(f64::INFINITY))),
    ("codit__int", |_, args| {
        let number = args.first().and_then(|digits| number::parse_int(name(digits), 10));
        Ok(number.map(number::from_big).unwrap_or_default())
    }),
    ("codit__item", |_, args| some(args).and_then(|[value, key]| attributes::item(value, key))),
    ("codit__iterate", |_, args| iterate(args)),
    ("codit__join", |_, args| operators::concat(false, args)),
    ("codit__keywords", |_, args| some(args).and_then(|[values]| keywords(values))),
    ("codit__leave", |_, args| {
        let [flow, how] = some(args)?;
        if let Some(flow) = flow.downcast_object_ref::<Flow>() {
            flow.0.store(code(name(how)), Ordering::Relaxed);
        }
        Ok(Value::UNDEFINED)
    }),
    ("codit__left", |_, args| {
        let [flow, how] = some(args)?;
        let left = flow.downcast_object_ref::<Flow>().map_or(0, |flow| flow.0.load(Ordering::Relaxed));
        Ok(Value::from(left == code(name(how))))
    }),
    ("codit__macro", |_, args| macros::Macro::of(args)),
    // A list or a tuple that the engine has made.
    ("codit__made", |_, args| some(args).map(|[value]| value.clone())),
    ("codit__marked", |state, args| {
        let [value] = some(args)?;
        if !operators::escapes(state) {
            return Ok(value.clone());
        }
        Ok(Value::from_safe_string(repr::to_text(value)?.into_owned()))
    }),
    ("codit__method", |state, args| {
        let [receiver, method, rest @ ..] = args else { return Err(refused("nothing is called")) };
        attributes::call_method(state, receiver, name(method), rest)
    }),
    ("codit__missing", |_, args| argument(args).map(|value| Value::from(macros::is_missing(&value)))),
    ("codit__negate", |_, args| some(args).and_then(|[value]| number::negated(value))),
    // Text of the template of so many bytes, which the engine prints by itself.
    ("codit__printed", |_, args| {
        let [bytes] = some(args)?;
        meter::print(bytes.as_usize().unwrap_or(usize::MAX))?;
        Ok(Value::from(""))
    }),
    ("codit__raw", |_, args| {
        let [value] = some(args)?;
        match value.as_str() {
            Some(text) => Ok(Value::from_safe_string(text.to_owned())),
            None => Err(refused(format!("a block gives a {}, not a str", type_name(value)))),
        }
    }),
    ("codit__set", |_, args| {
        let [object, attribute, value] = some(args)?;
        attributes::set(object, name(attribute), value.clone()).map(|()| Value::UNDEFINED)
    }),
    ("codit__slice", |_, args| {
        let [value, start, stop, step] = some(args)?;
        sequence::slice(value, [start, stop, step])
    }),
    ("codit__test", |state, args| {
        let [test, value, rest @ ..] = args else { return Err(refused("nothing is tested")) };
        tests::run(state, name(test), value, &Args::new(rest)?).map(Value::from)
    }),
    ("codit__truth", |_, args| some(args).map(|[value]| Value::from(value.is_true()))),
    ("codit__unpack", |_, args| some(args).and_then(|[value, shape]| functions::unpacked(value, shape))),
];

/// How a loop's body is left, as a number; 0 is that it goes on.
fn code(how: &str) -> u8 {
    match how {
        "break" => 1,
        "continue" => 2,
        _ => 0,
    }
}

fn dict(entries: &Value) -> Result<Value, Error> {
    let Kind::List(entries) = kind(entries) else { return Err(refused("not the entries of a dict")) };
    let mut dict = Dict::default();
    for entry in entries.chunks_exact(2) {
        dict.insert(entry[0].clone(), entry[1].clone())?;
    }
    Ok(Value::from_object(dict))
}

/// The items of a value as a list, unpacked if a shape is given.
fn iterate(args: &[Value]) -> Result<Value, Error> {
    let (value, shape) = match args {
        [value] => (value, None),
        [value, shape] => (value, Some(shape)),
        _ => return Err(refused("nothing is iterated over")),
    };
    let mut items = sequence::items(value)?;
    if let Some(shape) = shape {
        items = items.iter().map(|item| functions::unpacked(item, shape)).collect::<Result<_, _>>()?;
    }
    Ok(list(items))
}

fn keywords(values: &Value) -> Result<Value, Error> {
    let Kind::Dict(dict) = kind(values) else { return Err(refused("** needs a dict")) };
    let mut pairs = Vec::with_capacity(dict.len());
    for (name, value) in dict.iter() {
        let name = name.as_str().ok_or_else(|| refused("keywords are texts"))?;
        pairs.push((name, value.clone()));
    }
    Ok(Value::from_pairs(pairs))
}

/// The argument of a macro by its place.
fn argument(args: &[Value]) -> Result<Value, Error> {
    let [args, index] = some(args)?;
    match kind(args) {
        Kind::List(args) => {
            Ok(index.as_usize().and_then(|index| args.get(index)).cloned().unwrap_or_default())
        }
        _ => Err(refused("not the arguments of a macro")),
    }
}
