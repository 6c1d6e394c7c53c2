//! Decodes a sequence while it grows.

use super::tokenizer::Tokenizer;
use crate::error::Result;
use crate::ids::TokenId;

/// A character has at most this many bytes, so at most this many tokens decide whether it is whole.
const LONGEST_CHARACTER: usize = 4;

/// Decodes tokens one at a time and returns text as soon as no later token can change it. All pieces together equal
/// the result of [`Tokenizer::decode`] for all tokens.
///
/// (The library's own `DecodeStream` cannot return the rest at the end, and it returns the beginning of a run of byte
/// tokens that a later one can still turn into U+FFFD.)
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    skip_special: bool,
    /// The last token whose text was returned, if any, then the tokens whose text was not. The former is kept because
    /// the first token of a text may decode differently from the same token further on.
    window: Vec<TokenId>,
    /// How many tokens of the window were returned, 0 or 1.
    out: usize,
}

impl Tokenizer {
    /// A decoder for one sequence.
    pub fn detokenizer(&self, skip_special: bool) -> Detokenizer {
        Detokenizer { tokenizer: self.clone(), skip_special, window: Vec::new(), out: 0 }
    }
}

impl Detokenizer {
    /// Takes the next token and returns the text that is now certain, which is often empty.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, token: TokenId) -> Result<String> {
        let Some(spelling) = self.tokenizer.token_of(token) else { return Ok(String::new()) };
        if self.skip_special && self.tokenizer.vocabulary().is_special(token) {
            return Ok(String::new());
        }
        self.window.push(token);
        if is_byte(&spelling) || self.ends_inside_a_character()? {
            return Ok(String::new());
        }
        let text = self.held_text()?;
        if !text.is_empty() {
            self.window.drain(..self.window.len() - 1);
            self.out = 1;
        }
        Ok(text)
    }

    /// The remaining text, once no token follows.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(self) -> Result<String> {
        self.held_text()
    }

    fn held_text(&self) -> Result<String> {
        let context = self.tokenizer.decode(&self.window[..self.out], self.skip_special)?;
        let text = self.tokenizer.decode(&self.window, self.skip_special)?;
        Ok(text.strip_prefix(&context).unwrap_or_default().to_owned())
    }

    fn ends_inside_a_character(&self) -> Result<bool> {
        let tail = &self.window[self.window.len().saturating_sub(LONGEST_CHARACTER)..];
        Ok(self.tokenizer.decode(tail, self.skip_special)?.ends_with(char::REPLACEMENT_CHARACTER))
    }
}

/// Whether byte fallback reads a token as one byte. A run of such tokens is decoded as a whole: one bad byte turns
/// all of them into U+FFFD.
fn is_byte(spelling: &str) -> bool {
    spelling
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'))
        .is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}
