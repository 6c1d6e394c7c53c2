//! Python's numbers: integers of any width, floats, their arithmetic and their text.

use minijinja::{Error, Value};
use num_bigint::{BigInt, Sign};

use super::objects::Wide;
use super::{Kind, kind, refused};

/// The widest integer in bits. Python has no limit; a template that multiplies integers meets this one.
const WIDEST: u64 = 1 << 16;

/// An integer of any width as a value.
pub(in crate::text::jinja) fn from_big(number: BigInt) -> Value {
    match i128::try_from(&number) {
        Ok(number) => from_int(number),
        Err(_) => Value::from_object(Wide(number)),
    }
}

/// An integer as a value.
pub(in crate::text::jinja) fn from_int(number: i128) -> Value {
    i64::try_from(number).map_or_else(|_| Value::from(number), Value::from)
}

/// The integer of an integer or a boolean.
pub(in crate::text::jinja) fn to_big(value: &Value) -> Option<BigInt> {
    match kind(value) {
        Kind::Bool(flag) => Some(BigInt::from(i32::from(flag))),
        Kind::Int(number) => Some(BigInt::from(number)),
        Kind::Wide(number) => Some(number.clone()),
        _ => None,
    }
}

/// Whether the value is an integer, a boolean or a float.
pub(in crate::text::jinja) fn is_number(value: &Value) -> bool {
    matches!(kind(value), Kind::Bool(_) | Kind::Int(_) | Kind::Wide(_) | Kind::Float(_))
}

/// The float nearest to a number.
pub(in crate::text::jinja) fn to_float(value: &Value) -> Result<f64, Error> {
    match kind(value) {
        Kind::Bool(flag) => Ok(f64::from(u8::from(flag))),
        Kind::Int(number) => Ok(number as f64),
        Kind::Wide(number) => big_to_float(number),
        Kind::Float(number) => Ok(number),
        _ => Err(refused(format!("not a number: {}", super::type_name(value)))),
    }
}

fn big_to_float(number: &BigInt) -> Result<f64, Error> {
    // The standard library rounds decimal digits correctly.
    let float: f64 = number.to_string().parse().unwrap_or(f64::INFINITY);
    if float.is_finite() { Ok(float) } else { Err(refused("an int is too large for a float")) }
}

/// The integer that a float is, if it is one.
pub(in crate::text::jinja) fn integral(float: f64) -> Option<BigInt> {
    (float.is_finite() && float.fract() == 0.0).then(|| truncated(float))
}

/// A finite float without its fraction.
pub(in crate::text::jinja) fn truncated(float: f64) -> BigInt {
    let bits = float.to_bits();
    let exponent = i64::from((bits >> 52) as u16 & 0x7ff) - 1075;
    let mantissa =
        if exponent == -1075 { (bits & ((1 << 52) - 1)) << 1 } else { bits & ((1 << 52) - 1) | 1 << 52 };
    let magnitude = match exponent {
        0.. => BigInt::from(mantissa) << exponent,
        -63..0 => BigInt::from(mantissa >> -exponent),
        _ => BigInt::ZERO,
    };
    if float.is_sign_negative() { -magnitude } else { magnitude }
}

/// A binary operation of arithmetic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::text::jinja) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
}

/// `left operation right` of two numbers.
pub(in crate::text::jinja) fn arithmetic(
    operation: Operation,
    left: &Value,
    right: &Value,
) -> Result<Value, Error> {
    if operation != Operation::Divide
        && let (Some(left), Some(right)) = (to_big(left), to_big(right))
    {
        return integers(operation, &left, &right);
    }
    floats(operation, to_float(left)?, to_float(right)?).map(Value::from)
}

fn integers(operation: Operation, left: &BigInt, right: &BigInt) -> Result<Value, Error> {
    let result = match operation {
        Operation::Add => left + right,
        Operation::Subtract => left - right,
        Operation::Multiply => {
            check_width(left.bits().saturating_add(right.bits()))?;
            left * right
        }
        Operation::FloorDivide => floor_divide(left, right)?.0,
        Operation::Modulo => floor_divide(left, right)?.1,
        Operation::Power if right.sign() == Sign::Minus => {
            return floats(operation, big_to_float(left)?, big_to_float(right)?).map(Value::from);
        }
        Operation::Power => {
            let exponent = u32::try_from(right);
            let width = left.bits().saturating_mul(exponent.map_or(u64::MAX, u64::from));
            // Powers of 0, 1 and -1 stay narrow.
            if left.bits() > 1 {
                check_width(width)?;
            }
            match exponent {
                Ok(exponent) => left.pow(exponent),
                Err(_) if left.bits() == 0 || left.sign() == Sign::Plus => left.clone(),
                Err(_) => {
                    if right.bit(0) {
                        left.clone()
                    } else {
                        -left
                    }
                }
            }
        }
        Operation::Divide => return Err(refused("not a division of floats")),
    };
    Ok(from_big(result))
}

