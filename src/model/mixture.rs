//! A mixture: many MLPs, its *branches*, of which each row goes through the few that a router chooses for it. (Papers call
//! them experts; here the expert is the better model of the pair.)
//!
//! ```text
//! mixture(x) = sum over chosen branches b:  weight(b) * down_b(activation(gate_b(x)) * up_b(x))
//! ```
//!
//! Rows are not moved: a visit of a row to a branch has a *place* among all visits, which lie in the order of the branches.
//! The first product reads the rows where they are and writes places, the second goes from places to places, and
//! the sum reads each row's places back.

use super::spec;
use crate::device::{Activation, Device, GroupedRows, Precision};
use crate::error::Result;

/// One layer's.
pub(super) struct Mixture<D: Device> {
    /// `[branches, hidden_size]`
    pub router: D::Weight,
    /// `[branches, 2 * intermediate_size, hidden_size]`
    pub gate_up: D::Weight,
    /// `[branches, hidden_size, intermediate_size]`
    pub down: D::Weight,
    pub shape: spec::Mixture,
}

/// The activations of one mixture at a time; `places = tokens * active`.
pub(super) struct Scratch<D: Device> {
    /// `[tokens, branches]`
    logits: D::Tensor,
    routing: D::Routing,
    /// `[places, 2 * intermediate_size]`
    gate_up: D::Tensor,
    /// `[places, intermediate_size]`
    gated: D::Tensor,
    /// `[places, hidden_size]`
    down: D::Tensor,
}

impl<D: Device> Scratch<D> {
    pub fn new(device: &D, shape: spec::Mixture, hidden_size: usize, tokens: usize) -> Result<Self> {
        let places = |width| device.tensor(tokens * shape.routing.active, width, Precision::Working);
        Ok(Self {
            logits: device.tensor(tokens, shape.routing.branches, Precision::Single)?,
            routing: device.routing(tokens, shape.routing)?,
            gate_up: places(2 * shape.intermediate_size)?,
            gated: places(shape.intermediate_size)?,
            down: places(hidden_size)?,
        })
    }
}

impl<D: Device> Mixture<D> {
    /// `out = mixture(x)`, both `[rows, hidden_size]` of the step at hand.
    pub fn apply(
        &self,
        device: &D,
        step: &D::Step,
        activation: Activation,
        x: &D::Tensor,
        s: &mut Scratch<D>,
        out: &mut D::Tensor,
    ) {
        let (rows, width) = (device.rows(step), self.shape.intermediate_size);
        device.matmul(rows, x, &self.router, None, &mut s.logits);
        device.route(step, &s.logits, &mut s.routing);
        device.grouped_matmul(step, &s.routing, GroupedRows::OfRow, x, &self.gate_up, &mut s.gate_up);
        device.gated(rows * self.shape.routing.active, width, activation, &s.gate_up, &mut s.gated);
        device.grouped_matmul(step, &s.routing, GroupedRows::OfPlace, &s.gated, &self.down, &mut s.down);
        device.weighted_sum(step, &s.routing, &s.down, out);
    }
}
