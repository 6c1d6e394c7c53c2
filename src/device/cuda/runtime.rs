//! The [`GpuRuntime`] over CUDA: two streams for each role, on one GPU or on two, and the order of their work.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaEvent, DriverError, profiler_start, profiler_stop};

use super::card::{Card, describe_driver};
use super::failure::{Failure, cannot, lock};
use super::graphs::{Graph, Graphs, State};
use super::memory::{Memory, Pending};
use super::streams::GpuStream;
use super::unfinished::Unfinished;
use crate::device::MemoryInfo;
use crate::device::gpu::runtime::{GpuRuntime, Launch, MATMUL_WORKSPACE, Matmul, Role, Stream};
use crate::error::{Error, Result};

/// One GPU for both models, or one for each.
pub struct Cuda {
    /// The streams of each [`Role`].
    streams: [RoleStreams; 2],
    graphs: Mutex<Graphs>,
    /// Whether queued work is being captured in a graph.
    is_capturing: AtomicBool,
    failure: Failure,
    unfinished: Unfinished,
}

/// Bytes that are being copied to the host.
pub struct CudaPending {
    role: Role,
    /// The work that has ended when the bytes are there, counted by [`Unfinished`].
    queued: u64,
    bytes: Pending,
}

/// The streams of a role, and its GPU.
struct RoleStreams {
    main: Arc<GpuStream>,
    side: Arc<GpuStream>,
    /// The workspace of the main stream's matrix products.
    workspace: Memory,
    card: Arc<Card>,
}

impl RoleStreams {
    fn new(card: Arc<Card>) -> Result<Self> {
        Ok(Self {
            main: GpuStream::new(&card.context)?.into(),
            side: GpuStream::new(&card.context)?.into(),
            workspace: Memory::new(&card.context, MATMUL_WORKSPACE)?,
            card,
        })
    }
}

impl Cuda {
    /// The GPUs of the expert and of the amateur, which may be the same, by their numbers among those that the driver
    /// shows. A product's row has the same bits whatever the number of rows beside it if the runtime `is_deterministic`.
    /// If it `has_one_stream`, all work on one GPU shares a stream, so that nothing runs beside anything else.
    ///
    /// # Errors
    /// [`Error::Device`] that says what is missing: a driver, a GPU, a newer one of either, or cuBLASLt;
    /// [`Error::Setting`] if there are fewer GPUs.
    pub fn open([expert, amateur]: [usize; 2], is_deterministic: bool, has_one_stream: bool) -> Result<Self> {
        let open = |gpu| Card::open(gpu, is_deterministic).map(Arc::new);
        let first = open(expert)?;
        let second = if expert == amateur { Arc::clone(&first) } else { open(amateur)? };
        if expert != amateur {
            first.connect(&second);
        }
        let mut streams = [RoleStreams::new(first)?, RoleStreams::new(second)?];
        if has_one_stream && expert == amateur {
            let one = Arc::clone(&streams[0].main);
            for role in &mut streams {
                (role.main, role.side) = (Arc::clone(&one), Arc::clone(&one));
            }
        }
        Ok(Self {
            streams,
            graphs: Mutex::default(),
            is_capturing: AtomicBool::new(false),
            failure: Failure::default(),
            unfinished: Unfinished::default(),
        })
    }

    /// How many GPUs the driver shows.
    ///
    /// # Errors
    /// [`Error::Device`] if none can be used.
    pub fn count() -> Result<usize> {
        super::card::count()
    }

    fn of(&self, role: Role) -> &RoleStreams {
        &self.streams[role as usize]
    }

    fn stream(&self, stream: Stream) -> &GpuStream {
        match stream {
            Stream::Main(role) => &self.of(role).main,
            Stream::Side(role) => &self.of(role).side,
        }
    }

    /// Keeps an error if it is the first, with what may have caused it.
    fn note<T>(&self, result: Result<T>) -> Option<T> {
        self.failure.note(result, |error| self.cause(error))
    }

