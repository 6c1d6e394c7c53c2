//! Memory of the GPU, and pinned memory of the host for copies.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, PinnedHostSlice, result};

use super::failure::{cannot, lock};
use crate::error::{Error, Result};

/// Bytes on the GPU, freed when dropped. cuMemAlloc aligns them to at least 256.
pub struct Memory {
    address: u64,
    bytes: usize,
    context: Arc<CudaContext>,
}

impl Memory {
    /// Allocates bytes with arbitrary contents.
    pub fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self> {
        context.bind_to_thread().map_err(cannot("use the GPU"))?;
        // SAFETY: plain bytes; they are read only after a copy or a kernel wrote them.
        match unsafe { result::malloc_sync(bytes.max(1)) } {
            Ok(address) => Ok(Self { address, bytes, context: Arc::clone(context) }),
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Err(too_little(context, bytes)),
            Err(error) => Err(cannot("allocate memory")(error)),
        }
    }

    /// The address for kernels.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Queues a copy of the first `bytes`, possibly to another GPU. A copy between GPUs must not be captured: graphs
    /// do not accept cuMemcpyPeerAsync.
    pub fn copy_to(&self, to: &Self, bytes: usize, stream: &CudaStream) -> Result<()> {
        check(self, bytes)?;
        check(to, bytes)?;
        stream.context().bind_to_thread().map_err(cannot("use the GPU"))?;
        let [own, other] = [self, to].map(|memory| memory.context.cu_ctx());
        let stream = stream.cu_stream();
        // SAFETY: both allocations are at least that long, in these contexts. Freeing either waits for its GPU.
        unsafe {
            if own == other {
                result::memcpy_dtod_async(to.address, self.address, bytes, stream)
            } else {
                result::memcpy_peer_async(other, to.address, own, self.address, bytes, stream)
            }
        }
        .map_err(cannot("copy"))
    }

    /// Queues zeroing of all bytes.
    pub fn clear(&self, stream: &CudaStream) -> Result<()> {
        self.context.bind_to_thread().map_err(cannot("use the GPU"))?;
        // SAFETY: the allocation has that length.
        unsafe { result::memset_d8_async(self.address, 0, self.bytes, stream.cu_stream()) }
            .map_err(cannot("clear memory"))
    }

    /// The number of bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let bound = self.context.bind_to_thread();
        // SAFETY: cuMemAlloc returned the address, and it is freed once. cuMemFree waits for work that uses it.
        self.context.record_err(bound.and_then(|()| unsafe { result::free_sync(self.address) }));
    }
}

fn too_little(context: &CudaContext, bytes: usize) -> Error {
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    let left = context.mem_get_info().map_or_else(
        |_| String::new(),
        |(free, total)| format!(" of which {} of {} MiB are free", mib(free), mib(total)),
    );
    Error::Device(format!(
        "GPU {} has too little memory: {} MiB more are needed,{left}. Other programs may hold some of it; \
         a smaller kv-cache-memory, max-num-seqs or max-num-batched-tokens needs less",
        context.ordinal(),
        mib(bytes)
    ))
}

/// Copies between host and GPU through pinned memory. The GPU accesses pinned memory by itself, so the host waits
/// only for results that it needs.
pub struct Staging {
    /// Buffers with their last copies, which may still be running.
    buffers: Mutex<Vec<Buffer>>,
    context: Arc<CudaContext>,
}

/// Bytes that are being copied to the host.
pub struct Pending {
    buffer: Buffer,
    bytes: usize,
}

impl Staging {
    /// The most copies at once before a write waits for one. A step makes two.
    const MOST_BUFFERS: usize = 32;
    /// Bytes that [`Staging::fill`] copies at once.
    const PIECE: usize = 8 << 20;

    pub fn new(context: &Arc<CudaContext>) -> Self {
        Self { buffers: Mutex::default(), context: Arc::clone(context) }
    }

    /// Queues a copy of `bytes` to the start of `memory`.
    pub fn write(&self, stream: &CudaStream, memory: &Memory, bytes: &[u8]) -> Result<()> {
        let mut buffer = self.take(bytes.len())?;
        buffer.bytes()?[..bytes.len()].copy_from_slice(bytes);
        buffer.send(stream, memory, 0, bytes.len())?;
        self.give_back(buffer);
        Ok(())
    }

