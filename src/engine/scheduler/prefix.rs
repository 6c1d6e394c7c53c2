//! Shared prefixes: a sequence that begins takes over cached blocks, and what it computes is inserted for others.

use crate::device::Pass;
use crate::engine::config::SchedulerConfig;
use crate::engine::kv_cache::block_table::BlockTable;
use crate::engine::kv_cache::pool::BlockPool;
use crate::engine::kv_cache::prefix_index::{BlockHash, PartialBlock};
use crate::engine::sequence::Sequence;
use crate::engine::step::StepPlan;
use crate::ids::{BlockId, TokenId};

/// What the cache holds of a sequence's beginning.
#[derive(Debug, Default)]
pub(super) struct CachedPrefix<'a> {
    /// Full blocks, from the first on.
    pub blocks: Vec<BlockId>,
    /// The hash of the last of them.
    last_hash: BlockHash,
    /// How many of the blocks the amateur has computed too, from the first on.
    num_amateur_blocks: usize,
    /// A block that begins with the tokens that follow, and how many of these it holds.
    pub partial: Option<(&'a PartialBlock, usize)>,
}

impl<'a> CachedPrefix<'a> {
    /// Finds the known tokens of a sequence, except for the last, whose logits are wanted. Where a step runs both models, only
    /// what both have computed counts.
    pub fn find(sequence: &Sequence, pass: Pass, pool: &'a BlockPool, config: &SchedulerConfig) -> Self {
        let mut found = Self::default();
        if !config.shared_prefixes {
            return found;
        }
        let index = &pool.prefixes;
        let needs_both = sequence.params.needs_amateur() && pass == Pass::Joint;
        let mut rest = &sequence.tokens[..sequence.tokens.len() - 1];
        while let Some((tokens, after)) = rest.split_at_checked(config.capacity.block_size) {
            let hash = found.last_hash.followed_by(tokens);
            let Some(block) = index.find(&hash).filter(|b| !needs_both || index.has_amateur(*b)) else {
                break;
            };
            if found.num_amateur_blocks == found.blocks.len() && index.has_amateur(block) {
                found.num_amateur_blocks += 1;
            }
            found.blocks.push(block);
            (found.last_hash, rest) = (hash, after);
        }
        let partial =
            index.find_partial(&found.last_hash).filter(|partial| !needs_both || partial.has_amateur);
        found.partial = partial
            .map(|partial| (partial, common_len(&partial.tokens, rest)))
            .filter(|(_, num_tokens)| *num_tokens > 0);
        found
    }
}

fn common_len(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Gives a sequence that begins what the cache holds of it. Returns how many positions need not be computed.
pub(super) fn take_over(
    sequence: &mut Sequence,
    plan: &mut StepPlan,
    pool: &mut BlockPool,
    config: &SchedulerConfig,
) -> usize {
    let CachedPrefix { blocks, last_hash, num_amateur_blocks, partial } =
        CachedPrefix::find(sequence, plan.pass, pool, config);
    let partial = partial.map(|(partial, num_tokens)| (partial.block, num_tokens, partial.has_amateur));
    for block in &blocks {
        pool.share(*block);
    }
    let (block_size, num_blocks) = (config.capacity.block_size, blocks.len());
    let needs_amateur = sequence.params.needs_amateur();
    let num_computed = &mut sequence.num_computed;
    num_computed.expert = num_blocks * block_size;
    num_computed.amateur = if needs_amateur { num_amateur_blocks * block_size } else { 0 };
    sequence.blocks = BlockTable { num_indexed: num_blocks, last_hash, ids: blocks };
    if let Some((source, num_tokens, has_amateur)) = partial
        && let Some(copy) = pool.allocate()
    {
        plan.copies.push((source, copy));
        sequence.blocks.ids.push(copy);
        num_computed.expert += num_tokens;
        if needs_amateur && has_amateur && num_amateur_blocks == num_blocks {
            num_computed.amateur += num_tokens;
        }
    }
    num_computed.expert
}

/// Inserts into the prefix index what plan number `plan` computes of a sequence, from position `start` on.
pub(super) fn insert(
    sequence: &mut Sequence,
    start: usize,
    pool: &mut BlockPool,
    block_size: usize,
    plan: u64,
) {
    let num_known = sequence.num_computed.expert.min(sequence.tokens.len());
    let prompt_len = sequence.prompt_len;
    let prompt_ends = start < prompt_len && prompt_len <= num_known;
    while (sequence.blocks.num_indexed + 1) * block_size <= num_known {
        let first = sequence.blocks.num_indexed * block_size;
        if prompt_ends && first + block_size == prompt_len {
            insert_partial(sequence, first, pool, plan);
        }
        let table = &mut sequence.blocks;
        table.last_hash = table.last_hash.followed_by(&sequence.tokens[first..first + block_size]);
        let has_amateur = sequence.num_computed.amateur >= first + block_size;
        pool.prefixes.insert(table.ids[table.num_indexed], table.last_hash, has_amateur);
        table.num_indexed += 1;
    }
    let num_indexed = sequence.blocks.num_indexed;
    if prompt_ends && !prompt_len.is_multiple_of(block_size) && num_indexed == prompt_len / block_size {
        insert_partial(sequence, num_indexed * block_size, pool, plan);
    }
}

/// Inserts the block that holds the end of a sequence's prompt, from position `first` on.
fn insert_partial(sequence: &Sequence, first: usize, pool: &mut BlockPool, plan: u64) {
    let Sequence { blocks, num_computed, prompt_len, .. } = sequence;
    let tokens = sequence.tokens[first..*prompt_len].to_vec();
    let has_amateur = num_computed.amateur >= *prompt_len;
    let is_as_good = |known: &PartialBlock| known.tokens == tokens && known.has_amateur >= has_amateur;
    if pool.prefixes.find_partial(&blocks.last_hash).is_some_and(is_as_good) {
        // The older block stays: a sequence that waits for this prompt need not wait for this step.
        return;
    }
    let block = blocks.ids[blocks.num_indexed];
    pool.prefixes.insert_partial(blocks.last_hash, PartialBlock { block, tokens, plan, has_amateur });
}
