//! How fast a device decodes a pair, and what of its ceilings that is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::contrast::{Contrast, Noise, Vocabulary};
use crate::device::Role;
use crate::device::inspect::Inspect;
use crate::doctor::Numbers;
use crate::engine::sequence::{RequestIdentity, SamplingParams, Sequence};
use crate::engine::step_loop::StepLoop;
use crate::engine::{EngineConfig, Model, Shortcuts};
use crate::error::Result;
use crate::ids::TokenId;

pub mod ablation;
pub mod ceilings;
pub mod profiled;
pub mod shapes;

use ceilings::{Ceilings, median};
use profiled::Profiled;

/// What is decoded.
#[derive(Debug, Clone)]
pub struct Load<'a> {
    /// The expert.
    pub expert: Model<'a>,
    /// The amateur.
    pub amateur: Model<'a>,
    /// What both know.
    pub vocabulary: Vocabulary,
    /// What responses are given to.
    pub prompts: Prompts,
    /// Tokens of a response.
    pub output_len: usize,
    /// Tokens a cache block.
    pub block_size: usize,
    /// Tokens a step; by default as suits the device.
    pub max_num_batched_tokens: Option<usize>,
    /// The method's parameters.
    pub contrast: Contrast,
    /// What is left out; by default as suits the device.
    pub shortcuts: Option<Shortcuts>,
}

/// Prompts, all of which are decoded at once.
#[derive(Debug, Clone)]
pub enum Prompts {
    /// So many, each of so many random tokens.
    Random {
        /// Sequences.
        rows: usize,
        /// Tokens of each.
        len: usize,
    },
    /// These.
    Given(Vec<Vec<TokenId>>),
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Bytes a second of a large copy.
    pub copy_bandwidth: f64,
    /// Operations a second of a large matrix product.
    pub matmul_rate: f64,
    /// Response tokens a second, prefill included.
    pub tokens_per_second: f64,
    /// Prompt tokens a second, through both models.
    pub prefill_tokens_per_second: f64,
    /// Seconds of a step that only decodes: the median of runs of steps.
    pub decode_step_seconds: f64,
    /// The serial floor of such a step: for each operation what the copy's bandwidth or the matrix rate allows.
    pub decode_floor_seconds: f64,
    /// `decode_floor_seconds / decode_step_seconds`
    pub fraction_of_floor: f64,
    /// Part of the time between the first and the last decode step that the device waited for the next one.
    pub idle_share: f64,
    /// A step that only decodes, operation by operation, run one after the other.
    pub operations: Vec<Operation>,
}

/// All calls of one operation in a step.
#[derive(Debug, Clone, Serialize)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// Calls a step.
    pub calls: usize,
    /// Seconds a step.
    pub seconds: f64,
    /// Bytes that it must move.
    pub bytes: usize,
    /// Multiplications and additions.
    pub operations: usize,
    /// Its bytes a second over the copy's.
    pub bandwidth_fraction: f64,
    /// Its operations a second over the large matrix product's.
    pub matmul_fraction: f64,
}

/// Steps that are profiled.
const PROFILED_STEPS: usize = 5;
/// Steps that are timed together: the device may run ahead of the host by one.
const TIMED_STEPS: usize = 8;

/// Runs `load` on devices that `open` gives, one after the other.
///
/// # Errors
/// Where the device fails or has too little memory.
pub fn run<D: Inspect>(open: &dyn Fn() -> Result<D>, load: &Load<'_>) -> Result<Report> {
    let ceilings = Ceilings::measure(&open()?)?;
    let operations = profile(open()?, load, &ceilings)?;
    let speed = Speed::measure(open()?, load)?;
    let floor: f64 = operations.iter().map(|one| ceilings.floor(one.bytes, one.operations)).sum();
    Ok(Report {
        copy_bandwidth: ceilings.bandwidth,
        matmul_rate: ceilings.matmul_rate,
        tokens_per_second: (load.prompts.rows() * load.output_len) as f64 / speed.total,
        prefill_tokens_per_second: load.prompts.tokens() as f64 / speed.prefill,
        decode_step_seconds: speed.step,
        decode_floor_seconds: floor,
        fraction_of_floor: floor / speed.step,
        idle_share: speed.idle_share,
        operations,
    })
}

