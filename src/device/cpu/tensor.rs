//! Activations in memory.

use super::buffer::Buffer;

/// Activations `[rows, width]`, row-major.
pub struct Tensor {
    pub(super) data: Buffer,
    pub(super) width: usize,
}

impl Tensor {
    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.width..][..self.width]
    }

    pub(super) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.width..][..self.width]
    }

    pub(super) fn rows_mut(&mut self, rows: usize) -> &mut [f32] {
        &mut self.data[..rows * self.width]
    }
}
