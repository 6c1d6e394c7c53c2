//! Who computes what, step by step. Pure: no I/O, no device, no clock.
//!
//! First come, first served: every running sequence is older than every waiting one, so the oldest always advances
//! and none starves. When blocks run out the youngest running sequence gives all of its back and waits at the
//! front, to be recomputed. The pool holds at least one sequence of full length, so the oldest can always go on.
//!
//! A step may be planned before the one before it is committed: a token that is still in flight is then fed from that
//! step, and a sequence that turns out to have ended leaves a row that nobody takes. Blocks that such a row still
//! writes may be given to others at once, because steps run in order. A sequence that is sent back draws again what is in
//! flight.
//!
//! What is in the cache is found by its content: a sequence takes over the blocks of others, and of its former self, that
//! begin with the same tokens, and copies the last block of a prompt that others share in part.
//!
//! Where the amateur is deferred, and as long as that pays, a plan is the expert's alone. What it settles goes on; a row
//! that it does not settle is contested: it waits for the amateur, which then catches up with all that it has missed
//! ([`Scheduler::plan_amateur`]).
//! If the next step of the expert was planned before that was known, the row has no token to read there: the device leaves
//! it out, nobody takes its result, and its position is planned again. It is none that others could have found, since only
//! tokens that are known make a block's content.

pub mod cost;

use std::collections::VecDeque;

use crate::device::RowResult;
use crate::engine::kv_cache::pool::{BlockPool, Content, Tail};
use crate::engine::sequence::{BlockTable, PerModel, Sequence, State};
use crate::engine::step::{Pass, PlanRow, StepPlan};
use crate::ids::{BlockId, SeqId};
use cost::{Deferral, Phases, Rows};

/// The bounds of a step and of the cache.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Sequences that run at once.
    pub max_num_seqs: usize,
    /// Tokens a step.
    pub max_num_batched_tokens: usize,
    /// Tokens a block.
    pub block_size: usize,
    /// Blocks in the pool.
    pub blocks: usize,
    /// Whether what is in the cache is shared.
    pub shares_prefixes: bool,
    /// Whether the amateur is deferred, and for how long.
    pub deferral: Option<Deferral>,
}

/// The scheduler: waiting and running sequences, and the pool of blocks.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    pool: BlockPool,
    /// Ascending ids, all above those of `running`.
    waiting: VecDeque<Sequence>,
    /// Ascending ids.
    running: Vec<Sequence>,
    /// Of the deferred rows up to `max_num_seqs`, those of no running sequence.
    deferred_rows: Vec<u32>,
    /// What the expert's and the amateur's steps cost and give.
    phases: Phases,
    next_id: u64,
    plans: u64,
    preemptions: u64,
    shared: u64,
}

impl Scheduler {
    /// An idle scheduler.
    pub fn new(limits: Limits) -> Self {
        Self {
            pool: BlockPool::new(limits.blocks),
            waiting: VecDeque::new(),
            running: Vec::new(),
            deferred_rows: (0..limits.max_num_seqs as u32).rev().collect(),
            phases: Phases::default(),
            next_id: 0,
            plans: 0,
            preemptions: 0,
            shared: 0,
            limits,
        }
    }

    /// Queues a sequence, and gives it its id.
    pub fn add(&mut self, mut sequence: Sequence) -> SeqId {
        debug_assert!(self.blocks_for(sequence.params.max_len) <= self.pool.total());
        let id = SeqId(self.next_id);
        self.next_id += 1;
        sequence.id = id;
        self.waiting.push_back(sequence);
        id
    }

    /// The next step: decode rows first, then prefill chunks of running and of newly admitted sequences, within
    /// the token budget. Empty when there is nothing to do, or nothing before the amateur catches up.
    pub fn plan(&mut self) -> StepPlan {
        self.make_room();
        self.plans += 1;
        let pass = self.pass();
        let mut plan = StepPlan { number: self.plans, pass, ..StepPlan::default() };
        let mut budget = self.limits.max_num_batched_tokens;
        for is_decode in [true, false] {
            for sequence in self.running.iter_mut().filter(|s| s.is_decoding() == is_decode) {
                budget -= sequence.advance(budget, &mut plan, &mut self.pool, &self.limits);
            }
        }
        while budget > 0 && self.may_admit(pass) {
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            sequence.deferred_row = self.deferred_rows.pop().unwrap_or_default();
            self.shared += sequence.find_prefix(&mut plan, &mut self.pool, &self.limits) as u64;
            budget -= sequence.advance(budget, &mut plan, &mut self.pool, &self.limits);
            self.running.push(sequence);
        }
        plan
    }

