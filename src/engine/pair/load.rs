//! Brings a pair to a device: weights, room for steps, and a cache of what memory is left.

use super::memory::{blocks, caches, deferred_logits, step};
use super::source::Model;
use super::{LoadedModel, Models, Pair};
use crate::contrast::Vocabulary;
use crate::device::gpu::ledger::Ledger;
use crate::device::gpu::{GpuConfig, GpuDevice};
use crate::device::{Device, Dtype, Format, MemoryInfo, PerKind, Role};
use crate::engine::config::PairConfig;
use crate::engine::footprint::Footprint;
use crate::error::{Error, Result};
use crate::model::decoder::Decoder;
use crate::model::spec::Spec;

impl<D: Device> Pair<D> {
    /// Loads both models and divides the cache's memory into blocks that hold a piece of both planes. Returns how many blocks
    /// of each kind there are, too.
    ///
    /// # Errors
    /// A checkpoint that cannot be used, or too little memory: then with what the pair takes of it.
    pub fn load(
        device: D,
        expert: Model<'_>,
        amateur: Option<Model<'_>>,
        vocabulary: &Vocabulary,
        config: &PairConfig,
    ) -> Result<(Self, PerKind<usize>)> {
        if device.info().is_split && amateur.is_none() {
            let message = "placement is split, but there is no amateur to be apart from the expert (is beta 0?); use \
                           placement together";
            return Err(Error::Setting(message.to_owned()));
        }
        let sources = Sources::open(expert, amateur, vocabulary)?;
        [Some(expert), amateur].into_iter().flatten().try_for_each(check_tensors)?;
        let before = Before::of(&device);
        sources.load(device, config).map_err(|error| sources.explain(error, &before, config))
    }
}

/// Checks that a checkpoint has every tensor that its config.json asks for, before memory is taken for anything: a wrong
/// size in a config.json would ask for too much.
fn check_tensors(model: Model<'_>) -> Result<()> {
    if let Model::Stored(_) = model {
        let counts = GpuDevice::new(Ledger::new(false), GpuConfig::of(Format::of(Dtype::Bf16)));
        model.load(&counts, 0, 0)?;
    }
    Ok(())
}

