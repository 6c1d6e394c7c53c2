//! Steps that are run before the first request, so that a device chooses how to compute each size, and records it.

use super::Pair;
use super::memory::PairConfig;
use crate::contrast::{Contrast, Noise};
use crate::device::{Device, Pass, SampleRow};
use crate::engine::Deferred;
use crate::engine::step::{PlanRow, StepPlan};
use crate::error::Result;
use crate::ids::{BlockId, SeqId, TokenId};

impl<D: Device> Pair<D> {
    /// Runs steps of all passes and sizes over a cache of one block, which they write to and read at will.
    pub(super) fn warm_up(&mut self, config: &PairConfig) -> Result<()> {
        let capacity = config.capacity;
        let passes = match config.shortcuts.deferred_amateur {
            _ if !self.defers() => &[Pass::Joint][..],
            Deferred::Always => &[Pass::ExpertOnly, Pass::CatchUp],
            _ => &[Pass::Joint, Pass::ExpertOnly, Pass::CatchUp],
        };
        let most = capacity.max_num_batched_tokens.min(capacity.max_num_seqs * self.windows().expert);
        for size in self.device.warm_up_sizes(most) {
            let spans = size.min(capacity.max_num_seqs);
            let mut plan = StepPlan::default();
            let mut rows = Vec::new();
            for span in 0..spans {
                let tokens = size / spans + usize::from(span < size % spans);
                let blocks = vec![BlockId(0); tokens.div_ceil(capacity.block_size)];
                let deferred_row = Some(span as u32).filter(|_| self.defers());
                let row =
                    PlanRow { seq: SeqId(span as u64), positions: 0..tokens, samples: true, deferred_row };
                plan.push(row, &vec![TokenId(0); tokens], 0, &blocks);
                rows.push(SampleRow {
                    contrast: Contrast::default(),
                    noise: Noise::new(0, "", 0),
                    position: size as u32,
                    // So that all of the amateur's logits are computed too, beside those of the candidates.
                    log_probabilities: true,
                    deferred_row,
                });
            }
            for pass in passes.iter().flat_map(|pass| [pass; 2]) {
                plan.pass = *pass;
                self.submit(&plan, &rows, self.has_amateur());
                self.collect()?;
            }
        }
        Ok(())
    }
}
