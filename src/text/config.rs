//! `tokenizer_config.json`: the named special tokens, and the tokens that it adds to `tokenizer.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::checkpoint::{Bytes, Checkpoint};
use crate::error::{Error, Result};
use crate::python_json;

pub(super) const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";

/// The end of the names of tokens that a template may use, such as `bos_token`.
const NAMED_TOKEN: &str = "_token";
const EXTRA_TOKENS: &str = "extra_special_tokens";

/// The named tokens that `transformers` gives every tokenizer.
const USUAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The entries of `tokenizer_config.json` that text depends on. `add_bos_token` and `add_eos_token` are not among
/// them: `transformers` ignores both beside a `tokenizer.json`, whose post-processor decides.
#[derive(Debug, Default)]
pub(super) struct TokenizerConfig {
    /// `bos_token` and every other entry whose name ends like it, and those of `extra_special_tokens` that have a name.
    pub(super) named_tokens: BTreeMap<String, String>,
    /// The entries of `extra_special_tokens` that have no name.
    pub(super) extra_tokens: Vec<String>,
    /// The tokens that a template writes, if the publisher lists them.
    pub(super) control_tokens: Option<Vec<String>>,
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
        let names: Vec<String> = entries.keys().filter(|name| name.ends_with(NAMED_TOKEN)).cloned().collect();
        for name in names {
            // An entry that is only named alike, such as a number, is none.
            let is_token = |value: &Value| value.is_string() || value.get("content").is_some();
            if USUAL_TOKENS.contains(&name.as_str()) || entries.get(&name).is_some_and(is_token) {
                if let Some(token) = entry::<TokenText>(checkpoint, &mut entries, &name)? {
                    named_tokens.insert(name, token.into_content());
                }
            }
        }
        let mut extra_tokens = Vec::new();
        match entry::<ExtraTokens>(checkpoint, &mut entries, EXTRA_TOKENS)? {
            Some(ExtraTokens::Named(tokens)) => {
                named_tokens.extend(tokens.into_iter().map(|(name, token)| (name, token.into_content())));
            }
            Some(ExtraTokens::Listed(tokens)) => {
                extra_tokens.extend(tokens.into_iter().map(TokenText::into_content));
            }
            None => {}
        }
        Ok(Self {
            named_tokens,
            extra_tokens,
            control_tokens: entry(checkpoint, &mut entries, "chat_control_tokens")?,
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

#[derive(Deserialize)]
#[serde(untagged)]
enum ExtraTokens {
    Named(BTreeMap<String, TokenText>),
    Listed(Vec<TokenText>),
}

impl TokenText {
    fn into_content(self) -> String {
        match self {
            Self::Plain(content) | Self::Described { content } => content,
        }
    }
}

/// Bytes of the largest file with text. The largest tokenizers have some 30 MiB.
const LARGEST_FILE: usize = 512 << 20;

/// Refuses a file that is far larger than any of its kind, before it is read.
pub(super) fn check_size(checkpoint: &Checkpoint, file: &str, bytes: &Bytes) -> Result<()> {
    if bytes.len() <= LARGEST_FILE {
        return Ok(());
    }
    let message =
        format!("it has {} bytes, more than {} MiB; download it again", bytes.len(), LARGEST_FILE >> 20);
    Err(Error::file(checkpoint.path(file), message))
}

fn read_object(checkpoint: &Checkpoint, file: &str) -> Result<Option<Map<String, Value>>> {
    let Some(bytes) = checkpoint.find(file)? else { return Ok(None) };
    check_size(checkpoint, file, &bytes)?;
    python_json::from_slice(&bytes)
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
