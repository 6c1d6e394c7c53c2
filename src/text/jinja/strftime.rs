//! `strftime_now`: Python's `datetime.now().strftime`, which is the C library's in the C locale.

use std::fmt::Write;

use minijinja::{Error, State};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::value::{check_length, refused};

/// The template variable that fixes the clock, in RFC 3339. A run that is resumed on another day then renders the
/// same prompts.
pub const CLOCK: &str = "codit_clock";

/// The longest width of a field.
const WIDEST: usize = 1024;

/// The time in the form that `format` says: that of the variable [`CLOCK`] where it is set, else the local time. The
/// date is part of the prompt: see [`ChatTemplate::tells_time`](crate::text::ChatTemplate::tells_time).
pub(super) fn now(state: &State, format: &str) -> Result<String, Error> {
    let now = match state.lookup(CLOCK) {
        Some(clock) => {
            let clock = clock.as_str().and_then(|clock| OffsetDateTime::parse(clock, &Rfc3339).ok());
            clock.ok_or_else(|| refused(format!("{CLOCK} is not a time such as 2026-01-31T12:00:00Z")))?
        }
        None => local_time(),
    };
    let mut out = String::new();
    write_time(now, format, &mut out)?;
    Ok(out)
}

fn local_time() -> OffsetDateTime {
    OffsetDateTime::now_local().unwrap_or_else(|_| OffsetDateTime::now_utc())
}

/// The local time in the format of [`CLOCK`].
pub fn clock() -> String {
    local_time().format(&Rfc3339).unwrap_or_default()
}

/// The flags and the width between `%` and a directive's letter.
#[derive(Default, Clone, Copy)]
struct Flags {
    /// `-`, `_` or `0`: what fills up a number.
    padding: Option<char>,
    upper: bool,
    swaps: bool,
    width: Option<usize>,
}

fn write_time(now: OffsetDateTime, format: &str, out: &mut String) -> Result<(), Error> {
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let mut flags = Flags::default();
        let mut directive = after;
        while let Some(flag) = directive.chars().next().filter(|flag| "-_0^#".contains(*flag)) {
            match flag {
                '^' => flags.upper = true,
                '#' => flags.swaps = true,
                padding => flags.padding = Some(padding),
            }
            directive = &directive[1..];
        }
        let width = directive.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(directive.len());
        if width > 0 {
            let width = directive[..width].parse().unwrap_or(usize::MAX);
            if width > WIDEST {
                return Err(refused(format!("strftime_now: a field is wider than {WIDEST}")));
            }
            flags.width = Some(width);
        }
        directive = directive[width..].trim_start_matches(['E', 'O']);
        let Some(letter) = directive.chars().next() else {
            // An incomplete directive is text.
            out.push('%');
            out.push_str(after);
            return Ok(());
        };
        rest = &directive[letter.len_utf8()..];
        if !write_directive(now, letter, flags, out)? {
            out.push('%');
            out.push_str(&after[..after.len() - rest.len()]);
        }
        check_length(Some(out.len()))?;
    }
    out.push_str(rest);
    Ok(())
}

/// Writes one directive; false if there is none of that letter.
fn write_directive(now: OffsetDateTime, letter: char, flags: Flags, out: &mut String) -> Result<bool, Error> {
    if let Some((number, digits, padding)) = numeric(now, letter) {
        push_number(number, digits, padding, flags, out);
        return Ok(true);
    }
    if let Some(format) = composed(letter) {
        let mut text = String::new();
        write_time(now, format, &mut text)?;
        push_text(&text, flags, out);
        return Ok(true);
    }
    let weekday = now.weekday().to_string();
    let month = now.month().to_string();
    let text = match letter {
        'a' => weekday[..3].to_owned(),
        'A' => weekday,
        'b' | 'h' => month[..3].to_owned(),
        'B' => month,
        'p' if flags.swaps => (if now.hour() < 12 { "am" } else { "pm" }).to_owned(),
        'p' => (if now.hour() < 12 { "AM" } else { "PM" }).to_owned(),
        'P' => (if now.hour() < 12 { "am" } else { "pm" }).to_owned(),
        // Python writes the microseconds itself, before the C library sees the format.
        'f' => format!("{:06}", now.microsecond()),
        // The time has no zone.
        'z' | 'Z' => String::new(),
        'n' => "\n".to_owned(),
        't' => "\t".to_owned(),
        '%' => "%".to_owned(),
        _ => return Ok(false),
    };
    let is_name = matches!(letter, 'a' | 'A' | 'b' | 'B' | 'h');
    push_text(&text, Flags { upper: flags.upper || flags.swaps && is_name, ..flags }, out);
    Ok(true)
}

