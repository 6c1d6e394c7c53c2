//! The launch of `random_weight.cu`.

use bytemuck::{Pod, Zeroable};

use super::Launcher;
use super::machine::{Launch, Machine};

const THREADS: usize = 256;
/// Enough to fill any card.
const MOST_BLOCKS: usize = 4096;

/// `RandomWeightParams` of `random_weight.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RandomWeightParams {
    out: u64,
    elements: u64,
    seed: u64,
    bound: f32,
    offset: f32,
}

/// See [`crate::device::Device::random_weight`].
pub fn random_weight<M: Machine>(on: &Launcher<M>, shape: &[usize], seed: u64, memory: &M::Memory) {
    let elements: usize = shape.iter().product();
    let (bound, offset) = match shape {
        [_, .., columns] => ((3.0 / *columns as f32).sqrt(), 0.0),
        _ => (0.0, 1.0),
    };
    let parameters =
        RandomWeightParams { out: on.address(memory), elements: elements as u64, seed, bound, offset };
    let launch = Launch {
        kernel: on.kernel("random_weight_bf16", "random_weight_f32"),
        grid: [elements.div_ceil(THREADS).clamp(1, MOST_BLOCKS) as u32, 1, 1],
        threads: THREADS as u32,
        shared_bytes: 0,
    };
    on.launch(&launch, &parameters);
}
