//! Stands in for the GPU where the build found no nvcc.

use crate::device::MemoryInfo;
use crate::device::gpu::runtime::{Lane, Launch, Machine, Matmul};
use crate::error::{Error, Result};

/// There is none.
pub enum Cuda {}

impl Cuda {
    /// Says what is missing.
    ///
    /// # Errors
    /// Always.
    pub fn open(_: [usize; 2], _: bool) -> Result<Self> {
        Err(no_kernels())
    }

    /// The same.
    ///
    /// # Errors
    /// Always.
    pub fn count() -> Result<usize> {
        Err(no_kernels())
    }
}

fn no_kernels() -> Error {
    let message = "this codit was built without GPU kernels: its build found no nvcc. Run kernels/toolchain.sh, or set \
                   CUDA_HOME to an installed CUDA toolkit, and build again";
    Error::Device(message.to_owned())
}

impl Machine for Cuda {
    type Memory = ();
    type Pending = ();
    type Mark = ();

    fn describe(&self) -> String {
        match *self {}
    }

    fn allocate(&self, _: Lane, _: usize) -> Result<()> {
        match *self {}
    }

    fn address(&self, (): &()) -> u64 {
        match *self {}
    }

    fn fill(&self, _: Lane, (): &(), _: usize, _: &mut dyn FnMut(usize, &mut [u8])) -> Result<()> {
        match *self {}
    }

    fn write(&self, _: Lane, (): &(), _: &[u8]) {
        match *self {}
    }

    fn read(&self, _: Lane, (): &(), _: usize) {
        match *self {}
    }

    fn wait(&self, (): ()) -> Result<Vec<u8>> {
        match *self {}
    }

    fn fork(&self) {
        match *self {}
    }

    fn join(&self) {
        match *self {}
    }

    fn launch(&self, _: Lane, _: &Launch, _: &[u8]) {
        match *self {}
    }

    fn matmul(&self, _: Lane, _: &Matmul) {
        match *self {}
    }

    fn copy(&self, _: Lane, (): &(), (): &(), _: usize) {
        match *self {}
    }

    fn mark(&self, _: Lane) {
        match *self {}
    }

    fn seconds(&self, (): &(), (): &()) -> Result<f64> {
        match *self {}
    }

    fn replay(&self, _: u64, _: &mut dyn FnMut()) {
        match *self {}
    }

    fn is_split(&self) -> bool {
        match *self {}
    }

    fn memory_info(&self, _: Lane) -> Result<MemoryInfo> {
        match *self {}
    }

    fn runs_ahead(&self) -> bool {
        match *self {}
    }
}
