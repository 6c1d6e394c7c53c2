//! Launches of the kernels that work on one row of activations at a time.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::device::gpu::abi::{
    CopyBlockParams, EmbedParams, GatedParams, GatherParams, NormParams, RmsNormParams, RopeStoreParams,
};
use crate::device::gpu::buffers::{Cache, Rope, Tensor, Weight, rows_per_layer};
use crate::device::gpu::device::GpuDevice;
use crate::device::gpu::inputs::Step;
use crate::device::gpu::runtime::{GpuRuntime, Launch};
use crate::device::{Activation, CacheLayer, Delta, Dtype, HeadNorms, Heads, LayerKind, Norm, NormScope};
use crate::ids::BlockId;

/// Threads of a warp.
const WARP: usize = 32;
/// Threads of the largest block.
const MOST_THREADS: usize = 1024;
/// Bytes of the widest memory access.
const ACCESS: usize = 16;

/// See [`crate::device::Device::embed`].
pub fn embed<R: GpuRuntime>(
    on: &GpuDevice<R>,
    step: &Step<R>,
    table: &Weight<R>,
    scale: f32,
    out: &mut Tensor<R>,
) {
    let parameters = EmbedParams {
        tokens: step.section(on, |s| s.tokens),
        source_outputs: step.section(on, |s| s.source_outputs),
        slots: step.section(on, |s| s.slots),
        results: step.results(on),
        table: on.address(&table.memory),
        out: on.address(&out.memory),
        width: out.width as u32,
        scale,
    };
    let kernel = on.kernel("embed_bf16", "embed_f32");
    launch_by_columns(on, kernel, step.tokens, out.width, Dtype::F32, &parameters);
}

impl NormParams {
    fn new<R: GpuRuntime>(on: &GpuDevice<R>, norm: Option<&Norm<Weight<R>>>) -> Self {
        norm.map_or_else(Self::zeroed, |norm| Self {
            weight: on.address(&norm.weight.memory),
            epsilon: norm.epsilon,
            weight_offset: if norm.unit_offset { 1.0 } else { 0.0 },
        })
    }
}

/// See [`crate::device::Device::rms_norm`].
pub fn rms_norm<R: GpuRuntime>(
    on: &GpuDevice<R>,
    rows: usize,
    delta: Option<Delta<'_, GpuDevice<R>>>,
    residual: &mut Tensor<R>,
    norm: Option<&Norm<Weight<R>>>,
    out: &mut Tensor<R>,
) {
    let parameters = RmsNormParams {
        delta: delta.map_or(0, |(delta, _)| on.address(&delta.memory)),
        residual: on.address(&residual.memory),
        delta_norm: NormParams::new(on, delta.and_then(|(_, norm)| norm)),
        norm: NormParams::new(on, norm),
        out: on.address(&out.memory),
        width: out.width as u32,
        unused: 0,
    };
    // Each thread keeps two vectors in registers. One block per row fixes the order of the sum by the width.
    let threads = warps_of(accesses(out.width, Dtype::F32).div_ceil(2)).min(MOST_THREADS);
    let launch = Launch {
        kernel: on.kernel("rms_norm_bf16", "rms_norm_f32"),
        grid: [rows as u32, 1, 1],
        threads: threads as u32,
        shared_bytes: sums(threads),
    };
    launch_rows(on, &launch, &parameters);
}

/// See [`crate::device::Device::rope_store`].
#[allow(clippy::too_many_arguments)]
pub fn rope_store<R: GpuRuntime>(
    on: &GpuDevice<R>,
    step: &Step<R>,
    heads: Heads,
    norms: Option<&HeadNorms<Weight<R>>>,
    rope: &Rope<R>,
    layer: CacheLayer,
    qkv: &mut Tensor<R>,
    cache: &mut Cache<R>,
) {
    let [keys_and_values, scales] = cache.addresses(on.runtime(), layer);
    // A lane holds one access of each half of a head.
    let lanes = accesses(heads.dim / 2, on.role_info().dtype).next_power_of_two().min(WARP);
    let spans_heads = norms.is_some_and(|norms| norms.scope == NormScope::Projection);
    let parameters = RopeStoreParams {
        positions: step.section(on, |s| s.positions),
        slots: step.slots(on, layer.kind),
        inverse_frequencies: on.address(&rope.memory),
        query_norm: NormParams::new(on, norms.map(|norms| &norms.query)),
        key_norm: NormParams::new(on, norms.map(|norms| &norms.key)),
        qkv: on.address(&qkv.memory),
        cache: keys_and_values,
        scales,
        query_heads: heads.query as u32,
        key_value_heads: heads.key_value as u32,
        head_dim: heads.dim as u32,
        block_size: cache.shape.block_size as u32,
        lanes: lanes as u32,
        angle_scale: rope.scale,
        norms_span_heads: spans_heads.into(),
        unused: 0,
    };
    let all_lanes = (heads.query + 2 * heads.key_value) * lanes;
    // One block computes a sum over all heads.
    let threads = warps_of(all_lanes).min(if spans_heads { MOST_THREADS } else { 128 });
    let launch = Launch {
        kernel: on.cache_kernel(
            cache,
            ["rope_store_bf16", "rope_store_f32"],
            ["rope_store_bf16_e4m3", "rope_store_f32_e4m3"],
        ),
        grid: [step.tokens as u32, if spans_heads { 1 } else { all_lanes.div_ceil(threads) as u32 }, 1],
        threads: threads as u32,
        shared_bytes: (heads.dim * size_of::<f32>()) as u32 + if spans_heads { sums(threads) } else { 0 },
    };
    launch_rows(on, &launch, &parameters);
}

