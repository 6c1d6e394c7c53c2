//! What a pair takes of a device's memory, without loading it.

use std::fmt;

use super::pair::PairShape;
use crate::contrast::Vocabulary;
use crate::device::launch::ledger::Ledger;
use crate::device::launch::machine::MATMUL_WORKSPACE;
use crate::device::launch::{Launcher, LauncherConfig};
use crate::device::{Device, Format, StepRoom};
use crate::error::Result;
use crate::model::decoder::{Decoder, Room};
use crate::model::spec::Spec;

/// One model's part.
#[derive(Debug, Clone, Copy)]
pub struct ModelFootprint {
    /// Bytes of the weights.
    pub weights: usize,
    /// Bytes of activations and logits.
    pub workspace: usize,
    /// Bytes of one block of the cache.
    pub block: usize,
}

/// What a pair takes of a GPU.
#[derive(Debug, Clone)]
pub struct Footprint {
    /// The expert's part.
    pub expert: ModelFootprint,
    /// The amateur's.
    pub amateur: Option<ModelFootprint>,
    /// Bytes of what the steps share, and of the workspaces of both lanes' matrix products.
    pub steps: usize,
    /// Tokens a block.
    pub block_size: usize,
}

impl ModelFootprint {
    /// Of a model in these number formats.
    ///
    /// # Errors
    /// None that a model of a checkpoint could give.
    pub fn new(spec: &Spec, format: Format, shape: &PairShape) -> Result<Self> {
        let taken = |room: Room| {
            let device = ledger(format);
            Decoder::random(&device, spec, 0, room)?;
            Ok::<_, crate::Error>(device.machine().bytes())
        };
        let weights = taken(Room { tokens: 0, logits: 0 })?;
        let room = Room { tokens: shape.max_num_batched_tokens, logits: shape.max_num_seqs };
        let block = ledger(format).block_bytes(spec.cache_shape(shape.block_size, 1));
        Ok(Self { weights, workspace: taken(room)? - weights, block })
    }
}

impl Footprint {
    /// Of a pair, each model in its number formats.
    ///
    /// # Errors
    /// As [`ModelFootprint::new`].
    pub fn new(
        (expert, format): (&Spec, Format),
        amateur: Option<(&Spec, Format)>,
        shape: &PairShape,
    ) -> Result<Self> {
        let device = ledger(format);
        device.step(StepRoom {
            tokens: shape.max_num_batched_tokens,
            sequences: shape.max_num_seqs,
            blocks: 0,
            block_size: shape.block_size,
            vocabulary: &Vocabulary::new(expert.vocab_size, Vec::new()),
        })?;
        Ok(Self {
            expert: ModelFootprint::new(expert, format, shape)?,
            amateur: amateur.map(|(spec, format)| ModelFootprint::new(spec, format, shape)).transpose()?,
            steps: device.machine().bytes() + 2 * MATMUL_WORKSPACE,
            block_size: shape.block_size,
        })
    }

    /// Bytes of everything but the cache.
    pub fn fixed(&self) -> usize {
        self.models().map(|model| model.weights + model.workspace).sum::<usize>() + self.steps
    }

    /// Bytes of one block of the cache, both models' planes, and its place in a block table.
    pub fn block(&self) -> usize {
        self.models().map(|model| model.block).sum::<usize>() + size_of::<u32>()
    }

    /// Blocks of the cache that fit beside everything else in `bytes`.
    pub fn blocks_in(&self, bytes: usize) -> usize {
        bytes.saturating_sub(self.fixed()) / self.block()
    }

    fn models(&self) -> impl Iterator<Item = &ModelFootprint> {
        [Some(&self.expert), self.amateur.as_ref()].into_iter().flatten()
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
        let models = [("expert", Some(&self.expert)), ("amateur", self.amateur.as_ref())];
        writeln!(f, "{:<10} {:>12} {:>14} {:>16}", "", "weights GiB", "workspace GiB", "cache B a token")?;
        for (name, model) in models.into_iter().filter_map(|(name, model)| Some((name, model?))) {
            let (weights, workspace) = (gib(model.weights), gib(model.workspace));
            let token = model.block / self.block_size;
            writeln!(f, "{name:<10} {weights:>12.3} {workspace:>14.3} {token:>16}")?;
        }
        let (fixed, token) = (gib(self.fixed()), self.block() / self.block_size);
        write!(f, "{:<10} {fixed:>27.3} {token:>16}", "both")
    }
}

fn ledger(format: Format) -> Launcher<Ledger> {
    Launcher::new(Ledger::default(), LauncherConfig::of(format))
}
