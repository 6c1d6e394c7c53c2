//! A thread pool for tasks of about ten microseconds, tens of thousands of them a second.
//!
//! A decode step of a small model is hundreds of such tasks. Waking a thread takes longer than one of them, so an idle thread
//! polls for tasks for a while before it sleeps, and the thread that has a task works on it too.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;

use crossbeam_utils::CachePadded;

use super::threading::{
    Arc, AtomicBool, AtomicU64, AtomicUsize, Builder, Condvar, IdleTime, JoinHandle, Mutex, MutexGuard,
    Ordering, SLOTS, SharedCell, fence, spin_loop, yield_now,
};
use crate::error::{Error, Result};

/// Spins, some ten microseconds in all, after which a thread that waits for others yields its core.
const SPINS_PER_YIELD: u32 = 256;

/// The threads of the CPU device, of which the caller is one.
pub struct ThreadPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads share.
struct Shared {
    /// Each on a cache line of its own: two models share tasks at the same time.
    slots: [CachePadded<TaskSlot>; SLOTS],
    is_shut_down: AtomicBool,
    /// Threads that sleep or are about to.
    sleepers: AtomicUsize,
    sleep_lock: Mutex<()>,
    wake: Condvar,
}

/// A task that several threads can run at once. It returns when none of its work is left to begin, and does not panic.
type Task<'a> = dyn Fn() + Sync + 'a;

/// Where a thread offers a task to others.
struct TaskSlot {
    /// [`TAKEN`], [`OPEN`], and [`HELPER`] for each thread that helps.
    state: AtomicUsize,
    /// Written by the thread that took the slot before it opens it, read by those that help.
    task: SharedCell<Option<&'static Task<'static>>>,
}

const TAKEN: usize = 1;
const OPEN: usize = 2;
const HELPER: usize = 4;

// SAFETY: `task` is written by the one thread that has taken the slot, while nobody helps, and read by those that help;
// `state` orders the two.
unsafe impl Sync for TaskSlot {}

impl ThreadPool {
    /// A pool of `threads`, of which the caller is one.
    ///
    /// # Errors
    /// If the system refuses the threads.
    pub fn new(threads: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            slots: std::array::from_fn(|_| {
                CachePadded::new(TaskSlot { state: AtomicUsize::new(0), task: SharedCell::new(None) })
            }),
            is_shut_down: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            sleep_lock: Mutex::default(),
            wake: Condvar::new(),
        });
        let mut pool = Self { shared, threads: Vec::new() };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let thread = Builder::new()
                .name(format!("codit-cpu-{index}"))
                .spawn(move || shared.help_until_shut_down())
                .map_err(|error| Error::refused_thread(&error))?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// The number of threads, the caller included.
    pub fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `work` with every item, on any thread and in any order.
    pub fn for_each<I: Iterator + Send>(&self, items: I, work: impl Fn(I::Item) + Sync) {
        let items = Mutex::new(items);
        let next = || lock(&items).next();
        let task = || {
            while let Some(item) = next() {
                work(item);
            }
        };
        self.offer(&task, false, task);
    }

    /// As [`ThreadPool::for_each`], for items that lie one after another in memory. Each thread starts with a chunk of its
    /// own, from the front, and then takes items from the ends of other chunks.
    pub fn for_each_in_chunks<T: Sync>(&self, items: &[T], work: impl Fn(&T) + Sync) {
        let size = items.len().div_ceil(self.threads()).max(1);
        let chunks: Vec<Chunk> = (0..items.len())
            .step_by(size)
            .map(|first| Chunk::new(first..items.len().min(first + size)))
            .collect();
        let first_free = AtomicUsize::new(0);
        let own_chunk = || chunks.get(first_free.fetch_add(1, Ordering::Relaxed));
        let task = || {
            while let Some(chunk) = own_chunk() {
                while let Some(item) = chunk.pop_front() {
                    work(&items[item]);
                }
            }
            while let Some(item) = chunks.iter().find_map(Chunk::pop_back) {
                work(&items[item]);
            }
        };
        self.offer(&task, false, task);
    }

    /// Runs `a` and `b`, at once if another thread is free.
    pub fn join<A, B: Send>(&self, a: impl FnOnce() -> A, b: impl FnOnce() -> B + Send) -> (A, B) {
        let (b, done) = (Mutex::new(Some(b)), Mutex::new(None));
        let run_b = || {
            let b = lock(&b).take();
            if let Some(b) = b {
                let result = b();
                *lock(&done) = Some(result);
            }
        };
        let a = self.offer(&run_b, true, || {
            let a = a();
            run_b();
            a
        });
        let Some(b) = lock(&done).take() else { unreachable!("it ran here, or was waited for") };
        (a, b)
    }

    /// Offers `task` to other threads while `own` runs, then waits for those that help. Meanwhile this thread helps with
    /// other tasks if `helps_others`.
    fn offer<R>(&self, task: &Task, helps_others: bool, own: impl FnOnce() -> R) -> R {
        let slot = if self.threads.is_empty() { None } else { self.shared.take_slot() };
        let Some(slot) = slot else { return own() };
        let panic = Mutex::new(None);
        let contained = || {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(task)) {
                *lock(&panic) = Some(payload);
            }
        };
        let offer = Offer { shared: &self.shared, slot, helps_others };
        offer.open(&contained);
        let result = own();
        drop(offer);
        let payload = lock(&panic).take();
        payload.map_or(result, |payload| resume_unwind(payload))
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.is_shut_down.store(true, Ordering::Relaxed);
        self.shared.wake_sleepers();
        for thread in self.threads.drain(..) {
            // A thread contains the panics of the tasks that it helps with.
            let _ = thread.join();
        }
    }
}

