//! The [`Machine`]: streams, events, and what the other files hold.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::{self, CUevent_flags, CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaStream, DriverError, profiler_start, profiler_stop, result,
};

use super::failure::{Failure, cannot, lock};
use super::graphs::{Graph, Graphs, State};
use super::kernels::{ARCHITECTURES, Kernels, RELEASE};
use super::matmul::Matmuls;
use super::memory::{Memory, Pending, Staging};
use crate::device::MemoryInfo;
use crate::device::launch::machine::{Lane, Launch, Machine, Matmul};
use crate::error::{Error, Result};

/// As `cuDriverGetVersion` counts: all that is called here is in CUDA 12.8 (`cuEventElapsedTime_v2` is not in 12.7).
const OLDEST_DRIVER: c_int = 12_080;

/// A GPU. What belongs to it keeps its context alive; whatever runs on it is done when this is dropped.
pub struct Cuda {
    /// Streams, one a [`Lane`].
    lanes: [Arc<CudaStream>; 2],
    forked: CudaEvent,
    joined: CudaEvent,
    kernels: Mutex<Kernels>,
    matmuls: Mutex<Matmuls>,
    graphs: Mutex<Graphs>,
    /// Whether what is queued goes into a graph.
    is_capturing: AtomicBool,
    staging: Staging,
    failure: Failure,
    context: Arc<CudaContext>,
}

impl Cuda {
    /// The first GPU that the driver shows (`CUDA_VISIBLE_DEVICES` chooses).
    ///
    /// # Errors
    /// [`Error::Device`] that says what is missing: a driver, a GPU, a newer one of either, or cuBLASLt.
    pub fn open() -> Result<Self> {
        // SAFETY: loads the driver as any use of it would.
        if !unsafe { sys::is_culib_present() } {
            return Err(unusable("there is no NVIDIA driver (libcuda.so was not found)"));
        }
        check_driver()?;
        let context = CudaContext::new(0).map_err(cannot("open the GPU"))?;
        let (major, minor) =
            context.compute_capability().map_err(cannot("ask for the GPU's architecture"))?;
        if major < 8 {
            let message = format!("the GPU's compute capability is {major}.{minor}; 8.0 or newer is needed");
            return Err(unusable(&message));
        }
        let stream = || context.new_stream().map_err(cannot("make a stream"));
        let event = || context.new_event(None).map_err(cannot("make an event"));
        Ok(Self {
            lanes: [stream()?, stream()?],
            forked: event()?,
            joined: event()?,
            kernels: Mutex::new(Kernels::load(&context)?),
            matmuls: Mutex::new(Matmuls::new(&context)?),
            graphs: Mutex::default(),
            is_capturing: AtomicBool::new(false),
            staging: Staging::new(&context),
            failure: Failure::default(),
            context,
        })
    }

    /// 0 where the driver does not say.
    fn free_bytes(&self) -> usize {
        self.context.mem_get_info().map_or(0, |(free, _)| free)
    }

    fn stream(&self, lane: Lane) -> &Arc<CudaStream> {
        &self.lanes[lane as usize]
    }

    /// What is queued on `to` from now on runs after what is queued on `from` by now.
    fn order(&self, from: Lane, to: Lane, event: &CudaEvent) {
        let (from, to) = (self.stream(from), self.stream(to));
        let ordered = event.record(from).and_then(|()| to.wait(event));
        self.failure.note(ordered.map_err(cannot("order the lanes")));
    }

