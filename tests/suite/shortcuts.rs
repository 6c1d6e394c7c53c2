//! Work that is left out changes no token: every shortcut against the eager schedule, in which each token takes both
//! models in full.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use codit::contrast::{Noise, Vocabulary};
use codit::device::cpu::Cpu;
use codit::device::gpu::GpuConfig;
use codit::device::simt::Simt;
use codit::device::{Device, Dtype, Format};
use codit::engine::sequence::{RequestIdentity, SamplingParams, Sequence};
use codit::engine::step_loop::StepLoop;
use codit::engine::{Deferred, Model, Shortcuts, Stats};
use codit::ids::{SeqId, TokenId};
use codit::{Checkpoint, Contrast, EngineConfig, embedded};
use serde_json::Value;

use crate::random::Random;

/// Every shortcut.
pub const ALL: Shortcuts =
    Shortcuts { gathered_candidates: true, deferred_amateur: Deferred::Always, shared_prefixes: true };
const GATHERED: Shortcuts = Shortcuts { gathered_candidates: true, ..Shortcuts::NONE };
const DEFERRED: Shortcuts = Shortcuts { deferred_amateur: Deferred::Always, ..Shortcuts::NONE };
const SHARED: Shortcuts = Shortcuts { shared_prefixes: true, ..Shortcuts::NONE };

/// Two models, and the ids below which both know all tokens.
struct Pair {
    expert: Checkpoint,
    amateur: Checkpoint,
    vocabulary: Vocabulary,
}

impl Pair {
    fn embedded() -> Self {
        let (expert, amateur) = (embedded::expert(), embedded::amateur());
        let config: Value = serde_json::from_slice(&expert.read("config.json").unwrap()).unwrap();
        let len = config["vocab_size"].as_u64().unwrap() as usize;
        Self { expert, amateur, vocabulary: Vocabulary::new(len, vec![TokenId(2), TokenId(3)]) }
    }

    fn golden(folder: &Path) -> Self {
        let open = |name| Checkpoint::open(folder.join(name)).unwrap();
        let golden: Value =
            serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
        let len = golden["vocab"].as_u64().unwrap() as usize;
        Self {
            expert: open("expert"),
            amateur: open("amateur"),
            vocabulary: Vocabulary::new(len, vec![TokenId(1)]),
        }
    }

    /// Prompts of which many begin alike, under all kinds of parameters.
    fn jobs(&self, count: usize, most_tokens: usize, seed: u64) -> Vec<Job> {
        let mut random = Random::new(seed);
        let mut token = move || TokenId(random.bits() % self.vocabulary.len as u32);
        let beginning: Vec<TokenId> = (0..40).map(|_| token()).collect();
        let mut random = Random::new(seed + 1);
        (0..count)
            .map(|index| {
                let same = random.within(0, beginning.len());
                let prompt: Vec<_> =
                    beginning[..same].iter().copied().chain((0..=index % 7).map(|_| token())).collect();
                let contrast = Contrast {
                    alpha: [0.0, 0.01, 0.1, 0.3, 0.7, 1.0][index % 6],
                    beta: [1.0, 0.5, 0.0, 1.0][index % 4],
                    special_token_beta: Some(0.2).filter(|_| index % 11 == 0),
                    temperature: [1.0, 0.0, 0.7][index % 3],
                    top_p: if index % 5 == 0 { 0.9 } else { 1.0 },
                    ..Contrast::default()
                };
                let params = SamplingParams {
                    contrast,
                    noise: Noise::new(seed, &index.to_string(), 0),
                    stop_tokens: Arc::from([TokenId(0)]),
                    max_len: prompt.len() + 1 + random.within(0, most_tokens - 1),
                    log_probabilities: index % 13 == 0,
                };
                (prompt, params)
            })
            .collect()
    }

    fn run<D: Device>(&self, device: D, shortcuts: Shortcuts, jobs: &[Job]) -> (Responses, Stats) {
        self.run_as(device, shortcuts, None, jobs)
    }

