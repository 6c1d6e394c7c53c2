//! How much of a device's memory a pair takes, computed without loading it.

use std::fmt;

use super::config::{EngineConfig, PairConfig, Shortcuts};
use super::kv_cache::division::Division;
use super::pair::memory::{block_bytes, deferred_logits, step};
use crate::checkpoint::Checkpoint;
use crate::contrast::Vocabulary;
use crate::device::gpu::ledger::Ledger;
use crate::device::gpu::runtime::MATMUL_WORKSPACE;
use crate::device::gpu::{GpuConfig, GpuDevice};
use crate::device::{Capacity, Device, Format, PerKind, Role};
use crate::error::{Error, Result};
use crate::model::decoder::Decoder;
use crate::model::spec::Spec;

/// What one model takes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelFootprint {
    /// Bytes of the weights.
    pub weights: usize,
    /// Bytes of activations and logits.
    pub workspace: usize,
    /// Bytes of one block of the cache, of each kind.
    pub block: PerKind<usize>,
}

/// What a pair takes of one GPU or of two GPUs.
#[derive(Debug, Clone)]
pub struct Footprint {
    /// What the expert takes.
    pub expert: ModelFootprint,
    /// What the amateur takes.
    pub amateur: Option<ModelFootprint>,
    /// Bytes of what both models' steps share and of the workspaces of matrix products, by [`Role`].
    pub steps: [usize; 2],
    /// Whether each model has a GPU of its own.
    pub is_split: bool,
    /// How the cache is divided into the two kinds of blocks.
    pub division: Division,
}

/// What a pair takes of one GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Bytes of everything but the cache.
    pub fixed: usize,
    /// Bytes of one block of the cache, of each kind.
    pub block: PerKind<usize>,
}

impl ModelFootprint {
    /// What a model takes in these number formats.
    ///
    /// # Errors
    /// None for the model of a checkpoint.
    pub fn new(spec: &Spec, format: Format, capacity: Capacity) -> Result<Self> {
        let taken = |max_num_batched_tokens, logits_rows| {
            let device = ledger(format, false);
            Decoder::random(&device, spec, 0, max_num_batched_tokens, logits_rows)?;
            Ok::<_, Error>(device.runtime().bytes(Role::Expert))
        };
        let weights = taken(0, 0)?;
        let all = taken(capacity.max_num_batched_tokens, capacity.max_num_seqs)?;
        let block = block_bytes(&ledger(format, false), spec, capacity.block_size);
        Ok(Self { weights, workspace: all - weights, block })
    }
}

impl Footprint {
    /// What a pair takes, each model in its number formats. If the pair `is_split`, each model has a GPU of its own.
    ///
    /// # Errors
    /// As [`ModelFootprint::new`].
    pub fn new(
        (expert, format): (&Spec, Format),
        amateur: Option<(&Spec, Format)>,
        config: &PairConfig,
        is_split: bool,
    ) -> Result<Self> {
        let (device, capacity) = (ledger(format, is_split), config.capacity);
        let vocabulary = Vocabulary::new(expert.vocab_size, Vec::new());
        let specs = (expert, amateur.map(|(spec, _)| spec));
        step(&device, capacity, specs, usize::MAX, &vocabulary)?;
        if config.defers(amateur.is_some()) {
            deferred_logits(&device, capacity, expert)?;
        }
        let mut steps =
            [Role::Expert, Role::Amateur].map(|role| device.runtime().bytes(role) + MATMUL_WORKSPACE);
        if let Some((spec, format)) = amateur.filter(|_| is_split) {
            // The amateur's logits are copied to the expert's GPU.
            let device = ledger(format, is_split);
            device.role(Role::Amateur).logits(capacity.max_num_seqs, spec.vocab_size)?;
            steps[0] += device.runtime().bytes(Role::Expert);
        }
        Ok(Self {
            expert: ModelFootprint::new(expert, format, capacity)?,
            amateur: amateur.map(|(spec, format)| ModelFootprint::new(spec, format, capacity)).transpose()?,
            steps,
            is_split,
            division: config.division(specs.0, specs.1),
        })
    }

