//! Filters of texts.

use minijinja::{Error, State, Value};

use super::{soft, wrap};
use crate::text::jinja::strings::character::is_alphanumeric;
use crate::text::jinja::strings::{self, case, split};
use crate::text::jinja::value::args::{Args, as_int, as_text, flag, int_or, needed, some};
use crate::text::jinja::value::operators::escapes;
use crate::text::jinja::value::{check_length, refused, repr, text};
use crate::text::jinja::{format, html};

pub(super) fn apply(state: &State, name: &str, value: &Value, args: &Args) -> Result<Value, Error> {
    match name {
        "truncate" => truncate(value, args),
        "indent" => indent(value, args),
        "wordwrap" => wrap::wordwrap(value, args),
        "replace" => replace(state, value, args),
        "center" => {
            let [width] = args.bind(name, ["width"])?;
            let subject = soft(value)?;
            let width = int_or(width.as_ref(), 80, name)?;
            let centered = strings::pad::justified(as_text(&subject, name)?, width, ' ', "center")?;
            Ok(text(centered, subject.is_safe()))
        }
        "trim" => {
            let [chars] = args.bind(name, ["chars"])?;
            let subject = soft(value)?;
            let args = Args { positional: chars.into_iter().collect(), keywords: Vec::new() };
            strings::call(as_text(&subject, name)?, subject.is_safe(), "strip", &args)
        }
        "format" => {
            let subject = soft(value)?;
            let formatted = format::percent_of_args(as_text(&subject, name)?, args, subject.is_safe())?;
            Ok(text(formatted, subject.is_safe()))
        }
        _ => {
            let [] = args.bind(name, [])?;
            let subject = soft(value)?;
            let plain = as_text(&subject, name)?;
            Ok(match name {
                "string" => subject,
                "wordcount" => Value::from(word_count(plain)),
                "title" => Value::from(title(plain)),
                "capitalize" => text(case::capitalized(plain), subject.is_safe()),
                "lower" => text(case::lower(plain), subject.is_safe()),
                _ => text(plain.to_uppercase(), subject.is_safe()),
            })
        }
    }
}

/// The runs of what a regular expression's `\w` is.
fn word_count(text: &str) -> usize {
    text.split(|character| !(is_alphanumeric(character) || character == '_'))
        .filter(|word| !word.is_empty())
        .count()
}

/// Words begin after white space and after `-`, `(`, `{`, `[` and `<`.
fn title(text: &str) -> String {
    let separates = |character: char| "-({[<".contains(character) || strings::trim::is_space(character);
    let mut titled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let kind = separates(first);
        let end = rest.find(|character| separates(character) != kind).unwrap_or(rest.len());
        titled.extend(first.to_uppercase());
        titled.push_str(&case::lower(&rest[first.len_utf8()..end]));
        rest = &rest[end..];
    }
    titled
}

fn truncate(value: &Value, args: &Args) -> Result<Value, Error> {
    let [length, kill_words, end, leeway] =
        args.bind("truncate", ["length", "killwords", "end", "leeway"])?;
    let subject = as_text(value, "truncate")?;
    let length = int_or(length.as_ref(), 255, "truncate")?;
    let end = end.unwrap_or_else(|| Value::from("..."));
    let end = as_text(&end, "truncate")?;
    let leeway = int_or(some(leeway).as_ref(), 5, "truncate")?;
    let end_length = end.chars().count() as i64;
    if length < end_length || leeway < 0 {
        return Err(refused("truncate: the length is not under that of the end, and the leeway not under 0"));
    }
    if subject.chars().count() as i64 <= length.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let kept: String = subject.chars().take((length - end_length) as usize).collect();
    let kept = if flag(kill_words.as_ref(), false) {
        &kept
    } else {
        kept.rsplit_once(' ').map_or(kept.as_str(), |(before, _)| before)
    };
    // Beside markup the end is escaped.
    let end = if value.is_safe() { html::escaped(end) } else { end.to_owned() };
    Ok(text(format!("{kept}{end}"), value.is_safe()))
}

fn indent(value: &Value, args: &Args) -> Result<Value, Error> {
    let [width, first, blank] = args.bind("indent", ["width", "first", "blank"])?;
    let subject = as_text(value, "indent")?;
    let width = width.unwrap_or_else(|| Value::from(4));
    let indention = match width.as_str() {
        Some(text) => text.to_owned(),
        None => {
            let count = usize::try_from(as_int(&width, "indent")?).unwrap_or(0);
            check_length(Some(count))?;
            " ".repeat(count)
        }
    };
    let subject = format!("{subject}\n");
    let lines = split::lines(&subject, false);
    check_length(
        lines.len().checked_mul(indention.len()).and_then(|added| added.checked_add(subject.len())),
    )?;
    let mut indented = String::with_capacity(subject.len());
    for (index, line) in lines.into_iter().enumerate() {
        if index > 0 {
            indented.push('\n');
        }
        let is_indented = if index == 0 {
            flag(first.as_ref(), false)
        } else {
            flag(blank.as_ref(), false) || !line.is_empty()
        };
        if is_indented {
            indented.push_str(&indention);
        }
        indented.push_str(line);
    }
    Ok(text(indented, value.is_safe()))
}

fn replace(state: &State, value: &Value, args: &Args) -> Result<Value, Error> {
    let [old, new, count] = args.bind("replace", ["old", "new", "count"])?;
    let (old, new) = (needed(old, "replace")?, needed(new, "replace")?);
    let count = int_or(some(count).as_ref(), -1, "replace")?;
    if !escapes(state) {
        let (subject, old, new) = (repr::to_text(value)?, repr::to_text(&old)?, repr::to_text(&new)?);
        return strings::replace(&subject, &old, &new, count).map(Value::from);
    }
    let subject =
        if old.is_safe() || new.is_safe() && !value.is_safe() { html::escape(value)? } else { soft(value)? };
    let (old, new) = (soft(&old)?, soft(&new)?);
    let args = Args { positional: vec![old, new, Value::from(count)], keywords: Vec::new() };
    strings::call(as_text(&subject, "replace")?, subject.is_safe(), "replace", &args)
}
