//! Python's dictionary: keys of any hashable kind, equal where Python says so (`1`, `1.0` and `True`), in order.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use indexmap::{Equivalent, IndexMap};
use minijinja::value::{Enumerator, Object, ObjectRepr};
use minijinja::{Error, Value};
use num_bigint::BigInt;

use super::{Kind, kind, number, refused, type_name};
use crate::text::jinja::meter;

/// What makes two keys equal.
#[derive(PartialEq, Eq, Clone)]
pub(in crate::text::jinja) enum Key {
    Text(Box<str>),
    None,
    Undefined,
    Int(i128),
    Wide(BigInt),
    /// A number that is no integer, by its bits.
    Float(u64),
    Tuple(Vec<Key>),
    /// An object, which is only equal to itself.
    Identity(usize),
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Text(text) => TextKey(text).hash(state),
            Self::None => state.write_u8(1),
            Self::Undefined => state.write_u8(2),
            Self::Int(number) => number.hash(state),
            Self::Wide(number) => number.hash(state),
            Self::Float(bits) => bits.hash(state),
            Self::Tuple(items) => items.hash(state),
            Self::Identity(address) => address.hash(state),
        }
    }
}

/// A key that is looked up without being copied.
struct TextKey<'text>(&'text str);

impl Hash for TextKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(0);
        self.0.hash(state);
    }
}

impl Equivalent<Key> for TextKey<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        matches!(key, Key::Text(text) if **text == *self.0)
    }
}

/// The key of a value.
///
/// # Errors
/// If the value is a list or a dictionary, which Python does not hash; if the render has made too much.
pub(in crate::text::jinja) fn key(value: &Value) -> Result<Key, Error> {
    Ok(match kind(value) {
        Kind::Str(text) => Key::Text(text.into()),
        Kind::None => Key::None,
        Kind::Undefined => Key::Undefined,
        Kind::Bool(flag) => Key::Int(i128::from(flag)),
        Kind::Int(number) => Key::Int(number),
        Kind::Wide(number) => Key::Wide(number.clone()),
        Kind::Float(float) => match number::integral(float) {
            Some(number) => match i128::try_from(&number) {
                Ok(number) => Key::Int(number),
                Err(_) => Key::Wide(number),
            },
            None => Key::Float(float.to_bits()),
        },
        Kind::Tuple(items) => {
            meter::charge(value)?;
            Key::Tuple(items.iter().map(key).collect::<Result<_, _>>()?)
        }
        Kind::List(_) | Kind::Dict(_) => {
            return Err(refused(format!("a {} is no key: it is not hashable", type_name(value))));
        }
        Kind::Object(object) => Key::Identity(super::objects::address(object)),
    })
}

/// A dictionary.
#[derive(Default, Clone)]
pub(in crate::text::jinja) struct Dict {
    entries: IndexMap<Key, (Value, Value)>,
}

impl Dict {
    pub(in crate::text::jinja) fn insert(&mut self, name: Value, value: Value) -> Result<(), Error> {
        match self.entries.entry(key(&name)?) {
            indexmap::map::Entry::Occupied(mut entry) => entry.get_mut().1 = value,
            indexmap::map::Entry::Vacant(entry) => {
                entry.insert((name, value));
            }
        }
        Ok(())
    }

    /// Inserts a value under a text.
    pub(in crate::text::jinja) fn insert_text(&mut self, name: &str, value: Value) {
        let entry = self.entries.entry(Key::Text(name.into()));
        entry.or_insert_with(|| (Value::from(name), Value::UNDEFINED)).1 = value;
    }

    pub(in crate::text::jinja) fn get(&self, name: &Value) -> Result<Option<&Value>, Error> {
        if let Some(text) = name.as_str() {
            return Ok(self.get_text(text));
        }
        Ok(self.entries.get(&key(name)?).map(|(_, value)| value))
    }

    pub(in crate::text::jinja) fn get_text(&self, name: &str) -> Option<&Value> {
        self.entries.get(&TextKey(name)).map(|(_, value)| value)
    }

    pub(in crate::text::jinja) fn iter(&self) -> impl DoubleEndedIterator<Item = &(Value, Value)> {
        self.entries.values()
    }

    pub(in crate::text::jinja) fn keys(&self) -> Vec<Value> {
        self.iter().map(|(name, _)| name.clone()).collect()
    }

    pub(in crate::text::jinja) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl fmt::Debug for Dict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "dict of {}", self.len())
    }
}

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, name: &Value) -> Option<Value> {
        self.get(name).ok().flatten().cloned()
    }

    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<Value> {
        self.get_text(name).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.keys())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.len())
    }

    fn render(self: &Arc<Self>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}
