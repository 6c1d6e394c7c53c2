//! Decides what each step computes. Pure: no I/O, no device, no clock.
//!
//! Sequences are served first come, first served. Every running sequence is older than every waiting one, so the oldest always
//! advances and none starves. When blocks run out, the youngest running sequence is preempted: it releases all its blocks, waits
//! at the front of the queue, and is computed again later. The pools hold at least one sequence of full length, so the oldest
//! can always continue.
//!
//! Layers with a window have blocks of their own, which are dropped once they are behind the window of every position that
//! either model has still to compute.
//!
//! A step may be planned before the step before it is committed. It then takes the tokens in flight from that step, on the
//! device. If a sequence turns out to have ended, its row was planned in vain and the row's result is dropped. Blocks that such a
//! row still writes may be given to other sequences at once, because steps run in order. A preempted sequence draws its tokens in
//! flight again.
//!
//! Where the amateur is deferred, a step may run the expert alone. Tokens that the expert decides are appended at once. The other
//! rows wait for the amateur, which catches up with all that it has missed of them ([`Scheduler::plan_catch_up`]). If the expert's
//! next step was planned before it is known that a row waits, the row has no token to read in it: the device leaves the row out,
//! its result is dropped, and its position is planned again. No other sequence can share that position: only known tokens enter
//! the prefix index.

mod admission;
mod catch_up;
pub mod cost;
mod prefix;

use crate::device::{Pass, RowResult};
use crate::engine::config::SchedulerConfig;
use crate::engine::kv_cache::pools::BlockPools;
use crate::engine::sequence::Sequence;
use crate::engine::step::{PlanRow, StepPlan};
use crate::ids::SeqId;
use admission::Queues;
use catch_up::CatchUp;

/// The scheduler: waiting and running sequences, and the pools of blocks.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    pools: BlockPools,
    queues: Queues,
    catch_up: CatchUp,
    next_id: u64,
    num_plans: u64,
    shared_tokens: u64,
}

impl Scheduler {
    /// An idle scheduler.
    pub fn new(config: SchedulerConfig) -> Self {
        Self {
            pools: BlockPools::new(config.num_blocks, config.window, config.capacity.block_size),
            queues: Queues::new(config.capacity.max_num_seqs),
            catch_up: CatchUp::new(config.deferral, config.window.is_some()),
            next_id: 0,
            num_plans: 0,
            shared_tokens: 0,
            config,
        }
    }

    /// Queues a sequence, and gives it its id.
    pub fn add(&mut self, mut sequence: Sequence) -> SeqId {
        debug_assert!(self.config.holds(sequence.params.max_len));
        let id = SeqId(self.next_id);
        self.next_id += 1;
        sequence.id = id;
        self.queues.waiting.push_back(sequence);
        id
    }

    /// Plans the next step: rows that decode first, then prefill chunks of running and of newly admitted sequences, within the
    /// token budget. The plan is empty if there is nothing to do, or nothing before the amateur catches up.
    pub fn plan(&mut self) -> StepPlan {
        self.num_plans += 1;
        let Self { config, pools, queues, catch_up, .. } = self;
        queues.drop_behind_window(pools);
        queues.make_room(pools, config, self.num_plans);
        let pass = catch_up.next_pass(&queues.running);
        let mut plan = StepPlan { number: self.num_plans, pass, ..StepPlan::default() };
        let mut budget = config.capacity.max_num_batched_tokens;
        for is_decoding in [true, false] {
            for sequence in queues.running.iter_mut().filter(|s| s.is_decoding() == is_decoding) {
                budget -= advance(sequence, budget, &mut plan, pools, config);
            }
        }
        while budget > 0
            && queues.has_candidate(config)
            && catch_up.may_admit(pass, &queues.running)
            && queues.may_admit(&plan, pools, config)
        {
            let Some(sequence) = queues.admit() else { break };
            self.shared_tokens += prefix::take_over(sequence, &mut plan, pools, config) as u64;
            budget -= advance(sequence, budget, &mut plan, pools, config);
        }
        plan
    }

    /// Whether the amateur, where it is deferred, should run before another step of the expert is planned. True only if the
    /// host knows, or expects of a step in flight, that rows wait for the amateur or are too far ahead of it.
    pub fn catch_up_is_due(&self) -> bool {
        self.catch_up.is_due(&self.queues.running)
    }