    /// The driver's own error, which cuBLASLt does not tell, and the names of the work that may have caused it.
    fn cause(&self, error: &str) -> String {
        let is_capturing = self.is_capturing.load(Ordering::Relaxed);
        let mut cards = self.cards().filter(|_| !is_capturing);
        let reason = cards.find_map(|card| card.context.synchronize().err());
        let reason = reason.map(|DriverError(reason)| format!("{reason:?}"));
        let told = reason.filter(|reason| !error.contains(reason));
        let told = told.map_or(String::new(), |reason| format!("; the driver says {reason}"));
        format!("{told}{}", self.unfinished.describe())
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

    fn try_launch(&self, stream: Stream, launch: &Launch, parameters: &[u8]) -> Result<()> {
        let card = &self.of(stream.role()).card;
        card.context.bind_to_thread().map_err(cannot("use the GPU"))?;
        self.stream(stream).launch(lock(&card.kernels).get(launch.kernel)?, launch, parameters)
    }

    /// Captures the work that `record` queues as a graph. It begins on the expert's main stream; other streams that run
    /// after that one are captured with it. The graph spans both GPUs if the streams are on two.
    fn capture(&self, record: &mut dyn FnMut()) -> Result<Graph> {
        let first = self.of(Role::Expert).main.for_other_work();
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
    type Pending = Result<CudaPending>;
    type Mark = Result<CudaEvent>;

    fn describe(&self) -> String {
        let cards: Vec<String> = self.cards().map(Card::describe).collect();
        format!("{}; {}", cards.join("; "), describe_driver())
    }

    fn allocate(&self, role: Role, bytes: usize) -> Result<Memory> {
        Memory::new(&self.of(role).card.context, bytes)
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
        let RoleStreams { card, main, .. } = self.of(role);
        card.staging.fill(main.for_other_work(), memory, bytes, source)
    }

    fn write(&self, role: Role, memory: &Memory, bytes: &[u8]) {
        let RoleStreams { card, main, .. } = self.of(role);
        self.note(card.staging.write(main.for_other_work(), memory, bytes));
    }

    fn read(&self, role: Role, memory: &Memory, bytes: usize) -> Self::Pending {
        let RoleStreams { card, main, .. } = self.of(role);
        let queued = self.unfinished.count();
        Ok(CudaPending { role, queued, bytes: card.staging.read(main.for_other_work(), memory, bytes)? })
    }

    fn wait(&self, pending: Self::Pending) -> Result<Vec<u8>> {
        let read = pending.and_then(|CudaPending { role, queued, bytes }| {
            let read = self.of(role).card.staging.wait(bytes)?;
            self.unfinished.remove(queued);
            Ok(read)
        });
        let read = self.note(read);
        self.failure.check()?;
        Ok(read.unwrap_or_default())
    }

    fn order(&self, before: Stream, after: Stream) {
        self.note(self.stream(after).follow(self.stream(before)));
    }

    fn launch(&self, stream: Stream, launch: &Launch, parameters: &[u8]) {
        // CUDA refuses an empty grid.
        if launch.grid.iter().all(|blocks| *blocks > 0) {
            self.note(self.try_launch(stream, launch, parameters));
            self.unfinished.add(launch.kernel);
        }
    }

    fn matmul(&self, role: Role, matmul: &Matmul) -> bool {
        if matmul.rows == 0 {
            return true;
        }
        let may_wait = !self.is_capturing.load(Ordering::Relaxed);
        let RoleStreams { card, main, workspace, .. } = self.of(role);
        let queued = lock(&card.matmuls).queue(main.for_other_work(), workspace, matmul, may_wait);
        // A failure ends the run; nothing else need be tried.
        let is_queued = *queued.as_ref().unwrap_or(&true);
        self.note(queued.map(drop));
        if is_queued {
            self.unfinished.add("a product of cuBLASLt");
        }
        is_queued
    }

    fn copy(&self, role: Role, from: &Memory, to: &Memory, bytes: usize) {
        self.note(from.copy_to(to, bytes, self.of(role).main.for_other_work()));
    }

    fn mark(&self, role: Role) -> Result<CudaEvent> {
        let main = self.of(role).main.for_other_work();
        main.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(cannot("record an event"))
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
        let launch = |graph: &Graph| {
            // A graph is launched on the stream that it was captured on.
            self.of(Role::Expert).main.for_other_work();
            self.note(graph.0.launch().map_err(cannot("launch a graph")));
            self.unfinished.add("the graph of a step");
        };
        let mut graphs = lock(&self.graphs);
        match graphs.get(key) {
            None => {
                record();
                graphs.set(key, State::Warm);
            }
            Some(State::Warm) => {
                let free = self.free_bytes();
                let Some(graph) = self.note(self.capture(record)) else { return };
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
        self.of(role).card.memory_info()
    }

    fn multiprocessors(&self, role: Role) -> usize {
        self.of(role).card.multiprocessors
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
