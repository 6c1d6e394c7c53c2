//! The thread on which a template is compiled and rendered.
//!
//! A template has one thread, which lives as long as the template. A render that does not end in time is told to stop,
//! and its thread serves nobody any more: the next render begins on a fresh thread. So one conversation cannot change what
//! becomes of the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value};

use super::failure::Failure;
use crate::error::Error;

/// The longest render in moments: three seconds, which only a template with a very long step needs. Other templates
/// exceed another limit first. (Counted in moments, so that a process that is stopped and continued loses only one.)
const PATIENCE: u32 = 30;
const MOMENT: Duration = Duration::from_millis(100);
/// The stack for the expressions that a source can nest and for the values that a render can nest. Both are handled by
/// recursion.
const STACK: usize = 256 << 20;
/// Threads of one template that may be alive, the others being told to stop.
const MOST_THREADS: usize = 4;
/// How long a new thread waits for the end of an old one, in moments: a minute.
const LONGEST_WAIT: u32 = 600;

/// A template's thread.
#[derive(Debug)]
pub(super) struct TemplateThread {
    source: Arc<str>,
    /// The work of the thread.
    serve: fn(Served),
    /// `None` after a render that did not end.
    serving: Mutex<Option<Serving>>,
    /// Every thread holds a clone, so that those alive can be counted.
    alive: Arc<()>,
}

#[derive(Debug)]
struct Serving {
    /// The thread ends when this is dropped.
    jobs: Sender<Job>,
    cancelled: Arc<AtomicBool>,
}

/// A render.
pub(super) struct Job {
    pub(super) variables: Map<String, Value>,
    pub(super) answer: SyncSender<Result<String, Failure>>,
}

/// The thread's side.
pub(super) struct Served {
    pub(super) source: Arc<str>,
    pub(super) jobs: Receiver<Job>,
    /// Told whether the template compiles.
    pub(super) compiled: SyncSender<Result<(), Failure>>,
    pub(super) cancelled: Arc<AtomicBool>,
}

impl TemplateThread {
    /// Starts the thread, which compiles `source` and renders it, both by `serve`.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] if the system refuses a thread; [`Failure::Failed`] if the source does not parse.
    pub(super) fn start(source: String, serve: fn(Served)) -> Result<Self, Failure> {
        let thread = Self { source: source.into(), serve, serving: Mutex::default(), alive: Arc::default() };
        let serving = thread.spawn()?;
        *thread.serving.lock().unwrap_or_else(PoisonError::into_inner) = Some(serving);
        Ok(thread)
    }

    /// The template's source.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Renders on the thread. Renders run one after another.
    ///
    /// # Errors
    /// Those of the render; [`Failure::Failed`] if it does not end in time; [`Failure::Unavailable`] if the system refuses
    /// a thread.
    pub(super) fn render(&self, variables: Map<String, Value>) -> Result<String, Failure> {
        let mut current = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        let serving = match current.take() {
            Some(serving) => serving,
            None => self.spawn()?,
        };
        let (answer, answered) = sync_channel(1);
        serving.jobs.send(Job { variables, answer }).map_err(|_| ended())?;
        let rendered = wait_for(&answered, &serving.cancelled);
        if !serving.cancelled.load(Ordering::Relaxed) {
            *current = Some(serving);
        }
        rendered
    }

    /// A new thread.
    fn spawn(&self) -> Result<Serving, Failure> {
        self.wait_for_others()?;
        let (jobs, taken) = channel();
        let (compiled, is_compiled) = sync_channel(1);
        let cancelled = Arc::new(AtomicBool::new(false));
        let served = Served {
            source: Arc::clone(&self.source),
            jobs: taken,
            compiled,
            cancelled: Arc::clone(&cancelled),
        };
        let (serve, alive) = (self.serve, Arc::clone(&self.alive));
        let work = move || {
            serve(served);
            drop(alive);
        };
        thread::Builder::new()
            .name("template".to_owned())
            .stack_size(STACK)
            .spawn(work)
            .map_err(|error| Failure::Unavailable(Error::refused_thread(&error).to_string()))?;
        wait_for(&is_compiled, &cancelled)?;
        Ok(Serving { jobs, cancelled })
    }

    /// Waits until few enough threads are alive.
    fn wait_for_others(&self) -> Result<(), Failure> {
        for _ in 0..LONGEST_WAIT {
            if Arc::strong_count(&self.alive) <= MOST_THREADS {
                return Ok(());
            }
            thread::sleep(MOMENT);
        }
        Err(Failure::Unavailable(format!("{MOST_THREADS} renders were stopped and do not end")))
    }
}

/// What the thread sends. If nothing comes in time, it is told to stop.
fn wait_for<T>(answer: &Receiver<Result<T, Failure>>, cancelled: &AtomicBool) -> Result<T, Failure> {
    for _ in 0..PATIENCE {
        match answer.recv_timeout(MOMENT) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(ended()),
        }
    }
    cancelled.store(true, Ordering::Relaxed);
    Err(Failure::Failed(format!("it runs away: it takes more than {:?}", MOMENT * PATIENCE)))
}

fn ended() -> Failure {
    Failure::Unavailable("its thread has ended".to_owned())
}