/// The directives that stand for several.
fn composed(letter: char) -> Option<&'static str> {
    Some(match letter {
        'c' => "%a %b %e %H:%M:%S %Y",
        'D' | 'x' => "%m/%d/%y",
        'F' => "%Y-%m-%d",
        'r' => "%I:%M:%S %p",
        'R' => "%H:%M",
        'T' | 'X' => "%H:%M:%S",
        _ => return None,
    })
}

/// A number, its digits and what fills it up.
fn numeric(now: OffsetDateTime, letter: char) -> Option<(i64, usize, char)> {
    let year = i64::from(now.year());
    let twelve = match now.hour() % 12 {
        0 => 12,
        hour => i64::from(hour),
    };
    let weekday = i64::from(now.weekday().number_days_from_sunday());
    Some(match letter {
        'C' => (year.div_euclid(100), 2, '0'),
        'd' => (i64::from(now.day()), 2, '0'),
        'e' => (i64::from(now.day()), 2, ' '),
        'g' => (i64::from(now.to_iso_week_date().0).rem_euclid(100), 2, '0'),
        'G' => (i64::from(now.to_iso_week_date().0), 1, '0'),
        'H' => (i64::from(now.hour()), 2, '0'),
        'I' => (twelve, 2, '0'),
        'j' => (i64::from(now.ordinal()), 3, '0'),
        'k' => (i64::from(now.hour()), 2, ' '),
        'l' => (twelve, 2, ' '),
        'm' => (i64::from(u8::from(now.month())), 2, '0'),
        'M' => (i64::from(now.minute()), 2, '0'),
        's' => (now.unix_timestamp(), 1, '0'),
        'S' => (i64::from(now.second()), 2, '0'),
        'u' => (if weekday == 0 { 7 } else { weekday }, 1, '0'),
        'U' => (i64::from(now.sunday_based_week()), 2, '0'),
        'V' => (i64::from(now.iso_week()), 2, '0'),
        'w' => (weekday, 1, '0'),
        'W' => (i64::from(now.monday_based_week()), 2, '0'),
        'y' => (year.rem_euclid(100), 2, '0'),
        'Y' => (year, 1, '0'),
        _ => return None,
    })
}

fn push_number(number: i64, digits: usize, padding: char, flags: Flags, out: &mut String) {
    let padding = match flags.padding {
        Some('_') => ' ',
        Some(flag) => flag,
        None => padding,
    };
    let width = match (flags.width, padding) {
        (Some(width), _) => width.max(if padding == '-' { 0 } else { digits }),
        (None, '-') => 0,
        (None, _) => digits,
    };
    // Writing to a string does not fail.
    match padding {
        '0' => write!(out, "{number:0width$}"),
        '-' => write!(out, "{number}"),
        _ => write!(out, "{number:width$}"),
    }
    .unwrap_or_default();
}

fn push_text(text: &str, flags: Flags, out: &mut String) {
    let text = if flags.upper { text.to_uppercase() } else { text.to_owned() };
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    let fill = if flags.padding == Some('0') { '0' } else { ' ' };
    if flags.padding != Some('-') {
        out.extend(std::iter::repeat_n(fill, missing));
    }
    out.push_str(&text);
}
