//! Python's operators.

use minijinja::{AutoEscape, Error, State, Value};

use super::number::{self, Operation, arithmetic};
use super::{
    Kind, args, check_items, check_length, compare, kind, list, refused, repr, text, tuple, type_name,
};
use crate::text::jinja::{format, html};

/// `left operation right`.
pub(in crate::text::jinja) fn binary(operation: &str, left: &Value, right: &Value) -> Result<Value, Error> {
    let operation = match operation {
        "+" => Operation::Add,
        "-" => Operation::Subtract,
        "*" => Operation::Multiply,
        "/" => Operation::Divide,
        "//" => Operation::FloorDivide,
        "%" => Operation::Modulo,
        "**" => Operation::Power,
        _ => return Err(refused(format!("no such operator: {operation}"))),
    };
    if number::is_number(left) && number::is_number(right) {
        return arithmetic(operation, left, right);
    }
    let combined = match operation {
        Operation::Add => add(left, right)?,
        Operation::Multiply => repeat(left, right)?,
        Operation::Modulo => match left.as_str() {
            Some(pattern) => Some(text(format::percent(pattern, right, left.is_safe())?, left.is_safe())),
            None => None,
        },
        _ => None,
    };
    combined.ok_or_else(|| {
        refused(format!("the operator is not for {} and {}", type_name(left), type_name(right)))
    })
}

fn add(left: &Value, right: &Value) -> Result<Option<Value>, Error> {
    Ok(match (kind(left), kind(right)) {
        (Kind::Str(before), Kind::Str(after)) => {
            check_length(before.len().checked_add(after.len()))?;
            // Markup beside another text escapes it.
            Some(match (left.is_safe(), right.is_safe()) {
                (true, false) => text(format!("{before}{}", html::escaped(after)), true),
                (false, true) => text(format!("{}{after}", html::escaped(before)), true),
                (safe, _) => text([before, after].concat(), safe),
            })
        }
        (Kind::List(before), Kind::List(after)) => {
            check_items(before.len().saturating_add(after.len()))?;
            Some(list([before, after].concat()))
        }
        (Kind::Tuple(before), Kind::Tuple(after)) => {
            check_items(before.len().saturating_add(after.len()))?;
            Some(tuple([before, after].concat()))
        }
        _ => None,
    })
}

fn repeat(left: &Value, right: &Value) -> Result<Option<Value>, Error> {
    let (repeated, times) = if matches!(kind(right), Kind::Int(_) | Kind::Bool(_) | Kind::Wide(_)) {
        (left, right)
    } else {
        (right, left)
    };
    if !matches!(kind(times), Kind::Int(_) | Kind::Bool(_) | Kind::Wide(_)) {
        return Ok(None);
    }
    let times = usize::try_from(args::as_int(times, "*")?).unwrap_or(0);
    Ok(match kind(repeated) {
        Kind::Str(part) => {
            check_length(part.len().checked_mul(times))?;
            Some(text(part.repeat(times), repeated.is_safe()))
        }
        Kind::List(items) => {
            check_items(items.len().max(1).saturating_mul(times))?;
            Some(list(vec![items; times].concat()))
        }
        Kind::Tuple(items) => {
            check_items(items.len().max(1).saturating_mul(times))?;
            Some(tuple(vec![items; times].concat()))
        }
        _ => None,
    })
}

/// `a < b == c ...`: each operator stands before its operand.
pub(in crate::text::jinja) fn comparison(first: &Value, rest: &[Value]) -> Result<Value, Error> {
    let mut left = first;
    for pair in rest.chunks_exact(2) {
        let [operator, right] = pair else { break };
        if !compared(left, operator.as_str().unwrap_or_default(), right)? {
            return Ok(Value::from(false));
        }
        left = right;
    }
    Ok(Value::from(true))
}

fn compared(left: &Value, operator: &str, right: &Value) -> Result<bool, Error> {
    use std::cmp::Ordering::{Greater, Less};
    Ok(match operator {
        "==" => compare::equal(left, right)?,
        "!=" => !compare::equal(left, right)?,
        "in" => compare::contains(right, left)?,
        "not in" => !compare::contains(right, left)?,
        _ => {
            let order = compare::order(left, right)?;
            match operator {
                "<" => order == Some(Less),
                "<=" => order.is_some_and(|order| order != Greater),
                ">" => order == Some(Greater),
                _ => order.is_some_and(|order| order != Less),
            }
        }
    })
}

/// `a ~ b ~ c`. Where texts are escaped, `escaping`, and one part is markup, the others are escaped.
pub(in crate::text::jinja) fn concat(escaping: bool, parts: &[Value]) -> Result<Value, Error> {
    let safe = escaping && parts.iter().any(Value::is_safe);
    let mut joined = String::new();
    for part in parts {
        let part_text = repr::to_text(part)?;
        check_length(joined.len().checked_add(part_text.len()))?;
        if safe && !part.is_safe() {
            joined.push_str(&html::escaped(&part_text));
        } else {
            joined.push_str(&part_text);
        }
    }
    Ok(text(joined, safe))
}

/// Whether the template escapes what it prints here.
pub(in crate::text::jinja) fn escapes(state: &State) -> bool {
    !matches!(state.auto_escape(), AutoEscape::None)
}
