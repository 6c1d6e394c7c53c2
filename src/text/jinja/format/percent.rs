//! `'%s' % value`.

use minijinja::{Error, Value};
use num_bigint::{BigInt, Sign};

use super::{MOST_DIGITS, float};
use crate::text::jinja::html;
use crate::text::jinja::strings::pad::justified;
use crate::text::jinja::value::args::{Args, as_int};
use crate::text::jinja::value::dict::Dict;
use crate::text::jinja::value::objects::Range;
use crate::text::jinja::value::{Kind, check_length, kind, number, refused, repr, type_name};

/// The values that a pattern takes one by one.
struct Source<'value> {
    items: &'value [Value],
    next: usize,
    mapping: Option<&'value Dict>,
    safe: bool,
}

/// What stands between `%` and the type.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools)] // the five flags of the format
struct Conversion {
    left: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    zero: bool,
    width: i64,
    precision: Option<usize>,
}

/// `pattern % value`; markup escapes the texts that it takes.
pub(in crate::text::jinja) fn percent(pattern: &str, value: &Value, safe: bool) -> Result<String, Error> {
    let (items, mapping) = match kind(value) {
        Kind::Tuple(items) => (items, None),
        Kind::Dict(dict) => (std::slice::from_ref(value), Some(dict)),
        _ => (std::slice::from_ref(value), None),
    };
    let mut source = Source { items, next: 0, mapping, safe };
    let text = formatted(pattern, &mut source)?;
    let may_be_left = match kind(value) {
        Kind::Dict(_) | Kind::List(_) => true,
        Kind::Object(object) => object.is::<Range>(),
        _ => false,
    };
    if source.next < source.items.len() && !may_be_left {
        return Err(refused("not all arguments are converted by the format"));
    }
    Ok(text)
}

/// The filter `format`.
pub(in crate::text::jinja) fn percent_of_args(
    pattern: &str,
    args: &Args,
    safe: bool,
) -> Result<String, Error> {
    if args.keywords.is_empty() {
        return percent(pattern, &crate::text::jinja::value::tuple(args.positional.clone()), safe);
    }
    if !args.positional.is_empty() {
        return Err(refused("format takes positional or keyword arguments, not both"));
    }
    let mut dict = Dict::default();
    for (name, value) in &args.keywords {
        dict.insert_text(name, value.clone());
    }
    percent(pattern, &Value::from_object(dict), safe)
}

fn formatted(pattern: &str, source: &mut Source) -> Result<String, Error> {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        rest = field(after, source, &mut out)?;
        check_length(Some(out.len()))?;
    }
    out.push_str(rest);
    Ok(out)
}

/// Writes the field that begins after a `%`; returns what follows it.
fn field<'pattern>(
    pattern: &'pattern str,
    source: &mut Source,
    out: &mut String,
) -> Result<&'pattern str, Error> {
    let mut rest = pattern;
    let mut named = None;
    if let Some(after) = rest.strip_prefix('(') {
        let (name, after) = key(after)?;
        let dict = source.mapping.ok_or_else(|| refused("the format needs a mapping"))?;
        named = Some(
            dict.get_text(name)
                .ok_or_else(|| refused(format!("the format's key {name:?} is missing")))?
                .clone(),
        );
        rest = after;
    }
    let mut conversion = Conversion::default();
    while let Some(flag) = rest.chars().next().filter(|flag| "-+ #0".contains(*flag)) {
        match flag {
            '-' => conversion.left = true,
            '+' => conversion.plus = true,
            ' ' => conversion.space = true,
            '#' => conversion.alternate = true,
            _ => conversion.zero = true,
        }
        rest = &rest[1..];
    }
    let (width, after) = size(rest, source)?;
    rest = after;
    if let Some(width) = width {
        conversion.left |= width < 0;
        conversion.width = width.checked_abs().unwrap_or(i64::MAX);
    }
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = size(after, source)?;
        let precision = usize::try_from(precision.unwrap_or(0)).unwrap_or(0);
        conversion.precision = Some(precision);
        rest = after;
    }
    rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
    let kind = rest.chars().next().ok_or_else(|| refused("the format is incomplete"))?;
    rest = &rest[kind.len_utf8()..];
    if kind == '%' {
        out.push('%');
        return Ok(rest);
    }
    let value = match named {
        Some(value) => value,
        None => source.take()?,
    };
    out.push_str(&converted(&value, kind, &conversion, source.safe)?);
    Ok(rest)
}

/// The key up to its closing parenthesis; parentheses inside are balanced.
fn key(text: &str) -> Result<(&str, &str), Error> {
    let mut depth = 1;
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok((&text[..at], &text[at + 1..]));
        }
    }
    Err(refused("the format's key is incomplete"))
}

/// A number or `*`.
fn size<'pattern>(text: &'pattern str, source: &mut Source) -> Result<(Option<i64>, &'pattern str), Error> {
    if let Some(rest) = text.strip_prefix('*') {
        return Ok((Some(as_int(&source.take()?, "*")?), rest));
    }
    let end = text.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(text.len());
    if end == 0 {
        return Ok((None, text));
    }
    let number = text[..end].parse().map_err(|_| refused("the format's width is too large"))?;
    Ok((Some(number), &text[end..]))
}

