//! Who computes what, step by step. Pure: no I/O, no device, no clock.
//!
//! First come, first served: every running sequence is older than every waiting one, so the oldest always advances
//! and none starves. When blocks run out the youngest running sequence gives all of its back and waits at the
//! front, to be recomputed. The pool holds at least one sequence of full length, so the oldest can always go on.
//!
//! A step may be planned before the one before it is committed: a token that is still in flight is then fed from that
//! step, and a sequence that turns out to have ended leaves a row that nobody takes. Blocks that such a row still
//! writes may be given to others at once, because steps run in order.

use std::collections::VecDeque;
use std::sync::Arc;

use super::blocks::BlockPool;
use super::plan::StepPlan;
use super::request::Response;
use crate::contrast::{LogProbabilities, RowFault, Sampled};
use crate::ids::{BlockId, SeqId, TokenId};

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
}

/// A sequence as the scheduler sees it.
#[derive(Debug)]
struct Sequence {
    id: SeqId,
    /// The prompt, then the response as far as it is known.
    tokens: Vec<TokenId>,
    response: Response,
    /// Tokens after these that planned steps draw.
    in_flight: usize,
    /// The output of the last of these steps.
    drawn_by: u32,
    /// Positions in the cache once all planned steps have run, the same for both models.
    computed: usize,
    blocks: Vec<BlockId>,
    /// Ends the sequence at this length.
    max_len: usize,
    stop: Arc<[TokenId]>,
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
    next_id: u64,
    preemptions: u64,
}

impl Scheduler {
    /// An idle scheduler.
    pub fn new(limits: Limits) -> Self {
        let pool = BlockPool::new(limits.blocks);
        Self { limits, pool, waiting: VecDeque::new(), running: Vec::new(), next_id: 0, preemptions: 0 }
    }

    /// Queues a sequence that begins with `prompt` (not empty), ends at a token of `stop` or at `max_len` tokens
    /// in all, of which the pool must hold all.
    pub fn add(&mut self, prompt: Vec<TokenId>, max_len: usize, stop: Arc<[TokenId]>) -> SeqId {
        debug_assert!(!prompt.is_empty() && self.blocks_for(max_len) <= self.pool.total());
        let id = SeqId(self.next_id);
        self.next_id += 1;
        let response = Response::default();
        self.waiting.push_back(Sequence {
            id,
            tokens: prompt,
            response,
            in_flight: 0,
            drawn_by: 0,
            computed: 0,
            blocks: Vec::new(),
            max_len,
            stop,
        });
        id
    }

    /// The next step: decode rows first, then prefill chunks of running and of newly admitted sequences, within
    /// the token budget. Empty when there is nothing to do.
    pub fn plan(&mut self) -> StepPlan {
        self.make_room();
        let mut plan = StepPlan::default();
        let mut budget = self.limits.max_num_batched_tokens;
        for is_decode in [true, false] {
            for sequence in self.running.iter_mut().filter(|s| s.is_decoding() == is_decode) {
                budget -= sequence.advance(budget, &mut plan, &mut self.pool, self.limits.block_size);
            }
        }
        while budget > 0 && self.may_admit() {
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            budget -= sequence.advance(budget, &mut plan, &mut self.pool, self.limits.block_size);
            self.running.push(sequence);
        }
        plan
    }

    /// Takes in what the oldest step that is not committed gave: a result for each row that samples, in order.
    /// Returns the sequences that ended by it.
    pub fn commit(&mut self, plan: &StepPlan, sampled: &[Result<Sampled, RowFault>]) -> Vec<Ended> {
        let rows = plan.rows.iter().filter(|row| row.samples).zip(sampled);
        rows.filter_map(|(row, result)| self.take(row.seq, result)).collect()
    }

