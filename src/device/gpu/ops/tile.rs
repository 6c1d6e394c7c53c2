//! The choice of a product's tile: which kernel of `grouped_matmul.cu` computes it, and how many rows a tile has.
//!
//! Small tiles spread a product over all multiprocessors; large tiles read less from the L2 cache, because the tiles
//! below each other read the same weights and the tiles beside each other the same rows. The choice minimizes the
//! longer of two times: that of the busiest multiprocessor's instructions, and that of all tiles' bytes. It changes no
//! bit, because every tile sums an output in the same order (`kernels/grouped_matmul/tiles.cuh`).

/// A kernel over `Tiles` of `kernels/grouped_matmul/tiles.cuh`.
#[derive(Debug, PartialEq, Eq)]
pub struct TileKernel {
    /// Its name in `kernels/`.
    pub name: &'static str,
    /// The most rows of a tile.
    pub most_rows: usize,
    /// Outputs of a tile.
    pub outputs: usize,
    /// Outputs of a warp.
    warp_outputs: usize,
    stages: usize,
    /// Bytes per number of the weight.
    weight_size: usize,
}

/// Kernels for weights in bf16.
pub const BF16: [TileKernel; 3] = [
    kernel("grouped_matmul_16x64_bf16", [16, 64, 16], 4, 2),
    kernel("grouped_matmul_64x128_bf16", [64, 128, 32], 3, 2),
    kernel("grouped_matmul_128x128_bf16", [128, 128, 32], 3, 2),
];
/// Kernels for weights in e4m3.
pub const E4M3: [TileKernel; 4] = [
    kernel("grouped_matmul_16x64_e4m3", [16, 64, 16], 12, 1),
    kernel("grouped_matmul_64x64_e4m3", [64, 64, 16], 8, 1),
    kernel("grouped_matmul_128x128_e4m3", [128, 128, 32], 4, 1),
    kernel("grouped_matmul_128x256_e4m3", [128, 256, 32], 3, 1),
];

const fn kernel(
    name: &'static str,
    [most_rows, outputs, warp_outputs]: [usize; 3],
    stages: usize,
    weight_size: usize,
) -> TileKernel {
    TileKernel { name, most_rows, outputs, warp_outputs, stages, weight_size }
}

/// Rows of a fragment of `mma.m16n8k16`, and the unit of a tile's rows.
pub const FRAGMENT_ROWS: usize = 16;
/// Outputs of a fragment.
const FRAGMENT_OUTPUTS: usize = 8;
/// Inputs of a fragment.
const FRAGMENT_INPUTS: usize = 16;
/// Inputs per stage.
const DEPTH: usize = 64;
/// Schedulers of a multiprocessor. Each has a warp of a block of 128 threads.
const SCHEDULERS: usize = 4;

// The cost of 16 inputs is measured in cycles of a multiprocessor, estimated for an H100. Other GPUs differ in all three
// numbers by about the same factor.

/// Cycles of a scheduler's tensor core per `mma.m16n8k16`: 4 at the peak, of which `mma.sync` reaches five eighths.
const CYCLES_PER_MMA: f64 = 6.5;
/// Cycles per instruction of a warp that waits now and then.
const CYCLES_PER_INSTRUCTION: f64 = 1.25;
/// Bytes per cycle and multiprocessor from the L2 cache when all read at once: 6.5 TB/s.
const L2_BYTES_PER_CYCLE: f64 = 28.0;

/// A kernel, and the rows of its tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// The kernel.
    pub kernel: &'static TileKernel,
    /// The most rows of a tile, a multiple of [`FRAGMENT_ROWS`].
    pub rows: usize,
}

impl Tile {
    /// The tile for products of `groups` groups of `rows` rows each with `outputs` outputs, on a GPU of
    /// `multiprocessors`.
    pub fn choose(
        kernels: &'static [TileKernel],
        multiprocessors: usize,
        groups: usize,
        [rows, outputs]: [usize; 2],
    ) -> Self {
        let tiles = |kernel: &'static TileKernel| {
            let heights = (FRAGMENT_ROWS..=kernel.most_rows).step_by(FRAGMENT_ROWS);
            heights.map(move |rows| Self { kernel, rows })
        };
        // Few rows leave nothing to choose: reading the weights takes the time, and the first kernel has most of them in
        // flight.
        let few = &kernels[..1];
        let kernels = if rows <= FRAGMENT_ROWS { few } else { &kernels[1..] };
        let cost = |tile: &Self| {
            let blocks = groups * rows.div_ceil(tile.rows) * outputs.div_ceil(tile.kernel.outputs);
            tile.cost(blocks, multiprocessors)
        };
        let cheaper = |a: &Self, b: &Self| {
            let ([a, b], total) = ([cost(a), cost(b)], f64::total_cmp);
            total(&a.0, &b.0).then(total(&a.1, &b.1))
        };
        let cheapest = kernels.iter().flat_map(tiles).min_by(cheaper);
        cheapest.unwrap_or(Self { kernel: &few[0], rows: FRAGMENT_ROWS })
    }

    /// The cycles that 16 inputs of all blocks take, and those of their bytes alone.
    fn cost(&self, blocks: usize, multiprocessors: usize) -> (f64, f64) {
        let &TileKernel { outputs, warp_outputs, weight_size, .. } = self.kernel;
        let [rows, columns] = [self.rows / FRAGMENT_ROWS, warp_outputs / FRAGMENT_OUTPUTS].map(|n| n as f64);
        let warps_a_scheduler =
            (blocks.div_ceil(multiprocessors) * self.kernel.threads()) as f64 / (32 * SCHEDULERS) as f64;
        // Loads, widening and addresses, counted in the machine code.
        let instructions_a_word = if weight_size == 1 { 10.0 } else { 1.0 };
        let instructions = 8.0 + instructions_a_word * columns + rows * (columns + 2.0);
        let multiplies = rows * columns * CYCLES_PER_MMA;
        let computes = warps_a_scheduler * multiplies.max(instructions * CYCLES_PER_INSTRUCTION);
        let bytes = blocks * FRAGMENT_INPUTS * (self.rows * size_of::<u16>() + outputs * weight_size);
        let reads = bytes as f64 / (multiprocessors as f64 * L2_BYTES_PER_CYCLE);
        (computes.max(reads), reads)
    }

    /// Bytes of `Tiles::Stages`.
    pub fn shared_bytes(&self) -> usize {
        let &TileKernel { outputs, stages, weight_size, .. } = self.kernel;
        stages * DEPTH * (self.rows * size_of::<u16>() + outputs * weight_size)
    }
}

impl TileKernel {
    /// Threads per block.
    pub fn threads(&self) -> usize {
        self.outputs / self.warp_outputs * 32
    }
}