fn check_width(bits: u64) -> Result<(), Error> {
    if bits <= WIDEST { Ok(()) } else { Err(refused(format!("an int is wider than {WIDEST} bits"))) }
}

/// The quotient rounded down, and the remainder with the divisor's sign.
pub(in crate::text::jinja) fn floor_divide(left: &BigInt, right: &BigInt) -> Result<(BigInt, BigInt), Error> {
    if right.sign() == Sign::NoSign {
        return Err(refused("division by zero"));
    }
    let (mut quotient, mut remainder) = (left / right, left % right);
    if remainder.sign() != Sign::NoSign && remainder.sign() != right.sign() {
        quotient -= 1;
        remainder += right;
    }
    Ok((quotient, remainder))
}

fn floats(operation: Operation, left: f64, right: f64) -> Result<f64, Error> {
    let by_zero = || refused("division by zero");
    Ok(match operation {
        Operation::Add => left + right,
        Operation::Subtract => left - right,
        Operation::Multiply => left * right,
        Operation::Divide | Operation::FloorDivide | Operation::Modulo if right == 0.0 => {
            return Err(by_zero());
        }
        Operation::Divide => left / right,
        Operation::FloorDivide => float_divmod(left, right).0,
        Operation::Modulo => float_divmod(left, right).1,
        Operation::Power => power(left, right)?,
    })
}

/// `divmod` of floats, as Python computes it.
fn float_divmod(left: f64, right: f64) -> (f64, f64) {
    let mut remainder = left % right;
    let mut quotient = (left - remainder) / right;
    if remainder == 0.0 {
        remainder = 0.0_f64.copysign(right);
    } else if (right < 0.0) != (remainder < 0.0) {
        remainder += right;
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return (0.0_f64.copysign(left / right), remainder);
    }
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, remainder)
}

fn power(base: f64, exponent: f64) -> Result<f64, Error> {
    if base == 0.0 && exponent < 0.0 {
        return Err(refused("zero cannot be raised to a negative power"));
    }
    let result = base.powf(exponent);
    if base.is_finite() && exponent.is_finite() {
        if result.is_infinite() {
            return Err(refused("a power is too large for a float"));
        }
        if result.is_nan() {
            return Err(refused("a negative number has no such power that is a float"));
        }
    }
    Ok(result)
}

/// `-value` or `+value`.
pub(in crate::text::jinja) fn negated(value: &Value) -> Result<Value, Error> {
    match kind(value) {
        Kind::Float(number) => Ok(Value::from(-number)),
        _ => to_big(value)
            .map(|number| from_big(-number))
            .ok_or_else(|| refused(format!("bad operand of unary -: {}", super::type_name(value)))),
    }
}

/// `float.__repr__`: the shortest digits, with an exponent below 1e-4 and from 1e16 on.
pub(in crate::text::jinja) fn float_text(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "nan"
        } else if number > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(-4..=15) if number.fract() == 0.0 => format!("{number:.1}"),
        Ok(-4..=15) => number.to_string(),
        Ok(exponent) => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
        Err(_) => scientific,
    }
}