    fn try_launch(&self, lane: Lane, launch: &Launch, parameters: &[u8]) -> Result<()> {
        let &Launch { kernel, grid: [x, y, z], threads, shared_bytes } = launch;
        self.context.bind_to_thread().map_err(cannot("use the GPU"))?;
        let mut kernels = lock(&self.kernels);
        let function = kernels.get(kernel)?.cu_function();
        let (grid, block, stream) = ((x, y, z), (threads, 1, 1), self.stream(lane).cu_stream());
        let mut arguments = [parameters.as_ptr().cast_mut().cast()];
        // SAFETY: the function's module lives as long as `self`. Its one parameter is a struct of these bytes, which
        // are copied before this returns: the stand-in on the host refuses any other length. What its addresses point
        // to is alive until the lane is done with it, as freeing memory waits for the GPU.
        unsafe { result::launch_kernel(function, grid, block, shared_bytes, stream, &mut arguments) }.map_err(
            cannot(&format!("launch {kernel} (grid {grid:?}, {threads} threads, {shared_bytes} bytes)")),
        )
    }

    /// What `record` queues, as a graph. All of it is queued on the first lane, or between a fork and a join.
    fn capture(&self, record: &mut dyn FnMut()) -> Result<Graph> {
        let first = self.stream(Lane::Expert);
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        first.begin_capture(mode).map_err(cannot("begin to capture a graph"))?;
        self.is_capturing.store(true, Ordering::Relaxed);
        record();
        self.is_capturing.store(false, Ordering::Relaxed);
        let graph = first.end_capture(CUgraphInstantiate_flags(0)).map_err(cannot("capture a graph"))?;
        self.failure.check()?;
        graph.map(Graph).ok_or_else(|| Error::Device("CUDA captured no graph".to_owned()))
    }
}

impl Machine for Cuda {
    type Memory = Memory;
    type Pending = Result<Pending>;
    type Mark = Result<CudaEvent>;

    fn describe(&self) -> String {
        let unknown = || "?".to_owned();
        let name = self.context.name().unwrap_or_else(|_| unknown());
        let capability = self.context.compute_capability();
        let capability = capability.map_or_else(|_| unknown(), |(major, minor)| format!("{major}.{minor}"));
        let driver =
            driver_version().map_or_else(|_| unknown(), |v| format!("{}.{}", v / 1000, v % 1000 / 10));
        let memory =
            self.memory_info(Lane::Expert).map_or(0.0, |memory| memory.total as f64 / f64::from(1 << 30));
        let architectures = ARCHITECTURES.join(", ");
        format!(
            "{name}, {memory:.1} GiB, compute capability {capability}; the driver knows CUDA {driver}; kernels built by CUDA \
             {RELEASE} for {architectures} and as PTX"
        )
    }

    fn allocate(&self, _: Lane, bytes: usize) -> Result<Memory> {
        Memory::new(&self.context, bytes)
    }

    fn address(&self, memory: &Memory) -> u64 {
        memory.address()
    }

