//! Tensors of a checkpoint, where they lie in its files.

use std::ops::Range;

use crate::checkpoint::Bytes;
use crate::device::number::dtype::Dtype;

/// A checkpoint's tensor, where it lies in the mapped file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TensorView {
    /// Its name in the checkpoint, for messages.
    pub name: String,
    /// Its number format.
    pub dtype: Dtype,
    /// Row-major.
    pub shape: Vec<usize>,
    /// The file.
    pub file: Bytes,
    /// Where in the file; as long as dtype and shape say.
    pub range: Range<usize>,
}

impl TensorView {
    /// The tensor's bytes. They need not be aligned.
    pub fn bytes(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }
}
