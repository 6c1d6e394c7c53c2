//! The sources of the logits from which a step's outputs are sampled.

/// The expert's logits.
pub enum ExpertLogits<'a, T> {
    /// Logits of the current step, `[outputs, vocabulary or more]`.
    Computed(&'a T),
    /// Logits of earlier steps, `[rows, vocabulary or more]`. [`SampleRow::deferred_row`](super::batch::SampleRow) is the row
    /// of an output.
    Deferred(&'a T),
}

impl<T> Clone for ExpertLogits<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ExpertLogits<'_, T> {}

/// The amateur's logits.
pub enum AmateurLogits<'a, T, W> {
    /// No output needs them.
    Unneeded,
    /// A later step computes them. The expert decides the outputs that need no amateur and those with a single candidate,
    /// unless their log-probabilities are wanted; the expert's logits of each other output go to its
    /// [`SampleRow::deferred_row`](super::batch::SampleRow) of `deferred_logits`, `[rows, vocabulary or more]`.
    Later {
        /// The expert's logits of outputs that await the amateur.
        deferred_logits: &'a mut T,
    },
    /// All logits, `[outputs, vocabulary or more]`.
    Computed(&'a T),
    /// Not computed yet; the logits of the outputs' candidates suffice.
    Unprojected(Unprojected<'a, T, W>),
}

/// Logits that can be computed: `logits = hidden * lm_head^T`.
pub struct Unprojected<'a, T, W> {
    /// `[outputs, hidden_size]`
    pub hidden: &'a T,
    /// `[vocab_size, hidden_size]`
    pub lm_head: &'a W,
    /// A buffer for all logits, `[outputs, vocab_size]`.
    pub logits: &'a mut T,
}

/// How many of the amateur's logits a sampling computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Projections {
    /// Logits that were computed one by one.
    pub gathered: usize,
    /// Outputs whose logits were all computed.
    pub full: usize,
}
