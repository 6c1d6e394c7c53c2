//! What a device tells about itself.

/// How much memory a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Bytes that nobody holds.
    pub free: usize,
    /// Bytes in all.
    pub total: usize,
}

/// How large a weight is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightSize {
    /// Outputs.
    pub rows: usize,
    /// Inputs; 1 for a vector.
    pub columns: usize,
    /// Bytes that are read where all of it is.
    pub bytes: usize,
}

/// In what numbers a tensor is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// The device's own for activations.
    Working,
    /// f32: sums over layers, and logits.
    Single,
}

/// What a [`Device::contrast_sample_hidden`](crate::device::Device::contrast_sample_hidden) computed of the amateur's logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Projections {
    /// Logits that were computed one by one.
    pub gathered: usize,
    /// Rows whose logits were all computed.
    pub full: usize,
}