/// Seconds of a run.
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
        // The last lap is cut short by the end.
        laps.pop();
        let step = median(laps);
        Ok(Self { total, prefill, step, idle_share: steps.idle_share()? })
    }
}

/// Runs until nothing is left.
fn finish<D: Inspect>(steps: &mut StepLoop<D>) -> Result<()> {
    while !steps.is_idle() {
        steps.step()?;
    }
    Ok(())
}

fn profile<D: Inspect>(device: D, load: &Load<'_>, ceilings: &Ceilings) -> Result<Vec<Operation>> {
    let mut steps = load.start(Profiled::new(device))?;
    load.add(&mut steps, &load.prompts);
    while steps.stats().sampled < load.prompts.rows() as u64 {
        steps.step()?;
    }
    let mut totals: BTreeMap<&'static str, Operation> = BTreeMap::new();
    for index in 0..=PROFILED_STEPS {
        steps.step()?;
        let entries = steps.device().take_entries();
        // The first is for what happens once.
        for entry in entries.iter().filter(|_| index > 0) {
            let total = totals.entry(entry.operation).or_insert_with(|| Operation::new(entry.operation));
            total.calls += 1;
            total.seconds += steps.device().seconds(&entry.marks[0], &entry.marks[1])?;
            total.bytes += entry.bytes;
            total.operations += entry.operations;
        }
    }
    let mut operations: Vec<_> = totals.into_values().map(|total| total.averaged(ceilings)).collect();
    operations.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(operations)
}

impl Operation {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            calls: 0,
            seconds: 0.0,
            bytes: 0,
            operations: 0,
            bandwidth_fraction: 0.0,
            matmul_fraction: 0.0,
        }
    }

    /// A step's part of the total.
    fn averaged(self, ceilings: &Ceilings) -> Self {
        Self {
            calls: self.calls / PROFILED_STEPS,
            seconds: self.seconds / PROFILED_STEPS as f64,
            bytes: self.bytes / PROFILED_STEPS,
            operations: self.operations / PROFILED_STEPS,
            bandwidth_fraction: self.bytes as f64 / self.seconds / ceilings.bandwidth,
            matmul_fraction: self.operations as f64 / self.seconds / ceilings.matmul_rate,
            name: self.name,
        }
    }
}

impl Load<'_> {
    fn start<D: Inspect>(&self, device: D) -> Result<StepLoop<D>> {
        let rows = self.prompts.rows();
        let len = self.prompts.longest() + self.output_len;
        let blocks = rows * (len.div_ceil(self.block_size) + 1);
        let block_bytes = [(Role::Expert, self.expert), (Role::Amateur, self.amateur)]
            .iter()
            .map(|(lane, model)| {
                let shape = model.open_spec()?.cache_shape(self.block_size, 1);
                Ok(device.role(*lane).block_bytes(shape))
            })
            .sum::<Result<usize>>()?;
        let config = EngineConfig {
            max_num_seqs: rows,
            max_num_batched_tokens: self.max_num_batched_tokens,
            max_model_len: Some(len),
            kv_cache_memory: Some(blocks * block_bytes),
            block_size: self.block_size,
            shortcuts: self.shortcuts,
            ..EngineConfig::default()
        };
        StepLoop::load(device, self.expert, Some(self.amateur), &self.vocabulary, &config)
    }

    /// Once over other prompts, for what happens once: recording, choosing algorithms, first touches.
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

    /// Of all of them.
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

    /// Such prompts that begin otherwise.
    fn others(&self, vocabulary: &Vocabulary) -> Self {
        Self::Given(match self {
            Self::Random { .. } => self.draw(1, vocabulary),
            Self::Given(prompts) => {
                let without_first = |prompt: &Vec<TokenId>| prompt[usize::from(prompt.len() > 1)..].to_vec();
                prompts.iter().map(without_first).collect()
            }
        })
    }

    /// Themselves, the random ones drawn by `seed`.
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
