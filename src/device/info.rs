//! The properties of a device.

use crate::device::number::dtype::{Dtype, Format};

/// The properties of a device, and the settings that suit it. The two roles may differ in number formats.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceInfo {
    /// The device in one line for people.
    pub description: String,
    /// Number formats of the model's weights and cache.
    pub format: Format,
    /// Number format of the model's activations.
    pub dtype: Dtype,
    /// Whether each model has its own memory, on two GPUs.
    pub is_split: bool,
    /// Whether a token's numbers are the same, bit for bit, regardless of the other rows of its steps and of how its
    /// sequence is cut into steps.
    pub is_deterministic: bool,
    /// Whether to submit a step before collecting the results of the previous one.
    pub runs_ahead: bool,
    /// Tokens per step that keep the device busy.
    pub default_batched_tokens: usize,
    /// Bytes of logits, of both models together, to hold at once.
    pub logits_bytes: usize,
    /// Whether computing the amateur's logits of the candidates alone is faster than computing all of them.
    pub gathers_candidates: bool,
    /// Time of a step of one model alone divided by that model's share of a step of both, if measured.
    pub solo_slowdown: Option<f64>,
    /// Time that the products of one row add to a step, divided by the time that reading the weights takes.
    pub row_cost: f64,
}

/// The error of devices that cannot be profiled by step.
pub(crate) const NO_PROFILER: &str = "this device cannot be profiled by step; --device cuda can";

/// The memory of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Bytes that are not allocated.
    pub free: usize,
    /// Bytes in all.
    pub total: usize,
}

/// The size of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightSize {
    /// Outputs.
    pub rows: usize,
    /// Inputs; 1 for a vector.
    pub columns: usize,
    /// Bytes of the whole weight.
    pub bytes: usize,
}

/// The precision of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// The device's number format for activations.
    Working,
    /// f32: sums over layers, and logits.
    Single,
}
