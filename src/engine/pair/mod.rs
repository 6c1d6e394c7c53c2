//! Expert and amateur side by side: one step of both, and the contrast of their logits.

use std::ops::Range;

use crate::checkpoint::Checkpoint;
use crate::contrast::{Contrast, Noise, Vocabulary};
use crate::device::{Device, Pass, Role, RowResult, SampleRow, StepCapacity};
use crate::error::{Error, Result};
use crate::ids::{BlockId, SeqId, TokenId};
use crate::model::decoder::{Decoder, Room, Unprojected};
use crate::model::spec::Spec;
use crate::profile;

use crate::engine::footprint::Footprint;
use crate::engine::scheduler::cost::{Deferral, StepCost};
use crate::engine::step::{PlanRow, StepPlan};
use crate::engine::{Deferred, Shortcuts, Windows};

/// Where a model comes from.
#[derive(Debug, Clone, Copy)]
pub enum Model<'a> {
    /// A checkpoint.
    Stored(&'a Checkpoint),
    /// Weights made on the device, drawn by a seed, for measurements.
    Random(&'a Spec, u64),
}

/// A model with its plane of the cache.
struct LoadedModel<D: Device> {
    decoder: Decoder<D>,
    cache: D::Cache,
}

/// Positions that the amateur may be behind a row that decodes: its step over them should cost little more than over one.
const MOST_LAG: usize = 64;
/// Tokens to be seen before the amateur is deferred.
const EVIDENCE: usize = 64;

/// The two models on one device. Without an amateur, the expert runs alone.
pub(super) struct Pair<D: Device> {
    device: D,
    step: D::Step,
    models: Models<D>,
    /// Ids below this have a row in both models.
    known_ids: usize,
    /// When steps began and ended, where that is wanted.
    trace: Option<Vec<[D::Mark; 2]>>,
}

/// The models, and the logits that are held for them.
struct Models<D: Device> {
    expert: LoadedModel<D>,
    amateur: Option<LoadedModel<D>>,
    /// Where the amateur is deferred, the expert's logits of rows that wait for it, `[max_num_seqs, vocab_size]`.
    deferred_logits: Option<D::Tensor>,
    /// Rows of logits that are computed at once.
    logits_rows: usize,
    /// Whether the amateur's logits may be computed for the candidates alone.
    gathers_candidates: bool,
}

/// How much a pair makes room for.
#[derive(Debug, Clone, Copy)]
pub struct PairShape {
    /// Sequences that run at once.
    pub max_num_seqs: usize,
    /// Tokens a step.
    pub max_num_batched_tokens: usize,
    /// Tokens a block.
    pub block_size: usize,
    /// Bytes of the cache; by default what the device has to give.
    pub kv_cache_memory: Option<usize>,
    /// What is left out.
    pub shortcuts: Shortcuts,
}

impl Model<'_> {
    /// Its shape.
    ///
    /// # Errors
    /// As [`Spec::open`].
    pub fn open_spec(&self) -> Result<Spec> {
        match self {
            Self::Random(spec, _) => Ok((*spec).clone()),
            Self::Stored(checkpoint) => Spec::open(checkpoint),
        }
    }

    /// Its shape, and what of the vocabulary has a row in it.
    fn spec(&self, vocabulary: &Vocabulary) -> Result<(Spec, Vocabulary)> {
        match self {
            Self::Random(spec, _) => Ok(((*spec).clone(), vocabulary.clone())),
            Self::Stored(checkpoint) => {
                let spec = Spec::open(checkpoint)?;
                let known = vocabulary.within(spec.vocab_size).map_err(|id| {
                    let (rows, tokens) = (spec.vocab_size, vocabulary.len);
                    let message = format!(
                        "vocab_size is {rows}, but the tokenizer has {tokens} tokens, and {} is not a special one",
                        id.0
                    );
                    Error::file(checkpoint.path("config.json"), message)
                })?;
                Ok((spec, known))
            }
        }
    }

    fn load<D: Device>(self, device: &D, room: Room) -> Result<Decoder<D>> {
        match self {
            Self::Stored(checkpoint) => Decoder::load(device, checkpoint, room),
            Self::Random(spec, seed) => Decoder::random(device, spec, seed, room),
        }
    }
}

