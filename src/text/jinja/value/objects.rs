//! The values that Python has beyond texts, numbers, lists, tuples and dictionaries.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Tuple};
use minijinja::{Error, State, Value};
use num_bigint::BigInt;

use super::args::Args;
use super::attributes;
use super::dict::Dict;

/// An integer of more than 127 bits.
#[derive(Debug)]
pub(in crate::text::jinja) struct Wide(pub(in crate::text::jinja) BigInt);

impl Object for Wide {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// A group of the filter `groupby`: a tuple of the key and the items, with names.
#[derive(Debug)]
pub(in crate::text::jinja) struct Group(pub(in crate::text::jinja) [Value; 2]);

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
}

/// A generator: its items can be taken once. An error in the middle is met when its place is reached.
pub(in crate::text::jinja) struct Generator(Mutex<VecDeque<Result<Value, Error>>>);

impl Generator {
    /// A generator of `items` as a value.
    pub(in crate::text::jinja) fn of(items: impl IntoIterator<Item = Result<Value, Error>>) -> Value {
        let mut taken = VecDeque::new();
        for item in items {
            let failed = item.is_err();
            taken.push_back(item);
            if failed {
                break;
            }
        }
        Value::from_object(Self(Mutex::new(taken)))
    }

    /// A generator of values that exist.
    pub(in crate::text::jinja) fn of_values(items: Vec<Value>) -> Value {
        Self::of(items.into_iter().map(Ok))
    }

    pub(in crate::text::jinja) fn next(&self) -> Option<Result<Value, Error>> {
        lock(&self.0).pop_front()
    }
}

impl fmt::Debug for Generator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("<generator object>")
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// What a view of a dictionary shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::text::jinja) enum Shows {
    Keys,
    Values,
    Items,
}

/// `dict.keys()`, `dict.values()` or `dict.items()`.
pub(in crate::text::jinja) struct View {
    pub(in crate::text::jinja) shows: Shows,
    pub(in crate::text::jinja) items: Vec<Value>,
}

impl View {
    pub(in crate::text::jinja) fn of(dict: &Dict, shows: Shows) -> Value {
        let items = dict.iter().map(|(name, value)| match shows {
            Shows::Keys => name.clone(),
            Shows::Values => value.clone(),
            Shows::Items => Value::from(Tuple::from([name.clone(), value.clone()])),
        });
        Value::from_object(Self { shows, items: items.collect() })
    }
}

impl fmt::Debug for View {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "view of {}", self.items.len())
    }
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }
}

/// `range(...)`.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::text::jinja) struct Range {
    pub(in crate::text::jinja) start: i64,
    pub(in crate::text::jinja) stop: i64,
    pub(in crate::text::jinja) step: i64,
    pub(in crate::text::jinja) length: usize,
}

impl Range {
    pub(in crate::text::jinja) fn get(&self, index: usize) -> Option<Value> {
        (index < self.length).then(|| Value::from(self.start + self.step * index as i64))
    }

    pub(in crate::text::jinja) fn items(&self) -> Vec<Value> {
        (0..self.length).filter_map(|index| self.get(index)).collect()
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.length)
    }
}

/// `namespace(...)`: the only value that a template changes.
pub(in crate::text::jinja) struct Namespace(pub(in crate::text::jinja) Mutex<Dict>);

impl Namespace {
    pub(in crate::text::jinja) fn dict(&self) -> MutexGuard<'_, Dict> {
        lock(&self.0)
    }
}

impl fmt::Debug for Namespace {
    // It may hold itself, so its content is not printed.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("<Namespace>")
    }
}

impl Object for Namespace {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// `cycler(...)`.
#[derive(Debug)]
pub(in crate::text::jinja) struct Cycler {
    pub(in crate::text::jinja) items: Vec<Value>,
    pub(in crate::text::jinja) position: AtomicUsize,
}

impl Cycler {
    pub(in crate::text::jinja) fn current(&self) -> Value {
        self.items.get(self.position.load(Ordering::Relaxed)).cloned().unwrap_or_default()
    }

