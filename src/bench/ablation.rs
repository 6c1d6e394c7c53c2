//! What each shortcut saves: one load without any, with each, and with all, counted and timed.

use std::collections::HashMap;
use std::time::Instant;

use serde::Serialize;

use super::ceilings::{Ceilings, median};
use super::profiled::Profiled;
use super::{Load, finish};
use crate::device::inspect::Inspect;
use crate::engine::step_loop::Stats;
use crate::engine::{Deferred, Shortcuts};
use crate::error::Result;
use crate::ids::{SeqId, TokenId};

/// What was counted and measured.
#[derive(Debug, Clone, Serialize)]
pub struct Ablation {
    /// Bytes a second of a large copy.
    pub copy_bandwidth: f64,
    /// Operations a second of a large matrix product.
    pub matmul_rate: f64,
    /// The first is without any shortcut.
    pub settings: Vec<Setting>,
}

/// The load under some shortcuts.
#[derive(Debug, Clone, Serialize)]
pub struct Setting {
    /// Their names.
    pub shortcuts: Vec<&'static str>,
    /// Response tokens a second, prefill included: the median of several runs.
    pub tokens_per_second: f64,
    /// Over the first setting.
    pub speed_up: f64,
    /// The same of the serial floors: for each operation what the copy's bandwidth or the matrix rate allows.
    pub predicted_speed_up: f64,
    /// Positions that the expert computed.
    pub expert_tokens: u64,
    /// Steps of the amateur.
    pub amateur_steps: u64,
    /// Positions that the amateur computed.
    pub amateur_tokens: u64,
    /// Positions that were found in the cache.
    pub shared_tokens: u64,
    /// Bytes that all operations must move.
    pub bytes: usize,
    /// Multiplications and additions of matrix products and attention.
    pub operations: usize,
    /// Seconds of the serial floor.
    pub floor_seconds: f64,
    /// The part of the tokens that the expert alone settles.
    pub forced_share: f64,
    /// The part of the responses that are those of the first setting, token for token.
    pub same_responses: f64,
}

/// Runs of each setting, in turn.
const REPEATS: usize = 3;

/// None, each, and all.
const SETTINGS: [Shortcuts; 6] = [
    Shortcuts::NONE,
    Shortcuts { gathered_candidates: true, ..Shortcuts::NONE },
    Shortcuts { deferred_amateur: Deferred::WhereItPays, ..Shortcuts::NONE },
    Shortcuts { deferred_amateur: Deferred::Always, ..Shortcuts::NONE },
    Shortcuts { shared_prefixes: true, ..Shortcuts::NONE },
    Shortcuts { gathered_candidates: true, deferred_amateur: Deferred::WhereItPays, shared_prefixes: true },
];

/// Runs `load` under each setting, and under the device's own, on devices that `open` gives, one after the other.
///
/// # Errors
/// Where the device fails or has too little memory.
pub fn run<D: Inspect>(open: &dyn Fn() -> Result<D>, load: &Load<'_>) -> Result<Ablation> {
    let device = open()?;
    let (ceilings, own) = (Ceilings::measure(&device)?, Shortcuts::of(&device));
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
        copy_bandwidth: ceilings.bandwidth,
        matmul_rate: ceilings.matmul_rate,
        settings: settings.iter().zip(&counts).zip(&medians).map(setting).collect(),
    })
}

/// What a run does.
struct Count {
    stats: Stats,
    bytes: usize,
    operations: usize,
    /// Seconds.
    floor: f64,
    responses: HashMap<SeqId, Vec<TokenId>>,
}

impl Count {
    fn of<D: Inspect>(device: D, load: &Load<'_>, ceilings: &Ceilings) -> Result<Self> {
        let mut steps = load.start(Profiled::new(device))?;
        let (mut bytes, mut operations, mut floor) = (0, 0, 0.0);
        let mut responses = HashMap::new();
        // As where it is timed: when the amateur is deferred depends on what came before.
        load.warm_up(&mut steps)?;
        steps.device().take_entries();
        let before = steps.stats();
        load.add(&mut steps, &load.prompts);
        while !steps.is_idle() {
            responses.extend(steps.step()?.into_iter().map(|ended| (ended.id, ended.response().to_vec())));
            for entry in steps.device().take_entries() {
                bytes += entry.bytes;
                operations += entry.operations;
                floor += ceilings.floor(entry.bytes, entry.operations);
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

    /// The part of the responses that are `other`'s.
    fn agreement(&self, other: &Self) -> f64 {
        let same = self.responses.iter().filter(|(seq, tokens)| other.responses.get(seq) == Some(*tokens));
        same.count() as f64 / self.responses.len() as f64
    }
}

/// Seconds of a run.
fn time<D: Inspect>(device: D, load: &Load<'_>) -> Result<f64> {
    let mut steps = load.start(device)?;
    load.warm_up(&mut steps)?;
    let start = Instant::now();
    load.add(&mut steps, &load.prompts);
    finish(&mut steps)?;
    Ok(start.elapsed().as_secs_f64())
}
