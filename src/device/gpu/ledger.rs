//! A runtime that only counts the memory that is asked of it. It tells what a pair needs without loading it.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::device::MemoryInfo;
use crate::device::gpu::runtime::{GpuRuntime, Launch, Matmul, Role, Stream};
use crate::error::Result;

/// The count.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Bytes of each [`Role`].
    bytes: [AtomicUsize; 2],
    is_split: bool,
}

impl Ledger {
    /// A count of zero. With `is_split` each role has its own memory.
    pub fn new(is_split: bool) -> Self {
        Self { bytes: Default::default(), is_split }
    }

    /// Bytes that a role asked for so far, each allocation rounded up to its alignment.
    pub fn bytes(&self, role: Role) -> usize {
        self.bytes[role as usize].load(Ordering::Relaxed)
    }
}

impl GpuRuntime for Ledger {
    type Memory = ();
    type Pending = ();
    type Mark = ();

    fn describe(&self) -> String {
        "a count of memory".to_owned()
    }

    fn allocate(&self, role: Role, bytes: usize) -> Result<()> {
        self.bytes[role as usize].fetch_add(bytes.next_multiple_of(256), Ordering::Relaxed);
        Ok(())
    }

    fn address(&self, (): &()) -> u64 {
        0
    }

    fn fill(&self, _: Role, (): &(), _: usize, _: &mut dyn FnMut(usize, &mut [u8])) -> Result<()> {
        Ok(())
    }

    fn write(&self, _: Role, (): &(), _: &[u8]) {}

    fn read(&self, _: Role, (): &(), _: usize) {}

    fn wait(&self, (): ()) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn order(&self, _: Stream, _: Stream) {}

    fn launch(&self, _: Stream, _: &Launch, _: &[u8]) {}

    fn matmul(&self, _: Role, _: &Matmul) -> bool {
        true
    }

    fn copy(&self, _: Role, (): &(), (): &(), _: usize) {}

    fn mark(&self, _: Role) {}

    fn seconds(&self, (): &(), (): &()) -> Result<f64> {
        Ok(0.0)
    }

    fn replay(&self, _: u64, record: &mut dyn FnMut()) {
        record();
    }

    fn is_split(&self) -> bool {
        self.is_split
    }

    fn memory_info(&self, _: Role) -> Result<MemoryInfo> {
        Ok(MemoryInfo { free: 0, total: 0 })
    }

    fn multiprocessors(&self, _: Role) -> usize {
        1
    }

    fn runs_ahead(&self) -> bool {
        false
    }
}
