//! The ids that may be sampled.

use crate::ids::TokenId;

/// Which ids may be sampled, and which of them are special.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {
    /// Ids at and above this are padding of the models' embeddings, or not in them, and never sampled.
    pub len: usize,
    /// Special tokens, ascending.
    pub special: Vec<TokenId>,
}

impl Vocabulary {
    /// A vocabulary of `len` tokens of which `special` (in any order) are special.
    pub fn new(len: usize, mut special: Vec<TokenId>) -> Self {
        special.sort_unstable();
        special.dedup();
        Self { len, special }
    }

    /// What of it has a row in embeddings of `rows` rows. Only special tokens may have none, such as the place of an image
    /// that a model without vision was trained without: a prompt must not hold them, and they are never sampled.
    ///
    /// # Errors
    /// The first id without a row that is not special.
    pub fn within(&self, rows: usize) -> std::result::Result<Self, TokenId> {
        let mut beyond = (rows..self.len).map(|id| TokenId(id as u32));
        match beyond.find(|id| !self.is_special(*id)) {
            Some(id) => Err(id),
            None => Ok(Self {
                len: self.len.min(rows),
                special: self.special.iter().copied().filter(|id| id.index() < rows).collect(),
            }),
        }
    }

    /// Whether `token` is special.
    pub fn is_special(&self, token: TokenId) -> bool {
        self.special.binary_search(&token).is_ok()
    }
}
