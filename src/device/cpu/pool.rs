//! Threads that share one piece of work after another, tens of thousands a second.
//!
//! A decode step of a small model is hundreds of operations of ten microseconds each. To wake a thread takes longer than
//! that, so a thread without work looks out for some before it sleeps, and whoever has work takes part in it.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long a thread looks out for work before it sleeps: more than the pauses between operations and between steps.
const PATIENCE: Duration = Duration::from_micros(500);
/// Turns of a loop, some ten microseconds, after which a thread that waits for others lets them have its core.
const IMPATIENCE: u32 = 256;
/// Works that are open to others at once: one for the lanes, one for each lane's operation, one within each of these. Those
/// beyond are done by whoever has them.
const PLACES: usize = 8;

/// The threads, beside those that call.
pub struct Team {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    places: [Place; PLACES],
    ends: AtomicBool,
    /// Threads that sleep or are about to.
    asleep: AtomicUsize,
    bed: Mutex<()>,
    alarm: Condvar,
}

/// What a thread can take part in: it returns when nothing is left to be begun, and does not panic.
type Work<'a> = dyn Fn() + Sync + 'a;

/// Where a thread offers work to others.
#[repr(align(128))]
struct Place {
    /// [`TAKEN`], [`OPEN`], and [`HELPER`] for each that takes part.
    state: AtomicUsize,
    /// Written by its taker before it is open, read by those that take part.
    work: UnsafeCell<Option<&'static Work<'static>>>,
}

const TAKEN: usize = 1;
const OPEN: usize = 2;
const HELPER: usize = 4;

// SAFETY: `work` is written by the one thread that has taken the place, while nobody takes part, and read by those that do;
// `state` orders the two.
unsafe impl Sync for Place {}

impl Team {
    /// A team of `threads`, of which whoever calls is one.
    ///
    /// # Errors
    /// If the system refuses the threads.
    pub fn new(threads: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            places: std::array::from_fn(|_| Place {
                state: AtomicUsize::new(0),
                work: UnsafeCell::new(None),
            }),
            ends: AtomicBool::new(false),
            asleep: AtomicUsize::new(0),
            bed: Mutex::default(),
            alarm: Condvar::new(),
        });
        let mut team = Self { shared, threads: Vec::new() };
        for index in 1..threads {
            let shared = Arc::clone(&team.shared);
            let thread = thread::Builder::new()
                .name(format!("codit-cpu-{index}"))
                .spawn(move || shared.help_until_the_end())
                .map_err(|error| Error::Device(format!("cannot start {threads} threads: {error}")))?;
            team.threads.push(thread);
        }
        Ok(team)
    }

    /// Threads, the caller among them.
    pub fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Gives every one of `items` to `work`, on any thread and in any order.
    pub fn each<I: Iterator + Send>(&self, items: I, work: impl Fn(I::Item) + Sync) {
        let items = Mutex::new(items);
        let next = || lock(&items).next();
        let rest = || {
            while let Some(item) = next() {
                work(item);
            }
        };
        self.offer(&rest, false, rest);
    }

    /// As [`Team::each`], of items that lie one after the other in memory: each thread has a stretch of its own, from its
    /// front on, and then those at the ends of others'.
    pub fn each_in_stretches<T: Sync>(&self, items: &[T], work: impl Fn(&T) + Sync) {
        let size = items.len().div_ceil(self.threads()).max(1);
        let stretches: Vec<Stretch> = (0..items.len())
            .step_by(size)
            .map(|first| Stretch::of(first..items.len().min(first + size)))
            .collect();
        let first_free = AtomicUsize::new(0);
        let own = || stretches.get(first_free.fetch_add(1, Ordering::Relaxed));
        let rest = || {
            while let Some(stretch) = own() {
                while let Some(item) = stretch.front() {
                    work(&items[item]);
                }
            }
            while let Some(item) = stretches.iter().find_map(Stretch::back) {
                work(&items[item]);
            }
        };
        self.offer(&rest, false, rest);
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

    /// Offers `work` to others while `own` runs, then waits for those that took part, in other works meanwhile if it
    /// `helps`.
    fn offer<R>(&self, work: &Work, helps: bool, own: impl FnOnce() -> R) -> R {
        let place = if self.threads.is_empty() { None } else { self.shared.take_place() };
        let Some(place) = place else { return own() };
        let panic = Mutex::new(None);
        let contained = || {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
                *lock(&panic) = Some(payload);
            }
        };
        let offer = Offer { shared: &self.shared, place, helps };
        offer.open(&contained);
        let result = own();
        drop(offer);
        let payload = lock(&panic).take();
        payload.map_or(result, |payload| resume_unwind(payload))
    }
}

