//! Random traces through the scheduler, checked against a model of the cache that records the content of every slot.
//!
//! A trace either commits every step before it plans the next one, or keeps one step in flight. It either defers the
//! amateur or does not. The engine has the same four modes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use codit::contrast::{Contrast, Noise, RowFault, Sampled, philox4x32_10};
use codit::device::{Batch, Capacity, Decision, LayerKind, Pass, PerKind, RowResult, Span};
use codit::engine::SchedulerConfig;
use codit::engine::kv_cache::window::Window;
use codit::engine::scheduler::Scheduler;
use codit::engine::scheduler::cost::{Deferral, Rows, StepCost, StepHistory};
use codit::engine::sequence::{End, RequestIdentity, SamplingParams, Sequence};
use codit::engine::step::{PlanRow, StepPlan};
use codit::ids::{BlockId, SeqId, TokenId};

use crate::random::Random;

const STOP: TokenId = TokenId(0);

/// A request and its progress in the steps that have run.
struct Request {
    prompt: Vec<TokenId>,
    max_len: usize,
    needs_amateur: bool,
    /// `known` counts the known tokens; `drawn` also counts the tokens that steps in flight draw.
    known: usize,
    drawn: usize,
    /// Whether one of the drawn tokens is the last. Rows that are planned before the scheduler knows this are wasted.
    has_ended: bool,
    /// The position at which the last row of this request ended.
    computed: usize,
    /// The number of times that the rows in flight became void.
    epoch: u32,
}

impl Request {
    /// The request was preempted: the tokens in flight are drawn again.
    fn begin_anew(&mut self) {
        (self.drawn, self.has_ended, self.computed) = (self.known, false, 0);
        self.epoch += 1;
    }

    /// The row that ended at `end` awaits the amateur: rows planned after it are void.
    fn wait(&mut self, end: usize) {
        (self.drawn, self.has_ended, self.computed) = (self.known + 1, false, end);
        self.epoch += 1;
    }
}

/// A step that ran and is not committed yet.
struct Ran {
    plan: StepPlan,
    results: Vec<Option<Decision>>,
    /// For each result, the value of [`Request::epoch`] when the row was planned.
    epochs: Vec<u32>,
}

/// The models' answers. They depend only on the sequence and the position, never on earlier calls.
#[derive(Clone, Copy)]
struct Oracle {
    seed: u64,
}

impl Oracle {
    fn draw(self, seq: SeqId, position: usize) -> Decision {
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        let bits = philox4x32_10([seq.0 as u32, position as u32, 1, 0], key);
        let token = match bits[0] % 60 {
            0 => return Err(RowFault::NotANumber),
            1..=4 => STOP,
            _ => TokenId(bits[1] | 1),
        };
        let num_candidates = if self.is_decided_by_expert(seq, position) { 1 } else { 2 };
        Ok(Sampled { token, score: position as f32, num_candidates, log_probabilities: None })
    }

    /// Whether the expert alone decides the result of [`Oracle::draw`].
    fn is_decided_by_expert(self, seq: SeqId, position: usize) -> bool {
        philox4x32_10([seq.0 as u32, position as u32, 2, 0], [self.seed as u32, 0])[0].is_multiple_of(3)
    }

    /// The token at `position`, or `None` if the draw failed.
    fn token(self, seq: SeqId, request: &Request, position: usize) -> Option<TokenId> {
        let drawn = || self.draw(seq, position).ok().map(|sampled| sampled.token);
        request.prompt.get(position).copied().or_else(drawn)
    }

    /// Checks that a sequence ended at the right place and holds everything that was drawn for it.
    fn check(self, ended: &Sequence, request: &Request) {
        let first = request.prompt.len();
        let mut end = End::Length;
        let (mut tokens, mut scores) = (vec![], vec![]);
        for position in first..request.max_len {
            match self.draw(ended.id, position) {
                Err(fault) => end = End::Fault(fault),
                Ok(sampled) => {
                    tokens.push(sampled.token);
                    scores.push(sampled.score);
                    if sampled.token == STOP {
                        end = End::Stop;
                    }
                }
            }
            if end != End::Length {
                break;
            }
        }
        let found = (ended.end(), ended.response(), &ended.scores);
        assert_eq!(found, (Some(end), &tokens[..], &scores), "{:?}", ended.id);
    }
}

/// The cache plane of one model, which has layers that see all positions and may have layers with a window.
struct Plane {
    /// The content of each slot of either kind: a hash of its token and all tokens before it. `None` if one of the earlier
    /// tokens was missing when the slot was written.
    slots: PerKind<Vec<Option<u64>>>,
    window: Option<usize>,
    block_size: usize,
}

