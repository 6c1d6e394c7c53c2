//! Filters of lists, dictionaries and generators.

use std::collections::HashSet;

use minijinja::{Error, State, Value};

use crate::text::jinja::strings;
use crate::text::jinja::value::args::{Args, as_int, as_text, flag, needed, some};
use crate::text::jinja::value::objects::{Generator, Group, Shows, View};
use crate::text::jinja::value::operators::{binary, escapes};
use crate::text::jinja::value::{
    Kind, attributes, check_items, compare, dict, kind, list, refused, repr, sequence, text, tuple, type_name,
};

pub(super) fn apply(state: &State, name: &str, value: &Value, args: &Args) -> Result<Value, Error> {
    match name {
        "batch" => batch(value, args),
        "dictsort" => dictsort(value, args),
        "groupby" => groupby(value, args),
        "join" => join(state, value, args),
        "max" | "min" => extreme(name, value, args),
        "slice" => slice(value, args),
        "sort" => sort(value, args),
        "sum" => sum(value, args),
        "unique" => unique(value, args),
        _ => {
            let [] = args.bind(name, [])?;
            without_args(name, value)
        }
    }
}

fn without_args(name: &str, value: &Value) -> Result<Value, Error> {
    match name {
        "first" => match value.downcast_object_ref::<Generator>() {
            Some(generator) => generator.next().unwrap_or(Ok(Value::UNDEFINED)),
            None => Ok(sequence::items(value)?.into_iter().next().unwrap_or_default()),
        },
        "last" => Ok(reversible(value)?.pop().unwrap_or_default()),
        "items" => match kind(value) {
            Kind::Undefined => Ok(Generator::of_values(Vec::new())),
            Kind::Dict(dict) => Ok(Generator::of_values(sequence::items(&View::of(dict, Shows::Items))?)),
            _ => Err(refused("items needs a dict")),
        },
        "list" => sequence::items(value).map(list),
        "reverse" => match kind(value) {
            Kind::Str(characters) => Ok(text(characters.chars().rev().collect(), value.is_safe())),
            _ => {
                let mut items = sequence::items(value)?;
                items.reverse();
                // What has an order gives an iterator, what has none a list.
                let is_list = matches!(kind(value), Kind::Object(object) if object.is::<Generator>());
                Ok(if is_list { list(items) } else { Generator::of_values(items) })
            }
        },
        _ => sequence::length(value)
            .map(Value::from)
            .ok_or_else(|| refused(format!("a {} has no length", type_name(value)))),
    }
}

/// The items of a value that can be read backwards.
fn reversible(value: &Value) -> Result<Vec<Value>, Error> {
    if let Kind::Object(object) = kind(value)
        && object.is::<Generator>()
    {
        return Err(refused("last: a generator has no last item; use | list | last"));
    }
    sequence::items(value)
}

/// The values of a list of attributes, or the value itself; texts without case unless it matters.
fn sort_key(item: &Value, attribute: Option<&Value>, case_sensitive: bool) -> Result<Value, Error> {
    let key = match attribute {
        Some(path) => attributes::path(item, path, None)?,
        None => item.clone(),
    };
    Ok(if case_sensitive { key } else { attributes::without_case(key) })
}

fn sort(value: &Value, args: &Args) -> Result<Value, Error> {
    let [reverse, case_sensitive, attribute] =
        args.bind("sort", ["reverse", "case_sensitive", "attribute"])?;
    let (attribute, case_sensitive) = (some(attribute), flag(case_sensitive.as_ref(), false));
    let paths: Vec<Option<Value>> = match &attribute {
        Some(names) if names.as_str().is_some() => {
            as_text(names, "sort")?.split(',').map(|name| Some(Value::from(name))).collect()
        }
        other => vec![other.clone()],
    };
    let mut keyed = Vec::new();
    for item in sequence::items(value)? {
        let keys: Result<Vec<_>, Error> =
            paths.iter().map(|path| sort_key(&item, path.as_ref(), case_sensitive)).collect();
        keyed.push((list(keys?), item));
    }
    compare::sort(keyed, flag(reverse.as_ref(), false)).map(list)
}

fn dictsort(value: &Value, args: &Args) -> Result<Value, Error> {
    let [case_sensitive, by, reverse] = args.bind("dictsort", ["case_sensitive", "by", "reverse"])?;
    let Kind::Dict(dict) = kind(value) else { return Err(refused("dictsort needs a dict")) };
    let by = by.unwrap_or_else(|| Value::from("key"));
    let by_key = match by.as_str() {
        Some("key") => true,
        Some("value") => false,
        _ => return Err(refused("dictsort sorts by key or by value")),
    };
    let mut keyed = Vec::with_capacity(dict.len());
    for (name, value) in dict.iter() {
        let key = sort_key(if by_key { name } else { value }, None, flag(case_sensitive.as_ref(), false))?;
        keyed.push((key, tuple(vec![name.clone(), value.clone()])));
    }
    compare::sort(keyed, flag(reverse.as_ref(), false)).map(list)
}

