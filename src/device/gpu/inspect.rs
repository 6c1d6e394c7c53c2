//! What checks, measurements and tests ask of the GPU.

use super::buffers::{Tensor, Weight};
use super::device::GpuDevice;
use super::inputs::Step;
use super::ops::grouped_matmul;
use super::ops::mixture::Routing;
use super::runtime::GpuRuntime;
use crate::device::inspect::Inspect;
use crate::device::number::convert::convert;
use crate::device::number::dtype::Dtype;
use crate::device::types::logits::Projections;
use crate::device::types::routing::Choice;
use crate::error::Result;

impl<R: GpuRuntime> Inspect for GpuDevice<R> {
    type Mark = R::Mark;

    fn mark(&self) -> R::Mark {
        self.runtime().mark(self.current_role())
    }

    fn seconds(&self, from: &R::Mark, to: &R::Mark) -> Result<f64> {
        self.runtime().seconds(from, to)
    }

    fn trace(&self, step: &mut Step<R>) {
        step.trace.start();
    }

    fn traced<'a>(&self, step: &'a Step<R>) -> &'a [[R::Mark; 2]] {
        step.trace.steps()
    }

    fn projections(&self, step: &Step<R>) -> Projections {
        step.projections(self)
    }

    fn width(&self, x: &Tensor<R>) -> usize {
        x.width
    }

    fn copy(&self, rows: usize, x: &Tensor<R>, out: &mut Tensor<R>) {
        self.runtime().copy(self.current_role(), &x.memory, &out.memory, x.bytes(rows));
    }

    fn upload(&self, values: &[f32], x: &mut Tensor<R>) {
        let mut bytes = vec![0; values.len() * x.dtype.size()];
        convert(bytemuck::cast_slice(values), Dtype::F32, &mut bytes, x.dtype);
        self.runtime().write(self.current_role(), &x.memory, &bytes);
    }

    fn download(&self, rows: usize, x: &Tensor<R>) -> Vec<f32> {
        let pending = self.runtime().read(self.current_role(), &x.memory, x.bytes(rows));
        // `collect` reports a failure; the bytes read after one are meaningless.
        let bytes = self.runtime().wait(pending).unwrap_or_default();
        let mut values = vec![f32::NAN; rows * x.width];
        convert(&bytes, x.dtype, bytemuck::cast_slice_mut(&mut values), Dtype::F32);
        values
    }

    fn choices(&self, rows: usize, routing: &Routing<R>) -> Vec<Choice> {
        routing.choices(self, rows)
    }

    /// cuBLASLt, which computes the products of other formats, does not say.
    fn tile(&self, rows: usize, w: &Weight<R>) -> Option<[usize; 2]> {
        (w.dtype == Dtype::F8E4m3).then(|| grouped_matmul::tile(self, rows, w))
    }

    fn multiprocessors(&self) -> usize {
        self.runtime().multiprocessors(self.current_role())
    }
}
