//! Shuffles, votes, atomics and integer intrinsics.

use bytemuck::{NoUninit, Pod};

use super::{Probe, SEEDS};
use crate::random::Random;

#[derive(Debug, Clone, Copy)]
enum Shuffle {
    Index,
    Up,
    Down,
    Xor,
}

/// The source lane, by the pseudo-code of the PTX ISA for "shfl.sync". CUDA computes its operand `c` from the width.
fn source(kind: Shuffle, lane: u32, b: u32, width: u32) -> u32 {
    let segment_mask = !(width - 1) & 31;
    let clamp = if matches!(kind, Shuffle::Up) { 0 } else { 31 };
    let max_lane = (lane & segment_mask) | (clamp & !segment_mask);
    let min_lane = lane & segment_mask;
    let (j, inside) = match kind {
        Shuffle::Up => (lane.wrapping_sub(b), lane as i32 - b as i32 >= max_lane as i32),
        Shuffle::Down => (lane + b, lane + b <= max_lane),
        Shuffle::Xor => (lane ^ b, lane ^ b <= max_lane),
        Shuffle::Index => (min_lane | (b & !segment_mask), true),
    };
    if inside { j } else { lane }
}

fn shuffles<T: Pod + PartialEq + std::fmt::Debug>(kernel: &'static str, values: &[T; 32]) {
    for (number, kind) in [Shuffle::Index, Shuffle::Up, Shuffle::Down, Shuffle::Xor].into_iter().enumerate() {
        for width in [1, 2, 4, 8, 16, 32] {
            let arguments = if matches!(kind, Shuffle::Index) { width } else { 32 };
            for b in 0..arguments {
                let probe = Probe { args: [number as u32, b, width, 0], ..Probe::new(kernel, 32) };
                let found: Vec<T> = probe.run(SEEDS[b as usize % SEEDS.len()], values, 32);
                for lane in 0..32 {
                    let expected = values[source(kind, lane, b, width) as usize];
                    assert_eq!(found[lane as usize], expected, "{kind:?} by {b} of {width}, lane {lane}");
                }
            }
        }
    }
}

#[test]
fn shuffles_follow_the_ptx_manual() {
    let mut random = Random::new(1);
    shuffles::<u32>("probe_shuffle_u32", &std::array::from_fn(|_| random.bits()));
    shuffles::<f32>("probe_shuffle_f32", &std::array::from_fn(|_| random.bits() as f32));
    shuffles::<u64>("probe_shuffle_u64", &std::array::from_fn(|_| u64::from(random.bits()) << 32 | 5));
}

#[test]
fn disjoint_groups_of_lanes_vote_apart() {
    let mut random = Random::new(2);
    for mask in [0xffff_ffff, 0, 0x0000_ffff, 0x5555_5555, 1, 0x8000_0000, 0x0ff0_1234] {
        // No lane, all lanes and some lanes agree.
        for agree in [0, u32::MAX, mask, random.bits()] {
            let predicates: Vec<u32> = (0..32).map(|lane| (agree >> lane & 1) * 4).collect();
            for seed in SEEDS {
                let probe = Probe { args: [mask, 0, 0, 0], ..Probe::new("probe_votes", 32) };
                let found: Vec<[u32; 3]> = probe.run(seed, &predicates, 32);
                for (lane, &vote) in found.iter().enumerate() {
                    let group = if mask >> lane & 1 == 1 { mask } else { !mask };
                    let ballot = agree & group;
                    assert_eq!(vote, [ballot, u32::from(ballot != 0), u32::from(ballot == group)]);
                }
            }
        }
    }
}

#[test]
fn sums_and_maxima_of_a_warp() {
    let values: Vec<f32> = (0..32).map(|i| ((i * 7) % 32) as f32 - 20.0).collect();
    for seed in SEEDS {
        let found: Vec<[f32; 2]> = Probe::new("probe_warp_sum_max", 32).run(seed, &values, 32);
        assert_eq!(found, [[values.iter().sum(), 11.0]; 32]);
    }
}

/// `Totals` of `kernels/simt/probes/collectives.cu`.
#[derive(Debug, Clone, Copy, PartialEq, NoUninit, bytemuck::AnyBitPattern)]
#[repr(C)]
struct Totals {
    sum_u64: u64,
    max_u64: u64,
    min_u64: u64,
    sum_u32: u32,
    sum_i32: i32,
    sum_f32: f32,
    max_u32: u32,
    min_u32: u32,
    max_i32: i32,
    min_i32: i32,
    cas: u32,
    exchanged: u32,
    came_out: u32,
}

#[test]
fn atomics_lose_nothing_between_threads_and_blocks() {
    let (blocks, threads) = (20, 256);
    let n = blocks * threads;
    let sum = n * (n + 1) / 2;
    for seed in SEEDS {
        let start = Totals { min_u64: u64::MAX, min_u32: u32::MAX, max_i32: i32::MIN, ..ZERO };
        let mut out = codit::device::simt::runtime::Memory::of(&[start]).unwrap();
        let probe = Probe { grid: [blocks, 1, 1], ..Probe::new("probe_atomics", threads) };
        probe.run_on(seed, &[0_u32; 0], &mut out).unwrap();
        let found = out.as_slice::<Totals>()[0];
        let expected = Totals {
            sum_u64: u64::from(sum) << 32,
            max_u64: u64::from(n) << 32,
            min_u64: 1 << 32,
            sum_u32: sum,
            sum_i32: -(sum as i32),
            sum_f32: sum as f32,
            max_u32: n,
            min_u32: 1,
            max_i32: -1,
            min_i32: -(n as i32),
            cas: sum,
            exchanged: found.exchanged,
            came_out: sum - found.exchanged,
        };
        assert_eq!(found, expected);
    }
}

const ZERO: Totals = Totals {
    sum_u64: 0,
    max_u64: 0,
    min_u64: 0,
    sum_u32: 0,
    sum_i32: 0,
    sum_f32: 0.0,
    max_u32: 0,
    min_u32: 0,
    max_i32: 0,
    min_i32: 0,
    cas: 0,
    exchanged: 0,
    came_out: 0,
};

#[test]
fn integer_intrinsics() {
    let mut random = Random::new(3);
    let mut values: Vec<u32> = (0..256).map(|i| random.bits() >> (i % 32)).collect();
    values[..3].copy_from_slice(&[0, 1, u32::MAX]);
    let factor = 0xD251_1F53;
    let probe = Probe { args: [factor, 0, 0, 0], ..Probe::new("probe_bits", 256) };
    let found: Vec<[u32; 4]> = probe.run(0, &values, 256);
    for (x, found) in values.into_iter().zip(found) {
        let lowest = if x == 0 { 0 } else { x.trailing_zeros() + 1 };
        let high = (u64::from(x) * u64::from(factor)) >> 32;
        assert_eq!(found, [x.count_ones(), lowest, x.leading_zeros(), high as u32]);
    }
}
