//! `namespace()`, whose attributes a template can set.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use indexmap::IndexMap;
use minijinja::value::{Kwargs, Object, ObjectRepr, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::meter;

/// A namespace. It may hold itself, unlike the template engine's own, because nothing looks into it: it cannot be
/// iterated over, compared by its contents or converted to JSON, as in Jinja.
#[derive(Default)]
pub(super) struct Namespace {
    attributes: Mutex<IndexMap<Arc<str>, Value>>,
}

impl Namespace {
    fn with<T>(&self, work: impl FnOnce(&mut IndexMap<Arc<str>, Value>) -> T) -> T {
        work(&mut self.attributes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes all attributes.
    pub(super) fn clear(&self) -> IndexMap<Arc<str>, Value> {
        self.with(mem::take)
    }
}

impl Object for Namespace {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.with(|attributes| attributes.get(key).cloned())
    }

    fn render(self: &Arc<Self>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, formatter)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What it holds may hold it.
        meter::note_excess("a namespace has no text; print its attributes");
        formatter.write_str("<Namespace>")
    }
}

/// The function `namespace`: a mapping or keyword arguments are the first attributes.
pub(super) fn namespace(first: Option<Value>, more: Kwargs) -> Result<Value, Error> {
    let attributes = Namespace::default();
    let set = |name: &Value, value: Value| -> Result<(), Error> {
        let name = name.as_str().ok_or_else(|| meter::refused("an attribute's name is a string"))?;
        attributes.with(|attributes| attributes.insert(name.into(), value));
        Ok(())
    };
    if let Some(first) = first {
        if first.kind() != ValueKind::Map {
            return Err(meter::refused(format!("namespace() takes a mapping, not a {}", first.kind())));
        }
        for name in first.try_iter()? {
            set(&name, first.get_item(&name)?)?;
        }
    }
    for name in more.args() {
        set(&Value::from(name), more.get(name)?)?;
    }
    let attributes = Arc::new(attributes);
    meter::keep(Arc::clone(&attributes));
    Ok(Value::from_dyn_object(attributes))
}

/// `{% set object.name = value %}`.
pub(super) fn set_attribute(args: &[Value]) -> Result<Value, Error> {
    let [value, object, name] = args else { return Err(meter::refused("an assignment takes a name")) };
    let name: Arc<str> = name.as_str().unwrap_or_default().into();
    let Some(namespace) = object.downcast_object_ref::<Namespace>() else {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("can only assign to namespaces, not {}", object.kind()),
        ));
    };
    meter::charge(meter::ELEMENT + name.len())?;
    // The value that was there before is dropped after the lock is released.
    drop(namespace.with(|attributes| attributes.insert(name, value.clone())));
    Ok(Value::UNDEFINED)
}