/// The hash of `token` after a prefix whose hash is `before`.
fn content(before: u64, token: TokenId) -> u64 {
    let bits = philox4x32_10([before as u32, (before >> 32) as u32, token.0, 0], [3, 4]);
    u64::from(bits[0]) << 32 | u64::from(bits[1])
}

impl Plane {
    fn new(config: &SchedulerConfig) -> Self {
        let block_size = config.capacity.block_size;
        let slots = PerKind::of(|kind| vec![None; config.num_blocks[kind] * block_size]);
        Self { slots, window: config.window.map(|window| window.len), block_size }
    }

    fn kinds(&self) -> &'static [LayerKind] {
        if self.window.is_some() { &LayerKind::ALL } else { &[LayerKind::Full] }
    }

    fn copy(&mut self, plan: &StepPlan) {
        for kind in LayerKind::ALL {
            for (from, to) in &plan.copies[kind] {
                let from = from.index() * self.block_size;
                let to = to.index() * self.block_size;
                self.slots[kind].copy_within(from..from + self.block_size, to);
            }
        }
    }

    fn slot(&self, table: &[BlockId], position: usize) -> usize {
        table[position / self.block_size].index() * self.block_size + position % self.block_size
    }

    /// Writes the positions of the plan with these `tokens`. Like a forward pass, it writes all positions of a layer
    /// before it reads any. A missing token is replaced by an arbitrary one.
    fn forward(&mut self, plan: &StepPlan, tokens: &[Option<TokenId>]) {
        let mut rows: Vec<_> = plan.rows.iter().zip(&plan.batch.spans).collect();
        // A row may read positions that another row writes in the same step.
        rows.sort_by_key(|(row, _)| row.positions.start);
        for (row, span) in rows {
            let full = plan.batch.table(LayerKind::Full, span);
            for (position, token) in row.positions.clone().zip(span.tokens.clone()) {
                let before = match position {
                    0 => Some(0),
                    _ => self.slots.full[self.slot(full, position - 1)],
                };
                let written = before.map(|before| content(before, tokens[token].unwrap_or(TokenId(2))));
                for kind in self.kinds() {
                    let slot = self.slot(plan.batch.table(*kind, span), position);
                    self.slots[*kind][slot] = written;
                }
            }
        }
    }

    /// Returns two counts: the row's leading positions that the cache holds, and the row's positions whose tokens are
    /// known. Layers with a window hold a position if it is behind the window or its slot has the right content.
    fn has(
        &self,
        row: &PlanRow,
        batch: &Batch,
        span: &Span,
        known: impl Fn(SeqId, usize) -> Option<TokenId>,
    ) -> [usize; 2] {
        let (mut before, mut there) = (0, 0);
        for position in 0..row.positions.end {
            let Some(token) = known(row.seq, position) else { return [there, position] };
            before = content(before, token);
            let holds = |kind: &LayerKind| {
                let is_behind = |window: usize| position + window <= row.positions.start;
                *kind == LayerKind::Windowed && self.window.is_some_and(is_behind)
                    || self.slots[*kind][self.slot(batch.table(*kind, span), position)] == Some(before)
            };
            there += usize::from(there == position && self.kinds().iter().all(holds));
        }
        [there, row.positions.end]
    }

    /// Checks that the cache holds every position of a row whose token is known.
    fn check(&self, plan: &StepPlan, known: impl Fn(SeqId, usize) -> Option<TokenId>) {
        for (row, span) in plan.rows.iter().zip(&plan.batch.spans) {
            let [there, wanted] = self.has(row, &plan.batch, span, &known);
            assert_eq!(there, wanted, "the cache of {row:?} is wrong at {there}");
        }
    }
}

/// Counts of the events in a trace.
#[derive(Debug, Default, Clone, Copy)]
struct Events {
    steps: u64,
    preemptions: u64,
    /// Tokens that a step took from the step before it.
    pending: u64,
    /// Rows of sequences that had already ended in the step before.
    in_vain: u64,
    /// Sequences that were preempted, or cancelled, while one of their tokens was in flight.
    preempted_in_flight: u64,
    cancelled_in_flight: u64,
    /// Positions found in the cache, and blocks copied.
    shared: u64,
    copies: u64,
    /// The same in traces with windows, and positions that rows read no more because they are behind the window.
    shared_windowed: u64,
    behind: u64,
    /// Draws that awaited the amateur, draws that shared a catch-up step with an earlier one, and catch-up steps.
    awaiting: u64,
    gathered: u64,
    amateur_steps: u64,
    /// Rows whose pending token turned out to await the amateur, and catch-ups that became due while a step was in
    /// flight, so that this step had to be committed first.
    void: u64,
    stalls: u64,
    /// The number of times that the pass changed between joint and expert-only.
    turns: u64,
}

