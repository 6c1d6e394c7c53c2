//! Launches of `attention.cu`.

use crate::device::gpu::abi::{AttentionParams, NONE};
use crate::device::gpu::buffers::{Cache, Partials, Tensor};
use crate::device::gpu::device::GpuDevice;
use crate::device::gpu::inputs::Step;
use crate::device::gpu::padding::SPLIT;
use crate::device::gpu::runtime::{GpuRuntime, Launch};
use crate::device::{AttentionShape, CacheShape, Dtype, Format, Heads};
use crate::error::{Error, Result};

/// Query rows of a tensor core's tile.
const TILE_ROWS: usize = 16;
/// Threads of a warp.
const WARP: usize = 32;
/// The widest head that there is a kernel for.
const WIDEST_HEAD: usize = 256;

/// Checks that there are kernels for a cache of this shape and format.
///
/// # Errors
/// If there are none.
pub fn check(shape: CacheShape, format: Format) -> Result<()> {
    let (cache, working) = (format.cache, format.working());
    if shape.head_dim > WIDEST_HEAD {
        let message = format!("heads of {}: the kernels take up to {WIDEST_HEAD}", shape.head_dim);
        return Err(Error::Device(message));
    }
    if cache != working && cache != Dtype::F8E4m3 {
        let (cache, working) = (cache.name(), working.name());
        let message = format!("a cache of {cache}: beside {working}, the kernels take {working} or fp8");
        return Err(Error::Device(message));
    }
    Ok(())
}

/// Memory for the results of splits over a cache of this shape: [`scratch_bytes`] for each of its blocks, and two splits
/// more. No row has more splits than that, since it has no more positions than the cache. Rows that share blocks may have
/// more together, and then take several launches.
///
/// # Errors
/// If there is too little memory.
pub fn partials<R: GpuRuntime>(on: &GpuDevice<R>, shape: CacheShape) -> Result<Partials<R>> {
    let capacity = 2 * shape.blocks.full * shape.block_size / SPLIT + 2;
    let [results, counters] = split_bytes(shape).map(|bytes| bytes * capacity);
    let partials = Partials { results: on.allocate(results)?, counters: on.allocate(counters)?, capacity };
    on.runtime().write(on.current_role(), &partials.counters, &vec![0; counters]);
    Ok(partials)
}

/// Bytes of the results of one split of one row, and of its counters.
fn split_bytes(shape: CacheShape) -> [usize; 2] {
    let results = shape.heads * shape.group * (shape.head_dim + 4) * size_of::<f32>();
    [results, shape.heads * shape.group.div_ceil(TILE_ROWS) * size_of::<u32>()]
}

/// Bytes for the results of splits, per block of the cache: two splits for every [`SPLIT`] positions.
pub fn scratch_bytes(shape: CacheShape) -> usize {
    let split: usize = split_bytes(shape).iter().sum();
    (2 * shape.block_size * split).div_ceil(SPLIT)
}

/// See [`crate::device::Device::attention`].
pub fn attention<R: GpuRuntime>(
    on: &GpuDevice<R>,
    step: &Step<R>,
    shape: AttentionShape,
    qkv: &Tensor<R>,
    cache: &Cache<R>,
    out: &mut Tensor<R>,
) {
    let heads = shape.heads;
    let [keys_and_values, scales] = cache.addresses(on.runtime(), shape.layer);
    let parameters = AttentionParams {
        qkv: on.address(&qkv.memory),
        cache: keys_and_values,
        scales,
        out: on.address(&out.memory),
        spans: step.section(on, |s| s.spans),
        prefills: step.section(on, |s| s.prefills),
        blocks: step.blocks(on, shape.layer.kind),
        partials: on.address(&cache.partials.results),
        counters: on.address(&cache.partials.counters),
        kv_heads: heads.key_value as u32,
        group: (heads.query / heads.key_value) as u32,
        head_dim: heads.dim as u32,
        block_size: cache.shape.block_size as u32,
        window: shape.window.and_then(|window| u32::try_from(window).ok()).unwrap_or(NONE),
        scale: shape.scale * std::f32::consts::LOG2_E,
        first_span: 0,
        unused: 0,
    };
    let launch = |on: &GpuDevice<R>, launches: &[(u32, Launch)]| {
        for (first_span, launch) in launches {
            if launch.grid.iter().all(|blocks| *blocks > 0) {
                on.launch(launch, &AttentionParams { first_span: *first_span, ..parameters });
            }
        }
    };
    let Some(tiles) = Tiles::of(on.role_info().dtype, cache.dtype, heads.dim) else {
        let own = ["attention_bf16", "attention_f32"];
        let e4m3 = ["attention_bf16_e4m3", "attention_f32_e4m3"];
        return launch(on, &[(0, plain(on.cache_kernel(cache, own, e4m3), step, heads))]);
    };
    let prefill = [(0, tiles.prefill(step, heads))];
    let decode = tiles.decode(step, shape, cache.partials.capacity);
    match (step.prefills > 0, decode.is_empty()) {
        // The blocks of prefill run many times longer than those of decode, which then fill the room beside them.
        (true, false) => on.side_by_side(|on| launch(on, &prefill), |on| launch(on, &decode)),
        (true, true) => launch(on, &prefill),
        (false, _) => launch(on, &decode),
    }
}

/// The kernel for every number format and head size: one warp per query row.
fn plain<R: GpuRuntime>(kernel: &'static str, step: &Step<R>, heads: Heads) -> Launch {
    const WARPS: usize = 4;
    Launch {
        kernel,
        grid: [(step.longest_span * heads.query).div_ceil(WARPS) as u32, step.spans as u32, 1],
        threads: (WARPS * WARP) as u32,
        shared_bytes: (WARPS * (heads.dim + 2 * WARP) * size_of::<f32>()) as u32,
    }
}

