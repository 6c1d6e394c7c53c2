//! Launches of `contrast_sample.cu`.

use std::ops::Range;

use bytemuck::Zeroable;

use crate::device::gpu::abi::{ContrastSampleParams, ResultWords, SampleWords, TILE, row_bytes};
use crate::device::gpu::buffers::{Tensor, Weight};
use crate::device::gpu::device::GpuDevice;
use crate::device::gpu::inputs::Step;
use crate::device::gpu::runtime::{GpuRuntime, Launch};
use crate::device::{AmateurLogits, Device, ExpertLogits, Unprojected};

/// Warps per block, of both kernels.
const WARPS: usize = 8;
/// Bytes of shared memory of `contrast_sample`: a short list of candidates, and histograms.
const SHARED_BYTES: u32 = 27_920;

/// See [`Device::sample`]. The kernels find the expert's logits of an output by its
/// [`SampleRow::deferred_row`](crate::device::SampleRow), unless they keep logits themselves.
pub fn sample<R: GpuRuntime>(
    on: &GpuDevice<R>,
    step: &mut Step<R>,
    outputs: Range<usize>,
    expert: ExpertLogits<'_, Tensor<R>>,
    amateur: AmateurLogits<'_, Tensor<R>, Weight<R>>,
) {
    let (ExpertLogits::Computed(expert) | ExpertLogits::Deferred(expert)) = expert;
    match amateur {
        AmateurLogits::Unneeded => {
            let launches = Launches::new(on, step, outputs, expert, None);
            launches.tiles();
            launches.sample();
        }
        AmateurLogits::Computed(logits) => {
            let launches = Launches::new(on, step, outputs, expert, Some(logits));
            launches.tiles();
            launches.sample();
        }
        AmateurLogits::Later { deferred_logits } => {
            let mut launches = Launches::new(on, step, outputs, expert, None);
            launches.params.deferred_logits = on.address(&deferred_logits.memory);
            launches.params.deferred_stride = deferred_logits.width as u32;
            launches.tiles();
            launches.sample();
            launches.defer();
        }
        AmateurLogits::Unprojected(amateur) => sample_candidates(on, step, outputs, expert, amateur),
    }
}

/// Computes the amateur's logits of the candidates. Rows that are known to need all logits get them by a product of
/// all rows. Rows that turn out to need them get them by a product of these rows alone.
fn sample_candidates<R: GpuRuntime>(
    on: &GpuDevice<R>,
    step: &mut Step<R>,
    outputs: Range<usize>,
    expert: &Tensor<R>,
    Unprojected { hidden, lm_head, logits }: Unprojected<'_, Tensor<R>, Weight<R>>,
) {
    let (rows, needed) = (outputs.len(), step.needed_logits);
    if needed.all {
        on.matmul(rows, hidden, lm_head, None, logits);
    }
    let mut launches = Launches::new(on, step, outputs, expert, Some(logits));
    if needed.candidates {
        launches.params.candidates = step.candidates.addresses(on);
        launches.params.capacity = step.candidates.capacity() as u32;
    }
    launches.tiles();
    if needed.candidates {
        launches.list_candidates();
        step.candidates.project(on, rows, hidden, lm_head, logits);
    }
    launches.sample();
}

/// Launches the kernels for some outputs of a step. The geometry depends on the number of rows and on the vocabulary
/// alone, so a row's bits do not depend on other rows.
struct Launches<'a, R> {
    on: &'a GpuDevice<R>,
    params: ContrastSampleParams,
    rows: usize,
    /// Warps per block.
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
            amateur: amateur.map_or(0, |logits| on.address(logits.peer.as_ref().unwrap_or(&logits.memory))),
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

    fn list_candidates(&self) {
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
