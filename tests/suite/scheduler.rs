//! Random traces through the scheduler, against a cache that remembers who wrote each of its slots.

use std::collections::HashMap;
use std::sync::Arc;

use codit::contrast::{RowFault, Sampled};
use codit::engine::plan::StepPlan;
use codit::engine::scheduler::{End, Limits, Scheduler};
use codit::ids::{SeqId, TokenId};

use crate::random::Random;

/// One model's plane of the cache and the length that it holds of each sequence.
#[derive(Default)]
struct Plane {
    slots: HashMap<(u32, usize), (SeqId, usize, TokenId)>,
    lengths: HashMap<SeqId, usize>,
}

impl Plane {
    /// Writes the plan's positions as a forward pass does, and checks that all earlier ones are still there.
    fn forward(&mut self, plan: &StepPlan, block_size: usize) {
        for (row, span) in plan.rows.iter().zip(&plan.batch.spans) {
            let blocks = &plan.batch.blocks[span.blocks.clone()];
            let slot = |position: usize| (blocks[position / block_size].0, position % block_size);
            for (position, token) in row.positions.clone().zip(&plan.batch.tokens[span.tokens.clone()]) {
                self.slots.insert(slot(position), (row.seq, position, *token));
            }
            let length = self.lengths.entry(row.seq).or_default();
            // A preempted sequence starts anew.
            assert!(row.positions.start == *length || row.positions.start == 0, "{row:?} at length {length}");
            *length = row.positions.end;
        }
        for (row, span) in plan.rows.iter().zip(&plan.batch.spans) {
            let blocks = &plan.batch.blocks[span.blocks.clone()];
            for position in 0..row.positions.end {
                let (seq, at, _) = self.slots[&(blocks[position / block_size].0, position % block_size)];
                assert_eq!((seq, at), (row.seq, position), "the cache of {row:?} was overwritten");
            }
        }
    }
}

struct Expected {
    prompt: Vec<TokenId>,
    max_len: usize,
}

const STOP: TokenId = TokenId(0);

fn trace(seed: u64) -> (u64, usize) {
    let mut random = Random::new(seed);
    let block_size = random.within(1, 5);
    let longest = random.within(3, 24);
    let limits = Limits {
        max_num_seqs: random.within(1, 6),
        max_num_batched_tokens: random.within(1, 20),
        block_size,
        blocks: longest.div_ceil(block_size) + random.within(0, 12),
    };
    let mut scheduler = Scheduler::new(limits);
    let (mut expert, mut amateur) = (Plane::default(), Plane::default());
    let mut open: HashMap<SeqId, Expected> = HashMap::new();
    let mut to_come = random.within(1, 12);
    let mut steps = 0;
    while to_come > 0 || !scheduler.is_idle() {
        steps += 1;
        assert!(steps < 20_000, "seed {seed}: a sequence starves");
        while to_come > 0 && random.once_in(2) {
            to_come -= 1;
            let prompt: Vec<TokenId> =
                (0..random.within(1, longest - 1)).map(|_| TokenId(random.bits() | 1)).collect();
            let max_len = random.within(prompt.len() + 1, longest);
            let seq = scheduler.add(prompt.clone(), max_len, Arc::from([STOP]));
            open.insert(seq, Expected { prompt, max_len });
        }
        if random.once_in(12) {
            scheduler.preempt_youngest();
        }
        if random.once_in(40)
            && let Some(&seq) = open.keys().min()
        {
            assert!(scheduler.cancel(seq));
            open.remove(&seq);
        }
        let plan = scheduler.plan();
        assert_eq!(
            plan.rows.is_empty(),
            scheduler.is_idle(),
            "seed {seed}: work is left but none is planned"
        );
        assert!(
            plan.batch.tokens.len() <= limits.max_num_batched_tokens
                && plan.rows.len() <= limits.max_num_seqs
        );
        expert.forward(&plan, block_size);
        amateur.forward(&plan, block_size);
        assert_eq!(expert.lengths, amateur.lengths);
        let results: Vec<Result<Sampled, RowFault>> =
            plan.batch.outputs.iter().map(|_| sampled(&mut random)).collect();
        for ended in scheduler.commit(&plan, &results) {
            let expected = open.remove(&ended.seq).expect("ended twice");
            assert_eq!(ended.tokens.len(), ended.scores.len());
            let length = expected.prompt.len() + ended.tokens.len();
            match ended.end {
                End::Stop => assert_eq!(ended.tokens.last(), Some(&STOP)),
                End::Length => assert_eq!(length, expected.max_len),
                End::Fault(fault) => assert_eq!(fault, RowFault::NotANumber),
            }
            assert!(
                length <= expected.max_len && !ended.tokens.iter().rev().skip(1).any(|token| *token == STOP)
            );
        }
        assert!(scheduler.is_sound(), "seed {seed}: blocks are lost");
    }
    assert!(open.is_empty(), "seed {seed}: a sequence never ended");
    assert_eq!(scheduler.pool().free(), scheduler.pool().total());
    (scheduler.preemptions(), steps)
}

fn sampled(random: &mut Random) -> Result<Sampled, RowFault> {
    if random.once_in(60) {
        return Err(RowFault::NotANumber);
    }
    let token = if random.once_in(15) { STOP } else { TokenId(random.bits() | 1) };
    Ok(Sampled { token, score: -1.0, head: 1 })
}

/// No block leaked, no row starved, both models' lengths equal at every step.
#[test]
fn a_hundred_thousand_random_traces() {
    let threads = 2;
    let totals: Vec<(u64, usize)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    (worker..100_000).step_by(threads).fold((0, 0), |(preemptions, steps), seed| {
                        let (p, s) = trace(seed as u64);
                        (preemptions + p, steps + s)
                    })
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a trace failed")).collect()
    });
    let (preemptions, steps) = totals.iter().fold((0, 0), |(p, s), total| (p + total.0, s + total.1));
    assert!(
        preemptions > 50_000 && steps > 1_000_000,
        "{preemptions} preemptions in {steps} steps: too tame"
    );
}

#[test]
fn decode_rows_go_before_prefill_chunks_and_share_the_budget() {
    let limits = Limits { max_num_seqs: 4, max_num_batched_tokens: 6, block_size: 4, blocks: 16 };
    let mut scheduler = Scheduler::new(limits);
    let tokens = |n: usize| vec![TokenId(1); n];
    let first = scheduler.add(tokens(2), 12, Arc::default());
    let second = scheduler.add(tokens(9), 12, Arc::default());
    let one = Ok(Sampled { token: TokenId(1), score: 0.0, head: 2 });
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
