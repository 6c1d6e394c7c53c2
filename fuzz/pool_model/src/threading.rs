//! What the thread pool takes from the system, as loom has it.

pub use loom::hint::spin_loop;
pub use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
pub use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
pub use loom::thread::{Builder, JoinHandle, yield_now};

use loom::cell::UnsafeCell;

/// Few, because each one multiplies the orders to try; two, because a task can begin another.
pub const SLOTS: usize = 2;

/// An idle thread sleeps at once: that is the part which can go wrong.
pub struct IdleTime;

impl IdleTime {
    pub fn begin() -> Self {
        Self
    }

    pub fn is_over(&self) -> bool {
        true
    }
}

/// A cell in which loom sees accesses that nothing orders.
pub struct SharedCell<T>(UnsafeCell<T>);

impl<T: Copy> SharedCell<T> {
    pub fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub unsafe fn get(&self) -> T {
        self.0.with(|value| unsafe { *value })
    }

    pub unsafe fn set(&self, value: T) {
        self.0.with_mut(|place| unsafe { *place = value });
    }
}
