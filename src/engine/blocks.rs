//! One pool of block ids for both models' planes of the cache.

use crate::ids::BlockId;

/// The blocks of the paged cache: each is free or held by one sequence.
#[derive(Debug)]
pub struct BlockPool {
    free: Vec<BlockId>,
    is_held: Vec<bool>,
}

impl BlockPool {
    /// A pool of `blocks` free blocks.
    pub fn new(blocks: usize) -> Self {
        Self { free: (0..blocks as u32).rev().map(BlockId).collect(), is_held: vec![false; blocks] }
    }

    /// Blocks in the pool.
    pub fn total(&self) -> usize {
        self.is_held.len()
    }

    /// Blocks that nobody holds.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// A block, or `None` where all are held.
    pub fn take(&mut self) -> Option<BlockId> {
        let block = self.free.pop()?;
        self.is_held[block.index()] = true;
        Some(block)
    }

    /// Gives blocks back. One that is not held is left alone: it must not become free twice.
    pub fn give_back(&mut self, blocks: impl IntoIterator<Item = BlockId>) {
        for block in blocks {
            debug_assert!(self.is_held[block.index()], "{block:?} is not held");
            if std::mem::take(&mut self.is_held[block.index()]) {
                self.free.push(block);
            }
        }
    }

    /// Whether `held`, all blocks that sequences hold, and the free ones are the whole pool, each once.
    pub fn accounts_for(&self, held: impl IntoIterator<Item = BlockId>) -> bool {
        let mut seen = vec![false; self.total()];
        let once = |block: BlockId| !std::mem::replace(&mut seen[block.index()], true);
        self.free.iter().copied().chain(held).all(once) && seen.iter().all(|seen| *seen)
    }
}
