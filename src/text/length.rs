//! How much text a token can stand for, so that a text that cannot fit is refused before it is tokenized.

use serde_json::Value;
use tokenizers::{ModelWrapper, Tokenizer};

/// Bytes of the alphabet that byte-level tokens are spelled in.
const ALL_BYTES: usize = 256;
/// How many times longer than its normal form a text can be: a Hangul syllable of three letters, or a letter of an alphabet
/// that normalization replaces.
const MOST_SHRINKAGE: usize = 4;

/// The longest text that a token stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct LongestToken {
    bytes: usize,
    /// Whether white space counts. Some added tokens take all white space beside them.
    counts_space: bool,
}

impl LongestToken {
    /// The fewest tokens that `text` can have.
    pub(super) fn least_tokens(self, text: &str) -> usize {
        let bytes = if self.counts_space {
            text.len()
        } else {
            text.chars().filter(|character| !character.is_whitespace()).map(char::len_utf8).sum()
        };
        bytes / self.bytes
    }
}

/// The longest text of a token; `None` where a token may stand for a text of any length, or a text may vanish.
pub(super) fn longest_token(library: &Tokenizer) -> Option<LongestToken> {
    let shrinkage = match library.get_normalizer() {
        None => 1,
        Some(normalizer) => shrinkage(&serde_json::to_value(normalizer).ok()?)?,
    };
    if let Some(splitter) = library.get_pre_tokenizer() {
        keeps_all(&serde_json::to_value(splitter).ok()?).then_some(())?;
    }
    let ModelWrapper::BPE(model) = library.get_model() else { return None };
    let vocabulary = library.get_vocab(true);
    let bytes = (0..ALL_BYTES).filter(|byte| vocabulary.contains_key(&format!("<0x{byte:02X}>"))).count();
    let letters = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
    let is_byte_level = letters.iter().all(|letter| vocabulary.contains_key(letter.encode_utf8(&mut [0; 4])));
    if !(is_byte_level || (model.byte_fallback && bytes == ALL_BYTES)) {
        return None;
    }
    let longest = vocabulary.keys().map(String::len).max()?;
    let takes_space = |token: &tokenizers::AddedToken| token.lstrip || token.rstrip;
    let counts_space = !library.get_added_tokens_decoder().values().any(takes_space);
    Some(LongestToken { bytes: longest.checked_mul(shrinkage)?.max(1), counts_space })
}

/// How many times longer than its normal form a text can be; `None` if it is not known.
fn shrinkage(normalizer: &Value) -> Option<usize> {
    match normalizer["type"].as_str()? {
        "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" => Some(MOST_SHRINKAGE),
        "Prepend" | "ByteLevel" => Some(1),
        "Replace" => {
            let (old, new) = (normalizer["pattern"]["String"].as_str()?, normalizer["content"].as_str()?);
            (new.len() >= old.len()).then_some(1)
        }
        "Sequence" => normalizer["normalizers"]
            .as_array()?
            .iter()
            .map(shrinkage)
            .try_fold(1, |product: usize, each| product.checked_mul(each?)),
        _ => None,
    }
}

/// Whether splitting leaves no text out.
fn keeps_all(splitter: &Value) -> bool {
    match splitter["type"].as_str() {
        Some("ByteLevel" | "Metaspace" | "Digits") => true,
        Some("Split" | "Punctuation") => splitter["behavior"] != "Removed",
        Some("Sequence") => {
            splitter["pretokenizers"].as_array().is_some_and(|parts| parts.iter().all(keeps_all))
        }
        _ => false,
    }
}
