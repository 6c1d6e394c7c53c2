//! Where each list of a step lies within the step's buffer.

use super::abi::{SampleWords, SpanWords};
use crate::device::StepCapacity;

/// A list within the step's buffer.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// First byte.
    pub offset: usize,
    /// Bytes.
    pub len: usize,
}

/// Where each list of a step lies within its buffer.
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
    pub fn new(room: &StepCapacity<'_>) -> Self {
        let mut end = 0;
        let mut section = |len: usize| {
            let offset = end;
            end += len.next_multiple_of(256);
            Section { offset, len }
        };
        let word = size_of::<u32>();
        Self {
            tokens: section(room.tokens * word),
            source_outputs: section(room.tokens * word),
            positions: section(room.tokens * word),
            slots: section(room.tokens * word),
            spans: section(room.sequences * size_of::<SpanWords>()),
            prefills: section(room.sequences * word),
            logits_indices: section(room.sequences * word),
            samples: section(room.sequences * size_of::<SampleWords>()),
            blocks: section(room.blocks * word),
        }
    }

    pub fn bytes(&self) -> usize {
        self.blocks.offset + self.blocks.len
    }
}