/// The tensor-core kernels for one head size, and their tiles: `Prefill` and `Decode` in `kernels/attention/`.
struct Tiles {
    prefill_kernel: &'static str,
    decode_kernel: &'static str,
    /// Number format of keys and values.
    cache: Dtype,
    head_dim: usize,
    /// Query rows of a prefill tile.
    prefill_rows: usize,
    /// Keys of a prefill tile.
    prefill_keys: usize,
    /// Warps of a decode block.
    decode_warps: usize,
    /// Tiles in flight per warp of a decode kernel.
    decode_stages: usize,
}

impl Tiles {
    /// The kernels for these formats and this head size; `None` if there are none.
    fn of(dtype: Dtype, cache: Dtype, head_dim: usize) -> Option<Self> {
        let is_e4m3 = cache == Dtype::F8E4m3;
        let (prefill_kernel, decode_kernel) = match (head_dim, is_e4m3) {
            _ if dtype != Dtype::Bf16 => return None,
            (64, false) => ("attention_prefill_64_bf16", "attention_decode_64_bf16"),
            (80, false) => ("attention_prefill_80_bf16", "attention_decode_80_bf16"),
            (96, false) => ("attention_prefill_96_bf16", "attention_decode_96_bf16"),
            (128, false) => ("attention_prefill_128_bf16", "attention_decode_128_bf16"),
            (256, false) => ("attention_prefill_256_bf16", "attention_decode_256_bf16"),
            (64, true) => ("attention_prefill_64_bf16_e4m3", "attention_decode_64_bf16_e4m3"),
            (80, true) => ("attention_prefill_80_bf16_e4m3", "attention_decode_80_bf16_e4m3"),
            (96, true) => ("attention_prefill_96_bf16_e4m3", "attention_decode_96_bf16_e4m3"),
            (128, true) => ("attention_prefill_128_bf16_e4m3", "attention_decode_128_bf16_e4m3"),
            (256, true) => ("attention_prefill_256_bf16_e4m3", "attention_decode_256_bf16_e4m3"),
            _ => return None,
        };
        let is_wide = head_dim > 128;
        Some(Self {
            prefill_kernel,
            decode_kernel,
            cache,
            head_dim,
            prefill_rows: if is_wide { 64 } else { 128 },
            prefill_keys: match (head_dim, is_e4m3) {
                _ if is_wide => 32,
                (128, true) => 48,
                _ => 64,
            },
            decode_warps: if is_wide { 2 } else { 4 },
            decode_stages: match head_dim {
                _ if is_e4m3 => 4,
                ..=96 => 3,
                _ => 2,
            },
        })
    }

    /// The launch for prefill spans.
    fn prefill<R: GpuRuntime>(&self, step: &Step<R>, heads: Heads) -> Launch {
        let rows = step.longest_span * heads.query / heads.key_value;
        Launch {
            kernel: self.prefill_kernel,
            grid: [rows.div_ceil(self.prefill_rows) as u32, heads.key_value as u32, step.prefills as u32],
            threads: 128,
            shared_bytes: self.prefill_shared() as u32,
        }
    }

    /// The launches for decode rows, each with its first span. In a padded step they depend on padded sizes alone.
    /// Several are needed only where the results of all splits of all rows exceed `capacity`.
    fn decode<R: GpuRuntime>(
        &self,
        step: &Step<R>,
        shape: AttentionShape,
        capacity: usize,
    ) -> Vec<(u32, Launch)> {
        if step.prefills == step.spans {
            return Vec::new();
        }
        let heads = shape.heads;
        let parts = (heads.query / heads.key_value).div_ceil(TILE_ROWS);
        let splits = splits(step.longest_context, shape.window).min(capacity);
        let most_rows = if splits > 1 { capacity / splits } else { step.spans };
        let launch = |first: usize| Launch {
            kernel: self.decode_kernel,
            grid: [(heads.key_value * parts) as u32, most_rows.min(step.spans - first) as u32, splits as u32],
            threads: (self.decode_warps * WARP) as u32,
            shared_bytes: self.decode_shared() as u32,
        };
        (0..step.spans).step_by(most_rows).map(|first| (first as u32, launch(first))).collect()
    }

    /// Bytes of a row in shared memory, with its scale if it has one; `SharedRows` in the kernels has this layout.
    fn row_bytes(&self, dtype: Dtype) -> usize {
        const CHUNK: usize = 16;
        let chunks = self.head_dim * dtype.size() / CHUNK;
        let pitch = if chunks.is_multiple_of(8) { chunks } else { chunks | 1 };
        pitch * CHUNK + dtype.row_bytes(0)
    }

    fn prefill_shared(&self) -> usize {
        let words = 2 * self.prefill_keys + self.prefill_rows;
        self.prefill_rows * self.row_bytes(Dtype::Bf16)
            + 2 * self.prefill_keys * self.row_bytes(self.cache)
            + words * size_of::<u32>()
    }

    fn decode_shared(&self) -> usize {
        let streams = self.decode_warps * self.decode_stages * 2 * TILE_ROWS;
        let words = SPLIT + 2 * self.decode_warps * TILE_ROWS;
        streams * self.row_bytes(self.cache)
            + TILE_ROWS * self.row_bytes(Dtype::Bf16)
            + words * size_of::<u32>()
    }
}

/// Splits of the longest context: those with any position that the last token sees.
fn splits(longest_context: usize, window: Option<usize>) -> usize {
    let of_context = longest_context.div_ceil(SPLIT);
    let of_window = window.map_or(of_context, |window| window.saturating_sub(1).div_ceil(SPLIT) + 1);
    of_context.min(of_window)
}