/// Consecutive items that are left, `start` and `end` in one number.
struct Stretch(AtomicU64);

impl Stretch {
    fn of(items: Range<usize>) -> Self {
        Self(AtomicU64::new((items.start as u64) << 32 | items.end as u64))
    }

    fn front(&self) -> Option<usize> {
        self.take(|start, end| (start, start + 1..end))
    }

    fn back(&self) -> Option<usize> {
        self.take(|start, end| (end - 1, start..end - 1))
    }

    fn take(&self, cut: impl Fn(u64, u64) -> (u64, Range<u64>)) -> Option<usize> {
        let cut = |ends: u64| {
            let (start, end) = (ends >> 32, ends & u64::from(u32::MAX));
            (start < end).then(|| cut(start, end))
        };
        let left = |ends| cut(ends).map(|(_, left)| left.start << 32 | left.end);
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).ok()?;
        cut(before).map(|(item, _)| item as usize)
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        self.shared.wake();
        for thread in self.threads.drain(..) {
            // It contains the panics of what it helps with.
            let _ = thread.join();
        }
    }
}

/// A place that is taken until this is dropped.
struct Offer<'a> {
    shared: &'a Shared,
    place: &'a Place,
    helps: bool,
}

impl Offer<'_> {
    fn open<'a>(&'a self, work: &'a Work<'a>) {
        // SAFETY: of the lifetime alone: when this is dropped nobody takes part any more, and nobody will.
        let work = unsafe { std::mem::transmute::<&'a Work<'a>, &'static Work<'static>>(work) };
        // SAFETY: the place is this thread's and not open.
        unsafe { *self.place.work.get() = Some(work) };
        self.place.state.store(TAKEN | OPEN, Ordering::SeqCst);
        self.shared.wake();
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        self.place.close();
        let mut turns = 0_u32;
        while self.place.state.load(Ordering::Acquire) != TAKEN {
            if self.helps && self.shared.help() {
                continue;
            }
            turns = turns.wrapping_add(1);
            // Whom this waits for may wait for this core, if others use the machine too.
            if turns.is_multiple_of(IMPATIENCE) { thread::yield_now() } else { spin_loop() }
        }
        self.place.state.store(0, Ordering::Release);
    }
}

impl Place {
    fn is_open(&self) -> bool {
        self.state.load(Ordering::SeqCst) & OPEN != 0
    }

    fn close(&self) {
        self.state.fetch_and(!OPEN, Ordering::AcqRel);
    }

    /// Takes part in its work until none is left to be begun; false if it is not open.
    fn help(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & OPEN != 0 {
            let joined = state + HELPER;
            match self.state.compare_exchange_weak(state, joined, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    // SAFETY: written before the place was open, and its taker waits for those that take part.
                    if let Some(work) = unsafe { *self.work.get() } {
                        work();
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
    fn take_place(&self) -> Option<&Place> {
        let take = |place: &&Place| {
            place.state.compare_exchange(0, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        self.places.iter().find(take)
    }

    /// Takes part in some work; false if there is none.
    fn help(&self) -> bool {
        self.places.iter().any(Place::help)
    }

    fn help_until_the_end(&self) {
        let mut idle_since = Instant::now();
        while !self.ends.load(Ordering::Relaxed) {
            if self.help() {
                idle_since = Instant::now();
            } else if idle_since.elapsed() < PATIENCE {
                spin_loop();
            } else {
                self.sleep();
                idle_since = Instant::now();
            }
        }
    }

    /// Until there may be work, or the end.
    fn sleep(&self) {
        let bed = lock(&self.bed);
        self.asleep.fetch_add(1, Ordering::SeqCst);
        // Who offers work after this look sees that somebody is asleep.
        if !self.ends.load(Ordering::SeqCst) && !self.places.iter().any(Place::is_open) {
            drop(self.alarm.wait(bed).unwrap_or_else(PoisonError::into_inner));
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake(&self) {
        if self.asleep.load(Ordering::SeqCst) > 0 {
            // Who is about to sleep does so first.
            drop(lock(&self.bed));
            self.alarm.notify_all();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
