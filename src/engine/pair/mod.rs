//! Expert and amateur side by side: one step of both, and the contrast of their logits.

use std::ops::Range;

use crate::device::inspect::Inspect;
use crate::device::{AmateurLogits, Device, ExpertLogits, LayerKind, Pass, PerKind, Role, RowResult};
use crate::engine::config::{Deferred, MAX_LAG, PairConfig, Windows};
use crate::engine::kv_cache::window::Window;
use crate::engine::scheduler::cost::{Deferral, StepCost};
use crate::engine::step::StepPlan;

use crate::error::Result;
use crate::ids::BlockId;
use crate::model::decoder::Decoder;
use crate::profile;
use memory::block_bytes;

mod load;
pub mod memory;
pub mod source;
mod warm_up;

/// Tokens to be seen before the amateur is deferred.
const MIN_TOKENS_SEEN: usize = 64;

/// The two models on one device. Without an amateur, the expert runs alone.
pub struct Pair<D: Device> {
    device: D,
    step: D::Step,
    models: Models<D>,
    /// Ids below this have a row in both models.
    known_ids: usize,
}

/// The models, and the logits that are held for them.
struct Models<D: Device> {
    expert: LoadedModel<D>,
    amateur: Option<LoadedModel<D>>,
    /// Where the amateur is deferred, the expert's logits of rows that await it, `[max_num_seqs, vocab_size]`.
    deferred_logits: Option<D::Tensor>,
    /// Rows of logits that are computed at once.
    logits_rows: usize,
    /// Whether the amateur's logits may be computed for the candidates alone.
    gathers_candidates: bool,
}

/// A model with its plane of the cache.
struct LoadedModel<D: Device> {
    decoder: Decoder<D>,
    cache: D::Cache,
}

impl<D: Device> Pair<D> {
    /// What the models can read.
    pub fn windows(&self) -> Windows {
        let expert = self.models.expert.decoder.spec().context_length;
        let amateur = self.models.amateur.as_ref().map(|model| model.decoder.spec().context_length);
        Windows { expert, both: amateur.map_or(expert, |amateur| expert.min(amateur)) }
    }

    /// The window of the models' layers, if any has one.
    pub fn window(&self, config: &PairConfig) -> Option<Window> {
        let amateur = self.models.amateur.as_ref().map(|model| model.decoder.spec());
        config.division(self.models.expert.decoder.spec(), amateur).window
    }

    /// Ids below this can be read and sampled.
    pub fn known_ids(&self) -> usize {
        self.known_ids
    }

    /// Whether there is an amateur.
    pub fn has_amateur(&self) -> bool {
        self.models.amateur.is_some()
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Whether the amateur's steps may be apart from the expert's.
    pub fn defers(&self) -> bool {
        self.models.deferred_logits.is_some()
    }

    /// How the amateur is deferred, if it is.
    pub fn deferral(&self, config: &PairConfig) -> Option<Deferral> {
        let amateur = self.models.amateur.as_ref().filter(|_| self.defers())?;
        let cost = |role, decoder: &Decoder<D>, has_lm_head: bool| {
            let device = self.device.role(role);
            let lm_head = if has_lm_head { decoder.lm_head_bytes(&device) } else { 0 };
            let weights = (decoder.layer_bytes(&device) + lm_head) as f64;
            let block = block_bytes(&device, decoder.spec(), config.capacity.block_size);
            let position = (block.full + block.windowed) as f64 / config.capacity.block_size as f64;
            StepCost { weights, row: weights * device.info().row_cost, position }
        };
        Some(Deferral {
            max_lag: MAX_LAG,
            min_tokens_seen: MIN_TOKENS_SEEN,
            expert: cost(Role::Expert, &self.models.expert.decoder, true),
            amateur: cost(Role::Amateur, &amateur.decoder, !self.models.gathers_candidates),
            solo_slowdown: match config.shortcuts.deferred_amateur {
                Deferred::Always => None,
                _ => Some(self.device.info().solo_slowdown.unwrap_or(1.0)),
            },
        })
    }

    /// Submits one step: the forward passes over the plan's batch, then a token for each of its outputs. The expert runs alone
    /// where no row of the step needs the amateur.
    pub fn submit(&mut self, plan: &StepPlan) {
        let Self { device, step, models, .. } = self;
        let pass = match plan.pass {
            Pass::Joint if !plan.needs_amateur || models.amateur.is_none() => Pass::ExpertOnly,
            pass => pass,
        };
        models.copy_blocks(device, &plan.copies);
        device.prepare(step, &plan.batch, &plan.sample_rows);
        device.run(
            step,
            pass,
            models,
            |device, step, models| models.forward(device, step, pass),
            |device, step, models| models.sample(device, step, pass),
        );
        device.submit(step);
    }

    /// The results of the oldest step that was submitted and not collected, one for each of its outputs.
    ///
    /// # Errors
    /// Those of [`Device::collect`].
    pub fn collect(&mut self) -> Result<Vec<RowResult>> {
        self.device.collect(&mut self.step)
    }
}

impl<D: Inspect> Pair<D> {
    /// See [`StepLoop::trace`](crate::engine::step_loop::StepLoop::trace).
    pub fn trace(&mut self) {
        self.device.trace(&mut self.step);
    }