/// See [`crate::device::Device::gated`].
pub fn gated<R: GpuRuntime>(
    on: &GpuDevice<R>,
    rows: usize,
    width: usize,
    activation: Activation,
    x: &Tensor<R>,
    out: &mut Tensor<R>,
) {
    let parameters = GatedParams {
        x: on.address(&x.memory),
        out: on.address(&out.memory),
        width: width as u32,
        activation: match activation {
            Activation::Silu => 0,
            Activation::GeluTanh => 1,
        },
    };
    launch_by_columns(on, on.kernel("gated_bf16", "gated_f32"), rows, width, out.dtype, &parameters);
}

/// See [`crate::device::Device::gather`].
pub fn gather<R: GpuRuntime>(
    on: &GpuDevice<R>,
    step: &Step<R>,
    outputs: Range<usize>,
    x: &Tensor<R>,
    out: &mut Tensor<R>,
) {
    let list = step.section(on, |s| s.logits_indices);
    let parameters = GatherParams {
        logits_indices: list + (outputs.start * size_of::<u32>()) as u64,
        x: on.address(&x.memory),
        out: on.address(&out.memory),
        width: x.width as u32,
        unused: 0,
    };
    let kernel = if x.dtype == Dtype::F32 { "gather_f32" } else { "gather_bf16" };
    launch_by_columns(on, kernel, outputs.len(), x.width, x.dtype, &parameters);
}

/// See [`crate::device::Device::copy_block`].
pub fn copy_block<R: GpuRuntime>(
    on: &GpuDevice<R>,
    cache: &mut Cache<R>,
    kind: LayerKind,
    from: BlockId,
    to: BlockId,
) {
    const THREADS: usize = 256;
    let (shape, blocks) = (cache.shape, &cache.blocks[kind]);
    let rows = rows_per_layer(shape);
    let scales = blocks.scales.as_ref().map(|scales| (scales, rows * size_of::<f32>()));
    let numbers = (&blocks.memory, rows * shape.head_dim * cache.dtype.size());
    for (memory, block_bytes) in [numbers].into_iter().chain(scales) {
        let parameters = CopyBlockParams {
            cache: on.address(memory),
            layer_bytes: (shape.blocks[kind] * block_bytes) as u64,
            block_bytes: block_bytes as u64,
            from: from.0,
            to: to.0,
        };
        let grid = [block_bytes.div_ceil(THREADS * ACCESS) as u32, shape.layers[kind] as u32, 1];
        let launch = Launch { kernel: "copy_block", grid, threads: THREADS as u32, shared_bytes: 0 };
        launch_rows(on, &launch, &parameters);
    }
}

/// Bytes of shared memory for two sums over a block.
fn sums(threads: usize) -> u32 {
    (2 * threads / WARP * size_of::<f32>()) as u32
}

/// Accesses that cover `width` numbers: full ones if they divide the width, otherwise one per number.
fn accesses(width: usize, dtype: Dtype) -> usize {
    let vector = ACCESS / dtype.size();
    if width.is_multiple_of(vector) { width / vector } else { width }
}

/// The threads, rounded up to whole warps.
fn warps_of(threads: usize) -> usize {
    threads.next_multiple_of(WARP).max(WARP)
}

/// A grid of rows and columns with one access per thread, for numbers of `dtype`.
pub fn launch_by_columns<R: GpuRuntime>(
    on: &GpuDevice<R>,
    kernel: &'static str,
    rows: usize,
    width: usize,
    dtype: Dtype,
    parameters: &impl Pod,
) {
    let accesses = accesses(width, dtype);
    let threads = warps_of(accesses).min(256);
    let grid = [rows as u32, accesses.div_ceil(threads) as u32, 1];
    launch_rows(on, &Launch { kernel, grid, threads: threads as u32, shared_bytes: 0 }, parameters);
}

/// Launches a kernel unless there are no rows.
fn launch_rows<R: GpuRuntime>(on: &GpuDevice<R>, launch: &Launch, parameters: &impl Pod) {
    if launch.grid[0] > 0 {
        on.launch(launch, parameters);
    }
}
