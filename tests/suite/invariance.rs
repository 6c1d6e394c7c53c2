//! A record's text depends only on its request, not on other requests, chunking, preemption or order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use codit::contrast::RowFault;
use codit::device::cpu::Cpu;
use codit::engine::{Deferred, Shortcuts};
use codit::ids::SeqId;
use codit::{Checkpoint, Contrast, Engine, EngineConfig, Error, Finish, Prompt, Request, Stats, embedded};

use crate::models::checkpoints;
use crate::random::Random;

/// Responses by request id.
type Responses = BTreeMap<String, Response>;

#[derive(Debug, Clone, PartialEq)]
struct Response {
    tokens: Vec<u32>,
    score_bits: Vec<u32>,
    finish: String,
}

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
    decode_by(&embedded::expert(), config, requests, |engine, _| between(engine)).0
}

/// The responses of `expert` and the amateur, and the engine's statistics at the end. `between` is called before
/// every step.
fn decode_by(
    expert: &Checkpoint,
    config: &EngineConfig,
    requests: Vec<Request>,
    mut between: impl FnMut(&mut Engine<Cpu>, &[SeqId]),
) -> (Responses, Stats) {
    let device = Cpu::new(None).unwrap();
    let mut engine = Engine::load(device, expert, Some(&embedded::amateur()), config).unwrap();
    let ids: Vec<SeqId> = requests.into_iter().map(|request| engine.submit(request).unwrap()).collect();
    let mut responses = Responses::new();
    while engine.pending() > 0 {
        between(&mut engine, &ids);
        engine.step().unwrap();
        while let Some(done) = engine.finished() {
            let response = Response {
                tokens: done.tokens.iter().map(|t| t.0).collect(),
                score_bits: done.scores.iter().map(|s| s.to_bits()).collect(),
                finish: format!("{:?}", done.finish),
            };
            assert!(responses.insert(done.id, response).is_none());
        }
    }
    // Results that are still in flight belong to no request. An idle engine checks its blocks.
    engine.step().unwrap();
    assert!(engine.finished().is_none());
    (responses, engine.stats())
}

fn config(max_num_seqs: usize, max_num_batched_tokens: usize) -> EngineConfig {
    EngineConfig {
        max_num_seqs,
        max_num_batched_tokens: Some(max_num_batched_tokens),
        kv_cache_memory: Some(256 << 20),
        ..EngineConfig::default()
    }
}

/// The cache is little larger than the longest sequence, so blocks run out again and again.
fn tight() -> EngineConfig {
    EngineConfig {
        kv_cache_memory: Some(512 << 10),
        max_model_len: Some(128),
        block_size: 4,
        ..config(16, 64)
    }
}

#[test]
fn responses_do_not_depend_on_batch_chunk_order_or_preemption() {
    let alone = decode(&config(1, 512), requests(), |_| {});
    assert_eq!(alone.len(), 40);
    assert!(
        alone.values().filter(|response| response.tokens.len() > 4).count() > 20,
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
    let found = decode(&tight(), requests(), |engine| preemptions = engine.stats().preemptions);
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
            _ => assert_eq!(done.tokens.iter().map(|t| t.0).collect::<Vec<_>>(), alone[&done.id].tokens),
        }
    }
    assert!(cancelled > 5);
    assert_eq!(engine.stats().blocks_held, 0);
}

/// The expected responses if the expert's logits are NaN after `token`: `alone`, cut at that point.
fn until_the_fault(alone: &Responses, token: u32) -> Responses {
    let cut = |response: &Response| {
        let read = &response.tokens[..response.tokens.len() - 1];
        let Some(at) = read.iter().position(|t| *t == token) else { return response.clone() };
        let message = format!("{} at token {} of the response", RowFault::NotANumber, at + 1);
        Response {
            tokens: response.tokens[..=at].to_vec(),
            score_bits: response.score_bits[..=at].to_vec(),
            finish: format!("{:?}", Finish::Failed(Error::Request(message))),
        }
    };
    alone.iter().map(|(id, response)| (id.clone(), cut(response))).collect()
}

