//! What one step computes.

use std::ops::Range;

use crate::device::{Batch, PendingToken, Span};
use crate::ids::{BlockId, SeqId, TokenId};

/// What of a pair's work a step does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pass {
    /// All of it.
    #[default]
    Joint,
    /// The expert's, and the tokens that it settles.
    ExpertOnly,
    /// What the amateur has missed, and the tokens that waited for it.
    CatchUp,
}

/// One step: which positions of which sequences are computed, and which sequences get their next token.
#[derive(Debug, Default)]
pub struct StepPlan {
    /// Which: ascending.
    pub number: u64,
    /// Whose work it is.
    pub pass: Pass,
    /// The sequences that take part, one span of the batch each.
    pub rows: Vec<PlanRow>,
    /// The same for the device.
    pub batch: Batch,
    /// Blocks that are copied into others, in this order, before anything is computed.
    pub copies: Vec<(BlockId, BlockId)>,
}

/// A sequence's part in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRow {
    /// Whose.
    pub seq: SeqId,
    /// The positions that are computed and written to the cache.
    pub positions: Range<usize>,
    /// Whether the last of them is the sequence's last, so that its next token is sampled.
    pub samples: bool,
    /// Where its logits are kept for the amateur if the expert does not settle it; or, in a step of the amateur, where they
    /// were kept.
    pub deferred_row: Option<u32>,
}

impl StepPlan {
    /// Whether nothing is computed.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds the row of a sequence whose known tokens are `tokens` and whose cache is `blocks`. The position
    /// after the known tokens, if it is among them, is that of the token drawn by output `source_output` of the step
    /// before.
    pub(super) fn push(&mut self, row: PlanRow, tokens: &[TokenId], source_output: u32, blocks: &[BlockId]) {
        let (batch, positions) = (&mut self.batch, row.positions.clone());
        let (first_token, first_block) = (batch.tokens.len(), batch.blocks.len());
        batch.tokens.extend_from_slice(&tokens[positions.start..positions.end.min(tokens.len())]);
        if positions.end > tokens.len() {
            batch.pending_tokens.push(PendingToken { index: batch.tokens.len() as u32, source_output });
            batch.tokens.push(TokenId(0));
        }
        batch.positions.extend(positions.map(|position| position as u32));
        batch.blocks.extend_from_slice(blocks);
        batch
            .spans
            .push(Span { tokens: first_token..batch.tokens.len(), blocks: first_block..batch.blocks.len() });
        if row.samples {
            batch.logits_indices.push(batch.tokens.len() as u32 - 1);
        }
        self.rows.push(row);
    }
}