    /// Gives a sequence its next token, wherever it is by now; `Some` if that ends it.
    fn take(&mut self, seq: SeqId, result: &Result<Sampled, RowFault>) -> Option<Ended> {
        if let Ok(index) = self.running.binary_search_by_key(&seq, |s| s.id) {
            let end = self.running[index].take(result)?;
            let sequence = self.running.remove(index);
            return Some(self.dismiss(sequence, end));
        }
        let index = self.waiting.binary_search_by_key(&seq, |s| s.id).ok()?;
        let end = self.waiting[index].take(result)?;
        let sequence = self.waiting.remove(index)?;
        Some(self.dismiss(sequence, end))
    }

    /// Drops a sequence wherever it is; false if it is not there (any more).
    pub fn cancel(&mut self, seq: SeqId) -> bool {
        if let Ok(index) = self.running.binary_search_by_key(&seq, |s| s.id) {
            let sequence = self.running.remove(index);
            self.pool.give_back(sequence.blocks);
            return true;
        }
        let place = self.waiting.binary_search_by_key(&seq, |s| s.id);
        place.is_ok_and(|index| self.waiting.remove(index).is_some())
    }

    /// Sends the youngest running sequence back to wait; its cache is recomputed later. False if none runs.
    pub fn preempt_youngest(&mut self) -> bool {
        let Some(mut sequence) = self.running.pop() else { return false };
        self.pool.give_back(sequence.blocks.drain(..));
        sequence.computed = 0;
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

    /// The pool of blocks.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// Whether free and held blocks are the whole pool, each once, and nobody waiting holds any.
    pub fn is_sound(&self) -> bool {
        let held = self.running.iter().flat_map(|s| s.blocks.iter().copied());
        self.waiting.iter().all(|s| s.blocks.is_empty() && s.computed == 0)
            && self.running.iter().all(|s| s.blocks.len() >= self.blocks_for(s.computed))
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

    /// Whether the first that waits may run: there is a place, and its tokens fit beside one more block for each
    /// sequence that runs, lest it be sent back at once.
    fn may_admit(&self) -> bool {
        let Some(first) = self.waiting.front() else { return false };
        let promised: usize =
            self.running.iter().map(|s| self.blocks_for(s.len()).saturating_sub(s.blocks.len()) + 1).sum();
        let fits = self.blocks_for(first.len()) + promised <= self.pool.free();
        self.running.len() < self.limits.max_num_seqs && (fits || self.running.is_empty())
    }

    fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.limits.block_size)
    }

    fn dismiss(&mut self, sequence: Sequence, end: End) -> Ended {
        self.pool.give_back(sequence.blocks);
        let Response { tokens, scores, log_probabilities } = sequence.response;
        Ended { seq: sequence.id, tokens, scores, log_probabilities, end }
    }
}

impl Sequence {
    /// Tokens, those in flight included.
    fn len(&self) -> usize {
        self.tokens.len() + self.in_flight
    }

    /// Positions that are not in the cache; none where the token in flight is sure to be the last.
    fn pending(&self) -> usize {
        if self.len() < self.max_len { self.len() - self.computed } else { 0 }
    }

    fn is_decoding(&self) -> bool {
        self.pending() == 1
    }

    /// Puts as many of its pending positions into `plan` as `budget` and the pool allow; returns how many.
    fn advance(
        &mut self,
        budget: usize,
        plan: &mut StepPlan,
        pool: &mut BlockPool,
        block_size: usize,
    ) -> usize {
        let wanted = self.computed + self.pending().min(budget);
        while self.blocks.len() * block_size < wanted {
            let Some(block) = pool.take() else { break };
            self.blocks.push(block);
        }
        let end = wanted.min(self.blocks.len() * block_size);
        if end == self.computed {
            return 0;
        }
        let samples = end == self.len();
        let positions = std::mem::replace(&mut self.computed, end)..end;
        plan.push(self.id, positions.clone(), &self.tokens, self.drawn_by, &self.blocks, samples);
        if samples {
            self.drawn_by = plan.batch.outputs.len() as u32 - 1;
            self.in_flight += 1;
        }
        positions.len()
    }

    /// Takes its next token; `Some` if that ends it.
    fn take(&mut self, result: &Result<Sampled, RowFault>) -> Option<End> {
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
