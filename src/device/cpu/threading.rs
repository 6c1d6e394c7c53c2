//! What the thread pool takes from the system. The model of the pool (`fuzz/pool_model`) replaces this file, so that every
//! order of the threads' steps can be tried.

use std::cell::UnsafeCell;
use std::time::{Duration, Instant};

pub use std::hint::spin_loop;
pub use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
pub use std::sync::{Arc, Condvar, Mutex, MutexGuard};
pub use std::thread::{Builder, JoinHandle, yield_now};

/// Tasks that can be shared at once: one that joins the models, one operation of each model, and one within each operation.
/// A task that finds no slot runs on its own thread alone.
pub const SLOTS: usize = 8;
/// How long an idle thread polls for tasks before it sleeps: longer than the pauses between operations and between steps.
const POLL_TIME: Duration = Duration::from_micros(500);

/// The time for which a thread has had nothing to do.
pub struct IdleTime(Instant);

impl IdleTime {
    /// Begins now.
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// Whether the thread should sleep.
    pub fn is_over(&self) -> bool {
        self.0.elapsed() >= POLL_TIME
    }
}

/// A value that threads share and whose users order their accesses.
pub struct SharedCell<T>(UnsafeCell<T>);

impl<T: Copy> SharedCell<T> {
    /// A cell that holds `value`.
    pub fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The value.
    ///
    /// # Safety
    /// No thread writes at the same time.
    pub unsafe fn get(&self) -> T {
        // SAFETY: the caller's.
        unsafe { *self.0.get() }
    }

    /// Writes the value.
    ///
    /// # Safety
    /// No thread reads or writes at the same time.
    pub unsafe fn set(&self, value: T) {
        // SAFETY: the caller's.
        unsafe { *self.0.get() = value }
    }
}
