//! The specification after the colon of `'{:>8.2f}'.format(value)`.

use minijinja::{Error, Value};
use num_bigint::{BigInt, Sign};

use super::{MOST_DIGITS, float};
use crate::text::jinja::strings::pad::justified;
use crate::text::jinja::value::{Kind, check_length, kind, number, refused, repr, type_name};

#[derive(Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    conversion: Option<char>,
}

/// `format(value, spec)`.
pub(super) fn apply(value: &Value, text: &str) -> Result<String, Error> {
    if text.is_empty() {
        return repr::to_text(value).map(std::borrow::Cow::into_owned);
    }
    let spec = parse(text)?;
    match kind(value) {
        Kind::Str(text) => of_text(text, &spec),
        Kind::Bool(_) | Kind::Int(_) | Kind::Wide(_) => {
            let big = number::to_big(value).unwrap_or_default();
            match spec.conversion {
                Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%') => of_float(number::to_float(value)?, &spec),
                _ => of_int(&big, &spec),
            }
        }
        Kind::Float(float) => of_float(float, &spec),
        _ => Err(refused(format!("format(): a {} has no format {text:?}", type_name(value)))),
    }
}

fn parse(text: &str) -> Result<Spec, Error> {
    let bad = || refused(format!("format(): {text:?} is no format"));
    let characters: Vec<char> = text.chars().collect();
    let mut at = 0;
    let mut spec = Spec::default();
    let is_align = |character: Option<&char>| character.is_some_and(|character| "<>=^".contains(*character));
    if is_align(characters.get(1)) {
        (spec.fill, spec.align, at) = (characters.first().copied(), characters.get(1).copied(), 2);
    } else if is_align(characters.first()) {
        (spec.align, at) = (characters.first().copied(), 1);
    }
    let mut take = |wanted: &str| {
        let found = characters.get(at).copied().filter(|character| wanted.contains(*character));
        at += usize::from(found.is_some());
        found
    };
    spec.sign = take("+- ");
    spec.alternate = take("#").is_some();
    if take("0").is_some() {
        spec.fill = spec.fill.or(Some('0'));
        spec.align = spec.align.or(Some('='));
    }
    let number = |take: &mut dyn FnMut(&str) -> Option<char>| -> Result<Option<usize>, Error> {
        let mut digits = String::new();
        while let Some(digit) = take("0123456789") {
            digits.push(digit);
        }
        if digits.is_empty() { Ok(None) } else { digits.parse().map(Some).map_err(|_| bad()) }
    };
    spec.width = number(&mut take)?.unwrap_or(0);
    check_length(Some(spec.width))?;
    spec.grouping = take(",_");
    if take(".").is_some() {
        let precision = number(&mut take)?.ok_or_else(bad)?;
        spec.precision = Some(precision);
    }
    spec.conversion = take("bcdeEfFgGnosxX%");
    if at < characters.len() { Err(bad()) } else { Ok(spec) }
}

fn of_text(text: &str, spec: &Spec) -> Result<String, Error> {
    let aligned_as_number = spec.align == Some('=') && spec.fill != Some('0');
    if spec.sign.is_some() || spec.alternate || spec.grouping.is_some() || aligned_as_number {
        return Err(refused("format(): the format is not for a str"));
    }
    if !matches!(spec.conversion, None | Some('s')) {
        return Err(refused("format(): the type is not for a str"));
    }
    let text: String = match spec.precision {
        Some(most) => text.chars().take(most).collect(),
        None => text.to_owned(),
    };
    aligned(&text, spec, '<')
}

fn aligned(text: &str, spec: &Spec, default: char) -> Result<String, Error> {
    let fill = spec.fill.unwrap_or(' ');
    let width = spec.width as i64;
    match spec.align.unwrap_or(default) {
        '<' => justified(text, width, fill, "ljust"),
        '^' => {
            // Unlike `str.center`, the larger half is always on the right.
            let missing = spec.width.saturating_sub(text.chars().count());
            let left = justified(text, (text.chars().count() + missing / 2) as i64, fill, "rjust")?;
            justified(&left, width, fill, "ljust")
        }
        '=' if default == '<' => justified(text, width, fill, "ljust"),
        _ => justified(text, width, fill, "rjust"),
    }
}

