//! HTML: escaping as `MarkupSafe` does it, entities and tags.

use minijinja::{Error, Value};

use super::strings::trim::is_space;
use super::value::repr;

/// `escape(text)`.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// The value as markup. Markup stays as it is; other values are escaped.
///
/// # Errors
/// If the value's text is too long or nested too deep.
pub(super) fn escape(value: &Value) -> Result<Value, Error> {
    if value.is_safe() {
        return Ok(value.clone());
    }
    Ok(Value::from_safe_string(escaped(&repr::to_text(value)?)))
}

/// The names that HTML reads without a semicolon too.
const WITHOUT_SEMICOLON: &str = " AElig AMP Aacute Acirc Agrave Aring Atilde Auml COPY Ccedil ETH Eacute Ecirc Egrave Euml GT Iacute Icirc Igrave Iuml LT Ntilde Oacute Ocirc Ograve Oslash Otilde Ouml QUOT REG THORN Uacute Ucirc Ugrave Uuml Yacute aacute acirc acute aelig agrave amp aring atilde auml brvbar ccedil cedil cent copy curren deg divide eacute ecirc egrave eth euml frac12 frac14 frac34 gt iacute icirc iexcl igrave iquest iuml laquo lt macr micro middot nbsp not ntilde oacute ocirc ograve ordf ordm oslash otilde ouml para plusmn pound quot raquo reg sect shy sup1 sup2 sup3 szlig thorn times uacute ucirc ugrave uml uuml yacute yen yuml ";

/// The longest name of an entity.
const LONGEST_NAME: usize = 32;

/// `html.unescape(text)`.
pub(super) fn unescaped(text: &str) -> String {
    let mut unescaped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        unescaped.push_str(before);
        rest = after;
        let reference =
            if let Some(number) = after.strip_prefix('#') { numbered(number, after) } else { named(after) };
        match reference {
            Some((replacement, remaining)) => {
                unescaped.push_str(&replacement);
                rest = remaining;
            }
            None => unescaped.push('&'),
        }
    }
    unescaped.push_str(rest);
    unescaped
}

/// The C1 controls are read as Windows' characters.
const WINDOWS: [u16; 32] = [
    0x20ac, 0x81, 0x201a, 0x192, 0x201e, 0x2026, 0x2020, 0x2021, 0x2c6, 0x2030, 0x160, 0x2039, 0x152, 0x8d,
    0x17d, 0x8f, 0x90, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x2dc, 0x2122, 0x161, 0x203a,
    0x153, 0x9d, 0x17e, 0x178,
];

/// A reference by a character's number, and what follows it.
fn numbered<'text>(number: &'text str, after: &'text str) -> Option<(String, &'text str)> {
    let (digits, base) = match number.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    let end = digits.find(|digit: char| !digit.is_digit(base)).unwrap_or(digits.len());
    if end == 0 {
        return None;
    }
    let consumed = after.len() - digits.len() + end;
    let rest = after[consumed..].strip_prefix(';').unwrap_or(&after[consumed..]);
    let code = u32::from_str_radix(&digits[..end], base).unwrap_or(u32::MAX);
    let code = match code {
        0 => 0xfffd,
        0x80..=0x9f => u32::from(WINDOWS[code as usize - 0x80]),
        _ => code,
    };
    let is_invalid = matches!(code, 1..=8 | 0xb | 0xe..=0x1f | 0x7f | 0xfdd0..=0xfdef)
        || code <= 0x0010_ffff && code & 0xfffe == 0xfffe;
    let replacement =
        if is_invalid { String::new() } else { char::from_u32(code).unwrap_or('\u{fffd}').to_string() };
    Some((replacement, rest))
}

/// A reference by name, and what follows it.
fn named(after: &str) -> Option<(String, &str)> {
    let end = after
        .find(|character: char| !character.is_ascii_alphanumeric())
        .unwrap_or(after.len())
        .min(LONGEST_NAME);
    let name = &after[..end];
    if let Some(rest) = after[end..].strip_prefix(';')
        && let Some(replacement) = entity(name)
    {
        return Some((replacement, rest));
    }
    (1..=end).rev().find_map(|length| {
        let name = &name[..length];
        let known = WITHOUT_SEMICOLON.contains(&format!(" {name} "));
        known.then(|| entity(name)).flatten().map(|replacement| (replacement, &after[length..]))
    })
}

fn entity(name: &str) -> Option<String> {
    let reference = format!("&{name};");
    let decoded = html_escape::decode_html_entities(&reference);
    (decoded != reference).then(|| decoded.into_owned())
}

/// `Markup(text).striptags()`.
pub(super) fn without_tags(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let tag = &rest[start..];
        let end = if let Some(comment) = tag.strip_prefix("<!--") {
            comment.find("-->").map(|end| end + 7)
        } else {
            tag.find('>').map(|end| end + 1)
        };
        let Some(end) = end else { break };
        kept.push_str(&rest[..start]);
        rest = &tag[end..];
    }
    kept.push_str(rest);
    let words: Vec<&str> = kept.split(is_space).filter(|word| !word.is_empty()).collect();
    unescaped(&words.join(" "))
}
