//! The blocks of one sequence.

use super::prefix_index::BlockHash;
use crate::device::{LayerKind, PerKind};
use crate::ids::BlockId;

/// The blocks that hold a sequence's keys and values, in the order of its positions.
#[derive(Debug, Default)]
pub struct BlockTable {
    /// The blocks of each kind: equally many, or none of a kind that there is not.
    pub ids: PerKind<Vec<BlockId>>,
    /// How many of the windowed blocks, from the first on, were dropped because they are behind the window. Block 0 stands
    /// in their places, and nothing reads it there.
    pub num_dropped: usize,
    /// How many of the blocks, from the first on, are full and were inserted into the prefix index.
    pub num_indexed: usize,
    /// The hash of the last of these.
    pub last_hash: BlockHash,
}

impl BlockTable {
    /// Blocks of a kind, dropped ones included.
    pub fn num_blocks(&self) -> usize {
        self.ids.full.len()
    }

    /// The blocks of a kind that are held.
    pub fn held(&self, kind: LayerKind) -> &[BlockId] {
        match kind {
            LayerKind::Full => &self.ids.full,
            LayerKind::Windowed => &self.ids.windowed[self.num_dropped..],
        }
    }

    /// The block of a kind at `index`, unless it was dropped.
    pub fn block(&self, kind: LayerKind, index: usize) -> Option<BlockId> {
        (kind == LayerKind::Full || index >= self.num_dropped).then(|| self.ids[kind][index])
    }
}
