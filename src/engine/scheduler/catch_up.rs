//! The deferred amateur: which models the next step runs, and the amateur's steps that catch up.

use super::admission::Queues;
use super::cost::{Deferral, Rows, StepHistory};
use crate::device::{LayerKind, Pass, RowResult};
use crate::engine::kv_cache::pools::BlockPools;
use crate::engine::sequence::Sequence;
use crate::engine::step::StepPlan;

/// Decides when the amateur is deferred and when it catches up.
#[derive(Debug)]
pub(super) struct CatchUp {
    /// `None` where the amateur is never deferred.
    deferral: Option<Deferral>,
    /// Whether there are layers with a window. Their blocks cannot be dropped before the amateur has read them, so it must not
    /// be far behind a prompt either.
    has_window: bool,
    history: StepHistory,
}

impl CatchUp {
    /// A schedule that has seen no token.
    pub fn new(deferral: Option<Deferral>, has_window: bool) -> Self {
        Self { deferral, has_window, history: StepHistory::default() }
    }

    /// Which models the next step runs. A joint step needs both models to have computed the same positions of every row.
    pub fn next_pass(&self, running: &[Sequence]) -> Pass {
        if self.defers(running) || running.iter().any(|s| s.lag() > 0) {
            Pass::ExpertOnly
        } else {
            Pass::Joint
        }
    }

    /// Whether the amateur should be deferred.
    fn defers(&self, running: &[Sequence]) -> bool {
        let Some(deferral) = &self.deferral else { return false };
        let decoding = rows_of(running, |s| s.len() > s.prompt_len);
        let one_row = Rows::default().and(0);
        self.history.is_worthwhile(deferral, if decoding.count < 1.0 { one_row } else { decoding })
    }

    /// Whether sequences may be admitted in a step of this pass. They may not where the amateur is about to catch up with all
    /// rows: after that both models begin with them in joint steps.
    pub fn may_admit(&self, pass: Pass, running: &[Sequence]) -> bool {
        pass != Pass::ExpertOnly || self.defers(running)
    }

    /// Records what a step of the expert cost and gave, or what one alone would have given.
    pub fn record(&mut self, plan: &StepPlan, results: &[RowResult], queues: &Queues) {
        let Some(deferral) = self.deferral.filter(|_| plan.pass != Pass::CatchUp) else { return };
        let mut results = results.iter();
        let (mut rows, mut sampled, mut awaiting) = (Rows::default(), 0.0, 0.0);
        for row in &plan.rows {
            let result = if row.samples { results.next() } else { None };
            let Some(index) = queues.index_of(plan, row) else { continue };
            let awaits_amateur = match result {
                Some(RowResult::Sampled(sampled)) => {
                    plan.pass == Pass::Joint && queues.running[index].would_await_amateur(sampled)
                }
                Some(RowResult::AwaitsAmateur) => true,
                Some(RowResult::Fault(_)) | None => false,
            };
            rows = rows.and(row.positions.end);
            sampled += f64::from(u8::from(row.samples));
            awaiting += f64::from(u8::from(awaits_amateur));
        }
        if plan.pass == Pass::ExpertOnly {
            self.history.record_expert_step(&deferral, rows, sampled, awaiting);
        } else {
            self.history.record_tokens(sampled, awaiting);
        }
    }

    /// Whether the amateur should catch up before another step of the expert is planned, by what is known and by what is to be
    /// expected of a step in flight.
    pub fn is_due(&self, running: &[Sequence]) -> bool {
        let Some(deferral) = &self.deferral else { return false };
        if !self.defers(running) && running.iter().any(|s| s.lag() > 0) {
            return true;
        }
        let is_limited = |s: &&Sequence| self.has_window || s.is_decoding();
        if running.iter().filter(is_limited).any(|s| s.lag() > deferral.max_lag) {
            return true;
        }
        // Rows whose token is in flight count as waiting and as going, by the share of tokens that needs the amateur.
        let share = self.history.awaiting_share();
        let waiting = rows_of(running, Sequence::awaits_amateur);
        let in_flight = rows_of(running, Sequence::is_in_flight);
        let waiting = waiting.plus(share, in_flight);
        let going = rows_of(running, |s| s.is_decoding() && !s.is_in_flight());
        let going = going.plus(1.0 - share, rows_of(running, |s| s.is_decoding() && s.is_in_flight()));
        // Prompts need steps of the expert in any case.
        let has_prefill = || running.iter().any(|s| s.num_pending() > 1);
        let history = || self.history.after_expected_step(deferral, in_flight);
        waiting.count >= 1.0 && (has_prefill() || history().amateur_is_due(deferral, waiting, going))
    }

    /// Fills `plan` with the positions that the amateur has missed of the rows that wait for it and of those that it is too far
    /// behind, or of all rows if joint steps are to follow.
    pub fn plan(
        &mut self,
        plan: &mut StepPlan,
        running: &mut [Sequence],
        pools: &mut BlockPools,
        mut budget: usize,
        block_size: usize,
    ) {
        self.history.record_amateur_step();
        let max_lag =
            if self.defers(running) { self.deferral.map_or(0, |deferral| deferral.max_lag) } else { 0 };
        for sequence in running.iter_mut().filter(|s| s.awaits_amateur() || s.lag() > max_lag) {
            budget -= catch_up(sequence, budget, plan, pools, block_size);
        }
    }
}

/// The running sequences for which `is_counted` is true, as rows of a step.
fn rows_of(running: &[Sequence], is_counted: impl Fn(&Sequence) -> bool) -> Rows {
    let counted = running.iter().filter(|s| is_counted(s));
    counted.fold(Rows::default(), |rows, s| rows.and(s.num_computed.expert))
}

/// Adds as many of the positions that the amateur has missed to `plan` as `budget` allows. Returns how many.
fn catch_up(
    sequence: &mut Sequence,
    budget: usize,
    plan: &mut StepPlan,
    pools: &mut BlockPools,
    block_size: usize,
) -> usize {
    let (num_computed, table) = (&mut sequence.num_computed, &sequence.blocks);
    let has_amateur = |index: usize| {
        let has = |kind: &LayerKind| pools[*kind].prefixes.has_amateur(table.ids[*kind][index]);
        pools.kinds().iter().all(has)
    };
    // Of blocks that are shared, the amateur may have computed some for another sequence.
    while num_computed.amateur.is_multiple_of(block_size)
        && num_computed.amateur + block_size < num_computed.expert
        && has_amateur(num_computed.amateur / block_size)
    {
        num_computed.amateur += block_size;
    }
    let end = num_computed.expert.min(num_computed.amateur + budget);
    let start = std::mem::replace(&mut num_computed.amateur, end);
    if end == start {
        return 0;
    }
    let samples = sequence.awaits_amateur() && end == sequence.num_computed.expert;
    if let Some(output) = plan.push(sequence, start..end, samples) {
        sequence.expect_awaited_token(output);
    }
    let last_of_prompt = sequence.prompt_len - 1;
    for kind in pools.kinds() {
        let (ids, prefixes) = (&sequence.blocks.ids[*kind], &mut pools[*kind].prefixes);
        ids[start / block_size..end / block_size].iter().for_each(|block| prefixes.set_amateur(*block));
        if (start..end).contains(&last_of_prompt) {
            prefixes.set_amateur_of_partial(ids[last_of_prompt / block_size]);
        }
    }
    end - start
}
