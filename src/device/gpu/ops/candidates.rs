//! Heads whose logits of the amateur are computed one by one: launches of `contrast_project.cu`, and what lies between
//! the kernels that find heads and those that use them.

use bytemuck::{Pod, Zeroable};

use super::grouped_matmul::{self, Groups};
use crate::device::gpu::runtime::{GpuRuntime, Launch, Role};
use crate::device::gpu::{GpuDevice, Tensor, Weight};
use crate::device::{Device, Projections};
use crate::error::Result;

/// A head is large where it is more than one in so many of the vocabulary, or more than this in all: a row then needs all
/// of its logits, by one reading of the projection for all such rows. So small that they cost as much as one reading if
/// 128 rows of a vocabulary of 128 thousand have the largest; so large that even flat distributions seldom reach it.
const LARGE_HEAD: (usize, usize) = (32, 1024);

/// Of `contrast_project`: warps a block, and blocks at most, many to each part of a GPU.
const WARPS: usize = 4;
const BLOCKS: usize = 2048;

/// `HeadWords`, `HeadEntry` and `HeadCounts` of `heads.cuh`.
const HEAD_BYTES: usize = 8;
const ENTRY_BYTES: usize = 16;
const COUNTS_BYTES: usize = 16;

/// Room for the heads of the rows that are sampled together.
pub struct Heads<R: GpuRuntime> {
    /// The counts, then lists as [`Addresses`] says.
    memory: R::Memory,
    rows: usize,
    /// The largest head that is listed.
    capacity: usize,
}

/// Where the kernels find them; all 0 where no heads are gathered.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Addresses {
    /// `[rows]` `HeadWords`
    heads: u64,
    /// `[rows * capacity]` `HeadEntry`
    entries: u64,
    /// `HeadCounts`
    counts: u64,
    /// `[rows]` u32: rows that need all of their logits.
    full_rows: u64,
}

/// `ContrastProjectParams`, which explains the fields.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ContrastProjectParams {
    hidden: u64,
    projection: u64,
    entries: u64,
    counts: u64,
    width: u32,
    unused: u32,
}

impl<R: GpuRuntime> Heads<R> {
    /// For `rows` rows of a vocabulary.
    pub fn new(runtime: &R, rows: usize, vocabulary: usize) -> Result<Self> {
        let (part, most) = LARGE_HEAD;
        let capacity = (vocabulary / part).clamp(1, most);
        let bytes = COUNTS_BYTES + rows * (capacity * ENTRY_BYTES + HEAD_BYTES + size_of::<u32>());
        Ok(Self { memory: runtime.allocate(Role::Expert, bytes)?, rows, capacity })
    }

    /// The largest head that is listed.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Where all of it is.
    pub fn addresses(&self, on: &GpuDevice<R>) -> Addresses {
        let counts = on.address(&self.memory);
        let entries = counts + COUNTS_BYTES as u64;
        let heads = entries + (self.rows * self.capacity * ENTRY_BYTES) as u64;
        Addresses { heads, entries, counts, full_rows: heads + (self.rows * HEAD_BYTES) as u64 }
    }

    /// Computes the `logits` of `rows` rows that `contrast_heads` found to be needed: those of the heads to where these
    /// are listed, all of other rows to their rows of `logits`.
    pub fn project(
        &self,
        on: &GpuDevice<R>,
        rows: usize,
        hidden: &Tensor<R>,
        projection: &Weight<R>,
        logits: &mut Tensor<R>,
    ) {
        let Addresses { entries, counts, full_rows, .. } = self.addresses(on);
        let parameters = ContrastProjectParams {
            hidden: on.address(&hidden.memory),
            projection: on.address(&projection.memory),
            entries,
            counts,
            width: projection.columns as u32,
            unused: 0,
        };
        let launch = Launch {
            kernel: on.kernel("contrast_project_bf16", "contrast_project_f32"),
            grid: [(rows * self.capacity).div_ceil(WARPS).min(BLOCKS) as u32, 1, 1],
            threads: (WARPS * 32) as u32,
            shared_bytes: 0,
        };
        // The second element of the counts begins the offsets of the one group: its rows are as many as turned up.
        let offsets = counts + size_of::<u32>() as u64;
        let full = Groups { count: 1, rows, sources: full_rows, offsets, scatters: true };
        on.join(
            |on| on.launch(&launch, &parameters),
            |on| grouped_matmul::grouped_matmul(on, full, hidden, projection, None, logits),
        );
    }

    /// How many logits were listed, and how many rows needed all of theirs; waits for it.
    pub fn projections(&self, on: &GpuDevice<R>) -> Projections {
        let pending = on.runtime.read(Role::Expert, &self.memory, COUNTS_BYTES);
        // A failure is reported by `collect`; what is read after one says nothing.
        let counts: Vec<u32> = bytemuck::pod_collect_to_vec(&on.runtime.wait(pending).unwrap_or_default());
        let count = |index: usize| counts.get(index).map_or(0, |count| *count as usize);
        Projections { gathered: count(0), full: count(2) }
    }
}
