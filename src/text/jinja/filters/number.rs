//! Filters of numbers.

use minijinja::{Error, Value};

use crate::text::jinja::format;
use crate::text::jinja::value::args::{Args, as_int, as_text, flag, int_or};
use crate::text::jinja::value::{Kind, kind, number, refused, type_name};

pub(super) fn apply(name: &str, value: &Value, args: &Args) -> Result<Value, Error> {
    match name {
        "abs" => {
            let [] = args.bind(name, [])?;
            match kind(value) {
                Kind::Float(float) => Ok(Value::from(float.abs())),
                _ => match number::to_big(value) {
                    Some(big) => Ok(number::from_big(big.magnitude().clone().into())),
                    None => Err(refused(format!("abs needs a number, not {}", type_name(value)))),
                },
            }
        }
        "int" => int(value, args),
        "float" => float(value, args),
        "round" => round(value, args),
        _ => file_size(value, args),
    }
}

fn check_defined(value: &Value, name: &str) -> Result<(), Error> {
    match kind(value) {
        Kind::Undefined => Err(refused(format!("{name}: the value is undefined"))),
        _ => Ok(()),
    }
}

fn int(value: &Value, args: &Args) -> Result<Value, Error> {
    let [default, base] = args.bind("int", ["default", "base"])?;
    check_defined(value, "int")?;
    let base = u32::try_from(int_or(base.as_ref(), 10, "int")?).unwrap_or(1);
    let default = default.unwrap_or_else(|| Value::from(0));
    let found = match kind(value) {
        Kind::Str(text) => {
            let truncated =
                || number::parse_float(text).filter(|float| float.is_finite()).map(number::truncated);
            number::parse_int(text, base).or_else(truncated)
        }
        // An infinity is no integer, which the filter does not catch at its first attempt.
        Kind::Float(float) if float.is_infinite() => return Err(refused("int: infinity is no integer")),
        Kind::Float(float) if float.is_nan() => None,
        Kind::Float(float) => Some(number::truncated(float)),
        _ => number::to_big(value),
    };
    Ok(found.map_or(default, number::from_big))
}

fn float(value: &Value, args: &Args) -> Result<Value, Error> {
    let [default] = args.bind("float", ["default"])?;
    check_defined(value, "float")?;
    let found = match kind(value) {
        Kind::Str(text) => number::parse_float(text),
        _ if number::is_number(value) => Some(number::to_float(value)?),
        _ => None,
    };
    Ok(found.map_or_else(|| default.unwrap_or_else(|| Value::from(0.0)), Value::from))
}

fn round(value: &Value, args: &Args) -> Result<Value, Error> {
    let [precision, method] = args.bind("round", ["precision", "method"])?;
    let precision = match &precision {
        Some(precision) => as_int(precision, "round")?,
        None => 0,
    };
    let method = method.unwrap_or_else(|| Value::from("common"));
    match as_text(&method, "round")? {
        "common" => match kind(value) {
            Kind::Float(float) => Ok(Value::from(number::round_float(float, precision))),
            _ => match number::to_big(value) {
                Some(big) => Ok(number::from_big(number::round_int(&big, precision))),
                None => Err(refused(format!("round needs a number, not {}", type_name(value)))),
            },
        },
        method @ ("ceil" | "floor") => rounded_one_way(value, precision, method == "ceil"),
        _ => Err(refused("round: the method is common, ceil or floor")),
    }
}

/// `ceil(value * 10**precision) / 10**precision`.
fn rounded_one_way(value: &Value, precision: i64, up: bool) -> Result<Value, Error> {
    use number::Operation::{Divide, Multiply, Power};
    let unit = number::arithmetic(Power, &Value::from(10), &Value::from(precision))?;
    let scaled = number::arithmetic(Multiply, value, &unit)?;
    let whole = match kind(&scaled) {
        Kind::Float(float) if !float.is_finite() => return Err(refused("round: the number is not finite")),
        Kind::Float(float) => {
            number::from_big(number::truncated(if up { float.ceil() } else { float.floor() }))
        }
        _ => scaled,
    };
    number::arithmetic(Divide, &whole, &unit)
}

fn file_size(value: &Value, args: &Args) -> Result<Value, Error> {
    let [binary] = args.bind("filesizeformat", ["binary"])?;
    let binary = flag(binary.as_ref(), false);
    let bytes = match kind(value) {
        Kind::Str(text) => {
            number::parse_float(text).ok_or_else(|| refused("filesizeformat: the text is no number"))?
        }
        _ => number::to_float(value)?,
    };
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return Ok(Value::from("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::from(format!("{} Bytes", number::truncated(bytes))));
    }
    let prefixes = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    let mut unit = base;
    for (index, prefix) in prefixes.iter().enumerate() {
        unit *= base;
        if bytes < unit || index == prefixes.len() - 1 {
            let prefix = if binary { prefix.to_uppercase() + "i" } else { (*prefix).to_owned() };
            return Ok(Value::from(format!("{} {prefix}B", format::fixed(base * bytes / unit, 1))));
        }
    }
    Err(refused("filesizeformat: not a number"))
}