/// A token that no prompt contains and no response contains among its first three tokens. Of these, the most
/// responses contain it.
fn late_token(alone: &Responses) -> u32 {
    let (expert, device) = (embedded::expert(), Cpu::new(None).unwrap());
    let engine = Engine::load(device, &expert, Some(&embedded::amateur()), &config(1, 16)).unwrap();
    let prompt = |request: Request| match request.prompt {
        Prompt::Chat(messages) => engine.chat_ids(&messages).unwrap(),
        _ => panic!("not a chat"),
    };
    let prompts = requests().into_iter().flat_map(prompt).map(|token| token.0);
    let first = alone.values().flat_map(|response| &response.tokens[..response.tokens.len().min(3)]).copied();
    let excluded: BTreeSet<u32> = prompts.chain(first).collect();
    let mut counts = BTreeMap::new();
    for response in alone.values() {
        let read = &response.tokens[..response.tokens.len() - 1];
        for token in read.iter().copied().collect::<BTreeSet<u32>>().difference(&excluded) {
            *counts.entry(*token).or_insert(0) += 1;
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).unwrap().0
}

/// A copy of the embedded expert with NaN logits after one token, and its expected responses.
fn faulty_expert() -> (checkpoints::Copy, Responses) {
    let alone = decode(&config(1, 512), requests(), |_| {});
    let token = late_token(&alone);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("embedded/expert");
    let copy = checkpoints::Copy::of_folder(&folder).edit_weights(|tensors| {
        let embedding = tensors.get_mut("model.embed_tokens.weight").unwrap();
        let lm_head = embedding.clone();
        let row_bytes = embedding.2.len() / embedding.1[0];
        // These bytes are NaN in every number format.
        embedding.2[token as usize * row_bytes..][..row_bytes].fill(0xff);
        tensors.insert("lm_head.weight".to_owned(), lm_head);
    });
    (copy, until_the_fault(&alone, token))
}

fn asynchronous(config: &EngineConfig, is_ahead: bool, deferred_amateur: bool) -> EngineConfig {
    let deferred_amateur = if deferred_amateur { Deferred::Always } else { Deferred::Never };
    let shortcuts = Some(Shortcuts { deferred_amateur, gathered_candidates: true, shared_prefixes: true });
    EngineConfig { async_scheduling: Some(is_ahead), shortcuts, ..config.clone() }
}

/// Stop tokens, length limits, faults and a cache too small for all sequences, each tested with the next step queued
/// before the results of the current step are known, and after.
#[test]
fn a_step_queued_ahead_changes_nothing() {
    let (folder, expected) = faulty_expert();
    let expert = Checkpoint::open(folder.path()).unwrap();
    for end in ["Stop", "Length", "Failed"] {
        let count = expected.values().filter(|response| response.finish.starts_with(end)).count();
        assert!(count > 2, "{count} of {end}");
    }
    let mut steps = [0; 3];
    for config in [config(1, 512), config(3, 16), config(16, 7), config(64, 512), tight()] {
        for (index, (is_ahead, is_deferred)) in
            [(false, false), (true, false), (true, true)].into_iter().enumerate()
        {
            let config = asynchronous(&config, is_ahead, is_deferred);
            let (found, stats) = decode_by(&expert, &config, requests(), |_, _| {});
            assert!(found == expected, "{config:?}");
            let tokens: usize = found.values().map(|response| response.tokens.len()).sum();
            assert_eq!((stats.sampled, stats.blocks_held), (tokens as u64, 0), "{config:?}");
            assert!(stats.preemptions > 0 || config.block_size != tight().block_size, "it was not tight");
            steps[index] += stats.steps;
        }
    }
    assert!(steps[1] > steps[0], "no step was in vain, so none was ahead: {steps:?}");
}

/// The same holds when requests are preempted and cancelled while their tokens are in flight.
#[test]
fn preemption_and_cancellation_with_a_step_in_flight() {
    let (folder, expected) = faulty_expert();
    let expert = Checkpoint::open(folder.path()).unwrap();
    let (mut dropped, mut done) = (0, 0);
    for seed in 0..4 {
        for config in [config(16, 64), tight()] {
            let mut random = Random::new(seed);
            let mut cancelled = BTreeSet::new();
            let (found, stats) =
                decode_by(&expert, &asynchronous(&config, true, seed % 2 == 1), requests(), |engine, ids| {
                    while random.once_in(6) && engine.preempt_youngest() {}
                    let place = random.within(0, ids.len() - 1);
                    if random.once_in(5) && engine.cancel(ids[place]) {
                        cancelled.insert(format!("r{place}"));
                    }
                });
            assert_eq!((found.len(), stats.blocks_held), (expected.len(), 0));
            dropped += cancelled.len();
            done += expected.len() - cancelled.len();
            for (id, response) in found {
                assert_eq!(response.finish == "Cancelled", cancelled.contains(&id), "{id}");
                assert!(response.finish == "Cancelled" || response == expected[&id], "{id}, seed {seed}");
            }
        }
    }
    assert!(dropped > 20 && done > 100, "{dropped} dropped, {done} done");
    // Requests are dropped at one fixed step, before any of them can have ended, so both runs drop the same requests.
    let [in_turn, ahead] = [false, true].map(|is_ahead| {
        let mut step = 0;
        let (found, _) = decode_by(
            &embedded::expert(),
            &asynchronous(&config(16, 64), is_ahead, false),
            requests(),
            |engine, ids| {
                step += 1;
                if step == 5 {
                    ids.iter().step_by(3).for_each(|id| assert!(engine.cancel(*id)));
                }
            },
        );
        found
    });
    assert!(in_turn == ahead);
}
