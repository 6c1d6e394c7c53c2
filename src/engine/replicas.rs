//! Several replicas of a pair, each on its own device, and the threads that join them.
//!
//! ```text
//! requests ─► feeder ─► channel ─► replicas ─► channel ─► caller
//! ```
//!
//! [`Replicas::decode`] starts one feeder thread and one thread per replica. The feeder reads the caller's requests in their
//! order and turns their prompts into token ids, so that no replica, and so no device, waits for text work. Each replica
//! drives an [`Engine`]. It takes a prepared request when it has a free row, without waiting for one as long as it has other
//! work. The caller's thread receives what finished, one step at a time.
//!
//! Both channels are bounded. A slow caller stops the replicas, stopped replicas stop the feeder, and memory does not grow.
//! No two threads wait for each other: the feeder waits only while the first channel is full, a replica waits for requests
//! only while it is empty, and neither waits for anything else but the caller.
//!
//! The feeder counts the requests that are read and not finished. A replica takes a request only if it holds less than an
//! equal part of that number. The number is never more than what is left to do, so no replica takes more than its fair share of
//! the remaining requests, without knowing how many these are.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Map, Value};

use super::engine::load_text;
use super::sequence::RequestIdentity;
use super::{Completion, Engine, EngineConfig, Finish, Preparer, Request, Stats, Windows};
use crate::checkpoint::Checkpoint;
use crate::device::Device;
use crate::error::{Error, Result};

/// The most requests that are prepared ahead of a replica. It bounds memory where a replica runs very many sequences.
const MAX_PREPARED: usize = 1024;
/// Steps of each replica that may wait for the caller.
const STEPS_AHEAD: usize = 2;

/// A pair on one or several devices. Which of them decodes a request changes nothing about its response.
pub struct Replicas<D: Device> {
    /// One or more.
    engines: Vec<Engine<D>>,
}

/// A step of one of the replicas.
#[derive(Debug)]
pub struct Stepped {
    /// The requests that have finished with it.
    pub completions: Vec<Completion>,
    /// Of all replicas together.
    pub stats: Stats,
}

impl<D: Device> Replicas<D> {
    /// Loads a pair onto each of `devices`, at once. The windows of all are those of the smallest.
    ///
    /// # Errors
    /// Those of [`Engine::load`]; [`Error::Setting`] if there is no device.
    pub fn load(
        devices: Vec<D>,
        expert: &Checkpoint,
        amateur: Option<&Checkpoint>,
        config: &EngineConfig,
    ) -> Result<Self> {
        let (text, stop) = load_text(expert, amateur)?;
        let load = |(index, device)| {
            // A profiler is told of one replica's steps.
            let profile_steps = config.profile_steps.clone().filter(|_| index == 0);
            let config = EngineConfig { profile_steps, ..config.clone() };
            Engine::load_with(device, text.clone(), stop.clone(), expert, amateur, &config)
        };
        let loaded: Vec<Result<Engine<D>>> = thread::scope(|scope| {
            let load = &load;
            let start = |device| spawn(scope, move || load(device));
            let threads: Vec<_> = devices.into_iter().enumerate().map(start).collect();
            let join = |thread: ScopedJoinHandle<_>| thread.join().unwrap_or_else(|_| Err(panicked()));
            threads.into_iter().map(|thread| thread.and_then(join)).collect()
        });
        let mut engines = loaded.into_iter().collect::<Result<Vec<_>>>()?;
        let Some(windows) = engines.iter().map(Engine::windows).reduce(Windows::min) else {
            return Err(Error::Setting("there is no device to decode on; give one or more".to_owned()));
        };
        for engine in &mut engines {
            engine.limit_windows(windows);
        }
        Ok(Self { engines })
    }

    /// What the chat template is given beside the conversation, such as `enable_thinking`.
    pub fn set_template_variables(&mut self, variables: &Map<String, Value>) {
        for engine in &mut self.engines {
            engine.set_template_variables(variables.clone());
        }
    }

    /// See [`Engine::set_sanitize_control_tokens`].
    pub fn set_sanitize_control_tokens(&mut self, sanitize: bool) {
        for engine in &mut self.engines {
            engine.set_sanitize_control_tokens(sanitize);
        }
    }

