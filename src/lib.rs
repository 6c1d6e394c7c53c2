//! `codit` writes instruction-tuning datasets by contrastive decoding (CoDIT, arXiv 2604.13538).

pub mod checkpoint;
pub mod cli;
pub mod contrast;
pub mod dataset;
pub mod device;
pub mod engine;
pub mod error;
pub mod ids;
pub mod model;
pub mod text;

pub use error::{Error, Result};
