//! A machine that does nothing but count the memory that is asked of it: what a pair takes, without loading it.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::device::MemoryInfo;
use crate::device::gpu::runtime::{Lane, Launch, Machine, Matmul};
use crate::error::Result;

/// The count.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By [`Lane`].
    bytes: [AtomicUsize; 2],
    is_split: bool,
}

impl Ledger {
    /// Nothing yet, on a machine whose lanes have memory apart if it `is_split`.
    pub fn new(is_split: bool) -> Self {
        Self { bytes: Default::default(), is_split }
    }

    /// Bytes that were asked for on a lane so far, each piece rounded up to its alignment.
    pub fn bytes(&self, lane: Lane) -> usize {
        self.bytes[lane as usize].load(Ordering::Relaxed)
    }
}

impl Machine for Ledger {
    type Memory = ();
    type Pending = ();
    type Mark = ();

    fn describe(&self) -> String {
        "a count of memory".to_owned()
    }

    fn allocate(&self, lane: Lane, bytes: usize) -> Result<()> {
        self.bytes[lane as usize].fetch_add(bytes.next_multiple_of(256), Ordering::Relaxed);
        Ok(())
    }

    fn address(&self, (): &()) -> u64 {
        0
    }

    fn fill(&self, _: Lane, (): &(), _: usize, _: &mut dyn FnMut(usize, &mut [u8])) -> Result<()> {
        Ok(())
    }

    fn write(&self, _: Lane, (): &(), _: &[u8]) {}

    fn read(&self, _: Lane, (): &(), _: usize) {}

    fn wait(&self, (): ()) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn fork(&self) {}

    fn join(&self) {}

    fn launch(&self, _: Lane, _: &Launch, _: &[u8]) {}

    fn matmul(&self, _: Lane, _: &Matmul) {}

    fn copy(&self, _: Lane, (): &(), (): &(), _: usize) {}

    fn mark(&self, _: Lane) {}

    fn seconds(&self, (): &(), (): &()) -> Result<f64> {
        Ok(0.0)
    }

    fn replay(&self, _: u64, record: &mut dyn FnMut()) {
        record();
    }

    fn is_split(&self) -> bool {
        self.is_split
    }

    fn memory_info(&self, _: Lane) -> Result<MemoryInfo> {
        Ok(MemoryInfo { free: 0, total: 0 })
    }

    fn runs_ahead(&self) -> bool {
        false
    }
}
