//! What checks, measurements and tests ask of the CPU.

use std::time::Instant;

use super::device::Cpu;
use super::routing::Routing;
use super::step::Step;
use super::tensor::Tensor;
use crate::device::inspect::{Inspect, Peaks};
use crate::device::types::logits::Projections;
use crate::device::types::routing::Choice;
use crate::error::Result;

impl Inspect for Cpu {
    type Mark = Instant;

    fn mark(&self) -> Instant {
        Instant::now()
    }

    fn seconds(&self, from: &Instant, to: &Instant) -> Result<f64> {
        Ok(to.duration_since(*from).as_secs_f64())
    }

    fn trace(&self, step: &mut Step) {
        step.trace.start();
    }

    fn traced<'a>(&self, step: &'a Step) -> &'a [[Instant; 2]] {
        step.trace.steps()
    }

    fn projections(&self, step: &Step) -> Projections {
        step.projections
    }

    fn width(&self, x: &Tensor) -> usize {
        x.width
    }

    fn copy(&self, rows: usize, x: &Tensor, out: &mut Tensor) {
        self.each_row(rows, rows * x.width, out, |row, out| out.copy_from_slice(x.row(row)));
    }

    fn upload(&self, values: &[f32], x: &mut Tensor) {
        x.data[..values.len()].copy_from_slice(values);
    }

    fn download(&self, rows: usize, x: &Tensor) -> Vec<f32> {
        x.data[..rows * x.width].to_vec()
    }

    fn peaks(&self, largest: usize) -> Result<Option<Peaks>> {
        self.measure_peaks(largest).map(Some)
    }

    fn choices(&self, rows: usize, routing: &Routing) -> Vec<Choice> {
        let choices = routing.choices();
        choices[..choices.len().min(rows * routing.active())].to_vec()
    }
}