impl Events {
    fn plus(self, other: Self) -> Self {
        Self {
            steps: self.steps + other.steps,
            preemptions: self.preemptions + other.preemptions,
            pending: self.pending + other.pending,
            in_vain: self.in_vain + other.in_vain,
            preempted_in_flight: self.preempted_in_flight + other.preempted_in_flight,
            cancelled_in_flight: self.cancelled_in_flight + other.cancelled_in_flight,
            shared: self.shared + other.shared,
            copies: self.copies + other.copies,
            shared_windowed: self.shared_windowed + other.shared_windowed,
            behind: self.behind + other.behind,
            awaiting: self.awaiting + other.awaiting,
            gathered: self.gathered + other.gathered,
            amateur_steps: self.amateur_steps + other.amateur_steps,
            void: self.void + other.void,
            stalls: self.stalls + other.stalls,
            turns: self.turns + other.turns,
        }
    }
}

/// A scheduler, the requests given to it, and a device that runs each step as soon as it is planned.
struct Trace {
    random: Random,
    config: SchedulerConfig,
    scheduler: Scheduler,
    oracle: Oracle,
    /// The tokens that some prompts begin with.
    beginning: Vec<TokenId>,
    expert: Plane,
    amateur: Plane,
    /// The token of each output of the last step; `None` if the output awaits the amateur.
    drawn: Vec<Option<TokenId>>,
    /// The pass of the last step that ran the expert.
    pass: Option<Pass>,
    /// Steps that ran and are not committed.
    in_flight: VecDeque<Ran>,
    /// Sequences whose draws await the amateur.
    awaiting: BTreeSet<SeqId>,
    /// For each slot of deferred logits: the sequence and the position that they belong to.
    deferred_rows: BTreeMap<u32, (SeqId, usize)>,
    /// Whether a catch-up step was ever full, so that the amateur could not catch up at once.
    is_cramped: bool,
    /// Requests that have not ended yet.
    open: BTreeMap<SeqId, Request>,
    events: Events,
}

impl Trace {
    /// Runs a trace to its end.
    fn run(seed: u64, mode: Mode) -> Events {
        let mut random = Random::new(seed);
        let block_size = random.within(1, 5);
        let longest = random.within(3, 24);
        let max_lag = if mode.defers() { random.within(0, 8) } else { 0 };
        let window = random.once_in(2).then(|| Window { len: random.within(1, longest), max_lag });
        let blocks = longest.div_ceil(block_size);
        let windowed =
            window.map_or(0, |window| window.blocks(1, 0, block_size).min(blocks) + random.within(0, 12));
        let config = SchedulerConfig {
            capacity: Capacity {
                max_num_seqs: random.within(1, 6),
                max_num_batched_tokens: random.within(1, 20),
                block_size,
            },
            num_blocks: PerKind { full: blocks + random.within(0, 12), windowed },
            window,
            shared_prefixes: !random.once_in(3),
            deferral: mode.defers().then(|| Deferral {
                max_lag,
                min_tokens_seen: random.within(0, 20),
                expert: StepCost { weights: random.within(1, 100) as f64, row: 1.0, position: 1.0 },
                amateur: StepCost { weights: random.within(1, 100) as f64, row: 1.0, position: 1.0 },
                solo_slowdown: random.once_in(4).then(|| random.within(0, 28) as f64 / 20.0),
            }),
        };
        let beginning = (0..longest).map(|_| TokenId(random.bits() | 1)).collect();
        let mut to_come = random.within(1, 12);
        let mut trace = Self {
            random,
            config,
            scheduler: Scheduler::new(config),
            oracle: Oracle { seed },
            beginning,
            expert: Plane::new(&config),
            amateur: Plane::new(&config),
            drawn: vec![],
            pass: None,
            in_flight: VecDeque::new(),
            awaiting: BTreeSet::new(),
            deferred_rows: BTreeMap::new(),
            is_cramped: false,
            open: BTreeMap::new(),
            events: Events::default(),
        };
        while to_come > 0 || !trace.scheduler.is_idle() || !trace.in_flight.is_empty() {
            trace.events.steps += 1;
            assert!(trace.events.steps < 20_000, "a sequence starves");
            while to_come > 0 && trace.random.once_in(2) {
                to_come -= 1;
                trace.submit(longest);
            }
            if trace.random.once_in(12) {
                trace.preempt();
            }
            if trace.random.once_in(40) {
                trace.cancel();
            }
            trace.step(mode);
            assert!(trace.scheduler.is_sound(), "blocks are lost");
        }
        assert!(trace.open.is_empty(), "a sequence never ended");
        assert!(trace.scheduler.pools().are_free());
        let (preemptions, shared) = (trace.scheduler.preemptions(), trace.scheduler.shared_tokens());
        let shared_windowed = if trace.config.window.is_some() { shared } else { 0 };
        Events { preemptions, shared, shared_windowed, ..trace.events }
    }