    /// Which models the next step is of. A step of both takes all rows to be as far in the one as in the other.
    fn pass(&self) -> Pass {
        if self.is_apart() || self.running.iter().any(|s| s.lag() > 0) {
            Pass::ExpertOnly
        } else {
            Pass::Joint
        }
    }

    /// Whether the models should be apart.
    fn is_apart(&self) -> bool {
        let Some(deferral) = &self.limits.deferral else { return false };
        let decoding = self.running.iter().filter(|s| s.len() > s.prompt_len);
        let rows = decoding.fold(Rows::default(), |rows, s| rows.and(s.num_computed.expert));
        let is_empty = rows.count < 1.0;
        self.phases.pays(deferral, if is_empty { Rows::default().and(0) } else { rows })
    }

    /// Takes in what the oldest step that is not committed gave: a result for each row that samples, in order. Returns the
    /// sequences that ended by it.
    pub fn commit(&mut self, plan: &StepPlan, results: &[RowResult]) -> Vec<Sequence> {
        self.note(plan, results);
        let mut ended = Vec::new();
        for (row, result) in plan.rows.iter().filter(|row| row.samples).zip(results) {
            let Some(index) = self.awaiting(plan, row) else { continue };
            let sequence = &mut self.running[index];
            match result.decision() {
                Some(decision) if sequence.take(decision) => ended.push(self.remove(index)),
                Some(_) => {}
                None => sequence.wait_for_amateur(row.positions.end, self.plans + 1),
            }
        }
        ended
    }

    /// Whether the result of a plan's row is still wanted: it is not where the sequence has ended, was sent back, or was
    /// contested in the step before.
    pub fn awaits(&self, plan: &StepPlan, row: &PlanRow) -> bool {
        self.awaiting(plan, row).is_some()
    }

    /// The running sequence whose row it is.
    fn awaiting(&self, plan: &StepPlan, row: &PlanRow) -> Option<usize> {
        let index = self.running.binary_search_by_key(&row.seq, |s| s.id).ok()?;
        (self.running[index].first_valid_plan <= plan.number).then_some(index)
    }

    /// Notes what a step of the expert cost and gave, or what one alone would have given.
    fn note(&mut self, plan: &StepPlan, results: &[RowResult]) {
        let Some(deferral) = self.limits.deferral.filter(|_| plan.pass != Pass::CatchUp) else { return };
        let mut results = results.iter();
        let (mut rows, mut sampled, mut contested) = (Rows::default(), 0.0, 0.0);
        for row in &plan.rows {
            let result = if row.samples { results.next() } else { None };
            let Some(index) = self.awaiting(plan, row) else { continue };
            let is_contested = match result {
                Some(RowResult::Sampled(sampled)) => {
                    plan.pass == Pass::Joint && self.running[index].would_await_amateur(sampled)
                }
                Some(RowResult::AwaitsAmateur) => true,
                Some(RowResult::Fault(_)) | None => false,
            };
            rows = rows.and(row.positions.end);
            sampled += f64::from(u8::from(row.samples));
            contested += f64::from(u8::from(is_contested));
        }
        if plan.pass == Pass::ExpertOnly {
            self.phases.expert_ran(&deferral, rows, sampled, contested);
        } else {
            self.phases.sampled(sampled, contested);
        }
    }

    /// The amateur's next step, where it is deferred: all that it has missed of the rows that wait for it, and of those
    /// that it has fallen too far behind; of all rows where the models are to go on side by side. Empty where the expert
    /// should go on alone. To be asked when all that was planned is committed.
    pub fn plan_amateur(&mut self) -> StepPlan {
        let mut plan = StepPlan { pass: Pass::CatchUp, ..StepPlan::default() };
        let Some(deferral) = self.limits.deferral.filter(|_| self.amateur_is_due()) else { return plan };
        self.plans += 1;
        plan.number = self.plans;
        self.phases.amateur_ran();
        let mut budget = self.limits.max_num_batched_tokens;
        let most_lag = if self.is_apart() { deferral.most_lag } else { 0 };
        for sequence in self.running.iter_mut().filter(|s| s.awaits_amateur() || s.lag() > most_lag) {
            budget -= sequence.follow(budget, &mut plan, &mut self.pool, self.limits.block_size);
        }
        plan
    }

