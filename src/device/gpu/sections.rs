//! The places of a step's lists within the step's buffer.

use super::abi::{SampleWords, SpanWords};
use crate::device::types::batch::Capacity;

/// A list within the step's buffer.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// First byte.
    pub offset: usize,
    /// Bytes.
    pub len: usize,
}

impl Section {
    /// A section that begins at `end`, which it moves to its own end.
    fn after(end: &mut usize, len: usize) -> Self {
        let offset = *end;
        *end += len.next_multiple_of(256);
        Self { offset, len }
    }
}

/// The place of each list of a step within its buffer.
#[derive(Debug, Clone, Copy)]
pub struct Sections {
    /// `[tokens]` u32: token ids.
    pub tokens: Section,
    /// `[tokens]` u32: the output of the step before that sampled the token, or [`NONE`](super::abi::NONE) where `tokens` has it.
    pub source_outputs: Section,
    /// `[tokens]` u32: positions in the sequences.
    pub positions: Section,
    /// `[tokens]` u32: the cache slot of keys and values, `block * block_size + position % block_size`, or [`NONE`](super::abi::NONE).
    pub slots: Section,
    /// `[spans]` [`SpanWords`]
    pub spans: Section,
    /// `[prefills]` u32: the spans that the prefill kernel computes.
    pub prefills: Section,
    /// `[outputs]` u32: the tokens whose logits are wanted.
    pub logits_indices: Section,
    /// `[outputs]` [`SampleWords`]
    pub samples: Section,
    /// `[blocks]` u32: the spans' block tables. This list is the longest. It comes last so that its unused part is not
    /// sent.
    pub blocks: Section,
}

impl Sections {
    /// The sections for steps of at most `capacity`, whose block tables together have at most `table_blocks` entries.
    pub fn new(capacity: Capacity, table_blocks: usize) -> Self {
        let Capacity { max_num_seqs: rows, max_num_batched_tokens: tokens, .. } = capacity;
        let mut end = 0;
        let mut section = |len| Section::after(&mut end, len);
        let word = size_of::<u32>();
        Self {
            tokens: section(tokens * word),
            source_outputs: section(tokens * word),
            positions: section(tokens * word),
            slots: section(tokens * word),
            spans: section(rows * size_of::<SpanWords>()),
            prefills: section(rows * word),
            logits_indices: section(rows * word),
            samples: section(rows * size_of::<SampleWords>()),
            blocks: section(table_blocks * word),
        }
    }

    pub fn bytes(&self) -> usize {
        self.blocks.offset + self.blocks.len
    }
}

/// The places of the lists for layers with a window. They have a buffer of their own, so that the unused part of
/// [`Sections::blocks`] is not sent.
#[derive(Debug, Clone, Copy)]
pub struct WindowedSections {
    /// `[tokens]` u32: as [`Sections::slots`].
    pub slots: Section,
    /// `[blocks]` u32: as [`Sections::blocks`], in the same places.
    pub blocks: Section,
}

impl WindowedSections {
    /// See [`Sections::new`].
    pub fn new(capacity: Capacity, table_blocks: usize) -> Self {
        let mut end = 0;
        let mut section = |len| Section::after(&mut end, len * size_of::<u32>());
        Self { slots: section(capacity.max_num_batched_tokens), blocks: section(table_blocks) }
    }

    pub fn bytes(&self) -> usize {
        self.blocks.offset + self.blocks.len
    }
}
