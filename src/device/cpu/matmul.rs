//! `out = x * w^T`: weights are unpacked to f32 a few rows at a time, then every row of `x` is multiplied with them.
//!
//! No kept GEMM crate serves here: they have no bf16 weights against f32 activations, and the order of their sums
//! changes with the number of rows.

use rayon::prelude::*;

use super::elementwise::dot;
use super::weight::Part;
use super::{Tensor, Weight};

/// Outputs a task.
const TASK: usize = 64;

/// See [`crate::device::Device::matmul`].
pub fn matmul(rows: usize, x: &Tensor, w: &Weight, bias: Option<&Weight>, out: &mut Tensor) {
    let tasks: Vec<(&Part, usize)> = w
        .parts
        .iter()
        .flat_map(|part| (0..part.rows).step_by(TASK).map(move |first| (part, first)))
        .collect();
    let target = Columns { start: out.data.as_mut_ptr(), len: out.data.len(), width: out.width };
    tasks.into_par_iter().for_each(|(part, first)| {
        let mut unpacked = vec![0.0; w.columns];
        for output in first..(first + TASK).min(part.rows) {
            part.read_row(output, &mut unpacked);
            let column = part.first + output;
            let bias = bias.map_or(0.0, |bias| bias.vector()[column]);
            for row in 0..rows {
                let sum = dot(&x.row(row)[..w.columns], &unpacked) + bias;
                // SAFETY: every column belongs to one task.
                unsafe { target.write(row, column, sum) }
            }
        }
    });
}

/// The output, of which each task writes its own columns.
struct Columns {
    start: *mut f32,
    len: usize,
    width: usize,
}

// SAFETY: tasks write disjoint columns and nobody reads before they end.
unsafe impl Sync for Columns {}

impl Columns {
    /// # Safety
    /// No other thread may write this element.
    unsafe fn write(&self, row: usize, column: usize, value: f32) {
        let at = row * self.width + column;
        assert!(column < self.width && at < self.len);
        // SAFETY: inside the buffer; the caller alone writes it.
        unsafe { *self.start.add(at) = value }
    }
}
