//! Counts what a render makes, so that a template cannot exhaust the memory or the stack.
//!
//! The template engine limits its steps only, and one step can make gigabytes. The program that it runs is therefore
//! rewritten (see [`super::guards`]) so that every step that makes or reads a large value asks the meter of its thread
//! first. What a render makes is charged in bytes and never returned, so the sum bounds its memory and its work.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use minijinja::value::{ValueIter, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::namespace::Namespace;

/// Bytes of one text, and of a value when it is written out.
pub(super) const LONGEST_TEXT: usize = 64 << 20;
/// Bytes that one render may make, all values together. What it reads counts an eighth.
const MOST_BYTES: usize = 1 << 30;
const READING_COSTS: usize = 8;
/// Lists, tuples and mappings that one render may make. None can be nested deeper than their number, so the stack of
/// the sandbox suffices for all recursion over values.
const MOST_CONTAINERS: usize = 120_000;
/// Bytes that an element of a list takes.
pub(super) const ELEMENT: usize = 32;

thread_local! {
    static METER: RefCell<Meter> = RefCell::default();
}

/// What the render of this thread has made so far.
#[derive(Default)]
struct Meter {
    bytes: usize,
    containers: usize,
    printed: usize,
    /// An excess that was noticed where no error could be returned.
    excess: Option<&'static str>,
    cancelled: Arc<AtomicBool>,
    /// All namespaces of the render. They may hold each other, so they are emptied at its end.
    namespaces: Vec<Arc<Namespace>>,
}

/// Begins a render. It ends with an error soon after `cancelled` is set.
pub(super) fn begin(cancelled: Arc<AtomicBool>) {
    METER.with_borrow_mut(|meter| *meter = Meter { cancelled, ..Meter::default() });
}

/// Ends a render: frees what it has left.
///
/// # Errors
/// An excess that was noticed where no error could be returned.
pub(super) fn end() -> Result<(), Error> {
    let Meter { namespaces, excess, .. } = METER.take();
    namespaces.iter().for_each(|namespace| drop(namespace.clear()));
    excess.map_or(Ok(()), |excess| Err(refused(excess)))
}

/// Notes an excess where no error can be returned.
pub(super) fn note_excess(excess: &'static str) {
    METER.with_borrow_mut(|meter| meter.excess = Some(excess));
}

/// Empties `namespace` at the end of the render.
pub(super) fn keep(namespace: Arc<Namespace>) {
    METER.with_borrow_mut(|meter| meter.namespaces.push(namespace));
}

/// An error at the present step.
pub(super) fn refused(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Charges `bytes` that are made.
pub(super) fn charge(bytes: usize) -> Result<(), Error> {
    METER.with_borrow_mut(|meter| {
        if meter.cancelled.load(Ordering::Relaxed) {
            return Err(refused("it was stopped"));
        }
        if let Some(excess) = meter.excess {
            return Err(refused(excess));
        }
        meter.bytes = meter.bytes.saturating_add(bytes);
        if meter.bytes > MOST_BYTES {
            return Err(refused(format!("its values exceed {} MiB in all", MOST_BYTES >> 20)));
        }
        Ok(())
    })
}

/// Charges `bytes` that are read.
pub(super) fn charge_reading(bytes: usize) -> Result<(), Error> {
    charge(bytes / READING_COSTS)
}

/// Charges a list or a mapping of `elements` elements.
pub(super) fn charge_container(elements: usize) -> Result<(), Error> {
    charge(elements.saturating_mul(ELEMENT))?;
    METER.with_borrow_mut(|meter| {
        meter.containers += 1;
        if meter.containers > MOST_CONTAINERS {
            return Err(refused(format!("it makes more than {MOST_CONTAINERS} lists and mappings")));
        }
        Ok(())
    })
}

/// Refuses a text of `bytes` before it is made.
pub(super) fn check_text(bytes: usize) -> Result<(), Error> {
    if bytes > LONGEST_TEXT {
        let limit = LONGEST_TEXT >> 20;
        return Err(refused(format!("a text of {bytes} bytes is too large: it exceeds {limit} MiB")));
    }
    Ok(())
}

/// Charges `bytes` of output, also where a variable captures it.
pub(super) fn print(bytes: usize) -> Result<(), Error> {
    charge(bytes)?;
    METER.with_borrow_mut(|meter| {
        meter.printed += bytes;
        if meter.printed > LONGEST_TEXT {
            let message = format!("it prints more than {} MiB", LONGEST_TEXT >> 20);
            return Err(Error::new(ErrorKind::WriteFailure, message));
        }
        Ok(())
    })
}

/// Charges what a step has made.
pub(super) fn charge_value(value: &Value) -> Result<(), Error> {
    if let Some(text) = value.as_str() {
        check_text(text.len())?;
        return charge(text.len());
    }
    match value.kind() {
        ValueKind::Seq => {
            charge_container(value.len().unwrap_or(0))?;
            value.try_iter()?.filter_map(|item| item.as_str().map(str::len)).try_for_each(charge)
        }
        ValueKind::Map | ValueKind::Iterable => charge_container(value.len().unwrap_or(0)),
        ValueKind::Bytes => charge(value.len().unwrap_or(0)),
        _ => charge(1),
    }
}

/// The size of a value when it is written out: a value that is held in two places counts twice.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weight {
    pub(super) elements: usize,
    pub(super) bytes: usize,
    pub(super) depth: usize,
}

/// The size of `values`. It is found without recursion.
///
/// # Errors
/// If it exceeds the limit of a text, or the render has read too much.
pub(super) fn weigh(values: &[Value]) -> Result<Weight, Error> {
    let mut weight = Weight::default();
    let mut open: Vec<(Value, ValueIter)> = Vec::new();
    for value in values {
        visit(value, &mut weight, &mut open)?;
        while let Some((parent, items)) = open.last_mut() {
            let Some(item) = items.next() else {
                open.pop();
                continue;
            };
            let entry = (parent.kind() == ValueKind::Map).then(|| parent.get_item(&item).unwrap_or_default());
            visit(&item, &mut weight, &mut open)?;
            if let Some(entry) = entry {
                visit(&entry, &mut weight, &mut open)?;
            }
        }
    }
    charge_reading(weight.bytes)?;
    Ok(weight)
}

fn visit(value: &Value, weight: &mut Weight, open: &mut Vec<(Value, ValueIter)>) -> Result<(), Error> {
    weight.elements += 1;
    if let Some(text) = value.as_str() {
        weight.bytes += text.len();
    } else if matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
        charge(ELEMENT)?;
        if let Ok(items) = value.try_iter() {
            open.push((value.clone(), items));
            weight.depth = weight.depth.max(open.len());
        }
    }
    if weight.elements.is_multiple_of(1024) {
        charge(1024 * ELEMENT / READING_COSTS)?;
    }
    check_text(weight.bytes.saturating_add(weight.elements * 2))
}

/// Whether a step that reads the whole of `value` may take long.
pub(super) fn is_large(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable)
}