    /// Whether the amateur, where it is deferred, should run before another step of the expert is planned: by what is
    /// known, and by what is to be expected of a step in flight.
    pub fn amateur_is_due(&self) -> bool {
        let Some(deferral) = &self.limits.deferral else { return false };
        let rows = |is_one: &dyn Fn(&Sequence) -> bool| {
            let those = self.running.iter().filter(|s| is_one(s));
            those.fold(Rows::default(), |rows, s| rows.and(s.num_computed.expert))
        };
        let (known, unknown) = (|s: &Sequence| !s.is_in_flight(), Sequence::is_in_flight);
        let contested = self.phases.contested();
        let wait = rows(&Sequence::awaits_amateur).plus(contested, rows(&unknown));
        let go = rows(&|s| s.is_decoding() && known(s))
            .plus(1.0 - contested, rows(&|s| s.is_decoding() && unknown(s)));
        let lags = |s: &Sequence| s.is_decoding() && s.lag() > deferral.most_lag;
        if !self.is_apart() && self.running.iter().any(|s| s.lag() > 0) {
            return true;
        }
        // Prompts need steps of the expert in any case.
        let prefills = self.running.iter().any(|s| s.num_pending() > 1);
        let phases = self.phases.expecting(deferral, rows(&unknown));
        let is_worth_it = || prefills || phases.amateur_is_due(deferral, wait, go);
        self.running.iter().any(lags) || wait.count >= 1.0 && is_worth_it()
    }

    /// Takes a running sequence out, and gives its blocks back.
    fn remove(&mut self, index: usize) -> Sequence {
        let mut sequence = self.running.remove(index);
        self.deferred_rows.push(sequence.deferred_row);
        self.pool.give_back(sequence.blocks.ids.drain(..));
        sequence
    }

    /// Drops a sequence wherever it is, and returns it; `None` if it has ended before.
    pub fn cancel(&mut self, seq: SeqId) -> Option<Sequence> {
        if let Ok(index) = self.running.binary_search_by_key(&seq, |s| s.id) {
            return Some(self.remove(index));
        }
        let index = self.waiting.binary_search_by_key(&seq, |s| s.id).ok()?;
        self.waiting.remove(index)
    }

    /// Sends the youngest running sequence back to wait; what is not found in the cache then is recomputed later. False
    /// if none runs.
    pub fn preempt_youngest(&mut self) -> bool {
        let Some(mut sequence) = self.running.pop() else { return false };
        self.deferred_rows.push(sequence.deferred_row);
        self.pool.give_back(sequence.blocks.ids.drain(..));
        sequence.begin_anew(self.plans + 1);
        self.waiting.push_front(sequence);
        self.preemptions += 1;
        true
    }

    /// Whether there is nothing left to do.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Sequences that run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How often a sequence was sent back for want of blocks.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// Positions that were found in the cache instead of being computed.
    pub fn shared(&self) -> u64 {
        self.shared
    }

    /// The pool of blocks.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// Whether each block is free or held, by whom it should be, nobody waiting holds any, and no two running sequences
    /// have one slot.
    pub fn is_sound(&self) -> bool {
        let held = self.running.iter().flat_map(|s| s.blocks.ids.iter().copied());
        let taken = self.running.iter().map(|s| s.deferred_row);
        let mut deferred_rows: Vec<u32> = taken.chain(self.deferred_rows.iter().copied()).collect();
        deferred_rows.sort_unstable();
        let is_fresh = |s: &Sequence| {
            s.blocks.ids.is_empty() && s.num_computed == PerModel::default() && s.state == State::Ready
        };
        self.waiting.iter().all(is_fresh)
            && self.running.iter().all(|s| s.blocks.ids.len() >= self.blocks_for(s.num_computed.expert))
            && self.running.iter().all(|s| s.num_computed.amateur <= s.num_computed.expert)
            && deferred_rows.into_iter().eq(0..self.limits.max_num_seqs as u32)
            && self.pool.accounts_for(held)
    }

    /// Preempts until every running sequence can write the positions that this step gives it.
    fn make_room(&mut self) {
        while self.blocks_wanted() > self.pool.free() && self.running.len() > 1 {
            self.preempt_youngest();
        }
    }