    fn submit(&mut self, longest: usize) {
        let random = &mut self.random;
        let (len, same) = (random.within(1, longest - 1), random.within(0, longest));
        let own = (same..len).map(|_| TokenId(random.bits() | 1));
        let prompt: Vec<TokenId> = self.beginning[..same.min(len)].iter().copied().chain(own).collect();
        let max_len = random.within(prompt.len() + 1, longest);
        let needs_amateur = !random.once_in(4);
        let seq = self.scheduler.add(sequence(prompt.clone(), max_len, &[STOP], needs_amateur));
        let (known, drawn, has_ended, computed, epoch) = (0, 0, false, 0, 0);
        let request = Request { prompt, max_len, needs_amateur, known, drawn, has_ended, computed, epoch };
        self.open.insert(seq, request);
    }

    fn preempt(&mut self) {
        // The running sequences are the oldest.
        let youngest = self.open.keys().take(self.scheduler.running()).next_back().copied();
        let is_in_flight = youngest.is_some_and(|seq| self.is_in_flight(seq));
        self.events.preempted_in_flight += u64::from(is_in_flight);
        assert_eq!(self.scheduler.preempt_youngest(), youngest.is_some());
        self.notice_preemptions();
    }

    /// The running sequences are the oldest. Any other sequence that has computed positions was preempted.
    fn notice_preemptions(&mut self) {
        for (seq, request) in self.open.iter_mut().skip(self.scheduler.running()) {
            if request.computed > 0 {
                request.begin_anew();
                self.awaiting.remove(seq);
            }
        }
    }

    fn cancel(&mut self) {
        let Some(last) = self.open.len().checked_sub(1) else { return };
        let seq = *self.open.keys().nth(self.random.within(0, last)).expect("one of them");
        self.events.cancelled_in_flight += u64::from(self.is_in_flight(seq));
        self.open.remove(&seq);
        assert!(self.scheduler.cancel(seq).is_some() && self.scheduler.cancel(seq).is_none());
    }

    /// Whether a step that is not committed yet draws a token of `seq`.
    fn is_in_flight(&self, seq: SeqId) -> bool {
        self.in_flight.iter().any(|ran| ran.plan.rows.iter().any(|row| row.seq == seq && row.samples))
    }

    /// Makes one step in the same way as the engine.
    fn step(&mut self, mode: Mode) {
        let plan = self.scheduler.plan();
        self.notice_preemptions();
        assert!(
            plan.batch.tokens.len() <= self.config.capacity.max_num_batched_tokens
                && plan.rows.len() <= self.config.capacity.max_num_seqs
        );
        if let Some((oldest, request)) = self.open.first_key_value() {
            let is_complete = request.prompt.len() + request.drawn == request.max_len;
            let is_planned = plan.rows.iter().any(|row| row.seq == *oldest);
            let waits = self.awaiting.contains(oldest) || is_complete && self.is_in_flight(*oldest);
            // With a window, a sequence goes no further ahead of the amateur than the windowed blocks reach.
            let is_far_ahead = self.config.window.is_some() && self.scheduler.catch_up_is_due();
            assert!(is_planned || waits || is_far_ahead, "{oldest:?} is not planned");
        }
        self.check_windowed_blocks(mode);
        let mut has_advanced = !plan.is_empty() || !self.in_flight.is_empty();
        self.run_and_commit(plan, mode);
        if self.scheduler.catch_up_is_due() {
            self.events.stalls += u64::from(!self.in_flight.is_empty());
            self.commit_all_but(0);
            let plan = self.scheduler.plan_catch_up();
            assert!(
                plan.batch.tokens.len() <= self.config.capacity.max_num_batched_tokens
                    && plan.copies == PerKind::default()
            );
            has_advanced |= !plan.is_empty();
            self.run_and_commit(plan, mode);
        }
        assert!(has_advanced || self.scheduler.is_idle(), "nobody goes on");
    }

