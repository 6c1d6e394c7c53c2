//! Passes the functions for checks, measurements and tests on to the inner device.

use super::{Profiled, Routing, SINGLE, Step};
use crate::device::inspect::{Inspect, Peaks};
use crate::device::{Choice, Projections};
use crate::error::Result;

impl<D: Inspect> Inspect for Profiled<D> {
    type Mark = D::Mark;

    fn mark(&self) -> D::Mark {
        self.inner.mark()
    }

    fn seconds(&self, from: &D::Mark, to: &D::Mark) -> Result<f64> {
        self.inner.seconds(from, to)
    }

    fn trace(&self, step: &mut Step<D::Step>) {
        self.inner.trace(&mut step.inner);
    }

    fn traced<'a>(&self, step: &'a Step<D::Step>) -> &'a [[D::Mark; 2]] {
        self.inner.traced(&step.inner)
    }

    fn peaks(&self, largest: usize) -> Result<Option<Peaks>> {
        self.inner.peaks(largest)
    }

    fn projections(&self, step: &Step<D::Step>) -> Projections {
        self.inner.projections(&step.inner)
    }

    fn width(&self, x: &D::Tensor) -> usize {
        self.inner.width(x)
    }

    fn copy(&self, rows: usize, x: &D::Tensor, out: &mut D::Tensor) {
        let bytes = 2 * rows * self.inner.width(x) * SINGLE;
        self.note("copy", bytes, 0, |d| d.copy(rows, x, out));
    }

    fn upload(&self, values: &[f32], x: &mut D::Tensor) {
        self.inner.upload(values, x);
    }

    fn download(&self, rows: usize, x: &D::Tensor) -> Vec<f32> {
        self.inner.download(rows, x)
    }

    fn choices(&self, rows: usize, routing: &Routing<D::Routing>) -> Vec<Choice> {
        self.inner.choices(rows, &routing.inner)
    }
}
