//! The methods of Python's `str`, and of the markup that is not escaped again.

pub(super) mod case;
pub(super) mod character;
pub(super) mod pad;
mod search;
pub(super) mod split;
pub(super) mod trim;

use minijinja::{Error, Value};

use super::value::args::{Args, as_text, flag, int_or, needed, some};
use super::value::{self, Kind, check_length, kind, list, refused, sequence, text, tuple, type_name};
use super::{format, html};

/// The methods. (`encode` is refused: a template has no use of bytes.)
pub(super) const METHODS: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];

/// `subject.name(...)`; `safe` if the subject is markup.
pub(super) fn call(subject: &str, safe: bool, name: &str, args: &Args) -> Result<Value, Error> {
    if name.starts_with("is") {
        let [] = args.bind(name, [])?;
        return character::is(subject, name).map(Value::from);
    }
    match name {
        "capitalize" | "casefold" | "lower" | "swapcase" | "title" | "upper" => {
            let [] = args.bind(name, [])?;
            Ok(text(case::changed(subject, name), safe))
        }
        "center" | "ljust" | "rjust" | "zfill" | "expandtabs" => {
            Ok(text(pad::padded(subject, name, args)?, safe))
        }
        "count" | "endswith" | "find" | "index" | "rfind" | "rindex" | "startswith" => {
            search::call(subject, name, args)
        }
        "lstrip" | "rstrip" | "strip" => {
            let [chars] = args.bind(name, ["/chars"])?;
            let chars = some(chars);
            let chars = chars.as_ref().map(|chars| as_text(chars, name)).transpose()?;
            Ok(text(trim::strip(subject, chars, name != "rstrip", name != "lstrip").to_owned(), safe))
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = args.bind(name, ["/affix"])?;
            let affix = needed(affix, name)?;
            let affix = as_text(&affix, name)?;
            let rest = if name == "removeprefix" {
                subject.strip_prefix(affix)
            } else {
                subject.strip_suffix(affix)
            };
            Ok(text(rest.unwrap_or(subject).to_owned(), safe))
        }
        "partition" | "rpartition" => split::partition(subject, safe, name, args),
        "split" | "rsplit" => split::split(subject, safe, name, args),
        "splitlines" => {
            let [keep_ends] = args.bind(name, ["keepends"])?;
            let lines = split::lines(subject, flag(keep_ends.as_ref(), false));
            Ok(list(lines.into_iter().map(|line| text(line.to_owned(), safe)).collect()))
        }
        "replace" => {
            let [old, new, count] = args.bind(name, ["/old", "/new", "/count"])?;
            let (old, new) = (needed(old, name)?, needed(new, name)?);
            let count = int_or(count.as_ref(), -1, name)?;
            // Markup escapes the texts that come into it.
            let new = if safe { html::escape(&new)? } else { new };
            Ok(text(replace(subject, as_text(&old, name)?, as_text(&new, name)?, count)?, safe))
        }
        "join" => {
            let [items] = args.bind(name, ["/iterable"])?;
            let mut items = sequence::items(&needed(items, name)?)?;
            if safe {
                items = items.iter().map(html::escape).collect::<Result<_, _>>()?;
            }
            join(subject, safe, &items)
        }
        "format" => Ok(text(format::braces(subject, args, safe)?, safe)),
        "format_map" => {
            let [mapping] = args.bind(name, ["/mapping"])?;
            Ok(text(format::braces_of_map(subject, &needed(mapping, name)?, safe)?, safe))
        }
        "unescape" | "striptags" if safe => {
            let [] = args.bind(name, [])?;
            Ok(Value::from(if name == "unescape" {
                html::unescaped(subject)
            } else {
                html::without_tags(subject)
            }))
        }
        "translate" => translate(subject, safe, args),
        "maketrans" => make_translation(args),
        _ => Err(refused(format!("str.{name}() is not supported in templates"))),
    }
}

/// `separator.join(items)`.
pub(super) fn join(separator: &str, safe: bool, items: &[Value]) -> Result<Value, Error> {
    let mut joined = String::new();
    for (index, item) in items.iter().enumerate() {
        let item = item
            .as_str()
            .ok_or_else(|| refused(format!("join: item {index} is no str but a {}", type_name(item))))?;
        check_length(joined.len().checked_add(separator.len() + item.len()))?;
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(item);
    }
    Ok(text(joined, safe))
}

/// `str.replace`; a negative count replaces all.
pub(super) fn replace(subject: &str, old: &str, new: &str, count: i64) -> Result<String, Error> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let found = subject.matches(old).count().min(count);
    check_length(found.checked_mul(new.len()).and_then(|added| added.checked_add(subject.len())))?;
    Ok(subject.replacen(old, new, count))
}

/// `str.translate` with a dictionary of code points.
fn translate(subject: &str, safe: bool, args: &Args) -> Result<Value, Error> {
    let [table] = args.bind("translate", ["/table"])?;
    let table = needed(table, "translate")?;
    let Kind::Dict(table) = kind(&table) else { return Err(refused("translate() needs a dict")) };
    let mut translated = String::new();
    for character in subject.chars() {
        match table.get(&Value::from(u32::from(character)))? {
            None => translated.push(character),
            Some(replacement) => match kind(replacement) {
                Kind::None => {}
                Kind::Str(replacement) => translated.push_str(replacement),
                Kind::Int(code) => translated.push(
                    u32::try_from(code)
                        .ok()
                        .and_then(char::from_u32)
                        .ok_or_else(|| refused("translate(): not a character's number"))?,
                ),
                _ => return Err(refused("translate(): a character becomes a str, an int or none")),
            },
        }
        check_length(Some(translated.len()))?;
    }
    Ok(text(translated, safe))
}

/// `str.maketrans`.
fn make_translation(args: &Args) -> Result<Value, Error> {
    let [from, to, removed] = args.bind("maketrans", ["/x", "/y", "/z"])?;
    let from = needed(from, "maketrans")?;
    let code = |character: char| Value::from(u32::from(character));
    let mut table = value::dict::Dict::default();
    match (kind(&from), to) {
        (Kind::Dict(dict), None) => {
            for (name, replacement) in dict.iter() {
                let mut characters = name.as_str().unwrap_or_default().chars();
                let name = match (characters.next(), characters.next()) {
                    (Some(character), None) => code(character),
                    _ if name.as_str().is_some() => {
                        return Err(refused("maketrans(): a key is one character"));
                    }
                    _ => name.clone(),
                };
                table.insert(name, replacement.clone())?;
            }
        }
        (Kind::Str(from), Some(to)) => {
            let to = as_text(&to, "maketrans")?;
            if from.chars().count() != to.chars().count() {
                return Err(refused("maketrans(): both texts have the same length"));
            }
            for (from, to) in from.chars().zip(to.chars()) {
                table.insert(code(from), code(to))?;
            }
            if let Some(removed) = removed {
                for character in as_text(&removed, "maketrans")?.chars() {
                    table.insert(code(character), Value::from(()))?;
                }
            }
        }
        _ => return Err(refused("maketrans() needs a dict or two texts")),
    }
    Ok(Value::from_object(table))
}

/// The parts of a text as values.
fn parts(parts: impl IntoIterator<Item = String>, safe: bool) -> Vec<Value> {
    parts.into_iter().map(|part| text(part, safe)).collect()
}

/// Three parts as a tuple.
fn triple(parts: [&str; 3], safe: bool) -> Value {
    tuple(parts.into_iter().map(|part| text(part.to_owned(), safe)).collect())
}
