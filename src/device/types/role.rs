//! The two roles of a pair on a device.

/// The role of a model: its stream of work (a CUDA stream), its memory and its number formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The expert, and everything that belongs to both models.
    Expert,
    /// The amateur.
    Amateur,
}
