//! Launches of `grouped_matmul.cu`.

use crate::device::Dtype;
use crate::device::gpu::abi::GroupedMatmulParams;
use crate::device::gpu::buffers::{Tensor, Weight};
use crate::device::gpu::device::GpuDevice;
use crate::device::gpu::runtime::{GpuRuntime, Launch};

/// Threads of the tensor-core kernels, and the most threads of the plain ones.
const THREADS: usize = 128;

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
    let kernel = Kernel::of([x.dtype, w.dtype], [outputs, w.columns], groups);
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
    };
    let launch = Launch {
        kernel: kernel.name,
        grid: [groups.tiles(kernel.rows) as u32, outputs.div_ceil(kernel.outputs) as u32, 1],
        threads: kernel.threads() as u32,
        shared_bytes: kernel.shared_bytes() as u32,
    };
    if launch.grid.iter().all(|blocks| *blocks > 0) {
        on.launch(&launch, &parameters);
    }
}

/// A kernel and its tile sizes: `Tiles` and `PlainProducts` in `kernels/grouped_matmul/`.
struct Kernel {
    name: &'static str,
    rows: usize,
    outputs: usize,
    /// Tiles of x and of the weight in flight at once; 0 for the plain kernels.
    stages: usize,
    /// Bytes per number of the weight.
    weight_size: usize,
}

impl Kernel {
    /// Inputs per stage.
    const DEPTH: usize = 64;
    /// Bytes per asynchronous copy.
    const CHUNK: usize = 16;

    /// The kernel for these formats and sizes. The choice among the tensor-core kernels changes no bit.
    fn of([x, weight]: [Dtype; 2], [outputs, inputs]: [usize; 2], groups: Groups) -> Self {
        let weight_size = weight.size();
        let tiles =
            |name, [rows, outputs]: [usize; 2], stages| Self { name, rows, outputs, stages, weight_size };
        let plain = |name| tiles(name, [16, outputs.next_multiple_of(32).min(THREADS)], 0);
        let is_whole = inputs.is_multiple_of(Self::CHUNK / weight_size);
        let rows_a_group = groups.rows.div_ceil(groups.count);
        match (x, weight) {
            (Dtype::F32, _) => plain("grouped_matmul_plain_f32"),
            (_, Dtype::F8E4m3) => match rows_a_group {
                _ if !is_whole => plain("grouped_matmul_plain_e4m3"),
                0..=16 => tiles("grouped_matmul_16_e4m3", [16, 64], 8),
                17..=64 => tiles("grouped_matmul_64_e4m3", [64, 64], 6),
                _ => tiles("grouped_matmul_128_e4m3", [128, 128], 3),
            },
            _ if !is_whole => plain("grouped_matmul_plain_bf16"),
            _ if rows_a_group <= 16 => tiles("grouped_matmul_16_bf16", [16, 64], 4),
            _ => tiles("grouped_matmul_64_bf16", [64, 128], 3),
        }
    }

    /// Threads per block. In a plain kernel each thread computes one output.
    fn threads(&self) -> usize {
        if self.stages == 0 { self.outputs } else { THREADS }
    }

    fn shared_bytes(&self) -> usize {
        self.stages * Self::DEPTH * (self.rows * size_of::<u16>() + self.outputs * self.weight_size)
    }
}
