//! The source and the kind of a weight.

use super::tensor::TensorView;

/// The source of a weight.
#[derive(Debug, Clone, Copy)]
pub enum WeightSource<'a> {
    /// Tensors of a checkpoint, joined along their first dimension (q|k|v, gate|up).
    Stored(&'a [TensorView]),
    /// Numbers that the device draws, for measurements: a vector of ones, or a matrix of uniform numbers with
    /// variance `1 / columns`. Three dimensions give as many matrices as the first one says, one below the other.
    Random {
        /// The shape of the weight.
        shape: &'a [usize],
        /// Seeds the numbers.
        seed: u64,
    },
}

/// The kind of a weight, which decides its number format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightKind {
    /// A matrix of a layer: kept in [`Format::weights`](crate::device::number::dtype::Format).
    LayerMatrix,
    /// Any other weight (norm, bias, embedding, LM head, router): kept as activations are.
    Other,
}
