//! Messages on standard error.

use std::fmt::Arguments;
use std::io::{Write, stderr};

/// Prints a line that begins with the program's name. A message that cannot be written is lost: a run of days must not end
/// because nobody watches it any more.
macro_rules! message {
    ($($text:tt)*) => { $crate::cli::ui::message::print(format_args!($($text)*)) };
}

/// See [`message!`].
pub fn print(text: Arguments<'_>) {
    let line = format!("codit: {text}\n");
    let _ = stderr().write_all(line.as_bytes());
}
