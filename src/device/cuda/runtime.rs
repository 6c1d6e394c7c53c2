//! The [`GpuRuntime`] over CUDA: two streams, on one GPU or on two, and the order of their work.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaEvent, CudaStream, profiler_start, profiler_stop, result};

use super::card::{Card, describe_driver};
use super::failure::{Failure, cannot, lock};
use super::graphs::{Graph, Graphs, State};
use super::memory::{Memory, Pending};
use crate::device::MemoryInfo;
use crate::device::gpu::runtime::{GpuRuntime, Launch, MATMUL_WORKSPACE, Matmul, Role};
use crate::error::{Error, Result};

/// One GPU for both models, or one for each.
pub struct Cuda {
    /// The stream of each [`Role`].
    streams: [GpuStream; 2],
    graphs: Mutex<Graphs>,
    /// Whether queued work is being captured in a graph.
    is_capturing: AtomicBool,
    failure: Failure,
}

/// The stream of a role, and its GPU.
struct GpuStream {
    stream: Arc<CudaStream>,
    /// The position of this stream that the other stream last waited for.
    reached: CudaEvent,
    /// The workspace of the stream's matrix products.
    workspace: Memory,
    card: Arc<Card>,
}

impl GpuStream {
    fn new(card: Arc<Card>) -> Result<Self> {
        Ok(Self {
            stream: card.context.new_stream().map_err(cannot("make a stream"))?,
            reached: card.context.new_event(None).map_err(cannot("make an event"))?,
            workspace: Memory::new(&card.context, MATMUL_WORKSPACE)?,
            card,
        })
    }
}

impl Cuda {
    /// The GPUs of the expert and of the amateur, which may be the same, by their numbers among those that the driver
    /// shows. A product's row has the same bits whatever the number of rows beside it if the runtime `is_deterministic`.
    ///
    /// # Errors
    /// [`Error::Device`] that says what is missing: a driver, a GPU, a newer one of either, or cuBLASLt;
    /// [`Error::Setting`] if there are fewer GPUs.
    pub fn open([expert, amateur]: [usize; 2], is_deterministic: bool) -> Result<Self> {
        let open = |gpu| Card::open(gpu, is_deterministic).map(Arc::new);
        let first = open(expert)?;
        let second = if expert == amateur { Arc::clone(&first) } else { open(amateur)? };
        if expert != amateur {
            first.connect(&second);
        }
        Ok(Self {
            streams: [GpuStream::new(first)?, GpuStream::new(second)?],
            graphs: Mutex::default(),
            is_capturing: AtomicBool::new(false),
            failure: Failure::default(),
        })
    }

    /// How many GPUs the driver shows.
    ///
    /// # Errors
    /// [`Error::Device`] if none can be used.
    pub fn count() -> Result<usize> {
        super::card::count()
    }

    fn stream(&self, role: Role) -> &GpuStream {
        &self.streams[role as usize]
    }

    /// Free bytes of each role's GPU; 0 where the driver does not say.
    fn free_bytes(&self) -> [usize; 2] {
        self.streams.each_ref().map(|stream| stream.card.memory_info().map_or(0, |memory| memory.free))
    }

    /// The GPUs, each once.
    fn cards(&self) -> impl Iterator<Item = &Card> {
        let count = if self.is_split() { 2 } else { 1 };
        self.streams[..count].iter().map(|stream| &*stream.card)
    }

    /// Orders the streams: work queued on `to` from now on runs after the work queued on `from` so far.
    fn order(&self, from: Role, to: Role) {
        let (from, to) = (self.stream(from), self.stream(to));
        let ordered = from.reached.record(&from.stream).and_then(|()| to.stream.wait(&from.reached));
        self.failure.note(ordered.map_err(cannot("order the streams")));
    }

    fn try_launch(&self, role: Role, launch: &Launch, parameters: &[u8]) -> Result<()> {
        let &Launch { kernel, grid: [x, y, z], threads, shared_bytes } = launch;
        let GpuStream { card, stream, .. } = self.stream(role);
        card.context.bind_to_thread().map_err(cannot("use the GPU"))?;
        let mut kernels = lock(&card.kernels);
        let function = kernels.get(kernel)?.cu_function();
        let (grid, block, stream) = ((x, y, z), (threads, 1, 1), stream.cu_stream());
        let mut arguments = [parameters.as_ptr().cast_mut().cast()];
        // SAFETY: the function's module lives as long as `self`. Its one parameter is a struct of these bytes, which
        // are copied before this returns; the stand-in on the host refuses any other length. The memory behind its
        // addresses lives until the stream has used it, because freeing memory waits for the GPU.
        unsafe { result::launch_kernel(function, grid, block, shared_bytes, stream, &mut arguments) }.map_err(
            cannot(&format!("launch {kernel} (grid {grid:?}, {threads} threads, {shared_bytes} bytes)")),
        )
    }

