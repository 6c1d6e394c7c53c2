//! The command line: one file a subcommand.

use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

#[macro_use]
mod ui;

#[allow(clippy::doc_markdown, reason = "its documentation is the help text")]
mod args;
#[allow(clippy::doc_markdown, reason = "its documentation is the help text")]
mod commands;
#[cfg(test)]
mod reference;
mod run;

use codit::device::cuda;
use codit::error::printable;
use ui::output;

use commands::{bench, doctor, pairs, plan, synth};

/// The version, and what the program was built with.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let kernels = match cuda::architectures() {
        [] => "no cuda: built without nvcc".to_owned(),
        architectures => format!("cuda kernels: sm_{}", architectures.join(", sm_")),
    };
    let hub = if cfg!(feature = "hub") { "" } else { "; no hub" };
    format!("{} ({kernels}{hub})", env!("CARGO_PKG_VERSION"))
});

/// Writes instruction-tuning datasets by contrastive decoding of a pair of language models.
#[derive(Parser)]
#[command(name = "codit", version = VERSION.as_str(), about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reads instructions, decodes a response to each with an expert and an amateur, and writes a dataset.
    Synth(Box<synth::Args>),
    /// Lists the pairs that --pair knows by name.
    Pairs,
    /// Says how much of a GPU's memory a pair needs and how many sequences fit beside it, without loading anything.
    Plan(plan::Args),
    /// Compares every operation of a device with the CPU, decodes a small pair on both, and measures the device.
    Doctor(doctor::Args),
    /// Measures how fast a device decodes a pair, operation by operation, beside the bandwidth and matrix rate of the device.
    Bench(bench::Args),
}

/// Runs the program. Exit codes: 0 all done, 1 a failure at work, 2 bad input or settings, 130 interrupted.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Synth(args) => synth::run(&args),
        Command::Pairs => pairs::run(),
        Command::Plan(args) => plan::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            message!("error: {}", printable(&error.to_string()));
            ExitCode::from(error.exit_code())
        }
    }
}
