//! `str.find`, `count`, `startswith` and their like, with places counted in characters.

use minijinja::{Error, Value};

use crate::text::jinja::value::args::{Args, as_int, as_text, needed, some};
use crate::text::jinja::value::{Kind, kind, refused};

/// The part of a text that a search is limited to.
struct Window<'text> {
    part: &'text str,
    /// The place of its first character.
    start: usize,
}

/// The part from `start` to `end`; `None` if the start lies behind the end.
fn window<'text>(
    text: &'text str,
    start: Option<&Value>,
    end: Option<&Value>,
    name: &str,
) -> Result<Option<Window<'text>>, Error> {
    let length = text.chars().count();
    let place = |bound: Option<&Value>, default: usize| -> Result<usize, Error> {
        let Some(bound) = bound else { return Ok(default) };
        let bound = as_int(bound, name)?;
        let bound = if bound < 0 { bound.saturating_add(length as i64).max(0) } else { bound };
        Ok(usize::try_from(bound).unwrap_or(usize::MAX))
    };
    let (start, end) = (place(start, 0)?, place(end, length)?.min(length));
    if start > end {
        return Ok(None);
    }
    let byte = |place: usize| text.char_indices().nth(place).map_or(text.len(), |(byte, _)| byte);
    Ok(Some(Window { part: &text[byte(start)..byte(end)], start }))
}

/// `text.name(...)`.
pub(super) fn call(text: &str, name: &str, args: &Args) -> Result<Value, Error> {
    let [sought, start, end] = args.bind(name, ["/sub", "/start", "/end"])?;
    let sought = needed(sought, name)?;
    let window = window(text, some(start).as_ref(), some(end).as_ref(), name)?;
    match name {
        "startswith" | "endswith" => has_affix(window.as_ref(), &sought, name).map(Value::from),
        "count" => {
            let sought = as_text(&sought, name)?;
            Ok(Value::from(window.map_or(0, |window| window.part.matches(sought).count())))
        }
        _ => {
            let sought = as_text(&sought, name)?;
            let found = window.and_then(|Window { part, start }| {
                let byte = if name.starts_with('r') { part.rfind(sought) } else { part.find(sought) }?;
                Some(start + part[..byte].chars().count())
            });
            match found {
                Some(place) => Ok(Value::from(place)),
                None if name.ends_with("find") => Ok(Value::from(-1)),
                None => Err(refused(format!("{name}(): the text is not found"))),
            }
        }
    }
}

fn has_affix(window: Option<&Window>, sought: &Value, name: &str) -> Result<bool, Error> {
    let candidates = match kind(sought) {
        Kind::Tuple(items) => items,
        _ => std::slice::from_ref(sought),
    };
    for candidate in candidates {
        let candidate = as_text(candidate, name)?;
        let has = window.is_some_and(|window| {
            if name == "startswith" {
                window.part.starts_with(candidate)
            } else {
                window.part.ends_with(candidate)
            }
        });
        if has {
            return Ok(true);
        }
    }
    Ok(false)
}
