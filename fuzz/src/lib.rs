//! What codit reads from others, as functions of bytes: each target takes the contents of one damaged file and uses what
//! comes of it.
//!
//! A target fails by a panic, an abort, by running over its time or memory, or where what the library promises does not
//! hold: an error is short, what has loaded can be used, a record that was written is never lost. `fuzz_targets/` gives the
//! targets to cargo-fuzz; the program `mutate` runs them without it.

mod checkpoint;
mod dataset;
pub mod json;
pub mod mutate;
mod place;
mod random;
mod template;

use codit::Error;
use mutate::Kind;

pub use random::Random;

/// A target.
pub struct Target {
    /// Its name, and that of its folder in seeds/.
    pub name: &'static str,
    /// What its files are, for `mutate`.
    pub kind: Kind,
    run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 11] = [
    Target { name: "safetensors", kind: Kind::Safetensors, run: checkpoint::safetensors },
    Target { name: "index", kind: Kind::Json, run: checkpoint::index },
    Target { name: "config", kind: Kind::Json, run: checkpoint::config },
    Target { name: "generation_config", kind: Kind::Json, run: checkpoint::generation_config },
    Target { name: "tokenizer", kind: Kind::Json, run: checkpoint::tokenizer },
    Target { name: "tokenizer_config", kind: Kind::Json, run: checkpoint::tokenizer_config },
    Target { name: "template", kind: Kind::Template, run: template::template },
    Target { name: "messages", kind: Kind::Lines, run: template::messages },
    Target { name: "lines", kind: Kind::Lines, run: dataset::lines },
    Target { name: "manifest", kind: Kind::Json, run: dataset::manifest },
    Target { name: "resume", kind: Kind::Lines, run: dataset::resume },
];

/// Runs the target `name`.
///
/// # Panics
/// If it finds a fault, or there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("no target {name:?}")).run)(data);
}

/// The longest text of an error, in characters.
const LONGEST_ERROR: usize = 2_000;

/// Checks what a user sees of an error.
fn check_error(error: &Error) {
    let text = error.to_string();
    assert!(!text.is_empty(), "an error without words: {error:?}");
    let characters = text.chars().count();
    let beginning: String = text.chars().take(200).collect();
    assert!(characters <= LONGEST_ERROR, "an error of {characters} characters: {beginning}...");
}

/// The value, or `None` where there is an error, which is checked.
fn accept<T>(result: codit::Result<T>) -> Option<T> {
    result.inspect_err(check_error).ok()
}
