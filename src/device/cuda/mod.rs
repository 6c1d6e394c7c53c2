//! The GPU: a [`GpuRuntime`](super::gpu::runtime::GpuRuntime) over CUDA's driver and cuBLASLt, both loaded when one is opened.
//!
//! Without nvcc there are no kernels to run, and [`Cuda`] is a stand-in that says so. Only this folder depends on
//! whether the build found nvcc.
//!
//! No GPU has run this yet.

#[cfg(not(codit_kernels))]
mod absent;
#[cfg(codit_kernels)]
mod card;
#[cfg(codit_kernels)]
mod cublaslt;
#[cfg(codit_kernels)]
mod failure;
#[cfg(codit_kernels)]
mod graphs;
#[cfg(codit_kernels)]
mod kernels;
#[cfg(codit_kernels)]
mod matmul;
#[cfg(codit_kernels)]
mod memory;
#[cfg(codit_kernels)]
mod runtime;
#[cfg(codit_kernels)]
mod streams;
#[cfg(codit_kernels)]
mod unfinished;

#[cfg(not(codit_kernels))]
pub use absent::Cuda;
#[cfg(codit_kernels)]
pub use runtime::Cuda;

use super::gpu::{GpuConfig, GpuDevice};
use crate::error::Result;

/// The architectures that kernels were built for, such as "80" and "90a"; empty where the build found no nvcc.
pub fn architectures() -> &'static [&'static str] {
    #[cfg(codit_kernels)]
    return kernels::ARCHITECTURES;
    #[cfg(not(codit_kernels))]
    return &[];
}

/// The device.
pub type Gpu = GpuDevice<Cuda>;

impl Gpu {
    /// The GPUs of the expert and of the amateur, which may be the same, by their numbers among those that the driver
    /// shows.
    ///
    /// # Errors
    /// Those of [`Cuda::open`].
    pub fn cuda(gpus: [usize; 2], config: GpuConfig) -> Result<Self> {
        Ok(Self::new(Cuda::open(gpus, config.is_deterministic, config.has_one_stream)?, config))
    }
}
