//! Jinja's filters.

mod markup;
mod number;
mod select;
mod sequence;
mod text;
mod wrap;

use minijinja::{Error, State, Value};

use super::value::args::{Args, flag, needed};
use super::value::{Kind, attributes, kind, refused, repr};
use super::{json, pprint};

/// The filters.
pub(super) const NAMES: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
    "wordwrap",
    "xmlattr",
    "random",
    "urlize",
];

/// The filters of Jinja that are refused: `random` is not repeatable, and no prompt has links.
pub(super) const REFUSED: [&str; 2] = ["random", "urlize"];

/// `value | name(...)`.
pub(super) fn apply(state: &mut State, name: &str, value: &Value, args: &Args) -> Result<Value, Error> {
    match name {
        "attr" => {
            let [attribute] = args.bind(name, ["name"])?;
            attr(value, &repr::to_text(&needed(attribute, name)?)?)
        }
        "d" | "default" => {
            let [default, boolean] = args.bind(name, ["default_value", "boolean"])?;
            let replaced =
                matches!(kind(value), Kind::Undefined) || flag(boolean.as_ref(), false) && !value.is_true();
            Ok(if replaced { default.unwrap_or_else(|| Value::from("")) } else { value.clone() })
        }
        "tojson" => json::dumps(value, args),
        "pprint" => {
            let [] = args.bind(name, [])?;
            pprint::pformat(value).map(Value::from)
        }
        "abs" | "filesizeformat" | "float" | "int" | "round" => number::apply(name, value, args),
        "e" | "escape" | "forceescape" | "safe" | "striptags" | "urlencode" | "xmlattr" => {
            markup::apply(state, name, value, args)
        }
        "map" | "reject" | "rejectattr" | "select" | "selectattr" => select::apply(state, name, value, args),
        "batch" | "count" | "dictsort" | "first" | "groupby" | "items" | "join" | "last" | "length"
        | "list" | "max" | "min" | "reverse" | "slice" | "sort" | "sum" | "unique" => {
            sequence::apply(state, name, value, args)
        }
        "capitalize" | "center" | "format" | "indent" | "lower" | "replace" | "string" | "title" | "trim"
        | "truncate" | "upper" | "wordcount" | "wordwrap" => text::apply(state, name, value, args),
        _ if REFUSED.contains(&name) => Err(refused(format!("the filter {name} is not supported"))),
        _ => Err(refused(format!("there is no filter {name:?}"))),
    }
}

/// The attribute only, not the item of that key.
fn attr(value: &Value, name: &str) -> Result<Value, Error> {
    match kind(value) {
        Kind::Dict(dict) => {
            // A key is found by `attribute` only where the type has no such attribute.
            let found = attributes::attribute(value, name)?;
            Ok(if dict.get_text(name).is_some_and(|item| item == &found) { Value::UNDEFINED } else { found })
        }
        _ => attributes::attribute(value, name),
    }
}

/// The text of a value; markup stays markup.
fn soft(value: &Value) -> Result<Value, Error> {
    match value.as_str() {
        Some(_) => Ok(value.clone()),
        None => repr::to_text(value).map(|text| Value::from(text.into_owned())),
    }
}
