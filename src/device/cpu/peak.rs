//! What the machine can do at most, by loops of its own instructions: streaming reads, and multiplications of numbers that
//! never leave the registers. No product of this program is among them.

use std::hint::black_box;
use std::time::Instant;

use super::amx::Amx;
use super::buffer::Buffer;
use super::device::{Common, Cpu};
use super::isa::Kernel;
use super::simd::{LANES, Pairs, Simd};
use crate::device::inspect::Peaks;
use crate::device::number::dtype::Dtype;
use crate::device::types::role::Role;
use crate::error::Result;

/// The smallest number of bytes, read by all threads together, whose rate is measured. Each is four times the one before.
const SMALLEST: usize = 64 << 10;
/// Seconds that one measurement takes at least.
const LONG_ENOUGH: f64 = 0.01;
/// Measurements of a rate. The best counts: nothing makes a machine faster than it is.
const TRIES: usize = 5;
/// Multiplications of one lane and one sum in a call of [`Multiply`].
const LENGTH: usize = 4096;

impl Cpu {
    /// The rate of reading `largest` bytes and of reading fewer, and of multiplications in the arithmetic that the formats of
    /// the models ask for.
    ///
    /// # Errors
    /// If there is no memory to read.
    pub(super) fn measure_peaks(&self, largest: usize) -> Result<Peaks> {
        let sizes = std::iter::successors(Some(SMALLEST), |size| Some(size * 4));
        let mut sizes: Vec<usize> = sizes.take_while(|size| *size < largest).collect();
        sizes.push(largest.max(SMALLEST));
        let mut buffer = Buffer::<f32>::zeroed(
            sizes[sizes.len() - 1].div_ceil(size_of::<[f32; LANES]>()),
            LANES,
            "the ceilings",
        )?;
        // Pages that were never written are all the same one, which a cache holds.
        buffer.fill(1.0);
        let (lines, _) = buffer.as_chunks::<LANES>();
        let rate = |size: usize| (size, self.common.read_rate(&lines[..size / size_of::<[f32; LANES]>()]));
        let rounds = [Role::Expert, Role::Amateur]
            .map(|role| self.in_role(role).role_info().format.weights == Dtype::Bf16);
        let arithmetic = rounds.map(|rounds| self.common.multiply_rate(rounds));
        Ok(Peaks {
            reads: sizes.into_iter().map(rate).collect(),
            arithmetic: arithmetic[0].max(arithmetic[1]),
        })
    }
}

impl Common {
    /// Bytes per second of reading `lines` again and again, each thread its own part.
    fn read_rate(&self, lines: &[[f32; LANES]]) -> f64 {
        let parts: Vec<_> = lines.chunks(lines.len().div_ceil(self.pool.threads()).max(1)).collect();
        let read = |times: usize| {
            self.pool.for_each(parts.iter(), |lines| {
                black_box(self.isa.run(Read { lines, times }));
            });
        };
        rate(size_of_val(lines), read)
    }

    /// Multiplications and additions per second: of bf16 pairs if rows are rounded, and otherwise of f32, which AMX makes of
    /// three products.
    fn multiply_rate(&self, rounds: bool) -> f64 {
        let threads = 0..self.pool.threads();
        let multiply = |times: usize| {
            self.pool.for_each(threads.clone(), |_| {
                black_box(self.isa.run(Multiply { rounds, times }));
            });
        };
        let vectors = rate(self.pool.threads() * self.isa.run(Count { rounds }), multiply);
        let tiles = self.amx.map_or(0.0, |amx| {
            let multiply = |times: usize| self.pool.for_each(threads.clone(), |_| amx.multiply_zeros(times));
            rate(self.pool.threads() * Amx::OPERATIONS, multiply) / if rounds { 1.0 } else { 3.0 }
        });
        vectors.max(tiles)
    }
}

/// The best rate of `run`, which does `work` as often as it is told.
fn rate(work: usize, run: impl Fn(usize)) -> f64 {
    let seconds = |times: usize| {
        let start = Instant::now();
        run(times);
        start.elapsed().as_secs_f64()
    };
    let mut times = 1;
    while seconds(times) < LONG_ENOUGH {
        times *= 2;
    }
    let best = (0..TRIES).map(|_| seconds(times)).fold(f64::INFINITY, f64::min);
    (times * work) as f64 / best
}

/// Reads lines `times` times.
struct Read<'a> {
    lines: &'a [[f32; LANES]],
    times: usize,
}

impl Kernel for Read<'_> {
    type Output = [f32; LANES];

    #[inline(always)]
    fn run<S: Simd>(self) -> [f32; LANES] {
        const SUMS: usize = 4;
        let mut sums = [S::splat(0.0); SUMS];
        for _ in 0..self.times {
            let (groups, rest) = black_box(self.lines).as_chunks::<SUMS>();
            for group in groups {
                for (sum, line) in sums.iter_mut().zip(group) {
                    *sum = S::add(*sum, S::load(line));
                }
            }
            for line in rest {
                sums[0] = S::add(sums[0], S::load(line));
            }
        }
        total::<S>(&sums)
    }
}

/// Multiplies `times` times [`LENGTH`] lanes, in as many sums as there are registers for.
struct Multiply {
    rounds: bool,
    times: usize,
}

impl Kernel for Multiply {
    type Output = [f32; LANES];

    #[inline(always)]
    fn run<S: Simd>(self) -> [f32; LANES] {
        match sums::<S>() {
            WIDE_SUMS => multiply::<S, WIDE_SUMS>(self.rounds, self.times),
            FMA_SUMS => multiply::<S, FMA_SUMS>(self.rounds, self.times),
            _ => multiply::<S, FEWEST_SUMS>(self.rounds, self.times),
        }
    }
}

/// Sums that hide the latency of a multiplication and stay in the registers: of 32 with a register a sum, of 16 with two, and
/// of 16 with four.
const WIDE_SUMS: usize = 16;
const FMA_SUMS: usize = 6;
const FEWEST_SUMS: usize = 3;

#[inline(always)]
fn sums<S: Simd>() -> usize {
    match (S::WIDE, S::FMA) {
        (true, _) => WIDE_SUMS,
        (false, true) => FMA_SUMS,
        (false, false) => FEWEST_SUMS,
    }
}

#[inline(always)]
fn multiply<S: Simd, const SUMS: usize>(rounds: bool, times: usize) -> [f32; LANES] {
    let mut sums = [S::splat(0.0); SUMS];
    if rounds {
        let (pairs, x): (Pairs, u32) = (black_box([0x3f80_3f80; LANES]), black_box(0x3f80_3f80));
        for _ in 0..times * LENGTH {
            for sum in &mut sums {
                *sum = S::dot(&pairs, x, *sum);
            }
        }
    } else {
        let (a, b) = (S::splat(black_box(0.5)), [2.0; LANES]);
        for _ in 0..times * LENGTH {
            // Where it is not one instruction, a product of constants would be computed once.
            let b = if S::FMA { S::splat(2.0) } else { S::load(black_box(&b)) };
            for sum in &mut sums {
                *sum = S::mul_add(a, b, *sum);
            }
        }
    }
    total::<S>(&sums)
}

/// Operations of a call of [`Multiply`] with one time.
struct Count {
    rounds: bool,
}

impl Kernel for Count {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self) -> usize {
        let products = if self.rounds { 2 } else { 1 };
        2 * products * LANES * sums::<S>() * LENGTH
    }
}

#[inline(always)]
fn total<S: Simd>(sums: &[S::Lanes]) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    S::store(sums.iter().copied().fold(S::splat(0.0), S::add), &mut out);
    out
}
