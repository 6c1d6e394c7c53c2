//! What a pair takes of a device's memory beside the weights of its models.

use crate::contrast::Vocabulary;
use crate::device::{Capacity, Device, Role};
use crate::engine::config::PairConfig;
use crate::error::{Error, Result};
use crate::model::spec::Spec;

impl PairConfig {
    /// Rows of logits that `device` holds at once: as many as are worth holding, at most one for each sequence.
    pub(super) fn logits_rows<D: Device>(&self, device: &D, expert: &Spec, amateur: Option<&Spec>) -> usize {
        let width = expert.vocab_size + amateur.map_or(0, |spec| spec.vocab_size);
        let rows = device.info().logits_bytes / (width * size_of::<f32>());
        rows.clamp(1, self.capacity.max_num_seqs)
    }
}

/// Room for steps over a cache of `blocks` blocks. Each sequence lists its blocks, shared or not.
pub(in crate::engine) fn step<D: Device>(
    device: &D,
    capacity: Capacity,
    expert: &Spec,
    blocks: usize,
    vocabulary: &Vocabulary,
) -> Result<D::Step> {
    let longest_table = expert.context_length.div_ceil(capacity.block_size).min(blocks);
    device.step(capacity, capacity.max_num_seqs * longest_table, vocabulary)
}

/// Room for the expert's logits of rows that await the amateur.
pub(in crate::engine) fn deferred_logits<D: Device>(
    device: &D,
    capacity: Capacity,
    expert: &Spec,
) -> Result<D::Tensor> {
    device.role(Role::Expert).logits(capacity.max_num_seqs, expert.vocab_size)
}

/// How many blocks the cache's memory holds.
pub(super) fn blocks<D: Device>(
    device: &D,
    (expert, amateur): (&Spec, Option<&Spec>),
    config: &PairConfig,
) -> Result<usize> {
    let roles = [(Role::Expert, Some(expert)), (Role::Amateur, amateur)];
    let roles = roles.into_iter().filter_map(|(role, spec)| {
        let (device, spec) = (device.role(role), spec?);
        let block = device.block_bytes(spec.cache_shape(config.capacity.block_size, 1));
        Some((device, block))
    });
    let roles: Vec<(D, usize)> = roles.collect();
    let block: usize = roles.iter().map(|(_, block)| block).sum();
    let (blocks, refused) = if let Some(memory) = config.kv_cache_memory {
        let message = "kv-cache-memory is less than one block, which takes";
        (memory / block, Error::Setting(format!("{message} {block} bytes; raise it or lower block-size")))
    } else {
        let blocks = if device.info().is_split {
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
pub(super) fn caches<D: Device>(
    device: &D,
    (expert, amateur): (&Spec, Option<&Spec>),
    block_size: usize,
    blocks: usize,
) -> Result<(D::Cache, Option<D::Cache>)> {
    let cache = |role, spec: &Spec| device.role(role).cache(spec.cache_shape(block_size, blocks));
    Ok((cache(Role::Expert, expert)?, amateur.map(|spec| cache(Role::Amateur, spec)).transpose()?))
}
