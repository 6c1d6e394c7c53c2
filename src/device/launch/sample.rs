//! Launches of `contrast_sample.cu`.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::machine::{Launch, Machine};
use super::step::{ResultWords, SampleWords};
use super::{Launcher, Step, Tensor};

/// Tokens of a tile, the work of one warp.
const TILE: usize = 512;
/// Bytes that the kernels keep of a tile: its peaks, sums, faults and winner.
const TILE_BYTES: usize = 36;
/// Warps a block, of both kernels.
const WARPS: usize = 8;
/// What `contrast_sample` keeps of a row: a small head, and histograms.
const SHARED_BYTES: u32 = 27_920;

/// `ContrastSampleParams`, which explains the fields.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    expert: u64,
    amateur: u64,
    special: u64,
    samples: u64,
    tiles: u64,
    results: u64,
    vocabulary: u32,
    expert_stride: u32,
    amateur_stride: u32,
    special_count: u32,
    kept: u64,
    kept_stride: u32,
    unused: u32,
}

/// Bytes that the kernels need for each row that samples.
pub fn row_bytes(vocabulary: usize) -> usize {
    vocabulary.div_ceil(TILE) * TILE_BYTES
}

/// See [`crate::device::Device::contrast_sample`], and, where there is a place to keep logits,
/// [`crate::device::Device::settle`].
pub fn contrast_sample<M: Machine>(
    on: &Launcher<M>,
    step: &mut Step<M>,
    outputs: Range<usize>,
    expert: &Tensor<M>,
    amateur: Option<&Tensor<M>>,
    kept: Option<&Tensor<M>>,
) {
    if outputs.is_empty() {
        return;
    }
    let (special, special_count) = step.special(on);
    let (first, rows) = (outputs.start as u64, outputs.len());
    let params = Params {
        expert: on.address(&expert.memory),
        amateur: amateur.map_or(0, |amateur| on.address(&amateur.memory)),
        special,
        samples: step.section(on, |at| at.samples) + first * size_of::<SampleWords>() as u64,
        tiles: step.tiles(on) + first * row_bytes(step.vocabulary) as u64,
        results: step.results(on) + first * size_of::<ResultWords>() as u64,
        vocabulary: step.vocabulary as u32,
        expert_stride: expert.width as u32,
        amateur_stride: amateur.map_or(0, |amateur| amateur.width) as u32,
        special_count: special_count as u32,
        kept: kept.map_or(0, |kept| on.address(&kept.memory)),
        kept_stride: kept.map_or(0, |kept| kept.width) as u32,
        unused: 0,
    };
    // All of the geometry but the number of rows is the vocabulary's, so that a row's bits are its own.
    let tiles = step.vocabulary.div_ceil(TILE);
    let warps = tiles.min(WARPS);
    let launch = |kernel, grid: [usize; 2], shared_bytes| {
        let grid = [grid[0] as u32, grid[1] as u32, 1];
        on.launch(&Launch { kernel, grid, threads: 32 * warps as u32, shared_bytes }, &params);
    };
    launch("contrast_tiles", [rows * tiles.div_ceil(warps), 1], 0);
    launch("contrast_sample", [rows, 1], SHARED_BYTES);
    if kept.is_some() {
        launch("keep_logits", [rows, tiles.div_ceil(warps)], 0);
    }
}
