//! Counts what a render makes, so that a template cannot exhaust the memory or the stack.
//!
//! The template engine limits its steps only, and one step can make megabytes. Every function of translated templates
//! therefore reports what it has made. That is never given back, so the sum bounds the memory and the work of a render.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use minijinja::{Error, Value};

use super::value::objects::Namespace;
use super::value::{Kind, kind, refused};

/// Bytes that one render may make, all values together.
const MOST_BYTES: usize = 1 << 30;
/// Bytes that one render may print, into its output and into variables.
const LONGEST_OUTPUT: usize = 64 << 20;
/// Bytes that an element of a list takes.
const ELEMENT: usize = 32;
/// Lists, tuples and dictionaries that one render may make. None can be nested deeper than their number, so the stack of
/// the sandbox suffices to free them.
const MOST_CONTAINERS: usize = 120_000;

thread_local! {
    static METER: RefCell<Meter> = RefCell::default();
}

/// What the render of this thread has made so far.
#[derive(Default)]
struct Meter {
    bytes: usize,
    containers: usize,
    printed: usize,
    cancelled: Arc<AtomicBool>,
    /// All namespaces of the render. They may hold each other, so they are emptied at its end.
    namespaces: Vec<Arc<Namespace>>,
}

/// Begins a render. It ends with an error soon after `cancelled` is set.
pub(in crate::text) fn begin(cancelled: Arc<AtomicBool>) {
    METER.with_borrow_mut(|meter| *meter = Meter { cancelled, ..Meter::default() });
}

/// Ends a render: frees what its namespaces hold.
pub(in crate::text) fn end() {
    for namespace in METER.take().namespaces {
        // Freed after the lock, as it may hold the namespace itself.
        let held = std::mem::take(&mut *namespace.dict());
        drop(held);
    }
}

/// Keeps a namespace until the end of the render.
pub(super) fn keep(namespace: &Arc<Namespace>) {
    METER.with_borrow_mut(|meter| meter.namespaces.push(Arc::clone(namespace)));
}

/// # Errors
/// If the render has been told to end.
pub(super) fn check_cancelled() -> Result<(), Error> {
    if METER.with_borrow(|meter| meter.cancelled.load(Ordering::Relaxed)) {
        return Err(refused("the render was told to end"));
    }
    Ok(())
}

/// Charges for text that is printed.
///
/// # Errors
/// If the render has printed too much.
pub(in crate::text) fn print(bytes: usize) -> Result<(), Error> {
    METER.with_borrow_mut(|meter| {
        meter.printed = meter.printed.saturating_add(bytes);
        if meter.printed > LONGEST_OUTPUT {
            return Err(refused(format!("it prints more than {} MiB", LONGEST_OUTPUT >> 20)));
        }
        Ok(())
    })
}

/// Charges for a value that was made.
///
/// # Errors
/// If the render has made too much, or has been told to end.
pub(super) fn charge(made: &Value) -> Result<(), Error> {
    match kind(made) {
        Kind::Str(text) => charge_text(text),
        Kind::List(items) | Kind::Tuple(items) => charge_for(items.len() * ELEMENT, 1),
        Kind::Dict(dict) => charge_for(dict.len() * 3 * ELEMENT, 1),
        _ => check_cancelled(),
    }
}

/// Charges for a text that was made.
///
/// # Errors
/// Those of [`charge`].
pub(super) fn charge_text(made: &str) -> Result<(), Error> {
    charge_for(made.len(), 0)
}

fn charge_for(bytes: usize, containers: usize) -> Result<(), Error> {
    check_cancelled()?;
    METER.with_borrow_mut(|meter| {
        meter.bytes = meter.bytes.saturating_add(bytes);
        meter.containers += containers;
        if meter.bytes > MOST_BYTES {
            return Err(refused(format!("it makes values of more than {} MiB", MOST_BYTES >> 20)));
        }
        if meter.containers > MOST_CONTAINERS {
            return Err(refused(format!("it makes more than {MOST_CONTAINERS} lists and mappings")));
        }
        Ok(())
    })
}
