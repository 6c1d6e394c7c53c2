//! How fast a device decodes a pair, and what of its ceilings that is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::contrast::{Contrast, Noise, Vocabulary};
use crate::device::{Device, Lane};
use crate::doctor::Numbers;
use crate::engine::step_loop::{Job, StepLoop};
use crate::engine::{EngineConfig, Model, Shortcuts};
use crate::error::Result;
use crate::ids::TokenId;
use crate::model::spec::Spec;

pub mod ceilings;
pub mod profiled;
pub mod shapes;

use ceilings::Ceilings;
use profiled::Profiled;

/// What is decoded.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// The expert's shape.
    pub expert: &'a Spec,
    /// The amateur's.
    pub amateur: &'a Spec,
    /// Sequences at once.
    pub rows: usize,
    /// Tokens of a prompt.
    pub input_len: usize,
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
    /// As [`Device`] calls it.
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
pub fn run<D: Device>(open: &dyn Fn() -> Result<D>, load: &Load<'_>) -> Result<Report> {
    let ceilings = Ceilings::measure(&open()?)?;
    let operations = profile(open()?, load, &ceilings)?;
    let speed = Speed::measure(open()?, load)?;
    let floor: f64 = operations.iter().map(|operation| ceilings.floor(operation)).sum();
    Ok(Report {
        copy_bandwidth: ceilings.bandwidth,
        matmul_rate: ceilings.matmul_rate,
        tokens_per_second: (load.rows * load.output_len) as f64 / speed.total,
        prefill_tokens_per_second: (load.rows * load.input_len) as f64 / speed.prefill,
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
    fn measure<D: Device>(device: D, load: &Load<'_>) -> Result<Self> {
        let mut steps = load.start(device)?;
        // Once for what happens once: recording, choosing algorithms, first touches.
        load.add(&mut steps, 0);
        while !steps.is_idle() {
            steps.step()?;
        }
        let start = Instant::now();
        load.add(&mut steps, 1);
        let prefilled = load.rows * load.output_len + load.rows;
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
        laps.sort_by(f64::total_cmp);
        let step = laps.get(laps.len() / 2).copied().unwrap_or(f64::NAN);
        Ok(Self { total, prefill, step, idle_share: steps.idle_share()? })
    }
}

fn profile<D: Device>(device: D, load: &Load<'_>, ceilings: &Ceilings) -> Result<Vec<Operation>> {
    let mut steps = load.start(Profiled::new(device))?;
    load.add(&mut steps, 0);
    while steps.stats().sampled < load.rows as u64 {
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

impl Ceilings {
    /// Seconds that an operation takes at least.
    fn floor(&self, operation: &Operation) -> f64 {
        (operation.bytes as f64 / self.bandwidth).max(operation.operations as f64 / self.matmul_rate)
    }
}

impl Load<'_> {
    fn start<D: Device>(&self, device: D) -> Result<StepLoop<D>> {
        let len = self.input_len + self.output_len;
        let blocks = self.rows * (len.div_ceil(self.block_size) + 1);
        let block_bytes: usize = [(Lane::Expert, self.expert), (Lane::Amateur, self.amateur)]
            .iter()
            .map(|(lane, spec)| device.lane(*lane).block_bytes(spec.cache_shape(self.block_size, 1)))
            .sum();
        let config = EngineConfig {
            max_num_seqs: self.rows,
            max_num_batched_tokens: self.max_num_batched_tokens,
            max_model_len: Some(len),
            kv_cache_memory: Some(blocks * block_bytes),
            block_size: self.block_size,
            shortcuts: self.shortcuts,
            ..EngineConfig::default()
        };
        let (expert, amateur) = (Model::Random(self.expert, 1), Model::Random(self.amateur, 1 << 32));
        StepLoop::load(device, expert, Some(amateur), &self.vocabulary(), &config)
    }

    fn vocabulary(&self) -> Vocabulary {
        Vocabulary::new(self.expert.vocab_size.min(self.amateur.vocab_size), Vec::new())
    }

    /// Queues all rows, with prompts drawn by `seed`.
    fn add<D: Device>(&self, steps: &mut StepLoop<D>, seed: u64) {
        let (mut numbers, tokens) = (Numbers(seed), self.vocabulary().len);
        for row in 0..self.rows {
            let prompt = (0..self.input_len).map(|_| TokenId(numbers.below(tokens) as u32)).collect();
            steps.add(Job {
                prompt,
                max_len: self.input_len + self.output_len,
                stop: Arc::default(),
                contrast: self.contrast,
                noise: Noise::new(seed, &row.to_string(), 0),
                log_probabilities: false,
            });
        }
    }
}
