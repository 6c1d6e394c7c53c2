//! Tries every order of the pool's threads (with at most so many preemptions as `LOOM_MAX_PREEMPTIONS` says). loom reports a
//! thread that nothing can wake, accesses that nothing orders, and loops that do not end.
#![cfg(feature = "loom")]

use codit_pool_model::pool::ThreadPool;
use loom::cell::UnsafeCell;
use loom::sync::{Condvar, Mutex};

/// A number that loom guards like plain memory.
struct Plain(UnsafeCell<u32>);

// SAFETY: none; loom reports accesses that nothing orders, and the test fails.
unsafe impl Sync for Plain {}

impl Plain {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    fn add(&self) {
        self.0.with_mut(|count| unsafe { *count += 1 });
    }

    fn get(&self) -> u32 {
        self.0.with(|count| unsafe { *count })
    }
}

fn try_every_order(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    if builder.preemption_bound.is_none() {
        builder.preemption_bound = Some(3);
    }
    builder.check(test);
}

/// A pool that has had nothing to do ends, whether its thread sleeps, is about to, or has not begun.
#[test]
fn an_idle_pool_shuts_down() {
    try_every_order(|| drop(ThreadPool::new(2).expect("threads")));
}

/// `a` waits for `b`, so only another thread can run `b`: a wake-up that is lost leaves all threads waiting.
#[test]
fn a_task_wakes_a_thread() {
    try_every_order(|| {
        let pool = ThreadPool::new(2).expect("threads");
        let (has_begun, begins) = (Mutex::new(false), Condvar::new());
        let wait = || {
            let mut is = has_begun.lock().expect("no panic");
            while !*is {
                is = begins.wait(is).expect("no panic");
            }
        };
        let begin = || {
            *has_begun.lock().expect("no panic") = true;
            begins.notify_all();
        };
        pool.join(wait, begin);
    });
}

/// Each item is worked on once before the call returns, and what was written is seen by the caller. The second task takes
/// the slot of the first, while the other thread may still be on its way to it.
#[test]
fn each_item_is_done_once_before_the_call_returns() {
    try_every_order(|| {
        let pool = ThreadPool::new(2).expect("threads");
        for _ in 0..2 {
            let items = [Plain::new(), Plain::new()];
            pool.for_each(items.iter(), Plain::add);
            assert_eq!(items.each_ref().map(Plain::get), [1, 1]);
        }
    });
}

#[test]
fn each_item_of_a_chunk_is_done_once_before_the_call_returns() {
    try_every_order(|| {
        let pool = ThreadPool::new(2).expect("threads");
        let items = [Plain::new(), Plain::new(), Plain::new()];
        pool.for_each_in_chunks(&items, Plain::add);
        assert_eq!(items.each_ref().map(Plain::get), [1, 1, 1]);
    });
}

/// Two threads beside the caller, and a task within a task.
#[test]
fn tasks_within_tasks_end() {
    let test = || {
        let pool = ThreadPool::new(3).expect("threads");
        let counts = [Plain::new(), Plain::new()];
        pool.join(|| pool.for_each(counts.iter(), Plain::add), || ());
        assert_eq!(counts.each_ref().map(Plain::get), [1, 1]);
    };
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    builder.preemption_bound = Some(1);
    builder.check(test);
}