impl<D: Device> Pair<D> {
    /// Loads both models and divides the cache's memory into blocks that hold a piece of both planes.
    ///
    /// # Errors
    /// A checkpoint that cannot be used, or too little memory: then with what the pair takes of it.
    pub fn load(
        device: D,
        expert: Model<'_>,
        amateur: Option<Model<'_>>,
        vocabulary: &Vocabulary,
        shape: &PairShape,
    ) -> Result<(Self, usize)> {
        let (expert_spec, vocabulary) = expert.spec(vocabulary)?;
        let (amateur_spec, vocabulary) = match amateur.map(|amateur| amateur.spec(&vocabulary)).transpose()? {
            Some((spec, vocabulary)) => (Some(spec), vocabulary),
            None => (None, vocabulary),
        };
        let memory = [Role::Expert, Role::Amateur].map(|role| device.role(role).memory_info());
        let is_split = device.is_split();
        if is_split && amateur.is_none() {
            let message = "placement is split, but there is no amateur to be apart from the expert (is beta 0?); use \
                           placement together";
            return Err(Error::Setting(message.to_owned()));
        }
        let formats = [Role::Expert, Role::Amateur].map(|role| device.role(role).format());
        let logits_width = expert_spec.vocab_size + amateur_spec.as_ref().map_or(0, |spec| spec.vocab_size);
        let logits_rows = device.logits_bytes() / (logits_width * size_of::<f32>());
        let logits_rows = logits_rows.clamp(1, shape.max_num_seqs);
        let (expert, amateur) = ((expert, &expert_spec), amateur.zip(amateur_spec.as_ref()));
        Self::place(device, expert, amateur, &vocabulary, shape, logits_rows).map_err(|error| {
            let ([Ok(Some(first)), Ok(Some(second))], Error::Device(message)) = (memory, &error) else {
                return error;
            };
            let amateur = amateur_spec.as_ref().map(|spec| (spec, formats[1]));
            let Ok(footprint) = Footprint::new((&expert_spec, formats[0]), amateur, shape, is_split) else {
                return error;
            };
            let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
            let memories = if is_split { vec![first, second] } else { vec![first] };
            let free: Vec<_> = memories
                .iter()
                .map(|m| format!("of {:.1} GiB, {:.1} GiB were free", gib(m.total), gib(m.free)))
                .collect();
            let free = free.join(", and ");
            Error::Device(format!("{message}\n{free}; the pair takes, beside its cache:\n{footprint}"))
        })
    }

