//! The two models of a pair, as a device tells them apart.

/// One of the two models' places on a device: an order of execution (a CUDA stream), memory, and number formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The expert's, and that of everything which belongs to both models.
    Expert,
    /// The amateur's.
    Amateur,
}
