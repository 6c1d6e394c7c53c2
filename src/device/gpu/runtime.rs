//! What a runtime that runs kernels must offer: memory, two streams of execution, launches, matrix products.

use crate::device::info::{MemoryInfo, NO_PROFILER};
use crate::device::number::dtype::Dtype;
pub use crate::device::types::role::Role;
use crate::error::{Error, Result};

/// A kernel's launch geometry.
#[derive(Debug, Clone, Copy)]
pub struct Launch {
    /// The kernel's name in `kernels/*.cu`.
    pub kernel: &'static str,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory a block.
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
    /// Address.
    pub x: u64,
    /// Address.
    pub weight: u64,
    /// Address.
    pub bias: Option<u64>,
    /// Address.
    pub out: u64,
}

/// Bytes that a library of matrix products may use on each stream: NVIDIA's advice for Hopper, and more than enough for other
/// GPUs.
pub const MATMUL_WORKSPACE: usize = 32 << 20;

/// A runtime that runs kernels: the GPU, or its stand-in on the host.
///
/// What is queued runs later; a failure of it is kept and reported by the next [`GpuRuntime::wait`].
pub trait GpuRuntime: Send + Sync + 'static {
    /// Memory of the runtime, freed when dropped, aligned to 256 bytes.
    type Memory: Send + Sync;
    /// Bytes on their way to the host.
    type Pending: Send + Sync;
    /// A point in time.
    type Mark: Send + Sync;

    /// What it is, in a line for people.
    fn describe(&self) -> String;
    /// Takes memory of a role, of any content.
    ///
    /// # Errors
    /// [`Error::Device`] where there is too little.
    fn allocate(&self, role: Role, bytes: usize) -> Result<Self::Memory>;
    /// Where the kernels find it.
    fn address(&self, memory: &Self::Memory) -> u64;
    /// Fills the first `bytes` of `memory`, a piece at a time, by `source`, which is given each piece and where it
    /// begins. May be called from several threads. Done when it returns.
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
    /// The bytes of a read, once they are there.
    ///
    /// # Errors
    /// [`Error::Device`] if anything failed that was queued before.
    fn wait(&self, pending: Self::Pending) -> Result<Vec<u8>>;
    /// What is queued on the amateur's stream from now on runs after what is queued on the expert's by now.
    fn fork(&self);
    /// What is queued on the expert's stream from now on runs after what is queued on the amateur's by now.
    fn join(&self);
    /// Queues a kernel, whose parameters are `parameters`: the bytes of its parameter struct.
    fn launch(&self, role: Role, launch: &Launch, parameters: &[u8]);
    /// Queues a matrix product.
    fn matmul(&self, role: Role, matmul: &Matmul);
    /// Queues a copy of the first `bytes` on a role's stream, to the other role's memory too; not within
    /// [`GpuRuntime::replay`].
    fn copy(&self, role: Role, from: &Self::Memory, to: &Self::Memory, bytes: usize);
    /// A point in the order of a role's stream.
    fn mark(&self, role: Role) -> Self::Mark;
    /// Seconds from one mark to a later one; waits for both.
    ///
    /// # Errors
    /// [`Error::Device`] if anything failed that was queued before.
    fn seconds(&self, from: &Self::Mark, to: &Self::Mark) -> Result<f64>;
    /// Queues what `record` queues, by launches, products, forks and joins alone; where the runtime can, by replaying
    /// what it recorded under the same key.
    fn replay(&self, key: u64, record: &mut dyn FnMut());
    /// Whether the roles have memory apart: then kernels and products find only that of their own role.
    fn is_split(&self) -> bool;
    /// The memory of a role.
    ///
    /// # Errors
    /// [`Error::Device`] if the runtime does not answer.
    fn memory_info(&self, role: Role) -> Result<MemoryInfo>;
    /// Whether it chooses algorithms for products and records steps, a number of rows at a time.
    fn warms_up(&self) -> bool {
        false
    }
    /// Bytes that a role's memory must have left for what is still to be recorded.
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
