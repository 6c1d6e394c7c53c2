//! Launches of the kernels that work on one row of activations at a time.

use std::ops::Range;

use super::machine::Machine;
use super::{Cache, Launcher, Rope, Step, Tensor, Weight};
use crate::device::{Activation, Heads, Norm};

/// See [`crate::device::Device::embed`].
pub fn embed<M: Machine>(
    _on: &Launcher<M>,
    _step: &Step<M>,
    _table: &Weight<M>,
    _scale: f32,
    _out: &mut Tensor<M>,
) {
    unimplemented!()
}

/// See [`crate::device::Device::rms_norm`].
pub fn rms_norm<M: Machine>(
    _on: &Launcher<M>,
    _rows: usize,
    _delta: Option<&Tensor<M>>,
    _residual: &mut Tensor<M>,
    _norm: &Norm<Weight<M>>,
    _out: &mut Tensor<M>,
) {
    unimplemented!()
}

/// See [`crate::device::Device::rope_store`].
#[allow(clippy::too_many_arguments, clippy::type_complexity)]
pub fn rope_store<M: Machine>(
    _on: &Launcher<M>,
    _step: &Step<M>,
    _heads: Heads,
    _norms: Option<(&Norm<Weight<M>>, &Norm<Weight<M>>)>,
    _rope: &Rope<M>,
    _layer: usize,
    _qkv: &mut Tensor<M>,
    _cache: &mut Cache<M>,
) {
    unimplemented!()
}

/// See [`crate::device::Device::gated`].
pub fn gated<M: Machine>(
    _on: &Launcher<M>,
    _rows: usize,
    _width: usize,
    _activation: Activation,
    _x: &Tensor<M>,
    _out: &mut Tensor<M>,
) {
    unimplemented!()
}

/// See [`crate::device::Device::gather`].
pub fn gather<M: Machine>(
    _on: &Launcher<M>,
    _step: &Step<M>,
    _outputs: Range<usize>,
    _x: &Tensor<M>,
    _out: &mut Tensor<M>,
) {
    unimplemented!()
}

/// See [`crate::device::Device::random_weight`].
pub fn random_weight<M: Machine>(
    _on: &Launcher<M>,
    _rows: usize,
    _columns: usize,
    _seed: u64,
    _memory: &M::Memory,
) {
    unimplemented!()
}
