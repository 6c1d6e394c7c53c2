//! Several replicas of a pair, each on a device of its own, fed from one queue.
//!
//! Each replica is an [`Engine`], driven by its own thread, which takes requests from the queue as it has room for them.
//! What finishes is handed to the caller's thread, one step at a time.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde_json::{Map, Value};

use super::{Completion, Engine, EngineConfig, Finish, Request, Stats, Windows, load_text};
use crate::checkpoint::Checkpoint;
use crate::device::Device;
use crate::error::{Error, Result};

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
            let threads: Vec<_> =
                devices.into_iter().enumerate().map(|device| scope.spawn(move || load(device))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked()))).collect()
        });
        let mut engines = loaded.into_iter().collect::<Result<Vec<_>>>()?;
        let Some(windows) = engines.iter().map(Engine::windows).reduce(Windows::min) else {
            return Err(Error::Setting("there is no device to decode on; give one or more".to_owned()));
        };
        for engine in &mut engines {
            engine.steps.set_windows(windows);
        }
        Ok(Self { engines })
    }

    /// What the chat template is given beside the conversation, such as `enable_thinking`.
    pub fn set_template_variables(&mut self, variables: &Map<String, Value>) {
        for engine in &mut self.engines {
            engine.set_template_variables(variables.clone());
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

    /// Decodes `requests`, which are pulled as there is room for them, in their order; what cannot be served is a
    /// completion that says why. `each` is called on this thread after every step, and may break off; then the steps
    /// under way are finished, and what finished with them is handed over too.
    ///
    /// # Errors
    /// The first of `requests`, `each` and the devices, once the other replicas have ended their steps and what finished
    /// was handed over (unless `each` failed). The replicas must not be used any more.
    pub fn decode(
        &mut self,
        requests: impl ExactSizeIterator<Item = Result<Request>> + Send,
        mut each: impl FnMut(Stepped) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let count = self.engines.len();
        let queue = &Queue::new(requests, count);
        let mut stats: Vec<Stats> = self.engines.iter().map(Engine::stats).collect();
        thread::scope(|scope| {
            // Few: a replica rather waits than runs away from who writes.
            let (sender, steps) = sync_channel(2 * count);
            let serve = |(index, engine)| {
                let sender = sender.clone();
                scope.spawn(move || {
                    let _guard = StopOnPanic(queue);
                    let served = serve(engine, queue, |step| sender.send((index, step)).is_ok());
                    served.inspect_err(|_| queue.stop())
                })
            };
            let threads: Vec<_> = self.engines.iter_mut().enumerate().map(serve).collect();
            drop(sender);
            let mut result = Ok(());
            for (index, (completions, own)) in steps {
                stats[index] = own;
                match each(Stepped { completions, stats: stats.iter().copied().sum() }) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => queue.stop(),
                    Err(error) => {
                        queue.stop();
                        result = Err(error);
                        break;
                    }
                }
            }
            let served = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked())));
            served.fold(result, Result::and)
        })
    }
}

/// Requests that are taken between two steps while the device works. What is done between steps (prompts rendered and
/// tokenized, texts put together) takes no time of the device as long as it takes less than a step; a burst, such as where
/// all responses end at their full length, is spread over several.
const MOST_BETWEEN_STEPS: usize = 32;

/// One replica's thread: steps until there is nothing left, or nobody listens.
fn serve<D: Device>(
    engine: &mut Engine<D>,
    queue: &Queue<impl ExactSizeIterator<Item = Result<Request>>>,
    mut send: impl FnMut((Vec<Completion>, Stats)) -> bool,
) -> Result<()> {
    while !queue.is_stopped() {
        let mut completions = Vec::new();
        let most = if engine.is_ahead() { MOST_BETWEEN_STEPS } else { usize::MAX };
        for _ in 0..most {
            let Some(request) = queue.next(engine.pending(), engine.max_num_seqs()) else { break };
            completions.extend(submit(engine, request?)?);
        }
        if engine.pending() == 0 && completions.is_empty() {
            break;
        }
        engine.step()?;
        completions.extend(std::iter::from_fn(|| engine.finished()));
        queue.give_back(completions.len());
        if !send((completions, engine.stats())) {
            break;
        }
    }
    Ok(())
}

/// Hands a request to the engine; the completion of one that cannot be served.
fn submit<D: Device>(engine: &mut Engine<D>, request: Request) -> Result<Option<Completion>> {
    let (id, tag) = (request.id.clone(), request.tag);
    match engine.submit(request) {
        Ok(_) => Ok(None),
        Err(error @ Error::Request(_)) => Ok(Some(Completion::without_text(id, tag, Finish::Failed(error)))),
        Err(error) => Err(error),
    }
}

/// The requests that no replica has taken yet.
struct Queue<I> {
    rest: Mutex<Rest<I>>,
    replicas: usize,
    is_stopped: AtomicBool,
}

struct Rest<I> {
    requests: I,
    /// Requests that replicas have taken and not finished.
    taken: usize,
}

impl<I: ExactSizeIterator> Queue<I> {
    fn new(requests: I, replicas: usize) -> Self {
        Self { rest: Mutex::new(Rest { requests, taken: 0 }), replicas, is_stopped: AtomicBool::new(false) }
    }

    /// A request for a replica that has `pending`, if that is less than it can run at once, and less than its part of
    /// all that is left to do: none sits on what another could begin.
    fn next(&self, pending: usize, most: usize) -> Option<I::Item> {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let part = (rest.requests.len() + rest.taken).div_ceil(self.replicas);
        let request = (pending < most.min(part)).then(|| rest.requests.next()).flatten()?;
        rest.taken += 1;
        Some(request)
    }

    fn give_back(&self, finished: usize) {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).taken -= finished;
    }
}

impl<I> Queue<I> {
    /// No replica begins another step.
    fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }
}

/// Lets a thread's panic end the others.
struct StopOnPanic<'a, I>(&'a Queue<I>);

impl<I> Drop for StopOnPanic<'_, I> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop();
        }
    }
}

fn panicked() -> Error {
    Error::Device("internal error: a replica's thread panicked; please report this".to_owned())
}
