//! Where the logits of a step's outputs come from when the outputs are sampled.

/// The expert's logits.
pub enum ExpertLogits<'a, T> {
    /// Those of the step at hand, `[outputs, vocabulary or more]`.
    Computed(&'a T),
    /// Those that earlier steps kept, `[rows, vocabulary or more]`: [`SampleRow::deferred_row`](super::batch::SampleRow) says
    /// which row is an output's.
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
    /// [`SampleRow::deferred_row`](super::batch::SampleRow) of `kept`, `[rows, vocabulary or more]`.
    Later {
        /// The expert's logits of outputs that await the amateur.
        kept: &'a mut T,
    },
    /// All of them, `[outputs, vocabulary or more]`.
    Computed(&'a T),
    /// They are not computed yet, and those of the outputs' candidates suffice.
    Unprojected(Unprojected<'a, T, W>),
}

/// Logits that are yet to be computed: `logits = hidden * lm_head^T`.
pub struct Unprojected<'a, T, W> {
    /// `[outputs, hidden_size]`
    pub hidden: &'a T,
    /// `[vocab_size, hidden_size]`
    pub lm_head: &'a W,
    /// Room for all of them, `[outputs, vocab_size]`.
    pub logits: &'a mut T,
}

/// How many of the amateur's logits were computed where candidates suffice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Projections {
    /// Logits that were computed one by one.
    pub gathered: usize,
    /// Outputs whose logits were all computed.
    pub full: usize,
}
