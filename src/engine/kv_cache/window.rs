//! What a sequence needs of the blocks of layers with a window.

/// The windows of a pair's layers. Expert and amateur have one block table, so the longest window of both counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Positions that a token sees in the layer that looks back furthest, its own included; at least 1.
    pub len: usize,
    /// Positions that the amateur may be behind the expert before it must catch up; 0 if it is never deferred.
    pub max_lag: usize,
}

impl Window {
    /// The first block that a token at `position`, or one after it, sees.
    pub fn first_block(&self, position: usize, block_size: usize) -> usize {
        (position + 1).saturating_sub(self.len) / block_size
    }

    /// The most blocks that a sequence needs at once while a step computes `num_tokens` of its positions and the amateur
    /// is `lag` positions behind.
    pub fn blocks(&self, num_tokens: usize, lag: usize, block_size: usize) -> usize {
        let positions = self.len - 1 + lag.max(self.max_lag) + num_tokens.max(1);
        // The first position may be the last of its block.
        (positions - 1).div_ceil(block_size) + 1
    }
}
