//! Where a weight comes from, and what it is for.

use super::tensor::TensorView;

/// Where a weight comes from.
#[derive(Debug, Clone, Copy)]
pub enum WeightSource<'a> {
    /// Tensors of a checkpoint, joined along their first dimension (q|k|v, gate|up).
    Stored(&'a [TensorView]),
    /// Numbers that the device makes, for measurements: a vector of ones, or a matrix of uniform numbers with variance
    /// `1 / columns`. With three dimensions it is as many matrices as the first says, one below the other.
    Random {
        /// Of the weight.
        shape: &'a [usize],
        /// Which numbers.
        seed: u64,
    },
}

/// What a weight is for, which says in what number format it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightKind {
    /// A matrix of a layer: kept in [`Format::weights`](crate::device::number::dtype::Format).
    LayerMatrix,
    /// Any other weight (norm, bias, embedding, LM head, router): kept as activations are.
    Other,
}