fn groupby(value: &Value, args: &Args) -> Result<Value, Error> {
    let [attribute, default, case_sensitive] =
        args.bind("groupby", ["attribute", "default", "case_sensitive"])?;
    let attribute = needed(attribute, "groupby")?;
    let (default, case_sensitive) = (some(default), flag(case_sensitive.as_ref(), false));
    let key = |item: &Value| attributes::path(item, &attribute, default.as_ref());
    let folded =
        |item: &Value| key(item).map(|key| if case_sensitive { key } else { attributes::without_case(key) });
    let mut keyed = Vec::new();
    for item in sequence::items(value)? {
        keyed.push((folded(&item)?, item));
    }
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for item in compare::sort(keyed, false)? {
        let of_item = folded(&item)?;
        match groups.last_mut() {
            Some((of_group, items)) if compare::equal(of_group, &of_item)? => items.push(item),
            _ => groups.push((of_item, vec![item])),
        }
    }
    let groups: Result<Vec<Value>, Error> = groups
        .into_iter()
        .map(|(folded, items)| {
            let grouper = if case_sensitive { folded } else { key(&items[0])? };
            Ok(Value::from_object(Group([grouper, list(items)])))
        })
        .collect();
    groups.map(list)
}

fn unique(value: &Value, args: &Args) -> Result<Value, Error> {
    let [case_sensitive, attribute] = args.bind("unique", ["case_sensitive", "attribute"])?;
    let (attribute, case_sensitive) = (some(attribute), flag(case_sensitive.as_ref(), false));
    let mut seen = HashSet::new();
    let items = sequence::items(value)?.into_iter().filter_map(|item| {
        let key = sort_key(&item, attribute.as_ref(), case_sensitive).and_then(|key| dict::key(&key));
        match key {
            Ok(key) => seen.insert(key).then_some(Ok(item)),
            Err(error) => Some(Err(error)),
        }
    });
    Ok(Generator::of(items))
}

fn extreme(name: &str, value: &Value, args: &Args) -> Result<Value, Error> {
    let [case_sensitive, attribute] = args.bind(name, ["case_sensitive", "attribute"])?;
    let (attribute, case_sensitive) = (some(attribute), flag(case_sensitive.as_ref(), false));
    let mut best: Option<(Value, Value)> = None;
    for item in sequence::items(value)? {
        let key = sort_key(&item, attribute.as_ref(), case_sensitive)?;
        let better = match &best {
            None => true,
            Some((best, _)) if name == "max" => compare::less(best, &key)?,
            Some((best, _)) => compare::less(&key, best)?,
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map(|(_, item)| item).unwrap_or_default())
}

fn sum(value: &Value, args: &Args) -> Result<Value, Error> {
    let [attribute, start] = args.bind("sum", ["attribute", "start"])?;
    let attribute = some(attribute);
    let mut total = start.unwrap_or_else(|| Value::from(0));
    if total.as_str().is_some() {
        return Err(refused("sum adds no texts; use join"));
    }
    for item in sequence::items(value)? {
        let item = match &attribute {
            Some(path) => attributes::path(&item, path, None)?,
            None => item,
        };
        total = binary("+", &total, &item)?;
    }
    Ok(total)
}

fn join(state: &State, value: &Value, args: &Args) -> Result<Value, Error> {
    let [separator, attribute] = args.bind("join", ["d", "attribute"])?;
    let separator = separator.unwrap_or_else(|| Value::from(""));
    let mut items = sequence::items(value)?;
    if let Some(path) = some(attribute) {
        items = items.iter().map(|item| attributes::path(item, &path, None)).collect::<Result<_, _>>()?;
    }
    let escaping = escapes(state);
    let texts: Result<Vec<Value>, Error> = items
        .iter()
        .map(|item| match item.as_str() {
            Some(_) if escaping => Ok(item.clone()),
            _ => repr::to_text(item).map(|text| Value::from(text.into_owned())),
        })
        .collect();
    let texts = texts?;
    let safe = escaping && (separator.is_safe() || texts.iter().any(Value::is_safe));
    if !safe {
        return strings::join(&repr::to_text(&separator)?, false, &texts);
    }
    let escape = crate::text::jinja::html::escape;
    let texts = texts.iter().map(escape).collect::<Result<Vec<_>, _>>()?;
    let separator = escape(&separator)?;
    strings::join(as_text(&separator, "join")?, true, &texts)
}

fn batch(value: &Value, args: &Args) -> Result<Value, Error> {
    let [count, fill] = args.bind("batch", ["linecount", "fill_with"])?;
    let count = as_int(&needed(count, "batch")?, "batch")?;
    let fill = some(fill);
    let mut rows: Vec<Value> = Vec::new();
    let mut row: Vec<Value> = Vec::new();
    for item in sequence::items(value)? {
        if i64::try_from(row.len()) == Ok(count) {
            rows.push(list(std::mem::take(&mut row)));
        }
        row.push(item);
    }
    if !row.is_empty() {
        if let (Some(fill), Ok(count)) = (fill, usize::try_from(count)) {
            check_items(count)?;
            if row.len() < count {
                row.resize(count, fill);
            }
        }
        rows.push(list(row));
    }
    Ok(Generator::of_values(rows))
}

fn slice(value: &Value, args: &Args) -> Result<Value, Error> {
    let [slices, fill] = args.bind("slice", ["slices", "fill_with"])?;
    let slices = as_int(&needed(slices, "slice")?, "slice")?;
    let items = sequence::items(value)?;
    let Ok(slices) = usize::try_from(slices) else { return Ok(Generator::of_values(Vec::new())) };
    check_items(slices)?;
    if slices == 0 {
        return Err(refused("slice: division by zero"));
    }
    let (each, longer) = (items.len() / slices, items.len() % slices);
    let fill = some(fill);
    let mut columns = Vec::with_capacity(slices);
    let mut start = 0;
    for column in 0..slices {
        let end = start + each + usize::from(column < longer);
        let mut part = items[start..end].to_vec();
        if column >= longer {
            part.extend(fill.clone());
        }
        columns.push(list(part));
        start = end;
    }
    Ok(Generator::of_values(columns))
}
