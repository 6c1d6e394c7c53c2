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
use std::sync::Arc;

use crate::contrast::{LogProbabilities, RowFault, Sampled};
use crate::device::RowResult;
use crate::engine::kv_cache::pool::{BlockPool, Content, Tail};
use crate::engine::request::Response;
use crate::engine::step::{Pass, PlanRow, StepPlan};
use crate::ids::{BlockId, SeqId, TokenId};
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

/// A sequence to be scheduled.
#[derive(Debug, Clone)]
pub struct NewSequence {
    /// What it begins with; not empty.
    pub prompt: Vec<TokenId>,
    /// Ends it at this length, prompt and response, which the pool must hold.
    pub max_len: usize,
    /// Tokens that end it.
    pub stop: Arc<[TokenId]>,
    /// Whether the amateur has a say in it.
    pub needs_amateur: bool,
    /// Whether a head of one token settles it without the amateur, whose log-probabilities nobody wants.
    pub settles: bool,
}

/// A sequence as the scheduler sees it.
#[derive(Debug)]
struct Sequence {
    id: SeqId,
    /// The prompt, then the response as far as it is known.
    tokens: Vec<TokenId>,
    prompt_len: usize,
    response: Response,
    /// Tokens after these that planned steps draw.
    in_flight: usize,
    /// The output of the last of these steps.
    source_output: u32,
    /// Results of plans before this one are not its own any more.
    since: u64,
    /// Positions in the expert's plane of the cache once all planned steps have run.
    computed: usize,
    /// The same of the amateur's plane: fewer where the amateur is deferred. Nothing where the amateur has no say.
    followed: usize,
    /// Whether its next token, in flight, waits for a step of the amateur to be planned.
    is_contested: bool,
    blocks: Vec<BlockId>,
    /// How many of the blocks are full and can be found, and the content of the last of them.
    published: usize,
    content: Content,
    /// Where its logits are kept while it waits for the amateur: a number that no other running sequence has.
    slot: u32,
    max_len: usize,
    stop: Arc<[TokenId]>,
    needs_amateur: bool,
    settles: bool,
}

/// How a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A stop token.
    Stop,
    /// Its full length.
    Length,
    /// A row of logits without a next token.
    Fault(RowFault),
}

