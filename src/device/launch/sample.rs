//! Launches of `contrast_sample.cu`.

use std::ops::Range;

use super::machine::Machine;
use super::{Launcher, Step, Tensor};

/// See [`crate::device::Device::contrast_sample`].
pub fn contrast_sample<M: Machine>(
    _on: &Launcher<M>,
    _step: &mut Step<M>,
    _outputs: Range<usize>,
    _expert: &Tensor<M>,
    _amateur: Option<&Tensor<M>>,
) {
    unimplemented!()
}
