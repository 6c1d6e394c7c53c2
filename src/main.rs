//! The `codit` program.

use std::process::ExitCode;
use std::thread;

mod cli;

#[global_allocator]
static ALLOCATOR: cli::ui::allocator::OrEnd = cli::ui::allocator::OrEnd;

/// Bytes of the stack, whatever the limit for the first thread is (`ulimit -s`).
const STACK: usize = 8 << 20;

fn main() -> ExitCode {
    match thread::Builder::new().name("main".to_owned()).stack_size(STACK).spawn(cli::main) {
        // The exit code of a panic, whose message was printed.
        Ok(program) => program.join().unwrap_or(ExitCode::from(101)),
        Err(_) => cli::main(),
    }
}
