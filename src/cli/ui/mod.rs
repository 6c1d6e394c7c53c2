//! What a user sees while the program runs.

#[macro_use]
pub mod print;
pub mod download;
pub mod progress;
