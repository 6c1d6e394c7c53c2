//! The launch of `random_weight.cu`.

use crate::device::gpu::abi::RandomWeightParams;
use crate::device::gpu::device::GpuDevice;
use crate::device::gpu::runtime::{GpuRuntime, Launch};

const THREADS: usize = 256;
/// Enough blocks to fill any GPU.
const MOST_BLOCKS: usize = 4096;

/// Fills `memory` in the number format of activations: see [`crate::device::WeightSource::Random`].
pub fn random_weight<R: GpuRuntime>(on: &GpuDevice<R>, shape: &[usize], seed: u64, memory: &R::Memory) {
    let (bound, offset) = match shape {
        [_, .., _] => (bound(shape), 0.0),
        _ => (0.0, 1.0),
    };
    fill(on, on.kernel("random_weight_bf16", "random_weight_f32"), shape, seed, [bound, offset], memory);
}

/// Fills `memory` with a random matrix of e4m3; returns the scale of all its rows.
pub fn random_e4m3<R: GpuRuntime>(on: &GpuDevice<R>, shape: &[usize], seed: u64, memory: &R::Memory) -> f32 {
    const LARGEST: f32 = 448.0;
    fill(on, "random_weight_e4m3", shape, seed, [LARGEST, 0.0], memory);
    bound(shape) / LARGEST
}

/// The bound of uniform numbers with variance `1 / columns`.
fn bound(shape: &[usize]) -> f32 {
    (3.0 / shape.last().map_or(1.0, |columns| *columns as f32)).sqrt()
}

fn fill<R: GpuRuntime>(
    on: &GpuDevice<R>,
    kernel: &'static str,
    shape: &[usize],
    seed: u64,
    [bound, offset]: [f32; 2],
    memory: &R::Memory,
) {
    let elements: usize = shape.iter().product();
    let parameters =
        RandomWeightParams { out: on.address(memory), elements: elements as u64, seed, bound, offset };
    let launch = Launch {
        kernel,
        grid: [elements.div_ceil(THREADS).clamp(1, MOST_BLOCKS) as u32, 1, 1],
        threads: THREADS as u32,
        shared_bytes: 0,
    };
    on.launch(&launch, &parameters);
}
