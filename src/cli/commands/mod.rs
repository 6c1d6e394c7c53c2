//! One file a subcommand.

pub mod bench;
pub mod completions;
pub mod doctor;
pub mod pairs;
pub mod plan;
pub mod render;
pub mod stats;
pub mod synth;
