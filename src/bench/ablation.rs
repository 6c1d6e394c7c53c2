//! Measures what each shortcut saves: decodes one load without shortcuts, with each one, and with all, and counts and
//! times the work.

use std::collections::HashMap;
use std::time::Instant;

use serde::Serialize;

use super::ceilings::{Ceilings, OF_MEMORY, median};
use super::profiled::Profiled;
use super::{Load, finish};
use crate::device::inspect::Inspect;
use crate::engine::step_loop::Stats;
use crate::engine::{Deferred, Shortcuts};
use crate::error::Result;
use crate::ids::{SeqId, TokenId};

/// The results of an ablation.
#[derive(Debug, Clone, Serialize)]
pub struct Ablation {
    /// Bytes per second of a large copy.
    pub bandwidth: f64,
    /// Operations per second of a large matrix product.
    pub matmul_rate: f64,
    /// One entry per set of shortcuts. The first entry has no shortcut.
    pub settings: Vec<Setting>,
}

/// The results of the load under one set of shortcuts.
#[derive(Debug, Clone, Serialize)]
pub struct Setting {
    /// Names of the shortcuts.
    pub shortcuts: Vec<&'static str>,
    /// Response tokens per second, prefill included: from the median time of several runs.
    pub tokens_per_second: f64,
    /// The first setting's time divided by this setting's time.
    pub speed_up: f64,
    /// The first setting's serial floor divided by this setting's serial floor.
    pub predicted_speed_up: f64,
    /// Positions that the expert computed.
    pub expert_tokens: u64,
    /// Steps in which the amateur ran.
    pub amateur_steps: u64,
    /// Positions that the amateur computed.
    pub amateur_tokens: u64,
    /// Positions that were found in the cache instead of being computed.
    pub shared_tokens: u64,
    /// Bytes that all operations must move.
    pub bytes: usize,
    /// Multiplications and additions of matrix products and attention.
    pub operations: usize,
    /// Serial floor in seconds: the sum, over all operations, of the least time that the bandwidth and the matrix
    /// rate allow.
    pub floor_seconds: f64,
    /// Share of the sampled tokens that were the only candidate.
    pub forced_share: f64,
    /// Share of the responses that equal those of the first setting, token for token.
    pub same_responses: f64,
}

/// Timed runs per setting. The settings take turns.
const REPEATS: usize = 3;

/// No shortcut, each shortcut alone, and all of them.
const SETTINGS: [Shortcuts; 6] = [
    Shortcuts::NONE,
    Shortcuts { gathered_candidates: true, ..Shortcuts::NONE },
    Shortcuts { deferred_amateur: Deferred::WhereItPays, ..Shortcuts::NONE },
    Shortcuts { deferred_amateur: Deferred::Always, ..Shortcuts::NONE },
    Shortcuts { shared_prefixes: true, ..Shortcuts::NONE },
    Shortcuts { gathered_candidates: true, deferred_amateur: Deferred::WhereItPays, shared_prefixes: true },
];

/// Runs `load` under each setting and under the device's default shortcuts. `open` opens a new device for each run.
///
/// # Errors
/// If a device fails or has too little memory.
pub fn run<D: Inspect>(open: &dyn Fn() -> Result<D>, load: &Load<'_>) -> Result<Ablation> {
    let device = open()?;
    load.check_room(&device)?;
    let (ceilings, own) = (Ceilings::measure(&device, OF_MEMORY)?, Shortcuts::of(&device));
    drop(device);
    let settings: Vec<_> = SETTINGS.into_iter().chain((!SETTINGS.contains(&own)).then_some(own)).collect();
    let loads: Vec<_> =
        settings.iter().map(|shortcuts| Load { shortcuts: Some(*shortcuts), ..load.clone() }).collect();
    let counts = loads.iter().map(|load| Count::of(open()?, load, &ceilings)).collect::<Result<Vec<_>>>()?;
    let mut seconds = vec![Vec::new(); loads.len()];
    for _ in 0..REPEATS {
        for (load, seconds) in loads.iter().zip(&mut seconds) {
            seconds.push(time(open()?, load)?);
        }
    }
    let medians: Vec<f64> = seconds.into_iter().map(median).collect();
    let tokens = (load.prompts.rows() * load.output_len) as f64;
    let setting = |((shortcuts, count), seconds): ((&Shortcuts, &Count), &f64)| Setting {
        shortcuts: shortcuts.names(),
        tokens_per_second: tokens / seconds,
        speed_up: medians[0] / seconds,
        predicted_speed_up: counts[0].floor / count.floor,
        expert_tokens: count.stats.expert_tokens,
        amateur_steps: count.stats.amateur_steps,
        amateur_tokens: count.stats.amateur_tokens,
        shared_tokens: count.stats.shared_tokens,
        bytes: count.bytes,
        operations: count.operations,
        floor_seconds: count.floor,
        forced_share: count.stats.forced as f64 / count.stats.sampled as f64,
        same_responses: count.agreement(&counts[0]),
    };
    Ok(Ablation {
        bandwidth: ceilings.bandwidth(),
        matmul_rate: ceilings.matmul_rate,
        settings: settings.iter().zip(&counts).zip(&medians).map(setting).collect(),
    })
}

/// The work and the responses of one run.
struct Count {
    stats: Stats,
    bytes: usize,
    operations: usize,
    /// Serial floor in seconds.
    floor: f64,
    responses: HashMap<SeqId, Vec<TokenId>>,
}

impl Count {
    fn of<D: Inspect>(device: D, load: &Load<'_>, ceilings: &Ceilings) -> Result<Self> {
        let mut steps = load.start(Profiled::new(device))?;
        let (mut bytes, mut operations, mut floor) = (0, 0, 0.0);
        let mut responses = HashMap::new();
        // The timed runs warm up too, and whether the engine defers the amateur depends on earlier steps.
        load.warm_up(&mut steps)?;
        steps.device().take_entries();
        let before = steps.stats();
        load.add(&mut steps, &load.prompts);
        while !steps.is_idle() {
            responses.extend(steps.step()?.into_iter().map(|ended| (ended.id, ended.response().to_vec())));
            for entry in steps.device().take_entries() {
                bytes += entry.work.bytes;
                operations += entry.work.operations;
                floor += ceilings.floor(&entry.work);
            }
        }
        let after = steps.stats();
        let stats = Stats {
            expert_tokens: after.expert_tokens - before.expert_tokens,
            amateur_steps: after.amateur_steps - before.amateur_steps,
            amateur_tokens: after.amateur_tokens - before.amateur_tokens,
            shared_tokens: after.shared_tokens - before.shared_tokens,
            sampled: after.sampled - before.sampled,
            forced: after.forced - before.forced,
            ..after
        };
        Ok(Self { stats, bytes, operations, floor, responses })
    }

    /// The share of the responses that equal those of `other`.
    fn agreement(&self, other: &Self) -> f64 {
        let same = self.responses.iter().filter(|(seq, tokens)| other.responses.get(seq) == Some(*tokens));
        same.count() as f64 / self.responses.len() as f64
    }
}

/// Seconds of a run, without its warm-up.
fn time<D: Inspect>(device: D, load: &Load<'_>) -> Result<f64> {
    let mut steps = load.start(device)?;
    load.warm_up(&mut steps)?;
    let start = Instant::now();
    load.add(&mut steps, &load.prompts);
    finish(&mut steps)?;
    Ok(start.elapsed().as_secs_f64())
}
