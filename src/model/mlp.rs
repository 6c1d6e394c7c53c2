//! The second half of a layer: a dense MLP for all rows, or a [mixture](super::mixture).

use super::linear::Linear;
use super::mixture::{self, Mixture};
use super::spec::{self, Spec};
use crate::device::{Activation, Device, Precision};
use crate::error::Result;

/// The MLP of one layer.
pub(super) enum Mlp<D: Device> {
    Dense(Dense<D>),
    Mixture(Mixture<D>),
}

/// `down(activation(gate(x)) * up(x))`
pub(super) struct Dense<D: Device> {
    /// `[2 * width, hidden_size]`
    pub gate_up: Linear<D>,
    /// `[hidden_size, width]`
    pub down: Linear<D>,
    pub width: usize,
}

/// The activations of the kinds of MLP that the model has, allocated once.
pub(super) struct Scratch<D: Device> {
    dense: Option<DenseScratch<D>>,
    mixture: Option<mixture::Scratch<D>>,
}

struct DenseScratch<D: Device> {
    /// `[tokens, 2 * width]`
    gate_up: D::Tensor,
    /// `[tokens, width]`
    gated: D::Tensor,
}

impl<D: Device> Scratch<D> {
    pub fn new(device: &D, spec: &Spec, tokens: usize) -> Result<Self> {
        let (mut dense, mut mixture) = (None, None);
        for layer in &spec.layers {
            match layer.mlp {
                spec::Mlp::Dense if dense.is_none() => {
                    dense = Some(DenseScratch::new(device, spec.intermediate_size, tokens)?);
                }
                spec::Mlp::Mixture(shape) if mixture.is_none() => {
                    mixture = Some(mixture::Scratch::new(device, shape, spec.hidden_size, tokens)?);
                }
                _ => {}
            }
        }
        Ok(Self { dense, mixture })
    }
}

impl<D: Device> DenseScratch<D> {
    fn new(device: &D, width: usize, tokens: usize) -> Result<Self> {
        Ok(Self {
            gate_up: device.tensor(tokens, 2 * width, Precision::Working)?,
            gated: device.tensor(tokens, width, Precision::Working)?,
        })
    }
}

impl<D: Device> Mlp<D> {
    /// Bytes of the matrices.
    pub fn bytes(&self, device: &D) -> usize {
        match self {
            Self::Dense(dense) => dense.gate_up.bytes(device) + dense.down.bytes(device),
            Self::Mixture(Mixture { router, gate_up, down, .. }) => {
                [router, gate_up, down].map(|weight| device.weight_size(weight).bytes).iter().sum()
            }
        }
    }

    /// `out = mlp(x)`, both `[rows, hidden_size]` of the step at hand.
    pub fn apply(
        &self,
        device: &D,
        step: &D::Step,
        activation: Activation,
        x: &D::Tensor,
        scratch: &mut Scratch<D>,
        out: &mut D::Tensor,
    ) {
        match (self, scratch) {
            (Self::Dense(dense), Scratch { dense: Some(s), .. }) => {
                let rows = device.rows(step);
                dense.gate_up.apply(device, rows, x, &mut s.gate_up);
                device.gated(rows, dense.width, activation, &s.gate_up, &mut s.gated);
                dense.down.apply(device, rows, &s.gated, out);
            }
            (Self::Mixture(mixture), Scratch { mixture: Some(s), .. }) => {
                mixture.apply(device, step, activation, x, s, out);
            }
            _ => unreachable!("the scratch is made for the spec's layers"),
        }
    }
}
