//! What a GPU device needs of the machine below it: memory, streams, launches and matrix products.

use crate::device::info::{MemoryInfo, NO_PROFILER};
use crate::device::number::dtype::Dtype;
pub use crate::device::types::role::Role;
use crate::error::{Error, Result};

/// A stream. Its work runs in the order in which it is queued. Work of different streams is in no order, except where
/// [`GpuRuntime::order`] says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The stream of a role.
    Main(Role),
    /// A second stream of a role, for kernels that may run beside those of the first.
    Side(Role),
}

impl Stream {
    /// The role whose memory the stream's work accesses.
    pub fn role(self) -> Role {
        match self {
            Self::Main(role) | Self::Side(role) => role,
        }
    }
}

/// A kernel's launch geometry.
#[derive(Debug, Clone, Copy)]
pub struct Launch {
    /// The kernel's name in `kernels/*.cu`.
    pub kernel: &'static str,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads per block.
    pub threads: u32,
    /// Bytes of dynamic shared memory per block.
    pub shared_bytes: u32,
}

/// `out[rows, outputs] = x[rows, inputs] * weight[outputs, inputs]^T + bias[outputs]`, all row-major, sums in f32.
#[derive(Debug, Clone, Copy)]
pub struct Matmul {
    /// Rows of `x` and `out`.
    pub rows: usize,
    /// Rows of the weight.
    pub outputs: usize,
    /// Width of `x` and of the weight.
    pub inputs: usize,
    /// Number format of `x`, weight and bias.
    pub dtype: Dtype,
    /// Number format of `out`: the same, or f32.
    pub out_dtype: Dtype,
    /// Address of `[rows, inputs]`.
    pub x: u64,
    /// Address of `[outputs, inputs]`.
    pub weight: u64,
    /// Address of `[outputs]`.
    pub bias: Option<u64>,
    /// Address of `[rows, outputs]`.
    pub out: u64,
}

/// Bytes that the library of matrix products may use on each stream: NVIDIA's recommendation for Hopper, and more
/// than enough for other GPUs.
pub const MATMUL_WORKSPACE: usize = 32 << 20;

/// The GPU, or its stand-in on the host.
///
/// Queued work runs later. Its failure is kept and reported by the next [`GpuRuntime::wait`]. All but kernels is queued
/// on the main stream of a role.
pub trait GpuRuntime: Send + Sync + 'static {
    /// Memory, aligned to 256 bytes and freed when dropped.
    type Memory: Send + Sync;
    /// Bytes that are being copied to the host.
    type Pending: Send + Sync;
    /// A point in time.
    type Mark: Send + Sync;

    /// The runtime in one line for people.
    fn describe(&self) -> String;
    /// Allocates memory of a role, with arbitrary contents.
    ///
    /// # Errors
    /// [`Error::Device`] where there is too little.
    fn allocate(&self, role: Role, bytes: usize) -> Result<Self::Memory>;
    /// The address for the kernels.
    fn address(&self, memory: &Self::Memory) -> u64;
    /// Fills the first `bytes` of `memory` piece by piece. `source` writes each piece, given its offset. Several
    /// threads may call this. It returns when the memory is filled.
    ///
    /// # Errors
    /// [`Error::Device`] if the runtime failed.
    fn fill(
        &self,
        role: Role,
        memory: &Self::Memory,
        bytes: usize,
        source: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<()>;
    /// Queues a write of `bytes` to the start of `memory`.
    fn write(&self, role: Role, memory: &Self::Memory, bytes: &[u8]);
    /// Queues a read of the first `bytes` of `memory`.
    fn read(&self, role: Role, memory: &Self::Memory, bytes: usize) -> Self::Pending;
    /// Waits for a read and returns its bytes.
    ///
    /// # Errors
    /// [`Error::Device`] if anything failed that was queued before.
    fn wait(&self, pending: Self::Pending) -> Result<Vec<u8>>;
    /// Orders two streams: work queued on `after` from now on runs after the work queued on `before` so far.
    fn order(&self, before: Stream, after: Stream);
    /// Queues a kernel; `parameters` are the bytes of its parameter struct.
    fn launch(&self, stream: Stream, launch: &Launch, parameters: &[u8]);
    /// Queues a matrix product. False, and nothing is queued, if the runtime has no algorithm for it.
    #[must_use]
    fn matmul(&self, role: Role, matmul: &Matmul) -> bool;
    /// Queues a copy of the first `bytes` on a role's stream, possibly to the other role's memory. Not allowed within
    /// [`GpuRuntime::replay`].
    fn copy(&self, role: Role, from: &Self::Memory, to: &Self::Memory, bytes: usize);
    /// A point in the order of a role's main stream.
    fn mark(&self, role: Role) -> Self::Mark;
    /// Seconds from one mark to a later one; waits for both.
    ///
    /// # Errors
    /// [`Error::Device`] if anything failed that was queued before.
    fn seconds(&self, from: &Self::Mark, to: &Self::Mark) -> Result<f64>;
    /// Queues the work that `record` queues by launches and products, ordered by [`GpuRuntime::order`]. It begins on the
    /// expert's main stream, and ends there: that stream runs after all others. A runtime that can replays what it
    /// recorded under the same key.
    fn replay(&self, key: u64, record: &mut dyn FnMut());
    /// Whether each role has its own memory, on two GPUs. Kernels and products then access only the memory of their
    /// role.
    fn is_split(&self) -> bool;
    /// The memory of a role.
    ///
    /// # Errors
    /// [`Error::Device`] if the runtime does not answer.
    fn memory_info(&self, role: Role) -> Result<MemoryInfo>;
    /// Multiprocessors of a role's GPU, which share the blocks of a launch; at least 1.
    fn multiprocessors(&self, role: Role) -> usize;
    /// Whether the runtime chooses product algorithms and records steps per number of rows, so that a warm-up pays.
    fn warms_up(&self) -> bool {
        false
    }
    /// Bytes that a role's memory must keep free for recordings that are still to come.
    fn recording_bytes(&self, _role: Role) -> usize {
        0
    }
    /// Whether a step should be queued before the results of the one before are known.
    fn runs_ahead(&self) -> bool;
    /// See [`Device::profile`](crate::device::Device::profile).
    ///
    /// # Errors
    /// Where there is no profiler.
    fn profile(&self, _is_on: bool) -> Result<()> {
        Err(Error::Setting(NO_PROFILER.to_owned()))
    }
}