    /// Checks that no more windowed blocks are held than the tokens of the running sequences see. Where the amateur is
    /// deferred, it may have more to read of a shared prefix.
    fn check_windowed_blocks(&self, mode: Mode) {
        let Some(window) = self.config.window.filter(|_| !mode.defers()) else { return };
        let Capacity { max_num_batched_tokens, block_size, .. } = self.config.capacity;
        let pool = &self.scheduler.pools()[LayerKind::Windowed];
        let most = self.scheduler.running() * window.blocks(1, 0, block_size)
            + max_num_batched_tokens.div_ceil(block_size)
            + self.scheduler.running();
        assert!(pool.total() - pool.free() <= most, "windowed blocks are kept too long");
    }

    /// Runs a step as soon as it is queued.
    fn run_and_commit(&mut self, plan: StepPlan, mode: Mode) {
        let stay_in_flight = usize::from(mode.runs_ahead() && !plan.is_empty());
        if !plan.is_empty() {
            let ran = match plan.pass {
                Pass::CatchUp => self.catch_up(plan),
                Pass::Joint | Pass::ExpertOnly => self.forward(plan),
            };
            self.in_flight.push_back(ran);
        }
        self.commit_all_but(stay_in_flight);
    }

    fn commit_all_but(&mut self, stay_in_flight: usize) {
        while self.in_flight.len() > stay_in_flight {
            let Ran { plan, results, epochs } = self.in_flight.pop_front().expect("a step");
            let rows = plan.rows.iter().filter(|row| row.samples);
            for ((row, result), epoch) in rows.zip(&results).zip(epochs) {
                let wanted = self.open.get_mut(&row.seq).filter(|request| request.epoch == epoch);
                assert_eq!(self.scheduler.wants_result(&plan, row), wanted.is_some(), "{row:?}");
                let Some(request) = wanted else { continue };
                if result.is_some() {
                    request.known += 1;
                } else {
                    request.wait(row.positions.end);
                    self.awaiting.insert(row.seq);
                }
            }
            for ended in self.scheduler.commit(&plan, &to_commit(&results)) {
                let request = self.open.remove(&ended.id).expect("ended twice");
                self.oracle.check(&ended, &request);
                assert!(self.scheduler.cancel(ended.id).is_none());
            }
        }
    }

    /// Checks a catch-up step of the amateur and returns its results.
    fn catch_up(&mut self, plan: StepPlan) -> Ran {
        assert!(self.in_flight.is_empty() && plan.batch.pending_tokens.is_empty());
        let tokens: Vec<_> = plan.batch.tokens.iter().copied().map(Some).collect();
        self.amateur.forward(&plan, &tokens);
        let (oracle, open) = (self.oracle, &self.open);
        let known = |seq: SeqId, position| oracle.token(seq, &open[&seq], position);
        self.amateur.check(&plan, known);
        self.events.amateur_steps += 1;
        self.is_cramped |= tokens.len() == self.config.capacity.max_num_batched_tokens;
        let (mut results, mut epochs) = (vec![], vec![]);
        for (row, sample) in plan.rows.iter().filter(|row| row.samples).zip(&plan.sample_rows) {
            assert!(self.awaiting.remove(&row.seq), "{row:?} does not wait");
            let deferred = sample.deferred_row.and_then(|slot| self.deferred_rows.get(&slot));
            assert_eq!(deferred, Some(&(row.seq, row.positions.end)), "the logits of {row:?} are lost");
            let request = self.open.get_mut(&row.seq).expect("it waits");
            let result = oracle.draw(row.seq, row.positions.end);
            request.has_ended |= ends(&result);
            results.push(Some(result));
            epochs.push(request.epoch);
        }
        self.events.gathered += results.len().saturating_sub(1) as u64;
        self.drawn = results.iter().copied().map(pending_token).collect();
        Ran { plan, results, epochs }
    }

