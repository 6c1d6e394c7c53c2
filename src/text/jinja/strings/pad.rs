//! `str.center`, `ljust`, `rjust`, `zfill` and `expandtabs`.

use minijinja::Error;

use crate::text::jinja::value::args::{Args, as_int, as_text, int_or, needed};
use crate::text::jinja::value::{check_length, refused};

/// The text with padding.
pub(super) fn padded(text: &str, name: &str, args: &Args) -> Result<String, Error> {
    match name {
        "expandtabs" => {
            let [size] = args.bind(name, ["tabsize"])?;
            expand_tabs(text, usize::try_from(int_or(size.as_ref(), 8, name)?).unwrap_or(0))
        }
        "zfill" => {
            let [width] = args.bind(name, ["/width"])?;
            zero_filled(text, as_int(&needed(width, name)?, name)?)
        }
        _ => {
            let [width, fill] = args.bind(name, ["/width", "/fillchar"])?;
            let width = as_int(&needed(width, name)?, name)?;
            let mut fill_characters = match &fill {
                Some(fill) => as_text(fill, name)?.chars(),
                None => " ".chars(),
            };
            let (Some(fill), None) = (fill_characters.next(), fill_characters.next()) else {
                return Err(refused(format!("{name}() fills with one character")));
            };
            justified(text, width, fill, name)
        }
    }
}

/// `str.ljust`, `str.rjust` or `str.center`.
pub(in crate::text::jinja) fn justified(
    text: &str,
    width: i64,
    fill: char,
    name: &str,
) -> Result<String, Error> {
    let width = usize::try_from(width).unwrap_or(0);
    let missing = width.saturating_sub(text.chars().count());
    check_length(missing.checked_mul(fill.len_utf8()).and_then(|added| added.checked_add(text.len())))?;
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        // Of an odd rest, the larger half is on the left if the width is odd.
        _ => missing / 2 + (missing & width & 1),
    };
    let filling = |count: usize| std::iter::repeat_n(fill, count);
    Ok(filling(left).chain(text.chars()).chain(filling(missing - left)).collect())
}

fn zero_filled(text: &str, width: i64) -> Result<String, Error> {
    let filled = justified(text, width, '0', "rjust")?;
    // The sign stays in front.
    let zeros = filled.len() - text.len();
    match text.chars().next() {
        Some(sign @ ('+' | '-')) if zeros > 0 => Ok(format!("{sign}{}{}", &filled[..zeros], &text[1..])),
        _ => Ok(filled),
    }
}

fn expand_tabs(text: &str, size: usize) -> Result<String, Error> {
    let tabs = text.matches('\t').count();
    check_length(tabs.checked_mul(size).and_then(|added| added.checked_add(text.len())))?;
    let mut expanded = String::with_capacity(text.len());
    let mut column = 0;
    for character in text.chars() {
        match character {
            '\t' => {
                let spaces = if size == 0 { 0 } else { size - column % size };
                expanded.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\n' | '\r' => {
                expanded.push(character);
                column = 0;
            }
            _ => {
                expanded.push(character);
                column += 1;
            }
        }
    }
    Ok(expanded)
}
