//! What a run of `synth` holds on to.

pub mod announce;
pub mod complete;
pub mod datasets;
pub mod interrupt;
pub mod lost_pages;
pub mod order;
pub mod weights;