fn sign_of(negative: bool, spec: &Spec) -> &'static str {
    match (negative, spec.sign) {
        (true, _) => "-",
        (_, Some('+')) => "+",
        (_, Some(' ')) => " ",
        _ => "",
    }
}

fn of_int(value: &BigInt, spec: &Spec) -> Result<String, Error> {
    if spec.precision.is_some() {
        return Err(refused("format(): an int has no precision"));
    }
    let (base, prefix) = match spec.conversion {
        Some('b') => (2, "0b"),
        Some('o') => (8, "0o"),
        Some('x') => (16, "0x"),
        Some('X') => (16, "0X"),
        None | Some('d' | 'n') => (10, ""),
        Some('c') => {
            let character = u32::try_from(value).ok().and_then(char::from_u32);
            let character = character.ok_or_else(|| refused("format(): not a character's number"))?;
            return aligned(&character.to_string(), spec, '>');
        }
        _ => return Err(refused("format(): the type is not for an int")),
    };
    let mut digits = value.magnitude().to_str_radix(base);
    if spec.conversion == Some('X') {
        digits.make_ascii_uppercase();
    }
    let prefix = if spec.alternate { prefix } else { "" };
    let group = if base == 10 { 3 } else { 4 };
    finish(sign_of(value.sign() == Sign::Minus, spec), prefix, &digits, "", group, spec)
}

fn of_float(value: f64, spec: &Spec) -> Result<String, Error> {
    if spec.precision.is_some_and(|precision| precision > MOST_DIGITS) {
        return Err(refused(format!("format(): more than {MOST_DIGITS} digits")));
    }
    let precision = spec.precision.unwrap_or(6);
    let magnitude = value.abs();
    let sign = sign_of(value.is_sign_negative() && !value.is_nan(), spec);
    if !magnitude.is_finite() {
        let mut text = number::float_text(magnitude);
        if spec.conversion.is_some_and(|conversion| conversion.is_ascii_uppercase()) {
            text.make_ascii_uppercase();
        }
        let percent = if spec.conversion == Some('%') { "%" } else { "" };
        return finish(sign, "", &text, percent, usize::MAX, spec);
    }
    let mut text = match spec.conversion {
        Some('e' | 'E') => float::exponential(magnitude, precision),
        Some('f' | 'F') => float::fixed(magnitude, precision),
        Some('g' | 'G' | 'n') => float::general(magnitude, precision, spec.alternate, false),
        Some('%') => float::fixed(magnitude * 100.0, precision) + "%",
        None => match spec.precision {
            Some(precision) => float::general(magnitude, precision, spec.alternate, true),
            None => number::float_text(magnitude),
        },
        _ => return Err(refused("format(): the type is not for a float")),
    };
    if spec.conversion.is_some_and(|conversion| "EFG".contains(conversion)) {
        text.make_ascii_uppercase();
    }
    let end = text.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(text.len());
    finish(sign, "", &text[..end], &text[end..], 3, spec)
}

/// The sign, the prefix, the digits in groups, and the rest, padded to the width.
fn finish(
    sign: &str,
    prefix: &str,
    digits: &str,
    rest: &str,
    group: usize,
    spec: &Spec,
) -> Result<String, Error> {
    let inner_padding = spec.align.unwrap_or('>') == '=';
    let outside = sign.len() + prefix.len() + rest.len();
    let mut digits = digits.to_owned();
    if let Some(separator) = spec.grouping
        && group < usize::MAX
    {
        // Zeros that fill up are grouped too.
        let least =
            if inner_padding && spec.fill == Some('0') { spec.width.saturating_sub(outside) } else { 0 };
        let mut count = digits.len();
        while count + (count - 1) / group < least {
            count += 1;
        }
        digits = grouped(&format!("{digits:0>count$}"), separator, group);
    }
    if inner_padding {
        let width = spec.width.saturating_sub(outside) as i64;
        let filled = justified(&digits, width, spec.fill.unwrap_or(' '), "rjust")?;
        return Ok(format!("{sign}{prefix}{filled}{rest}"));
    }
    aligned(&format!("{sign}{prefix}{digits}{rest}"), spec, '>')
}

fn grouped(digits: &str, separator: char, group: usize) -> String {
    let mut grouped = String::with_capacity(digits.len() * 2);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(group) {
            grouped.push(separator);
        }
        grouped.push(digit);
    }
    grouped
}
