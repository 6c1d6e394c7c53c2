//! One file a subcommand.

pub mod bench;
pub mod doctor;
pub mod pairs;
pub mod plan;
pub mod stats;
pub mod synth;
