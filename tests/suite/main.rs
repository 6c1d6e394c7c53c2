//! The only integration-test binary, with one module per subject. Modules that run the program need the feature
//! `cli`.
#![allow(missing_docs, clippy::float_cmp, clippy::missing_panics_doc, clippy::unwrap_used)]

#[cfg(feature = "cli")]
mod bad_input;
#[cfg(feature = "cli")]
mod changed_weights;
#[cfg(feature = "cli")]
mod commands;
mod contrast;
mod cpu;
#[cfg(feature = "cli")]
mod cuda;
mod dataset;
#[cfg(feature = "cli")]
mod gpu_session;
#[cfg(feature = "cli")]
mod hostile_text;
#[cfg(all(feature = "cli", feature = "hub"))]
mod hub;
mod input;
mod invariance;
mod kernels;
mod launch;
mod library;
mod models;
#[cfg(feature = "cli")]
mod output;
mod pipeline;
#[cfg(feature = "cli")]
mod placement;
mod plan;
#[cfg(feature = "cli")]
mod profile;
#[cfg(feature = "cli")]
mod program;
mod ptx;
mod random;
#[cfg(feature = "cli")]
mod render;
#[cfg(feature = "cli")]
mod resume;
mod scheduler;
#[cfg(feature = "cli")]
mod screen;
mod shortcuts;
#[cfg(feature = "cli")]
mod signals;
mod simt;
mod soak;
mod stalls;
#[cfg(feature = "cli")]
mod stats;
mod step;
#[cfg(feature = "cli")]
mod sweep;
#[cfg(feature = "cli")]
mod synth;
mod templates;
mod text;
mod windows;
