//! What a pair takes of a device's memory beside the weights of its models.

use crate::contrast::Vocabulary;
use crate::device::{Capacity, Device, PerKind, Role};
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
    (expert, amateur): (&Spec, Option<&Spec>),
    blocks: usize,
    vocabulary: &Vocabulary,
) -> Result<D::Step> {
    let longest_table = expert.context_length.div_ceil(capacity.block_size).min(blocks);
    let full = capacity.max_num_seqs * longest_table;
    let has_window =
        [Some(expert), amateur].into_iter().flatten().any(|spec| spec.longest_window().is_some());
    device.step(capacity, PerKind { full, windowed: if has_window { full } else { 0 } }, vocabulary)
}

/// Bytes of a block of each kind in one model's plane of the cache.
pub(in crate::engine) fn block_bytes<D: Device>(
    device: &D,
    spec: &Spec,
    block_size: usize,
) -> PerKind<usize> {
    device.block_bytes(spec.cache_shape(block_size, PerKind::of(|_| 1)))
}

/// Room for the expert's logits of rows that await the amateur.
pub(in crate::engine) fn deferred_logits<D: Device>(
    device: &D,
    capacity: Capacity,
    expert: &Spec,
) -> Result<D::Tensor> {
    device.role(Role::Expert).logits(capacity.max_num_seqs, expert.vocab_size)
}

/// How many blocks of each kind the cache's memory holds.
pub(super) fn blocks<D: Device>(
    device: &D,
    (expert, amateur): (&Spec, Option<&Spec>),
    config: &PairConfig,
) -> Result<PerKind<usize>> {
    let roles = [(Role::Expert, Some(expert)), (Role::Amateur, amateur)];
    let roles = roles.into_iter().filter_map(|(role, spec)| Some((device.role(role), spec?)));
    let roles: Vec<_> = roles
        .map(|(device, spec)| {
            let block = block_bytes(&device, spec, config.capacity.block_size);
            (device, block)
        })
        .collect();
    let block = PerKind::of(|kind| roles.iter().map(|(_, block)| block[kind]).sum());
    let in_all = block.full + block.windowed;
    let (memories, refused) = if let Some(memory) = config.kv_cache_memory {
        let message = "kv-cache-memory is less than one block, which takes";
        let refused = Error::Setting(format!("{message} {in_all} bytes; raise it or lower block-size"));
        (vec![(memory, block)], refused)
    } else {
        let memories = if device.info().is_split {
            // A block has a part in either memory.
            let memory = |(device, block): &(D, PerKind<usize>)| Ok((device.default_cache_bytes()?, *block));
            roles.iter().map(memory).collect::<Result<_>>()?
        } else {
            vec![(device.default_cache_bytes()?, block)]
        };
        let message = "no memory is left for the cache, of which one block takes";
        (memories, Error::Device(format!("{message} {in_all} bytes")))
    };
    let blocks = config.division(expert, amateur).blocks_in(&memories);
    Some(blocks).filter(|blocks| blocks.full > 0).ok_or(refused)
}

/// Both planes of a cache of so many blocks.
pub(super) fn caches<D: Device>(
    device: &D,
    (expert, amateur): (&Spec, Option<&Spec>),
    block_size: usize,
    blocks: PerKind<usize>,
) -> Result<(D::Cache, Option<D::Cache>)> {
    let cache = |role, spec: &Spec| device.role(role).cache(spec.cache_shape(block_size, blocks));
    Ok((cache(Role::Expert, expert)?, amateur.map(|spec| cache(Role::Amateur, spec)).transpose()?))
}
