//! The pools of both kinds of blocks, from which block tables are filled.
//!
//! Layers that see all positions and layers with a window have blocks of their own, since they need them for different times.
//! A block of either kind belongs to both models. Without layers with a window there is one kind.

use std::ops::{Index, IndexMut};

use super::block_table::BlockTable;
use super::pool::BlockPool;
use super::window::Window;
use crate::device::{LayerKind, PerKind};
use crate::ids::BlockId;

/// A pool for each kind of block.
#[derive(Debug)]
pub struct BlockPools {
    pools: PerKind<BlockPool>,
    window: Option<Window>,
    block_size: usize,
}

impl Index<LayerKind> for BlockPools {
    type Output = BlockPool;

    fn index(&self, kind: LayerKind) -> &BlockPool {
        &self.pools[kind]
    }
}

impl IndexMut<LayerKind> for BlockPools {
    fn index_mut(&mut self, kind: LayerKind) -> &mut BlockPool {
        &mut self.pools[kind]
    }
}

impl BlockPools {
    /// Pools of free blocks. Without a window there are no windowed blocks.
    pub fn new(num_blocks: PerKind<usize>, window: Option<Window>, block_size: usize) -> Self {
        let num_blocks = PerKind { windowed: window.map_or(0, |_| num_blocks.windowed), ..num_blocks };
        Self { pools: PerKind::of(|kind| BlockPool::new(num_blocks[kind])), window, block_size }
    }

    /// The kinds of blocks that there are.
    pub fn kinds(&self) -> &'static [LayerKind] {
        if self.window.is_some() { &LayerKind::ALL } else { &[LayerKind::Full] }
    }

    /// Blocks of every kind that no sequence holds.
    pub fn free(&self) -> usize {
        self.kinds().iter().map(|kind| self[*kind].free()).min().unwrap_or(0)
    }

    /// Whether no sequence holds any block.
    pub fn are_free(&self) -> bool {
        self.kinds().iter().all(|kind| self[*kind].free() == self[*kind].total())
    }

    /// The first windowed block that a token at `position`, or one after it, sees.
    pub fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| window.first_block(position, self.block_size))
    }

    /// Allocates a block of each kind; `None` if those of one kind are all held.
    pub fn allocate(&mut self) -> Option<PerKind<BlockId>> {
        let has_windowed = self.window.is_some();
        if self.free() == 0 {
            return None;
        }
        let full = self.pools.full.allocate()?;
        let windowed = if has_windowed { self.pools.windowed.allocate()? } else { BlockId(0) };
        Some(PerKind { full, windowed })
    }

    /// Adds a block of each kind to a table.
    pub fn push(&self, table: &mut BlockTable, blocks: PerKind<BlockId>) {
        for kind in self.kinds() {
            table.ids[*kind].push(blocks[*kind]);
        }
    }

    /// Adds a holder to the blocks of a table, which the prefix index has.
    pub fn share(&mut self, table: &BlockTable) {
        for kind in self.kinds() {
            table.held(*kind).iter().for_each(|block| self[*kind].share(*block));
        }
    }

    /// Drops the windowed blocks that no token at `position` or after it sees.
    pub fn drop_behind(&mut self, table: &mut BlockTable, position: usize) {
        let end = self.first_seen(position).min(table.ids.windowed.len());
        if end > table.num_dropped {
            let dropped = &mut table.ids.windowed[table.num_dropped..end];
            self.pools.windowed.release(dropped.iter().copied());
            dropped.fill(BlockId(0));
            table.num_dropped = end;
        }
    }

    /// Releases the blocks of a table, and empties it.
    pub fn release(&mut self, table: &mut BlockTable) {
        for kind in self.kinds() {
            self[*kind].release(table.held(*kind).iter().copied());
        }
        *table = BlockTable::default();
    }

    /// Whether each block is free or in as many of these tables as it should be.
    pub fn account_for(&self, tables: &[&BlockTable]) -> bool {
        self.kinds().iter().all(|kind| {
            let held = tables.iter().flat_map(|table| table.held(*kind).iter().copied());
            self[*kind].accounts_for(held)
        })
    }
}
