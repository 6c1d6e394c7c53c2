//! Jinja's tests: `value is name`.

use minijinja::{Error, State, Value};

use super::value::args::{Args, needed};
use super::value::number::{self, Operation};
use super::value::objects::Range;
use super::value::{Kind, attributes, compare, kind, refused, repr, sequence};
use super::{filters, strings};

/// The tests.
pub(super) const NAMES: [&str; 39] = [
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

/// `value is name(...)`.
pub(super) fn run(_: &State, name: &str, value: &Value, args: &Args) -> Result<bool, Error> {
    let other = || -> Result<Value, Error> {
        let [other] = args.bind(name, ["other"])?;
        needed(other, name)
    };
    let operator = match name {
        "eq" | "equalto" | "==" => "==",
        "ne" | "!=" => "!=",
        "gt" | "greaterthan" | ">" => ">",
        "ge" | ">=" => ">=",
        "lt" | "lessthan" | "<" => "<",
        "le" | "<=" => "<=",
        "in" => {
            let [container] = args.bind(name, ["seq"])?;
            return compare::contains(&needed(container, name)?, value);
        }
        "sameas" => return Ok(compare::same(value, &other()?)),
        "divisibleby" => {
            let [divisor] = args.bind(name, ["num"])?;
            return has_remainder(value, &needed(divisor, name)?, 0);
        }
        _ => {
            let [] = args.bind(name, [])?;
            return without_args(name, value);
        }
    };
    super::value::operators::comparison(value, &[Value::from(operator), other()?])
        .map(|holds| holds.is_true())
}

fn has_remainder(value: &Value, divisor: &Value, remainder: i32) -> Result<bool, Error> {
    // `%` of a text is its format, which equals no number.
    if value.as_str().is_some() {
        return super::value::operators::binary("%", value, divisor).map(|_| false);
    }
    compare::equal(&number::arithmetic(Operation::Modulo, value, divisor)?, &Value::from(remainder))
}

fn without_args(name: &str, value: &Value) -> Result<bool, Error> {
    let of_case = |name: &str| -> Result<bool, Error> {
        Ok(strings::call(&repr::to_text(value)?, false, name, &Args::default())?.is_true())
    };
    Ok(match name {
        "boolean" => matches!(kind(value), Kind::Bool(_)),
        "callable" => attributes::is_callable(value),
        "defined" => !matches!(kind(value), Kind::Undefined),
        "undefined" => matches!(kind(value), Kind::Undefined),
        "escaped" => value.is_safe(),
        "even" => has_remainder(value, &Value::from(2), 0)?,
        "odd" => has_remainder(value, &Value::from(2), 1)?,
        "true" => matches!(kind(value), Kind::Bool(true)),
        "false" => matches!(kind(value), Kind::Bool(false)),
        "filter" => known(&filters::NAMES, value)?,
        "test" => known(&NAMES, value)?,
        "float" => matches!(kind(value), Kind::Float(_)),
        "integer" => matches!(kind(value), Kind::Int(_) | Kind::Wide(_)),
        "iterable" => sequence::is_iterable(value),
        "lower" => of_case("islower")?,
        "upper" => of_case("isupper")?,
        "mapping" => matches!(kind(value), Kind::Dict(_)),
        "none" => value.is_none(),
        "number" => number::is_number(value),
        "sequence" => match kind(value) {
            Kind::Undefined | Kind::Str(_) | Kind::List(_) | Kind::Tuple(_) | Kind::Dict(_) => true,
            Kind::Object(object) => object.is::<Range>(),
            _ => false,
        },
        "string" => value.as_str().is_some(),
        _ => return Err(refused(format!("there is no test {name:?}"))),
    })
}

/// Whether the value is the name of a filter or a test.
fn known(names: &[&str], value: &Value) -> Result<bool, Error> {
    if !compare::is_hashable(value) {
        return Err(refused("the name of a filter or a test is a str"));
    }
    Ok(value.as_str().is_some_and(|name| names.contains(&name)))
}