/// `int(text, base)`: white space around, a sign, underscores between digits, a prefix of the base, digits of any
/// script.
pub(in crate::text::jinja) fn parse_int(text: &str, base: u32) -> Option<BigInt> {
    if base == 1 || base > 36 {
        return None;
    }
    let text = crate::text::jinja::strings::trim::strip(text, None, true, true);
    let (negative, unsigned) = match text.strip_prefix(['+', '-']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let prefix = |letters: [&str; 2]| letters.iter().find_map(|letters| unsigned.strip_prefix(letters));
    let prefixed = [(16, ["0x", "0X"]), (8, ["0o", "0O"]), (2, ["0b", "0B"])]
        .into_iter()
        .filter(|(of_prefix, _)| base == 0 || base == *of_prefix)
        .find_map(|(of_prefix, letters)| Some((of_prefix, prefix(letters)?)));
    let (base, digits) = match prefixed {
        // An underscore may follow the prefix.
        Some((base, digits)) => (base, digits.strip_prefix('_').unwrap_or(digits)),
        None if base == 0 => {
            if unsigned.len() > 1
                && unsigned.starts_with('0')
                && unsigned.chars().any(|digit| !"0_".contains(digit))
            {
                return None;
            }
            (10, unsigned)
        }
        None => (base, unsigned),
    };
    let digits = plain_digits(digits, base)?;
    let number = BigInt::parse_bytes(digits.as_bytes(), base)?;
    Some(if negative { -number } else { number })
}

/// The digits without underscores, in ASCII; `None` if there is another character.
fn plain_digits(text: &str, base: u32) -> Option<String> {
    let mut digits = String::with_capacity(text.len());
    let mut after_digit = false;
    for character in text.chars() {
        if character == '_' {
            if !after_digit {
                return None;
            }
            after_digit = false;
        } else {
            let digit = match decimal_digit(character) {
                Some(digit) => digit,
                None => character.is_ascii().then(|| character.to_digit(base))??,
            };
            digits.push(char::from_digit(digit, base)?);
            after_digit = true;
        }
    }
    after_digit.then_some(digits)
}

/// The value of a decimal digit of any script. Each script's ten digits are consecutive.
pub(in crate::text::jinja) fn decimal_digit(character: char) -> Option<u32> {
    use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
    if character.is_ascii() {
        return character.to_digit(10);
    }
    let is_digit = |code: u32| {
        char::from_u32(code)
            .is_some_and(|character| character.general_category() == GeneralCategory::DecimalNumber)
    };
    let code = u32::from(character);
    if !is_digit(code) {
        return None;
    }
    let before = (1..=64).take_while(|back| code.checked_sub(*back).is_some_and(is_digit)).count();
    u32::try_from(before).ok().map(|before| before % 10)
}

/// `float(text)`.
pub(in crate::text::jinja) fn parse_float(text: &str) -> Option<f64> {
    let text = crate::text::jinja::strings::trim::strip(text, None, true, true);
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text).to_ascii_lowercase();
    if matches!(unsigned.as_str(), "inf" | "infinity" | "nan") {
        let value = if unsigned == "nan" { f64::NAN } else { f64::INFINITY };
        return Some(if text.starts_with('-') { -value } else { value });
    }
    if unsigned.contains(['i', 'n']) {
        return None;
    }
    let characters: Vec<char> = text.chars().collect();
    let mut plain = String::with_capacity(text.len());
    for (index, character) in characters.iter().enumerate() {
        if *character == '_' {
            let is_digit = |at: Option<usize>| {
                at.and_then(|at| characters.get(at)).is_some_and(|digit| decimal_digit(*digit).is_some())
            };
            if !is_digit(index.checked_sub(1)) || !is_digit(Some(index + 1)) {
                return None;
            }
            continue;
        }
        match decimal_digit(*character) {
            Some(digit) => plain.push(char::from_digit(digit, 10)?),
            None => plain.push(*character),
        }
    }
    plain.parse().ok()
}

/// `round(number, digits)` of a float: to the nearest decimal, halves by the exact binary value.
pub(in crate::text::jinja) fn round_float(number: f64, digits: i64) -> f64 {
    if !number.is_finite() || digits > 323 {
        return number;
    }
    if let Ok(digits) = usize::try_from(digits) {
        return format!("{number:.digits$}").parse().unwrap_or(number);
    }
    if digits < -308 {
        return 0.0_f64.copysign(number);
    }
    let unit = BigInt::from(10).pow(digits.unsigned_abs() as u32);
    let twice = truncated(number.abs()) * 2;
    let fraction = number.abs().fract() > 0.0;
    let double: BigInt = &unit * 2;
    let (mut quotient, remainder): (BigInt, BigInt) = (&twice / &double, &twice % &double);
    if remainder > unit || remainder == unit && (fraction || quotient.bit(0)) {
        quotient += 1;
    }
    let rounded: f64 = (quotient * unit).to_string().parse().unwrap_or(f64::INFINITY);
    rounded.copysign(number)
}

/// `round(number, digits)` of an integer: halves go to the even neighbour.
pub(in crate::text::jinja) fn round_int(number: &BigInt, digits: i64) -> BigInt {
    let Ok(zeros) = u32::try_from(digits.saturating_neg()) else { return number.clone() };
    if zeros == 0 {
        return number.clone();
    }
    if u64::from(zeros) > number.bits() {
        return BigInt::ZERO;
    }
    let unit = BigInt::from(10).pow(zeros);
    let Ok((mut quotient, remainder)) = floor_divide(number, &unit) else { return number.clone() };
    let twice = remainder * 2;
    if twice > unit || twice == unit && quotient.bit(0) {
        quotient += 1;
    }
    quotient * unit
}