    fn run_as<D: Device>(
        &self,
        device: D,
        shortcuts: Shortcuts,
        async_scheduling: Option<bool>,
        jobs: &[Job],
    ) -> (Responses, Stats) {
        let config = EngineConfig {
            async_scheduling,
            max_num_seqs: 16,
            max_num_batched_tokens: Some(64),
            max_model_len: Some(120),
            kv_cache_memory: Some(8 << 20),
            block_size: 8,
            shortcuts: Some(shortcuts),
            ..EngineConfig::default()
        };
        let (expert, amateur) = (Model::Stored(&self.expert), Some(Model::Stored(&self.amateur)));
        let mut steps = StepLoop::load(device, expert, amateur, &self.vocabulary, &config).unwrap();
        for (prompt, params) in jobs.iter().cloned() {
            steps.add(Sequence::new(RequestIdentity::default(), prompt, params));
        }
        let mut responses = Responses::new();
        while !steps.is_idle() {
            responses.extend(steps.step().unwrap().into_iter().map(|ended| (ended.id, ended)));
        }
        (responses, steps.stats())
    }
}

/// A prompt, and how its response is drawn.
type Job = (Vec<TokenId>, SamplingParams);
type Responses = BTreeMap<SeqId, Sequence>;

/// The same tokens and ends; scores within `tolerance`.
fn assert_same(found: &Responses, expected: &Responses, tolerance: f32, case: &str) {
    assert_eq!(found.len(), expected.len(), "{case}");
    for (found, expected) in found.values().zip(expected.values()) {
        let seq = expected.id;
        let [found_tokens, expected_tokens] = [found, expected].map(|ended| (ended.response(), ended.end()));
        assert_eq!(found_tokens, expected_tokens, "{case}: {seq:?}");
        let log_probabilities = |ended: &Sequence| {
            let both = ended.log_probabilities.iter();
            both.flat_map(|l| [l.expert, l.amateur.unwrap_or(0.0)]).collect::<Vec<_>>()
        };
        let numbers = [expected.scores.clone(), log_probabilities(expected)].concat();
        let others = [found.scores.clone(), log_probabilities(found)].concat();
        assert_eq!(numbers.len(), others.len(), "{case}: {seq:?}");
        for (a, b) in numbers.iter().zip(&others) {
            assert!(a == b || (a - b).abs() <= tolerance, "{case}: {seq:?}: {a} and {b}");
        }
    }
}

fn cpu() -> Cpu {
    Cpu::new(None).unwrap()
}

fn golden_pairs() -> Vec<PathBuf> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
    let mut folders: Vec<_> = std::fs::read_dir(models).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

#[test]
fn two_thousand_records_of_the_embedded_pair_on_the_cpu() {
    let pair = Pair::embedded();
    let jobs = pair.jobs(2000, 24, 5);
    let (eager, eager_stats) = pair.run(cpu(), Shortcuts::NONE, &jobs);
    assert!(eager_stats.forced * 10 > eager_stats.sampled, "too few are forced: {eager_stats:?}");
    let (deferred, stats) = pair.run(cpu(), DEFERRED, &jobs);
    assert_same(&deferred, &eager, 0.0, "deferred");
    assert!(stats.amateur_tokens * 10 < eager_stats.amateur_tokens * 9, "{stats:?}, {eager_stats:?}");
    let (shared, stats) = pair.run(cpu(), SHARED, &jobs);
    assert_same(&shared, &eager, 0.0, "shared");
    assert_eq!(stats.shared_tokens + stats.expert_tokens, eager_stats.expert_tokens);
    assert!(stats.shared_tokens > 10_000, "{stats:?}");
    let (gathered, _) = pair.run(cpu(), GATHERED, &jobs);
    assert_same(&gathered, &eager, 1e-4, "gathered");
    let (all, stats) = pair.run_as(cpu(), ALL, Some(true), &jobs);
    assert_same(&all, &gathered, 0.0, "all, one step ahead");
    // The cost of a row differs between machines, and with it how often the host looks in vain whether the amateur is due.
    // On every machine it looks at most once per step of the expert. `scheduler.rs` and the kernels' test below, whose costs
    // are fixed, bound the looks by the amateur's steps.
    assert!(stats.stalls > 0 && stats.stalls <= stats.steps, "{stats:?}");
    assert!(stats.amateur_steps < stats.steps, "{stats:?}");
}

#[test]
fn random_pairs_of_every_family_on_the_cpu() {
    for folder in golden_pairs() {
        let pair = Pair::golden(&folder);
        let jobs = pair.jobs(40, 12, 6);
        let case = folder.display().to_string();
        let (eager, _) = pair.run(cpu(), Shortcuts::NONE, &jobs);
        assert_same(&pair.run(cpu(), ALL, &jobs).0, &eager, 1e-4, &case);
        assert_same(&pair.run(cpu(), DEFERRED, &jobs).0, &eager, 0.0, &case);
    }
}

