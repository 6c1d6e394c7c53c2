//! How the cache's memory is divided between the two kinds of blocks.

use super::window::Window;
use crate::device::{Capacity, PerKind};

/// The rule by which windowed blocks are counted out beside the others. Without a window there are none.
///
/// Memory cannot move from one pool to the other, so the division assumes a length of sequences. Longer sequences leave
/// windowed blocks unused, shorter ones leave the others unused. See `docs/internals/scheduler.md`.
#[derive(Debug, Clone, Copy)]
pub struct Division {
    /// The window of the pair.
    pub window: Option<Window>,
    /// The limits of a step.
    pub capacity: Capacity,
    /// Tokens of the longest sequence, if that was set.
    pub max_model_len: Option<usize>,
    /// Tokens of a sequence that should fit, if it was not.
    pub long_len: usize,
}

impl Division {
    /// The most blocks that fit into memories, each given by its bytes and by what a block of each kind takes of it.
    pub fn blocks_in(&self, memories: &[(usize, PerKind<usize>)]) -> PerKind<usize> {
        let longest = self.longest();
        let holds_longest = |blocks: &PerKind<usize>| blocks.full >= self.blocks_of(longest);
        let usual = self.most(self.usual_len(), memories);
        let for_longest = || Some(self.most(longest, memories)).filter(holds_longest);
        if holds_longest(&usual) { usual } else { for_longest().unwrap_or(usual) }
    }

    /// Blocks for one sequence of the longest length.
    pub fn blocks_of_longest(&self) -> PerKind<usize> {
        let full = self.blocks_of(self.longest());
        PerKind { full, windowed: self.windowed(full, self.longest()) }
    }

    fn longest(&self) -> usize {
        self.max_model_len.unwrap_or(self.long_len)
    }

    /// The length of sequences that is assumed: where none is set, one at which neither much shorter nor much longer sequences
    /// leave a large part of the memory unused. A limit that was set may be far above what is usual.
    fn usual_len(&self) -> usize {
        let window = self.window.map_or(1, |window| window.len);
        self.max_model_len.map_or(2 * window, |len| len.min(4 * window))
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
