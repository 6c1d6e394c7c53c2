//! A device that records when each operation begins and ends, and counts the bytes that it moves and the arithmetic
//! that it does.

use std::sync::{Arc, Mutex};

use super::ceilings::Work;
use crate::device::inspect::Inspect;
use crate::device::{Choice, DeviceInfo, Role, RoutingShape};

mod inspect;
mod operations;
mod sampling;

/// Bytes per f32.
const SINGLE: usize = size_of::<f32>();

/// A wrapper that profiles a device. One role waits while the other runs, so operations do not overlap.
pub struct Profiled<D: Inspect> {
    inner: D,
    /// Indexed by [`Role`].
    info: Arc<[DeviceInfo; 2]>,
    role: Role,
    entries: Arc<Mutex<Vec<Entry<D::Mark>>>>,
    routings: Arc<Mutex<Vec<Vec<Choice>>>>,
}

/// One recorded operation.
pub struct Entry<M> {
    /// Its name.
    pub operation: &'static str,
    /// Marks before and after the operation.
    pub marks: [M; 2],
    /// What it had to do at least.
    pub work: Work,
}

/// A step and the lengths of its sequences.
pub struct Step<S> {
    inner: S,
    /// The number of positions that the last token of each span may see, `[spans]`.
    contexts: Vec<usize>,
    /// The number of positions that each token may see, `[tokens]`.
    seen: Vec<usize>,
}

/// A routing and the number of branches that it uses.
pub struct Routing<R> {
    inner: R,
    shape: RoutingShape,
    /// Number of branches that at least one row goes through.
    visited: usize,
}

impl<D: Inspect> Profiled<D> {
    /// A device that profiles `inner`.
    pub fn new(inner: D) -> Self {
        let info = [Role::Expert, Role::Amateur].map(|role| {
            // A step in flight would overlap with the next step.
            DeviceInfo { runs_ahead: false, ..inner.role(role).info().clone() }
        });
        let (entries, routings) = (Arc::default(), Arc::default());
        Self { inner, info: Arc::new(info), role: Role::Expert, entries, routings }
    }

    /// The operations recorded since the last call.
    pub fn take_entries(&self) -> Vec<Entry<D::Mark>> {
        self.entries.lock().map(|mut entries| std::mem::take(&mut *entries)).unwrap_or_default()
    }

    /// The choices of every routing since the last call, `[tokens, active]` each.
    pub fn take_routings(&self) -> Vec<Vec<Choice>> {
        self.routings.lock().map(|mut routings| std::mem::take(&mut *routings)).unwrap_or_default()
    }

    fn role_info(&self) -> &DeviceInfo {
        &self.info[self.role as usize]
    }

    fn in_role(&self, role: Role) -> Self {
        Self {
            inner: self.inner.role(role),
            info: Arc::clone(&self.info),
            role,
            entries: Arc::clone(&self.entries),
            routings: Arc::clone(&self.routings),
        }
    }

    fn note<T>(
        &self,
        operation: &'static str,
        bytes: usize,
        operations: usize,
        run: impl FnOnce(&D) -> T,
    ) -> T {
        let before = self.inner.mark();
        let result = run(&self.inner);
        // Products and attention read weights and the cache; all else reads and writes activations.
        let work = Work { bytes, operations, streams: operations > 0 };
        self.add(Entry { operation, marks: [before, self.inner.mark()], work });
        result
    }

    fn add(&self, entry: Entry<D::Mark>) {
        if let Ok(mut entries) = self.entries.lock() {
            entries.push(entry);
        }
    }

    /// Bytes per activation.
    fn size(&self) -> usize {
        self.role_info().dtype.size()
    }
}
