//! The one integration-test binary: a module a subject.
#![allow(missing_docs, clippy::float_cmp, clippy::missing_panics_doc, clippy::unwrap_used)]

mod bad_input;
mod commands;
mod contrast;
mod cpu;
mod cuda;
mod dataset;
mod hub;
mod invariance;
mod kernels;
mod launch;
mod models;
mod pipeline;
mod placement;
mod profile;
mod program;
mod random;
mod resume;
mod scheduler;
mod shortcuts;
mod simt;
mod step;
mod sweep;
mod synth;
mod text;
