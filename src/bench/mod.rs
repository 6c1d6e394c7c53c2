//! Measures how fast a device decodes a pair, and compares the speed with the device's ceilings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::contrast::{Contrast, Noise, Vocabulary};
use crate::device::inspect::Inspect;
use crate::device::{Capacity, PerKind, Role};
use crate::doctor::Numbers;
use crate::engine::sequence::{RequestIdentity, SamplingParams, Sequence};
use crate::engine::step_loop::StepLoop;
use crate::engine::{EngineConfig, Model, Shortcuts};
use crate::error::{Error, Result};
use crate::ids::TokenId;

pub mod ablation;
pub mod ceilings;
pub mod profiled;
mod room;
pub mod shapes;

use ceilings::{Ceilings, Work, median};
use profiled::Profiled;

/// The work of a benchmark: the models, the prompts and the settings.
#[derive(Debug, Clone)]
pub struct Load<'a> {
    /// The expert.
    pub expert: Model<'a>,
    /// The amateur.
    pub amateur: Model<'a>,
    /// The vocabulary that both models share.
    pub vocabulary: Vocabulary,
    /// The prompts of the load.
    pub prompts: Prompts,
    /// Tokens per response.
    pub output_len: usize,
    /// Tokens per cache block.
    pub block_size: usize,
    /// Maximum number of tokens per step. `None` selects the device's default.
    pub max_num_batched_tokens: Option<usize>,
    /// The method's parameters.
    pub contrast: Contrast,
    /// The shortcuts that the engine takes. `None` selects the device's default.
    pub shortcuts: Option<Shortcuts>,
}

/// Prompts that are all decoded at the same time.
#[derive(Debug, Clone)]
pub enum Prompts {
    /// Random prompts of equal length.
    Random {
        /// Number of prompts.
        rows: usize,
        /// Tokens per prompt.
        len: usize,
    },
    /// Prompts that the caller gives.
    Given(Vec<Vec<TokenId>>),
}

/// The results of a benchmark.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Bytes per second at which the device can read what a step reads.
    pub bandwidth: f64,
    /// Operations per second that the device can do.
    pub matmul_rate: f64,
    /// Response tokens per second, prefill included.
    pub tokens_per_second: f64,
    /// Prompt tokens per second, through both models.
    pub prefill_tokens_per_second: f64,
    /// Seconds of a step that only decodes: the median over groups of steps.
    pub decode_step_seconds: f64,
    /// Serial floor of such a step in seconds: the sum, over its operations, of the least time that the bandwidth and the matrix
    /// rate allow.
    pub decode_floor_seconds: f64,
    /// `decode_floor_seconds / decode_step_seconds`
    pub fraction_of_floor: f64,
    /// Share of the time between the first and the last decode step in which the device had no step to run.
    pub idle_share: f64,
    /// The operations of a step that only decodes. They run one after the other while they are timed.
    pub operations: Vec<Operation>,
    /// Whether a figure says that the device is faster than its ceilings, which were measured in the same run.
    pub is_doubtful: bool,
}

/// The calls of one operation, averaged over the profiled steps.
#[derive(Debug, Clone, Serialize)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// Calls per step.
    pub calls: usize,
    /// Seconds per step.
    pub seconds: f64,
    /// Bytes that it must move per step.
    pub bytes: usize,
    /// Multiplications and additions per step.
    pub operations: usize,
    /// Its bytes per second as a fraction of the bandwidth: of memory, if most of them are of weights or of the cache, and
    /// otherwise of the nearest cache that holds them.
    pub bandwidth_fraction: f64,
    /// Its operations per second as a fraction of the matrix rate.
    pub matmul_fraction: f64,
}

/// Number of profiled steps.
const PROFILED_STEPS: usize = 5;
/// Steps per timed group. Single steps are not timed, because the device may run one step ahead of the host.
const TIMED_STEPS: usize = 8;

