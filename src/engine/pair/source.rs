//! Where a model comes from.

use crate::checkpoint::Checkpoint;
use crate::contrast::Vocabulary;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::decoder::Decoder;
use crate::model::spec::Spec;

/// Where a model comes from.
#[derive(Debug, Clone, Copy)]
pub enum Model<'a> {
    /// A checkpoint.
    Stored(&'a Checkpoint),
    /// Weights made on the device, drawn by a seed, for measurements.
    Random(&'a Spec, u64),
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
    pub(super) fn spec(&self, vocabulary: &Vocabulary) -> Result<(Spec, Vocabulary)> {
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

    /// Brings it to a device, with room as for [`Decoder::load`].
    pub(super) fn load<D: Device>(
        self,
        device: &D,
        max_num_batched_tokens: usize,
        logits_rows: usize,
    ) -> Result<Decoder<D>> {
        match self {
            Self::Stored(checkpoint) => {
                Decoder::load(device, checkpoint, max_num_batched_tokens, logits_rows)
            }
            Self::Random(spec, seed) => {
                Decoder::random(device, spec, seed, max_num_batched_tokens, logits_rows)
            }
        }
    }
}