    /// Checks a joint or expert-only step against all steps before it, and returns its results.
    fn forward(&mut self, plan: StepPlan) -> Ran {
        let (oracle, batch) = (self.oracle, &plan.batch);
        let mut tokens: Vec<_> = batch.tokens.iter().copied().map(Some).collect();
        for pending in &batch.pending_tokens {
            tokens[pending.index as usize] = self.drawn[pending.source_output as usize];
        }
        let rows = || plan.rows.iter().zip(&batch.spans);
        let void: BTreeSet<SeqId> = rows()
            .filter(|(_, span)| tokens[span.tokens.end - 1].is_none())
            .inspect(|(row, span)| assert!(span.tokens.len() == 1 && row.samples, "{row:?}"))
            .map(|(row, _)| row.seq)
            .collect();
        for (row, span) in rows() {
            let request = self.open.get_mut(&row.seq).expect("planned after its end was known");
            if row.positions.start != request.computed {
                // The request begins, or this plan preempted it.
                request.begin_anew();
                self.awaiting.remove(&row.seq);
            } else if plan.pass == Pass::ExpertOnly
                && request.needs_amateur
                && row.samples
                && span.tokens.len() == 1
                && !self.is_cramped
            {
                let known = |seq, position| oracle.token(seq, &self.open[&seq], position);
                let [there, known] = self.amateur.has(row, batch, span, known);
                let max_lag = self.config.deferral.expect("the amateur is deferred").max_lag;
                assert!(known <= there + max_lag + 1, "the amateur has {there} of {row:?}");
            }
        }
        let needs_amateur = |seq: SeqId| self.open[&seq].needs_amateur;
        let known = |seq: SeqId, position| {
            let is_void = void.contains(&seq) && position >= self.open[&seq].computed;
            oracle.token(seq, &self.open[&seq], position).filter(|_| !is_void)
        };
        self.expert.copy(&plan);
        self.amateur.copy(&plan);
        self.expert.forward(&plan, &tokens);
        self.expert.check(&plan, known);
        if plan.pass == Pass::Joint && plan.rows.iter().any(|row| needs_amateur(row.seq)) {
            self.amateur.forward(&plan, &tokens);
            let known = |seq, position| known(seq, position).filter(|_| needs_amateur(seq));
            self.amateur.check(&plan, known);
        }
        if plan.pass != Pass::CatchUp {
            let before = self.pass.replace(plan.pass);
            self.events.turns += u64::from(before.is_some_and(|kind| kind != plan.pass));
        }
        self.events.pending += batch.pending_tokens.len() as u64;
        self.events.void += void.len() as u64;
        self.events.copies += plan.copies.full.len() as u64;
        if let Some(window) = self.config.window {
            let behind = |row: &PlanRow| (row.positions.start + 1).saturating_sub(window.len) as u64;
            self.events.behind += plan.rows.iter().map(behind).sum::<u64>();
        }
        let (mut results, mut epochs) = (vec![], vec![]);
        for (row, span) in rows() {
            let request = self.open.get_mut(&row.seq).expect("planned after its end was known");
            assert!(!self.awaiting.contains(&row.seq), "{row:?} waits");
            self.events.in_vain += u64::from(request.has_ended);
            assert_eq!(span.tokens.len(), row.positions.len());
            for (position, index) in row.positions.clone().zip(span.tokens.clone()) {
                assert_eq!(batch.positions[index] as usize, position);
                // A failed draw gives no token, so rows after it are wasted.
                let expected = oracle.token(row.seq, request, position);
                let is_right =
                    expected.is_none() || tokens[index].is_none_or(|token| Some(token) == expected);
                assert!(is_right, "{row:?}: a wrong token");
            }
            let (end, length) = (row.positions.end, request.prompt.len() + request.drawn);
            assert!(end <= length && end < request.max_len, "{row:?} goes beyond its end");
            assert_eq!(row.samples, end == length, "{row:?} of {length}");
            request.computed = end;
            if row.samples {
                let deferred_row = plan.sample_rows[results.len()].deferred_row;
                assert_eq!(batch.logits_indices[results.len()] as usize, span.tokens.end - 1);
                assert_eq!(deferred_row.is_some(), request.needs_amateur && plan.pass == Pass::ExpertOnly);
                request.drawn += 1;
                epochs.push(request.epoch);
                let result = oracle.draw(row.seq, end);
                results.push(if void.contains(&row.seq) {
                    // A row without a token may return any result.
                    Some(Ok(Sampled { token: STOP, score: 0.0, num_candidates: 1, log_probabilities: None }))
                        .filter(|_| self.random.once_in(2))
                } else if let Some(slot) = deferred_row.filter(|_| !oracle.is_decided_by_expert(row.seq, end))
                {
                    self.deferred_rows.insert(slot, (row.seq, end));
                    self.events.awaiting += 1;
                    None
                } else {
                    request.has_ended |= ends(&result);
                    Some(result)
                });
            }
        }
        assert_eq!([batch.logits_indices.len(), plan.sample_rows.len()], [results.len(); 2]);
        self.drawn = results.iter().copied().map(pending_token).collect();
        Ran { plan, results, epochs }
    }
}