/// Measures `load`. `open` opens a new device for each of the measurements.
///
/// # Errors
/// If a device fails or has too little memory.
pub fn run<D: Inspect>(open: &dyn Fn() -> Result<D>, load: &Load<'_>) -> Result<Report> {
    load.check_room(&open()?)?;
    let profiles = profile(open()?, load)?;
    let streamed: usize = profiles.values().map(Profile::streamed).sum();
    let ceilings = Ceilings::measure(&open()?, streamed / PROFILED_STEPS)?;
    let speed = Speed::measure(open()?, load)?;
    let floor: f64 = profiles.values().map(|profile| profile.floor(&ceilings)).sum();
    let mut operations: Vec<_> =
        profiles.into_iter().map(|(name, profile)| profile.operation(name, &ceilings)).collect();
    operations.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let fraction_of_floor = floor / speed.step;
    let is_beyond = |operation: &Operation| operation.bandwidth_fraction.max(operation.matmul_fraction) > 1.0;
    Ok(Report {
        bandwidth: ceilings.bandwidth(),
        matmul_rate: ceilings.matmul_rate,
        tokens_per_second: (load.prompts.rows() * load.output_len) as f64 / speed.total,
        prefill_tokens_per_second: load.prompts.tokens() as f64 / speed.prefill,
        decode_step_seconds: speed.step,
        decode_floor_seconds: floor,
        fraction_of_floor,
        idle_share: speed.idle_share,
        is_doubtful: fraction_of_floor > 1.0 || operations.iter().any(is_beyond),
        operations,
    })
}

/// Times of a run in seconds, and its idle share.
struct Speed {
    total: f64,
    prefill: f64,
    step: f64,
    idle_share: f64,
}

impl Speed {
    fn measure<D: Inspect>(device: D, load: &Load<'_>) -> Result<Self> {
        let mut steps = load.start(device)?;
        load.warm_up(&mut steps)?;
        let start = Instant::now();
        load.add(&mut steps, &load.prompts);
        let prefilled = load.prompts.rows() * (load.output_len + 1);
        while steps.stats().sampled < prefilled as u64 {
            steps.step()?;
        }
        let prefill = start.elapsed().as_secs_f64();
        steps.trace();
        let mut laps = Vec::new();
        while !steps.is_idle() {
            let lap = Instant::now();
            for _ in 0..TIMED_STEPS {
                steps.step()?;
            }
            laps.push(lap.elapsed().as_secs_f64() / TIMED_STEPS as f64);
        }
        let total = start.elapsed().as_secs_f64();
        // The load ends within the last group, so that group has fewer steps.
        laps.pop();
        let step = median(laps);
        Ok(Self { total, prefill, step, idle_share: steps.idle_share()? })
    }
}

/// Runs steps until no sequence is left.
fn finish<D: Inspect>(steps: &mut StepLoop<D>) -> Result<()> {
    while !steps.is_idle() {
        steps.step()?;
    }
    Ok(())
}

/// The calls of one operation in the profiled steps.
#[derive(Default)]
struct Profile {
    calls: usize,
    seconds: f64,
    /// Of each call.
    work: Vec<Work>,
}