    /// Blocks that the running sequences take in the next step.
    fn blocks_wanted(&self) -> usize {
        let mut budget = self.limits.max_num_batched_tokens;
        let mut wanted = 0;
        for is_decode in [true, false] {
            for sequence in self.running.iter().filter(|s| s.is_decoding() == is_decode) {
                let step = sequence.num_pending().min(budget);
                budget -= step;
                if step > 0 {
                    let blocks = self.blocks_for(sequence.num_computed.expert + step);
                    wanted += blocks.saturating_sub(sequence.blocks.ids.len());
                }
            }
        }
        wanted
    }

    /// Whether the first that waits may run: there is a place, its tokens fit beside one more block for each
    /// sequence that runs, lest it be sent back at once, and no prompt that it shares is computed in this very step. Nor is
    /// the amateur about to catch up with all, after which both models begin with it side by side.
    fn may_admit(&self, pass: Pass) -> bool {
        if self.running.len() >= self.limits.max_num_seqs || pass == Pass::ExpertOnly && !self.is_apart() {
            return false;
        }
        let Some(first) = self.waiting.front() else { return false };
        let prefix = first.prefix(pass, &self.pool, &self.limits);
        let held = prefix.blocks.iter().filter(|block| self.pool.is_held(**block)).count();
        let promise = |s: &Sequence| self.blocks_for(s.len()).saturating_sub(s.blocks.ids.len()) + 1;
        let promised: usize = self.running.iter().map(promise).sum();
        let fits = self.blocks_for(first.len()) - held + promised <= self.pool.free();
        let is_ready = prefix.tail.is_none_or(|(tail, _)| tail.plan < self.plans);
        is_ready && (fits || self.running.is_empty())
    }

    fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.limits.block_size)
    }
}

/// What the cache has of a sequence's beginning.
#[derive(Debug, Default)]
struct Prefix<'a> {
    blocks: Vec<BlockId>,
    /// Of the last of them.
    content: Content,
    /// How many of the blocks the amateur has, from the first on.
    followed: usize,
    /// A block that begins as the sequence goes on, and how many of its tokens do.
    tail: Option<(&'a Tail, usize)>,
}

