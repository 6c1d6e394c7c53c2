//! `tokenizer_config.json`: the named special tokens, and the tokens that it adds to `tokenizer.json`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::checkpoint::{Bytes, Checkpoint};
use crate::error::{Error, Result, excerpt};
use crate::python_json;

pub(super) const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";
const ADDED_TOKENS_FILE: &str = "added_tokens.json";

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
    /// Every token that a file names, also in lists. `transformers` adds those that `tokenizer.json` lacks.
    pub(super) all_named: BTreeSet<String>,
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
        let Some(values) = read_object(checkpoint, TOKENIZER_CONFIG_FILE)? else {
            return Ok(Self::default());
        };
        let mut entries = Entries { checkpoint, values, special: Map::new() };
        let mut all_named = BTreeSet::new();
        if !entries.values.contains_key("added_tokens_decoder") {
            entries.special = read_object(checkpoint, SPECIAL_TOKENS_FILE)?.unwrap_or_default();
            all_named.extend(
                read_object(checkpoint, ADDED_TOKENS_FILE)?.into_iter().flatten().map(|(token, _)| token),
            );
        }
        let added: Option<BTreeMap<u32, DeclaredToken>> = entries.take("added_tokens_decoder")?;
        for list in ["additional_special_tokens", "extra_special_tokens"] {
            let listed =
                [&entries.values, &entries.special].map(|values| values.get(list).and_then(Value::as_array));
            all_named.extend(listed.into_iter().flatten().flatten().filter_map(content).map(str::to_owned));
        }
        let named_tokens = entries.named_tokens()?;
        all_named.extend(named_tokens.values().cloned());
        Ok(Self {
            named_tokens,
            all_named,
            control_tokens: entries.take("chat_control_tokens")?,
            added_tokens: added.into_iter().flatten().map(|(id, token)| (id, token.into())).collect(),
            split_special_tokens: entries.take("split_special_tokens")?.unwrap_or_default(),
            chat_template: entries.take("chat_template")?,
        })
    }
}

/// The entries of `tokenizer_config.json` that are not taken yet, and those of `special_tokens_map.json`, which come before
/// the same ones there.
struct Entries<'a> {
    checkpoint: &'a Checkpoint,
    values: Map<String, Value>,
    special: Map<String, Value>,
}

impl Entries<'_> {
    /// Takes the entry `name`; `None` if it is missing or null.
    fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>> {
        let fallback = self.values.remove(name);
        let (file, value) = match self.special.remove(name) {
            Some(value) => (SPECIAL_TOKENS_FILE, value),
            None => (TOKENIZER_CONFIG_FILE, fallback.unwrap_or_default()),
        };
        serde_json::from_value(value)
            .map_err(|error| Error::file(self.checkpoint.path(file), format!("{name}: {error}")))
    }

    /// The tokens that have names. A name of its own in the file comes before the same one in `extra_special_tokens`.
    fn named_tokens(&mut self) -> Result<BTreeMap<String, String>> {
        let mut named = BTreeMap::new();
        let extra = self.take::<Value>("extra_special_tokens")?;
        for (name, token) in extra.iter().filter_map(Value::as_object).flatten() {
            named.extend(content(token).map(|token| (name.clone(), token.to_owned())));
        }
        let names = self.values.keys().chain(self.special.keys());
        let names: BTreeSet<String> = names.filter(|name| name.ends_with("_token")).cloned().collect();
        for name in names {
            let is_standard = STANDARD_TOKENS.contains(&name.as_str());
            let file =
                if self.special.contains_key(&name) { SPECIAL_TOKENS_FILE } else { TOKENIZER_CONFIG_FILE };
            let Some(token) = self.take::<Value>(&name)? else { continue };
            match content(&token) {
                Some(token) => drop(named.insert(name, token.to_owned())),
                None if is_standard => {
                    let message = format!(
                        "{name} is {}; it must be a text, or an object with the text as content",
                        excerpt(&token.to_string())
                    );
                    return Err(Error::file(self.checkpoint.path(file), message));
                }
                None => {} // `add_bos_token` and its like are flags
            }
        }
        Ok(named)
    }
}

/// The text of a token, which is a text or an object with it.
fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

/// A token as `added_tokens_decoder` describes it. What is absent is as in `AddedToken` of the Python library.
#[derive(Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "the fields of the file")]
struct DeclaredToken {
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
}

impl From<DeclaredToken> for AddedToken {
    fn from(token: DeclaredToken) -> Self {
        let DeclaredToken { content, special, single_word, lstrip, rstrip, normalized } = token;
        Self { content, single_word, lstrip, rstrip, normalized: normalized.unwrap_or(!special), special }
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
