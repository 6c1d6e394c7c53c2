//! Expert and amateur side by side: one step of both, and the contrast of their logits.

use std::ops::Range;

use crate::checkpoint::Checkpoint;
use crate::contrast::Vocabulary;
use crate::device::{Device, Precision, Role, RowResult, StepCapacity};
use crate::error::{Error, Result};
use crate::model::decoder::{Decoder, Room, Unprojected};
use crate::model::spec::Spec;
use crate::profile;

use crate::engine::footprint::Footprint;
use crate::engine::scheduler::cost::{Deferral, StepCost};
use crate::engine::sequence::Sequence;
use crate::engine::step::{Pass, StepPlan};
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
struct Side<D: Device> {
    decoder: Decoder<D>,
    cache: D::Cache,
}

/// Variants of steps, beside those of both models: without the amateur, 0, and with it, 1.
const SETTLE: u32 = 2;
const CATCH_UP: u32 = 3;

/// Positions that the amateur may be behind a row that decodes: its step over them should cost little more than over one.
const MOST_LAG: usize = 64;
/// Tokens to be seen before the amateur is deferred.
const EVIDENCE: usize = 64;

/// The two models on one device. Without an amateur, the expert runs alone.
pub(super) struct Pair<D: Device> {
    device: D,
    step: D::Step,
    expert: Side<D>,
    amateur: Option<Side<D>>,
    /// Where the amateur is deferred, the expert's logits of rows that wait for it, `[max_num_seqs, vocab_size]`.
    deferred_logits: Option<D::Tensor>,
    /// Rows of logits that are computed at once.
    logit_rows: usize,
    /// Whether the amateur's logits may be computed for the head alone.
    gathers: bool,
    /// On a device that is split, room beside the expert's logits for the amateur's, `[logit_rows, vocab_size]`.
    peer_logits: Option<D::Tensor>,
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
        let logit_rows = device.logits_bytes() / (logits_width * size_of::<f32>());
        let logit_rows = logit_rows.clamp(1, shape.max_num_seqs);
        let (expert, amateur) = ((expert, &expert_spec), amateur.zip(amateur_spec.as_ref()));
        Self::place(device, expert, amateur, &vocabulary, shape, logit_rows).map_err(|error| {
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
        logit_rows: usize,
    ) -> Result<(Self, usize)> {
        let room = Room { tokens: shape.max_num_batched_tokens, logits: logit_rows };
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
        let gathers = shape.shortcuts.gathered_candidates && device.gathers();
        let assemble = |device, models: (_, Option<_>), caches: (_, Option<_>), step| {
            let side = |(decoder, cache)| Side { decoder, cache };
            let (expert, amateur) = (side((models.0, caches.0)), models.1.zip(caches.1).map(side));
            let known_ids = vocabulary.len;
            Self {
                device,
                step,
                expert,
                amateur,
                deferred_logits,
                logit_rows,
                gathers,
                peer_logits: None,
                known_ids,
                trace: None,
            }
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
        if let (true, Some(amateur)) = (pair.device.is_split(), specs.1) {
            pair.peer_logits = Some(peer_logits(&pair.device, logit_rows, amateur)?);
        }
        pair.warm_up(shape)?;
        let blocks = blocks(&pair.device, specs, shape)?;
        let (expert, amateur) = caches(&pair.device, specs, shape.block_size, blocks)?;
        pair.expert.cache = expert;
        pair.amateur.iter_mut().zip(amateur).for_each(|(side, cache)| side.cache = cache);
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
            let first_pass = if self.defers() { Pass::ExpertOnly } else { Pass::Joint };
            let mut plan = StepPlan { pass: first_pass, ..StepPlan::default() };
            for span in 0..spans {
                let tokens = size / spans + usize::from(span < size % spans);
                let blocks = tokens.div_ceil(shape.block_size);
                plan.push(&Sequence::for_warm_up(span, tokens, blocks), 0..tokens, true);
            }
            for pass in passes.iter().flat_map(|pass| [pass; 2]) {
                plan.pass = *pass;
                self.queue(&plan);
                self.collect()?;
            }
        }
        Ok(())
    }

    /// What the models can read.
    pub fn windows(&self) -> Windows {
        let expert = self.expert.decoder.spec().context_length;
        let amateur = self.amateur.as_ref().map(|side| side.decoder.spec().context_length);
        Windows { expert, both: amateur.map_or(expert, |amateur| expert.min(amateur)) }
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
        self.deferred_logits.is_some()
    }

    /// How the amateur is deferred, if it is.
    pub fn deferral(&self, shape: &PairShape) -> Option<Deferral> {
        let amateur = self.amateur.as_ref().filter(|_| self.defers())?;
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
            expert: cost(Role::Expert, &self.expert.decoder, true),
            amateur: cost(Role::Amateur, &amateur.decoder, !self.gathers),
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

    /// Queues one step: the forward passes over the plan's batch, then a token for each of its outputs. The amateur rests
    /// where no row of the step needs it.
    pub fn queue(&mut self, plan: &StepPlan) {
        self.copy_blocks(plan);
        let began = self.device.mark();
        self.device.begin(&mut self.step, &plan.batch, &plan.sample_rows);
        match plan.pass {
            Pass::Joint => self.both(plan.needs_amateur && self.has_amateur()),
            Pass::ExpertOnly => self.settle(),
            Pass::CatchUp => self.catch_up(),
        }
        self.device.finish(&mut self.step);
        if let Some(trace) = &mut self.trace {
            trace.push([began, self.device.mark()]);
        }
    }

    /// Both models, or the expert alone where the amateur has no say.
    fn both(&mut self, needs_amateur: bool) {
        let Self { device, step, expert, amateur, logit_rows, gathers, peer_logits, .. } = self;
        let models = Models {
            expert: Logits::Of(expert),
            amateur: amateur.as_mut().filter(|_| needs_amateur),
            peer_logits: peer_logits.as_mut().filter(|_| needs_amateur),
            logit_rows: *logit_rows,
            gathers: *gathers,
        };
        models.run(device, step, u32::from(needs_amateur));
    }

    /// The expert alone, and the tokens that it settles.
    fn settle(&mut self) {
        let Self { device, step, expert, deferred_logits, logit_rows, .. } = self;
        let Some(deferred_logits) = deferred_logits else { return };
        device.run(step, SETTLE, |device, step| {
            {
                let _range = profile::range(c"expert");
                expert.decoder.forward(device, step, &mut expert.cache);
            }
            let _range = profile::range(c"contrast_sample");
            for outputs in slices(device.outputs(step), *logit_rows) {
                let logits = expert.decoder.logits(device, step, outputs.clone());
                device.settle(step, outputs, logits, deferred_logits);
            }
        });
    }

    /// The amateur alone, over tokens that the expert has read; draws by the logits of both.
    fn catch_up(&mut self) {
        let Self { device, step, amateur, deferred_logits, logit_rows, gathers, peer_logits, .. } = self;
        let Some(deferred_logits) = deferred_logits else { return };
        let models = Models {
            expert: Logits::Deferred(deferred_logits),
            amateur: amateur.as_mut(),
            peer_logits: peer_logits.as_mut(),
            logit_rows: *logit_rows,
            gathers: *gathers,
        };
        models.run(device, step, CATCH_UP);
    }

    /// Gives both planes the plan's copies.
    fn copy_blocks(&mut self, plan: &StepPlan) {
        let Self { device, expert, amateur, .. } = self;
        let copy = |device: &D, cache: &mut D::Cache| {
            plan.copies.iter().for_each(|(from, to)| device.copy_block(cache, *from, *to));
        };
        if !plan.copies.is_empty() {
            device.join(
                |device| copy(device, &mut expert.cache),
                |device| amateur.iter_mut().for_each(|side| copy(device, &mut side.cache)),
            );
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

/// Where the expert's logits come from.
enum Logits<'a, D: Device> {
    /// Its forward pass.
    Of(&'a mut Side<D>),
    /// An earlier step: [`Device::settle`].
    Deferred(&'a D::Tensor),
}

impl<D: Device> Logits<'_, D> {
    /// Where those of some outputs of the step at hand are.
    fn rows(&mut self, device: &D, step: &D::Step, outputs: Range<usize>) -> &D::Tensor {
        match self {
            Self::Of(expert) => expert.decoder.logits(device, step, outputs),
            Self::Deferred(deferred_logits) => deferred_logits,
        }
    }
}

/// The models that take part in a step.
struct Models<'a, D: Device> {
    expert: Logits<'a, D>,
    amateur: Option<&'a mut Side<D>>,
    peer_logits: Option<&'a mut D::Tensor>,
    logit_rows: usize,
    gathers: bool,
}

impl<D: Device> Models<'_, D> {
    /// The step at hand: forward passes, and a token for each of its outputs.
    fn run(mut self, device: &D, step: &mut D::Step, variant: u32) {
        // What crosses to the other stream's memory cannot be replayed.
        let crosses = self.peer_logits.is_some();
        device.run(step, variant, |device, step| {
            self.forward(device, step);
            if !crosses {
                self.sample(device, step);
            }
        });
        if crosses {
            self.sample(device, step);
        }
    }

    /// The forward passes over the step at hand.
    fn forward(&mut self, device: &D, step: &D::Step) {
        let Self { expert, amateur, .. } = self;
        device.join(
            |device| {
                if let Logits::Of(expert) = expert {
                    let _range = profile::range(c"expert");
                    expert.decoder.forward(device, step, &mut expert.cache);
                }
            },
            |device| {
                if let Some(amateur) = amateur {
                    let _range = profile::range(c"amateur");
                    amateur.decoder.forward(device, step, &mut amateur.cache);
                }
            },
        );
    }

    /// A token for each output of the step at hand, in slices that bound the memory of logits.
    fn sample(&mut self, device: &D, step: &mut D::Step) {
        let _range = profile::range(c"contrast_sample");
        for outputs in slices(device.outputs(step), self.logit_rows) {
            self.sample_slice(device, step, outputs);
        }
    }

    fn sample_slice(&mut self, device: &D, step: &mut D::Step, outputs: Range<usize>) {
        let Self { expert, amateur, peer_logits, gathers, .. } = self;
        let places = || outputs.clone();
        match amateur {
            Some(amateur) if *gathers && peer_logits.is_none() => {
                let (expert, amateur) = device.join(
                    |device| expert.rows(device, step, places()),
                    |device| amateur.decoder.hidden(device, step, places()),
                );
                let Unprojected { hidden, lm_head, logits } = amateur;
                device.contrast_sample_hidden(step, places(), expert, (hidden, lm_head), logits);
            }
            amateur => {
                let (expert, amateur) = device.join(
                    |device| expert.rows(device, step, places()),
                    |device| {
                        let decoder = &mut amateur.as_mut()?.decoder;
                        Some(logits(device, step, places(), decoder, peer_logits.as_deref_mut()))
                    },
                );
                device.contrast_sample(step, places(), expert, amateur);
            }
        }
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

/// `0..count`, at most `size` at a time.
fn slices(count: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(size).map(move |first| first..count.min(first + size))
}

/// The amateur's logits of some outputs, where the expert's are.
fn logits<'a, D: Device>(
    device: &D,
    step: &D::Step,
    outputs: Range<usize>,
    amateur: &'a mut Decoder<D>,
    peer_logits: Option<&'a mut D::Tensor>,
) -> &'a D::Tensor {
    let rows = outputs.len();
    let logits = amateur.logits(device, step, outputs);
    let Some(peer_logits) = peer_logits else { return logits };
    device.copy(rows, logits, peer_logits);
    peer_logits
}

/// Room for the expert's logits of rows that wait for the amateur.
pub(super) fn deferred_logits<D: Device>(device: &D, shape: &PairShape, expert: &Spec) -> Result<D::Tensor> {
    device.role(Role::Expert).tensor(shape.max_num_seqs, expert.vocab_size, Precision::Single)
}

/// Room for an amateur's logits, in the expert's memory.
pub(super) fn peer_logits<D: Device>(device: &D, rows: usize, amateur: &Spec) -> Result<D::Tensor> {
    device.role(Role::Expert).tensor(rows, amateur.vocab_size, Precision::Single)
}
