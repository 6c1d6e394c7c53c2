//! What one step computes.

use std::ops::Range;

use crate::device::{Batch, Pass, PendingToken, PerKind, SampleRow, Span};
use crate::engine::sequence::{Sequence, State};
use crate::ids::{BlockId, SeqId, TokenId};

/// One step: which positions of which sequences are computed, and which sequences get their next token.
#[derive(Debug, Default)]
pub struct StepPlan {
    /// Plans are numbered in the order in which they are made.
    pub number: u64,
    /// Which models run.
    pub pass: Pass,
    /// The sequences that take part, one for each span of the batch.
    pub rows: Vec<PlanRow>,
    /// The tokens, positions and block tables of the rows, for the device.
    pub batch: Batch,
    /// `[samples]`: how each of [`Batch::logits_indices`] is sampled.
    pub sample_rows: Vec<SampleRow>,
    /// Blocks of each kind that are copied, source and destination, in this order, before anything is computed.
    pub copies: PerKind<Vec<(BlockId, BlockId)>>,
    /// Whether a row's request needs the amateur.
    pub needs_amateur: bool,
}

/// A sequence's part in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRow {
    /// The sequence.
    pub seq: SeqId,
    /// The positions that are computed and written to the cache.
    pub positions: Range<usize>,
    /// Whether the last of them is the sequence's last, so that its next token is sampled.
    pub samples: bool,
}

impl StepPlan {
    /// Whether nothing is computed.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether the expert runs.
    pub fn runs_expert(&self) -> bool {
        self.pass != Pass::CatchUp
    }

    /// Whether the amateur runs.
    pub fn runs_amateur(&self) -> bool {
        match self.pass {
            Pass::Joint => self.needs_amateur,
            Pass::ExpertOnly => false,
            Pass::CatchUp => true,
        }
    }

    /// Adds `positions` of a sequence. If it `samples`, its next token is drawn from the last of them: then returns which of
    /// the step's outputs that is. The position after the sequence's known tokens, if it is among them, is that of the token
    /// in flight.
    pub(super) fn push(
        &mut self,
        sequence: &Sequence,
        positions: Range<usize>,
        samples: bool,
    ) -> Option<u32> {
        let (batch, tokens, params) = (&mut self.batch, &sequence.tokens, &sequence.params);
        let (first_token, first_block) = (batch.tokens.len(), batch.blocks.len());
        batch.tokens.extend_from_slice(&tokens[positions.start..positions.end.min(tokens.len())]);
        if positions.end > tokens.len()
            && let State::InFlight { source_output, .. } = sequence.state
        {
            batch.pending_tokens.push(PendingToken { index: batch.tokens.len() as u32, source_output });
            batch.tokens.push(TokenId(0));
        }
        batch.positions.extend(positions.clone().map(|position| position as u32));
        batch.blocks.extend_from_slice(&sequence.blocks.ids.full);
        batch.windowed_blocks.extend_from_slice(&sequence.blocks.ids.windowed);
        let (tokens, blocks) = (first_token..batch.tokens.len(), first_block..batch.blocks.len());
        batch.spans.push(Span { tokens, blocks });
        self.needs_amateur |= params.needs_amateur();
        self.rows.push(PlanRow { seq: sequence.id, positions: positions.clone(), samples });
        if !samples {
            return None;
        }
        self.batch.logits_indices.push(self.batch.tokens.len() as u32 - 1);
        self.sample_rows.push(SampleRow {
            contrast: params.contrast,
            noise: params.noise,
            position: positions.end as u32,
            log_probabilities: params.log_probabilities,
            deferred_row: (self.pass != Pass::Joint && params.needs_amateur())
                .then_some(sequence.deferred_row),
        });
        Some(self.sample_rows.len() as u32 - 1)
    }
}
