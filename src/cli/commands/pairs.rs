//! `codit pairs`: the teacher pairs that have a name.

use std::process::ExitCode;

use codit::pairs::PAIRS;

/// Prints them with the settings that they bring.
pub fn run() -> ExitCode {
    println!("{:<14} {:<36} {:<26} settings", "name", "expert", "amateur");
    for pair in PAIRS {
        let thinking =
            pair.thinking.map_or(String::new(), |thinking| format!(", enable_thinking {thinking}"));
        let settings = format!("max_tokens {}{thinking}", pair.max_tokens);
        println!("{:<14} {:<36} {:<26} {settings}", pair.name, pair.expert, pair.amateur);
    }
    ExitCode::SUCCESS
}
