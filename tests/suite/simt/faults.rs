//! Planted faults. Each fault ends its launch with a message that names it.

use codit::device::simt::runtime::{Launch, Memory};

use super::{Probe, ProbeParams, SEEDS};

fn message_of(probe: Probe, seed: u64) -> String {
    let mut out = Memory::new(256).unwrap();
    probe.run_on(seed, &[0_u32; 64], &mut out).unwrap_err()
}

/// Thread 5 of block 1 commits the fault. The last thread of its warp or block to arrive detects it, so the message names
/// one of the two or both.
#[test]
fn faults_are_named_with_kernel_block_and_thread() {
    for (kernel, what) in [
        ("probe_exit_before_barrier", &["exits, but thread", "has exited"][..]),
        ("probe_barrier_of_some", &["is at __syncthreads(), but thread", "waits at __syncthreads()"]),
        ("probe_barrier_against_shuffle", &["waits at __syncthreads()", "is at __syncthreads(), but lane"]),
        ("probe_exit_before_shuffle", &["exits, but lane", "names lane 5, which has exited"]),
        ("probe_different_collectives", &["meets lane"]),
        (
            "probe_different_masks",
            &["__syncwarp(mask ffffffff) meets lane", "__syncwarp(mask 0000ffff) meets lane"],
        ),
        ("probe_mask_without_caller", &["__syncwarp(mask ffff0000) leaves out its caller, lane 5"]),
        ("probe_source_outside_mask", &["__shfl_sync(mask 00000020) reads from lane 6"]),
        ("probe_source_outside_width", &["__shfl_sync reads from lane 16 of 16"]),
        ("probe_misaligned_load", &["misaligned load_vec of 16 bytes"]),
        ("probe_misaligned_store", &["misaligned store_vec of 8 bytes"]),
        ("probe_misaligned_copy", &["cp_async16 to shared memory at byte 8 of shared memory"]),
        ("probe_misaligned_source", &["misaligned cp_async16 from"]),
        ("probe_copy_past_shared", &["which is not in the block's 1024 bytes of shared memory"]),
        ("probe_misaligned_row", &["ldmatrix_x4 at byte 8 of shared memory"]),
        ("probe_row_not_shared", &["ldmatrix_x2 at 0x"]),
        ("probe_mma_of_some", &["mma_bf16(mask ffffffff)", "exits, but lane 5 waits for it at mma_bf16"]),
    ] {
        for seed in SEEDS {
            let probe = Probe {
                grid: [2, 1, 1],
                shared_bytes: 1024,
                args: [1024, 0, 0, 0],
                ..Probe::new(kernel, 64)
            };
            let message = message_of(probe, seed);
            assert!(message.starts_with(&format!("{kernel}, block (1, 0, 0), thread (")), "{message}");
            assert!(message.contains("thread (5, 0, 0)") || message.contains("lane 5"), "{message}");
            assert!(what.iter().any(|what| message.contains(what)), "{message}");
        }
    }
}

#[test]
fn a_warp_of_fewer_than_32_threads_lacks_lanes() {
    let probe = Probe { grid: [2, 1, 1], ..Probe::new("probe_mask_beyond_warp", 16) };
    let expected = "probe_mask_beyond_warp, block (1, 0, 0), thread (5, 0, 0): \
                    __syncwarp(mask 00100020) names lane 20, which is not in the warp";
    assert_eq!(message_of(probe, 0), expected);
}

#[test]
fn launches_that_a_driver_would_refuse_are_refused() {
    let refused = |kernel, grid, threads: [u32; 3], shared_bytes| {
        message_of(Probe { grid, block: threads, shared_bytes, ..Probe::new(kernel, 1) }, 0)
    };
    let one = [1; 3];
    assert!(refused("probe_no_such", one, one, 0).contains("there is no kernel of this name"));
    assert!(
        refused("probe_bits", one, [257, 1, 1], 0)
            .contains("more threads a block than its KERNEL line allows")
    );
    assert!(refused("probe_bits", one, [16, 17, 1], 0).contains("more threads a block"));
    assert!(refused("probe_bits", one, [1 << 16, 1 << 16, 1], 0).contains("more threads a block"));
    assert!(refused("probe_bits", one, [1, 0, 1], 0).contains("a block of this shape cannot be"));
    assert!(refused("probe_bits", [1, 65536, 1], one, 0).contains("a grid of this shape cannot be"));
    assert!(refused("probe_bits", [0, 1, 1], one, 0).contains("a grid of this shape cannot be"));
    assert!(refused("probe_bits", one, one, 228 << 10).contains("more shared memory than any device has"));
    let launch = Launch { kernel: "probe_bits", grid: one, block: one, shared_bytes: 0, seed: 0 };
    // SAFETY: the launch is refused, so nothing reads the parameters.
    let message = unsafe { launch.run(&[0_u64; 3]) }.unwrap_err();
    assert!(message.contains("its parameters have another size (24 bytes of parameters of 32"), "{message}");
    assert_eq!(size_of::<ProbeParams>(), 32);
}

#[test]
fn a_launch_after_a_fault_works() {
    for seed in SEEDS {
        let faulty =
            Probe { grid: [2, 1, 1], shared_bytes: 1024, ..Probe::new("probe_exit_before_barrier", 64) };
        message_of(faulty, seed);
        let input: Vec<u32> = (0..64 * 12).collect();
        let good = Probe { shared_bytes: 64 * 48, ..Probe::new("probe_copies", 64) };
        let seen: Vec<u32> = good.run(seed, &input, 64 * 12);
        assert!(
            seen.chunks(12)
                .zip(input.chunks(12))
                .all(|(seen, input)| { seen[9..] == [input[0], input[4], input[8]] })
        );
    }
}
