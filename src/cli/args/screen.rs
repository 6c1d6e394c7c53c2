//! What a user sees on standard error.

use clap::ValueEnum;

use crate::cli::ui::screen::{self, Mode, Verbosity};

#[derive(clap::Args)]
#[command(next_help_heading = "Messages")]
pub struct ScreenArgs {
    /// How progress is shown on standard error: auto is a bar on a terminal and a plain line now and then elsewhere; json
    /// makes every line a JSON object, for monitors
    #[arg(long, value_enum, value_name = "HOW", default_value_t = ProgressName::Auto)]
    progress: ProgressName,
    /// Print only warnings and errors
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
    /// Print the engine's statistics at the end
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProgressName {
    Auto,
    Bar,
    Plain,
    Json,
    None,
}

impl ScreenArgs {
    /// Makes the screen what is asked for.
    pub fn apply(&self) {
        let mode = match self.progress {
            ProgressName::Auto => None,
            ProgressName::Bar => Some(Mode::Bar),
            ProgressName::Plain => Some(Mode::Plain),
            ProgressName::Json => Some(Mode::Json),
            ProgressName::None => Some(Mode::None),
        };
        let verbosity = match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        };
        screen::set(mode, verbosity);
    }
}
