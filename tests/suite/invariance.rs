//! A record's text depends on its request alone: not on its neighbours, on chunking, preemption or order.

use std::collections::BTreeMap;

use codit::device::cpu::Cpu;
use codit::{Contrast, Engine, EngineConfig, Request, embedded};

use crate::random::Random;

/// Tokens and score bits by request id.
type Responses = BTreeMap<String, (Vec<u32>, Vec<u32>)>;

fn requests() -> Vec<Request> {
    let questions =
        ["What is 3 plus 4?", "Tell me about the river.", "Write the word stone in capital letters.", "Hi"];
    let contrasts = [
        Contrast::default(),
        Contrast { beta: 0.5, temperature: 1.3, top_p: 0.95, ..Contrast::default() },
        Contrast { temperature: 0.7, top_k: 40, ..Contrast::direct() },
        Contrast { alpha: 0.1, temperature: 0.0, special_token_beta: Some(0.2), ..Contrast::default() },
    ];
    (0..40)
        .map(|i| Request {
            contrast: contrasts[i % 4],
            seed: 11,
            max_tokens: 8 + i,
            ignore_eos: i % 3 == 0,
            ..Request::new(format!("r{i}"), questions[(i / 4) % 4].repeat(1 + i % 5))
        })
        .collect()
}

fn decode(
    config: &EngineConfig,
    requests: Vec<Request>,
    mut between: impl FnMut(&mut Engine<Cpu>),
) -> Responses {
    let device = Cpu::new(None).unwrap();
    let mut engine = Engine::load(device, &embedded::expert(), Some(&embedded::amateur()), config).unwrap();
    for request in requests {
        engine.submit(request).unwrap();
    }
    let mut responses = Responses::new();
    while engine.pending() > 0 {
        between(&mut engine);
        engine.step().unwrap();
        while let Some(done) = engine.finished() {
            let tokens = done.tokens.iter().map(|t| t.0).collect();
            let scores = done.scores.iter().map(|s| s.to_bits()).collect();
            assert!(responses.insert(done.id, (tokens, scores)).is_none());
        }
    }
    responses
}

fn config(max_num_seqs: usize, max_num_batched_tokens: usize) -> EngineConfig {
    EngineConfig {
        max_num_seqs,
        max_num_batched_tokens: Some(max_num_batched_tokens),
        kv_cache_memory: Some(256 << 20),
        ..EngineConfig::default()
    }
}

#[test]
fn responses_do_not_depend_on_batch_chunk_order_or_preemption() {
    let alone = decode(&config(1, 512), requests(), |_| {});
    assert_eq!(alone.len(), 40);
    assert!(
        alone.values().filter(|(tokens, _)| tokens.len() > 4).count() > 20,
        "too little is generated to compare"
    );
    let mut random = Random::new(3);
    for (max_num_seqs, chunk) in [(3, 512), (16, 1), (16, 7), (64, 33), (64, 512), (1, 2)] {
        let mut shuffled = requests();
        random.shuffle(&mut shuffled);
        let found = decode(&config(max_num_seqs, chunk), shuffled, |_| {});
        assert!(found == alone, "{max_num_seqs} sequences, chunks of {chunk}");
    }
    for seed in 0..3 {
        let mut preemptor = Random::new(seed);
        let found =
            decode(
                &config(16, 64),
                requests(),
                |engine| {
                    while preemptor.once_in(6) && engine.preempt_youngest() {}
                },
            );
        assert!(found == alone, "forced preemption, seed {seed}");
    }
    let small_blocks = EngineConfig { block_size: 3, ..config(16, 64) };
    assert!(decode(&small_blocks, requests(), |_| {}) == alone, "blocks of 3");
}

#[test]
fn a_cache_too_small_for_all_gives_the_same_by_preemption() {
    let alone = decode(&config(1, 512), requests(), |_| {});
    let mut preemptions = 0;
    // A cache of little more than the longest sequence: blocks run out again and again.
    let tight = EngineConfig {
        kv_cache_memory: Some(512 << 10),
        max_model_len: Some(128),
        block_size: 4,
        ..config(16, 64)
    };
    let found = decode(&tight, requests(), |engine| preemptions = engine.stats().preemptions);
    assert!(preemptions > 0, "the cache was not too small");
    assert!(found == alone);
}

#[test]
fn samples_of_one_request_differ_and_repeat() {
    let request =
        |sample| Request { sample, max_tokens: 24, ..Request::new("same", "Tell me about the river.") };
    let one = |sample| decode(&config(4, 64), vec![request(sample)], |_| {});
    assert_eq!(one(0), one(0));
    assert_ne!(one(0), one(1));
}

#[test]
fn a_cancelled_request_leaves_the_others_as_they_are() {
    let alone = decode(&config(1, 512), requests(), |_| {});
    let device = Cpu::new(None).unwrap();
    let config = config(16, 64);
    let mut engine = Engine::load(device, &embedded::expert(), Some(&embedded::amateur()), &config).unwrap();
    let ids: Vec<_> = requests().into_iter().map(|r| engine.submit(r).unwrap()).collect();
    for _ in 0..5 {
        engine.step().unwrap();
    }
    for id in ids.iter().step_by(3) {
        engine.cancel(*id);
    }
    let mut cancelled = 0;
    for done in &mut engine {
        let done = done.unwrap();
        match done.finish {
            codit::Finish::Cancelled => cancelled += 1,
            _ => assert_eq!(done.tokens.iter().map(|t| t.0).collect::<Vec<_>>(), alone[&done.id].0),
        }
    }
    assert!(cancelled > 5);
    assert_eq!(engine.stats().blocks_held, 0);
}
