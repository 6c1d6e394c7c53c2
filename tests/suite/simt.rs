//! Tests the SIMT runtime with its own kernels (`kernels/simt/probes`): collectives against their definitions, races
//! and faults that it must find, and its speed.

mod collectives;
mod copies;
mod faults;
mod launches;
mod matrices;
mod numbers;
mod over_reads;
mod races;
mod speed;

use bytemuck::{AnyBitPattern, NoUninit};
use codit::device::simt::runtime::{Launch, Memory};

/// `ProbeParams` of `kernels/simt/probes/probe.cuh`.
#[derive(Clone, Copy, NoUninit)]
#[repr(C)]
struct ProbeParams {
    input: u64,
    out: u64,
    args: [u32; 4],
}

/// A launch of a probe.
#[derive(Clone, Copy)]
struct Probe {
    kernel: &'static str,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: usize,
    args: [u32; 4],
}

impl Probe {
    /// A launch of one block of `threads` in a row.
    fn new(kernel: &'static str, threads: u32) -> Self {
        Self { kernel, grid: [1; 3], block: [threads, 1, 1], shared_bytes: 0, args: [0; 4] }
    }

    /// Runs the probe, which writes to `out`.
    fn run_on<I: NoUninit>(&self, seed: u64, input: &[I], out: &mut Memory) -> Result<(), String> {
        let input = Memory::of(input).unwrap();
        let Self { kernel, grid, block, shared_bytes, args } = *self;
        let params = ProbeParams { input: input.address(), out: out.address(), args };
        // SAFETY: `out` is borrowed exclusively, and each test passes buffers of the sizes that the probe documents.
        unsafe { Launch { kernel, grid, block, shared_bytes, seed }.run(&params) }
    }

    /// Runs the probe and returns `out[count]`, whose bytes are 0xFF before the run.
    fn run<I: NoUninit, O: AnyBitPattern>(&self, seed: u64, input: &[I], count: usize) -> Vec<O> {
        let mut out = Memory::new(count * size_of::<O>()).unwrap();
        self.run_on(seed, input, &mut out).unwrap();
        out.as_slice().to_vec()
    }
}

/// Index order and three shuffled orders.
const SEEDS: [u64; 4] = [0, 1, 2, 3];
