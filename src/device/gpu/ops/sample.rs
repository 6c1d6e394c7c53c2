//! Launches of `contrast_sample.cu`.

use std::ops::Range;

use bytemuck::Zeroable;

use crate::device::Device;
use crate::device::gpu::abi::{ContrastSampleParams, ResultWords, SampleWords, TILE, row_bytes};
use crate::device::gpu::runtime::{GpuRuntime, Launch};
use crate::device::gpu::{GpuDevice, Step, Tensor, Weight};

/// Warps a block, of both kernels.
const WARPS: usize = 8;
/// What `contrast_sample` keeps of a row: a small head, and histograms.
const SHARED_BYTES: u32 = 27_920;

/// See [`crate::device::Device::contrast_sample`].
pub fn contrast_sample<R: GpuRuntime>(
    on: &GpuDevice<R>,
    step: &mut Step<R>,
    outputs: Range<usize>,
    expert: &Tensor<R>,
    amateur: Option<&Tensor<R>>,
) {
    let launches = Launches::new(on, step, outputs, expert, amateur);
    launches.tiles();
    launches.sample();
}

/// See [`crate::device::Device::settle`].
pub fn settle<R: GpuRuntime>(
    on: &GpuDevice<R>,
    step: &mut Step<R>,
    outputs: Range<usize>,
    expert: &Tensor<R>,
    deferred_logits: &mut Tensor<R>,
) {
    let mut launches = Launches::new(on, step, outputs, expert, None);
    launches.params.deferred_logits = on.address(&deferred_logits.memory);
    launches.params.deferred_stride = deferred_logits.width as u32;
    launches.tiles();
    launches.sample();
    launches.defer();
}

/// See [`crate::device::Device::contrast_sample_hidden`]. Rows that are known to need all of their logits are given them by
/// a product of all rows, those that turn out to by one of such rows alone.
pub fn contrast_sample_hidden<R: GpuRuntime>(
    on: &GpuDevice<R>,
    step: &mut Step<R>,
    outputs: Range<usize>,
    expert: &Tensor<R>,
    (hidden, projection): (&Tensor<R>, &Weight<R>),
    logits: &mut Tensor<R>,
) {
    let (rows, wanted) = (outputs.len(), step.wanted_of_amateur);
    if wanted.all {
        on.matmul(rows, hidden, projection, None, logits);
    }
    let mut launches = Launches::new(on, step, outputs, expert, Some(logits));
    if wanted.heads {
        launches.params.candidates = step.heads.addresses(on);
        launches.params.capacity = step.heads.capacity() as u32;
    }
    launches.tiles();
    if wanted.heads {
        launches.heads();
        step.heads.project(on, rows, hidden, projection, logits);
    }
    launches.sample();
}

/// Of the kernels over some outputs of a step. All of the geometry but the number of rows is the vocabulary's, so that a
/// row's bits are its own.
struct Launches<'a, R> {
    on: &'a GpuDevice<R>,
    params: ContrastSampleParams,
    rows: usize,
    /// Warps a block.
    warps: usize,
    /// Blocks that share the tiles of a row.
    blocks: usize,
}

impl<'a, R: GpuRuntime> Launches<'a, R> {
    fn new(
        on: &'a GpuDevice<R>,
        step: &Step<R>,
        outputs: Range<usize>,
        expert: &Tensor<R>,
        amateur: Option<&Tensor<R>>,
    ) -> Self {
        let (special, special_count) = step.special(on);
        let (first, rows) = (outputs.start as u64, outputs.len());
        let tiles = step.vocabulary.div_ceil(TILE);
        let warps = tiles.min(WARPS);
        let params = ContrastSampleParams {
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
            ..ContrastSampleParams::zeroed()
        };
        Self { on, params, rows, warps, blocks: tiles.div_ceil(warps) }
    }

    fn tiles(&self) {
        self.launch("contrast_tiles", [self.rows * self.blocks, 1], 0);
    }

    fn heads(&self) {
        self.launch("contrast_candidates", [self.rows, 1], SHARED_BYTES);
    }

    fn sample(&self) {
        self.launch("contrast_sample", [self.rows, 1], SHARED_BYTES);
    }

    fn defer(&self) {
        self.launch("defer_logits", [self.rows, self.blocks], 0);
    }

    fn launch(&self, kernel: &'static str, [x, y]: [usize; 2], shared_bytes: u32) {
        let launch =
            Launch { kernel, grid: [x as u32, y as u32, 1], threads: 32 * self.warps as u32, shared_bytes };
        if self.rows > 0 {
            self.on.launch(&launch, &self.params);
        }
    }
}
