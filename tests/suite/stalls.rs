//! Stalls: moments at which a device that runs ahead has nothing queued because of the deferred amateur.
//!
//! The scheduler runs by itself over sequences whose tokens are randomly decided by the expert, with costs given here. No
//! machine's costs, cores or speed play a role.
//!
//! A turn of the engine queues a step of the expert while the previous one is in flight. If the amateur is expected to be
//! due after that step, the host waits for it: this is a stall. Then everything is known, and the scheduler decides: either
//! the amateur runs, or the stall was in vain.

use std::collections::VecDeque;
use std::sync::Arc;

use codit::contrast::{Contrast, Noise, Sampled, philox4x32_10};
use codit::device::{Capacity, Pass, PerKind, RowResult};
use codit::engine::SchedulerConfig;
use codit::engine::scheduler::Scheduler;
use codit::engine::scheduler::cost::{Deferral, StepCost};
use codit::engine::sequence::{RequestIdentity, SamplingParams, Sequence};
use codit::engine::step::StepPlan;
use codit::ids::{SeqId, TokenId};

use crate::random::Random;

/// Bytes of the embedded pair: the expert's weights, the amateur's without its LM head, and a position of either cache.
const EXPERT: f64 = 3.74e6;
const AMATEUR: f64 = 3.15e6;
const POSITION: f64 = 2048.0;
/// The cost of a row's products relative to reading the weights: as on a GPU, on a CPU with AMX, and on one without.
const ROW_COSTS: [f64; 3] = [0.0, 0.03, 0.4];
/// The share of a sequence's tokens that the expert decides alone. It differs between sequences.
const DECIDED_BY_EXPERT: [f64; 6] = [0.0, 0.4, 0.6, 0.8, 0.95, 1.0];

/// Counts until all sequences have ended.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    expert_steps: u32,
    amateur_steps: u32,
    stalls: u32,
    /// Stalls after which the amateur did not run.
    in_vain: u32,
    tokens: u32,
    /// The cost of all steps in bytes, by the scheduler's cost model.
    cost: f64,
}

/// Runs the turns of the engine's step loop.
struct Run {
    scheduler: Scheduler,
    deferral: Deferral,
    runs_ahead: bool,
    in_flight: VecDeque<(StepPlan, Vec<RowResult>)>,
    /// Whether each output of the last step has a token.
    drawn: Vec<bool>,
    counts: Counts,
}

impl Run {
    /// Prompts and lengths depend on `seed` alone.
    fn new(row_cost: f64, runs_ahead: bool, seed: u64) -> Self {
        let cost = |weights: f64| StepCost { weights, row: weights * row_cost, position: POSITION };
        let (expert, amateur) = (cost(EXPERT), cost(AMATEUR));
        let deferral = Deferral { max_lag: 64, min_tokens_seen: 64, expert, amateur, solo_slowdown: None };
        let mut scheduler = Scheduler::new(SchedulerConfig {
            capacity: Capacity { max_num_seqs: 16, max_num_batched_tokens: 64, block_size: 8 },
            num_blocks: PerKind::only_full(256),
            window: None,
            shared_prefixes: false,
            deferral: Some(deferral),
        });
        let mut random = Random::new(seed);
        for _ in 0..2000 {
            let prompt = vec![TokenId(1); random.within(1, 47)];
            let max_len = prompt.len() + random.within(1, 24);
            let params = SamplingParams {
                contrast: if random.once_in(4) { Contrast::direct() } else { Contrast::default() },
                noise: Noise::new(0, "", 0),
                stop_tokens: Arc::default(),
                max_len,
                log_probabilities: false,
            };
            scheduler.add(Sequence::new(RequestIdentity::default(), prompt, params));
        }
        let (in_flight, drawn, counts) = (VecDeque::new(), Vec::new(), Counts::default());
        Self { scheduler, deferral, runs_ahead, in_flight, drawn, counts }
    }

    fn finish(mut self) -> Counts {
        while !self.scheduler.is_idle() || !self.in_flight.is_empty() {
            self.turn();
            assert!(self.counts.expert_steps < 100_000, "a sequence starves");
        }
        self.counts
    }

    fn turn(&mut self) {
        let plan = self.scheduler.plan();
        let has_expert = !plan.is_empty();
        self.queue(plan);
        if !self.scheduler.catch_up_is_due() {
            return;
        }
        let is_stall = !self.in_flight.is_empty();
        // The step in flight was queued in this turn, so there is at most one stall per step of the expert.
        assert!(!is_stall || has_expert && self.runs_ahead);
        self.counts.stalls += u32::from(is_stall);
        self.commit_all_but(0);
        // Everything is known now, and the second answer decides.
        let is_due = self.scheduler.catch_up_is_due();
        let plan = self.scheduler.plan_catch_up();
        assert_eq!(plan.is_empty(), !is_due);
        assert!(is_due || is_stall, "the answer changed although nothing was in flight");
        self.counts.in_vain += u32::from(!is_due);
        self.queue(plan);
    }

