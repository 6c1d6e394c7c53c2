//! The command line: one file a subcommand.

use std::io::{ErrorKind, Write, stdout};
use std::process::ExitCode;

use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
use clap::{Arg, Command as Program, CommandFactory, FromArgMatches, Parser, Subcommand};

#[macro_use]
pub mod ui;

#[allow(clippy::doc_markdown, reason = "its documentation is the help text")]
mod args;
#[allow(clippy::doc_markdown, reason = "its documentation is the help text")]
mod commands;
mod examples;
#[cfg(test)]
mod reference;
mod run;
mod version;

use codit::error::Error;
use ui::{output, screen};

use commands::{bench, completions, doctor, pairs, plan, render, stats, synth};
use run::lost_pages;

/// The help of the program and of every command: what it does, examples, then the rest.
const HELP: &str = "\
{about-with-newline}
{before-help}{usage-heading} {usage}

{all-args}{after-help}";

/// Write instruction-tuning datasets by contrasting two language models.
#[derive(Parser)]
#[command(name = "codit", max_term_width = 110, before_help = examples::CODIT, after_help = examples::ENVIRONMENT)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a response to each instruction by contrasting two models.
    #[command(before_help = examples::SYNTH)]
    Synth(Box<synth::Args>),
    /// Say what datasets hold: finished and cut responses, errors, tokens, repetition.
    #[command(before_help = examples::STATS)]
    Stats(stats::Args),
    /// Print the prompt of each row, as text and as token ids, as synth would decode it; no weights are loaded.
    #[command(before_help = examples::RENDER)]
    Render(render::Args),
    /// List the pairs of models that --pair knows by name.
    #[command(before_help = examples::PAIRS)]
    Pairs,
    /// Say whether a pair fits on a GPU, and how many sequences fit beside it, without loading anything.
    #[command(before_help = examples::PLAN)]
    Plan(plan::Args),
    /// Check that a device computes what it should, and measure it.
    #[command(before_help = examples::DOCTOR)]
    Doctor(doctor::Args),
    /// Measure how fast a device decodes a pair, operation by operation.
    #[command(before_help = examples::BENCH)]
    Bench(bench::Args),
    /// Print the completion script of a shell.
    #[command(before_help = examples::COMPLETIONS)]
    Completions(completions::Args),
    /// Print the man page.
    Man(completions::ManArgs),
}

/// The program as clap knows it.
fn program() -> Program {
    let each = |command: Program| command.help_template(HELP).mut_args(takes_negative_numbers);
    let names = ["synth", "stats", "render", "pairs", "plan", "doctor", "bench", "completions", "man"];
    let program = Cli::command().version(version::version()).help_template(HELP);
    names.into_iter().fold(program, |program, name| program.mut_subcommand(name, each))
}

/// A number below 0 is a value, which is refused by the name of its flag, and not an unknown flag.
fn takes_negative_numbers(argument: Arg) -> Arg {
    let takes_value = argument.get_action().takes_values() && argument.get_long().is_some();
    argument.allow_negative_numbers(takes_value)
}

/// Runs the program. Exit codes: 0 all done, 1 a failure at work, 2 bad input or settings, 3 every record that the run
/// wrote is an error, 128 and its number for a signal that interrupted it.
pub fn main() -> ExitCode {
    let arguments = program().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let command = match arguments {
        Ok(arguments) => arguments.command,
        Err(error) => return print_help(&error),
    };
    let result = lost_pages::explain().and_then(|()| match command {
        Command::Synth(args) => synth::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Render(args) => render::run(&args),
        Command::Pairs => pairs::run(),
        Command::Plan(args) => plan::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Completions(args) => completions::run(&args, program()),
        Command::Man(args) => completions::run_man(&args, program()),
    });
    screen::close_bar();
    match result.and_then(|code| output::flush().map(|()| code)) {
        Ok(code) => code,
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // A device says in several lines what its memory is taken by.
            let has_lines = matches!(error, Error::Device(_));
            for text in error.lines() {
                screen::say_error(&text, has_lines, error.exit_code());
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints what clap has to say: help and the version, which were asked for, or what is wrong with the arguments.
fn print_help(error: &clap::Error) -> ExitCode {
    let is_help = !error.use_stderr() || error.kind() == DisplayHelpOnMissingArgumentOrSubcommand;
    if !is_help {
        let error = Error::Setting(in_one_line(&error.render().to_string()));
        screen::say_error(&error.to_string(), false, error.exit_code());
        return ExitCode::from(error.exit_code());
    }
    let printed = error.print().and_then(|()| stdout().flush());
    match printed {
        _ if error.use_stderr() => ExitCode::from(2),
        Err(failure) if failure.kind() != ErrorKind::BrokenPipe => {
            let message = format!("cannot write to standard output: {failure}");
            screen::say_error(&message, false, 1);
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// What clap says about arguments, as one line like those of other errors.
fn in_one_line(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let (text, _) = text.rsplit_once("\n\nFor more information, ").unwrap_or((text, ""));
    // A value may have line feeds of its own; those of clap are followed by spaces or another line feed.
    let in_line = |text: &str| text.trim_end().replace("\n\n  tip: ", "; ").replace("\n  ", " ");
    match text.rsplit_once("\n\nUsage: ") {
        Some((text, usage)) => format!("{}; usage: {}", in_line(text), in_line(usage)),
        None => format!("{}; --help says more", in_line(text)),
    }
}
