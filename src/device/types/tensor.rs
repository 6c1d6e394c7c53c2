//! Tensors in the files of a checkpoint.

use std::ops::Range;

use crate::checkpoint::Bytes;
use crate::device::number::dtype::Dtype;

/// A tensor in a mapped file of a checkpoint. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TensorView {
    /// Its name in the checkpoint, for messages.
    pub name: String,
    /// The number format.
    pub dtype: Dtype,
    /// The shape, row-major.
    pub shape: Vec<usize>,
    /// The file.
    pub file: Bytes,
    /// The bytes in the file, as many as dtype and shape need.
    pub range: Range<usize>,
}

impl TensorView {
    /// The tensor's bytes. They need not be aligned.
    pub fn bytes(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }
}
