//! CUDA streams: their order, and launches that may begin before the kernel ahead of them has ended.

use std::ffi::c_uint;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::sys::{self, CUlaunchAttributeID, CUlaunchAttributeValue};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError};

use super::failure::cannot;
use super::kernels::Kernel;
use crate::device::gpu::runtime::Launch;
use crate::error::Result;

/// A stream of a GPU.
pub struct GpuStream {
    stream: Arc<CudaStream>,
    /// The position of this stream that another stream last waited for.
    reached: CudaEvent,
    /// Whether one of our kernels was queued last.
    is_after_kernel: AtomicBool,
}

impl GpuStream {
    pub fn new(context: &Arc<CudaContext>) -> Result<Self> {
        Ok(Self {
            stream: context.new_stream().map_err(cannot("make a stream"))?,
            reached: context.new_event(None).map_err(cannot("make an event"))?,
            is_after_kernel: AtomicBool::new(false),
        })
    }

    /// The stream, for work that is not one of our kernels.
    pub fn for_other_work(&self) -> &Arc<CudaStream> {
        self.is_after_kernel.store(false, Ordering::Relaxed);
        &self.stream
    }

    /// Work queued from now on runs after the work queued on `before` so far.
    pub fn follow(&self, before: &Self) -> Result<()> {
        let recorded = before.reached.record(before.for_other_work());
        recorded
            .and_then(|()| self.for_other_work().wait(&before.reached))
            .map_err(cannot("order the streams"))
    }

    /// Queues a kernel; `parameters` are the bytes of its parameter struct.
    ///
    /// Directly after another kernel of ours, a kernel that waits for the one ahead may be launched before that one has
    /// ended (programmatic dependent launch): its blocks are placed while the other's last ones run, and all begin with
    /// the wait (`begin_kernel` in `kernels/prelude.cuh`). After anything else it is launched when that has ended.
    pub fn launch(&self, kernel: &Kernel, launch: &Launch, parameters: &[u8]) -> Result<()> {
        let &Launch { grid: [x, y, z], threads, shared_bytes, .. } = launch;
        let may_begin_early = kernel.waits && self.is_after_kernel.load(Ordering::Relaxed);
        let mut value = CUlaunchAttributeValue { pad: [0; 64] };
        value.programmaticStreamSerializationAllowed = 1;
        let id = CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        let mut attribute = sys::CUlaunchAttribute { id, pad: [0; 4], value };
        let config = sys::CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shared_bytes,
            hStream: self.stream.cu_stream(),
            attrs: &raw mut attribute,
            numAttrs: c_uint::from(may_begin_early),
        };
        let mut arguments = [parameters.as_ptr().cast_mut().cast()];
        let function = kernel.function.cu_function();
        // SAFETY: the function's module lives as long as `kernel`. Its one parameter is a struct of these bytes, which
        // are copied before this returns; the stand-in on the host refuses any other length. The memory behind its
        // addresses lives until the stream has used it, because freeing memory waits for the GPU.
        let launched = unsafe {
            sys::cuLaunchKernelEx(&raw const config, function, arguments.as_mut_ptr(), ptr::null_mut())
        };
        self.is_after_kernel.store(true, Ordering::Relaxed);
        launched.result().map_err(|error: DriverError| {
            let Launch { kernel, grid, .. } = launch;
            cannot(&format!("launch {kernel} (grid {grid:?}, {threads} threads, {shared_bytes} bytes)"))(
                error,
            )
        })
    }
}