/// A sequence to be scheduled. Its sampling parameters do not matter, because the oracle draws its tokens.
fn sequence(prompt: Vec<TokenId>, max_len: usize, stop_tokens: &[TokenId], needs_amateur: bool) -> Sequence {
    let params = SamplingParams {
        contrast: if needs_amateur { Contrast::default() } else { Contrast::direct() },
        noise: Noise::new(0, "", 0),
        stop_tokens: Arc::from(stop_tokens),
        max_len,
        log_probabilities: false,
    };
    Sequence::new(RequestIdentity::default(), prompt, params)
}

/// Converts results to the form that a device returns: rows without a decision await the amateur.
fn to_commit(results: &[Option<Decision>]) -> Vec<RowResult> {
    results.iter().map(|result| result.map_or(RowResult::AwaitsAmateur, RowResult::from)).collect()
}

/// Whether the sequence ends with this result.
fn ends(result: &Decision) -> bool {
    result.map_or(true, |sampled| sampled.token == STOP)
}

/// The token that a device passes to the next step for this result.
fn pending_token(result: Option<Decision>) -> Option<TokenId> {
    result.map(|result| result.map_or(TokenId(0), |sampled| sampled.token))
}

/// When steps are planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Each step is planned after the step before it is committed.
    InTurn,
    /// Each step is planned while the step before it is in flight.
    Ahead,
    /// Like `InTurn`, with a deferral configuration: the amateur may run in steps of its own.
    Deferred,
    /// Like `Ahead`, with a deferral configuration: the amateur may run in steps of its own.
    DeferredAhead,
}

impl Mode {
    fn defers(self) -> bool {
        matches!(self, Self::Deferred | Self::DeferredAhead)
    }

    fn runs_ahead(self) -> bool {
        matches!(self, Self::Ahead | Self::DeferredAhead)
    }
}

/// The sum of the events of many traces.
fn traces(count: u64, mode: Mode) -> Events {
    const THREADS: usize = 2;
    let work = |first: u64| {
        (first..count).step_by(THREADS).fold(Events::default(), |events, seed| {
            let trace = std::panic::catch_unwind(|| Trace::run(seed, mode));
            events.plus(trace.unwrap_or_else(|_| panic!("the trace of seed {seed}, {mode:?}")))
        })
    };
    std::thread::scope(|scope| {
        let workers = [0, 1].map(|first| scope.spawn(move || work(first)));
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a trace failed"))
            .fold(Events::default(), Events::plus)
    })
}

/// No block leaks, no row starves, and both models' cache planes hold the content that is read.
#[test]
fn a_hundred_thousand_random_traces() {
    let events = traces(100_000, Mode::InTurn);
    println!("{events:?}");
    assert!(events.preemptions > 50_000 && events.steps > 1_000_000, "too tame: {events:?}");
    assert!(events.shared > 1_000_000 && events.copies > 10_000, "too tame: {events:?}");
    assert!(events.shared_windowed > 300_000 && events.behind > 1_000_000, "too tame: {events:?}");
    assert_eq!(
        (events.pending, events.in_vain, events.preempted_in_flight, events.cancelled_in_flight),
        (0, 0, 0, 0)
    );
}

/// The same properties hold with a step in flight. A step also gets the tokens that the step before it drew.
#[test]
fn a_hundred_thousand_random_traces_with_a_step_in_flight() {
    let events = traces(100_000, Mode::Ahead);
    println!("{events:?}");
    assert!(events.preemptions > 50_000 && events.steps > 1_000_000, "too tame: {events:?}");
    let rare = [events.in_vain, events.preempted_in_flight, events.cancelled_in_flight];
    assert!(events.pending > 1_000_000 && rare.iter().all(|count| *count > 1000), "too tame: {events:?}");
    assert!(events.shared > 1_000_000 && events.copies > 10_000, "too tame: {events:?}");
    assert!(events.shared_windowed > 300_000 && events.behind > 1_000_000, "too tame: {events:?}");
}