/// Consecutive items that are left, `start` and `end` in one number.
struct Chunk(AtomicU64);

impl Chunk {
    fn new(items: Range<usize>) -> Self {
        Self(AtomicU64::new((items.start as u64) << 32 | items.end as u64))
    }

    fn pop_front(&self) -> Option<usize> {
        self.pop(|start, end| (start, start + 1..end))
    }

    fn pop_back(&self) -> Option<usize> {
        self.pop(|start, end| (end - 1, start..end - 1))
    }

    fn pop(&self, cut: impl Fn(u64, u64) -> (u64, Range<u64>)) -> Option<usize> {
        let cut = |ends: u64| {
            let (start, end) = (ends >> 32, ends & u64::from(u32::MAX));
            (start < end).then(|| cut(start, end))
        };
        let left = |ends| cut(ends).map(|(_, left)| left.start << 32 | left.end);
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).ok()?;
        cut(before).map(|(item, _)| item as usize)
    }
}

/// A slot that is taken until this is dropped.
struct Offer<'a> {
    shared: &'a Shared,
    slot: &'a TaskSlot,
    helps_others: bool,
}

impl Offer<'_> {
    fn open<'a>(&'a self, task: &'a Task<'a>) {
        // SAFETY: only the lifetime changes: once this is dropped no thread helps any more, and none will.
        let task = unsafe { std::mem::transmute::<&'a Task<'a>, &'static Task<'static>>(task) };
        // SAFETY: the slot is taken by this thread and not open.
        unsafe { self.slot.task.set(Some(task)) };
        self.slot.state.store(TAKEN | OPEN, Ordering::Release);
        self.shared.wake_sleepers();
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        self.slot.close();
        let mut spins = 0_u32;
        while self.slot.state.load(Ordering::Acquire) != TAKEN {
            if self.helps_others && self.shared.help() {
                continue;
            }
            spins = spins.wrapping_add(1);
            // The helpers may wait for this core if other programs use the machine too.
            if spins.is_multiple_of(SPINS_PER_YIELD) { yield_now() } else { spin_loop() }
        }
        self.slot.state.store(0, Ordering::Release);
    }
}

impl TaskSlot {
    fn is_open(&self) -> bool {
        self.state.load(Ordering::Relaxed) & OPEN != 0
    }

    fn close(&self) {
        self.state.fetch_and(!OPEN, Ordering::AcqRel);
    }

    /// Helps with the task until none of it is left to begin; false if the slot is not open.
    fn help(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & OPEN != 0 {
            let joined = state + HELPER;
            match self.state.compare_exchange_weak(state, joined, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    // SAFETY: written before the slot was open, and the thread that took it waits for its helpers.
                    if let Some(task) = unsafe { self.task.get() } {
                        task();
                    }
                    self.close();
                    self.state.fetch_sub(HELPER, Ordering::Release);
                    return true;
                }
                Err(now) => state = now,
            }
        }
        false
    }
}

impl Shared {
    fn take_slot(&self) -> Option<&TaskSlot> {
        let take = |slot: &&TaskSlot| {
            slot.state.compare_exchange(0, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        self.slots.iter().map(|slot| &**slot).find(take)
    }

    /// Helps with some task; false if there is none.
    fn help(&self) -> bool {
        self.slots.iter().any(|slot| slot.help())
    }

    fn help_until_shut_down(&self) {
        let mut idle = IdleTime::begin();
        while !self.is_shut_down.load(Ordering::Relaxed) {
            if self.help() {
                idle = IdleTime::begin();
            } else if idle.is_over() {
                self.sleep();
                idle = IdleTime::begin();
            } else {
                spin_loop();
            }
        }
    }

    /// Sleeps until there may be a task, or the pool shuts down.
    fn sleep(&self) {
        let guard = lock(&self.sleep_lock);
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        // Of two fences, one is first. If it is that of `wake_sleepers`, this thread sees what its caller has written; else the
        // caller sees that this thread sleeps.
        fence(Ordering::SeqCst);
        if !self.is_shut_down.load(Ordering::Relaxed) && !self.slots.iter().any(|slot| slot.is_open()) {
            drop(self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner));
        }
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Wakes the threads that sleep and those that are about to, after something was written that concerns them.
    fn wake_sleepers(&self) {
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            // A thread that is about to sleep holds the lock until it does.
            drop(lock(&self.sleep_lock));
            self.wake.notify_all();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
