//! What a device tells about itself.

use crate::device::number::dtype::{Dtype, Format};

/// What a device is, and how it is best used. One of the models may see other number formats than the other.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceInfo {
    /// The device in a line for people.
    pub description: String,
    /// Number formats of the model's weights and cache.
    pub format: Format,
    /// Number format of the model's activations.
    pub dtype: Dtype,
    /// Whether the models have memory apart, such as that of two GPUs.
    pub is_split: bool,
    /// Whether the numbers of a token are the same, bit for bit, whatever else is in the steps that compute its sequence and
    /// however the sequence is cut into them.
    pub is_deterministic: bool,
    /// Whether a step should be submitted before the results of the one before are collected.
    pub runs_ahead: bool,
    /// Tokens a step that keep the device busy.
    pub default_batched_tokens: usize,
    /// Bytes of logits, of both models together, that are worth holding at once.
    pub logits_bytes: usize,
    /// Whether the amateur's logits of the candidates alone cost less than all of its logits.
    pub gathers_candidates: bool,
    /// Time of a step of one model alone divided by that model's share of a step of both, if measured.
    pub solo_slowdown: Option<f64>,
    /// What the products of a row add to a step, divided by what reading the weights takes.
    pub row_cost: f64,
}

/// Why most devices cannot be profiled by step.
pub(crate) const NO_PROFILER: &str = "this device cannot be profiled by step; --device cuda can";

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
