//! A device that notes when each operation began and ended, and counts what it moves and computes.

use std::sync::{Arc, Mutex};

use crate::device::inspect::Inspect;
use crate::device::{Choice, DeviceInfo, Role, RoutingShape};

mod inspect;
mod operations;
mod sampling;

/// Bytes of an f32.
const SINGLE: usize = size_of::<f32>();

/// The device. One role rests while the other runs, so that operations do not overlap.
pub struct Profiled<D: Inspect> {
    inner: D,
    /// By [`Role`].
    info: Arc<[DeviceInfo; 2]>,
    role: Role,
    entries: Arc<Mutex<Vec<Entry<D::Mark>>>>,
    routings: Arc<Mutex<Vec<Vec<Choice>>>>,
}

/// One operation that ran.
pub struct Entry<M> {
    /// Its name.
    pub operation: &'static str,
    /// Before and after.
    pub marks: [M; 2],
    /// The fewest bytes that it must move: each input once, each output once.
    pub bytes: usize,
    /// Multiplications and additions of matrix products and attention.
    pub operations: usize,
}

/// A step, and how long its sequences are.
pub struct Step<S> {
    inner: S,
    /// Of each span, the positions that its last token may see.
    contexts: Vec<usize>,
    /// Of each token, the positions that it may see.
    seen: Vec<usize>,
}

/// A routing, and which branches it leads to.
pub struct Routing<R> {
    inner: R,
    shape: RoutingShape,
    /// Branches that some row goes through.
    visited: usize,
}

impl<D: Inspect> Profiled<D> {
    /// Around `inner`.
    pub fn new(inner: D) -> Self {
        let info = [Role::Expert, Role::Amateur].map(|role| {
            // A step that is in flight would overlap with the next.
            DeviceInfo { runs_ahead: false, ..inner.role(role).info().clone() }
        });
        let (entries, routings) = (Arc::default(), Arc::default());
        Self { inner, info: Arc::new(info), role: Role::Expert, entries, routings }
    }

    /// What it noted since the last call.
    pub fn take_entries(&self) -> Vec<Entry<D::Mark>> {
        self.entries.lock().map(|mut entries| std::mem::take(&mut *entries)).unwrap_or_default()
    }

    /// What every routing chose since the last call, each `[tokens, active]`.
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
        self.add(Entry { operation, marks: [before, self.inner.mark()], bytes, operations });
        result
    }

    fn add(&self, entry: Entry<D::Mark>) {
        if let Ok(mut entries) = self.entries.lock() {
            entries.push(entry);
        }
    }

    /// Bytes of an activation.
    fn size(&self) -> usize {
        self.role_info().dtype.size()
    }
}
