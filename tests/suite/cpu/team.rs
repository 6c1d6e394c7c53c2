//! The threads of the CPU device.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use codit::device::cpu::Team;

/// Each item once, whatever the number of threads, whether they sleep, and within a lane or not.
#[test]
fn every_item_is_worked_on_once() {
    for threads in [1, 2, 3, 5] {
        let team = Team::new(threads).unwrap();
        for round in 0..2_000_usize {
            let count = round % 70;
            let lane = |team: &Team| {
                let mut by_stretch: Vec<AtomicU32> = Vec::new();
                by_stretch.resize_with(count, AtomicU32::default);
                team.each_in_stretches(&by_stretch, |item| {
                    item.fetch_add(1, Ordering::Relaxed);
                });
                let mut items = vec![0; count];
                team.each(items.iter_mut().zip(&by_stretch), |(item, other)| {
                    *item = other.load(Ordering::Relaxed);
                });
                items
            };
            if round % 500 == 0 {
                // Longer than threads look out for work.
                std::thread::sleep(Duration::from_millis(2));
            }
            let (a, b) = team.join(|| lane(&team), || lane(&team));
            assert!(a == b && a == vec![1; count], "{threads} threads, round {round}");
        }
    }
}

/// More works at once than there are places for them.
#[test]
fn works_within_works_end() {
    fn nested(team: &Team, depth: usize) -> usize {
        if depth == 0 {
            return 1;
        }
        let (a, b) = team.join(|| nested(team, depth - 1), || nested(team, depth - 1));
        let sum = AtomicUsize::new(0);
        team.each([a, b].into_iter(), |leaves| {
            sum.fetch_add(leaves, Ordering::Relaxed);
        });
        sum.into_inner()
    }
    for threads in [1, 2, 4] {
        assert_eq!(nested(&Team::new(threads).unwrap(), 10), 1 << 10);
    }
}

/// Whoever asked for the work gets its panic, and the team goes on.
#[test]
fn a_panic_is_the_callers() {
    let team = Team::new(3).unwrap();
    let count = AtomicUsize::new(0);
    for bad in 0..300 {
        let work = || {
            team.each(0..8, |item| {
                assert!(item != bad % 8, "item {item}");
                count.fetch_add(1, Ordering::Relaxed);
            });
        };
        let payload = catch_unwind(AssertUnwindSafe(work)).unwrap_err();
        assert_eq!(*payload.downcast::<String>().unwrap(), format!("item {}", bad % 8));
        let side = || team.join(|| (), || assert!(bad > 1000, "b"));
        assert!(catch_unwind(AssertUnwindSafe(side)).is_err());
    }
    team.each(0..8, |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    assert!(count.into_inner() >= 8);
}
