//! What a user sees while the program runs.

#[macro_use]
pub mod print;
#[cfg(feature = "hub")]
pub mod download;
pub mod progress;
