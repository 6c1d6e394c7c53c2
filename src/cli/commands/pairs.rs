//! `codit pairs`: the pairs that have a name.

use std::io::IsTerminal;
use std::process::ExitCode;

use console::Term;

use crate::cli::ui::output::Output;
use crate::cli::ui::table::table;
use codit::error::Result;
use codit::pairs::PAIRS;

/// Columns of the terminal, if standard output is one.
fn columns_of_output() -> Option<usize> {
    let (_, columns) = Term::stdout().size_checked()?;
    std::io::stdout().is_terminal().then_some(usize::from(columns))
}

/// Prints the pairs with their settings: in a table, or below one another where the terminal is too narrow for it.
pub fn run() -> Result<ExitCode> {
    let rows = PAIRS.iter().map(|pair| {
        let thinking =
            pair.thinking.map_or(String::new(), |thinking| format!(", enable_thinking {thinking}"));
        let settings = format!("max_tokens {}{thinking}", pair.max_tokens);
        [pair.name.to_owned(), pair.expert.to_owned(), pair.amateur.to_owned(), settings]
    });
    let table = table(["name", "expert", "amateur", "settings"], 4, rows.clone());
    let columns = table.lines().map(str::len).max().unwrap_or(0);
    if columns_of_output().is_none_or(|room| columns <= room) {
        writeln!(Output, "{table}")?;
    } else {
        for [name, expert, amateur, settings] in rows {
            writeln!(Output, "{name}\n  expert    {expert}\n  amateur   {amateur}\n  settings  {settings}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