    fn queue(&mut self, plan: StepPlan) {
        let stay_in_flight = usize::from(self.runs_ahead && !plan.is_empty());
        if !plan.is_empty() {
            let results = self.run(&plan);
            self.in_flight.push_back((plan, results));
        }
        self.commit_all_but(stay_in_flight);
    }

    fn commit_all_but(&mut self, stay_in_flight: usize) {
        while self.in_flight.len() > stay_in_flight {
            let (plan, results) = self.in_flight.pop_front().expect("a step");
            let rows = plan.rows.iter().filter(|row| row.samples).zip(&results);
            let wanted = rows.filter(|(row, result)| {
                result.decision().is_some() && self.scheduler.wants_result(&plan, row)
            });
            self.counts.tokens += wanted.count() as u32;
            self.scheduler.commit(&plan, &results);
        }
    }

    /// Adds up the cost of a step and returns its results.
    fn run(&mut self, plan: &StepPlan) -> Vec<RowResult> {
        let pending = plan.batch.pending_tokens.iter();
        let void = pending.filter(|pending| !self.drawn[pending.source_output as usize]);
        let void: Vec<usize> = void.map(|pending| pending.index as usize).collect();
        let spans = plan.rows.iter().zip(&plan.batch.spans);
        let rows: Vec<_> = spans.filter(|(_, span)| !void.contains(&(span.tokens.end - 1))).collect();
        let cost = if plan.pass == Pass::CatchUp { self.deferral.amateur } else { self.deferral.expert };
        let tokens: usize = rows.iter().map(|(row, _)| row.positions.len()).sum();
        let positions: usize = rows.iter().map(|(row, _)| row.positions.end).sum();
        self.counts.cost += cost.weights + cost.row * tokens as f64 + cost.position * positions as f64;
        match plan.pass {
            Pass::CatchUp => self.counts.amateur_steps += 1,
            Pass::ExpertOnly => self.counts.expert_steps += 1,
            Pass::Joint => panic!("the amateur is always deferred here"),
        }
        let token = Sampled { token: TokenId(1), score: 0.0, num_candidates: 1, log_probabilities: None };
        let samples = plan.rows.iter().filter(|row| row.samples).zip(&plan.sample_rows);
        let results = samples.map(|(row, sample)| {
            let awaits_amateur = plan.pass == Pass::ExpertOnly
                && sample.deferred_row.is_some()
                && !is_decided_by_expert(row.seq, row.positions.end);
            if awaits_amateur { RowResult::AwaitsAmateur } else { RowResult::Sampled(token) }
        });
        let results: Vec<RowResult> = results.collect();
        self.drawn = results.iter().map(|result| result.decision().is_some()).collect();
        results
    }
}

fn is_decided_by_expert(seq: SeqId, position: usize) -> bool {
    let bits = philox4x32_10([seq.0 as u32, position as u32, 0, 0], [1, 2])[0];
    f64::from(bits) < DECIDED_BY_EXPERT[seq.0 as usize % DECIDED_BY_EXPERT.len()] * f64::from(u32::MAX)
}

/// The counts for each row cost, in turn and one step ahead.
fn runs() -> [[Counts; 2]; ROW_COSTS.len()] {
    ROW_COSTS.map(|row_cost| {
        [false, true].map(|runs_ahead| {
            let counts = Run::new(row_cost, runs_ahead, 3).finish();
            println!("row cost {row_cost}, ahead {runs_ahead}: {counts:?}");
            counts
        })
    })
}

/// Most stalls are necessary: a step of the amateur cannot be queued before it is known which rows wait for it.
#[test]
fn few_stalls_are_in_vain() {
    for [in_turn, ahead] in runs() {
        assert_eq!((in_turn.stalls, in_turn.in_vain), (0, 0), "nothing is ever in flight: {in_turn:?}");
        assert!(ahead.stalls > 0 && ahead.stalls <= ahead.expert_steps, "{ahead:?}");
        assert!(ahead.stalls < ahead.amateur_steps * 3 / 2, "{ahead:?}");
        // The amateur runs after a stall, or after a turn in which the expert had nothing to do.
        let needed = ahead.stalls - ahead.in_vain;
        assert!(needed <= ahead.amateur_steps && needed * 10 > ahead.amateur_steps * 9, "{ahead:?}");
        // One step ahead costs hardly more than in turn, where everything is known.
        assert_eq!(ahead.tokens, in_turn.tokens);
        assert!(ahead.cost < 1.06 * in_turn.cost, "{ahead:?}, {in_turn:?}");
    }
}

/// Each model multiplies every position once, whatever the schedule, so the cost of a row must not change the schedule.
#[test]
fn the_cost_of_rows_does_not_change_the_schedule() {
    let [without, with @ ..] = runs();
    for runs in with {
        for (counts, expected) in runs.into_iter().zip(without) {
            let steps = [counts.expert_steps, counts.amateur_steps].map(f64::from);
            let expected = [expected.expert_steps, expected.amateur_steps].map(f64::from);
            for (steps, expected) in steps.into_iter().zip(expected) {
                assert!((steps - expected).abs() < 0.05 * expected, "{counts:?}");
            }
        }
    }
}
