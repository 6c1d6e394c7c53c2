//! SIGBUS, which the system sends to who reads a page that a mapped file no longer has.

use signal_hook::consts::SIGBUS;
use signal_hook::low_level;

use crate::cli::ui::screen;
use codit::error::{Error, Result, remedy};
use codit::mapped_file::shrunk_file;

/// From now on the program ends with a message if another one cuts off a file that it reads.
///
/// # Errors
/// If the system refuses.
pub fn explain() -> Result<()> {
    // SAFETY: the signal comes to the thread that reads the page. That thread holds no lock that the action needs. The
    // process ends here, or the action returns: then the page is read again, and the system ends the process, because
    // the standard library's handler, which ran before, has set the signal's default.
    let registered = unsafe { low_level::register(SIGBUS, end_if_a_file_shrank) };
    let refused = |error| Error::System(format!("cannot listen for signals: {error}{}", remedy(&error)));
    registered.map(drop).map_err(refused)
}

fn end_if_a_file_shrank() {
    if let Some(error) = shrunk_file() {
        screen::end();
        screen::say_error(&error.to_string(), false, error.exit_code());
        low_level::exit(error.exit_code().into());
    }
}