impl Sequence {
    /// What `pool` has of its tokens but the last, whose logits are wanted.
    fn prefix<'a>(&self, pass: Pass, pool: &'a BlockPool, limits: &Limits) -> Prefix<'a> {
        let mut prefix = Prefix::default();
        if !limits.shares_prefixes {
            return prefix;
        }
        let needs_both = self.params.needs_amateur() && pass == Pass::Joint;
        let mut rest = &self.tokens[..self.tokens.len() - 1];
        while let Some((tokens, after)) = rest.split_at_checked(limits.block_size) {
            let content = prefix.content.then(tokens);
            let Some(block) = pool.find(&content).filter(|b| !needs_both || pool.has_amateur(*b)) else {
                break;
            };
            if prefix.followed == prefix.blocks.len() && pool.has_amateur(block) {
                prefix.followed += 1;
            }
            prefix.blocks.push(block);
            (prefix.content, rest) = (content, after);
        }
        let tail = pool.tail(&prefix.content).filter(|tail| !needs_both || tail.has_amateur);
        let same = |tail: &Tail| tail.tokens.iter().zip(rest).take_while(|(a, b)| a == b).count();
        prefix.tail = tail.map(|tail| (tail, same(tail))).filter(|(_, same)| *same > 0);
        prefix
    }

    /// Takes over what the cache has of it; returns the positions that need not be computed.
    fn find_prefix(&mut self, plan: &mut StepPlan, pool: &mut BlockPool, limits: &Limits) -> usize {
        let Prefix { blocks, content, followed, tail } = self.prefix(plan.pass, pool, limits);
        let tail = tail.map(|(tail, same)| (tail.block, same, tail.has_amateur));
        for block in &blocks {
            pool.share(*block);
        }
        let all_followed = followed == blocks.len();
        let needs_amateur = self.params.needs_amateur();
        self.num_computed.expert = blocks.len() * limits.block_size;
        self.num_computed.amateur = if needs_amateur { followed * limits.block_size } else { 0 };
        self.blocks = BlockTable { published: blocks.len(), content, ids: blocks };
        if let Some((from, same, has_amateur)) = tail
            && let Some(to) = pool.take()
        {
            plan.copies.push((from, to));
            self.blocks.ids.push(to);
            self.num_computed.expert += same;
            self.num_computed.amateur += if needs_amateur && has_amateur && all_followed { same } else { 0 };
        }
        self.num_computed.expert
    }

    /// Puts as many of its pending positions into `plan` as `budget` and the pool allow; returns how many.
    fn advance(
        &mut self,
        budget: usize,
        plan: &mut StepPlan,
        pool: &mut BlockPool,
        limits: &Limits,
    ) -> usize {
        let wanted = self.num_computed.expert + self.num_pending().min(budget);
        while self.blocks.ids.len() * limits.block_size < wanted {
            let Some(block) = pool.take() else { break };
            self.blocks.ids.push(block);
        }
        let end = wanted.min(self.blocks.ids.len() * limits.block_size);
        let start = std::mem::replace(&mut self.num_computed.expert, end);
        if end == start {
            return 0;
        }
        let output = plan.push(self, start..end, end == self.len());
        if plan.pass == Pass::Joint && self.params.needs_amateur() {
            self.num_computed.amateur = end;
        }
        if limits.shares_prefixes {
            self.publish(start, pool, limits.block_size, plan.number);
        }
        if let Some(output) = output {
            self.expect_token(output);
        }
        end - start
    }

    /// Lets others find what is in the cache now, computed from position `start` on.
    fn publish(&mut self, start: usize, pool: &mut BlockPool, block_size: usize, number: u64) {
        let known = self.num_computed.expert.min(self.tokens.len());
        let prompt_ends = start < self.prompt_len && self.prompt_len <= known;
        while (self.blocks.published + 1) * block_size <= known {
            let first = self.blocks.published * block_size;
            if prompt_ends && first + block_size == self.prompt_len {
                self.publish_tail(pool, first, number);
            }
            self.blocks.content = self.blocks.content.then(&self.tokens[first..first + block_size]);
            let has_amateur = self.num_computed.amateur >= first + block_size;
            pool.publish(self.blocks.ids[self.blocks.published], self.blocks.content, has_amateur);
            self.blocks.published += 1;
        }
        if prompt_ends
            && !self.prompt_len.is_multiple_of(block_size)
            && self.blocks.published == self.prompt_len / block_size
        {
            self.publish_tail(pool, self.blocks.published * block_size, number);
        }
    }

    fn publish_tail(&self, pool: &mut BlockPool, first: usize, plan: u64) {
        let tokens = self.tokens[first..self.prompt_len].to_vec();
        let has_amateur = self.num_computed.amateur >= self.prompt_len;
        let is_as_good = |known: &Tail| known.tokens == tokens && known.has_amateur >= has_amateur;
        if pool.tail(&self.blocks.content).is_some_and(is_as_good) {
            // One that was there before: whoever waits for this prompt need not wait for this step.
            return;
        }
        pool.set_tail(
            self.blocks.content,
            Tail { block: self.blocks.ids[self.blocks.published], tokens, plan, has_amateur },
        );
    }

    /// Puts as many of the positions into `plan` that the amateur has missed as `budget` allows; returns how many.
    fn follow(
        &mut self,
        budget: usize,
        plan: &mut StepPlan,
        pool: &mut BlockPool,
        block_size: usize,
    ) -> usize {
        // Others may have brought the amateur through shared blocks.
        while self.num_computed.amateur.is_multiple_of(block_size)
            && self.num_computed.amateur + block_size < self.num_computed.expert
            && pool.has_amateur(self.blocks.ids[self.num_computed.amateur / block_size])
        {
            self.num_computed.amateur += block_size;
        }
        let end = self.num_computed.expert.min(self.num_computed.amateur + budget);
        let start = std::mem::replace(&mut self.num_computed.amateur, end);
        if end == start {
            return 0;
        }
        let samples = self.awaits_amateur() && end == self.num_computed.expert;
        if let Some(output) = plan.push(self, start..end, samples) {
            self.expect_awaited_token(output);
        }
        for block in start / block_size..end / block_size {
            pool.set_amateur(self.blocks.ids[block]);
        }
        if (start..end).contains(&(self.prompt_len - 1)) {
            pool.set_amateur_of_tail(self.blocks.ids[(self.prompt_len - 1) / block_size]);
        }
        end - start
    }
}
