//! Which sequences run and which wait: admission and preemption.

use std::collections::VecDeque;

use super::prefix::CachedPrefix;
use crate::device::LayerKind;
use crate::engine::config::SchedulerConfig;
use crate::engine::kv_cache::block_table::BlockTable;
use crate::engine::kv_cache::pools::BlockPools;
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
    pub fn remove(&mut self, index: usize, pools: &mut BlockPools) -> Sequence {
        let mut sequence = self.running.remove(index);
        self.free_deferred_rows.push(sequence.deferred_row);
        pools.release(&mut sequence.blocks);
        sequence
    }

    /// Removes a sequence that runs or waits; `None` if it does neither.
    pub fn cancel(&mut self, seq: SeqId, pools: &mut BlockPools) -> Option<Sequence> {
        if let Ok(index) = self.running.binary_search_by_key(&seq, |s| s.id) {
            return Some(self.remove(index, pools));
        }
        let index = self.waiting.binary_search_by_key(&seq, |s| s.id).ok()?;
        self.waiting.remove(index)
    }

    /// Preempts the youngest running sequence: it releases its blocks and waits at the front. Plans from number
    /// `first_valid_plan` on begin it anew. False if none runs.
    pub fn preempt_youngest(&mut self, pools: &mut BlockPools, first_valid_plan: u64) -> bool {
        let Some(youngest) = self.running.len().checked_sub(1) else { return false };
        let mut sequence = self.remove(youngest, pools);
        sequence.begin_anew(first_valid_plan);
        self.waiting.push_front(sequence);
        self.num_preemptions += 1;
        true
    }

    /// Preempts until every running sequence can write the positions that plan number `plan` gives it.
    pub fn make_room(&mut self, pools: &mut BlockPools, config: &SchedulerConfig, plan: u64) {
        while self.blocks_wanted(config) > pools.free() && self.running.len() > 1 {
            self.preempt_youngest(pools, plan);
        }
    }

    /// Drops the blocks of running sequences that are behind the window of every position that is still to be computed.
    pub fn drop_behind_window(&mut self, pools: &mut BlockPools) {
        for sequence in &mut self.running {
            let next = sequence.next_position();
            pools.drop_behind(&mut sequence.blocks, next);
        }
    }

    /// Blocks of each kind that the running sequences allocate in the next step.
    fn blocks_wanted(&self, config: &SchedulerConfig) -> usize {
        let mut budget = config.capacity.max_num_batched_tokens;
        let mut wanted = 0;
        for is_decoding in [true, false] {
            for sequence in self.running.iter().filter(|s| s.is_decoding() == is_decoding) {
                let num_tokens = sequence.num_pending().min(budget);
                budget -= num_tokens;
                if num_tokens > 0 {
                    let blocks = config.blocks_for(sequence.num_computed.expert + num_tokens);
                    wanted += blocks.saturating_sub(sequence.blocks.num_blocks());
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
    pub fn may_admit(&self, plan: &StepPlan, pools: &BlockPools, config: &SchedulerConfig) -> bool {
        let Some(first) = self.waiting.front() else { return false };
        let prefix = CachedPrefix::find(first, plan.pass, pools, config);
        let fits = |kind: &LayerKind| {
            let held = prefix.table.held(*kind).iter().filter(|block| pools[*kind].is_held(**block)).count();
            let promise = |s: &Sequence| {
                let most = most_blocks(*kind, s.len(), s.num_computed.expert, s.lag(), config);
                most.saturating_sub(s.blocks.held(*kind).len()) + 1
            };
            let promised: usize = self.running.iter().map(promise).sum();
            let PerModel { expert, amateur } = prefix.num_computed;
            let lag = if first.params.needs_amateur() { expert - amateur } else { 0 };
            let most = most_blocks(*kind, first.len(), expert, lag, config);
            most - held + promised <= pools[*kind].free()
        };
        let is_ready = prefix.partial.as_ref().is_none_or(|partial| partial.plan < plan.number);
        is_ready && (self.running.is_empty() || pools.kinds().iter().all(fits))
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
    pub fn is_sound(&self, pools: &BlockPools, config: &SchedulerConfig) -> bool {
        let tables: Vec<&BlockTable> = self.running.iter().map(|s| &s.blocks).collect();
        let taken = self.running.iter().map(|s| s.deferred_row);
        let mut deferred_rows: Vec<u32> = taken.chain(self.free_deferred_rows.iter().copied()).collect();
        deferred_rows.sort_unstable();
        let is_fresh = |s: &Sequence| {
            s.blocks.num_blocks() == 0 && s.num_computed == PerModel::default() && s.state == State::Ready
        };
        let is_covered = |s: &Sequence| {
            let table = &s.blocks;
            table.num_blocks() >= config.blocks_for(s.num_computed.expert)
                && table.num_dropped <= pools.first_seen(s.next_position())
                && pools.kinds().iter().all(|kind| table.ids[*kind].len() == table.num_blocks())
                && s.num_computed.amateur <= s.num_computed.expert
        };
        self.waiting.iter().all(is_fresh)
            && self.running.iter().all(is_covered)
            && deferred_rows.into_iter().eq(0..config.capacity.max_num_seqs as u32)
            && pools.account_for(&tables)
    }
}

/// The most blocks of a kind that a sequence of `len` tokens holds at once from now on, with `num_computed` positions computed
/// and the amateur `lag` positions behind.
fn most_blocks(
    kind: LayerKind,
    len: usize,
    num_computed: usize,
    lag: usize,
    config: &SchedulerConfig,
) -> usize {
    let (capacity, all) = (config.capacity, config.blocks_for(len));
    match config.window.filter(|_| kind == LayerKind::Windowed) {
        Some(window) => {
            let num_tokens = (len - num_computed).min(capacity.max_num_batched_tokens);
            all.min(window.blocks(num_tokens, lag, capacity.block_size))
        }
        None => all,
    }
}