#[test]
fn the_embedded_pair_through_the_kernels() {
    let pair = Pair::embedded();
    let jobs = pair.jobs(40, 6, 7);
    for (dtype, jobs) in [(Dtype::F32, &jobs[..]), (Dtype::Bf16, &jobs[..16])] {
        let device = || Simt::simt(dtype, 1);
        let case = |name: &str| format!("{name}, {dtype:?}");
        let (eager, _) = pair.run(device(), Shortcuts::NONE, jobs);
        assert_same(&pair.run(device(), GATHERED, jobs).0, &eager, 1e-4, &case("gathered"));
        // A token that is found in the cache was computed by a prefill there, and has other last bits of bf16.
        if dtype == Dtype::F32 {
            let (found, stats) = pair.run(device(), ALL, jobs);
            assert_same(&found, &eager, 1e-4, &case("all"));
            assert!(stats.shared_tokens > 100 && stats.amateur_steps < stats.sampled, "{stats:?}");
            assert!(stats.stalls > 0 && stats.stalls < stats.amateur_steps * 3 / 2, "{stats:?}");
        }
    }
}

/// Through the kernels, bit for bit, where the device is deterministic.
#[test]
fn a_deterministic_device_gives_the_same_bits_whatever_is_left_out() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
    for name in ["llama-head64-old", "qwen3-head128-old"] {
        let pair = Pair::golden(&models.join(name));
        let jobs = pair.jobs(12, 6, 8);
        let run = |shortcuts| {
            let config = GpuConfig::of(Format::of(Dtype::Bf16));
            let device = Simt::simt_with(GpuConfig { is_deterministic: true, ..config }, 1, false);
            pair.run(device, shortcuts, &jobs)
        };
        let (eager, _) = run(Shortcuts::NONE);
        let (found, stats) = run(Shortcuts { gathered_candidates: false, ..ALL });
        assert_same(&found, &eager, 0.0, name);
        assert!(stats.shared_tokens > 50, "{stats:?}");
    }
}

/// A prompt that the expert computed alone is computed again for both, and found from then on.
#[test]
fn what_the_expert_computed_alone_hides_nothing() {
    let pair = Pair::embedded();
    let prompt: Vec<TokenId> = (0..61).map(|token| TokenId(20 + token % 50)).collect();
    let jobs = [0.0, 1.0, 1.0, 1.0].map(|beta| {
        let params = SamplingParams {
            contrast: Contrast { beta, ..Contrast::default() },
            noise: Noise::new(1, "same", 0),
            stop_tokens: Arc::default(),
            max_len: prompt.len() + 4,
            log_probabilities: false,
        };
        (prompt.clone(), params)
    });
    let (_, stats) = pair.run(cpu(), SHARED, &jobs);
    assert_eq!(stats.expert_tokens, 2 * 61 + 2 + 4 * 3, "{stats:?}");
}

/// Eight samples of one prompt compute it once, but for the last token, whose logits each needs.
#[test]
fn samples_of_one_prompt_compute_it_once() {
    let pair = Pair::embedded();
    for prompt_len in [64, 61] {
        let prompt: Vec<TokenId> = (0..prompt_len).map(|token| TokenId(20 + token % 50)).collect();
        let jobs: Vec<Job> = (0..8)
            .map(|sample| {
                let params = SamplingParams {
                    contrast: Contrast { alpha: 0.0, ..Contrast::default() },
                    noise: Noise::new(1, "same", sample),
                    stop_tokens: Arc::default(),
                    max_len: prompt.len() + 4,
                    log_probabilities: false,
                };
                (prompt.clone(), params)
            })
            .collect();
        for shortcuts in [ALL, SHARED] {
            let (_, stats) = pair.run(cpu(), shortcuts, &jobs);
            let decoded = 8 * (4 - 1);
            let expected = prompt.len() as u64 + 7 + decoded;
            assert_eq!((stats.sampled, stats.expert_tokens), (32, expected), "{stats:?}");
            assert_eq!(stats.amateur_tokens, expected, "{stats:?}");
            assert_eq!(stats.steps, 1 + 4, "all but the first begin together: {stats:?}");
        }
    }
}
