//! How much a filter or a method makes of its arguments, for those that can make far more than they are given.

use minijinja::{Error, ErrorKind, Value};

use super::meter::{self, ELEMENT, Weight, charge, charge_reading, check_text, weigh};

/// The deepest value that `pprint` indents.
const DEEPEST_PRINT: usize = 200;
/// The widest indentation of JSON.
const WIDEST_INDENT: usize = 64;
/// The largest width in a format.
const WIDEST_FIELD: usize = 1 << 20;
/// Characters of the longest number.
const LONGEST_NUMBER: usize = 400;

/// Refuses a filter or a method whose result would be too large. `args` begins with the value that it is applied to.
///
/// # Errors
/// If a text would exceed the limit, or the render has made too much.
pub(super) fn check_growth(name: &str, args: &[Value]) -> Result<(), Error> {
    let Some((value, rest)) = args.split_first() else { return Ok(()) };
    let text = value.as_str();
    match name {
        "indent" => {
            let text = text.map_or_else(|| value.to_string().into(), std::borrow::Cow::Borrowed);
            let width = number(rest, 0, "width").unwrap_or(4);
            let lines = text.matches('\n').count() + 1;
            check_text(width.saturating_mul(lines).saturating_add(text.len()))
        }
        "center" | "ljust" | "rjust" | "zfill" => {
            check_text(number(rest, 0, "width").unwrap_or(0).saturating_mul(4).saturating_add(size(args)?))
        }
        "expandtabs" => {
            let tabs = text.map_or(0, |text| text.matches('\t').count());
            check_text(
                number(rest, 0, "tabsize").unwrap_or(8).saturating_mul(tabs).saturating_add(size(args)?),
            )
        }
        "replace" => {
            let text = text.map_or_else(|| value.to_string().into(), std::borrow::Cow::Borrowed);
            let (old, new) = (text_at(rest, 0), text_at(rest, 1));
            let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(&*old).count() };
            check_text(found.saturating_mul(new.len()).saturating_add(text.len()))
        }
        "join" => {
            // The filter is applied to the list, the method to the separator.
            let Weight { elements, bytes, .. } = weigh(args)?;
            let separator = args.iter().filter_map(Value::as_str).map(str::len).max().unwrap_or(0);
            check_text(elements.saturating_mul(separator).saturating_add(bytes))
        }
        "format" => check_format(text.unwrap_or_default(), rest),
        "batch" | "slice" => meter::charge(number(rest, 0, "linecount").unwrap_or(0).saturating_mul(ELEMENT)),
        "split" | "rsplit" | "splitlines" | "lines" => {
            let text = text.unwrap_or_default();
            let pieces = match rest.first().and_then(Value::as_str) {
                Some(separator) if !separator.is_empty() => text.matches(separator).count(),
                _ => text.chars().filter(|character| character.is_whitespace()).count(),
            };
            charge(pieces.saturating_mul(ELEMENT))
        }
        "tojson" | "pprint" => check_layout(name, args),
        "map" | "select" | "reject" | "selectattr" | "rejectattr" => check_each(name, value, rest),
        "sum" => {
            let Weight { elements, bytes, .. } = weigh(args)?;
            charge_reading(elements.saturating_mul(bytes))
        }
        "list" | "sort" | "unique" | "reverse" | "groupby" | "zip" | "chain" | "min" | "max" => {
            charge(text.map_or(0, str::len).saturating_mul(ELEMENT))
        }
        _ => Ok(()),
    }
}

/// The bytes of all arguments.
fn size(args: &[Value]) -> Result<usize, Error> {
    weigh(args).map(|weight| weight.bytes)
}

/// The number at `index`, or of that name.
fn number(args: &[Value], index: usize, name: &str) -> Option<usize> {
    let kwargs = args.last().filter(|last| last.is_kwargs());
    let named = kwargs.and_then(|kwargs| kwargs.get_attr(name).ok()).and_then(|value| value.as_usize());
    args.get(index).and_then(Value::as_usize).or(named)
}

fn text_at(args: &[Value], index: usize) -> String {
    args.get(index).map(Value::to_string).unwrap_or_default()
}

/// Widths and precisions of a format are bounded, and so is the number of its fields times what fills them.
fn check_format(format: &str, args: &[Value]) -> Result<(), Error> {
    let digits = format.split(|character: char| !character.is_ascii_digit());
    let given = args.iter().filter_map(Value::as_usize).filter(|_| format.contains('*'));
    let widths =
        digits.filter(|digits| !digits.is_empty()).map(|digits| digits.parse().unwrap_or(usize::MAX));
    let widest = widths.chain(given).max().unwrap_or(0);
    if widest > WIDEST_FIELD {
        return Err(meter::refused(format!("format: a field of {widest} characters is too wide")));
    }
    let fields = format.matches(['%', '{']).count();
    let filled = size(args)?.saturating_add(widest).saturating_add(LONGEST_NUMBER);
    check_text(fields.saturating_mul(filled).saturating_add(format.len()))
}

/// Indentation grows with the depth, and separators may be long.
fn check_layout(name: &str, args: &[Value]) -> Result<(), Error> {
    let (value, rest) = (&args[..1], &args[1..]);
    let Weight { elements, bytes, depth } = weigh(value)?;
    if name == "pprint" && depth > DEEPEST_PRINT {
        return Err(meter::refused(format!("pprint: the value is nested deeper than {DEEPEST_PRINT}")));
    }
    let indent = if name == "pprint" { 4 } else { number(rest, 0, "indent").unwrap_or(0) };
    if name == "tojson" && indent > WIDEST_INDENT {
        return Err(meter::refused(format!("tojson: indent is over {WIDEST_INDENT}")));
    }
    let separators = size(rest)?;
    let each = indent.saturating_mul(depth).saturating_add(separators);
    check_text(elements.saturating_mul(each).saturating_add(bytes))
}

/// Filters and tests that are applied to each element, with the same arguments.
fn check_each(name: &str, list: &Value, rest: &[Value]) -> Result<(), Error> {
    let each = weigh(rest)?;
    let applied = rest.first().and_then(Value::as_str).filter(|_| name == "map");
    let invalid = |error: Error| Error::new(ErrorKind::InvalidOperation, error.to_string());
    for item in list.try_iter().map_err(invalid)? {
        charge(ELEMENT)?;
        charge_reading(each.bytes.saturating_add(each.elements))?;
        if let Some(applied) = applied {
            let mut args = vec![item];
            args.extend_from_slice(&rest[1..]);
            check_growth(applied, &args)?;
        }
    }
    Ok(())
}
