//! Layers with a window keep only the blocks that are still read. Responses are compared bit for bit with one forward
//! pass over the whole text, in which nothing is dropped.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use codit::bench::shapes;
use codit::contrast::{Contrast, Noise, Vocabulary};
use codit::device::cpu::Cpu;
use codit::device::gpu::{BATCHED_TOKENS, GpuConfig};
use codit::device::simt::Simt;
use codit::device::{
    AmateurLogits, Batch, Capacity, Device, Dtype, ExpertLogits, Format, PerKind, Role, RowResult, SampleRow,
    Span,
};
use codit::engine::footprint::Footprint;
use codit::engine::kv_cache::division::Division;
use codit::engine::kv_cache::window::Window;
use codit::engine::sequence::{RequestIdentity, SamplingParams, Sequence};
use codit::engine::step_loop::StepLoop;
use codit::engine::{Deferred, Model, Shortcuts, Stats};
use codit::ids::{BlockId, TokenId};
use codit::model::{Decoder, Spec};
use codit::{Checkpoint, EngineConfig};
use serde_json::Value;

use crate::random::Random;

/// Tokens of a cache block.
const BLOCK: usize = 4;
/// Tokens of the longest sequence.
const LONGEST: usize = 120;
/// The golden pairs with windows and the longest window of each.
const PAIRS: [(&str, usize); 4] =
    [("gemma3-tower-unlike-old", 12), ("olmo3-yarn", 8), ("olmo3-unlike-old", 20), ("qwen3-window", 8)];

/// The shortcuts that change no bit.
const ALL: Shortcuts =
    Shortcuts { gathered_candidates: false, deferred_amateur: Deferred::Always, shared_prefixes: true };
const SHARED: Shortcuts = Shortcuts { shared_prefixes: true, ..Shortcuts::NONE };

/// A prompt, and how its response is drawn.
type Job = (Vec<TokenId>, SamplingParams);
/// The tokens of a response and the bits of their scores.
type Response = Vec<(TokenId, u32)>;

struct Pair {
    expert: Checkpoint,
    amateur: Checkpoint,
    vocabulary: Vocabulary,
}

impl Pair {
    fn golden(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(name);
        let golden: Value =
            serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
        let len = golden["vocab"].as_u64().unwrap() as usize;
        let open = |name| Checkpoint::open(folder.join(name)).unwrap();
        Self {
            expert: open("expert"),
            amateur: open("amateur"),
            vocabulary: Vocabulary::new(len, vec![TokenId(1)]),
        }
    }

    /// Prompts that begin alike in part, some of them several times, all longer than a window with their responses.
    fn jobs(&self, count: usize, response: usize) -> Vec<Job> {
        let mut random = Random::new(9);
        let mut token = move || TokenId(random.bits() % self.vocabulary.len as u32);
        let beginning: Vec<TokenId> = (0..60).map(|_| token()).collect();
        let prompt = |index: usize| {
            let same = [60, 41, 41, 23, 8][index % 5];
            let own = if index % 5 == 2 { 0 } else { 3 + index % 7 };
            beginning[..same].iter().copied().chain((0..own).map(move |at| TokenId((index + at) as u32)))
        };
        let job = |index: usize| {
            let params = SamplingParams {
                contrast: Contrast {
                    alpha: [0.01, 0.3, 0.7][index % 3],
                    beta: [1.0, 0.5, 0.0, 1.0][index % 4],
                    ..Contrast::default()
                },
                noise: Noise::new(3, &index.to_string(), 0),
                stop_tokens: Arc::default(),
                max_len: LONGEST.min(prompt(index).count() + response + index % 3),
                log_probabilities: false,
            };
            (prompt(index).collect(), params)
        };
        (0..count).map(job).collect()
    }

    fn start<D: Device>(&self, device: D, config: &EngineConfig) -> StepLoop<D> {
        let (expert, amateur) = (Model::Stored(&self.expert), Some(Model::Stored(&self.amateur)));
        StepLoop::load(device, expert, amateur, &self.vocabulary, config).unwrap()
    }

    /// The responses of the engine. `between` is called before each step.
    fn run<D: Device>(
        &self,
        device: D,
        config: &EngineConfig,
        jobs: &[Job],
        mut between: impl FnMut(&mut StepLoop<D>),
    ) -> (Vec<Response>, Stats) {
        let mut steps = self.start(device, config);
        for (prompt, params) in jobs.iter().cloned() {
            steps.add(Sequence::new(RequestIdentity::default(), prompt, params));
        }
        let mut responses = BTreeMap::new();
        while !steps.is_idle() {
            between(&mut steps);
            for ended in steps.step().unwrap() {
                let scores = ended.scores.iter().map(|score| score.to_bits());
                responses.insert(ended.id, ended.response().iter().copied().zip(scores).collect());
            }
        }
        (responses.into_values().collect(), steps.stats())
    }

