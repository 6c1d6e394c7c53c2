//! Flags that several subcommands share.

pub mod bytes;
pub mod device;
pub mod format;
pub mod method;
pub mod models;
pub mod prompting;
pub mod screen;
pub mod shortcuts;
pub mod source;
