//! Counts the bytes that the deferred amateur saves. The real scheduler runs; the expert decides a random share of
//! the tokens ("forced"); the bench adds up the bytes that each step reads.
//!
//! ```text
//! cargo bench --bench deferral -- [SHAPE [CONTEXT]]
//! ```
//!
//! Two models of the shape, in bfloat16, decode a number of rows with contexts of about CONTEXT tokens. A step reads
//! the weights of its models and the cache of its rows. The bench counts nothing else: no time, no prompts, no
//! products, no launches. It prints the bytes per token with both models in every step, and how many times fewer
//! bytes the deferred amateur needs. "In turn" means that the host commits each step before it plans the next one, as
//! on the CPU. "Ahead" means that one step is in flight, as on a GPU. A "wait" is a due catch-up for which the host
//! first has to commit the step in flight.

use std::collections::VecDeque;
use std::sync::Arc;

use codit::bench::shapes;
use codit::contrast::{Contrast, Noise, Sampled, philox4x32_10};
use codit::device::{Capacity, Dtype, Format, Pass, PerKind, RowResult};
use codit::engine::SchedulerConfig;
use codit::engine::footprint::ModelFootprint;
use codit::engine::scheduler::Scheduler;
use codit::engine::scheduler::cost::{Deferral, StepCost};
use codit::engine::sequence::{RequestIdentity, SamplingParams, Sequence};
use codit::engine::step::StepPlan;
use codit::ids::{SeqId, TokenId};

const BLOCK: usize = 16;
/// Tokens that each row draws.
const DRAWN: usize = 256;
/// The same value as `MAX_LAG` of the pair.
const MAX_LAG: usize = 64;