impl Source<'_> {
    fn take(&mut self) -> Result<Value, Error> {
        let value = self.items.get(self.next).cloned();
        self.next += 1;
        value.ok_or_else(|| refused("the format has too few arguments"))
    }
}

fn converted(
    value: &Value,
    conversion_kind: char,
    conversion: &Conversion,
    safe: bool,
) -> Result<String, Error> {
    let (sign, body, is_number) = match conversion_kind {
        's' | 'r' | 'a' => {
            let text =
                if conversion_kind == 's' { repr::to_text(value)?.into_owned() } else { repr::repr(value)? };
            let text = if conversion_kind == 'a' { ascii(&text) } else { text };
            let text = if safe && !(conversion_kind == 's' && value.is_safe()) {
                html::escaped(&text)
            } else {
                text
            };
            let text = match conversion.precision {
                Some(most) => text.chars().take(most).collect(),
                None => text,
            };
            (String::new(), text, false)
        }
        'c' => (String::new(), character(value)?, false),
        'd' | 'i' | 'u' => {
            let number = match kind(value) {
                Kind::Float(float) if float.is_finite() => number::truncated(float),
                _ => integer(value, conversion_kind)?,
            };
            let (sign, digits) = digits(&number, 10, conversion);
            (sign, digits, true)
        }
        'o' | 'x' | 'X' => {
            let number = integer(value, conversion_kind)?;
            let (mut sign, mut text) =
                digits(&number, if conversion_kind == 'o' { 8 } else { 16 }, conversion);
            if conversion.alternate {
                sign.push_str(match conversion_kind {
                    'o' => "0o",
                    'x' => "0x",
                    _ => "0X",
                });
            }
            if conversion_kind == 'X' {
                text.make_ascii_uppercase();
            }
            (sign, text, true)
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let (sign, text) = decimal(value, conversion_kind, conversion)?;
            (sign, text, true)
        }
        other => return Err(refused(format!("the format has no type {other:?}"))),
    };
    let width = conversion.width;
    if conversion.left {
        return justified(&(sign + &body), width, ' ', "ljust");
    }
    if is_number && conversion.zero {
        let digits = justified(&body, width.saturating_sub(sign.len() as i64), '0', "rjust")?;
        return Ok(sign + &digits);
    }
    justified(&(sign + &body), width, ' ', "rjust")
}

fn sign_of(negative: bool, conversion: &Conversion) -> String {
    match (negative, conversion.plus, conversion.space) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    }
    .to_owned()
}

fn digits(number: &BigInt, base: u32, conversion: &Conversion) -> (String, String) {
    let digits = number.magnitude().to_str_radix(base);
    let least = conversion.precision.unwrap_or(0).min(MOST_DIGITS);
    (sign_of(number.sign() == Sign::Minus, conversion), format!("{digits:0>least$}"))
}

fn integer(value: &Value, conversion_kind: char) -> Result<BigInt, Error> {
    number::to_big(value).ok_or_else(|| {
        refused(format!("the format %{conversion_kind} needs a number, not {}", type_name(value)))
    })
}

fn decimal(value: &Value, conversion_kind: char, conversion: &Conversion) -> Result<(String, String), Error> {
    let float = number::to_float(value)?;
    let precision = conversion.precision.unwrap_or(6);
    if precision > MOST_DIGITS {
        return Err(refused(format!("the format has more than {MOST_DIGITS} digits")));
    }
    let sign = sign_of(float.is_sign_negative() && !float.is_nan(), conversion);
    let magnitude = float.abs();
    let mut text = if magnitude.is_finite() {
        match conversion_kind.to_ascii_lowercase() {
            'e' => float::exponential(magnitude, precision),
            'f' => float::fixed(magnitude, precision),
            _ => float::general(magnitude, precision, conversion.alternate, false),
        }
    } else {
        number::float_text(magnitude)
    };
    if conversion.alternate && magnitude.is_finite() {
        text = float::with_point(text);
    }
    if conversion_kind.is_ascii_uppercase() {
        text.make_ascii_uppercase();
    }
    Ok((sign, text))
}

fn character(value: &Value) -> Result<String, Error> {
    match kind(value) {
        Kind::Str(text) if text.chars().count() == 1 => Ok(text.to_owned()),
        Kind::Int(code) => u32::try_from(code)
            .ok()
            .and_then(char::from_u32)
            .map(String::from)
            .ok_or_else(|| refused("the format %c needs a character's number")),
        _ => Err(refused("the format %c needs an int or one character")),
    }
}

/// `ascii(value)` from its `repr`.
pub(super) fn ascii(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for character in text.chars() {
        match u32::from(character) {
            ..=0x7f => ascii.push(character),
            code @ 0x80..=0xff => ascii.push_str(&format!("\\x{code:02x}")),
            code @ 0x100..=0xffff => ascii.push_str(&format!("\\u{code:04x}")),
            code => ascii.push_str(&format!("\\U{code:08x}")),
        }
    }
    ascii
}