    /// Plans the amateur's next step, where it is deferred: all that it has missed of the rows that wait for it and of those that
    /// it is too far behind, or of all rows if joint steps are to follow. Empty if the expert should go on alone. All plans made
    /// before must be committed.
    pub fn plan_catch_up(&mut self) -> StepPlan {
        let mut plan = StepPlan { pass: Pass::CatchUp, ..StepPlan::default() };
        if self.catch_up_is_due() {
            self.num_plans += 1;
            plan.number = self.num_plans;
            let (budget, block_size) =
                (self.config.capacity.max_num_batched_tokens, self.config.capacity.block_size);
            self.catch_up.plan(&mut plan, &mut self.queues.running, &mut self.pools, budget, block_size);
        }
        plan
    }

    /// Takes in the results of the oldest plan that is not committed, one for each row that samples, in their order. Returns the
    /// sequences that they end.
    pub fn commit(&mut self, plan: &StepPlan, results: &[RowResult]) -> Vec<Sequence> {
        self.catch_up.record(plan, results, &self.queues);
        let mut ended = Vec::new();
        for (row, result) in plan.rows.iter().filter(|row| row.samples).zip(results) {
            let Some(index) = self.queues.index_of(plan, row) else { continue };
            let sequence = &mut self.queues.running[index];
            match result.decision() {
                Some(decision) if sequence.take(decision) => {
                    ended.push(self.queues.remove(index, &mut self.pools));
                }
                Some(_) => {}
                None => sequence.wait_for_amateur(row.positions.end, self.num_plans + 1),
            }
        }
        ended
    }

    /// Whether the result of a plan's row is still wanted. It is not if the sequence has ended, was preempted, or was left to the
    /// amateur by the step before.
    pub fn wants_result(&self, plan: &StepPlan, row: &PlanRow) -> bool {
        self.queues.index_of(plan, row).is_some()
    }

    /// Drops a sequence that runs or waits, and returns it; `None` if it has ended before.
    pub fn cancel(&mut self, seq: SeqId) -> Option<Sequence> {
        self.queues.cancel(seq, &mut self.pools)
    }

    /// Preempts the youngest running sequence. What the prefix index has lost of it by the time it runs again is recomputed.
    /// False if none runs.
    pub fn preempt_youngest(&mut self) -> bool {
        self.queues.preempt_youngest(&mut self.pools, self.num_plans + 1)
    }

    /// Whether there is nothing left to do.
    pub fn is_idle(&self) -> bool {
        self.queues.running.is_empty() && self.queues.waiting.is_empty()
    }

    /// Sequences that run.
    pub fn running(&self) -> usize {
        self.queues.running.len()
    }

    /// Sequences that wait.
    pub fn waiting(&self) -> usize {
        self.queues.waiting.len()
    }

    /// How often a sequence was preempted.
    pub fn preemptions(&self) -> u64 {
        self.queues.num_preemptions
    }

    /// Positions that were found in the cache instead of being computed.
    pub fn shared_tokens(&self) -> u64 {
        self.shared_tokens
    }

    /// The pools of blocks.
    pub fn pools(&self) -> &BlockPools {
        &self.pools
    }

    /// Whether no block is lost: each is free, or held by the running sequences that should hold it.
    pub fn is_sound(&self) -> bool {
        self.queues.is_sound(&self.pools, &self.config)
    }
}

/// Adds as many of a sequence's pending positions to `plan` as `budget` and the pools allow. Returns how many.
fn advance(
    sequence: &mut Sequence,
    budget: usize,
    plan: &mut StepPlan,
    pools: &mut BlockPools,
    config: &SchedulerConfig,
) -> usize {
    let block_size = config.capacity.block_size;
    let wanted = sequence.num_computed.expert + sequence.num_pending().min(budget);
    let table = &mut sequence.blocks;
    while table.num_blocks() * block_size < wanted {
        let Some(blocks) = pools.allocate() else { break };
        pools.push(table, blocks);
    }
    let end = wanted.min(table.num_blocks() * block_size);
    let start = std::mem::replace(&mut sequence.num_computed.expert, end);
    if end == start {
        return 0;
    }
    let output = plan.push(sequence, start..end, end == sequence.len());
    if plan.pass == Pass::Joint && sequence.params.needs_amateur() {
        sequence.num_computed.amateur = end;
    }
    if config.shared_prefixes {
        prefix::insert(sequence, start, pools, block_size, plan.number);
    }
    if let Some(output) = output {
        sequence.expect_token(output);
    }
    end - start
}
