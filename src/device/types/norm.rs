//! Norms, and the activation of a gated MLP.

/// The gate's activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`
    Silu,
    /// The tanh approximation of GELU.
    GeluTanh,
}

/// A root-mean-square norm: `x / rms(x) * weight`, or `* (1 + weight)` where `unit_offset`.
pub struct Norm<W> {
    /// `[width]`
    pub weight: W,
    /// Added to the mean square.
    pub epsilon: f32,
    /// Gemma's form.
    pub unit_offset: bool,
}

/// What a norm of queries and keys takes as one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormScope {
    /// Each head: weights `[head_dim]`, one for all query heads and one for all key heads.
    Head,
    /// All heads together: weights `[query_heads * head_dim]` and `[key_value_heads * head_dim]`.
    Projection,
}

/// The norms of queries and keys before their rotation.
pub struct HeadNorms<W> {
    /// What each norms.
    pub scope: NormScope,
    /// Of queries.
    pub query: Norm<W>,
    /// Of keys.
    pub key: Norm<W>,
}
