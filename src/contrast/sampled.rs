//! What sampling gives for a row of logits: a token, or the row's fault.

use crate::ids::TokenId;

/// Why a row of logits has no next token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowFault {
    /// A NaN or `+inf` among the logits.
    #[error("a logit is NaN or infinite")]
    NotANumber,
    /// Every token is masked.
    #[error("every token is masked")]
    AllMasked,
    /// The contrast exceeds the range of numbers.
    #[error("the scores are too large for numbers (give a smaller beta)")]
    Overflow,
}

/// What a row's sampling gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampled {
    /// The next token.
    pub token: TokenId,
    /// `log_softmax(s)` at the token: before temperature and before top-k, top-p, min-p.
    pub score: f32,
    /// Size of the plausible set; a token whose set has 1 is forced.
    pub num_candidates: u32,
    /// What the models think of it: always there where the row asked for it.
    pub log_probabilities: Option<LogProbabilities>,
}

/// What the models think of a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogProbabilities {
    /// `l_e`
    pub expert: f32,
    /// `l_a`, `-inf` where the amateur masks the token; `None` where the amateur has no say in the row.
    pub amateur: Option<f32>,
}
