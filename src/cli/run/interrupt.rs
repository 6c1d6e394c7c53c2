//! Signals that would end the program: the run stops after its step, and in any case soon.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ,
};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

use crate::cli::ui::screen;
use codit::error::{Error, Result, remedy};

/// The signals. Batch systems send SIGUSR1, SIGUSR2 or SIGXCPU before a limit is reached.
const HEARD: [i32; 10] =
    [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGXCPU];
/// How long a step may go on after the signal. Every record that was finished is on disk by then, and one that is
/// torn by the exit is cut off at the next start.
const PATIENCE: Duration = Duration::from_secs(8);
/// A second signal this soon is the first one again: timeout, and some shells, send it to the process and to its group.
const SAME_SIGNAL: Duration = Duration::from_millis(100);
/// The terminal may be stopped or gone. The program ends all the same.
const TIME_TO_WRITE: Duration = Duration::from_millis(500);

/// What the signals have asked for.
#[derive(Clone, Default)]
pub struct Interrupt {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// The first signal, 0 if there is none.
    signal: AtomicI32,
    /// Whether there is a step to wait for.
    is_decoding: AtomicBool,
    first: OnceLock<Instant>,
}

impl Interrupt {
    /// Listens from now on. A signal that was ignored when the program started stays ignored, as nohup wants it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn listen() -> Result<Self> {
        let refused = |error| Error::System(format!("cannot listen for signals: {error}{}", remedy(&error)));
        let ignored = ignored_signals();
        let heard = HEARD.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
        let mut signals = Signals::new(heard).map_err(refused)?;
        // A write beyond a limit on the size of files is to fail like one on a full disk, and not to end the program.
        flag::register(SIGXFSZ, Arc::default()).map_err(refused)?;
        let interrupt = Self::default();
        let heard = interrupt.clone();
        let listen = move || signals.forever().for_each(|signal| heard.signal(signal));
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(listen)
            .map_err(|error| Error::refused_thread(&error))?;
        Ok(interrupt)
    }

    /// From now on the run looks at [`Interrupt::is_set`] after every step. Before, a signal ends the program at once.
    pub fn begin_decoding(&self) {
        self.state.is_decoding.store(true, Ordering::SeqCst);
    }

    /// Whether the run is to stop.
    pub fn is_set(&self) -> bool {
        self.exit_code().is_some()
    }

    /// The exit code of a run that was interrupted, as shells give it: 128 and the signal's number.
    pub fn exit_code(&self) -> Option<u8> {
        match self.state.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(128 + signal as u8),
        }
    }

    fn signal(&self, signal: i32) {
        let first = self.state.first.get_or_init(Instant::now);
        if self.exit_code().is_none() {
            self.state.signal.store(signal, Ordering::SeqCst);
            self.first_signal(signal);
        } else if first.elapsed() >= SAME_SIGNAL {
            exit(signal, "stopped at once; the same command resumes the run");
        }
    }

    fn first_signal(&self, signal: i32) {
        if !self.state.is_decoding.load(Ordering::SeqCst) {
            exit(signal, "interrupted before the first step; the same command starts again");
        }
        let be_patient = move || {
            thread::sleep(PATIENCE);
            let seconds = PATIENCE.as_secs();
            exit(
                signal,
                &format!("the step took over {seconds} s and was given up; the same command resumes the run"),
            );
        };
        if thread::Builder::new().spawn(be_patient).is_err() {
            exit(signal, "stopped at once; the same command resumes the run");
        }
        write(|| message!("stopping after this step; again to stop at once"));
    }
}

/// Ends the program without any other thread, one of which may be within a step.
fn exit(signal: i32, last_words: &str) {
    let last_words = last_words.to_owned();
    write(move || {
        screen::end();
        message!("{last_words}");
    });
    low_level::exit(128 + signal);
}

/// Lets a message be written, but does not wait for it for long.
fn write(message: impl FnOnce() + Send + 'static) {
    let (written, is_written) = channel();
    let write = move || {
        message();
        let _ = written.send(());
    };
    if thread::Builder::new().spawn(write).is_ok() {
        let _ = is_written.recv_timeout(TIME_TO_WRITE);
    }
}

/// A bit for each signal that this process was told to ignore, the lowest for signal 1. None where the system does not say.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
