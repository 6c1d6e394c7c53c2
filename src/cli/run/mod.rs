//! What a run of `synth` holds on to.

pub mod datasets;
pub mod interrupt;
