//! A linear projection: a matrix, and a bias in some families.

use crate::device::Device;

/// `x * weight^T + bias`
pub(super) struct Linear<D: Device> {
    pub weight: D::Weight,
    pub bias: Option<D::Weight>,
}

impl<D: Device> Linear<D> {
    /// Bytes of the matrix.
    pub fn bytes(&self, device: &D) -> usize {
        device.weight_size(&self.weight).bytes
    }

    /// `out = x * weight^T + bias` for the first `rows` rows.
    pub fn apply(&self, device: &D, rows: usize, x: &D::Tensor, out: &mut D::Tensor) {
        device.matmul(rows, x, &self.weight, self.bias.as_ref(), out);
    }
}