/// The same properties hold with a deferred amateur.
#[test]
fn a_hundred_thousand_random_traces_with_the_amateur_deferred() {
    let events = traces(100_000, Mode::Deferred);
    println!("{events:?}");
    assert!(events.preemptions > 50_000 && events.steps > 1_000_000, "too tame: {events:?}");
    assert!(events.shared > 1_000_000 && events.copies > 10_000, "too tame: {events:?}");
    assert!(events.shared_windowed > 300_000 && events.behind > 1_000_000, "too tame: {events:?}");
    assert!(events.awaiting > 500_000 && events.gathered > 100_000, "too tame: {events:?}");
    assert!(events.steps - events.amateur_steps > 500_000, "too tame: {events:?}");
    assert!(events.turns > 1_000, "too tame: {events:?}");
    assert_eq!((events.pending, events.void, events.stalls), (0, 0, 0));
}

/// The same properties hold with a deferred amateur and a step in flight. Rows planned behind a token that awaits the
/// amateur are void and are computed again.
#[test]
fn a_hundred_thousand_random_traces_with_the_amateur_deferred_and_a_step_in_flight() {
    let events = traces(100_000, Mode::DeferredAhead);
    println!("{events:?}");
    assert!(events.preemptions > 50_000 && events.steps > 1_000_000, "too tame: {events:?}");
    assert!(events.shared > 1_000_000 && events.copies > 10_000, "too tame: {events:?}");
    assert!(events.shared_windowed > 300_000 && events.behind > 1_000_000, "too tame: {events:?}");
    assert!(events.awaiting > 500_000 && events.gathered > 100_000, "too tame: {events:?}");
    let rare = [events.in_vain, events.preempted_in_flight, events.cancelled_in_flight];
    assert!(events.pending > 1_000_000 && rare.iter().all(|count| *count > 1000), "too tame: {events:?}");
    assert!(events.void > 100_000 && events.stalls <= events.amateur_steps * 2, "{events:?}");
    assert!(events.turns > 1_000, "too tame: {events:?}");
}

#[test]
fn decode_rows_go_before_prefill_chunks_and_share_the_budget() {
    let mut scheduler = Scheduler::new(SchedulerConfig {
        capacity: Capacity { max_num_seqs: 4, max_num_batched_tokens: 6, block_size: 4 },
        num_blocks: PerKind::only_full(16),
        window: None,
        shared_prefixes: false,
        deferral: None,
    });
    let tokens = |n: usize| vec![TokenId(1); n];
    let new = |prompt| sequence(prompt, 12, &[], true);
    let first = scheduler.add(new(tokens(2)));
    let second = scheduler.add(new(tokens(9)));
    let one = Some(Ok(Sampled { token: TokenId(1), score: 0.0, num_candidates: 2, log_probabilities: None }));
    let spans = |plan: &StepPlan| {
        plan.rows.iter().map(|r| (r.seq, r.positions.clone(), r.samples)).collect::<Vec<_>>()
    };

    let plan = scheduler.plan();
    assert_eq!(spans(&plan), [(first, 0..2, true), (second, 0..4, false)]);
    scheduler.commit(&plan, &to_commit(&[one]));
    let plan = scheduler.plan();
    assert_eq!(spans(&plan), [(first, 2..3, true), (second, 4..9, true)]);
    assert_eq!(plan.batch.logits_indices, [0, 5]);
}

/// One row, with a share of its tokens awaiting the amateur. The two models in turn cost `1 + share` of a joint step.
#[test]
fn the_amateur_is_deferred_where_that_is_worthwhile() {
    let cost = StepCost { weights: 1.0, row: 0.0, position: 0.0 };
    let one = Rows::default().and(0);
    let deferral = |solo_slowdown| Deferral {
        max_lag: 64,
        min_tokens_seen: 64,
        expert: cost,
        amateur: cost,
        solo_slowdown,
    };
    let is_worthwhile = |solo_slowdown, awaiting| {
        let mut history = StepHistory::default();
        history.record_tokens(100.0, 100.0 * awaiting);
        history.is_worthwhile(&deferral(solo_slowdown), one)
    };
    assert!(is_worthwhile(Some(1.0), 0.1) && is_worthwhile(Some(1.5), 0.1) && !is_worthwhile(Some(2.0), 0.1));
    assert!(
        is_worthwhile(Some(1.2), 0.4) && !is_worthwhile(Some(1.2), 0.6) && !is_worthwhile(Some(1.0), 1.0)
    );
    assert!(is_worthwhile(None, 1.0), "asked for in any case");
    assert!(!StepHistory::default().is_worthwhile(&deferral(Some(1.0)), one), "no token was seen");
}
