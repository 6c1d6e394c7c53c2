//! Shared prefixes: a sequence that begins takes over cached blocks, and what it computes is inserted for others.
//!
//! Of layers that see all positions, every block of a prefix must be in the cache. Of layers with a window, only the blocks
//! that the positions after the prefix see.

use crate::device::{LayerKind, Pass, PerKind};
use crate::engine::config::SchedulerConfig;
use crate::engine::kv_cache::block_table::BlockTable;
use crate::engine::kv_cache::pools::BlockPools;
use crate::engine::kv_cache::prefix_index::{BlockHash, PartialBlock};
use crate::engine::sequence::{PerModel, Sequence};
use crate::engine::step::StepPlan;
use crate::ids::{BlockId, TokenId};

/// What the cache holds of a sequence's beginning.
#[derive(Debug, Default)]
pub(super) struct CachedPrefix {
    /// Full blocks, from the first on, which the sequence does not hold yet. Windowed ones that it does not need count as
    /// dropped.
    pub table: BlockTable,
    /// Positions in these blocks that each model has computed.
    pub num_computed: PerModel<usize>,
    /// A block that begins with the tokens that follow.
    pub partial: Option<CachedPartial>,
}

/// A partial block, to be copied.
#[derive(Debug)]
pub(super) struct CachedPartial {
    /// The block of each kind.
    blocks: PerKind<BlockId>,
    /// How many of the sequence's tokens it holds.
    num_tokens: usize,
    /// The number of the plan whose step computes them with the expert.
    pub plan: u64,
    /// Whether the steps planned so far compute them with the amateur too.
    has_amateur: bool,
}

impl CachedPrefix {
    /// Finds the known tokens of a sequence, except for the last, whose logits are wanted. Where a step runs both models, only
    /// what both have computed counts.
    pub fn find(sequence: &Sequence, pass: Pass, pools: &BlockPools, config: &SchedulerConfig) -> Self {
        if !config.shared_prefixes {
            return Self::default();
        }
        let block_size = config.capacity.block_size;
        let needs_amateur = sequence.params.needs_amateur();
        let needs_both = needs_amateur && pass == Pass::Joint;
        let known = &sequence.tokens[..sequence.tokens.len() - 1];
        let mut walk = Walk { needs_amateur, needs_both, ..Walk::default() };
        let mut longest = Prefix::default();
        for tokens in known.chunks_exact(block_size) {
            if !walk.advance(tokens, pools) {
                break;
            }
            longest = walk.prefix(block_size, pools).unwrap_or(longest);
        }
        let Prefix { num_blocks, num_amateur_blocks, num_dropped, last_hash } = longest;
        let mut ids = walk.ids;
        for kind in pools.kinds() {
            ids[*kind].truncate(num_blocks);
        }
        let num_dropped = num_dropped.min(ids.windowed.len());
        ids.windowed[..num_dropped].fill(BlockId(0));
        let rest = &known[num_blocks * block_size..];
        Self {
            table: BlockTable { ids, num_dropped, num_indexed: num_blocks, last_hash },
            num_computed: PerModel {
                expert: num_blocks * block_size,
                amateur: if needs_amateur { num_amateur_blocks * block_size } else { 0 },
            },
            partial: CachedPartial::find(&last_hash, rest, pools)
                .filter(|partial| partial.has_amateur || !needs_both),
        }
    }
}

impl CachedPartial {
    /// Finds the partial block of each kind that follows the block of hash `before` and begins with some of `tokens`.
    fn find(before: &BlockHash, tokens: &[TokenId], pools: &BlockPools) -> Option<Self> {
        let (blocks, num_tokens) = (PerKind::of(|_| BlockId(0)), tokens.len());
        let mut found = Self { blocks, num_tokens, plan: 0, has_amateur: true };
        for kind in pools.kinds() {
            let partial = pools[*kind].prefixes.find_partial(before)?;
            found.blocks[*kind] = partial.block;
            found.num_tokens = found.num_tokens.min(common_len(&partial.tokens, tokens));
            found.plan = found.plan.max(partial.plan);
            found.has_amateur &= partial.has_amateur;
        }
        Some(found).filter(|found| found.num_tokens > 0)
    }
}

