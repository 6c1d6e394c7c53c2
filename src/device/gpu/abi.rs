//! The step's buffer and the words in it, laid out as the kernels read them.

use bytemuck::{Pod, Zeroable};

use crate::contrast::{LogProbabilities, RowFault, Sampled};
use crate::device::{RowResult, SampleRow, StepCapacity};
use crate::ids::TokenId;

/// Stands for no slot, no token, no output.
pub const NONE: u32 = u32::MAX;

/// A list within the step's buffer.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// First byte.
    pub offset: usize,
    /// Bytes.
    pub len: usize,
}

/// Where the lists are.
#[derive(Debug, Clone, Copy)]
pub struct Sections {
    /// `[tokens]` u32: ids.
    pub tokens: Section,
    /// `[tokens]` u32: which result of the step before is the token instead, or [`NONE`].
    pub fed: Section,
    /// `[tokens]` u32
    pub positions: Section,
    /// `[tokens]` u32: `block * block_size + position % block_size`, where keys and values go, or [`NONE`].
    pub slots: Section,
    /// `[spans]` [`SpanWords`]
    pub spans: Section,
    /// `[prefills]` u32: the spans that are computed as prompts are.
    pub prefills: Section,
    /// `[outputs]` u32: rows whose logits are wanted.
    pub outputs: Section,
    /// `[outputs]` [`SampleWords`]
    pub samples: Section,
    /// The spans' block tables, u32. The longest list, and the last, so that what is not used is not sent.
    pub blocks: Section,
}

/// A span, for the kernels.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct SpanWords {
    /// Its first row.
    pub first_token: u32,
    /// Its rows.
    pub tokens: u32,
    /// Positions in the cache after this step; 0 in a span that is padding.
    pub context: u32,
    /// Where its blocks begin in the list of blocks.
    pub first_block: u32,
}

/// A row to sample, for the kernel.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct SampleWords {
    /// `ln(alpha)`; `-inf` keeps all.
    pub ln_alpha: f64,
    /// Of ordinary tokens.
    pub beta: f64,
    /// Of special tokens.
    pub special_beta: f64,
    /// 0 takes the best.
    pub temperature: f64,
    /// 1 keeps all.
    pub top_p: f64,
    /// 0 keeps all.
    pub min_p: f64,
    /// 0 keeps all.
    pub top_k: u32,
    /// The position of the drawn token; [`NONE`] in a row that is padding, which is not sampled and whose result stays
    /// as it is.
    pub position: u32,
    /// Of the noise.
    pub key: [u32; 2],
    /// Of the noise.
    pub record: [u32; 2],
    /// Which row of the deferred logits is this one's, or [`NONE`].
    pub deferred_row: u32,
    /// 1 where log-probabilities are wanted.
    pub flags: u32,
}

/// What the kernel says of a row.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct ResultWords {
    /// The token; 0 where there is none.
    pub token: u32,
    /// 0 for a token, 1 for a NaN, 2 where all is masked, 3 where the amateur must have its say.
    pub status: u32,
    /// |head|
    pub head: u32,
    /// `log_softmax(s)` at the token.
    pub score: f32,
    /// `l_e` at the token.
    pub expert_log_probability: f32,
    /// `l_a` at the token; NaN where the amateur has no say in the row.
    pub amateur_log_probability: f32,
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
            fed: section(room.tokens * word),
            positions: section(room.tokens * word),
            slots: section(room.tokens * word),
            spans: section(room.sequences * size_of::<SpanWords>()),
            prefills: section(room.sequences * word),
            outputs: section(room.sequences * word),
            samples: section(room.sequences * size_of::<SampleWords>()),
            blocks: section(room.blocks * word),
        }
    }

    pub fn bytes(&self) -> usize {
        self.blocks.offset + self.blocks.len
    }
}

impl SampleWords {
    pub fn new(row: &SampleRow) -> Self {
        let (contrast, [key, record]) = (&row.contrast, row.noise.words());
        Self {
            ln_alpha: contrast.alpha.ln(),
            beta: contrast.beta,
            special_beta: contrast.special_beta(),
            temperature: contrast.temperature,
            top_p: contrast.top_p,
            min_p: contrast.min_p,
            top_k: contrast.top_k,
            position: row.position,
            key,
            record,
            deferred_row: row.deferred_row.unwrap_or(NONE),
            flags: u32::from(row.log_probabilities),
        }
    }
}

impl ResultWords {
    pub fn result(&self) -> Option<RowResult> {
        Some(match self.status {
            0 => Ok(Sampled {
                token: TokenId(self.token),
                score: self.score,
                num_candidates: self.head,
                log_probabilities: Some(LogProbabilities {
                    expert: self.expert_log_probability,
                    amateur: Some(self.amateur_log_probability).filter(|l_a| !l_a.is_nan()),
                }),
            }),
            1 => Err(RowFault::NotANumber),
            2 => Err(RowFault::AllMasked),
            _ => return None,
        })
    }
}

/// Tokens of a tile, the work of one warp.
pub const TILE: usize = 512;

/// Bytes that the kernels keep of a tile: its peaks, sums, faults and winner.
const TILE_BYTES: usize = 36;

/// Bytes that the kernels need for each row that samples.
pub fn row_bytes(vocabulary: usize) -> usize {
    vocabulary.div_ceil(TILE) * TILE_BYTES
}
