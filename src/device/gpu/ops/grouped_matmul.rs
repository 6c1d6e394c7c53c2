//! Launches of `grouped_matmul.cu`.

use super::tile::{self, FRAGMENT_ROWS, Tile};
use crate::device::Dtype;
use crate::device::gpu::abi::GroupedMatmulParams;
use crate::device::gpu::buffers::{Tensor, Weight};
use crate::device::gpu::device::GpuDevice;
use crate::device::gpu::runtime::{GpuRuntime, Launch};

/// The most threads of the plain kernels.
const PLAIN_THREADS: usize = 128;
/// Rows of a tile of the plain kernels.
const PLAIN_ROWS: usize = 16;
/// Bytes per asynchronous copy of the others.
const CHUNK: usize = 16;

/// The rows of each group of a product.
#[derive(Debug, Clone, Copy)]
pub struct Groups {
    /// The number of groups. The weight has as many matrices, one below the other.
    pub count: usize,
    /// The most rows of all groups together; the rows of the one group if there are no offsets.
    pub rows: usize,
    /// Address of `[rows]` u32: the row of `x` for each row; 0 if row `i` is row `i`.
    pub sources: u64,
    /// Address of `[count + 1]` u32: the first row of each group, then the end of the last; 0 for one group of all
    /// rows.
    pub offsets: u64,
    /// Whether row `i` is written to the row of `out` that its source has in `x`.
    pub scatters: bool,
}

impl Groups {
    /// One group of all rows, in place.
    pub fn one(rows: usize) -> Self {
        Self { count: 1, rows, sources: 0, offsets: 0, scatters: false }
    }

    /// The rows of each group to choose a tile for. Groups that the device counts may have more than the average: a
    /// tile has room for twice that, and spends time only on the rows that it finds.
    fn usual_rows(&self) -> usize {
        let average = self.rows.div_ceil(self.count);
        if self.count > 1 && average > FRAGMENT_ROWS { 2 * average } else { average }
    }

    /// The most tiles of `height` rows. Each group begins a new tile.
    fn tiles(&self, height: usize) -> usize {
        (self.rows + self.count.min(self.rows) * (height - 1)) / height
    }
}

/// `out[row or source of row] = x[source of row] * w[group of row]^T + bias[group of row]`
pub fn grouped_matmul<R: GpuRuntime>(
    on: &GpuDevice<R>,
    groups: Groups,
    x: &Tensor<R>,
    w: &Weight<R>,
    bias: Option<&Weight<R>>,
    out: &mut Tensor<R>,
) {
    let outputs = w.rows / groups.count;
    let kernel = Kernel::of(on, [x.dtype, w.dtype], [outputs, w.columns], groups);
    let parameters = GroupedMatmulParams {
        x: on.address(&x.memory),
        weight: on.address(&w.memory),
        scales: w.scales.as_ref().map_or(0, |scales| on.address(scales)),
        bias: bias.map_or(0, |bias| on.address(&bias.memory)),
        out: on.address(&out.memory),
        sources: groups.sources,
        offsets: groups.offsets,
        rows: groups.rows as u32,
        groups: groups.count as u32,
        outputs: outputs as u32,
        inputs: w.columns as u32,
        out_is_f32: u32::from(out.dtype == Dtype::F32),
        scatters: u32::from(groups.scatters),
        tile_rows: kernel.rows as u32,
        unused: 0,
    };
    let launch = Launch {
        kernel: kernel.name,
        grid: [groups.tiles(kernel.rows) as u32, outputs.div_ceil(kernel.outputs) as u32, 1],
        threads: kernel.threads as u32,
        shared_bytes: kernel.shared_bytes as u32,
    };
    if launch.grid.iter().all(|blocks| *blocks > 0) {
        on.launch(&launch, &parameters);
    }
}

/// Rows and outputs of the tiles in which a product of `rows` rows is computed.
pub fn tile<R: GpuRuntime>(on: &GpuDevice<R>, rows: usize, w: &Weight<R>) -> [usize; 2] {
    let formats = [on.role_info().dtype, w.dtype];
    let kernel = Kernel::of(on, formats, [w.rows, w.columns], Groups::one(rows));
    [kernel.rows, kernel.outputs]
}

/// A kernel and the geometry of its blocks.
struct Kernel {
    name: &'static str,
    /// Rows of a tile.
    rows: usize,
    /// Outputs of a tile.
    outputs: usize,
    threads: usize,
    shared_bytes: usize,
}

impl Kernel {
    /// The kernel for these formats and sizes. The choice among the tensor-core kernels changes no bit.
    fn of<R: GpuRuntime>(
        on: &GpuDevice<R>,
        [x, weight]: [Dtype; 2],
        [outputs, inputs]: [usize; 2],
        groups: Groups,
    ) -> Self {
        let is_whole = inputs.is_multiple_of(CHUNK / weight.size());
        let (plain, tiles): (_, &[_]) = match (x, weight) {
            (Dtype::F32, _) => ("grouped_matmul_plain_f32", &[]),
            (_, Dtype::F8E4m3) => ("grouped_matmul_plain_e4m3", &tile::E4M3),
            _ => ("grouped_matmul_plain_bf16", &tile::BF16),
        };
        if !is_whole || tiles.is_empty() {
            return Self::plain(plain, outputs);
        }
        let multiprocessors = on.runtime().multiprocessors(on.current_role());
        Self::tiled(Tile::choose(tiles, multiprocessors, groups.count, [groups.usual_rows(), outputs]))
    }

    /// Without tensor cores: a thread computes one output.
    fn plain(name: &'static str, outputs: usize) -> Self {
        let threads = outputs.next_multiple_of(32).min(PLAIN_THREADS);
        Self { name, rows: PLAIN_ROWS, outputs: threads, threads, shared_bytes: 0 }
    }

    fn tiled(tile: Tile) -> Self {
        Self {
            name: tile.kernel.name,
            rows: tile.rows,
            outputs: tile.kernel.outputs,
            threads: tile.kernel.threads(),
            shared_bytes: tile.shared_bytes(),
        }
    }
}
