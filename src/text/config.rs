//! `tokenizer_config.json`: the named special tokens, and the tokens that it adds to `tokenizer.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};

pub(super) const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";

/// The named tokens that a template may use, as `transformers` lists them.
const NAMED_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The entries of `tokenizer_config.json` that text depends on. `add_bos_token` and `add_eos_token` are not among
/// them: `transformers` ignores both beside a `tokenizer.json`, whose post-processor decides.
#[derive(Debug, Default)]
pub(super) struct TokenizerConfig {
    /// `bos_token` and the other named tokens, by name.
    pub(super) named_tokens: BTreeMap<&'static str, String>,
    /// Added tokens, by their id.
    pub(super) added_tokens: BTreeMap<u32, AddedToken>,
    /// Whether special tokens in a text are treated as plain text.
    pub(super) split_special_tokens: bool,
    /// The entry `chat_template`, unchanged.
    pub(super) chat_template: Option<Value>,
}

impl TokenizerConfig {
    /// Reads `tokenizer_config.json` and, if that lists no added tokens, `special_tokens_map.json`. A checkpoint may
    /// have neither.
    ///
    /// # Errors
    /// [`Error::File`] if a file is not JSON or an entry has another type than it should.
    pub(super) fn load(checkpoint: &Checkpoint) -> Result<Self> {
        let Some(mut entries) = read_object(checkpoint, TOKENIZER_CONFIG_FILE)? else {
            return Ok(Self::default());
        };
        if !entries.contains_key("added_tokens_decoder")
            && let Some(special_tokens) = read_object(checkpoint, SPECIAL_TOKENS_FILE)?
        {
            entries.extend(special_tokens);
        }
        let mut named_tokens = BTreeMap::new();
        for name in NAMED_TOKENS {
            if let Some(token) = entry::<TokenText>(checkpoint, &mut entries, name)? {
                named_tokens.insert(name, token.into_content());
            }
        }
        Ok(Self {
            named_tokens,
            added_tokens: entry(checkpoint, &mut entries, "added_tokens_decoder")?.unwrap_or_default(),
            split_special_tokens: entry(checkpoint, &mut entries, "split_special_tokens")?
                .unwrap_or_default(),
            chat_template: entries.remove("chat_template").filter(|template| !template.is_null()),
        })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TokenText {
    Plain(String),
    Described { content: String },
}

impl TokenText {
    fn into_content(self) -> String {
        match self {
            Self::Plain(content) | Self::Described { content } => content,
        }
    }
}

fn read_object(checkpoint: &Checkpoint, file: &str) -> Result<Option<Map<String, Value>>> {
    let Some(bytes) = checkpoint.find(file)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::file(checkpoint.path(file), error.to_string()))
}

/// Takes `name` from `entries`; `None` if it is missing or null.
fn entry<T: DeserializeOwned>(
    checkpoint: &Checkpoint,
    entries: &mut Map<String, Value>,
    name: &str,
) -> Result<Option<T>> {
    let value = entries.remove(name).unwrap_or_default();
    serde_json::from_value(value)
        .map_err(|error| Error::file(checkpoint.path(TOKENIZER_CONFIG_FILE), format!("{name}: {error}")))
}
