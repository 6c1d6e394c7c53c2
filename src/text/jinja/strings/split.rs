//! `str.split`, `partition` and `splitlines`.

use minijinja::{Error, Value};

use super::trim::is_space;
use super::{parts, triple};
use crate::text::jinja::value::args::{Args, as_text, int_or, needed, some};
use crate::text::jinja::value::{MOST_ITEMS, check_items, list, refused};

/// `str.split` and `str.rsplit`.
pub(super) fn split(text: &str, safe: bool, name: &str, args: &Args) -> Result<Value, Error> {
    let [separator, most] = args.bind(name, ["sep", "maxsplit"])?;
    let most = usize::try_from(int_or(most.as_ref(), -1, name)?).unwrap_or(usize::MAX);
    let from_right = name == "rsplit";
    let Some(separator) = some(separator) else {
        let words = if from_right { words_from_right(text, most) } else { words(text, most) };
        check_items(words.len())?;
        return Ok(list(parts(words.into_iter().map(str::to_owned), safe)));
    };
    let separator = as_text(&separator, name)?;
    if separator.is_empty() {
        return Err(refused(format!("{name}(): the separator is empty")));
    }
    let count = most.saturating_add(1);
    check_items(text.splitn(count, separator).take(MOST_ITEMS + 1).count())?;
    let pieces: Vec<String> = if from_right {
        let mut pieces: Vec<String> = text.rsplitn(count, separator).map(str::to_owned).collect();
        pieces.reverse();
        pieces
    } else {
        text.splitn(count, separator).map(str::to_owned).collect()
    };
    Ok(list(parts(pieces, safe)))
}

/// The words of a text: at most `most` splits, and white space around words is gone.
fn words(text: &str, most: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() && words.len() <= MOST_ITEMS {
        let end = if most == words.len() { None } else { rest.find(is_space) };
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        words.push(word);
        rest = after.trim_start_matches(is_space);
    }
    words
}

fn words_from_right(text: &str, most: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() && words.len() <= MOST_ITEMS {
        let start = if most == words.len() { None } else { rest.rfind(is_space) };
        let start = start.map_or(0, |start| start + rest[start..].chars().next().map_or(1, char::len_utf8));
        words.push(&rest[start..]);
        rest = rest[..start].trim_end_matches(is_space);
    }
    words.reverse();
    words
}

/// `str.partition` and `str.rpartition`.
pub(super) fn partition(text: &str, safe: bool, name: &str, args: &Args) -> Result<Value, Error> {
    let [separator] = args.bind(name, ["/sep"])?;
    let separator = needed(separator, name)?;
    let separator = as_text(&separator, name)?;
    if separator.is_empty() {
        return Err(refused(format!("{name}(): the separator is empty")));
    }
    let parts = if name == "partition" {
        text.split_once(separator).map_or([text, "", ""], |(before, after)| [before, separator, after])
    } else {
        text.rsplit_once(separator).map_or(["", "", text], |(before, after)| [before, separator, after])
    };
    Ok(triple(parts, safe))
}

/// `str.splitlines`.
pub(in crate::text::jinja) fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let ends_line = |character: char| matches!(character, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(ends_line).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        let break_length =
            if after.starts_with("\r\n") { 2 } else { after.chars().next().map_or(0, char::len_utf8) };
        lines.push(if keep_ends { &rest[..end + break_length] } else { line });
        rest = &after[break_length..];
    }
    lines
}