    pub(in crate::text::jinja) fn advance(&self) -> Value {
        let current = self.current();
        let next = (self.position.load(Ordering::Relaxed) + 1) % self.items.len().max(1);
        self.position.store(next, Ordering::Relaxed);
        current
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// `joiner(...)`: an empty text at the first call, its separator from then on.
#[derive(Debug)]
pub(in crate::text::jinja) struct Joiner {
    pub(in crate::text::jinja) separator: Value,
    pub(in crate::text::jinja) used: AtomicU8,
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        let [] = Args::new(args)?.bind("joiner", [])?;
        let first = self.used.swap(1, Ordering::Relaxed) == 0;
        Ok(if first { Value::from("") } else { self.separator.clone() })
    }
}

/// A method with the value that it belongs to, such as `message.get`.
#[derive(Debug)]
pub(in crate::text::jinja) struct Bound {
    pub(in crate::text::jinja) receiver: Value,
    pub(in crate::text::jinja) name: String,
}

impl Object for Bound {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        attributes::call_method(state, &self.receiver, &self.name, args)
    }
}

/// A function of Jinja or `transformers`, such as `range`.
#[derive(Debug)]
pub(in crate::text::jinja) struct Builtin {
    pub(in crate::text::jinja) name: &'static str,
    pub(in crate::text::jinja) call: fn(&mut State<'_, '_>, &Args) -> Result<Value, Error>,
}

impl Object for Builtin {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        (self.call)(state, &Args::new(args)?)
    }
}

/// Whether a loop's body goes on, where `break` or `continue` stand in a block that the engine cannot leave.
#[derive(Debug, Default)]
pub(in crate::text::jinja) struct Flow(pub(in crate::text::jinja) AtomicU8);

impl Object for Flow {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// The place of an argument that a macro's caller does not give.
#[derive(Debug)]
pub(in crate::text::jinja) struct Missing;

impl Object for Missing {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// The lock; no panic happens while it is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of an object's type, as Python has it.
pub(in crate::text::jinja) fn type_name(object: &DynObject) -> &'static str {
    if object.is::<Generator>() {
        "generator"
    } else if let Some(view) = object.downcast_ref::<View>() {
        match view.shows {
            Shows::Keys => "dict_keys",
            Shows::Values => "dict_values",
            Shows::Items => "dict_items",
        }
    } else if object.is::<Range>() {
        "range"
    } else if object.is::<Namespace>() {
        "Namespace"
    } else if object.is::<Bound>() || object.is::<Builtin>() {
        "builtin_function_or_method"
    } else if is_loop(object) {
        "LoopContext"
    } else {
        "object"
    }
}

pub(in crate::text::jinja) fn is_loop(object: &DynObject) -> bool {
    object.type_name().ends_with("::Loop")
}

/// What tells two objects apart.
pub(in crate::text::jinja) fn address(object: &DynObject) -> usize {
    fn of<T: 'static>(object: &DynObject) -> Option<usize> {
        object.downcast_ref::<T>().map(|object| std::ptr::from_ref(object).addr())
    }
    of::<Namespace>(object)
        .or_else(|| of::<Generator>(object))
        .or_else(|| of::<View>(object))
        .or_else(|| of::<Range>(object))
        .or_else(|| of::<Bound>(object))
        .or_else(|| of::<Builtin>(object))
        .or_else(|| of::<Cycler>(object))
        .or_else(|| of::<Joiner>(object))
        .or_else(|| of::<crate::text::jinja::macros::Macro>(object))
        .or_else(|| of::<Vec<Value>>(object))
        .or_else(|| of::<Tuple>(object))
        .or_else(|| of::<Dict>(object))
        .or_else(|| of::<Group>(object))
        .unwrap_or_default()
}