    /// Copies the pieces that `source` writes; the next piece is written while one is copied. Waits for the last.
    pub fn fill(
        &self,
        stream: &CudaStream,
        memory: &Memory,
        bytes: usize,
        source: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<()> {
        let mut under_way = VecDeque::new();
        for offset in (0..bytes).step_by(Self::PIECE) {
            let len = Self::PIECE.min(bytes - offset);
            let mut buffer = self.take(len)?;
            source(offset, &mut buffer.bytes()?[..len]);
            buffer.send(stream, memory, offset, len)?;
            under_way.push_back(buffer);
            if under_way.len() == 2 {
                self.finish(under_way.pop_front())?;
            }
        }
        self.finish(under_way.pop_front())
    }

    /// Queues a copy of the first `bytes` of `memory` to the host.
    pub fn read(&self, stream: &CudaStream, memory: &Memory, bytes: usize) -> Result<Pending> {
        let mut buffer = self.take(bytes)?;
        buffer.receive(stream, memory, bytes)?;
        Ok(Pending { buffer, bytes })
    }

    /// Waits for a read and returns its bytes.
    pub fn wait(&self, pending: Pending) -> Result<Vec<u8>> {
        let Pending { mut buffer, bytes } = pending;
        buffer.wait()?;
        let read = buffer.bytes()?[..bytes].to_vec();
        self.give_back(buffer);
        Ok(read)
    }

    fn finish(&self, buffer: Option<Buffer>) -> Result<()> {
        let Some(buffer) = buffer else { return Ok(()) };
        buffer.wait()?;
        self.give_back(buffer);
        Ok(())
    }

    /// A buffer of at least `bytes` without a running copy: a used one, or a new one while there are few.
    fn take(&self, bytes: usize) -> Result<Buffer> {
        let mut buffers = lock(&self.buffers);
        let is_free = |buffer: &Buffer| buffer.capacity() >= bytes && buffer.is_done();
        if let Some(index) = buffers.iter().position(is_free) {
            return Ok(buffers.remove(index));
        }
        if buffers.len() >= Self::MOST_BUFFERS {
            let oldest = buffers.remove(0);
            drop(buffers);
            oldest.wait()?;
            if oldest.capacity() >= bytes {
                return Ok(oldest);
            }
        } else {
            drop(buffers);
        }
        Buffer::new(&self.context, bytes)
    }

    fn give_back(&self, buffer: Buffer) {
        lock(&self.buffers).push(buffer);
    }
}

/// Pinned memory, and the event of its last copy.
struct Buffer {
    bytes: PinnedHostSlice<u8>,
    done: CudaEvent,
}

impl Buffer {
    fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self> {
        let bytes = bytes.next_power_of_two().max(64 << 10);
        let done = context.new_event(None).map_err(cannot("make an event"))?;
        // SAFETY: the memory is written before anything reads it, by the host or by the copy that `done` waits for.
        let bytes = unsafe { context.alloc_pinned_with_flags::<u8>(bytes, 0) };
        let mut bytes = bytes.map_err(cannot("pin memory of the host"))?;
        bytes.as_mut_slice().map_err(cannot("use pinned memory"))?.fill(0);
        Ok(Self { bytes, done })
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes, for the host. Only allowed while no copy runs.
    fn bytes(&mut self) -> Result<&mut [u8]> {
        self.bytes.as_mut_slice().map_err(cannot("use pinned memory"))
    }

    fn send(&mut self, stream: &CudaStream, memory: &Memory, offset: usize, bytes: usize) -> Result<()> {
        check(memory, offset + bytes)?;
        stream.context().bind_to_thread().map_err(cannot("use the GPU"))?;
        let source = &self.bytes.as_slice().map_err(cannot("use pinned memory"))?[..bytes];
        // SAFETY: the range lies within the allocation; the source is not touched or freed before `done`.
        unsafe { result::memcpy_htod_async(memory.address + offset as u64, source, stream.cu_stream()) }
            .and_then(|()| self.done.record(stream))
            .map_err(cannot("copy to the GPU"))
    }

    fn receive(&mut self, stream: &CudaStream, memory: &Memory, bytes: usize) -> Result<()> {
        check(memory, bytes)?;
        stream.context().bind_to_thread().map_err(cannot("use the GPU"))?;
        let target = &mut self.bytes.as_mut_slice().map_err(cannot("use pinned memory"))?[..bytes];
        // SAFETY: the range lies within the allocation; the target is not touched or freed before `done`.
        unsafe { result::memcpy_dtoh_async(target, memory.address, stream.cu_stream()) }
            .and_then(|()| self.done.record(stream))
            .map_err(cannot("copy from the GPU"))
    }

    fn is_done(&self) -> bool {
        self.done.is_complete()
    }

    fn wait(&self) -> Result<()> {
        self.done.synchronize().map_err(cannot("compute"))
    }
}

impl Drop for Buffer {
    /// The copy must not outlive its memory.
    fn drop(&mut self) {
        self.done.context().record_err(self.done.synchronize());
    }
}

fn check(memory: &Memory, end: usize) -> Result<()> {
    if end <= memory.bytes {
        return Ok(());
    }
    let bytes = memory.bytes;
    Err(Error::Device(format!(
        "internal error: a copy of {end} bytes where there are {bytes}; please report this"
    )))
}