    /// The name of the line that adds up one GPU's memory.
    pub fn total_name(&self) -> &'static str {
        if self.amateur.is_some() { "both" } else { "in all" }
    }

    /// Bytes of both models without what their steps share.
    pub fn models_bytes(&self) -> usize {
        let models = [Some(self.expert), self.amateur];
        models.into_iter().flatten().map(|model| model.weights + model.workspace).sum()
    }

    /// What the pair takes of each GPU: of one, or of the expert's and the amateur's.
    pub fn shares(&self) -> Vec<Share> {
        let role = |model: Option<&ModelFootprint>, steps| {
            let model = model.copied().unwrap_or_default();
            Share { fixed: model.weights + model.workspace + steps, block: model.block }
        };
        let [expert, amateur] =
            [role(Some(&self.expert), self.steps[0]), role(self.amateur.as_ref(), self.steps[1])];
        if self.is_split {
            return vec![expert, amateur];
        }
        let block = PerKind::of(|kind| expert.block[kind] + amateur.block[kind]);
        vec![Share { fixed: expert.fixed + amateur.fixed, block }]
    }

    /// Blocks of the cache that fit beside everything else if `bytes` of each GPU may be used.
    pub fn blocks_in(&self, bytes: usize) -> PerKind<usize> {
        let memory = |share: &Share| (bytes.saturating_sub(share.fixed), share.block);
        self.division.blocks_in(&self.shares().iter().map(memory).collect::<Vec<_>>())
    }

    /// Whether a cache of so many blocks fits beside everything else if `bytes` of each GPU may be used.
    pub fn has_room(&self, bytes: usize, blocks: PerKind<usize>) -> bool {
        let taken = |block: PerKind<usize>| blocks.full * block.full + blocks.windowed * block.windowed;
        self.shares().iter().all(|share| share.fixed + taken(share.block) <= bytes)
    }

    /// How many sequences of `len` tokens run at once if `bytes` of each GPU may be used and `len` is set as the length of the
    /// longest one.
    pub fn sequences_in(&self, bytes: usize, len: usize) -> usize {
        let division = Division { max_model_len: Some(len), ..self.division };
        let blocks = Self { division, ..self.clone() }.blocks_in(bytes);
        blocks.full / len.div_ceil(self.division.capacity.block_size)
    }
}

impl EngineConfig {
    /// Whether a pair fits into the free memory of `device`, with a cache of [`EngineConfig::kv_cache_memory`] or, by default,
    /// one that holds a sequence of [`EngineConfig::max_model_len`] or else [`EngineConfig::USUAL_LEN`] tokens. True for an
    /// expert alone, which cannot be split.
    ///
    /// # Errors
    /// A checkpoint that cannot be used, a number out of range, or a device that does not answer.
    pub fn fits<D: Device>(
        &self,
        device: &D,
        expert: &Checkpoint,
        amateur: Option<&Checkpoint>,
    ) -> Result<bool> {
        if device.memory_info()?.is_none() || amateur.is_none() {
            return Ok(true);
        }
        let shortcuts = self.shortcuts.unwrap_or_else(|| Shortcuts::of(device));
        let pair_config = self.pair_config(device.info().default_batched_tokens, shortcuts)?;
        let [on_expert, on_amateur] = [Role::Expert, Role::Amateur].map(|role| device.role(role));
        let (expert, amateur) = (Spec::open(expert)?, amateur.map(Spec::open).transpose()?);
        let with_format = amateur.as_ref().map(|spec| (spec, on_amateur.info().format));
        let footprint = Footprint::new(
            (&expert, on_expert.info().format),
            with_format,
            &pair_config,
            device.info().is_split,
        )?;
        let bytes = on_expert.default_cache_bytes()?.min(on_amateur.default_cache_bytes()?);
        let blocks = match self.kv_cache_memory {
            Some(memory) => {
                let shares = footprint.shares();
                let block = PerKind::of(|kind| shares.iter().map(|share| share.block[kind]).sum());
                footprint.division.blocks_in(&[(memory, block)])
            }
            None => footprint.division.blocks_of_longest(),
        };
        Ok(footprint.has_room(bytes, blocks))
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
        let models = [("expert", Some(&self.expert)), ("amateur", self.amateur.as_ref())];
        let shares = self.shares();
        let has_window = shares.iter().any(|share| share.block.windowed > 0);
        // Bytes of a token in all layers, and in those that hold only the tokens within the window.
        let cache = |block: PerKind<usize>| {
            let token = |bytes: usize| bytes / self.division.capacity.block_size;
            let windowed = format!(" {:>14}", token(block.windowed));
            let windowed = if has_window { &windowed[..] } else { "" };
            format!("{:>16}{windowed}", token(block.full + block.windowed))
        };
        let windowed = if has_window { " of it windowed" } else { "" };
        writeln!(
            f,
            "{:<10} {:>12} {:>14} {:>16}{windowed}",
            "", "weights GiB", "workspace GiB", "cache B a token"
        )?;
        for (name, model) in models.into_iter().filter_map(|(name, model)| Some((name, model?))) {
            let (weights, workspace) = (gib(model.weights), gib(model.workspace));
            writeln!(f, "{name:<10} {weights:>12.3} {workspace:>14.3} {}", cache(model.block))?;
        }
        let total = [self.total_name()];
        let names = if self.is_split { &["first GPU", "second GPU"][..] } else { &total };
        for (index, (name, share)) in names.iter().zip(&shares).enumerate() {
            let end = if index + 1 < shares.len() { "\n" } else { "" };
            write!(f, "{name:<10} {:>27.3} {}{end}", gib(share.fixed), cache(share.block))?;
        }
        Ok(())
    }
}

fn ledger(format: Format, is_split: bool) -> GpuDevice<Ledger> {
    GpuDevice::new(Ledger::new(is_split), GpuConfig::of(format))
}