    fn fill(
        &self,
        lane: Lane,
        memory: &Memory,
        bytes: usize,
        source: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<()> {
        self.staging.fill(self.stream(lane), memory, bytes, source)
    }

    fn write(&self, lane: Lane, memory: &Memory, bytes: &[u8]) {
        self.failure.note(self.staging.write(self.stream(lane), memory, bytes));
    }

    fn read(&self, lane: Lane, memory: &Memory, bytes: usize) -> Result<Pending> {
        self.staging.read(self.stream(lane), memory, bytes)
    }

    fn wait(&self, pending: Result<Pending>) -> Result<Vec<u8>> {
        let read = self.failure.note(pending.and_then(|pending| self.staging.wait(pending)));
        self.failure.check()?;
        Ok(read.unwrap_or_default())
    }

    fn fork(&self) {
        self.order(Lane::Expert, Lane::Amateur, &self.forked);
    }

    fn join(&self) {
        self.order(Lane::Amateur, Lane::Expert, &self.joined);
    }

    fn launch(&self, lane: Lane, launch: &Launch, parameters: &[u8]) {
        // CUDA refuses a launch of nothing.
        if launch.grid.iter().all(|blocks| *blocks > 0) {
            self.failure.note(self.try_launch(lane, launch, parameters));
        }
    }

    fn matmul(&self, lane: Lane, matmul: &Matmul) {
        if matmul.rows > 0 {
            let may_wait = !self.is_capturing.load(Ordering::Relaxed);
            let queued = lock(&self.matmuls).queue(self.stream(lane), lane as usize, matmul, may_wait);
            self.failure.note(queued);
        }
    }

    fn copy(&self, lane: Lane, from: &Memory, to: &Memory, bytes: usize) {
        self.failure.note(from.copy_to(to, bytes, self.stream(lane)));
    }

    fn mark(&self, lane: Lane) -> Result<CudaEvent> {
        let event = self.stream(lane).record_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        event.map_err(cannot("record an event"))
    }

    fn seconds(&self, from: &Result<CudaEvent>, to: &Result<CudaEvent>) -> Result<f64> {
        self.failure.check()?;
        match (from, to) {
            (Ok(from), Ok(to)) => {
                let milliseconds = from.elapsed_ms(to).map_err(cannot("compute"))?;
                Ok(f64::from(milliseconds) / 1e3)
            }
            (Err(error), _) | (_, Err(error)) => Err(Error::Device(error.to_string())),
        }
    }

    /// Queues it directly the first time, captures it the second, and replays it from then on.
    fn replay(&self, key: u64, record: &mut dyn FnMut()) {
        let launch = |graph: &Graph| self.failure.note(graph.0.launch().map_err(cannot("launch a graph")));
        let mut graphs = lock(&self.graphs);
        match graphs.get(key) {
            None => {
                record();
                graphs.set(key, State::Warm);
            }
            Some(State::Warm) => {
                let free = self.free_bytes();
                let Some(graph) = self.failure.note(self.capture(record)) else { return };
                // The first launch places it in memory.
                launch(&graph);
                graphs.set(key, State::Captured(graph));
                graphs.took(free.saturating_sub(self.free_bytes()));
            }
            Some(State::Captured(graph)) => {
                launch(graph);
            }
        }
    }

    fn warms_up(&self) -> bool {
        true
    }

    fn recording_bytes(&self, _: Lane) -> usize {
        lock(&self.graphs).to_come()
    }

    fn memory_info(&self, _: Lane) -> Result<MemoryInfo> {
        let (free, total) = self.context.mem_get_info().map_err(cannot("ask for its memory"))?;
        Ok(MemoryInfo { free, total })
    }

    fn runs_ahead(&self) -> bool {
        true
    }

    fn profile(&self, is_on: bool) -> Result<()> {
        let switch = if is_on { profiler_start } else { profiler_stop };
        self.context.synchronize().and_then(|()| switch()).map_err(cannot("switch the profiler"))
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        self.context.record_err(self.context.synchronize());
    }
}

/// That the driver works, has a GPU, and is no older than the kernels.
fn check_driver() -> Result<()> {
    match result::init() {
        Ok(()) => {}
        Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => {
            return Err(unusable("the NVIDIA driver shows no GPU"));
        }
        Err(DriverError(reason)) => {
            return Err(unusable(&format!("the NVIDIA driver does not start: {reason:?}")));
        }
    }
    let version = driver_version()?;
    let needed =
        RELEASE.split('.').next().and_then(|major| major.parse().ok()).map_or(0, |major: c_int| 1000 * major);
    if version < needed.max(OLDEST_DRIVER) {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        let message = format!(
            "the NVIDIA driver supports CUDA {major}.{minor}; CUDA 12.8 is needed, and that of the nvcc that built the \
             kernels, {RELEASE}. Install a newer driver, or build with an older nvcc (CUDA_HOME)"
        );
        return Err(unusable(&message));
    }
    Ok(())
}

/// As `cuDriverGetVersion` counts: 1000 times the major release and 10 times the minor.
fn driver_version() -> Result<c_int> {
    let mut version: c_int = 0;
    // SAFETY: the number is valid for a write.
    let asked = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    asked.result().map_err(cannot("ask for the driver's version"))?;
    Ok(version)
}

fn unusable(reason: &str) -> Error {
    Error::Device(format!("no GPU can be used: {reason}. --device cpu does without"))
}
