//! A pool of block ids of one kind, for both models' planes of the cache.
//!
//! A block stays in the prefix index when no sequence holds it any more, until the pool gives it to a sequence again. The block
//! that became free first is given away first.

use std::collections::BTreeSet;

use super::prefix_index::PrefixIndex;
use crate::ids::BlockId;

/// The blocks of one kind. Each block is free or held by one or more sequences.
#[derive(Debug)]
pub struct BlockPool {
    blocks: Vec<Block>,
    /// Free blocks in the order in which they became free.
    free: BTreeSet<(u64, BlockId)>,
    /// How often a block became free.
    clock: u64,
    /// What the blocks hold.
    pub prefixes: PrefixIndex,
}

#[derive(Debug, Clone, Default)]
struct Block {
    num_holders: u32,
    /// When it became free, if no sequence holds it.
    freed: u64,
}

impl BlockPool {
    /// A pool of `num_blocks` free blocks.
    pub fn new(num_blocks: usize) -> Self {
        Self {
            blocks: vec![Block::default(); num_blocks],
            free: (0..num_blocks as u32).map(|block| (0, BlockId(block))).collect(),
            clock: 0,
            prefixes: PrefixIndex::new(num_blocks),
        }
    }

    /// Blocks in the pool.
    pub fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that no sequence holds.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Allocates a block, and removes it from the prefix index; `None` if all blocks are held.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let (_, id) = self.free.pop_first()?;
        self.blocks[id.index()] = Block { num_holders: 1, freed: 0 };
        self.prefixes.remove(id);
        Some(id)
    }

    /// Adds a holder to a block of the prefix index.
    pub fn share(&mut self, id: BlockId) {
        let block = &mut self.blocks[id.index()];
        self.free.remove(&(block.freed, id));
        block.num_holders += 1;
    }

    /// Releases blocks, the last of them first, so that the beginnings of texts can be found longest. A block that no sequence
    /// holds is left alone: it must not become free twice.
    pub fn release(&mut self, blocks: impl DoubleEndedIterator<Item = BlockId>) {
        for id in blocks.rev() {
            let block = &mut self.blocks[id.index()];
            debug_assert!(block.num_holders > 0, "{id:?} is not held");
            if block.num_holders == 1 {
                self.clock += 1;
                block.freed = self.clock;
                self.free.insert((self.clock, id));
            }
            block.num_holders = block.num_holders.saturating_sub(1);
        }
    }

    /// Whether a sequence holds the block.
    pub fn is_held(&self, id: BlockId) -> bool {
        self.blocks[id.index()].num_holders > 0
    }

    /// Whether each block has as many holders as it occurs in `held`, the block tables of all sequences, and all others are
    /// free.
    pub fn accounts_for(&self, held: impl IntoIterator<Item = BlockId>) -> bool {
        let mut num_holders = vec![0; self.total()];
        held.into_iter().for_each(|block| num_holders[block.index()] += 1);
        let agrees = |(id, (block, num_holders)): (u32, (&Block, &u32))| {
            let is_free = self.free.contains(&(block.freed, BlockId(id)));
            block.num_holders == *num_holders && is_free == (*num_holders == 0)
        };
        (0..).zip(self.blocks.iter().zip(&num_holders)).all(agrees)
    }
}
