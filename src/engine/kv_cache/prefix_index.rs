//! The prefix index: finds blocks of the cache by the tokens that they hold.
//!
//! A full block is found by the hash of its tokens and of all tokens before them. The last block of a prompt, which is usually
//! not full, is found by the hash of the tokens before it. Only known tokens enter the index.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::ids::{BlockId, TokenId};

/// Identifies the content of a full block: a hash of its tokens and of all tokens before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct BlockHash([u8; 16]);

impl BlockHash {
    /// The hash of the block that holds `tokens` and follows the block of this hash. The default hash comes before the first
    /// block.
    #[must_use]
    pub fn followed_by(&self, tokens: &[TokenId]) -> Self {
        let mut digest = Sha256::new_with_prefix(self.0);
        digest.update(bytemuck::cast_slice(tokens));
        let digest = digest.finalize();
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        Self(hash)
    }
}

/// The last block of a prompt. Different tokens may follow the prompt in it, so a sequence copies it before it writes to it.
#[derive(Debug, Clone)]
pub struct PartialBlock {
    /// The block.
    pub block: BlockId,
    /// The prompt's tokens in it.
    pub tokens: Vec<TokenId>,
    /// The number of the plan whose step computes them with the expert.
    pub plan: u64,
    /// Whether the steps planned so far compute them with the amateur too.
    pub has_amateur: bool,
}

/// Finds blocks by their content.
#[derive(Debug)]
pub struct PrefixIndex {
    full_blocks: HashMap<BlockHash, BlockId>,
    /// By the hash of the block before.
    partial_blocks: HashMap<BlockHash, PartialBlock>,
    /// By block id.
    entries: Vec<Entry>,
}

/// What the index knows of a block.
#[derive(Debug, Clone, Default)]
struct Entry {
    /// Its hash, if it can be found as a full block.
    hash: Option<BlockHash>,
    /// Whether the amateur's plane of the block is full too.
    has_amateur: bool,
    /// The hash before it, if it can be found as a partial block.
    partial_after: Option<BlockHash>,
}

impl PrefixIndex {
    /// An empty index over `num_blocks` blocks.
    pub fn new(num_blocks: usize) -> Self {
        Self {
            full_blocks: HashMap::new(),
            partial_blocks: HashMap::new(),
            entries: vec![Entry::default(); num_blocks],
        }
    }

    /// The full block of this hash.
    pub fn find(&self, hash: &BlockHash) -> Option<BlockId> {
        self.full_blocks.get(hash).copied()
    }

    /// Inserts a block that the expert's steps planned so far fill. `has_amateur` says whether the amateur's do too. If two
    /// blocks have the same hash, the index prefers one that both models have computed.
    pub fn insert(&mut self, id: BlockId, hash: BlockHash, has_amateur: bool) {
        self.entries[id.index()].has_amateur |= has_amateur;
        if let Some(other) = self.find(&hash) {
            if !has_amateur || self.has_amateur(other) {
                return;
            }
            self.entries[other.index()].hash = None;
        }
        self.full_blocks.insert(hash, id);
        self.entries[id.index()].hash = Some(hash);
    }

    /// Removes a block whose content is about to change.
    pub fn remove(&mut self, id: BlockId) {
        let Entry { hash, partial_after, .. } = std::mem::take(&mut self.entries[id.index()]);
        if let Some(hash) = hash {
            self.full_blocks.remove(&hash);
        }
        if let Some(before) = partial_after {
            self.partial_blocks.remove(&before);
        }
    }

    /// Whether the amateur's steps planned so far fill a block.
    pub fn has_amateur(&self, id: BlockId) -> bool {
        self.entries[id.index()].has_amateur
    }

    /// Notes that a planned step of the amateur fills a block.
    pub fn set_amateur(&mut self, id: BlockId) {
        self.entries[id.index()].has_amateur = true;
    }

    /// The partial block that follows the block of hash `before`.
    pub fn find_partial(&self, before: &BlockHash) -> Option<&PartialBlock> {
        self.partial_blocks.get(before)
    }

    /// Inserts the last block of a prompt. It replaces another partial block that follows the same block.
    pub fn insert_partial(&mut self, before: BlockHash, partial: PartialBlock) {
        let block = partial.block;
        if let Some(old) = self.partial_blocks.insert(before, partial) {
            self.entries[old.block.index()].partial_after = None;
        }
        self.entries[block.index()].partial_after = Some(before);
    }

    /// Notes that a planned step of the amateur computes the end of the prompt in this block, if it is a partial block.
    pub fn set_amateur_of_partial(&mut self, id: BlockId) {
        let before = self.entries[id.index()].partial_after;
        if let Some(partial) = before.and_then(|before| self.partial_blocks.get_mut(&before)) {
            partial.has_amateur = true;
        }
    }
}
