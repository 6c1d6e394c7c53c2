//! A mixture of experts: many MLPs, here called *branches*. A router chooses a few of them for each row. (Papers call the
//! MLPs experts; in this project the expert is the post-trained model of the pair.)
//!
//! ```text
//! mixture(x) = sum over chosen branches b:  weight(b) * down_b(activation(gate_b(x)) * up_b(x))
//! ```
//!
//! Rows are not moved. Each visit of a row to a branch has a *place*; places are ordered by branch. The first product reads
//! the rows in place and writes one row per place, the second maps places to places, and the weighted sum gathers the
//! places of each row.

use super::spec;
use crate::device::{Activation, Device, GroupedRows, Precision};
use crate::error::Result;

/// The mixture of one layer.
pub(super) struct Mixture<D: Device> {
    /// `[branches, hidden_size]`
    pub router: D::Weight,
    /// `[branches, 2 * intermediate_size, hidden_size]`
    pub gate_up: D::Weight,
    /// `[branches, hidden_size, intermediate_size]`
    pub down: D::Weight,
    pub shape: spec::Mixture,
}

/// The activations of one mixture; all layers share them. `places = tokens * active`.
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
