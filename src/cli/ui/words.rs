//! Numbers, counts, times and lengths of text, as people read them.

use std::borrow::Cow;

use bytesize::ByteSize;
use console::{measure_text_width, truncate_str};

/// Stands for what is cut away.
const ELLIPSIS: &str = "...";
/// The most characters of one message. A template or a file can make an error of megabytes.
const MAX_MESSAGE: usize = 4000;

/// A count with its noun: "1 record", "1,200 records".
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number as u64))
}

/// A number without decimals, with commas between thousands.
pub fn thousands(number: f64) -> String {
    grouped(number.max(0.0).round() as u64)
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes: "1.2 GiB".
pub fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// A time in at most two units: "19 s", "4 min 10 s", "2 h 05 min", "3 d 4 h".
pub fn time(seconds: f64) -> String {
    // More than a few centuries is no estimate any more.
    let seconds = seconds.clamp(0.0, 1e10).round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {:02} s", seconds % 60),
        3600..86400 => format!("{hours} h {:02} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// `text` cut to `width` columns at its end.
pub fn cut(text: &str, width: usize) -> Cow<'_, str> {
    truncate_str(text, width, ELLIPSIS)
}

/// `text` in at most `width` columns, without its middle if it is longer: both ends of a path matter.
pub fn cut_middle(text: &str, width: usize) -> Cow<'_, str> {
    if measure_text_width(text) <= width {
        return Cow::Borrowed(text);
    }
    let room = width.saturating_sub(ELLIPSIS.len());
    let begin = truncate_str(text, room / 3, "");
    let reversed: String = text.chars().rev().collect();
    let end: String = truncate_str(&reversed, room - room / 3, "").chars().rev().collect();
    Cow::Owned(format!("{begin}{ELLIPSIS}{end}"))
}

/// `text` in lines of at most `width` columns, broken at spaces. The lines after the first begin with `indent`.
pub fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for (index, word) in text.split(' ').enumerate() {
        let word_width = measure_text_width(word);
        if index > 0 && column + 1 + word_width > width {
            lines.push('\n');
            lines.push_str(indent);
            column = indent.len();
        } else if index > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += word_width;
    }
    lines
}

/// `text` without anything that could move a terminal's cursor or reorder its text, and not longer than a message may be.
/// Files, templates and servers may write anything into an error.
pub fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len().min(MAX_MESSAGE));
    for (index, character) in text.chars().enumerate() {
        if index == MAX_MESSAGE {
            safe.push_str(ELLIPSIS);
            break;
        }
        match character {
            character if is_harmful(character) => safe.extend(character.escape_default()),
            character => safe.push(character),
        }
    }
    safe
}

fn is_harmful(character: char) -> bool {
    // Controls, line separators, and marks and overrides of the direction of text.
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[test]
fn counts_and_times_are_written_for_people() {
    assert_eq!(
        [count(1, "record"), count(0, "record"), count(1200, "row")],
        ["1 record", "0 records", "1,200 rows"]
    );
    assert_eq!(
        [0.4, 59.0, 250.0, 7500.0, 273_600.0].map(time),
        ["0 s", "59 s", "4 min 10 s", "2 h 05 min", "3 d 4 h"]
    );
    assert_eq!([3827.7, 999.0, 1_234_567.0].map(thousands), ["3,828", "999", "1,234,567"]);
    assert_eq!(size(3 << 29), "1.5 GiB");
}

#[test]
fn text_is_fitted_to_a_width() {
    assert_eq!(cut("0123456789", 8), "01234...");
    assert_eq!(cut_middle("/a/long/path/to/out.jsonl", 16), "/a/l...out.jsonl");
    assert_eq!(wrapped("one two three four", 9, "  "), "one two\n  three\n  four");
}

#[test]
fn text_of_others_cannot_move_the_cursor() {
    assert_eq!(harmless("a\u{1b}[2J\nb\u{202e}"), "a\\u{1b}[2J\\nb\\u{202e}");
    assert_eq!(harmless(&"x".repeat(5_000_000)).len(), MAX_MESSAGE + 3);
}
