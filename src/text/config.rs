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

/// The named tokens of every tokenizer. They must be texts.
const STANDARD_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The entries of `tokenizer_config.json` that text depends on. `add_bos_token` and `add_eos_token` are not among
/// them: `transformers` ignores both beside a `tokenizer.json`, whose post-processor decides.
#[derive(Debug, Default)]
pub(super) struct TokenizerConfig {
    /// `bos_token` and every other `*_token` that is a text, and those of `extra_special_tokens` that have names. A
    /// template sees them as variables.
    pub(super) named_tokens: BTreeMap<String, String>,
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
        let named_tokens = named_tokens(checkpoint, &mut entries)?;
        Ok(Self {
            named_tokens,
            control_tokens: entry(checkpoint, &mut entries, "chat_control_tokens")?,
            added_tokens: entry(checkpoint, &mut entries, "added_tokens_decoder")?.unwrap_or_default(),
            split_special_tokens: entry(checkpoint, &mut entries, "split_special_tokens")?
                .unwrap_or_default(),
            chat_template: entries.remove("chat_template").filter(|template| !template.is_null()),
        })
    }
}

/// The tokens that have names. A name of its own in the file comes before the same one in `extra_special_tokens`.
fn named_tokens(
    checkpoint: &Checkpoint,
    entries: &mut Map<String, Value>,
) -> Result<BTreeMap<String, String>> {
    let mut named = BTreeMap::new();
    if let Some(Value::Object(extra)) = entries.get("extra_special_tokens") {
        for (name, token) in extra {
            if let Ok(token) = serde_json::from_value::<TokenText>(token.clone()) {
                named.insert(name.clone(), token.into_content());
            }
        }
    }
    let names: Vec<String> = entries.keys().filter(|name| name.ends_with("_token")).cloned().collect();
    for name in names {
        // `add_bos_token` and its like are flags.
        if !STANDARD_TOKENS.contains(&name.as_str())
            && !entries.get(&name).is_some_and(|token| token.is_string() || token["content"].is_string())
        {
            continue;
        }
        if let Some(token) = entry::<TokenText>(checkpoint, entries, &name)? {
            named.insert(name, token.into_content());
        }
    }
    Ok(named)
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
