//! Steps that are run before the first request, so that a device chooses how to compute each size, and records it.

use super::Pair;
use crate::device::{Device, Pass};
use crate::engine::config::{Deferred, PairConfig};
use crate::engine::sequence::Sequence;
use crate::engine::step::StepPlan;
use crate::error::Result;

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
            let first_pass = if self.defers() { Pass::ExpertOnly } else { Pass::Joint };
            let mut plan = StepPlan { pass: first_pass, ..StepPlan::default() };
            for span in 0..spans {
                let tokens = size / spans + usize::from(span < size % spans);
                let blocks = tokens.div_ceil(capacity.block_size);
                plan.push(&Sequence::for_warm_up(span, tokens, blocks), 0..tokens, true);
            }
            for pass in passes.iter().flat_map(|pass| [pass; 2]) {
                plan.pass = *pass;
                self.submit(&plan);
                self.collect()?;
            }
        }
        Ok(())
    }
}
