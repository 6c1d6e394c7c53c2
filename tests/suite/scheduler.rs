//! Random traces through the scheduler, against a cache that remembers what each of its slots stands for.
//!
//! A trace commits every step before it plans the next, or has one step in flight, or defers the amateur, as the engine
//! does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use codit::contrast::{RowFault, Sampled, philox4x32_10};
use codit::device::RowResult;
use codit::engine::deferral::{Deferral, StepCost};
use codit::engine::plan::StepPlan;
use codit::engine::scheduler::{End, Ended, Limits, NewSequence, Scheduler};
use codit::ids::{SeqId, TokenId};

use crate::random::Random;

const STOP: TokenId = TokenId(0);

/// A request, and how far it has come in the steps that have run.
struct Request {
    prompt: Vec<TokenId>,
    max_len: usize,
    needs_amateur: bool,
    /// Tokens drawn.
    drawn: usize,
    /// Whether one of them was its last, so that what is planned before that is known is in vain.
    has_ended: bool,
}

/// What the models would say, whatever has been asked before.
#[derive(Clone, Copy)]
struct Oracle {
    seed: u64,
}

impl Oracle {
    fn draw(self, seq: SeqId, position: usize) -> RowResult {
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        let bits = philox4x32_10([seq.0 as u32, position as u32, 1, 0], key);
        match bits[0] % 60 {
            0 => Err(RowFault::NotANumber),
            1..=4 => Ok(Sampled { token: STOP, score: position as f32, head: 1, log_probabilities: None }),
            _ => Ok(Sampled {
                token: TokenId(bits[1] | 1),
                score: position as f32,
                head: 1,
                log_probabilities: None,
            }),
        }
    }

    /// Whether the expert alone says what [`Oracle::draw`] does.
    fn is_settled(self, seq: SeqId, position: usize) -> bool {
        philox4x32_10([seq.0 as u32, position as u32, 2, 0], [self.seed as u32, 0])[0].is_multiple_of(3)
    }

    /// The token at `position`; none where the draw failed.
    fn token(self, seq: SeqId, request: &Request, position: usize) -> Option<TokenId> {
        let drawn = || self.draw(seq, position).ok().map(|sampled| sampled.token);
        request.prompt.get(position).copied().or_else(drawn)
    }

