//! Candidates whose logits of the amateur are computed one by one: the launches of `contrast_project.cu`, and the
//! lists that pass from the kernels that find candidates to those that use them.

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

/// A row has many candidates if they are more than one in this many tokens of the vocabulary, or more than this
/// number. It then needs all of the amateur's logits, which one product computes for all such rows. The limits are so
/// low that the candidates of 128 such rows, of a vocabulary of 128 thousand, cost as much as one reading of the LM
/// head, and so high that even flat distributions seldom reach them.
const MANY_CANDIDATES: (usize, usize) = (32, 1024);

/// Warps per block of `contrast_project`, and the most blocks, several for each multiprocessor.
const WARPS: usize = 4;
const BLOCKS: usize = 2048;

const LIST_BYTES: usize = size_of::<CandidateList>();
const ENTRY_BYTES: usize = size_of::<CandidateEntry>();
const COUNTS_BYTES: usize = size_of::<CandidateCounts>();

/// The candidates of the rows that are sampled together.
pub struct CandidateLists<R: GpuRuntime> {
    /// The counts, then the lists that [`CandidateBuffers`] describes.
    memory: R::Memory,
    rows: usize,
    /// The most candidates that are listed per row.
    capacity: usize,
}

impl<R: GpuRuntime> CandidateLists<R> {
    /// Lists for `rows` rows of a vocabulary.
    pub fn new(runtime: &R, rows: usize, vocabulary: usize) -> Result<Self> {
        let (part, most) = MANY_CANDIDATES;
        let capacity = (vocabulary / part).clamp(1, most);
        let bytes = COUNTS_BYTES + rows * (capacity * ENTRY_BYTES + LIST_BYTES + size_of::<u32>());
        Ok(Self { memory: runtime.allocate(Role::Expert, bytes)?, rows, capacity })
    }

    /// The most candidates that are listed per row.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The addresses of the lists.
    pub fn addresses(&self, on: &GpuDevice<R>) -> CandidateBuffers {
        let counts = on.address(&self.memory);
        let entries = counts + COUNTS_BYTES as u64;
        let lists = entries + (self.rows * self.capacity * ENTRY_BYTES) as u64;
        CandidateBuffers { lists, entries, counts, full_rows: lists + (self.rows * LIST_BYTES) as u64 }
    }

    /// Computes the logits that `contrast_candidates` found to be needed: those of listed candidates are written to
    /// their entries, all logits of other rows to their rows of `logits`.
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
        // The product has one group, with as many rows as `contrast_candidates` counted.
        let offsets = counts + offset_of!(CandidateCounts, full_row_offsets) as u64;
        let full = Groups { count: 1, rows, sources: full_rows, offsets, scatters: true };
        on.join(
            |on| on.launch(&launch, &parameters),
            |on| grouped_matmul::grouped_matmul(on, full, hidden, lm_head, None, logits),
        );
    }

    /// How many logits were listed, and how many rows needed all logits. Waits for the counts.
    pub fn projections(&self, on: &GpuDevice<R>) -> Projections {
        let pending = on.runtime().read(Role::Expert, &self.memory, COUNTS_BYTES);
        // `collect` reports a failure; the counts read after one are meaningless.
        let bytes = on.runtime().wait(pending).unwrap_or_default();
        let counts = bytemuck::try_pod_read_unaligned(&bytes).unwrap_or_else(|_| CandidateCounts::zeroed());
        Projections { gathered: counts.entries as usize, full: counts.full_row_offsets[1] as usize }
    }
}
