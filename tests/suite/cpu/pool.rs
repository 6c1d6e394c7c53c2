//! The thread pool of the CPU device.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use codit::device::cpu::ThreadPool;

/// Each item is worked on once, for any number of threads, whether or not the threads sleep, and whether or not the
/// task is joined with another.
#[test]
fn every_item_is_worked_on_once() {
    for threads in [1, 2, 3, 5] {
        let pool = ThreadPool::new(threads).unwrap();
        for round in 0..2_000_usize {
            let count = round % 70;
            let task = |pool: &ThreadPool| {
                let mut by_chunk: Vec<AtomicU32> = Vec::new();
                by_chunk.resize_with(count, AtomicU32::default);
                pool.for_each_in_chunks(&by_chunk, |item| {
                    item.fetch_add(1, Ordering::Relaxed);
                });
                let mut items = vec![0; count];
                pool.for_each(items.iter_mut().zip(&by_chunk), |(item, other)| {
                    *item = other.load(Ordering::Relaxed);
                });
                items
            };
            if round % 500 == 0 {
                // This is longer than idle threads poll for tasks, so they fall asleep.
                std::thread::sleep(Duration::from_millis(2));
            }
            let (a, b) = pool.join(|| task(&pool), || task(&pool));
            assert!(a == b && a == vec![1; count], "{threads} threads, round {round}");
        }
    }
}

/// There are more tasks at once than slots for them.
#[test]
fn tasks_within_tasks_end() {
    fn nested(pool: &ThreadPool, depth: usize) -> usize {
        if depth == 0 {
            return 1;
        }
        let (a, b) = pool.join(|| nested(pool, depth - 1), || nested(pool, depth - 1));
        let sum = AtomicUsize::new(0);
        pool.for_each([a, b].into_iter(), |leaves| {
            sum.fetch_add(leaves, Ordering::Relaxed);
        });
        sum.into_inner()
    }
    for threads in [1, 2, 4] {
        assert_eq!(nested(&ThreadPool::new(threads).unwrap(), 10), 1 << 10);
    }
}

/// A panic in a task reaches the caller of the task, and the pool stays usable.
#[test]
fn a_panic_is_the_callers() {
    let pool = ThreadPool::new(3).unwrap();
    let count = AtomicUsize::new(0);
    for bad in 0..300 {
        let work = || {
            pool.for_each(0..8, |item| {
                assert!(item != bad % 8, "item {item}");
                count.fetch_add(1, Ordering::Relaxed);
            });
        };
        let payload = catch_unwind(AssertUnwindSafe(work)).unwrap_err();
        assert_eq!(*payload.downcast::<String>().unwrap(), format!("item {}", bad % 8));
        let side = || pool.join(|| (), || assert!(bad > 1000, "b"));
        assert!(catch_unwind(AssertUnwindSafe(side)).is_err());
    }
    pool.for_each(0..8, |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    assert!(count.into_inner() >= 8);
}