fn profile<D: Inspect>(device: D, load: &Load<'_>) -> Result<BTreeMap<&'static str, Profile>> {
    let mut steps = load.start(Profiled::new(device))?;
    load.add(&mut steps, &load.prompts);
    while steps.stats().sampled < load.prompts.rows() as u64 {
        steps.step()?;
    }
    let mut profiles: BTreeMap<&'static str, Profile> = BTreeMap::new();
    for index in 0..=PROFILED_STEPS {
        steps.step()?;
        let entries = steps.device().take_entries();
        // The first entries include the prefill and the work that happens only once.
        for entry in entries.iter().filter(|_| index > 0) {
            let profile = profiles.entry(entry.operation).or_default();
            profile.calls += 1;
            profile.seconds += steps.device().seconds(&entry.marks[0], &entry.marks[1])?;
            profile.work.push(entry.work);
        }
    }
    Ok(profiles)
}

impl Profile {
    fn sum<T: std::iter::Sum>(&self, of: impl Fn(&Work) -> T) -> T {
        self.work.iter().map(of).sum()
    }

    /// Bytes of weights and of the cache.
    fn streamed(&self) -> usize {
        self.sum(|work| if work.streams { work.bytes } else { 0 })
    }

    /// The least seconds per step.
    fn floor(&self, ceilings: &Ceilings) -> f64 {
        self.sum(|work| ceilings.floor(work)) / PROFILED_STEPS as f64
    }

    /// The averages per step.
    fn operation(self, name: &'static str, ceilings: &Ceilings) -> Operation {
        Operation {
            name,
            calls: self.calls / PROFILED_STEPS,
            seconds: self.seconds / PROFILED_STEPS as f64,
            bytes: self.sum(|work| work.bytes) / PROFILED_STEPS,
            operations: self.sum(|work| work.operations) / PROFILED_STEPS,
            bandwidth_fraction: self.sum(|work| ceilings.moving(work)) / self.seconds,
            matmul_fraction: self.sum(|work| ceilings.multiplying(work)) / self.seconds,
        }
    }
}

impl Load<'_> {
    fn start<D: Inspect>(&self, device: D) -> Result<StepLoop<D>> {
        let cache = self.blocks().checked_mul(self.block_bytes(&device)?);
        let message =
            "rows, input-len and output-len make a cache of more bytes than can be counted; lower them";
        let cache = cache.ok_or_else(|| Error::Setting(message.to_owned()))?;
        let config = EngineConfig {
            max_num_seqs: self.prompts.rows(),
            max_num_batched_tokens: self.max_num_batched_tokens,
            max_model_len: Some(self.longest()),
            kv_cache_memory: Some(cache),
            block_size: self.block_size,
            shortcuts: self.shortcuts,
            ..EngineConfig::default()
        };
        StepLoop::load(device, self.expert, Some(self.amateur), &self.vocabulary, &config)
    }

    /// Refuses a load that the memory of the host cannot hold.
    fn check_room<D: Inspect>(&self, device: &D) -> Result<()> {
        let rows = self.prompts.rows();
        let tokens = self.max_num_batched_tokens.unwrap_or(device.info().default_batched_tokens);
        let capacity = Capacity {
            max_num_seqs: rows,
            max_num_batched_tokens: tokens.max(rows),
            block_size: self.block_size,
        };
        let cache = self.blocks() as f64 * self.block_bytes(device)? as f64;
        room::check(device, [self.expert, self.amateur], capacity, cache)
    }

    /// Tokens of the longest prompt and its response.
    fn longest(&self) -> usize {
        self.prompts.longest() + self.output_len
    }

    /// Blocks of the cache that all rows need.
    fn blocks(&self) -> usize {
        self.prompts.rows() * (self.longest().div_ceil(self.block_size) + 1)
    }

    /// Bytes of a block in all layers, both planes together. So there is room for all rows however the engine divides the
    /// memory.
    fn block_bytes<D: Inspect>(&self, device: &D) -> Result<usize> {
        let bytes = |(role, model): (Role, Model<'_>)| {
            let shape = model.open_spec()?.cache_shape(self.block_size, PerKind::of(|_| 1));
            let block = device.role(role).block_bytes(shape);
            Ok(block.full + block.windowed)
        };
        [(Role::Expert, self.expert), (Role::Amateur, self.amateur)].into_iter().map(bytes).sum()
    }

    /// Decodes other prompts for the work that happens only once: recording, choosing algorithms, touching memory for
    /// the first time.
    fn warm_up<D: Inspect>(&self, steps: &mut StepLoop<D>) -> Result<()> {
        self.add(steps, &self.prompts.others(&self.vocabulary));
        finish(steps)
    }

    /// Queues all of `prompts`.
    fn add<D: Inspect>(&self, steps: &mut StepLoop<D>, prompts: &Prompts) {
        for (row, prompt) in prompts.draw(0, &self.vocabulary).into_iter().enumerate() {
            let params = SamplingParams {
                contrast: self.contrast,
                noise: Noise::new(0, &row.to_string(), 0),
                stop_tokens: Arc::default(),
                max_len: prompt.len() + self.output_len,
                log_probabilities: false,
            };
            steps.add(Sequence::new(RequestIdentity::default(), prompt, params));
        }
    }
}

impl Prompts {
    fn rows(&self) -> usize {
        match self {
            Self::Random { rows, .. } => *rows,
            Self::Given(prompts) => prompts.len(),
        }
    }

    /// Number of tokens of all prompts together.
    fn tokens(&self) -> usize {
        match self {
            Self::Random { rows, len } => rows * len,
            Self::Given(prompts) => prompts.iter().map(Vec::len).sum(),
        }
    }

    fn longest(&self) -> usize {
        match self {
            Self::Random { len, .. } => *len,
            Self::Given(prompts) => prompts.iter().map(Vec::len).max().unwrap_or(0),
        }
    }

    /// Similar prompts that begin differently: random prompts of another seed, or the given prompts without their
    /// first token.
    fn others(&self, vocabulary: &Vocabulary) -> Self {
        Self::Given(match self {
            Self::Random { .. } => self.draw(1, vocabulary),
            Self::Given(prompts) => {
                let without_first = |prompt: &Vec<TokenId>| prompt[usize::from(prompt.len() > 1)..].to_vec();
                prompts.iter().map(without_first).collect()
            }
        })
    }

    /// The tokens of each prompt. `seed` determines the random prompts.
    fn draw(&self, seed: u64, vocabulary: &Vocabulary) -> Vec<Vec<TokenId>> {
        match self {
            Self::Random { rows, len } => {
                let mut numbers = Numbers(seed);
                let mut prompt =
                    || (0..*len).map(|_| TokenId(numbers.below(vocabulary.len) as u32)).collect();
                (0..*rows).map(|_| prompt()).collect()
            }
            Self::Given(prompts) => prompts.clone(),
        }
    }
}
