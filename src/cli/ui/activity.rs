//! What a run does before its first step, where that takes time: reading the input, loading weights.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;

use super::progress::{FIRST_LINE, PLAIN_INTERVAL};
use super::screen::{self, Mode};
use super::words::size;

/// What is over before this leaves no trace.
const APPEARS_AFTER: Duration = Duration::from_millis(300);
const INTERVAL: Duration = Duration::from_millis(100);

/// Shown from a thread of its own until it is dropped.
pub struct Activity {
    /// Dropped to end the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// How many bytes of how many are done.
#[derive(Clone)]
pub struct Bytes {
    pub done: Arc<AtomicU64>,
    pub total: u64,
}

impl Activity {
    /// Begins to show `name`, such as "loading weights", and how far it is if that is known.
    pub fn start(name: &'static str, bytes: Option<Bytes>) -> Self {
        let (end, ended) = channel::<()>();
        let show = move || {
            let mut display = Display { name, bytes, started: Instant::now(), printed: None };
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                display.update();
            }
            screen::close_bar();
        };
        // It is shown or not: the work goes on without it.
        let thread = thread::Builder::new().name("activity".to_owned()).spawn(show).ok();
        Self { end: Some(end), thread }
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        drop(self.end.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Display {
    name: &'static str,
    bytes: Option<Bytes>,
    started: Instant,
    printed: Option<Instant>,
}

impl Display {
    fn update(&mut self) {
        if self.started.elapsed() < APPEARS_AFTER {
            return;
        }
        match screen::mode() {
            Mode::Bar => {
                let (done, total) = self.progress().unwrap_or((0, 1));
                screen::show_bar(done, total, &self.text());
            }
            Mode::Plain if self.is_due() => note!("{}", self.text()),
            Mode::Json if self.is_due() => {
                let (done, total) = self.progress().unzip();
                screen::event(&json!({
                    "event": "loading", "activity": self.name, "bytes": done, "bytes_total": total,
                }));
            }
            Mode::Plain | Mode::Json | Mode::None => {}
        }
    }

    /// Whether it is time for another line.
    fn is_due(&mut self) -> bool {
        let is_due = match self.printed {
            None => self.started.elapsed() >= FIRST_LINE,
            Some(printed) => printed.elapsed() >= PLAIN_INTERVAL,
        };
        if is_due {
            self.printed = Some(Instant::now());
        }
        is_due
    }

    fn progress(&self) -> Option<(u64, u64)> {
        let Bytes { done, total } = self.bytes.as_ref()?;
        Some((done.load(Ordering::Relaxed).min(*total), *total))
    }

    fn text(&self) -> String {
        let name = self.name;
        match self.progress() {
            Some((done, total)) => format!("{name}: {} of {}", size(done), size(total)),
            None => format!("{name} ..."),
        }
    }
}