fn main() -> codit::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let shape = arguments.first().map_or("llama-3.1-8b", |name| name);
    let context = arguments.get(1).map_or(1000, |text| text.parse().expect("tokens"));
    let spec = shapes::find(shape)?;
    let capacity = Capacity { max_num_seqs: 1, max_num_batched_tokens: 1, block_size: BLOCK };
    let model = ModelFootprint::new(&spec, Format::of(Dtype::Bf16), capacity)?;
    // A step reads only its tokens' rows of the embedding. It reads an untied LM head as a whole.
    let embedding =
        if spec.tied_lm_head { 0 } else { spec.vocab_size * spec.hidden_size * Dtype::Bf16.size() };
    let weights = (model.weights - embedding) as f64;
    let position = (model.block.full + model.block.windowed) / BLOCK;
    let cost = StepCost { weights, row: 0.0, position: position as f64 };
    println!(
        "two models of {shape}: {:.2} GB of weights a step, {:.1} KB a position; contexts of about {context}",
        cost.weights / 1e9,
        cost.position / 1e3
    );
    println!(
        "{:>6} {:>7} {:>10} | {:>8} {:>13} | {:>8} {:>13} {:>11} {:>9}",
        "rows", "forced", "eager", "in turn", "expert steps", "ahead", "expert steps", "waits", "in vain"
    );
    println!(
        "{:>6} {:>7} {:>10} | {:>8} {:>13} | {:>8} {:>13} {:>11} {:>9}",
        "", "", "MB/token", "times", "per amateur's", "times", "per amateur's", "per expert's", "of rows"
    );
    for rows in [16, 64, 151] {
        for forced in [0.3, 0.5, 0.7, 0.9] {
            let run = |mode| Run::new(rows, context, forced, cost, mode).measure();
            let (eager, turn, ahead) = (run(Mode::Eager), run(Mode::InTurn), run(Mode::Ahead));
            println!(
                "{rows:>6} {forced:>7} {:>10.1} | {:>7.3}x {:>13.2} | {:>7.3}x {:>13.2} {:>11.2} {:>8.1}%",
                eager.bytes_per_token() / 1e6,
                eager.bytes_per_token() / turn.bytes_per_token(),
                turn.steps[0] / turn.steps[1],
                eager.bytes_per_token() / ahead.bytes_per_token(),
                ahead.steps[0] / ahead.steps[1],
                ahead.waits / ahead.steps[0],
                ahead.void / ahead.rows * 100.0,
            );
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Eager,
    InTurn,
    Ahead,
}

/// Counts taken while all rows decode.
#[derive(Default)]
struct Counts {
    bytes: f64,
    tokens: f64,
    /// Steps with the expert (alone or with the amateur), and catch-up steps of the amateur.
    steps: [f64; 2],
    waits: f64,
    /// Rows of the steps with the expert, and how many of those rows had no token.
    rows: f64,
    void: f64,
}

impl Counts {
    fn bytes_per_token(&self) -> f64 {
        self.bytes / self.tokens
    }
}

/// A step that ran, and its results.
struct Ran {
    plan: StepPlan,
    results: Vec<RowResult>,
}

/// The steps of [`codit::engine::step_loop`] on a device that only counts.
struct Run {
    scheduler: Scheduler,
    mode: Mode,
    cost: StepCost,
    forced: f64,
    in_flight: VecDeque<Ran>,
    /// Whether each output of the last step has a token.
    drawn: Vec<bool>,
    is_counting: bool,
    counts: Counts,
}

impl Run {
    fn new(rows: usize, context: usize, forced: f64, cost: StepCost, mode: Mode) -> Self {
        let deferral = Deferral {
            max_lag: MAX_LAG,
            min_tokens_seen: 0,
            expert: cost,
            amateur: cost,
            solo_slowdown: None,
        };
        let prompt = context.saturating_sub(DRAWN / 2).max(1);
        let mut scheduler = Scheduler::new(SchedulerConfig {
            capacity: Capacity {
                max_num_seqs: rows,
                max_num_batched_tokens: rows * (prompt + DRAWN),
                block_size: BLOCK,
            },
            num_blocks: PerKind::only_full(rows * (prompt + DRAWN).div_ceil(BLOCK)),
            window: None,
            shared_prefixes: false,
            deferral: (mode != Mode::Eager).then_some(deferral),
        });
        for _ in 0..rows {
            let params = SamplingParams {
                contrast: Contrast::default(),
                noise: Noise::new(0, "", 0),
                stop_tokens: Arc::default(),
                max_len: prompt + DRAWN,
                log_probabilities: false,
            };
            let prompt = vec![TokenId(1); prompt];
            scheduler.add(Sequence::new(RequestIdentity::default(), prompt, params));
        }
        let (in_flight, drawn, counts) = (VecDeque::new(), Vec::new(), Counts::default());
        Self { scheduler, mode, cost, forced, in_flight, drawn, is_counting: false, counts }
    }

    /// Runs until the first row ends. Counting starts when both models have read the prompts.
    fn measure(mut self) -> Counts {
        while self.step() {
            let has_begun = self.mode == Mode::Eager || self.counts.steps[1] > 0.0;
            if has_begun && !self.is_counting {
                (self.is_counting, self.counts) = (true, Counts::default());
            }
        }
        self.counts
    }

    /// Runs one step; returns whether all rows still run.
    fn step(&mut self) -> bool {
        let plan = self.scheduler.plan();
        let mut all_run = self.run_and_commit(plan);
        if self.scheduler.catch_up_is_due() {
            self.counts.waits += f64::from(u8::from(!self.in_flight.is_empty()));
            all_run &= self.commit_all_but(0);
            let plan = self.scheduler.plan_catch_up();
            all_run &= self.run_and_commit(plan);
        }
        all_run
    }

    fn run_and_commit(&mut self, plan: StepPlan) -> bool {
        let stay_in_flight = usize::from(self.mode == Mode::Ahead && !plan.is_empty());
        if !plan.is_empty() {
            let ran = self.run(plan);
            self.in_flight.push_back(ran);
        }
        self.commit_all_but(stay_in_flight)
    }

    fn commit_all_but(&mut self, stay_in_flight: usize) -> bool {
        while self.in_flight.len() > stay_in_flight {
            let Some(Ran { plan, results }) = self.in_flight.pop_front() else { break };
            let rows = plan.rows.iter().filter(|row| row.samples).zip(&results);
            let wanted = rows.filter(|(row, result)| {
                result.decision().is_some() && self.scheduler.wants_result(&plan, row)
            });
            self.counts.tokens += wanted.count() as f64;
            if !self.scheduler.commit(&plan, &results).is_empty() {
                return false;
            }
        }
        true
    }

    fn run(&mut self, plan: StepPlan) -> Ran {
        let void =
            plan.batch.pending_tokens.iter().filter(|pending| !self.drawn[pending.source_output as usize]);
        let void: Vec<u32> = void.map(|pending| pending.index).collect();
        let is_void = |token: usize| void.contains(&(token as u32));
        let spans = plan.rows.iter().zip(&plan.batch.spans);
        let read: usize =
            spans.filter(|(_, span)| !is_void(span.tokens.end - 1)).map(|(row, _)| row.positions.end).sum();
        let models = if plan.pass == Pass::Joint { 2.0 } else { 1.0 };
        self.counts.bytes += models * (self.cost.weights + self.cost.position * read as f64);
        let is_catch_up = plan.pass == Pass::CatchUp;
        self.counts.steps[usize::from(is_catch_up)] += 1.0;
        if !is_catch_up {
            self.counts.rows += plan.rows.len() as f64;
            self.counts.void += void.len() as f64;
        }
        let token = Sampled { token: TokenId(1), score: 0.0, num_candidates: 1, log_probabilities: None };
        let result = |seq: SeqId, position: usize| {
            let waits = plan.pass == Pass::ExpertOnly && !self.is_forced(seq, position);
            if waits { RowResult::AwaitsAmateur } else { RowResult::Sampled(token) }
        };
        let sampling = plan.rows.iter().filter(|row| row.samples);
        let results: Vec<_> = sampling.map(|row| result(row.seq, row.positions.end)).collect();
        self.drawn = results.iter().map(|result| result.decision().is_some()).collect();
        Ran { plan, results }
    }

    fn is_forced(&self, seq: SeqId, position: usize) -> bool {
        let [bits, ..] = philox4x32_10([seq.0 as u32, position as u32, 0, 0], [1, 2]);
        f64::from(bits) < self.forced * f64::from(u32::MAX)
    }
}
