//! Asynchronous copies and vectors.

use super::{Probe, SEEDS};

const NAN: u32 = u32::MAX;

/// The words that each thread sees after waits for all but 3, 2, 1 and 0 of its three groups.
fn seen(seed: u64, input: &[u32], zeros: bool) -> Vec<[[u32; 3]; 4]> {
    let probe =
        Probe { shared_bytes: 64 * 48, args: [u32::from(zeros), 0, 0, 0], ..Probe::new("probe_copies", 64) };
    let words: Vec<u32> = probe.run(seed, input, 64 * 12);
    let threads = words.chunks_exact(12);
    threads.map(|thread| std::array::from_fn(|wait| std::array::from_fn(|i| thread[3 * wait + i]))).collect()
}

#[test]
fn a_copy_lands_at_the_wait_for_its_group() {
    let input: Vec<u32> = (0..64 * 12).collect();
    for zeros in [false, true] {
        let whole = |thread: usize| -> [u32; 3] {
            std::array::from_fn(|i| if zeros && i == 2 { 0 } else { (thread * 12 + i * 4) as u32 })
        };
        for (thread, seen) in seen(0, &input, zeros).into_iter().enumerate() {
            let [a, b, c] = whole(thread);
            assert_eq!(seen, [[NAN; 3], [a, NAN, NAN], [a, b, NAN], [a, b, c]]);
        }
        for seed in 1..20 {
            let mut early = 0;
            for (thread, seen) in seen(seed, &input, zeros).into_iter().enumerate() {
                for (groups, seen) in seen.into_iter().enumerate() {
                    for (i, (seen, whole)) in seen.into_iter().zip(whole(thread)).enumerate() {
                        early += usize::from(i >= groups && seen == whole);
                        assert!(seen == whole || (i >= groups && seen == NAN));
                    }
                }
            }
            assert!((64..6 * 64 - 64).contains(&early), "half of 384 copies are early, not {early}");
        }
    }
}

/// Whether a kernel that sums tiles as they arrive returns the right sums. It can omit the wait, or the barrier before a
/// buffer is filled again.
fn pipeline_is_right(seed: u64, no_wait: bool, no_barrier: bool) -> bool {
    let (threads, tiles) = (128, 7);
    let values: Vec<f32> = (0..tiles * 4 * threads).map(|i| (i % 1013) as f32).collect();
    let probe = Probe {
        shared_bytes: 2 * 16 * threads,
        args: [values.len() as u32, u32::from(no_wait), u32::from(no_barrier), 0],
        ..Probe::new("probe_pipeline", threads as u32)
    };
    let found: Vec<f32> = probe.run(seed, &values, threads);
    let expected = (0..threads).map(|thread| {
        let first = (thread + 37) % threads * 4;
        values.chunks(4 * threads).map(|tile| tile[first..first + 4].iter().sum::<f32>()).sum::<f32>()
    });
    found.into_iter().eq(expected)
}

#[test]
fn a_missing_wait_or_barrier_of_a_pipeline_shows() {
    for seed in SEEDS {
        assert!(pipeline_is_right(seed, false, false));
        assert!(!pipeline_is_right(seed, true, false), "no wait, seed {seed}");
    }
    assert!(pipeline_is_right(0, false, true), "in order, copies that land late hide it");
    assert!(SEEDS[1..].iter().all(|&seed| !pipeline_is_right(seed, false, true)));
}

#[test]
fn vectors_of_every_size_are_moved_whole() {
    let input: Vec<u8> = (0..=255).chain(0..=255).collect();
    for (kernel, vector) in [
        ("probe_vec_bf16_2", 4),
        ("probe_vec_half_4", 8),
        ("probe_vec_bf16_8", 16),
        ("probe_vec_f32_2", 8),
        ("probe_vec_f32_4", 16),
    ] {
        let found: Vec<u8> = Probe::new(kernel, 32).run(1, &input, 32 * vector);
        assert_eq!(found, input[..32 * vector], "{kernel}");
    }
}
