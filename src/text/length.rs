//! How much text a token can stand for, so that a text that cannot fit is refused before it is tokenized.

use serde_json::Value;
use tokenizers::{ModelWrapper, Tokenizer};

/// How many times longer than its normal form a text can be: a Hangul syllable of three letters, or a letter of an alphabet
/// that normalization replaces.
const MOST_SHRINKAGE: usize = 4;

/// The longest text that a token stands for.
#[derive(Debug, Clone)]
pub(super) struct LongestToken {
    bytes: usize,
    /// Whether white space counts. Some added tokens take all white space beside them.
    counts_space: bool,
    /// The bytes that have a token. A byte without one may vanish, so it does not count.
    counted: [bool; 256],
}

impl LongestToken {
    /// The fewest tokens that `text` can have.
    pub(super) fn least_tokens(&self, text: &str) -> usize {
        let counted = |text: &str| text.bytes().filter(|byte| self.counted[usize::from(*byte)]).count();
        let bytes: usize = if self.counts_space {
            counted(text)
        } else {
            text.split(char::is_whitespace).map(counted).sum()
        };
        bytes / self.bytes
    }
}

/// The letter that stands for each byte in byte-level tokens, as GPT-2 assigns them: a visible byte is its own letter, and
/// the others follow from U+0100 on.
fn byte_letters() -> [char; 256] {
    let is_visible = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        let byte = byte as u8;
        if is_visible(byte) {
            return char::from(byte);
        }
        next += 1;
        char::from_u32(next - 1).unwrap_or_default()
    })
}

/// The longest text of a token; `None` where a token may stand for a text of any length, or a text may vanish.
pub(super) fn longest_token(library: &Tokenizer) -> Option<LongestToken> {
    let shrinkage = match library.get_normalizer() {
        None => 1,
        Some(normalizer) => shrinkage(&serde_json::to_value(normalizer).ok()?)?,
    };
    let splitter =
        library.get_pre_tokenizer().map(serde_json::to_value).transpose().ok()?.unwrap_or_default();
    (splitter.is_null() || keeps_all(&splitter)).then_some(())?;
    let ModelWrapper::BPE(model) = library.get_model() else { return None };
    let vocabulary = library.get_vocab(true);
    let has = |token: &str| vocabulary.contains_key(token);
    let counted: [bool; 256] = if model.byte_fallback {
        // A character without a token is spelled in bytes only if all of them have tokens.
        let has_all = (0..=u8::MAX).all(|byte| has(&format!("<0x{byte:02X}>")));
        [has_all; 256]
    } else if is_byte_level(&splitter) {
        byte_letters().map(|letter| has(letter.encode_utf8(&mut [0; 4])))
    } else {
        return None;
    };
    if !counted.contains(&true) {
        return None;
    }
    let longest = vocabulary.keys().map(String::len).max()?;
    let takes_space = |token: &tokenizers::AddedToken| token.lstrip || token.rstrip;
    let counts_space = !library.get_added_tokens_decoder().values().any(takes_space);
    Some(LongestToken { bytes: longest.checked_mul(shrinkage)?.max(1), counts_space, counted })
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

/// Whether a splitter spells text in [`byte_letters`].
fn is_byte_level(splitter: &Value) -> bool {
    match splitter["type"].as_str() {
        Some("ByteLevel") => true,
        Some("Sequence") => {
            splitter["pretokenizers"].as_array().is_some_and(|parts| parts.iter().any(is_byte_level))
        }
        _ => false,
    }
}
