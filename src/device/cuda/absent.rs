//! Stands in for the GPU where the build found no nvcc.

use crate::device::MemoryInfo;
use crate::device::gpu::runtime::{GpuRuntime, Launch, Matmul, Role, Stream};
use crate::error::{Error, Result};

/// A GPU runtime that cannot exist.
pub enum Cuda {}

impl Cuda {
    /// Returns an error that says what is missing.
    ///
    /// # Errors
    /// Always.
    pub fn open(_: [usize; 2], _: bool, _: bool) -> Result<Self> {
        Err(no_kernels())
    }

    /// Returns the same error.
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

impl GpuRuntime for Cuda {
    type Memory = ();
    type Pending = ();
    type Mark = ();

    fn describe(&self) -> String {
        match *self {}
    }

    fn allocate(&self, _: Role, _: usize) -> Result<()> {
        match *self {}
    }

    fn address(&self, (): &()) -> u64 {
        match *self {}
    }

    fn fill(&self, _: Role, (): &(), _: usize, _: &mut dyn FnMut(usize, &mut [u8])) -> Result<()> {
        match *self {}
    }

    fn write(&self, _: Role, (): &(), _: &[u8]) {
        match *self {}
    }

    fn read(&self, _: Role, (): &(), _: usize) {
        match *self {}
    }

    fn wait(&self, (): ()) -> Result<Vec<u8>> {
        match *self {}
    }

    fn order(&self, _: Stream, _: Stream) {
        match *self {}
    }

    fn launch(&self, _: Stream, _: &Launch, _: &[u8]) {
        match *self {}
    }

    fn matmul(&self, _: Role, _: &Matmul) -> bool {
        match *self {}
    }

    fn copy(&self, _: Role, (): &(), (): &(), _: usize) {
        match *self {}
    }

    fn mark(&self, _: Role) {
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

    fn memory_info(&self, _: Role) -> Result<MemoryInfo> {
        match *self {}
    }

    fn multiprocessors(&self, _: Role) -> usize {
        match *self {}
    }

    fn runs_ahead(&self) -> bool {
        match *self {}
    }
}
