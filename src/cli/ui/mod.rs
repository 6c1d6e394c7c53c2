//! What a user sees while the program runs.

#[macro_use]
pub mod message;
#[cfg(feature = "hub")]
pub mod download;
pub mod output;
pub mod progress;
pub mod table;