    /// Checks that a sequence ended where it should, with all that was drawn for it.
    fn check(self, ended: &Ended, request: &Request) {
        let first = request.prompt.len();
        let mut end = End::Length;
        let (mut tokens, mut scores) = (vec![], vec![]);
        for position in first..request.max_len {
            match self.draw(ended.seq, position) {
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
        assert_eq!((ended.end, &ended.tokens, &ended.scores), (end, &tokens, &scores), "{:?}", ended.seq);
    }
}

/// One model's plane of the cache.
struct Plane {
    /// What a slot holds: a token after all those before it. None where one of these was not there to be read.
    slots: Vec<Option<u64>>,
}

/// Of a token that follows what `before` stands for.
fn content(before: u64, token: TokenId) -> u64 {
    let bits = philox4x32_10([before as u32, (before >> 32) as u32, token.0, 0], [3, 4]);
    u64::from(bits[0]) << 32 | u64::from(bits[1])
}

impl Plane {
    fn new(limits: &Limits) -> Self {
        Self { slots: vec![None; limits.blocks * limits.block_size] }
    }

    fn copy(&mut self, plan: &StepPlan, block_size: usize) {
        for (from, to) in &plan.copies {
            let from = from.index() * block_size;
            self.slots.copy_within(from..from + block_size, to.index() * block_size);
        }
    }

    /// Writes the plan's positions, of these `tokens`, as a forward pass does: all of a layer before any is read.
    fn forward(&mut self, plan: &StepPlan, tokens: &[TokenId], block_size: usize) {
        let mut rows: Vec<_> = plan.rows.iter().zip(&plan.batch.spans).collect();
        // A row may read what another writes in the same step.
        rows.sort_by_key(|(row, _)| row.positions.start);
        for (row, span) in rows {
            let blocks = &plan.batch.blocks[span.blocks.clone()];
            let slot =
                |position: usize| blocks[position / block_size].index() * block_size + position % block_size;
            for (position, token) in row.positions.clone().zip(span.tokens.clone()) {
                let before = if position == 0 { Some(0) } else { self.slots[slot(position - 1)] };
                self.slots[slot(position)] = before.map(|before| content(before, tokens[token]));
            }
        }
    }

    /// That all of a row's positions are there, as far as its tokens are known.
    fn check(&self, plan: &StepPlan, known: impl Fn(SeqId, usize) -> Option<TokenId>, block_size: usize) {
        for (row, span) in plan.rows.iter().zip(&plan.batch.spans) {
            let blocks = &plan.batch.blocks[span.blocks.clone()];
            let mut before = 0;
            for position in 0..row.positions.end {
                let Some(token) = known(row.seq, position) else { break };
                before = content(before, token);
                let slot = blocks[position / block_size].index() * block_size + position % block_size;
                assert_eq!(self.slots[slot], Some(before), "the cache of {row:?} is wrong at {position}");
            }
        }
    }
}

/// What happened.
#[derive(Debug, Default, Clone, Copy)]
struct Events {
    steps: u64,
    preemptions: u64,
    /// Tokens that a step took from the step before.
    fed: u64,
    /// Rows of sequences that had ended in the step before.
    in_vain: u64,
    /// Sequences that were sent back and dropped while a token of theirs was in flight.
    preempted_in_flight: u64,
    cancelled_in_flight: u64,
    /// Positions found in the cache, and blocks copied.
    shared: u64,
    copies: u64,
    /// Draws that waited for the amateur, those of them that shared its step with an earlier one, and its steps.
    contested: u64,
    gathered: u64,
    amateur_steps: u64,
}

impl Events {
    fn plus(self, other: Self) -> Self {
        Self {
            steps: self.steps + other.steps,
            preemptions: self.preemptions + other.preemptions,
            fed: self.fed + other.fed,
            in_vain: self.in_vain + other.in_vain,
            preempted_in_flight: self.preempted_in_flight + other.preempted_in_flight,
            cancelled_in_flight: self.cancelled_in_flight + other.cancelled_in_flight,
            shared: self.shared + other.shared,
            copies: self.copies + other.copies,
            contested: self.contested + other.contested,
            gathered: self.gathered + other.gathered,
            amateur_steps: self.amateur_steps + other.amateur_steps,
        }
    }
}

/// A scheduler, what it was asked, and a device that runs each step as soon as it is planned.
struct Trace {
    random: Random,
    limits: Limits,
    scheduler: Scheduler,
    oracle: Oracle,
    /// What some prompts begin with.
    beginning: Vec<TokenId>,
    expert: Plane,
    amateur: Plane,
    /// `[outputs]` of the last step.
    drawn: Vec<TokenId>,
    /// Steps that ran and are not committed.
    in_flight: VecDeque<(StepPlan, Vec<RowResult>)>,
    /// Sequences whose draws wait for the amateur.
    contested: BTreeSet<SeqId>,
    /// Requests whose end is not known.
    open: BTreeMap<SeqId, Request>,
    events: Events,
}

impl Trace {
    /// A trace to its end.
    fn run(seed: u64, mode: Mode) -> Events {
        let mut random = Random::new(seed);
        let block_size = random.within(1, 5);
        let longest = random.within(3, 24);
        let limits = Limits {
            max_num_seqs: random.within(1, 6),
            max_num_batched_tokens: random.within(1, 20),
            block_size,
            blocks: longest.div_ceil(block_size) + random.within(0, 12),
            shares_prefixes: !random.once_in(3),
            deferral: (mode == Mode::Deferred).then(|| Deferral {
                most_lag: random.within(0, 8),
                expert: StepCost { weights: random.within(1, 100) as f64, position: 1.0 },
                amateur: StepCost { weights: random.within(1, 100) as f64, position: 1.0 },
            }),
        };
        let beginning = (0..longest).map(|_| TokenId(random.bits() | 1)).collect();
        let mut to_come = random.within(1, 12);
        let mut trace = Self {
            random,
            limits,
            scheduler: Scheduler::new(limits),
            oracle: Oracle { seed },
            beginning,
            expert: Plane::new(&limits),
            amateur: Plane::new(&limits),
            drawn: vec![],
            in_flight: VecDeque::new(),
            contested: BTreeSet::new(),
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
        assert_eq!(trace.scheduler.pool().free(), trace.scheduler.pool().total());
        let (preemptions, shared) = (trace.scheduler.preemptions(), trace.scheduler.shared());
        Events { preemptions, shared, ..trace.events }
    }

    fn submit(&mut self, longest: usize) {
        let random = &mut self.random;
        let (len, same) = (random.within(1, longest - 1), random.within(0, longest));
        let own = (same..len).map(|_| TokenId(random.bits() | 1));
        let prompt: Vec<TokenId> = self.beginning[..same.min(len)].iter().copied().chain(own).collect();
        let max_len = random.within(prompt.len() + 1, longest);
        let needs_amateur = !random.once_in(4);
        let new = NewSequence { prompt: prompt.clone(), max_len, stop: Arc::from([STOP]), needs_amateur };
        let seq = self.scheduler.add(new);
        self.open.insert(seq, Request { prompt, max_len, needs_amateur, drawn: 0, has_ended: false });
    }

    fn preempt(&mut self) {
        // Those that run are the oldest.
        let youngest = self.open.keys().take(self.scheduler.running()).next_back().copied();
        let is_in_flight = youngest.is_some_and(|seq| self.is_in_flight(seq));
        self.events.preempted_in_flight += u64::from(is_in_flight);
        assert_eq!(self.scheduler.preempt_youngest(), youngest.is_some());
    }

    fn cancel(&mut self) {
        let Some(last) = self.open.len().checked_sub(1) else { return };
        let seq = *self.open.keys().nth(self.random.within(0, last)).expect("one of them");
        self.events.cancelled_in_flight += u64::from(self.is_in_flight(seq));
        self.open.remove(&seq);
        assert!(self.scheduler.cancel(seq) && !self.scheduler.cancel(seq));
    }

    /// Whether a step that is not committed draws a token of `seq`.
    fn is_in_flight(&self, seq: SeqId) -> bool {
        self.in_flight.iter().any(|(plan, _)| plan.rows.iter().any(|row| row.seq == seq && row.samples))
    }

    /// A step as the engine makes it.
    fn step(&mut self, mode: Mode) {
        let plan = self.scheduler.plan();
        assert!(
            plan.batch.tokens.len() <= self.limits.max_num_batched_tokens
                && plan.rows.len() <= self.limits.max_num_seqs
        );
        if let Some((oldest, request)) = self.open.first_key_value() {
            let is_complete = request.prompt.len() + request.drawn == request.max_len;
            let is_planned = plan.rows.iter().any(|row| row.seq == *oldest);
            let may_wait = mode == Mode::Deferred || is_complete && self.is_in_flight(*oldest);
            assert!(is_planned || may_wait, "{oldest:?} is not planned");
        }
        if mode == Mode::Deferred {
            return self.step_apart(&plan);
        }
        let ahead = usize::from(mode == Mode::Ahead && !plan.is_empty());
        if !plan.is_empty() {
            let results = self.forward(&plan);
            self.in_flight.push_back((plan, results));
        }
        while self.in_flight.len() > ahead {
            let (plan, results) = self.in_flight.pop_front().expect("a step");
            let ended = self.scheduler.commit(&plan, &results);
            self.close(ended);
        }
    }

    fn close(&mut self, ended: Vec<Ended>) {
        for ended in ended {
            let request = self.open.remove(&ended.seq).expect("ended twice");
            self.oracle.check(&ended, &request);
            assert!(!self.scheduler.cancel(ended.seq));
        }
    }

    /// A step of the expert, and one of the amateur if it is due.
    fn step_apart(&mut self, plan: &StepPlan) {
        let results = self.forward(plan);
        let rows = plan.rows.iter().filter(|row| row.samples);
        let settled: Vec<Option<RowResult>> = rows
            .zip(results)
            .map(|(row, result)| {
                assert_eq!(row.kept.is_some(), self.open[&row.seq].needs_amateur);
                let is_settled = row.kept.is_none() || self.oracle.is_settled(row.seq, row.positions.end);
                Some(result).filter(|_| is_settled)
            })
            .collect();
        self.events.contested += settled.iter().filter(|result| result.is_none()).count() as u64;
        let waits =
            plan.rows.iter().filter(|row| row.samples).zip(&settled).filter(|(_, result)| result.is_none());
        self.contested.extend(waits.map(|(row, _)| row.seq));
        let ended = self.scheduler.settle(plan, &settled);
        self.close(ended);
        let later = self.scheduler.plan_amateur();
        assert!(!plan.is_empty() || !later.is_empty() || self.scheduler.is_idle(), "nobody goes on");
        assert!(later.batch.tokens.len() <= self.limits.max_num_batched_tokens && later.copies.is_empty());
        self.events.amateur_steps += u64::from(!later.is_empty());
        self.amateur.forward(&later, &later.batch.tokens, self.limits.block_size);
        let (oracle, open) = (self.oracle, &self.open);
        let known = |seq: SeqId, position| oracle.token(seq, &open[&seq], position);
        self.amateur.check(&later, known, self.limits.block_size);
        let rows = later.rows.iter().filter(|row| row.samples);
        let mut results: Vec<RowResult> = vec![];
        for row in rows {
            assert!(self.contested.remove(&row.seq), "{row:?} does not wait");
            results.push(oracle.draw(row.seq, row.positions.end));
        }
        self.events.gathered += results.len().saturating_sub(1) as u64;
        let ended = self.scheduler.commit(&later, &results);
        self.close(ended);
    }

    /// Checks a step against all that ran before it, and gives its results.
    fn forward(&mut self, plan: &StepPlan) -> Vec<RowResult> {
        let (oracle, batch, block_size) = (self.oracle, &plan.batch, self.limits.block_size);
        let mut tokens = batch.tokens.clone();
        for fed in &batch.fed {
            tokens[fed.token as usize] = self.drawn[fed.output as usize];
        }
        let needs_amateur = |seq: SeqId| self.open[&seq].needs_amateur;
        let known = |seq: SeqId, position| oracle.token(seq, &self.open[&seq], position);
        self.expert.copy(plan, block_size);
        self.amateur.copy(plan, block_size);
        self.expert.forward(plan, &tokens, block_size);
        self.expert.check(plan, known, block_size);
        if self.limits.deferral.is_none() && plan.rows.iter().any(|row| needs_amateur(row.seq)) {
            self.amateur.forward(plan, &tokens, block_size);
            let known = |seq, position| known(seq, position).filter(|_| needs_amateur(seq));
            self.amateur.check(plan, known, block_size);
        }
        self.events.fed += batch.fed.len() as u64;
        self.events.copies += plan.copies.len() as u64;
        let mut results = vec![];
        for (row, span) in plan.rows.iter().zip(&batch.spans) {
            let request = self.open.get_mut(&row.seq).expect("planned after its end was known");
            if self.contested.remove(&row.seq) {
                // It was sent back, and draws again.
                (request.drawn, request.has_ended) = (request.drawn - 1, false);
            }
            self.events.in_vain += u64::from(request.has_ended);
            assert_eq!(span.tokens.len(), row.positions.len());
            for (position, index) in row.positions.clone().zip(span.tokens.clone()) {
                assert_eq!(batch.positions[index] as usize, position);
                // A failed draw is no token: whatever follows it is in vain.
                let expected = oracle.token(row.seq, request, position);
                assert!(expected.is_none_or(|token| token == tokens[index]), "{row:?}: a wrong token");
            }
            let (end, length) = (row.positions.end, request.prompt.len() + request.drawn);
            assert!(end <= length && end < request.max_len, "{row:?} goes beyond its end");
            assert_eq!(row.samples, end == length, "{row:?} of {length}");
            if row.samples {
                assert_eq!(batch.outputs[results.len()] as usize, span.tokens.end - 1);
                let result = oracle.draw(row.seq, end);
                request.drawn += 1;
                request.has_ended |= result.is_ok_and(|sampled| sampled.token == STOP) || result.is_err();
                results.push(result);
            }
        }
        assert_eq!(batch.outputs.len(), results.len());
        self.drawn =
            results.iter().map(|result| result.map_or(TokenId(0), |sampled| sampled.token)).collect();
        results
    }
}

/// When steps are planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// After the one before is committed.
    InTurn,
    /// With one in flight.
    Ahead,
    /// Those of the amateur apart from those of the expert.
    Deferred,
}

/// All that happened in many traces.
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

/// No block leaked, no row starved, and both models' planes hold what was read.
#[test]
fn a_hundred_thousand_random_traces() {
    let events = traces(100_000, Mode::InTurn);
    println!("{events:?}");
    assert!(events.preemptions > 50_000 && events.steps > 1_000_000, "too tame: {events:?}");
    assert!(events.shared > 1_000_000 && events.copies > 10_000, "too tame: {events:?}");
    assert_eq!(
        (events.fed, events.in_vain, events.preempted_in_flight, events.cancelled_in_flight),
        (0, 0, 0, 0)
    );
}

/// The same, and what is fed is what was drawn, where each step is planned before the one before it is committed.
#[test]
fn a_hundred_thousand_random_traces_with_a_step_in_flight() {
    let events = traces(100_000, Mode::Ahead);
    println!("{events:?}");
    assert!(events.preemptions > 50_000 && events.steps > 1_000_000, "too tame: {events:?}");
    let rare = [events.in_vain, events.preempted_in_flight, events.cancelled_in_flight];
    assert!(events.fed > 1_000_000 && rare.iter().all(|count| *count > 1000), "too tame: {events:?}");
    assert!(events.shared > 1_000_000 && events.copies > 10_000, "too tame: {events:?}");
}

/// The same where the amateur is deferred.
#[test]
fn a_hundred_thousand_random_traces_with_the_amateur_deferred() {
    let events = traces(100_000, Mode::Deferred);
    println!("{events:?}");
    assert!(events.preemptions > 50_000 && events.steps > 1_000_000, "too tame: {events:?}");
    assert!(events.shared > 1_000_000 && events.copies > 10_000, "too tame: {events:?}");
    assert!(events.contested > 500_000 && events.gathered > 100_000, "too tame: {events:?}");
    assert!(events.steps - events.amateur_steps > 500_000, "too tame: {events:?}");
}

#[test]
fn decode_rows_go_before_prefill_chunks_and_share_the_budget() {
    let limits = Limits {
        max_num_seqs: 4,
        max_num_batched_tokens: 6,
        block_size: 4,
        blocks: 16,
        shares_prefixes: false,
        deferral: None,
    };
    let mut scheduler = Scheduler::new(limits);
    let tokens = |n: usize| vec![TokenId(1); n];
    let new = |prompt| NewSequence { prompt, max_len: 12, stop: Arc::default(), needs_amateur: true };
    let first = scheduler.add(new(tokens(2)));
    let second = scheduler.add(new(tokens(9)));
    let one = Ok(Sampled { token: TokenId(1), score: 0.0, head: 2, log_probabilities: None });
    let spans = |plan: &StepPlan| {
        plan.rows.iter().map(|r| (r.seq, r.positions.clone(), r.samples)).collect::<Vec<_>>()
    };

    let plan = scheduler.plan();
    assert_eq!(spans(&plan), [(first, 0..2, true), (second, 0..4, false)]);
    scheduler.commit(&plan, &[one]);
    let plan = scheduler.plan();
    assert_eq!(spans(&plan), [(first, 2..3, true), (second, 4..9, true)]);
    assert_eq!(plan.batch.outputs, [0, 5]);
}
