//! Which sequences run and which wait: admission and preemption.

use std::collections::VecDeque;

use super::prefix::CachedPrefix;
use crate::engine::config::SchedulerConfig;
use crate::engine::kv_cache::pool::BlockPool;
use crate::engine::sequence::{PerModel, Sequence, State};
use crate::engine::step::{PlanRow, StepPlan};
use crate::ids::SeqId;

/// The sequences that wait and those that run. Every running sequence is older than every waiting one.
#[derive(Debug)]
pub(super) struct Queues {
    /// Ascending ids, all above those of `running`.
    pub waiting: VecDeque<Sequence>,
    /// Ascending ids.
    pub running: Vec<Sequence>,
    /// The rows of the deferred logits, up to `max_num_seqs`, that no running sequence has.
    free_deferred_rows: Vec<u32>,
    /// How often a sequence was preempted.
    pub num_preemptions: u64,
}

impl Queues {
    /// Empty queues.
    pub fn new(max_num_seqs: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            running: Vec::new(),
            free_deferred_rows: (0..max_num_seqs as u32).rev().collect(),
            num_preemptions: 0,
        }
    }

    /// The index of the running sequence that a plan's row belongs to, if it still wants the row's result. It does not if it
    /// has ended, was preempted, or was left to the amateur by the step before.
    pub fn index_of(&self, plan: &StepPlan, row: &PlanRow) -> Option<usize> {
        let index = self.running.binary_search_by_key(&row.seq, |s| s.id).ok()?;
        (self.running[index].first_valid_plan <= plan.number).then_some(index)
    }

    /// Removes a running sequence and releases its blocks.
    pub fn remove(&mut self, index: usize, pool: &mut BlockPool) -> Sequence {
        let mut sequence = self.running.remove(index);
        self.free_deferred_rows.push(sequence.deferred_row);
        pool.release(sequence.blocks.ids.drain(..));
        sequence
    }

    /// Removes a sequence that runs or waits; `None` if it does neither.
    pub fn cancel(&mut self, seq: SeqId, pool: &mut BlockPool) -> Option<Sequence> {
        if let Ok(index) = self.running.binary_search_by_key(&seq, |s| s.id) {
            return Some(self.remove(index, pool));
        }
        let index = self.waiting.binary_search_by_key(&seq, |s| s.id).ok()?;
        self.waiting.remove(index)
    }

    /// Preempts the youngest running sequence: it releases its blocks and waits at the front. Plans from number
    /// `first_valid_plan` on begin it anew. False if none runs.
    pub fn preempt_youngest(&mut self, pool: &mut BlockPool, first_valid_plan: u64) -> bool {
        let Some(youngest) = self.running.len().checked_sub(1) else { return false };
        let mut sequence = self.remove(youngest, pool);
        sequence.begin_anew(first_valid_plan);
        self.waiting.push_front(sequence);
        self.num_preemptions += 1;
        true
    }

    /// Preempts until every running sequence can write the positions that plan number `plan` gives it.
    pub fn make_room(&mut self, pool: &mut BlockPool, config: &SchedulerConfig, plan: u64) {
        while self.blocks_wanted(config) > pool.free() && self.running.len() > 1 {
            self.preempt_youngest(pool, plan);
        }
    }

    /// Blocks that the running sequences allocate in the next step.
    fn blocks_wanted(&self, config: &SchedulerConfig) -> usize {
        let mut budget = config.capacity.max_num_batched_tokens;
        let mut wanted = 0;
        for is_decoding in [true, false] {
            for sequence in self.running.iter().filter(|s| s.is_decoding() == is_decoding) {
                let num_tokens = sequence.num_pending().min(budget);
                budget -= num_tokens;
                if num_tokens > 0 {
                    let blocks = config.blocks_for(sequence.num_computed.expert + num_tokens);
                    wanted += blocks.saturating_sub(sequence.blocks.ids.len());
                }
            }
        }
        wanted
    }

    /// Whether a sequence waits and `max_num_seqs` lets it run.
    pub fn has_candidate(&self, config: &SchedulerConfig) -> bool {
        self.running.len() < config.capacity.max_num_seqs && !self.waiting.is_empty()
    }

    /// Whether the blocks of the first waiting sequence are there. They must fit beside one more block for each running
    /// sequence, or it would be preempted at once. And no prompt that it shares may be computed by this very plan: one step
    /// later it can be taken over.
    pub fn may_admit(&self, plan: &StepPlan, pool: &BlockPool, config: &SchedulerConfig) -> bool {
        let Some(first) = self.waiting.front() else { return false };
        let prefix = CachedPrefix::find(first, plan.pass, pool, config);
        let held = prefix.blocks.iter().filter(|block| pool.is_held(**block)).count();
        let promise = |s: &Sequence| config.blocks_for(s.len()).saturating_sub(s.blocks.ids.len()) + 1;
        let promised: usize = self.running.iter().map(promise).sum();
        let fits = config.blocks_for(first.len()) - held + promised <= pool.free();
        let is_ready = prefix.partial.is_none_or(|(partial, _)| partial.plan < plan.number);
        is_ready && (fits || self.running.is_empty())
    }

    /// Lets the first waiting sequence run, and returns it.
    pub fn admit(&mut self) -> Option<&mut Sequence> {
        let mut sequence = self.waiting.pop_front()?;
        sequence.deferred_row = self.free_deferred_rows.pop().unwrap_or_default();
        self.running.push(sequence);
        self.running.last_mut()
    }

    /// Whether each block is free or held by the sequences that should hold it, no waiting sequence holds any, and no two
    /// running sequences have the same deferred row.
    pub fn is_sound(&self, pool: &BlockPool, config: &SchedulerConfig) -> bool {
        let held = self.running.iter().flat_map(|s| s.blocks.ids.iter().copied());
        let taken = self.running.iter().map(|s| s.deferred_row);
        let mut deferred_rows: Vec<u32> = taken.chain(self.free_deferred_rows.iter().copied()).collect();
        deferred_rows.sort_unstable();
        let is_fresh = |s: &Sequence| {
            s.blocks.ids.is_empty() && s.num_computed == PerModel::default() && s.state == State::Ready
        };
        let is_covered = |s: &Sequence| {
            s.blocks.ids.len() >= config.blocks_for(s.num_computed.expert)
                && s.num_computed.amateur <= s.num_computed.expert
        };
        self.waiting.iter().all(is_fresh)
            && self.running.iter().all(is_covered)
            && deferred_rows.into_iter().eq(0..config.capacity.max_num_seqs as u32)
            && pool.accounts_for(held)
    }
}
