//! Random traces through the scheduler, against a cache that remembers who wrote each of its slots.
//!
//! A trace commits every step before it plans the next, or has one step in flight, as the engine does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use codit::contrast::{RowFault, Sampled, philox4x32_10};
use codit::device::RowResult;
use codit::engine::plan::StepPlan;
use codit::engine::scheduler::{End, Ended, Limits, Scheduler};
use codit::ids::{SeqId, TokenId};

use crate::random::Random;

const STOP: TokenId = TokenId(0);

/// A request, and how far it has come in the steps that have run.
struct Request {
    prompt: Vec<TokenId>,
    max_len: usize,
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

/// One model's plane of the cache and the length that it holds of each sequence.
#[derive(Default)]
struct Plane {
    /// Whose position a slot holds.
    slots: Vec<Option<(SeqId, usize)>>,
    lengths: BTreeMap<SeqId, usize>,
}

impl Plane {
    /// Writes the plan's positions as a forward pass does, and checks that all earlier ones are still there.
    fn forward(&mut self, plan: &StepPlan, block_size: usize) {
        for (row, span) in plan.rows.iter().zip(&plan.batch.spans) {
            let blocks = &plan.batch.blocks[span.blocks.clone()];
            for position in row.positions.clone() {
                let slot = blocks[position / block_size].index() * block_size + position % block_size;
                self.slots.resize(self.slots.len().max(slot + 1), None);
                self.slots[slot] = Some((row.seq, position));
            }
            let length = self.lengths.entry(row.seq).or_default();
            // A preempted sequence starts anew.
            assert!(row.positions.start == *length || row.positions.start == 0, "{row:?} at length {length}");
            *length = row.positions.end;
        }
        for (row, span) in plan.rows.iter().zip(&plan.batch.spans) {
            let blocks = &plan.batch.blocks[span.blocks.clone()];
            for position in 0..row.positions.end {
                let slot = blocks[position / block_size].index() * block_size + position % block_size;
                let found = self.slots[slot];
                assert_eq!(found, Some((row.seq, position)), "the cache of {row:?} was overwritten");
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
        }
    }
}

/// A scheduler, what it was asked, and a device that runs each step as soon as it is planned.
struct Trace {
    random: Random,
    limits: Limits,
    scheduler: Scheduler,
    oracle: Oracle,
    expert: Plane,
    amateur: Plane,
    /// `[outputs]` of the last step.
    drawn: Vec<TokenId>,
    /// Steps that ran and are not committed.
    in_flight: VecDeque<(StepPlan, Vec<RowResult>)>,
    /// Requests whose end is not known.
    open: BTreeMap<SeqId, Request>,
    events: Events,
}

impl Trace {
    /// A trace to its end, with up to `ahead` steps in flight when the next is planned.
    fn run(seed: u64, ahead: usize) -> Events {
        let mut random = Random::new(seed);
        let block_size = random.within(1, 5);
        let longest = random.within(3, 24);
        let limits = Limits {
            max_num_seqs: random.within(1, 6),
            max_num_batched_tokens: random.within(1, 20),
            block_size,
            blocks: longest.div_ceil(block_size) + random.within(0, 12),
        };
        let mut to_come = random.within(1, 12);
        let mut trace = Self {
            random,
            limits,
            scheduler: Scheduler::new(limits),
            oracle: Oracle { seed },
            expert: Plane::default(),
            amateur: Plane::default(),
            drawn: vec![],
            in_flight: VecDeque::new(),
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
            trace.step(ahead);
            assert!(trace.scheduler.is_sound(), "blocks are lost");
        }
        assert!(trace.open.is_empty(), "a sequence never ended");
        assert_eq!(trace.scheduler.pool().free(), trace.scheduler.pool().total());
        Events { preemptions: trace.scheduler.preemptions(), ..trace.events }
    }

