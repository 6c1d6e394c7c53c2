//! One pool of block ids for both models' planes of the cache, and what is known to be in them.
//!
//! A full block is found by its content: the tokens in it and all before them. It stays findable when nobody holds it
//! any more, until the pool gives it to someone else, the one that was freed first at first.

use std::collections::{BTreeSet, HashMap};

use sha2::{Digest, Sha256};

use crate::ids::{BlockId, TokenId};

/// What a block holds: the digest of its tokens and of all before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Content([u8; 16]);

impl Content {
    /// That of the block that holds `tokens` after one of this content; the default comes before the first.
    #[must_use]
    pub fn then(&self, tokens: &[TokenId]) -> Self {
        let mut digest = Sha256::new_with_prefix(self.0);
        digest.update(bytemuck::cast_slice(tokens));
        let digest = digest.finalize();
        let mut content = [0; 16];
        content.copy_from_slice(&digest[..16]);
        Self(content)
    }
}

/// The blocks of the paged cache: each is free or held by some sequences.
#[derive(Debug)]
pub struct BlockPool {
    blocks: Vec<Block>,
    /// By when they became free, the first to be given away first.
    free: BTreeSet<(u64, BlockId)>,
    /// How often a block became free.
    clock: u64,
    by_content: HashMap<Content, BlockId>,
    /// The ends of prompts, by the content that they follow.
    tails: HashMap<Content, Tail>,
}

/// The last block of a prompt, which other tokens may follow in it. Another sequence copies it before it writes to it.
#[derive(Debug, Clone)]
pub struct Tail {
    /// Where it is.
    pub block: BlockId,
    /// The prompt's tokens in it.
    pub tokens: Vec<TokenId>,
    /// The plan by whose step the expert has computed them.
    pub plan: u64,
    /// Whether the amateur has, too.
    pub has_amateur: bool,
}

#[derive(Debug, Clone, Default)]
struct Block {
    holders: u32,
    /// When it became free, where nobody holds it.
    freed: u64,
    /// Where it is full and may be found.
    content: Option<Content>,
    /// Whether the amateur's plane of it is full too.
    has_amateur: bool,
    /// What a tail in it follows.
    tail: Option<Content>,
}

impl BlockPool {
    /// A pool of `blocks` free blocks.
    pub fn new(blocks: usize) -> Self {
        Self {
            blocks: vec![Block::default(); blocks],
            free: (0..blocks as u32).map(|block| (0, BlockId(block))).collect(),
            clock: 0,
            by_content: HashMap::new(),
            tails: HashMap::new(),
        }
    }

    /// Blocks in the pool.
    pub fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that nobody holds.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// A block of no content, or `None` where all are held.
    pub fn take(&mut self) -> Option<BlockId> {
        let (_, id) = self.free.pop_first()?;
        let block = std::mem::replace(&mut self.blocks[id.index()], Block { holders: 1, ..Block::default() });
        if let Some(content) = block.content {
            self.by_content.remove(&content);
        }
        if let Some(before) = block.tail {
            self.tails.remove(&before);
        }
        Some(id)
    }

    /// Holds a block that [`BlockPool::find`] gave.
    pub fn share(&mut self, id: BlockId) {
        let block = &mut self.blocks[id.index()];
        self.free.remove(&(block.freed, id));
        block.holders += 1;
    }

    /// Gives blocks back, the last of them first, so that the beginnings of texts can be found longest. One that is not
    /// held is left alone: it must not become free twice.
    pub fn give_back(&mut self, blocks: impl DoubleEndedIterator<Item = BlockId>) {
        for id in blocks.rev() {
            let block = &mut self.blocks[id.index()];
            debug_assert!(block.holders > 0, "{id:?} is not held");
            if block.holders == 1 {
                self.clock += 1;
                block.freed = self.clock;
                self.free.insert((self.clock, id));
            }
            block.holders = block.holders.saturating_sub(1);
        }
    }

    /// The block of this content.
    pub fn find(&self, content: &Content) -> Option<BlockId> {
        self.by_content.get(content).copied()
    }

    /// Whether somebody holds it.
    pub fn is_held(&self, id: BlockId) -> bool {
        self.blocks[id.index()].holders > 0
    }

    /// Notes that the expert's plane of a held block is full by the steps planned so far, and maybe the amateur's, so that
    /// it can be found. One of two blocks of one content is: rather one that both models have.
    pub fn publish(&mut self, id: BlockId, content: Content, has_amateur: bool) {
        self.blocks[id.index()].has_amateur |= has_amateur;
        if let Some(other) = self.find(&content) {
            if !has_amateur || self.has_amateur(other) {
                return;
            }
            self.blocks[other.index()].content = None;
        }
        self.by_content.insert(content, id);
        self.blocks[id.index()].content = Some(content);
    }

    /// Whether the amateur's plane of a block is full by the steps planned so far.
    pub fn has_amateur(&self, id: BlockId) -> bool {
        self.blocks[id.index()].has_amateur
    }

    /// Notes that it is.
    pub fn set_amateur(&mut self, id: BlockId) {
        self.blocks[id.index()].has_amateur = true;
    }

    /// The end of a prompt that follows `before`.
    pub fn tail(&self, before: &Content) -> Option<&Tail> {
        self.tails.get(before)
    }

    /// Notes the end of a prompt in a held block. Of several that follow the same the last is known.
    pub fn set_tail(&mut self, before: Content, tail: Tail) {
        let block = tail.block;
        if let Some(old) = self.tails.insert(before, tail) {
            self.blocks[old.block.index()].tail = None;
        }
        self.blocks[block.index()].tail = Some(before);
    }

    /// Notes that the amateur has computed the end of a prompt in this block.
    pub fn set_amateur_of_tail(&mut self, id: BlockId) {
        let before = self.blocks[id.index()].tail;
        if let Some(tail) = before.and_then(|before| self.tails.get_mut(&before)) {
            tail.has_amateur = true;
        }
    }

    /// Whether `held`, all blocks that sequences hold, are held so often, and the free ones are the rest.
    pub fn accounts_for(&self, held: impl IntoIterator<Item = BlockId>) -> bool {
        let mut holders = vec![0; self.total()];
        held.into_iter().for_each(|block| holders[block.index()] += 1);
        let agrees = |(id, (block, holders)): (u32, (&Block, &u32))| {
            let is_free = self.free.contains(&(block.freed, BlockId(id)));
            block.holders == *holders && is_free == (*holders == 0)
        };
        (0..).zip(self.blocks.iter().zip(&holders)).all(agrees)
    }
}
