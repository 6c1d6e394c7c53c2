//! Expert and amateur side by side: one step of both, and the contrast of their logits.

use std::ops::Range;

use crate::checkpoint::Checkpoint;
use crate::contrast::{Contrast, Noise, Vocabulary};
use crate::device::{Device, Lane, RowResult, SampleRow, StepRoom};
use crate::error::{Error, Result};
use crate::ids::{BlockId, SeqId, TokenId};
use crate::model::decoder::{Decoder, Room, Unprojected};
use crate::model::spec::Spec;
use crate::profile;

use super::footprint::Footprint;
use super::plan::StepPlan;

/// Where a model comes from.
#[derive(Debug, Clone, Copy)]
pub enum Model<'a> {
    /// A checkpoint.
    Stored(&'a Checkpoint),
    /// Weights made on the device, drawn by a seed, for measurements.
    Random(&'a Spec, u64),
}

/// A model with its plane of the cache.
struct Side<D: Device> {
    decoder: Decoder<D>,
    cache: D::Cache,
}

/// The two models on one device. Without an amateur, the expert runs alone.
pub(super) struct Pair<D: Device> {
    device: D,
    step: D::Step,
    expert: Side<D>,
    amateur: Option<Side<D>>,
    /// Rows of logits that are computed at once.
    logit_rows: usize,
    /// Ids below this have a row in both models.
    known_ids: usize,
    /// When steps began and ended, where that is wanted.
    trace: Option<Vec<[D::Mark; 2]>>,
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
}

impl Model<'_> {
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
        let memory = device.memory_info()?;
        let formats = [Lane::Expert, Lane::Amateur].map(|lane| device.lane(lane).format());
        let logits_width = expert_spec.vocab_size + amateur_spec.as_ref().map_or(0, |spec| spec.vocab_size);
        let logit_rows = device.logits_bytes() / (logits_width * size_of::<f32>());
        let logit_rows = logit_rows.clamp(1, shape.max_num_seqs);
        let (expert, amateur) = ((expert, &expert_spec), amateur.zip(amateur_spec.as_ref()));
        Self::place(device, expert, amateur, &vocabulary, shape, logit_rows).map_err(|error| {
            let (Some(memory), Error::Device(message)) = (memory, &error) else { return error };
            let amateur = amateur_spec.as_ref().map(|spec| (spec, formats[1]));
            match Footprint::new((&expert_spec, formats[0]), amateur, shape) {
                Ok(footprint) => Error::Device(format!(
                    "{message}\nof {:.1} GiB, {:.1} GiB were free; the pair takes, beside its cache:\n{footprint}",
                    memory.total as f64 / f64::from(1 << 30),
                    memory.free as f64 / f64::from(1 << 30)
                )),
                Err(_) => error,
            }
        })
    }

    fn place(
        device: D,
        (expert, expert_spec): (Model<'_>, &Spec),
        amateur: Option<(Model<'_>, &Spec)>,
        vocabulary: &Vocabulary,
        shape: &PairShape,
        logit_rows: usize,
    ) -> Result<(Self, usize)> {
        let room = Room { tokens: shape.max_num_batched_tokens, logits: logit_rows };
        let specs = (expert_spec, amateur.map(|(_, spec)| spec));
        let load = || load_both(&device, expert, amateur.map(|(amateur, _)| amateur), room);
        let step = |device: &D, blocks| {
            device.step(StepRoom {
                tokens: shape.max_num_batched_tokens,
                sequences: shape.max_num_seqs,
                blocks,
                block_size: shape.block_size,
                vocabulary,
            })
        };
        if device.memory_info()?.is_none() {
            // The system has the cache's pages ready by the time the models are there.
            let blocks = blocks(&device, specs, shape)?;
            let caches = caches(&device, specs, shape.block_size, blocks)?;
            let (models, step) = (load()?, step(&device, blocks)?);
            return Ok((Self::new(device, step, models, caches, (logit_rows, vocabulary.len)), blocks));
        }
        // The cache takes what the models leave, and what steps turn out to need.
        let (models, caches_of_one) = (load()?, caches(&device, specs, shape.block_size, 1)?);
        let room = step(&device, shape.max_num_batched_tokens)?;
        let mut pair = Self::new(device, room, models, caches_of_one, (logit_rows, vocabulary.len));
        pair.warm_up(shape)?;
        let blocks = blocks(&pair.device, specs, shape)?;
        let (expert, amateur) = caches(&pair.device, specs, shape.block_size, blocks)?;
        pair.expert.cache = expert;
        pair.amateur.iter_mut().zip(amateur).for_each(|(side, cache)| side.cache = cache);
        pair.step = step(&pair.device, blocks)?;
        Ok((pair, blocks))
    }

    fn new(
        device: D,
        step: D::Step,
        models: (Decoder<D>, Option<Decoder<D>>),
        caches: (D::Cache, Option<D::Cache>),
        (logit_rows, known_ids): (usize, usize),
    ) -> Self {
        let side = |(decoder, cache)| Side { decoder, cache };
        let (expert, amateur) = (side((models.0, caches.0)), models.1.zip(caches.1).map(side));
        Self { device, step, expert, amateur, logit_rows, known_ids, trace: None }
    }

    /// Runs steps of all sizes over a cache of one block, which they write to and read at will.
    fn warm_up(&mut self, shape: &PairShape) -> Result<()> {
        for size in self.device.warm_up_sizes(shape.max_num_batched_tokens) {
            let (spans, tokens) = if size <= shape.max_num_seqs { (size, 1) } else { (1, size) };
            let mut plan = StepPlan::default();
            for seq in 0..spans {
                let blocks = vec![BlockId(0); tokens.div_ceil(shape.block_size)];
                plan.push(SeqId(seq as u64), 0..tokens, &vec![TokenId(0); tokens], 0, &blocks, true);
            }
            let row = SampleRow {
                contrast: Contrast::default(),
                noise: Noise::new(0, "", 0),
                position: tokens as u32,
                log_probabilities: false,
            };
            for _ in 0..2 {
                self.queue(&plan, &vec![row; spans], self.has_amateur());
                self.collect()?;
            }
        }
        Ok(())
    }

    /// The longest sequence that both models can read.
    pub fn context_length(&self) -> usize {
        let expert = self.expert.decoder.spec().context_length;
        self.amateur.as_ref().map_or(expert, |side| expert.min(side.decoder.spec().context_length))
    }

    /// Ids below this can be read and sampled.
    pub fn known_ids(&self) -> usize {
        self.known_ids
    }

    /// Whether there is an amateur.
    pub fn has_amateur(&self) -> bool {
        self.amateur.is_some()
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// See [`StepLoop::trace`](super::step_loop::StepLoop::trace).
    pub fn trace(&mut self) {
        self.trace = Some(Vec::new());
    }

    /// See [`StepLoop::idle_share`](super::step_loop::StepLoop::idle_share).
    pub fn idle_share(&self) -> Result<f64> {
        let steps = self.trace.as_deref().unwrap_or_default();
        let [Some([first, _]), Some([_, last])] = [steps.first(), steps.last()] else { return Ok(0.0) };
        let gaps = steps.windows(2).map(|pair| self.device.seconds(&pair[0][1], &pair[1][0]));
        Ok(gaps.sum::<Result<f64>>()? / self.device.seconds(first, last)?)
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

    /// Queues one step: both forward passes over the plan's batch, then a token for each of its outputs, drawn by
    /// `rows`. The amateur rests where no row of the step needs it.
    pub fn queue(&mut self, plan: &StepPlan, rows: &[SampleRow], needs_amateur: bool) {
        let Self { device, step, expert, amateur, logit_rows, trace, .. } = self;
        let mut amateur = amateur.as_mut().filter(|_| needs_amateur);
        let began = device.mark();
        device.begin(step, &plan.batch, rows);
        device.run(step, u32::from(needs_amateur), |device, step| {
            device.join(
                |device| {
                    let _range = profile::range(c"expert");
                    expert.decoder.forward(device, step, &mut expert.cache);
                },
                |device| {
                    if let Some(amateur) = &mut amateur {
                        let _range = profile::range(c"amateur");
                        amateur.decoder.forward(device, step, &mut amateur.cache);
                    }
                },
            );
            let _range = profile::range(c"contrast_sample");
            let count = device.outputs(step);
            for first in (0..count).step_by(*logit_rows) {
                let outputs = first..count.min(first + *logit_rows);
                let amateur = amateur.as_mut().map(|amateur| &mut amateur.decoder);
                sample(device, step, outputs, &mut expert.decoder, amateur);
            }
        });
        device.finish(step);
        if let Some(trace) = trace {
            trace.push([began, device.mark()]);
        }
    }

    /// The results of the oldest step that was queued and not collected, one for each of its outputs.
    ///
    /// # Errors
    /// Those of [`Device::collect`].
    pub fn collect(&mut self) -> Result<Vec<RowResult>> {
        self.device.collect(&mut self.step)
    }
}

/// Both models: at once where they go up to a device, so that one's files are read while the other's are sent; one after
/// the other where the CPU reads them, so that what is used together lies together.
fn load_both<D: Device>(
    device: &D,
    expert: Model<'_>,
    amateur: Option<Model<'_>>,
    room: Room,
) -> Result<(Decoder<D>, Option<Decoder<D>>)> {
    let load_expert = || expert.load(&device.lane(Lane::Expert), room);
    let load_amateur = |amateur: Model<'_>| amateur.load(&device.lane(Lane::Amateur), room);
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
    let bytes = |lane, spec: &Spec| device.lane(lane).block_bytes(spec.cache_shape(shape.block_size, 1));
    let block = bytes(Lane::Expert, expert) + amateur.map_or(0, |spec| bytes(Lane::Amateur, spec));
    let (memory, refused) = if let Some(memory) = shape.kv_cache_memory {
        let message = "kv-cache-memory is less than one block, which takes";
        (memory, Error::Setting(format!("{message} {block} bytes; raise it or lower block-size")))
    } else {
        let message = "no memory is left for the cache, of which one block takes";
        (device.default_cache_bytes()?, Error::Device(format!("{message} {block} bytes")))
    };
    Some(memory / block).filter(|blocks| *blocks > 0).ok_or(refused)
}

/// Both planes of a cache of so many blocks.
fn caches<D: Device>(
    device: &D,
    (expert, amateur): (&Spec, Option<&Spec>),
    block_size: usize,
    blocks: usize,
) -> Result<(D::Cache, Option<D::Cache>)> {
    let cache = |lane, spec: &Spec| device.lane(lane).cache(spec.cache_shape(block_size, blocks));
    Ok((cache(Lane::Expert, expert)?, amateur.map(|spec| cache(Lane::Amateur, spec)).transpose()?))
}

/// Draws a token for each of `outputs` of the step at hand, whose forward passes have been queued.
fn sample<D: Device>(
    device: &D,
    step: &mut D::Step,
    outputs: Range<usize>,
    expert: &mut Decoder<D>,
    amateur: Option<&mut Decoder<D>>,
) {
    let places = || outputs.clone();
    match amateur {
        Some(amateur) if device.gathers() => {
            let (expert, amateur) = device.join(
                |device| expert.logits(device, step, places()),
                |device| amateur.hidden(device, step, places()),
            );
            let Unprojected { hidden, head, logits } = amateur;
            device.contrast_sample_hidden(step, places(), expert, (hidden, head), logits);
        }
        amateur => {
            let (expert, amateur) = device.join(
                |device| expert.logits(device, step, places()),
                |device| amateur.map(|amateur| amateur.logits(device, step, places())),
            );
            device.contrast_sample(step, places(), expert, amateur);
        }
    }
}
