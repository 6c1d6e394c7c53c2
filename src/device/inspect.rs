//! The part of a device that only checks, measurements and tests use.

use super::Device;
use super::types::logits::Projections;
use super::types::routing::Choice;
use super::types::tensor::TensorView;
use super::types::weight::{WeightKind, WeightSource};
use crate::error::Result;

/// What a machine can do at most, by loops of its own instructions.
#[derive(Debug, Clone)]
pub struct Peaks {
    /// Bytes per second of reading so many bytes again and again, by rising number: fewer stay in nearer caches.
    pub reads: Vec<(usize, f64)>,
    /// Multiplications and additions per second.
    pub arithmetic: f64,
}

/// A device whose buffers can be written and read, and whose work can be timed.
pub trait Inspect: Device {
    /// A point in time.
    type Mark: Send + Sync;

    /// Marks the current point in the queue of work.
    fn mark(&self) -> Self::Mark;
    /// Seconds between two marks; waits for both.
    ///
    /// # Errors
    /// Those of [`Device::collect`].
    fn seconds(&self, from: &Self::Mark, to: &Self::Mark) -> Result<f64>;
    /// Starts to record when each step begins and ends.
    fn trace(&self, step: &mut Self::Step);
    /// The begin and end of each step, from its preparation to its submission, since [`Inspect::trace`].
    fn traced<'a>(&self, step: &'a Self::Step) -> &'a [[Self::Mark; 2]];
    /// How many of the amateur's logits the last sampling of the current step computed, if it computed candidates.
    /// Waits for it.
    fn projections(&self, step: &Self::Step) -> Projections;
    /// The width of activations.
    fn width(&self, x: &Self::Tensor) -> usize;
    /// Copies the first `rows` rows: `out = x`.
    fn copy(&self, rows: usize, x: &Self::Tensor, out: &mut Self::Tensor);
    /// Fills the first rows of `x`, row by row.
    fn upload(&self, values: &[f32], x: &mut Self::Tensor);
    /// The first `rows` rows of `x` as f32; waits for them.
    fn download(&self, rows: usize, x: &Self::Tensor) -> Vec<f32>;
    /// The choices of the first `rows` rows, `[rows, active]`; waits for them. Padding rows hold arbitrary values.
    fn choices(&self, rows: usize, routing: &Self::Routing) -> Vec<Choice>;
    /// The tiles in which a product of `rows` rows is computed, `[rows, outputs]`, if the device chooses them.
    fn tile(&self, _rows: usize, _w: &Self::Weight) -> Option<[usize; 2]> {
        None
    }
    /// Multiprocessors that share the blocks of a kernel. Kernels choose their tiles by this number. 1 where there are
    /// no kernels.
    fn multiprocessors(&self) -> usize {
        1
    }

    /// What the machine can do at most; `largest` is the most bytes that are read. `None` where copies and products of the
    /// device stand for that.
    ///
    /// # Errors
    /// If there is no memory for that many bytes.
    fn peaks(&self, _largest: usize) -> Result<Option<Peaks>> {
        Ok(None)
    }

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
