//! How the cache's memory is divided between the two kinds of blocks.

use super::window::Window;
use crate::device::{Capacity, PerKind};

/// The rule by which windowed blocks are counted out beside the others. Without a window there are none.
///
/// Memory cannot move from one pool to the other, so the division supposes a length of sequences. Longer sequences leave
/// windowed blocks unused, shorter ones leave the others unused. See `docs/internals/scheduler.md`.
#[derive(Debug, Clone, Copy)]
pub struct Division {
    /// The window of the pair.
    pub window: Option<Window>,
    /// The limits of a step.
    pub capacity: Capacity,
    /// The length of sequences that the division supposes.
    pub usual_len: usize,
    /// The length of the longest sequence, which must fit.
    pub longest: usize,
}

impl Division {
    /// The most blocks that fit into memories, each given by its bytes and by what a block of each kind takes of it.
    pub fn blocks_in(&self, memories: &[(usize, PerKind<usize>)]) -> PerKind<usize> {
        let usual = self.most(self.usual_len, memories);
        if usual.full >= self.blocks_of(self.longest) {
            return usual;
        }
        let longest = self.most(self.longest, memories);
        if longest.full >= self.blocks_of(self.longest) { longest } else { usual }
    }

    /// Blocks for `sequences` sequences of the longest length.
    pub fn blocks_for(&self, sequences: usize) -> PerKind<usize> {
        let full = sequences * self.blocks_of(self.longest);
        PerKind { full, windowed: self.windowed(full, self.longest) }
    }

    fn most(&self, len: usize, memories: &[(usize, PerKind<usize>)]) -> PerKind<usize> {
        let blocks = |full: usize| PerKind { full, windowed: self.windowed(full, len) };
        let fits = |full: usize| {
            memories.iter().all(|(bytes, block)| {
                let blocks = blocks(full);
                let needed = blocks.full as u128 * block.full as u128
                    + blocks.windowed as u128 * block.windowed as u128;
                needed <= *bytes as u128
            })
        };
        let (mut fit, mut too_many) = (0, u32::MAX as usize);
        while too_many - fit > 1 {
            let middle = fit.midpoint(too_many);
            *(if fits(middle) { &mut fit } else { &mut too_many }) = middle;
        }
        blocks(fit)
    }

    /// Windowed blocks beside `full` others: the same share of what a sequence of `len` tokens needs, at least one sequence's,
    /// and a step's prompt chunks. A sequence never needs more of them than of the others.
    fn windowed(&self, full: usize, len: usize) -> usize {
        let Some(window) = self.window else { return 0 };
        let block_size = self.capacity.block_size;
        let of_sequence = self.blocks_of(len).max(1);
        let seen = window.blocks(1, 0, block_size);
        let share = (full * seen.min(of_sequence)).div_ceil(of_sequence);
        full.min(share.max(seen) + self.capacity.max_num_batched_tokens.div_ceil(block_size))
    }

    fn blocks_of(&self, len: usize) -> usize {
        len.div_ceil(self.capacity.block_size)
    }
}