/// What a pair is loaded from.
struct Sources<'a> {
    expert: (Model<'a>, Spec),
    amateur: Option<(Model<'a>, Spec)>,
    /// What both models know.
    vocabulary: Vocabulary,
}

/// A device before anything was loaded. Both arrays are by role.
struct Before {
    memory: [Option<MemoryInfo>; 2],
    formats: [Format; 2],
    is_split: bool,
}

impl Before {
    fn of<D: Device>(device: &D) -> Self {
        let roles = [Role::Expert, Role::Amateur].map(|role| device.role(role));
        Self {
            memory: roles.each_ref().map(|device| device.memory_info().ok().flatten()),
            formats: roles.each_ref().map(|device| device.info().format),
            is_split: device.info().is_split,
        }
    }
}

impl<'a> Sources<'a> {
    fn open(expert: Model<'a>, amateur: Option<Model<'a>>, vocabulary: &Vocabulary) -> Result<Self> {
        let (expert_spec, mut vocabulary) = expert.spec(vocabulary)?;
        let amateur = match amateur {
            Some(amateur) => {
                let (spec, known) = amateur.spec(&vocabulary)?;
                vocabulary = known;
                Some((amateur, spec))
            }
            None => None,
        };
        Ok(Self { expert: (expert, expert_spec), amateur, vocabulary })
    }

    fn specs(&self) -> (&Spec, Option<&Spec>) {
        (&self.expert.1, self.amateur.as_ref().map(|(_, spec)| spec))
    }

    fn load<D: Device>(&self, device: D, config: &PairConfig) -> Result<(Pair<D>, PerKind<usize>)> {
        let (capacity, specs) = (config.capacity, self.specs());
        let logits_rows = config.logits_rows(&device, specs.0, specs.1);
        let step = |device: &D, blocks| step(device, capacity, specs, blocks, &self.vocabulary);
        let defers = config.defers(self.amateur.is_some());
        let deferred_logits = defers.then(|| deferred_logits(&device, capacity, specs.0)).transpose()?;
        let gathers_candidates = config.shortcuts.gathered_candidates && device.info().gathers_candidates;
        let assemble = |device, decoders: (_, Option<_>), caches: (_, Option<_>), step| {
            let model = |(decoder, cache)| LoadedModel { decoder, cache };
            let (expert, amateur) = (model((decoders.0, caches.0)), decoders.1.zip(caches.1).map(model));
            let models = Models { expert, amateur, deferred_logits, logits_rows, gathers_candidates };
            Pair { device, step, models, known_ids: self.vocabulary.len }
        };
        if device.memory_info()?.is_none() {
            // The system has the cache's pages ready by the time the models are there.
            let blocks = blocks(&device, specs, config)?;
            let caches = caches(&device, specs, capacity.block_size, blocks)?;
            let (decoders, step) =
                (self.decoders(&device, config, logits_rows)?, step(&device, blocks.full)?);
            return Ok((assemble(device, decoders, caches, step), blocks));
        }
        // The cache takes what the models leave, and what steps turn out to need.
        let decoders = self.decoders(&device, config, logits_rows)?;
        let one_block = caches(&device, specs, capacity.block_size, PerKind::of(|_| 1))?;
        let first_step = step(&device, capacity.max_num_batched_tokens)?;
        let mut pair = assemble(device, decoders, one_block, first_step);
        pair.warm_up(config)?;
        let blocks = blocks(&pair.device, specs, config)?;
        let (expert, amateur) = caches(&pair.device, specs, capacity.block_size, blocks)?;
        pair.models.expert.cache = expert;
        pair.models.amateur.iter_mut().zip(amateur).for_each(|(model, cache)| model.cache = cache);
        pair.step = step(&pair.device, blocks.full)?;
        Ok((pair, blocks))
    }

    /// Both models: at once where they go up to a device, so that one's files are read while the other's are sent; one after
    /// the other where the CPU reads them, so that what is used together lies together.
    fn decoders<D: Device>(
        &self,
        device: &D,
        config: &PairConfig,
        logits_rows: usize,
    ) -> Result<(Decoder<D>, Option<Decoder<D>>)> {
        let tokens = config.capacity.max_num_batched_tokens;
        let load = |model: Model<'_>, role| model.load(&device.role(role), tokens, logits_rows);
        let load_expert = || load(self.expert.0, Role::Expert);
        let load_amateur = |(model, _): &(Model<'_>, Spec)| load(*model, Role::Amateur);
        if device.memory_info()?.is_none() {
            return Ok((load_expert()?, self.amateur.as_ref().map(load_amateur).transpose()?));
        }
        let (expert, amateur) = std::thread::scope(|scope| {
            let start = |amateur| {
                let thread = std::thread::Builder::new().spawn_scoped(scope, move || load_amateur(amateur));
                thread.map_err(|error| Error::refused_thread(&error))
            };
            let amateur = self.amateur.as_ref().map(start);
            let expert = load_expert();
            (expert, amateur.map(|thread| thread.map(std::thread::ScopedJoinHandle::join)))
        });
        let panicked = |_| Err(Error::Device("internal error: loading the amateur panicked".to_owned()));
        let amateur = amateur.map(|thread| thread.and_then(|result| result.unwrap_or_else(panicked)));
        Ok((expert?, amateur.transpose()?))
    }

    /// Adds to an error of a device with memory of its own how much the pair takes and how much was free.
    fn explain(&self, error: Error, before: &Before, config: &PairConfig) -> Error {
        let ([Some(first), Some(second)], Error::Device(message)) = (before.memory, &error) else {
            return error;
        };
        let (expert, amateur) = self.specs();
        let amateur = amateur.map(|spec| (spec, before.formats[1]));
        let Ok(footprint) = Footprint::new((expert, before.formats[0]), amateur, config, before.is_split)
        else {
            return error;
        };
        let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
        let memories = if before.is_split { vec![first, second] } else { vec![first] };
        let free: Vec<_> = memories
            .iter()
            .map(|m| format!("of {:.1} GiB, {:.1} GiB were free", gib(m.total), gib(m.free)))
            .collect();
        let free = free.join(", and ");
        Error::Device(format!("{message}\n{free}; the pair takes, beside its cache:\n{footprint}"))
    }
}