    /// Bytes of a block of each kind, of both models together.
    fn block_bytes(&self, cpu: &Cpu) -> usize {
        let bytes = |checkpoint| {
            let shape = Spec::open(checkpoint).unwrap().cache_shape(BLOCK, PerKind::of(|_| 1));
            let block = cpu.block_bytes(shape);
            block.full + block.windowed
        };
        bytes(&self.expert) + bytes(&self.amateur)
    }

    /// What both models draw at each position of a response, computed by one pass over prompt and response with a cache that
    /// keeps every position of every layer.
    fn unbroken<D: Device>(&self, device: &D, (prompt, params): &Job, response: &Response) -> Response {
        let (mut tokens, count) = (prompt.clone(), response.len());
        tokens.extend(response[..count - 1].iter().map(|(token, _)| *token));
        let (len, first) = (tokens.len(), prompt.len());
        let blocks = len.div_ceil(BLOCK);
        let table: Vec<BlockId> = (0..blocks as u32).map(BlockId).collect();
        let batch = Batch {
            tokens,
            positions: (0..len as u32).collect(),
            spans: vec![Span { tokens: 0..len, blocks: 0..blocks }],
            blocks: table.clone(),
            windowed_blocks: table,
            logits_indices: (first as u32 - 1..len as u32).collect(),
            ..Batch::default()
        };
        let row = |position| SampleRow {
            contrast: params.contrast,
            noise: params.noise,
            position,
            log_probabilities: false,
            deferred_row: None,
        };
        let rows: Vec<_> = (first as u32..=len as u32).map(row).collect();
        let capacity = Capacity { max_num_seqs: count, max_num_batched_tokens: len, block_size: BLOCK };
        let mut step = device.step(capacity, PerKind::of(|_| blocks), &self.vocabulary).unwrap();
        device.prepare(&mut step, &batch, &rows);
        let load = |role, checkpoint| {
            let device = device.role(role);
            let mut decoder = Decoder::load(&device, checkpoint, len, count).unwrap();
            let shape = decoder.spec().cache_shape(BLOCK, PerKind::of(|_| blocks));
            decoder.forward(&device, &step, &mut device.cache(shape).unwrap());
            decoder
        };
        let mut expert = load(Role::Expert, &self.expert);
        let mut amateur = load(Role::Amateur, &self.amateur);
        let (expert, amateur) = device.join(
            |device| expert.logits(device, &step, 0..count),
            |device| amateur.logits(device, &step, 0..count),
        );
        let (expert, amateur) = (ExpertLogits::Computed(expert), AmateurLogits::Computed(amateur));
        device.sample(&mut step, 0..count, expert, amateur);
        device.submit(&mut step);
        let results = device.collect(&mut step).unwrap();
        let drawn = results.into_iter().map(|result| match result {
            RowResult::Sampled(sampled) => (sampled.token, sampled.score.to_bits()),
            other => panic!("{other:?}"),
        });
        drawn.collect()
    }
}

fn config(max_num_seqs: usize, chunk: usize, shortcuts: Shortcuts) -> EngineConfig {
    EngineConfig {
        max_num_seqs,
        max_num_batched_tokens: Some(chunk),
        max_model_len: Some(LONGEST),
        kv_cache_memory: Some(4 << 20),
        block_size: BLOCK,
        shortcuts: Some(shortcuts),
        ..EngineConfig::default()
    }
}