fn common_len(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A beginning that a sequence can take over.
#[derive(Debug, Default)]
struct Prefix {
    num_blocks: usize,
    /// How many of the blocks, from the first on, the amateur can go on after.
    num_amateur_blocks: usize,
    /// How many of the windowed blocks, from the first on, are not needed.
    num_dropped: usize,
    last_hash: BlockHash,
}

/// A walk over the blocks of a sequence's beginning. Where no amateur is needed, blocks count as if it had computed them.
#[derive(Debug, Default)]
struct Walk {
    needs_amateur: bool,
    needs_both: bool,
    /// The blocks so far. Block 0 stands for a windowed one that the cache does not hold.
    ids: PerKind<Vec<BlockId>>,
    last_hash: BlockHash,
    /// Whether the amateur has missed one of the blocks of layers that see all positions.
    amateur_misses: bool,
    /// How many of the blocks, from the first on, the amateur can go on after.
    num_amateur_blocks: usize,
    /// Where the unbroken run of windowed blocks begins that each model has computed up to the last.
    run: PerModel<usize>,
}

impl Walk {
    /// Goes on to the next block. False if it is of no use.
    fn advance(&mut self, tokens: &[TokenId], pools: &BlockPools) -> bool {
        let hash = self.last_hash.followed_by(tokens);
        let prefixes = |kind: LayerKind| &pools[kind].prefixes;
        let has_amateur = |kind, block| !self.needs_amateur || prefixes(kind).has_amateur(block);
        let Some(block) = prefixes(LayerKind::Full).find(&hash) else { return false };
        self.amateur_misses |= !has_amateur(LayerKind::Full, block);
        if self.amateur_misses && self.needs_both {
            return false;
        }
        self.last_hash = hash;
        self.ids.full.push(block);
        let num_blocks = self.ids.full.len();
        if pools.kinds().contains(&LayerKind::Windowed) {
            let block = prefixes(LayerKind::Windowed).find(&hash);
            self.ids.windowed.push(block.unwrap_or(BlockId(0)));
            if block.is_none() {
                self.run.expert = num_blocks;
            }
            if !block.is_some_and(|block| has_amateur(LayerKind::Windowed, block)) {
                self.run.amateur = num_blocks;
            }
        }
        if !self.amateur_misses && self.run.amateur <= pools.first_seen(num_blocks * tokens.len()) {
            self.num_amateur_blocks = num_blocks;
        }
        true
    }

    /// The blocks so far, if the models can go on after them. The amateur may go on from an earlier block than the expert, if
    /// the windowed blocks that it sees from there on are all in the cache.
    fn prefix(&self, block_size: usize, pools: &BlockPools) -> Option<Prefix> {
        let (num_blocks, num_amateur_blocks) = (self.ids.full.len(), self.num_amateur_blocks);
        let num_dropped = pools.first_seen(num_amateur_blocks * block_size);
        let can_go_on = self.run.expert <= num_dropped;
        let has_both = num_amateur_blocks == num_blocks;
        (can_go_on && (has_both || !self.needs_both)).then_some(Prefix {
            num_blocks,
            num_amateur_blocks,
            num_dropped,
            last_hash: self.last_hash,
        })
    }
}

/// Gives a sequence that begins what the cache holds of it. Returns how many positions need not be computed.
pub(super) fn take_over(
    sequence: &mut Sequence,
    plan: &mut StepPlan,
    pools: &mut BlockPools,
    config: &SchedulerConfig,
) -> usize {
    let CachedPrefix { mut table, mut num_computed, partial } =
        CachedPrefix::find(sequence, plan.pass, pools, config);
    pools.share(&table);
    if let Some(partial) = partial
        && let Some(copy) = pools.allocate()
    {
        for kind in pools.kinds() {
            plan.copies[*kind].push((partial.blocks[*kind], copy[*kind]));
        }
        pools.push(&mut table, copy);
        let amateur_goes_on = num_computed.amateur == num_computed.expert && partial.has_amateur;
        num_computed.expert += partial.num_tokens;
        if sequence.params.needs_amateur() && amateur_goes_on {
            num_computed.amateur += partial.num_tokens;
        }
    }
    (sequence.blocks, sequence.num_computed) = (table, num_computed);
    num_computed.expert
}

/// Inserts into the prefix index what plan number `plan` computes of a sequence, from position `start` on.
pub(super) fn insert(
    sequence: &mut Sequence,
    start: usize,
    pools: &mut BlockPools,
    block_size: usize,
    plan: u64,
) {
    let num_known = sequence.num_computed.expert.min(sequence.tokens.len());
    let prompt_len = sequence.prompt_len;
    let prompt_ends = start < prompt_len && prompt_len <= num_known;
    while (sequence.blocks.num_indexed + 1) * block_size <= num_known {
        let first = sequence.blocks.num_indexed * block_size;
        if prompt_ends && first + block_size == prompt_len {
            insert_partial(sequence, first, pools, plan);
        }
        let table = &mut sequence.blocks;
        table.last_hash = table.last_hash.followed_by(&sequence.tokens[first..first + block_size]);
        let has_amateur = sequence.num_computed.amateur >= first + block_size;
        for kind in pools.kinds() {
            // The last token may become known after the block was dropped.
            if let Some(block) = table.block(*kind, table.num_indexed) {
                pools[*kind].prefixes.insert(block, table.last_hash, has_amateur);
            }
        }
        table.num_indexed += 1;
    }
    let num_indexed = sequence.blocks.num_indexed;
    if prompt_ends && !prompt_len.is_multiple_of(block_size) && num_indexed == prompt_len / block_size {
        insert_partial(sequence, num_indexed * block_size, pools, plan);
    }
}

/// Inserts the blocks that hold the end of a sequence's prompt, from position `first` on.
fn insert_partial(sequence: &Sequence, first: usize, pools: &mut BlockPools, plan: u64) {
    let Sequence { blocks: table, num_computed, prompt_len, .. } = sequence;
    let tokens = &sequence.tokens[first..*prompt_len];
    let has_amateur = num_computed.amateur >= *prompt_len;
    for kind in pools.kinds() {
        let prefixes = &mut pools[*kind].prefixes;
        let is_as_good = |known: &PartialBlock| known.tokens == tokens && known.has_amateur >= has_amateur;
        if prefixes.find_partial(&table.last_hash).is_some_and(is_as_good) {
            // The older block stays: a sequence that waits for this prompt need not wait for this step.
            continue;
        }
        let block = table.ids[*kind][table.num_indexed];
        let partial = PartialBlock { block, tokens: tokens.to_vec(), plan, has_amateur };
        prefixes.insert_partial(table.last_hash, partial);
    }
}