    /// See [`StepLoop::idle_share`](crate::engine::step_loop::StepLoop::idle_share).
    pub fn idle_share(&self) -> Result<f64> {
        let steps = self.device.traced(&self.step);
        let [Some([first, _]), Some([_, last])] = [steps.first(), steps.last()] else { return Ok(0.0) };
        let gaps = steps.windows(2).map(|pair| self.device.seconds(&pair[0][1], &pair[1][0]));
        Ok(gaps.sum::<Result<f64>>()? / self.device.seconds(first, last)?)
    }
}

impl<D: Device> Models<D> {
    /// Copies blocks into others, in both planes of the cache.
    fn copy_blocks(&mut self, device: &D, copies: &PerKind<Vec<(BlockId, BlockId)>>) {
        let Self { expert, amateur, .. } = self;
        let copy = |device: &D, cache: &mut D::Cache| {
            for kind in LayerKind::ALL {
                for (from, to) in &copies[kind] {
                    device.copy_block(cache, kind, *from, *to);
                }
            }
        };
        if LayerKind::ALL.iter().any(|kind| !copies[*kind].is_empty()) {
            device.join(
                |device| copy(device, &mut expert.cache),
                |device| amateur.iter_mut().for_each(|model| copy(device, &mut model.cache)),
            );
        }
    }

    /// The forward passes over the step at hand.
    fn forward(&mut self, device: &D, step: &D::Step, pass: Pass) {
        let Self { expert, amateur, .. } = self;
        let mut run_expert = |device: &D| {
            let _range = profile::range(c"expert");
            expert.decoder.forward(device, step, &mut expert.cache);
        };
        let run_amateur = |device: &D| {
            if let Some(amateur) = amateur {
                let _range = profile::range(c"amateur");
                amateur.decoder.forward(device, step, &mut amateur.cache);
            }
        };
        match pass {
            Pass::Joint => _ = device.join(run_expert, run_amateur),
            Pass::ExpertOnly => run_expert(device),
            Pass::CatchUp => _ = device.join(|_| (), run_amateur),
        }
    }

    /// A token for each output of the step at hand, in slices that bound the memory of logits.
    fn sample(&mut self, device: &D, step: &mut D::Step, pass: Pass) {
        let _range = profile::range(c"contrast_sample");
        let (count, size) = (device.outputs(step), self.logits_rows);
        for first in (0..count).step_by(size) {
            let outputs = first..count.min(first + size);
            match pass {
                Pass::ExpertOnly => self.sample_by_expert(device, step, outputs),
                Pass::Joint | Pass::CatchUp => self.sample_by_both(device, step, outputs, pass),
            }
        }
    }

    /// Decides some outputs by the expert alone, and keeps the expert's logits of those that await the amateur.
    fn sample_by_expert(&mut self, device: &D, step: &mut D::Step, outputs: Range<usize>) {
        let logits = self.expert.decoder.logits(device, step, outputs.clone());
        let amateur = match &mut self.deferred_logits {
            Some(deferred_logits) => AmateurLogits::Later { deferred_logits },
            None => AmateurLogits::Unneeded,
        };
        device.sample(step, outputs, ExpertLogits::Computed(logits), amateur);
    }

    /// Decides some outputs by the logits of both models.
    fn sample_by_both(&mut self, device: &D, step: &mut D::Step, outputs: Range<usize>, pass: Pass) {
        let Self { expert, amateur: Some(amateur), deferred_logits, gathers_candidates, .. } = self else {
            return;
        };
        let deferred_logits = deferred_logits.as_ref().filter(|_| pass == Pass::CatchUp);
        let slice = || outputs.clone();
        let (expert, amateur) = if *gathers_candidates {
            let (expert, amateur) = device.join(
                |device| expert.logits(device, step, slice(), deferred_logits),
                |device| amateur.decoder.hidden(device, step, slice()),
            );
            (expert, AmateurLogits::Unprojected(amateur))
        } else {
            let (expert, amateur) = device.join(
                |device| expert.logits(device, step, slice(), deferred_logits),
                |device| amateur.decoder.logits(device, step, slice()),
            );
            (expert, AmateurLogits::Computed(amateur))
        };
        device.sample(step, slice(), expert, amateur);
    }
}

impl<D: Device> LoadedModel<D> {
    /// The logits of some outputs of the step at hand, unless an earlier step computed them.
    fn logits<'a>(
        &'a mut self,
        device: &D,
        step: &D::Step,
        outputs: Range<usize>,
        deferred_logits: Option<&'a D::Tensor>,
    ) -> ExpertLogits<'a, D::Tensor> {
        match deferred_logits {
            Some(deferred_logits) => ExpertLogits::Deferred(deferred_logits),
            None => ExpertLogits::Computed(self.decoder.logits(device, step, outputs)),
        }
    }
}
