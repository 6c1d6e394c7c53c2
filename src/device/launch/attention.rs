//! Launches of `attention.cu`.

use super::machine::Machine;
use super::{Cache, Launcher, Step, Tensor};
use crate::device::{CacheShape, Heads};

/// What does not change from step to step.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Query and key/value heads.
    pub heads: Heads,
    /// Of the products of queries and keys.
    pub scale: f32,
    /// How many positions a token sees, its own included.
    pub window: Option<usize>,
    /// The cache's layer.
    pub layer: usize,
}

/// Bytes that attention's splits need for each block of the cache.
pub fn partial_bytes(_shape: CacheShape) -> usize {
    0
}

/// See [`crate::device::Device::attention`].
pub fn attention<M: Machine>(
    _on: &Launcher<M>,
    _step: &Step<M>,
    _shape: Shape,
    _qkv: &Tensor<M>,
    _cache: &Cache<M>,
    _out: &mut Tensor<M>,
) {
    unimplemented!()
}