/// Chunks, preemption, shared prefixes, a deferred amateur and steps queued ahead change nothing, in a large cache and in one in
/// which blocks are given to other sequences as soon as they are dropped.
#[test]
fn responses_equal_a_pass_that_drops_nothing() {
    let cpu = || Cpu::new(None).unwrap();
    for (name, _) in PAIRS {
        let pair = Pair::golden(name);
        let jobs = pair.jobs(20, 40);
        let (expected, _) = pair.run(cpu(), &config(1, 512, Shortcuts::NONE), &jobs, |_| {});
        for (job, response) in jobs.iter().zip(&expected) {
            assert!(job.0.len() + response.len() > 40, "too short: {name}");
            assert!(pair.unbroken(&cpu(), job, response) == *response, "{name}: {:?}", job.1.noise);
        }
        let loads = [config(16, 64, SHARED), config(16, 7, ALL), config(3, 1, SHARED)];
        let mut preemptions = 0;
        for config in loads {
            for is_ahead in [false, true] {
                let mut random = Random::new(4);
                let config = EngineConfig { async_scheduling: Some(is_ahead), ..config.clone() };
                let (found, stats) =
                    pair.run(
                        cpu(),
                        &config,
                        &jobs,
                        |steps| {
                            while random.once_in(8) && steps.preempt_youngest() {}
                        },
                    );
                assert!(found == expected, "{name}, {config:?}");
                assert!(stats.shared_tokens > 100, "{name}: {stats:?}");
                // Memory for one sequence and little more.
                let tight = (LONGEST / BLOCK + 4) * pair.block_bytes(&cpu());
                let config = EngineConfig { kv_cache_memory: Some(tight), ..config };
                let (found, stats) = pair.run(cpu(), &config, &jobs, |_| {});
                assert!(found == expected, "{name}, {config:?}");
                preemptions += stats.preemptions;
            }
        }
        assert!(preemptions > 0, "{name}: the cache was not too small");
    }
}

/// The same through the kernels, with both models on one GPU or each on its own. Memory of the host's GPU begins as NaN, so a read of what was never written would show.
#[test]
fn kernels_respond_as_in_a_pass_that_drops_nothing() {
    for (name, response) in [("gemma3-head256-old", 12), ("olmo3-yarn", 24)] {
        let pair = Pair::golden(name);
        let jobs = pair.jobs(8, response);
        for dtype in [Dtype::Bf16, Dtype::F32] {
            let placed = |is_split| {
                let config = GpuConfig::of(Format::of(dtype));
                Simt::simt_with(GpuConfig { is_deterministic: true, ..config }, 1, is_split)
            };
            let device = || placed(false);
            let (expected, _) = pair.run(device(), &config(1, 512, Shortcuts::NONE), &jobs, |_| {});
            for (job, response) in jobs.iter().zip(&expected).take(4) {
                assert!(pair.unbroken(&device(), job, response) == *response, "{name}, {dtype:?}");
            }
            for is_split in [false, true] {
                let (found, stats) = pair.run(placed(is_split), &config(8, 32, ALL), &jobs, |_| {});
                assert!(found == expected, "{name}, {dtype:?}, split {is_split}: {stats:?}");
            }
        }
    }
}

/// However long a sequence is, it holds no more windowed blocks than its window, the amateur's lag and a chunk take.
#[test]
fn a_long_sequence_holds_few_windowed_blocks() {
    const CHUNK: usize = 16;
    for (name, len) in PAIRS {
        let pair = Pair::golden(name);
        let (_, params) = pair.jobs(1, 1).remove(0);
        let prompt: Vec<TokenId> = (0..300).map(|at| TokenId(at % 200)).collect();
        let job = (prompt, SamplingParams { max_len: 400, ..params });
        for (shortcuts, max_lag) in [(SHARED, 0), (ALL, 64)] {
            let config = EngineConfig { max_model_len: Some(400), ..config(1, CHUNK, shortcuts) };
            let (mut held, mut windowed) = (0, 0);
            pair.run(Cpu::new(None).unwrap(), &config, std::slice::from_ref(&job), |steps| {
                held = held.max(steps.stats().blocks_held);
                windowed = windowed.max(steps.stats().windowed_blocks_held);
            });
            let most = Window { len, max_lag }.blocks(CHUNK, 0, BLOCK);
            assert!(held == 100 && windowed <= most, "{name}: {held}, {windowed} of at most {most}");
            assert!(windowed * BLOCK >= len, "{name}: {windowed}");
        }
    }
}

#[test]
fn a_window_needs_the_blocks_that_it_touches() {
    let window = Window { len: 8, max_lag: 0 };
    // The token at position 10 sees 3..=10; so blocks 0 to 2.
    assert_eq!([7, 10, 11, 15].map(|position| window.first_block(position, 4)), [0, 0, 1, 2]);
    assert_eq!([1, 2, 4, 5].map(|tokens| window.blocks(tokens, 0, 4)), [3, 3, 4, 4]);
    assert_eq!(Window { len: 1, max_lag: 0 }.blocks(1, 0, 16), 1);
    for (len, tokens, lag, block_size) in (1..9).flat_map(|len| {
        (1..6).flat_map(move |tokens| (0..3).flat_map(move |lag| (1..6).map(move |b| (len, tokens, lag, b))))
    }) {
        let window = Window { len, max_lag: 0 };
        let touched = |start: usize| {
            (start + lag + tokens - 1) / block_size + 1 - window.first_block(start, block_size)
        };
        let most = (0..60).map(touched).max().unwrap();
        assert_eq!(window.blocks(tokens, lag, block_size), most, "{window:?}, {tokens}, {lag}, {block_size}");
    }
}

