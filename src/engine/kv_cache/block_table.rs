//! The blocks of one sequence.

use super::prefix_index::BlockHash;
use crate::ids::BlockId;

/// The blocks that hold a sequence's keys and values, in the order of its positions.
#[derive(Debug, Default)]
pub struct BlockTable {
    /// The blocks.
    pub ids: Vec<BlockId>,
    /// How many of the blocks, from the first on, are full and were inserted into the prefix index.
    pub num_indexed: usize,
    /// The hash of the last of these.
    pub last_hash: BlockHash,
}