    /// One of the engines, for what all have in common.
    pub fn first(&self) -> &Engine<D> {
        &self.engines[0]
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.engines.len()
    }

    /// Decodes `requests`, which are read and tokenized on a thread of their own, at most a few hundred ahead of the
    /// responses. Requests start in their order. A request that cannot be served yields a completion that says why.
    ///
    /// `each` is called on this thread after every step. It may break off: then the steps under way are finished, and what
    /// finished with them is handed over too.
    ///
    /// # Errors
    /// The first error of `requests`, `each` and the devices, once the other replicas have ended their steps and what
    /// finished was handed over (unless `each` failed). The replicas must not be used any more.
    pub fn decode(
        &mut self,
        requests: impl Iterator<Item = Result<Request>> + Send,
        mut each: impl FnMut(Stepped) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let count = self.engines.len();
        let shared = &Shared {
            replicas: count,
            unfinished: AtomicUsize::new(self.engines.iter().map(Engine::pending).sum()),
            is_stopped: AtomicBool::new(false),
        };
        let preparer = self.first().preparer().clone();
        let capacity = self.engines.iter().map(|engine| engine.max_num_seqs().min(MAX_PREPARED)).sum();
        let mut stats: Vec<Stats> = self.engines.iter().map(Engine::stats).collect();
        thread::scope(|scope| {
            let _guard = StopOnPanic(shared);
            let (prepared, requests_out) = bounded(capacity);
            let (start, started) = bounded(0);
            let (steps, finished) = bounded(STEPS_AHEAD * count);
            let feeder = Feeder { preparer, prepared, start: Some(start), shared };
            let feeder = spawn(scope, move || {
                let _guard = StopOnPanic(shared);
                feeder.run(requests);
                Ok(())
            })?;
            let run = |(index, engine)| {
                let (requests, started) = (requests_out.clone(), started.clone());
                let replica = Replica { index, engine, requests, steps: steps.clone(), shared };
                spawn(scope, move || {
                    let _guard = StopOnPanic(shared);
                    replica.run(&started)
                })
            };
            let replicas: Vec<_> = self
                .engines
                .iter_mut()
                .enumerate()
                .map(run)
                .collect::<Result<_>>()
                .inspect_err(|_| shared.stop())?;
            // A thread sees that the others have ended when it holds the only ends of its channels.
            drop((requests_out, steps));
            let mut result = Ok(());
            for ReplicaStep { index, completions, stats: own } in finished {
                stats[index] = own;
                match each(Stepped { completions, stats: stats.iter().copied().sum() }) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => shared.stop(),
                    Err(error) => {
                        shared.stop();
                        result = Err(error);
                        break;
                    }
                }
            }
            let threads = replicas.into_iter().chain([feeder]);
            let results = threads.map(|thread| thread.join().unwrap_or_else(|_| Err(panicked())));
            results.fold(result, Result::and)
        })
    }
}

/// Starts a thread of `scope`.
///
/// # Errors
/// [`Error::System`] if the system refuses.
fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    thread::Builder::new().spawn_scoped(scope, work).map_err(|error| Error::refused_thread(&error))
}

/// What all threads of a decode see.
struct Shared {
    /// How many replicas there are.
    replicas: usize,
    /// Requests that are read and not finished: the replicas hold them, or the channel does.
    unfinished: AtomicUsize,
    is_stopped: AtomicBool,
}

impl Shared {
    /// No thread begins another request or step.
    fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// An equal part of the requests that are read and not finished, rounded up.
    fn share(&self) -> usize {
        self.unfinished.load(Ordering::Relaxed).div_ceil(self.replicas)
    }
}

/// Makes the panic of a thread end the others.
struct StopOnPanic<'a>(&'a Shared);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop();
        }
    }
}

fn panicked() -> Error {
    Error::Device("internal error: a thread panicked; please report this".to_owned())
}

/// A request with token ids, or the completion of one that cannot be served.
enum Prepared {
    Request(Request),
    Failed(Completion),
}

impl Prepared {
    /// # Errors
    /// An error that is not the request's alone.
    fn new(preparer: &Preparer, request: Request) -> Result<Self> {
        let identity = request.identity();
        match preparer.prepare(request) {
            Ok(request) => Ok(Self::Request(request)),
            Err(error) => failed(identity, 0, error).map(Self::Failed),
        }
    }
}

