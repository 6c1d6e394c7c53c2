//! SIGINT and SIGTERM: the run stops after its step, and in any case soon.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use codit::error::{Error, Result};

/// The exit code of an interrupted run.
pub const EXIT_CODE: u8 = 130;

/// How long a step may go on after the signal. Every record that was finished is on disk by then, and one that is
/// torn by the exit is cut off at the next start.
const PATIENCE: Duration = Duration::from_secs(8);

/// A flag that the first signal sets. The process exits when the run has not stopped within [`PATIENCE`] of it, or
/// at once on a second signal.
pub fn flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let refused = |error| Error::Device(format!("cannot listen for signals: {error}"));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(EXIT_CODE), Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
            .map_err(refused)?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(refused)?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            thread::sleep(PATIENCE);
            process::exit(i32::from(EXIT_CODE));
        }
    });
    Ok(flag)
}

/// Whether the flag is set.
pub fn is_set(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed)
}