    fn submit(&mut self, longest: usize) {
        let random = &mut self.random;
        let prompt: Vec<TokenId> =
            (0..random.within(1, longest - 1)).map(|_| TokenId(random.bits() | 1)).collect();
        let max_len = random.within(prompt.len() + 1, longest);
        let seq = self.scheduler.add(prompt.clone(), max_len, Arc::from([STOP]));
        self.open.insert(seq, Request { prompt, max_len, drawn: 0, has_ended: false });
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
    fn step(&mut self, ahead: usize) {
        let plan = self.scheduler.plan();
        assert!(
            plan.batch.tokens.len() <= self.limits.max_num_batched_tokens
                && plan.rows.len() <= self.limits.max_num_seqs
        );
        if let Some((oldest, request)) = self.open.first_key_value() {
            let is_complete = request.prompt.len() + request.drawn == request.max_len;
            let is_planned = plan.rows.iter().any(|row| row.seq == *oldest);
            assert!(is_planned || is_complete && self.is_in_flight(*oldest), "{oldest:?} is not planned");
        }
        let ahead = if plan.is_empty() { 0 } else { ahead };
        if !plan.is_empty() {
            let results = self.forward(&plan);
            self.in_flight.push_back((plan, results));
        }
        while self.in_flight.len() > ahead {
            let (plan, results) = self.in_flight.pop_front().expect("a step");
            for ended in self.scheduler.commit(&plan, &results) {
                let request = self.open.remove(&ended.seq).expect("ended twice");
                self.oracle.check(&ended, &request);
                assert!(!self.scheduler.cancel(ended.seq));
            }
        }
    }

    /// Checks a step against all that ran before it, and gives its results.
    fn forward(&mut self, plan: &StepPlan) -> Vec<RowResult> {
        self.expert.forward(plan, self.limits.block_size);
        self.amateur.forward(plan, self.limits.block_size);
        assert_eq!(self.expert.lengths, self.amateur.lengths);
        let (oracle, batch) = (self.oracle, &plan.batch);
        let mut tokens = batch.tokens.clone();
        for fed in &batch.fed {
            tokens[fed.token as usize] = self.drawn[fed.output as usize];
        }
        self.events.fed += batch.fed.len() as u64;
        let mut results = vec![];
        for (row, span) in plan.rows.iter().zip(&batch.spans) {
            let request = self.open.get_mut(&row.seq).expect("planned after its end was known");
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

/// All that happened in many traces, with up to `ahead` steps in flight.
fn traces(count: u64, ahead: usize) -> Events {
    const THREADS: usize = 2;
    let work = |first: u64| {
        (first..count).step_by(THREADS).fold(Events::default(), |events, seed| {
            let trace = std::panic::catch_unwind(|| Trace::run(seed, ahead));
            events.plus(trace.unwrap_or_else(|_| panic!("the trace of seed {seed}, {ahead} ahead")))
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

/// No block leaked, no row starved, both models' lengths equal at every step.
#[test]
fn a_hundred_thousand_random_traces() {
    let events = traces(100_000, 0);
    println!("{events:?}");
    assert!(events.preemptions > 50_000 && events.steps > 1_000_000, "too tame: {events:?}");
    assert_eq!(
        (events.fed, events.in_vain, events.preempted_in_flight, events.cancelled_in_flight),
        (0, 0, 0, 0)
    );
}

/// The same, and what is fed is what was drawn, where each step is planned before the one before it is committed.
#[test]
fn a_hundred_thousand_random_traces_with_a_step_in_flight() {
    let events = traces(100_000, 1);
    println!("{events:?}");
    assert!(events.preemptions > 50_000 && events.steps > 1_000_000, "too tame: {events:?}");
    let rare = [events.in_vain, events.preempted_in_flight, events.cancelled_in_flight];
    assert!(events.fed > 1_000_000 && rare.iter().all(|count| *count > 1000), "too tame: {events:?}");
}

#[test]
fn decode_rows_go_before_prefill_chunks_and_share_the_budget() {
    let limits = Limits { max_num_seqs: 4, max_num_batched_tokens: 6, block_size: 4, blocks: 16 };
    let mut scheduler = Scheduler::new(limits);
    let tokens = |n: usize| vec![TokenId(1); n];
    let first = scheduler.add(tokens(2), 12, Arc::default());
    let second = scheduler.add(tokens(9), 12, Arc::default());
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