    /// Captures the work that `record` queues as a graph. `record` queues on the expert's stream, or on either stream
    /// between a fork and a join. The graph spans both GPUs if the streams are on two.
    fn capture(&self, record: &mut dyn FnMut()) -> Result<Graph> {
        let first = &self.stream(Role::Expert).stream;
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

impl GpuRuntime for Cuda {
    type Memory = Memory;
    type Pending = Result<(Role, Pending)>;
    type Mark = Result<CudaEvent>;

    fn describe(&self) -> String {
        let cards: Vec<String> = self.cards().map(Card::describe).collect();
        format!("{}; {}", cards.join("; "), describe_driver())
    }

    fn allocate(&self, role: Role, bytes: usize) -> Result<Memory> {
        Memory::new(&self.stream(role).card.context, bytes)
    }

    fn address(&self, memory: &Memory) -> u64 {
        memory.address()
    }

    fn fill(
        &self,
        role: Role,
        memory: &Memory,
        bytes: usize,
        source: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<()> {
        let GpuStream { card, stream, .. } = self.stream(role);
        card.staging.fill(stream, memory, bytes, source)
    }

    fn write(&self, role: Role, memory: &Memory, bytes: &[u8]) {
        let GpuStream { card, stream, .. } = self.stream(role);
        self.failure.note(card.staging.write(stream, memory, bytes));
    }

    fn read(&self, role: Role, memory: &Memory, bytes: usize) -> Self::Pending {
        let GpuStream { card, stream, .. } = self.stream(role);
        Ok((role, card.staging.read(stream, memory, bytes)?))
    }

    fn wait(&self, pending: Self::Pending) -> Result<Vec<u8>> {
        let read = pending.and_then(|(role, pending)| self.stream(role).card.staging.wait(pending));
        let read = self.failure.note(read);
        self.failure.check()?;
        Ok(read.unwrap_or_default())
    }

    fn fork(&self) {
        self.order(Role::Expert, Role::Amateur);
    }

    fn join(&self) {
        self.order(Role::Amateur, Role::Expert);
    }

    fn launch(&self, role: Role, launch: &Launch, parameters: &[u8]) {
        // CUDA refuses an empty grid.
        if launch.grid.iter().all(|blocks| *blocks > 0) {
            self.failure.note(self.try_launch(role, launch, parameters));
        }
    }

    fn matmul(&self, role: Role, matmul: &Matmul) -> bool {
        if matmul.rows == 0 {
            return true;
        }
        let may_wait = !self.is_capturing.load(Ordering::Relaxed);
        let GpuStream { card, stream, workspace, .. } = self.stream(role);
        let queued = lock(&card.matmuls).queue(stream, workspace, matmul, may_wait);
        // A failure ends the run; nothing else need be tried.
        let is_queued = *queued.as_ref().unwrap_or(&true);
        self.failure.note(queued.map(drop));
        is_queued
    }

    fn copy(&self, role: Role, from: &Memory, to: &Memory, bytes: usize) {
        self.failure.note(from.copy_to(to, bytes, &self.stream(role).stream));
    }

    fn mark(&self, role: Role) -> Result<CudaEvent> {
        let event = self.stream(role).stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
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

    /// Queues the work directly the first time, captures it the second time, and replays the graph from then on.
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
                // The first launch uploads the graph to the GPU.
                launch(&graph);
                graphs.set(key, State::Captured(graph));
                let left = self.free_bytes();
                graphs.took([0, 1].map(|role| free[role].saturating_sub(left[role])));
            }
            Some(State::Captured(graph)) => {
                launch(graph);
            }
        }
    }

    fn warms_up(&self) -> bool {
        true
    }

    fn recording_bytes(&self, role: Role) -> usize {
        lock(&self.graphs).to_come(role)
    }

    fn is_split(&self) -> bool {
        let [expert, amateur] = &self.streams;
        !Arc::ptr_eq(&expert.card, &amateur.card)
    }

    fn memory_info(&self, role: Role) -> Result<MemoryInfo> {
        self.stream(role).card.memory_info()
    }

    fn multiprocessors(&self, role: Role) -> usize {
        self.stream(role).card.multiprocessors
    }

    fn runs_ahead(&self) -> bool {
        true
    }

    fn profile(&self, is_on: bool) -> Result<()> {
        let switch = if is_on { profiler_start } else { profiler_stop };
        let synchronized = self.cards().try_for_each(|card| card.context.synchronize());
        synchronized.and_then(|()| switch()).map_err(cannot("switch the profiler"))
    }
}

/// Work that runs is finished before its memory is freed.
impl Drop for Cuda {
    fn drop(&mut self) {
        for card in self.cards() {
            card.context.record_err(card.context.synchronize());
        }
    }
}
