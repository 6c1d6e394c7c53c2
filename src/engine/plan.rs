//! What one step computes.

use std::ops::Range;

use crate::device::{Batch, Span};
use crate::ids::{BlockId, SeqId, TokenId};

/// One step: which positions of which sequences are computed, and which sequences get their next token.
#[derive(Debug, Default)]
pub struct StepPlan {
    /// The sequences that take part, one span of the batch each.
    pub rows: Vec<PlanRow>,
    /// The same for the device.
    pub batch: Batch,
    /// `[samples]`: indices into the batch's tokens whose logits are wanted, one for each row that samples.
    pub outputs: Vec<u32>,
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
}

impl StepPlan {
    /// Adds the `positions` of a sequence that is `tokens` so far and whose cache is `blocks`.
    pub(super) fn push(
        &mut self,
        seq: SeqId,
        positions: Range<usize>,
        tokens: &[TokenId],
        blocks: &[BlockId],
    ) {
        let samples = positions.end == tokens.len();
        let (first_token, first_block) = (self.batch.tokens.len(), self.batch.blocks.len());
        self.batch.tokens.extend_from_slice(&tokens[positions.clone()]);
        self.batch.positions.extend(positions.clone().map(|position| position as u32));
        self.batch.blocks.extend_from_slice(blocks);
        self.batch.spans.push(Span {
            tokens: first_token..self.batch.tokens.len(),
            blocks: first_block..self.batch.blocks.len(),
        });
        if samples {
            self.outputs.push(self.batch.tokens.len() as u32 - 1);
        }
        self.rows.push(PlanRow { seq, positions, samples });
    }
}
