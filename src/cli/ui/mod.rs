//! What a user sees while the program runs.

#[macro_use]
pub mod message;
pub mod activity;
pub mod allocator;
#[cfg(feature = "hub")]
pub mod download;
pub mod estimate;
pub mod output;
pub mod progress;
pub mod screen;
pub mod table;
pub mod words;
