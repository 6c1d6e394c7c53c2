//! `codit pairs`: the pairs that have a name.

use std::process::ExitCode;

use crate::cli::ui::output::Output;
use crate::cli::ui::table::table;
use codit::error::Result;
use codit::pairs::PAIRS;

/// Prints the pairs with their settings.
pub fn run() -> Result<ExitCode> {
    let rows = PAIRS.iter().map(|pair| {
        let thinking =
            pair.thinking.map_or(String::new(), |thinking| format!(", enable_thinking {thinking}"));
        let settings = format!("max_tokens {}{thinking}", pair.max_tokens);
        [pair.name.to_owned(), pair.expert.to_owned(), pair.amateur.to_owned(), settings]
    });
    writeln!(Output, "{}", table(["name", "expert", "amateur", "settings"], 4, rows))?;
    Ok(ExitCode::SUCCESS)
}