/// The completion of a request that cannot be served because of `error`.
///
/// # Errors
/// `error`, if it is not the request's alone.
fn failed(request: RequestIdentity, prompt_tokens: usize, error: Error) -> Result<Completion> {
    match error {
        Error::Request(_) => Ok(Completion::without_text(request, prompt_tokens, Finish::Failed(error))),
        error => Err(error),
    }
}

/// The thread that reads requests and prepares them.
struct Feeder<'a> {
    preparer: Preparer,
    prepared: Sender<Result<Prepared>>,
    /// Nothing is ever sent: the replicas start when this end is dropped.
    start: Option<Sender<Infallible>>,
    shared: &'a Shared,
}

impl Feeder<'_> {
    /// Sends requests to the replicas until there are no more, one cannot be read, or the replicas have ended. An error
    /// takes its place among the requests, so those before it are decoded as far as there is time.
    fn run(mut self, mut requests: impl Iterator<Item = Result<Request>>) {
        while !self.shared.is_stopped() {
            let Some(request) = requests.next() else { break };
            let prepared = request.and_then(|request| Prepared::new(&self.preparer, request));
            let is_error = prepared.is_err();
            // Counted before it is sent, so that it is part of what its receiver shares.
            self.shared.unfinished.fetch_add(1, Ordering::Relaxed);
            if self.prepared.send(prepared).is_err() || is_error {
                break;
            }
            if self.prepared.is_full() {
                self.start = None;
            }
        }
    }
}

/// The thread of a replica.
struct Replica<'a, D: Device> {
    index: usize,
    engine: &'a mut Engine<D>,
    requests: Receiver<Result<Prepared>>,
    steps: Sender<ReplicaStep>,
    shared: &'a Shared,
}

/// A step of the replica of this index.
struct ReplicaStep {
    index: usize,
    completions: Vec<Completion>,
    stats: Stats,
}

impl<D: Device> Replica<'_, D> {
    /// Steps until nothing is left to do, an error, or the caller has ended. It begins once nobody holds the other end of
    /// `start`.
    fn run(mut self, start: &Receiver<Infallible>) -> Result<()> {
        let _ = start.recv();
        while !self.shared.is_stopped() {
            let mut completions = Vec::new();
            let taken = self.take_requests(&mut completions);
            if taken.is_ok() && self.engine.pending() == 0 && completions.is_empty() {
                break;
            }
            let result = taken.and_then(|()| self.engine.step());
            if result.is_err() {
                self.shared.stop();
            }
            completions.extend(std::iter::from_fn(|| self.engine.finished()));
            self.shared.unfinished.fetch_sub(completions.len(), Ordering::Relaxed);
            let step = ReplicaStep { index: self.index, completions, stats: self.engine.stats() };
            let caller_has_ended = self.steps.send(step).is_err();
            result?;
            if caller_has_ended {
                break;
            }
        }
        Ok(())
    }

    /// Takes the requests that are there and that the engine has room for; `completions` receives those of requests that
    /// cannot be served.
    fn take_requests(&mut self, completions: &mut Vec<Completion>) -> Result<()> {
        while let Some(prepared) = self.next_request(completions.is_empty()) {
            match prepared? {
                Prepared::Failed(completion) => completions.push(completion),
                Prepared::Request(request) => {
                    let (identity, prompt_tokens) = (request.identity(), request.prompt.num_tokens());
                    if let Err(error) = self.engine.submit(request) {
                        completions.push(failed(identity, prompt_tokens.unwrap_or(0), error)?);
                    }
                }
            }
        }
        Ok(())
    }

    /// The next request, if the replica may take one. Waits for one, or for the end of all, only where the replica has
    /// nothing else to do.
    fn next_request(&self, has_no_completions: bool) -> Option<Result<Prepared>> {
        let pending = self.engine.pending();
        if pending == 0 && has_no_completions {
            self.requests.recv().ok()
        } else if pending < self.engine.max_num_seqs().min(self.shared.share()) {
            self.requests.try_recv().ok()
        } else {
            None
        }
    }
}