/// A sequence that ended.
#[derive(Debug)]
pub struct Ended {
    /// Which.
    pub seq: SeqId,
    /// The tokens of the response, the stop token included.
    pub tokens: Vec<TokenId>,
    /// The score of each.
    pub scores: Vec<f32>,
    /// The models' log-probabilities of each, or of none.
    pub log_probabilities: Vec<LogProbabilities>,
    /// How.
    pub end: End,
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
    /// Of the slots up to `max_num_seqs`, those of no running sequence.
    slots: Vec<u32>,
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
            slots: (0..limits.max_num_seqs as u32).rev().collect(),
            phases: Phases::default(),
            next_id: 0,
            plans: 0,
            preemptions: 0,
            shared: 0,
            limits,
        }
    }

    /// Queues a sequence.
    pub fn add(&mut self, new: NewSequence) -> SeqId {
        let NewSequence { prompt, max_len, stop, needs_amateur, settles } = new;
        debug_assert!(!prompt.is_empty() && self.blocks_for(max_len) <= self.pool.total());
        let id = SeqId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back(Sequence {
            id,
            prompt_len: prompt.len(),
            tokens: prompt,
            response: Response::default(),
            in_flight: 0,
            source_output: 0,
            since: 0,
            computed: 0,
            followed: 0,
            is_contested: false,
            blocks: Vec::new(),
            published: 0,
            content: Content::default(),
            slot: 0,
            max_len,
            stop,
            needs_amateur,
            settles,
        });
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
            sequence.slot = self.slots.pop().unwrap_or_default();
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
        let rows = decoding.fold(Rows::default(), |rows, s| rows.and(s.computed));
        let is_empty = rows.count < 1.0;
        self.phases.pays(deferral, if is_empty { Rows::default().and(0) } else { rows })
    }

    /// Takes in what the oldest step that is not committed gave: a result for each row that samples, in order; none where
    /// the row waits for the amateur. Returns the sequences that ended by it.
    pub fn commit(&mut self, plan: &StepPlan, sampled: &[Option<RowResult>]) -> Vec<Ended> {
        self.note(plan, sampled);
        let mut ended = Vec::new();
        for (row, result) in plan.rows.iter().filter(|row| row.samples).zip(sampled) {
            match (self.awaiting(plan, row), result) {
                (Some(index), Some(result)) => ended.extend(self.take(index, result)),
                (Some(index), None) => self.running[index].contest(row, self.plans + 1),
                (None, _) => {}
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
        (self.running[index].since <= plan.number).then_some(index)
    }

    /// Notes what a step of the expert cost and gave, or what one alone would have given.
    fn note(&mut self, plan: &StepPlan, settled: &[Option<RowResult>]) {
        let Some(deferral) = self.limits.deferral.filter(|_| plan.pass != Pass::CatchUp) else { return };
        let mut results = settled.iter();
        let (mut rows, mut sampled, mut contested) = (Rows::default(), 0.0, 0.0);
        for row in &plan.rows {
            let result = if row.samples { results.next() } else { None };
            let Some(index) = self.awaiting(plan, row) else { continue };
            let is_contested = match result {
                Some(Some(Ok(sampled))) => plan.pass == Pass::Joint && self.running[index].contests(sampled),
                Some(None) => true,
                Some(Some(Err(_))) | None => false,
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
        for sequence in self.running.iter_mut().filter(|s| s.is_contested || s.lag() > most_lag) {
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
            those.fold(Rows::default(), |rows, s| rows.and(s.computed))
        };
        let (known, unknown) = (|s: &Sequence| !s.is_unknown(), Sequence::is_unknown);
        let contested = self.phases.contested();
        let wait = rows(&|s| s.is_contested).plus(contested, rows(&unknown));
        let go = rows(&|s| s.is_decoding() && known(s))
            .plus(1.0 - contested, rows(&|s| s.is_decoding() && unknown(s)));
        let lags = |s: &Sequence| s.is_decoding() && s.lag() > deferral.most_lag;
        if !self.is_apart() && self.running.iter().any(|s| s.lag() > 0) {
            return true;
        }
        // Prompts need steps of the expert in any case.
        let prefills = self.running.iter().any(|s| s.pending() > 1);
        let phases = self.phases.expecting(deferral, rows(&unknown));
        let is_worth_it = || prefills || phases.amateur_is_due(deferral, wait, go);
        self.running.iter().any(lags) || wait.count >= 1.0 && is_worth_it()
    }

    /// Gives a running sequence its next token; `Some` if that ends it.
    fn take(&mut self, index: usize, result: &RowResult) -> Option<Ended> {
        let end = self.running[index].take(result)?;
        let sequence = self.running.remove(index);
        self.slots.push(sequence.slot);
        self.pool.give_back(sequence.blocks.into_iter());
        let Response { tokens, scores, log_probabilities } = sequence.response;
        Some(Ended { seq: sequence.id, tokens, scores, log_probabilities, end })
    }

    /// Drops a sequence wherever it is; false if it is not there (any more).
    pub fn cancel(&mut self, seq: SeqId) -> bool {
        if let Ok(index) = self.running.binary_search_by_key(&seq, |s| s.id) {
            let sequence = self.running.remove(index);
            self.slots.push(sequence.slot);
            self.pool.give_back(sequence.blocks.into_iter());
            return true;
        }
        let place = self.waiting.binary_search_by_key(&seq, |s| s.id);
        place.is_ok_and(|index| self.waiting.remove(index).is_some())
    }

    /// Sends the youngest running sequence back to wait; what is not found in the cache then is recomputed later. False
    /// if none runs.
    pub fn preempt_youngest(&mut self) -> bool {
        let Some(mut sequence) = self.running.pop() else { return false };
        self.slots.push(sequence.slot);
        self.pool.give_back(sequence.blocks.drain(..));
        sequence.forget_cache(self.plans + 1);
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
        let held = self.running.iter().flat_map(|s| s.blocks.iter().copied());
        let mut slots: Vec<u32> = self.running.iter().map(|s| s.slot).chain(self.slots.clone()).collect();
        slots.sort_unstable();
        let is_fresh = |s: &Sequence| s.blocks.is_empty() && [s.computed, s.followed, s.in_flight] == [0; 3];
        self.waiting.iter().all(is_fresh)
            && self.running.iter().all(|s| s.blocks.len() >= self.blocks_for(s.computed))
            && self.running.iter().all(|s| s.followed <= s.computed)
            && slots.into_iter().eq(0..self.limits.max_num_seqs as u32)
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
                let step = sequence.pending().min(budget);
                budget -= step;
                if step > 0 {
                    wanted += self.blocks_for(sequence.computed + step).saturating_sub(sequence.blocks.len());
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
        let promised: usize =
            self.running.iter().map(|s| self.blocks_for(s.len()).saturating_sub(s.blocks.len()) + 1).sum();
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
    /// Tokens, those in flight included.
    fn len(&self) -> usize {
        self.tokens.len() + self.in_flight
    }

    /// Positions that are not in the cache; none where the token in flight is sure to be the last, or waits for the
    /// amateur.
    fn pending(&self) -> usize {
        if self.len() < self.max_len && !self.is_contested { self.len() - self.computed } else { 0 }
    }

    fn is_decoding(&self) -> bool {
        self.pending() == 1
    }

    /// Positions that the amateur has to catch up with.
    fn lag(&self) -> usize {
        if self.needs_amateur { self.computed - self.followed } else { 0 }
    }

    /// Whether the expert alone would not have settled what both models drew.
    fn contests(&self, sampled: &Sampled) -> bool {
        self.needs_amateur && !(self.settles && sampled.num_candidates == 1)
    }

    /// Whether a step in flight draws its next token, or finds that it cannot.
    fn is_unknown(&self) -> bool {
        self.in_flight > 0 && !self.is_contested
    }

    /// Has its next token, of the step whose `row` is given, wait for the amateur. What was planned after it, up to plan
    /// `since`, is in vain.
    fn contest(&mut self, row: &PlanRow, since: u64) {
        self.is_contested = true;
        (self.in_flight, self.computed, self.since) = (1, row.positions.end, since);
    }

    /// Begins anew with the tokens that are known, by plan `since` or a later one.
    fn forget_cache(&mut self, since: u64) {
        (self.computed, self.followed) = (0, 0);
        (self.published, self.content) = (0, Content::default());
        (self.in_flight, self.is_contested, self.since) = (0, false, since);
    }

    /// What `pool` has of its tokens but the last, whose logits are wanted.
    fn prefix<'a>(&self, pass: Pass, pool: &'a BlockPool, limits: &Limits) -> Prefix<'a> {
        let mut prefix = Prefix::default();
        if !limits.shares_prefixes {
            return prefix;
        }
        let needs_both = self.needs_amateur && pass == Pass::Joint;
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
        self.computed = blocks.len() * limits.block_size;
        self.followed = if self.needs_amateur { followed * limits.block_size } else { 0 };
        (self.published, self.content, self.blocks) = (blocks.len(), content, blocks);
        if let Some((from, same, has_amateur)) = tail
            && let Some(to) = pool.take()
        {
            plan.copies.push((from, to));
            self.blocks.push(to);
            self.computed += same;
            self.followed += if self.needs_amateur && has_amateur && all_followed { same } else { 0 };
        }
        self.computed
    }

    /// Puts as many of its pending positions into `plan` as `budget` and the pool allow; returns how many.
    fn advance(
        &mut self,
        budget: usize,
        plan: &mut StepPlan,
        pool: &mut BlockPool,
        limits: &Limits,
    ) -> usize {
        let wanted = self.computed + self.pending().min(budget);
        while self.blocks.len() * limits.block_size < wanted {
            let Some(block) = pool.take() else { break };
            self.blocks.push(block);
        }
        let end = wanted.min(self.blocks.len() * limits.block_size);
        if end == self.computed {
            return 0;
        }
        let samples = end == self.len();
        let positions = std::mem::replace(&mut self.computed, end)..end;
        let deferred_row = Some(self.slot).filter(|_| plan.pass == Pass::ExpertOnly && self.needs_amateur);
        let row = PlanRow { seq: self.id, positions: positions.clone(), samples, deferred_row };
        plan.push(row, &self.tokens, self.source_output, &self.blocks);
        if plan.pass == Pass::Joint && self.needs_amateur {
            self.followed = end;
        }
        if limits.shares_prefixes {
            self.publish(positions.start, pool, limits.block_size, plan.number);
        }
        if samples {
            self.source_output = plan.batch.logits_indices.len() as u32 - 1;
            self.in_flight += 1;
        }
        positions.len()
    }

    /// Lets others find what is in the cache now, computed from position `start` on.
    fn publish(&mut self, start: usize, pool: &mut BlockPool, block_size: usize, number: u64) {
        let known = self.computed.min(self.tokens.len());
        let prompt_ends = start < self.prompt_len && self.prompt_len <= known;
        while (self.published + 1) * block_size <= known {
            let first = self.published * block_size;
            if prompt_ends && first + block_size == self.prompt_len {
                self.publish_tail(pool, first, number);
            }
            self.content = self.content.then(&self.tokens[first..first + block_size]);
            let has_amateur = self.followed >= first + block_size;
            pool.publish(self.blocks[self.published], self.content, has_amateur);
            self.published += 1;
        }
        if prompt_ends
            && !self.prompt_len.is_multiple_of(block_size)
            && self.published == self.prompt_len / block_size
        {
            self.publish_tail(pool, self.published * block_size, number);
        }
    }

    fn publish_tail(&self, pool: &mut BlockPool, first: usize, plan: u64) {
        let tokens = self.tokens[first..self.prompt_len].to_vec();
        let has_amateur = self.followed >= self.prompt_len;
        let is_as_good = |known: &Tail| known.tokens == tokens && known.has_amateur >= has_amateur;
        if pool.tail(&self.content).is_some_and(is_as_good) {
            // One that was there before: whoever waits for this prompt need not wait for this step.
            return;
        }
        pool.set_tail(self.content, Tail { block: self.blocks[self.published], tokens, plan, has_amateur });
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
        while self.followed.is_multiple_of(block_size)
            && self.followed + block_size < self.computed
            && pool.has_amateur(self.blocks[self.followed / block_size])
        {
            self.followed += block_size;
        }
        let end = self.computed.min(self.followed + budget);
        if end == self.followed {
            return 0;
        }
        let positions = std::mem::replace(&mut self.followed, end)..end;
        let samples = self.is_contested && end == self.computed;
        let row =
            PlanRow { seq: self.id, positions: positions.clone(), samples, deferred_row: Some(self.slot) };
        plan.push(row, &self.tokens, 0, &self.blocks);
        if samples {
            self.is_contested = false;
            self.source_output = plan.batch.logits_indices.len() as u32 - 1;
        }
        for block in positions.start / block_size..end / block_size {
            pool.set_amateur(self.blocks[block]);
        }
        if positions.contains(&(self.prompt_len - 1)) {
            pool.set_amateur_of_tail(self.blocks[(self.prompt_len - 1) / block_size]);
        }
        positions.len()
    }

    /// Takes its next token; `Some` if that ends it.
    fn take(&mut self, result: &RowResult) -> Option<End> {
        self.in_flight -= 1;
        let sampled = match result {
            Ok(sampled) => sampled,
            Err(fault) => return Some(End::Fault(*fault)),
        };
        self.tokens.push(sampled.token);
        self.response.push(sampled);
        if self.stop.contains(&sampled.token) {
            Some(End::Stop)
        } else {
            (self.tokens.len() >= self.max_len).then_some(End::Length)
        }
    }
}
