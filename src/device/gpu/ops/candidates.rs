//! Candidates whose logits of the amateur are computed one by one: launches of `contrast_project.cu`, and the lists between
//! the kernels that find candidates and those that use them.

use std::mem::offset_of;

use bytemuck::Zeroable;

use super::grouped_matmul::{self, Groups};
use crate::device::gpu::abi::{
    CandidateBuffers, CandidateCounts, CandidateEntry, CandidateList, ContrastProjectParams,
};
use crate::device::gpu::buffers::{Tensor, Weight};
use crate::device::gpu::device::GpuDevice;
use crate::device::gpu::runtime::{GpuRuntime, Launch, Role};
use crate::device::{Device, Projections};
use crate::error::Result;

/// A row's candidates are many where they are more than one in so many of the vocabulary, or more than this in all: the row
/// then needs all of its logits, by one reading of the LM head for all such rows. So small that candidates cost as much as one
/// reading if 128 rows of a vocabulary of 128 thousand have the most; so large that even flat distributions seldom reach it.
const MANY_CANDIDATES: (usize, usize) = (32, 1024);

/// Of `contrast_project`: warps a block, and blocks at most, many to each part of a GPU.
const WARPS: usize = 4;
const BLOCKS: usize = 2048;

const LIST_BYTES: usize = size_of::<CandidateList>();
const ENTRY_BYTES: usize = size_of::<CandidateEntry>();
const COUNTS_BYTES: usize = size_of::<CandidateCounts>();

/// Room for the candidates of the rows that are sampled together.
pub struct CandidateLists<R: GpuRuntime> {
    /// The counts, then lists as [`CandidateBuffers`] says.
    memory: R::Memory,
    rows: usize,
    /// The most candidates of a row that are listed.
    capacity: usize,
}

impl<R: GpuRuntime> CandidateLists<R> {
    /// For `rows` rows of a vocabulary.
    pub fn new(runtime: &R, rows: usize, vocabulary: usize) -> Result<Self> {
        let (part, most) = MANY_CANDIDATES;
        let capacity = (vocabulary / part).clamp(1, most);
        let bytes = COUNTS_BYTES + rows * (capacity * ENTRY_BYTES + LIST_BYTES + size_of::<u32>());
        Ok(Self { memory: runtime.allocate(Role::Expert, bytes)?, rows, capacity })
    }

    /// The most candidates of a row that are listed.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Where all of it is.
    pub fn addresses(&self, on: &GpuDevice<R>) -> CandidateBuffers {
        let counts = on.address(&self.memory);
        let entries = counts + COUNTS_BYTES as u64;
        let lists = entries + (self.rows * self.capacity * ENTRY_BYTES) as u64;
        CandidateBuffers { lists, entries, counts, full_rows: lists + (self.rows * LIST_BYTES) as u64 }
    }

    /// Computes the logits of `rows` rows that `contrast_candidates` found to be needed: those of listed candidates to their
    /// entries, all those of other rows to their rows of `logits`.
    pub fn project(
        &self,
        on: &GpuDevice<R>,
        rows: usize,
        hidden: &Tensor<R>,
        lm_head: &Weight<R>,
        logits: &mut Tensor<R>,
    ) {
        let CandidateBuffers { entries, counts, full_rows, .. } = self.addresses(on);
        let parameters = ContrastProjectParams {
            hidden: on.address(&hidden.memory),
            projection: on.address(&lm_head.memory),
            entries,
            counts,
            width: lm_head.columns as u32,
            unused: 0,
        };
        let launch = Launch {
            kernel: on.kernel("contrast_project_bf16", "contrast_project_f32"),
            grid: [(rows * self.capacity).div_ceil(WARPS).min(BLOCKS) as u32, 1, 1],
            threads: (WARPS * 32) as u32,
            shared_bytes: 0,
        };
        // The product has one group, whose rows are as many as `contrast_candidates` counted.
        let offsets = counts + offset_of!(CandidateCounts, full_row_offsets) as u64;
        let full = Groups { count: 1, rows, sources: full_rows, offsets, scatters: true };
        on.join(
            |on| on.launch(&launch, &parameters),
            |on| grouped_matmul::grouped_matmul(on, full, hidden, lm_head, None, logits),
        );
    }

    /// How many logits were listed, and how many rows needed all of theirs; waits for it.
    pub fn projections(&self, on: &GpuDevice<R>) -> Projections {
        let pending = on.runtime().read(Role::Expert, &self.memory, COUNTS_BYTES);
        // A failure is reported by `collect`; what is read after one says nothing.
        let bytes = on.runtime().wait(pending).unwrap_or_default();
        let counts = bytemuck::try_pod_read_unaligned(&bytes).unwrap_or_else(|_| CandidateCounts::zeroed());
        Projections { gathered: counts.entries as usize, full: counts.full_row_offsets[1] as usize }
    }
}
