//! `print!`, `println!` and `eprintln!` for the command line: the standard ones panic where whoever reads has gone, as in
//! `codit pairs | head -3`, and a run of days must not end because nobody looks at its progress any more.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stdout};

macro_rules! print {
    ($($text:tt)*) => { $crate::cli::ui::print::to_stdout(format_args!($($text)*)) };
}

macro_rules! println {
    () => { print!("\n") };
    ($($text:tt)*) => {{
        print!($($text)*);
        print!("\n");
    }};
}

macro_rules! eprintln {
    ($($text:tt)*) => { $crate::cli::ui::print::to_stderr(format_args!($($text)*)) };
}

/// Ends the program where it cannot be written: quietly if nobody reads.
pub fn to_stdout(text: Arguments<'_>) {
    let Err(error) = stdout().write_fmt(text) else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    eprintln!("codit: error: cannot write to standard output: {error}");
    std::process::exit(1);
}

/// A line, as far as it can be written.
pub fn to_stderr(text: Arguments<'_>) {
    let mut line = text.to_string();
    line.push('\n');
    let _ = std::io::stderr().write_all(line.as_bytes());
}
