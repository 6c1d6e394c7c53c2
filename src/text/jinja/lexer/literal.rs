//! Literals of texts and numbers.

use num_bigint::BigInt;

use super::RESERVED;

/// Reads a text's literal, which begins with its quote; the text and the literal's length.
pub(super) fn text(source: &str) -> Result<(String, usize), String> {
    let no_end = || "a text has no end".to_owned();
    let mut characters = source.char_indices();
    let (_, quote) = characters.next().ok_or_else(no_end)?;
    let mut text = String::new();
    while let Some((at, character)) = characters.next() {
        if character == quote {
            return Ok((text, at + quote.len_utf8()));
        }
        if character != '\\' {
            text.push(character);
            continue;
        }
        let (at, escape) = characters.next().ok_or_else(no_end)?;
        let digits = |digits: usize| -> Result<u32, String> {
            let hex = source
                .get(at + 1..at + 1 + digits)
                .filter(|hex| hex.chars().all(|digit| digit.is_ascii_hexdigit()));
            hex.and_then(|hex| u32::from_str_radix(hex, 16).ok())
                .ok_or_else(|| format!("the escape \\{escape} needs {digits} hexadecimal digits"))
        };
        let (code, length) = match escape {
            '\n' => continue,
            '\\' | '\'' | '"' => (u32::from(escape), 0),
            'a' => (7, 0),
            'b' => (8, 0),
            'f' => (12, 0),
            'n' => (10, 0),
            'r' => (13, 0),
            't' => (9, 0),
            'v' => (11, 0),
            'x' => (digits(2)?, 2),
            'u' => (digits(4)?, 4),
            'U' => (digits(8)?, 8),
            'N' => return Err("the escape \\N is not supported".to_owned()),
            '0'..='7' => {
                let octal = &source[at..];
                let end = octal.chars().take(3).take_while(|digit| ('0'..='7').contains(digit)).count();
                (u32::from_str_radix(&octal[..end], 8).unwrap_or(0), end - 1)
            }
            other => {
                text.push('\\');
                text.push(other);
                continue;
            }
        };
        text.push(
            char::from_u32(code).ok_or_else(|| format!("the escape \\{escape}{code:x} is no character"))?,
        );
        for _ in 0..length {
            characters.next();
        }
    }
    Err(no_end())
}

/// A literal of the engine for a text.
pub(in crate::text::jinja) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// Reads a number's literal: an expression of the engine and the literal's length. After a dot it is an index, which
/// has no fraction.
pub(super) fn number(source: &str, after_dot: bool) -> Result<(String, usize), String> {
    let run = |text: &str, is_digit: fn(char) -> bool| {
        let mut length = 0;
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let separates =
                character == '_' && length > 0 && characters.peek().is_some_and(|next| is_digit(*next));
            if !is_digit(character) && !separates {
                break;
            }
            length += 1;
        }
        length
    };
    let lower = source.get(..2).unwrap_or_default().to_ascii_lowercase();
    let radix: Option<(u32, fn(char) -> bool)> = match lower.as_str() {
        "0b" => Some((2, |digit| digit.is_digit(2))),
        "0o" => Some((8, |digit| digit.is_digit(8))),
        "0x" => Some((16, |digit| digit.is_ascii_hexdigit())),
        _ => None,
    };
    if let Some((radix, is_digit)) = radix {
        let skip = 2 + usize::from(source[2..].starts_with('_'));
        let length = run(&source[skip..], is_digit);
        if length > 0 {
            return Ok((integer(&source[skip..skip + length], radix)?, skip + length));
        }
    }
    let is_decimal: fn(char) -> bool = |digit| digit.is_ascii_digit();
    let whole = run(source, is_decimal);
    let mut end = whole;
    if !after_dot {
        let rest = &source[end..];
        if let Some(fraction) = rest.strip_prefix('.') {
            let length = run(fraction, is_decimal);
            end += if length > 0 { 1 + length } else { 0 };
        }
        if let Some(exponent) = source[end..].strip_prefix(['e', 'E']) {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            let length = run(digits, is_decimal);
            end += if length > 0 { 1 + exponent.len() - digits.len() + length } else { 0 };
        }
    }
    let literal = source[..end].replace('_', "");
    if end == whole {
        if literal.len() > 1 && literal.starts_with('0') && literal.bytes().any(|digit| digit != b'0') {
            return Err(format!("the number {literal} begins with a zero"));
        }
        return Ok((integer(&literal, 10)?, end));
    }
    let float: f64 = literal.parse().map_err(|_| format!("{literal} is no number"))?;
    Ok((if float.is_finite() { format!("{float:?}") } else { format!("{RESERVED}infinity()") }, end))
}

fn integer(digits: &str, radix: u32) -> Result<String, String> {
    let digits = digits.replace('_', "");
    let number =
        BigInt::parse_bytes(digits.as_bytes(), radix).ok_or_else(|| format!("{digits} is no number"))?;
    Ok(match i64::try_from(&number) {
        Ok(number) => number.to_string(),
        Err(_) => format!("{RESERVED}int(\"{number}\")"),
    })
}
