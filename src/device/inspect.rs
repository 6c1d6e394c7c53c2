//! What only checks, measurements and tests ask of a device.

use super::Device;
use super::types::logits::Projections;
use super::types::routing::Choice;
use super::types::tensor::TensorView;
use super::types::weight::{WeightKind, WeightSource};
use crate::error::Result;

/// A device whose buffers can be written and read, and whose work can be timed.
pub trait Inspect: Device {
    /// A point in time.
    type Mark: Send + Sync;

    /// A point in the order of what is queued.
    fn mark(&self) -> Self::Mark;
    /// Seconds from one mark to a later one; waits for both.
    ///
    /// # Errors
    /// Those of [`Device::collect`].
    fn seconds(&self, from: &Self::Mark, to: &Self::Mark) -> Result<f64>;
    /// Notes from now on when each step begins and ends.
    fn trace(&self, step: &mut Self::Step);
    /// When each step began and ended, from its preparation to its submission, since [`Inspect::trace`].
    fn traced<'a>(&self, step: &'a Self::Step) -> &'a [[Self::Mark; 2]];
    /// How many of the amateur's logits the last sampling of the step at hand computed, where candidates sufficed; waits
    /// for it.
    fn projections(&self, step: &Self::Step) -> Projections;
    /// The width of activations.
    fn width(&self, x: &Self::Tensor) -> usize;
    /// `out = x`, the first `rows` rows.
    fn copy(&self, rows: usize, x: &Self::Tensor, out: &mut Self::Tensor);
    /// Fills the first rows of `x`, row by row.
    fn upload(&self, values: &[f32], x: &mut Self::Tensor);
    /// The first `rows` rows of `x`, row by row, as f32; waits for them.
    fn download(&self, rows: usize, x: &Self::Tensor) -> Vec<f32>;
    /// What was chosen for the first `rows` rows, `[rows, active]`; waits for it. Rows of padding hold anything.
    fn choices(&self, rows: usize, routing: &Self::Routing) -> Vec<Choice>;

    /// Short for [`Device::load`] of stored tensors as [`WeightKind::Other`].
    ///
    /// # Errors
    /// Those of [`Device::load`].
    fn weight(&self, parts: &[TensorView]) -> Result<Self::Weight> {
        self.load(WeightSource::Stored(parts), WeightKind::Other)
    }
    /// Short for [`Device::load`] of stored tensors as a [`WeightKind::LayerMatrix`].
    ///
    /// # Errors
    /// Those of [`Device::load`].
    fn matrix(&self, parts: &[TensorView]) -> Result<Self::Weight> {
        self.load(WeightSource::Stored(parts), WeightKind::LayerMatrix)
    }
}
