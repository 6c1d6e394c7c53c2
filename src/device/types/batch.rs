//! One step's tokens, and the rows that sample.

use std::ops::Range;

use crate::contrast::{Contrast, Noise, RowFault, Sampled, Vocabulary};
use crate::ids::{BlockId, TokenId};

/// One step's tokens, the same for both models.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// `[tokens]`, spans one after the other.
    pub tokens: Vec<TokenId>,
    /// Tokens that the step before sampled and the host may not know yet: `tokens` holds anything in their place. Where that
    /// step could leave them to the amateur, each is a span of its own, which samples.
    pub pending_tokens: Vec<PendingToken>,
    /// `[tokens]`: each token's position in its sequence.
    pub positions: Vec<u32>,
    /// Where each sequence's tokens lie.
    pub spans: Vec<Span>,
    /// The sequences' block tables, one after the other; [`Span::blocks`] says which part is whose.
    pub blocks: Vec<BlockId>,
    /// `[samples]`: indices into `tokens` whose logits are wanted, one for each row that samples.
    pub logits_indices: Vec<u32>,
}

/// A token that comes from the step before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingToken {
    /// Which of [`Batch::tokens`].
    pub index: u32,
    /// Which of the earlier step's [`Batch::logits_indices`] drew it.
    pub source_output: u32,
}

/// A run of consecutive tokens of one sequence within a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Indices into [`Batch::tokens`]. The first token's position is the number of tokens already in the cache.
    pub tokens: Range<usize>,
    /// Indices into [`Batch::blocks`]: enough blocks for all positions up to the span's last.
    pub blocks: Range<usize>,
}

/// A row to sample: whose parameters and whose noise.
#[derive(Debug, Clone, Copy)]
pub struct SampleRow {
    /// The request's parameters.
    pub contrast: Contrast,
    /// The request's noise.
    pub noise: Noise,
    /// The position that the drawn token will take in its sequence.
    pub position: u32,
    /// Whether [`Sampled::log_probabilities`] is wanted.
    pub log_probabilities: bool,
    /// Which row of the deferred logits is this one's, where the amateur is deferred: see [`Device::settle`](crate::device::Device::settle).
    pub deferred_row: Option<u32>,
}

/// How much a [`Device::Step`](crate::device::Device::Step) makes room for.
#[derive(Debug, Clone, Copy)]
pub struct StepCapacity<'a> {
    /// Tokens of the largest batch.
    pub tokens: usize,
    /// Spans of the largest batch, and rows that sample.
    pub sequences: usize,
    /// Blocks of the pool.
    pub blocks: usize,
    /// Tokens a block.
    pub block_size: usize,
    /// The ids that may be sampled.
    pub vocabulary: &'a Vocabulary,
}

/// What a row's sampling gave.
pub type RowResult = std::result::Result<Sampled, RowFault>;