#[test]
fn memory_is_divided_by_the_usual_length() {
    let capacity = Capacity { max_num_seqs: 8, max_num_batched_tokens: 64, block_size: 16 };
    let window = Some(Window { len: 128, max_lag: 0 });
    let division = Division { window, capacity, max_model_len: Some(512), long_len: 0 };
    // A sequence of 512 takes 32 blocks, of which 9 are within the window; a chunk takes 4: 20 sequences.
    let block = PerKind { full: 100, windowed: 500 };
    let bytes = 640 * 100 + (180 + 4) * 500;
    assert_eq!(division.blocks_in(&[(bytes, block)]), PerKind { full: 640, windowed: 184 });
    // The limit may be far above the usual length, so no more than four windows are assumed.
    let large = Division { max_model_len: Some(5_000), ..division };
    assert_eq!(large.blocks_in(&[(bytes, block)]), PerKind { full: 640, windowed: 184 });
    // But a sequence of that length must fit.
    let long = Division { max_model_len: Some(16 * 800), ..division };
    assert_eq!(long.blocks_in(&[(bytes, block)]), PerKind { full: 1455, windowed: 21 });
    // Without a limit: two windows, of which a sequence takes 16 and 9 blocks.
    let unlimited = Division { max_model_len: None, ..division };
    assert_eq!(unlimited.blocks_in(&[(160 * 100 + 94 * 500, block)]), PerKind { full: 160, windowed: 94 });
    // Of two memories the smaller one decides.
    let memories = [(bytes, block), (320 * 50 + 94 * 250, PerKind { full: 50, windowed: 250 })];
    assert_eq!(division.blocks_in(&memories), PerKind { full: 320, windowed: 94 });
    // Little memory holds as many of each.
    assert_eq!(division.blocks_in(&[(600 * 7, block)]), PerKind { full: 7, windowed: 7 });
    // Without windows there is one kind.
    let none = Division { window: None, ..division };
    assert_eq!(none.blocks_in(&[(6_499, PerKind::only_full(100))]), PerKind::only_full(64));
    // Without other layers, windowed blocks alone take memory.
    let all = division.blocks_in(&[(184 * 500, PerKind { full: 0, windowed: 500 })]);
    assert_eq!(all, PerKind { full: 640, windowed: 184 });
}

/// Gemma 3 12B as both models on 80 GiB: the rows of the plan against a count by hand.
#[test]
fn the_plan_counts_what_windows_free() {
    let spec = shapes::find("gemma-3-12b").unwrap();
    let format = Format::of(Dtype::Bf16);
    let config = EngineConfig::default().pair_config(BATCHED_TOKENS, Shortcuts::NONE).unwrap();
    let footprint = Footprint::new((&spec, format), Some((&spec, format)), &config, false).unwrap();
    let share = footprint.shares()[0];
    // A token of a layer: keys and values of 8 heads of 256 in bf16. One layer of six sees all positions.
    let layer = 2 * 8 * 256 * 2;
    let token = PerKind { full: 2 * 8 * layer, windowed: 2 * 40 * layer };
    // Results of splits: 16 query heads of 260 floats and a counter of 8 key/value heads, twice in 256 tokens.
    let partials = 2 * 16 * (16 * 260 + 8) * 4 / 256;
    let block = PerKind { full: 16 * token.full + 2 * partials, windowed: 16 * token.windowed };
    assert_eq!(share.block, block);
    let usable = 72 << 30;
    let cache = usable - share.fixed;
    // Of a sequence within the window both kinds of blocks are needed for all positions. Of a longer one, 65 windowed blocks
    // are, and 128 for the chunks of all sequences. The division assumes no more than four windows.
    for (context, assumed, seen, chunks) in [(1024, 64, 64, 0), (4096, 256, 65, 128), (8192, 256, 65, 128)] {
        let divided = cache - chunks * block.windowed;
        let full = divided * assumed / (assumed * block.full + seen * block.windowed);
        let before = cache / (context / 16 * (block.full + block.windowed));
        let found = footprint.sequences_in(usable, context);
        println!("{context}: {before} rows without dropping, {found} with");
        assert_eq!(found, full / (context / 16), "{context}");
        assert!(if context > 1024 { found >= 2 * before } else { found == before }, "{context}: {before}");
    }
}