    fn place(
        device: D,
        (expert, expert_spec): (Model<'_>, &Spec),
        amateur: Option<(Model<'_>, &Spec)>,
        vocabulary: &Vocabulary,
        shape: &PairShape,
        logits_rows: usize,
    ) -> Result<(Self, usize)> {
        let room = Room { tokens: shape.max_num_batched_tokens, logits: logits_rows };
        let specs = (expert_spec, amateur.map(|(_, spec)| spec));
        let load = || load_both(&device, expert, amateur.map(|(amateur, _)| amateur), room);
        let table = expert_spec.context_length.div_ceil(shape.block_size);
        let step = |device: &D, blocks: usize| {
            device.step(StepCapacity {
                tokens: shape.max_num_batched_tokens,
                sequences: shape.max_num_seqs,
                // Each sequence lists its blocks, shared or not.
                blocks: shape.max_num_seqs * table.min(blocks),
                block_size: shape.block_size,
                vocabulary,
            })
        };
        let defers = shape.shortcuts.deferred_amateur != Deferred::Never && amateur.is_some();
        let deferred_logits = defers.then(|| deferred_logits(&device, shape, expert_spec)).transpose()?;
        let gathers_candidates = shape.shortcuts.gathered_candidates && device.gathers();
        let assemble = |device, decoders: (_, Option<_>), caches: (_, Option<_>), step| {
            let model = |(decoder, cache)| LoadedModel { decoder, cache };
            let (expert, amateur) = (model((decoders.0, caches.0)), decoders.1.zip(caches.1).map(model));
            let models = Models { expert, amateur, deferred_logits, logits_rows, gathers_candidates };
            Self { device, step, models, known_ids: vocabulary.len, trace: None }
        };
        if device.memory_info()?.is_none() {
            // The system has the cache's pages ready by the time the models are there.
            let blocks = blocks(&device, specs, shape)?;
            let caches = caches(&device, specs, shape.block_size, blocks)?;
            let (models, step) = (load()?, step(&device, blocks)?);
            return Ok((assemble(device, models, caches, step), blocks));
        }
        // The cache takes what the models leave, and what steps turn out to need.
        let (models, caches_of_one) = (load()?, caches(&device, specs, shape.block_size, 1)?);
        let first_step = step(&device, shape.max_num_batched_tokens)?;
        let mut pair = assemble(device, models, caches_of_one, first_step);
        pair.warm_up(shape)?;
        let blocks = blocks(&pair.device, specs, shape)?;
        let (expert, amateur) = caches(&pair.device, specs, shape.block_size, blocks)?;
        pair.models.expert.cache = expert;
        pair.models.amateur.iter_mut().zip(amateur).for_each(|(model, cache)| model.cache = cache);
        pair.step = step(&pair.device, blocks)?;
        Ok((pair, blocks))
    }

    /// Runs steps of all passes and sizes over a cache of one block, which they write to and read at will.
    fn warm_up(&mut self, shape: &PairShape) -> Result<()> {
        let passes = match shape.shortcuts.deferred_amateur {
            _ if !self.defers() => &[Pass::Joint][..],
            Deferred::Always => &[Pass::ExpertOnly, Pass::CatchUp],
            _ => &[Pass::Joint, Pass::ExpertOnly, Pass::CatchUp],
        };
        let most = shape.max_num_batched_tokens.min(shape.max_num_seqs * self.windows().expert);
        for size in self.device.warm_up_sizes(most) {
            let spans = size.min(shape.max_num_seqs);
            let mut plan = StepPlan::default();
            let mut rows = Vec::new();
            for span in 0..spans {
                let tokens = size / spans + usize::from(span < size % spans);
                let blocks = vec![BlockId(0); tokens.div_ceil(shape.block_size)];
                let deferred_row = Some(span as u32).filter(|_| self.defers());
                let row =
                    PlanRow { seq: SeqId(span as u64), positions: 0..tokens, samples: true, deferred_row };
                plan.push(row, &vec![TokenId(0); tokens], 0, &blocks);
                rows.push(SampleRow {
                    contrast: Contrast::default(),
                    noise: Noise::new(0, "", 0),
                    position: size as u32,
                    // So that all of the amateur's logits are computed too, beside those of the heads.
                    log_probabilities: true,
                    deferred_row,
                });
            }
            for pass in passes.iter().flat_map(|pass| [pass; 2]) {
                plan.pass = *pass;
                self.submit(&plan, &rows, self.has_amateur());
                self.collect()?;
            }
        }
        Ok(())
    }

    /// What the models can read.
    pub fn windows(&self) -> Windows {
        let expert = self.models.expert.decoder.spec().context_length;
        let amateur = self.models.amateur.as_ref().map(|model| model.decoder.spec().context_length);
        Windows { expert, both: amateur.map_or(expert, |amateur| expert.min(amateur)) }
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

    /// See [`StepLoop::trace`](crate::engine::step_loop::StepLoop::trace).
    pub fn trace(&mut self) {
        self.trace = Some(Vec::new());
    }

    /// See [`StepLoop::idle_share`](crate::engine::step_loop::StepLoop::idle_share).
    pub fn idle_share(&self) -> Result<f64> {
        let steps = self.trace.as_deref().unwrap_or_default();
        let [Some([first, _]), Some([_, last])] = [steps.first(), steps.last()] else { return Ok(0.0) };
        let gaps = steps.windows(2).map(|pair| self.device.seconds(&pair[0][1], &pair[1][0]));
        Ok(gaps.sum::<Result<f64>>()? / self.device.seconds(first, last)?)
    }

    /// Whether the amateur's steps are apart from the expert's.
    pub fn defers(&self) -> bool {
        self.models.deferred_logits.is_some()
    }

    /// How the amateur is deferred, if it is.
    pub fn deferral(&self, shape: &PairShape) -> Option<Deferral> {
        let amateur = self.models.amateur.as_ref().filter(|_| self.defers())?;
        let cost = |role, decoder: &Decoder<D>, has_lm_head: bool| {
            let device = self.device.role(role);
            let lm_head = if has_lm_head { decoder.lm_head_bytes(&device) } else { 0 };
            let weights = (decoder.layer_bytes(&device) + lm_head) as f64;
            let block = device.block_bytes(decoder.spec().cache_shape(shape.block_size, 1));
            let position = block as f64 / shape.block_size as f64;
            StepCost { weights, row: weights * device.row_cost(), position }
        };
        Some(Deferral {
            most_lag: MOST_LAG,
            evidence: EVIDENCE,
            expert: cost(Role::Expert, &self.models.expert.decoder, true),
            amateur: cost(Role::Amateur, &amateur.decoder, !self.models.gathers_candidates),
            alone: match shape.shortcuts.deferred_amateur {
                Deferred::Always => None,
                _ => Some(self.device.solo_slowdown().unwrap_or(1.0)),
            },
        })
    }

    /// Whether a step should be queued before the results of the one before are collected.
    pub fn runs_ahead(&self) -> bool {
        self.device.runs_ahead()
    }

    /// Switches the device's profiler.
    ///
    /// # Errors
    /// Those of [`Device::profile`].
    pub fn profile(&self, is_on: bool) -> Result<()> {
        self.device.profile(is_on)
    }

    /// Submits one step: the forward passes over the plan's batch, then a token for each of its outputs, drawn by `rows`.
    /// The expert runs alone where no row of the step needs the amateur.
    pub fn submit(&mut self, plan: &StepPlan, rows: &[SampleRow], needs_amateur: bool) {
        let Self { device, step, models, .. } = self;
        let pass = match plan.pass {
            Pass::Joint if !needs_amateur => Pass::ExpertOnly,
            pass => pass,
        };
        models.copy_blocks(device, &plan.copies);
        let began = device.mark();
        device.begin(step, &plan.batch, rows);
        device.run(
            step,
            pass,
            models,
            |device, step, models| models.forward(device, step, pass),
            |device, step, models| models.sample(device, step, pass),
        );
        device.finish(step);
        if let Some(trace) = &mut self.trace {
            trace.push([began, device.mark()]);
        }
    }

    /// The results of the oldest step that was queued and not collected, one for each of its outputs; none where the
    /// amateur must have its say.
    ///
    /// # Errors
    /// Those of [`Device::collect`].
    pub fn collect(&mut self) -> Result<Vec<Option<RowResult>>> {
        self.device.collect_settled(&mut self.step)
    }
}

impl<D: Device> LoadedModel<D> {
    fn forward(&mut self, device: &D, step: &D::Step) {
        self.decoder.forward(device, step, &mut self.cache);
    }
}

impl<D: Device> Models<D> {
    /// Copies blocks into others, in both planes of the cache.
    fn copy_blocks(&mut self, device: &D, copies: &[(BlockId, BlockId)]) {
        let Self { expert, amateur, .. } = self;
        let copy = |device: &D, cache: &mut D::Cache| {
            copies.iter().for_each(|(from, to)| device.copy_block(cache, *from, *to));
        };
        if !copies.is_empty() {
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
            expert.forward(device, step);
        };
        let run_amateur = |device: &D| {
            if let Some(amateur) = amateur {
                let _range = profile::range(c"amateur");
                amateur.forward(device, step);
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
                Pass::ExpertOnly => self.sample_expert(device, step, outputs),
                Pass::Joint | Pass::CatchUp => self.sample_both(device, step, outputs, pass),
            }
        }
    }

    /// Decides some outputs by the expert alone, and keeps the logits of those that it cannot decide.
    fn sample_expert(&mut self, device: &D, step: &mut D::Step, outputs: Range<usize>) {
        let logits = self.expert.decoder.logits(device, step, outputs.clone());
        match &mut self.deferred_logits {
            Some(deferred_logits) => device.settle(step, outputs, logits, deferred_logits),
            None => device.contrast_sample(step, outputs, logits, None),
        }
    }

    /// Decides some outputs by the logits of both models: the expert's are new, or were kept by an earlier step.
    fn sample_both(&mut self, device: &D, step: &mut D::Step, outputs: Range<usize>, pass: Pass) {
        let Self { expert, amateur: Some(amateur), deferred_logits, gathers_candidates, .. } = self else {
            return;
        };
        let kept = deferred_logits.as_ref().filter(|_| pass == Pass::CatchUp);
        if *gathers_candidates {
            let (expert, amateur) = device.join(
                |device| expert_logits(device, step, expert, kept, outputs.clone()),
                |device| amateur.decoder.hidden(device, step, outputs.clone()),
            );
            let Unprojected { hidden, lm_head, logits } = amateur;
            device.contrast_sample_hidden(step, outputs.clone(), expert, (hidden, lm_head), logits);
        } else {
            let (expert, amateur) = device.join(
                |device| expert_logits(device, step, expert, kept, outputs.clone()),
                |device| amateur.decoder.logits(device, step, outputs.clone()),
            );
            device.contrast_sample(step, outputs.clone(), expert, Some(amateur));
        }
    }
}

/// The expert's logits of some outputs: those that an earlier step kept, or those of the step at hand.
fn expert_logits<'a, D: Device>(
    device: &D,
    step: &D::Step,
    expert: &'a mut LoadedModel<D>,
    kept: Option<&'a D::Tensor>,
    outputs: Range<usize>,
) -> &'a D::Tensor {
    kept.unwrap_or_else(|| expert.decoder.logits(device, step, outputs))
}

/// Both models: at once where they go up to a device, so that one's files are read while the other's are sent; one after
/// the other where the CPU reads them, so that what is used together lies together.
fn load_both<D: Device>(
    device: &D,
    expert: Model<'_>,
    amateur: Option<Model<'_>>,
    room: Room,
) -> Result<(Decoder<D>, Option<Decoder<D>>)> {
    let load_expert = || expert.load(&device.role(Role::Expert), room);
    let load_amateur = |amateur: Model<'_>| amateur.load(&device.role(Role::Amateur), room);
    if device.memory_info()?.is_none() {
        return Ok((load_expert()?, amateur.map(load_amateur).transpose()?));
    }
    let (expert, amateur) = std::thread::scope(|scope| {
        let amateur = amateur.map(|amateur| scope.spawn(move || load_amateur(amateur)));
        (load_expert(), amateur.map(std::thread::ScopedJoinHandle::join))
    });
    let panicked = |_| Err(Error::Device("internal error: loading the amateur panicked".to_owned()));
    Ok((expert?, amateur.map(|amateur| amateur.unwrap_or_else(panicked)).transpose()?))
}

/// How many blocks the cache's memory holds.
fn blocks<D: Device>(
    device: &D,
    (expert, amateur): (&Spec, Option<&Spec>),
    shape: &PairShape,
) -> Result<usize> {
    let roles = [(Role::Expert, Some(expert)), (Role::Amateur, amateur)];
    let roles = roles.into_iter().filter_map(|(role, spec)| {
        let (device, spec) = (device.role(role), spec?);
        let block = device.block_bytes(spec.cache_shape(shape.block_size, 1));
        Some((device, block))
    });
    let roles: Vec<(D, usize)> = roles.collect();
    let block: usize = roles.iter().map(|(_, block)| block).sum();
    let (blocks, refused) = if let Some(memory) = shape.kv_cache_memory {
        let message = "kv-cache-memory is less than one block, which takes";
        (memory / block, Error::Setting(format!("{message} {block} bytes; raise it or lower block-size")))
    } else {
        let blocks = if device.is_split() {
            // A block has a part in either memory.
            let fit = roles.iter().map(|(device, block)| Ok(device.default_cache_bytes()? / block));
            fit.collect::<Result<Vec<_>>>()?.into_iter().min().unwrap_or(0)
        } else {
            device.default_cache_bytes()? / block
        };
        let message = "no memory is left for the cache, of which one block takes";
        (blocks, Error::Device(format!("{message} {block} bytes")))
    };
    Some(blocks).filter(|blocks| *blocks > 0).ok_or(refused)
}

/// Both planes of a cache of so many blocks.
fn caches<D: Device>(
    device: &D,
    (expert, amateur): (&Spec, Option<&Spec>),
    block_size: usize,
    blocks: usize,
) -> Result<(D::Cache, Option<D::Cache>)> {
    let cache = |role, spec: &Spec| device.role(role).cache(spec.cache_shape(block_size, blocks));
    Ok((cache(Role::Expert, expert)?, amateur.map(|spec| cache(Role::Amateur, spec)).transpose()?))
}

/// Room for the expert's logits of rows that wait for the amateur.
pub(super) fn deferred_logits<D: Device>(device: &D, shape: &PairShape, expert: &Spec) -> Result<D::Tensor> {
    device.role(Role::Expert).logits(shape.max_num_seqs, expert.vocab_size)
}
