//! One step's tokens, and the rows that sample.

use std::ops::Range;

use super::attention::LayerKind;
use crate::contrast::{Contrast, Noise, RowFault, Sampled};
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
    /// The block tables of layers with a window, in the same places; empty if there are no such layers. Nothing reads the
    /// entries of blocks that are wholly behind the window of the span's first token.
    pub windowed_blocks: Vec<BlockId>,
    /// `[samples]`: indices into `tokens` whose logits are wanted, one for each row that samples.
    pub logits_indices: Vec<u32>,
}

impl Batch {
    /// A span's block table for layers of this kind.
    pub fn table(&self, kind: LayerKind, span: &Span) -> &[BlockId] {
        let tables = match kind {
            LayerKind::Full => &self.blocks,
            LayerKind::Windowed => &self.windowed_blocks,
        };
        &tables[span.blocks.clone()]
    }
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
    /// Which row of the deferred logits is this one's, where the amateur is deferred.
    pub deferred_row: Option<u32>,
}

/// How much an engine and its device make room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Sequences that run at once: spans of the largest batch, and rows that sample.
    pub max_num_seqs: usize,
    /// Tokens of the largest batch.
    pub max_num_batched_tokens: usize,
    /// Tokens a cache block.
    pub block_size: usize,
}

/// What sampling decided of a row: its token, or its fault.
pub type Decision = std::result::Result<Sampled, RowFault>;

/// What a row's sampling gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RowResult {
    /// The row's token.
    Sampled(Sampled),
    /// The row cannot be sampled.
    Fault(RowFault),
    /// The expert alone cannot decide the row; the amateur's logits come in a later step.
    AwaitsAmateur,
}

impl RowResult {
    /// The token or the fault, unless the row awaits the amateur.
    pub fn decision(self) -> Option<Decision> {
        match self {
            Self::Sampled(sampled) => Some(Ok(sampled)),
            Self::Fault(fault) => Some(Err(fault)),
            Self::AwaitsAmateur => None,
        }
    }
}

impl From<Decision> for RowResult {
    fn from(decision: Decision) -> Self {
        match decision {
            Ok(sampled) => Self::Sampled(sampled),
            Err(fault) => Self::Fault(fault),
        }
    }
}
