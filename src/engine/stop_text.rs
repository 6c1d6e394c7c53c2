//! Texts that end a response.

use std::sync::Arc;

use crate::ids::TokenId;
use crate::text::Detokenizer;

/// Looks for stop texts in a response while it grows.
#[derive(Debug)]
pub struct StopText {
    stops: Arc<[String]>,
    decoder: Detokenizer,
    /// The end of the text so far, which a stop text may begin with.
    tail: String,
}

impl StopText {
    /// Looks for any of `stops`, which are not empty.
    pub fn new(stops: Arc<[String]>, decoder: Detokenizer) -> Self {
        Self { stops, decoder, tail: String::new() }
    }

    /// Takes the next token. Returns true if the text holds a stop text.
    pub fn push(&mut self, token: TokenId) -> bool {
        // A token that cannot be decoded has no text; the response's end reports it.
        self.tail.push_str(&self.decoder.push(token).unwrap_or_default());
        if self.first(&self.tail).is_some() {
            return true;
        }
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let mut cut = self.tail.len().saturating_sub(longest);
        while !self.tail.is_char_boundary(cut) {
            cut -= 1;
        }
        self.tail.drain(..cut);
        false
    }

    /// Where the first stop text begins.
    pub fn first(&self, text: &str) -> Option<usize> {
        self.stops.iter().filter_map(|stop| text.find(stop.as_str())).min()
    }
}
