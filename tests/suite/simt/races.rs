//! Missing barriers. The races do no harm in index order and show in a shuffled order.

use bytemuck::AnyBitPattern;

use super::{Probe, SEEDS};

/// The number of shuffled orders, out of 20, that give a result other than `expected`. In index order the race must
/// not show.
fn exposed<O: AnyBitPattern + PartialEq>(probe: Probe, input: &[u32], expected: &[O]) -> usize {
    let agrees = |probe: Probe, seed| probe.run::<u32, O>(seed, input, expected.len()) == expected;
    let with_barrier = Probe { args: [0; 4], ..probe };
    assert!(SEEDS.into_iter().all(|seed| agrees(with_barrier, seed)), "right with its barrier");
    let without = Probe { args: [1, 0, 0, 0], ..probe };
    assert!(agrees(without, 0), "hidden in order");
    (1..=20).filter(|&seed| !agrees(without, seed)).count()
}

#[test]
fn a_missing_syncthreads_is_exposed() {
    let input: Vec<u32> = (100..356).collect();
    let expected: Vec<u32> = [100].into_iter().chain(100..355).collect();
    let probe = Probe { shared_bytes: 1024, ..Probe::new("probe_race_of_block", 256) };
    assert_eq!(exposed(probe, &input, &expected), 20);
}

#[test]
fn a_missing_syncwarp_is_exposed() {
    let input: Vec<u32> = (100..132).collect();
    let expected: Vec<u32> = [100].into_iter().chain(100..131).collect();
    let probe = Probe { shared_bytes: 128, ..Probe::new("probe_race_of_warp", 32) };
    assert_eq!(exposed(probe, &input, &expected), 20);
}

#[test]
fn a_missing_barrier_between_warps_is_exposed_though_each_warp_is_in_step() {
    let input: Vec<u32> = (0..256).map(|i| (i as f32).to_bits()).collect();
    let probe = Probe { shared_bytes: 32, ..Probe::new("probe_race_of_warps", 256) };
    let found = exposed(probe, &input, &[255.0_f32 * 128.0]);
    assert!(found >= 15, "{found} of 20");
}

#[test]
fn an_order_of_blocks_that_is_counted_on_is_exposed() {
    let expected: Vec<u32> = (0..64).collect();
    let probe = Probe { grid: [64, 1, 1], ..Probe::new("probe_race_of_blocks", 1) };
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(one_thread.install(|| exposed(probe, &[], &expected)), 20);
}
