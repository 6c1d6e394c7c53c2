//! The tokenizer of a checkpoint, loaded as `transformers` loads it, and the check that a pair shares its vocabulary.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokenizers::{
    AddedToken, Model, ModelWrapper, NormalizedString, Normalizer, OffsetReferential, OffsetType,
    PreTokenizedString, PreTokenizer,
};

use super::config::{TOKENIZER_CONFIG_FILE, TokenizerConfig, check_size};
use super::contain::contain;
use super::length::{LongestToken, longest_token};
use super::tokenizer_fault;
use crate::checkpoint::{Checkpoint, TOKENIZER_FILE};
use crate::contrast::Vocabulary;
use crate::error::{Error, Result};
use crate::ids::TokenId;

/// A tokenizer. Cheap to clone, safe to share between threads.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    library: tokenizers::Tokenizer,
    vocabulary: Vocabulary,
    warnings: Vec<String>,
    /// `None` if a token may stand for a text of any length.
    longest: Option<LongestToken>,
    begin: Option<TokenId>,
    end: Option<TokenId>,
    /// Tokens that the checkpoint names and the library does not have.
    absent: Vec<String>,
    /// See [`TokenizerConfig::control_tokens`].
    control_tokens: Option<Vec<String>>,
}

/// The special tokens that encoding adds around a text. Those written in the text are always recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// None, for a rendered chat template, which has written them itself.
    None,
    /// Those of `tokenizer.json`'s post-processor, often a BOS, for a plain prompt.
    AsConfigured,
}

impl Tokenizer {
    /// Loads `tokenizer.json`, with the tokens that `tokenizer_config.json` adds or declares special.
    ///
    /// # Errors
    /// [`Error::File`] if `tokenizer.json` is missing or the library refuses it, or `tokenizer_config.json` contradicts it.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        let path = checkpoint.path(TOKENIZER_FILE);
        let Some(bytes) = checkpoint.find(TOKENIZER_FILE)? else {
            if let Some(format) = checkpoint.foreign_format() {
                return Err(Error::file(checkpoint.path(""), format));
            }
            return Err(Error::file(
                path,
                "no such file; a checkpoint needs its tokenizer in this format (tokenizer.model is not read)",
            ));
        };
        check_size(checkpoint, TOKENIZER_FILE, &bytes)?;
        if let Some(length) = longest_unigram_token(&bytes).filter(|length| *length > LONGEST_UNIGRAM_TOKEN) {
            let message =
                format!("a token has {length} bytes, more than {LONGEST_UNIGRAM_TOKEN}; download it again");
            return Err(Error::file(path, message));
        }
        let config = TokenizerConfig::load(checkpoint)?;
        let mut warnings = Vec::new();
        let load = || {
            let library = configure(tokenizers::Tokenizer::from_bytes(&*bytes)?, &config, &mut warnings)?;
            let vocabulary = vocabulary_of(&library);
            Ok::<_, tokenizers::Error>((library, vocabulary))
        };
        let (library, vocabulary) = contain(load)
            .and_then(|loaded| loaded.map_err(|error| tokenizer_fault::explain(&bytes, &error.to_string())))
            .map_err(|message| Error::file(&path, format!("not a usable tokenizer: {message}")))?;

        let misplaced = |(id, token): &(&u32, &AddedToken)| library.token_to_id(&token.content) != Some(**id);
        if let Some((id, token)) = config.added_tokens.iter().find(misplaced) {
            let message = format!(
                "added_tokens_decoder gives {:?} the id {id}, {TOKENIZER_FILE} does not; save the tokenizer again with \
                 transformers",
                token.content
            );
            return Err(Error::file(checkpoint.path(TOKENIZER_CONFIG_FILE), message));
        }
        warnings.extend(misplaced_tokens(&bytes, &library));
        for warning in &mut warnings {
            *warning = format!("{}: {warning}", path.display());
        }
        let is_absent = |token: &String| {
            !token.is_empty() && library.token_to_id(token).is_none() && !config.split_special_tokens
        };
        let absent = config.all_named.iter().filter(|token| is_absent(token)).cloned().collect();
        let longest = longest_token(&library);
        let end =
            config.named_tokens.get("eos_token").and_then(|token| library.token_to_id(token)).map(TokenId);
        let begin =
            config.named_tokens.get("bos_token").and_then(|token| library.token_to_id(token)).map(TokenId);
        Ok(Self {
            shared: Arc::new(Shared {
                path,
                library,
                vocabulary,
                warnings,
                longest,
                begin,
                end,
                absent,
                control_tokens: config.control_tokens,
            }),
        })
    }

    /// What is strange about the tokenizer's files and still works.
    pub fn warnings(&self) -> &[String] {
        &self.shared.warnings
    }

    /// The tokenizer's own token for the end of a text.
    pub fn end_of_text(&self) -> Option<TokenId> {
        self.shared.end
    }

    /// The tokenizer's own token for the beginning of a text.
    pub fn beginning_of_text(&self) -> Option<TokenId> {
        self.shared.begin
    }

    /// A number of tokens that `text` certainly has, or fewer. It is found by its length alone.
    pub fn least_tokens(&self, text: &str) -> usize {
        self.shared.longest.as_ref().map_or(0, |longest| longest.least_tokens(text))
    }

    /// The file that it was loaded from, for messages.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The ids that may be sampled, and which of them are special.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.shared.vocabulary
    }

    /// The id of `token`, in the vocabulary's spelling.
    pub fn id_of(&self, token: &str) -> Option<TokenId> {
        self.shared.library.token_to_id(token).map(TokenId)
    }

    /// The vocabulary's spelling of `id`.
    pub fn token_of(&self, id: TokenId) -> Option<String> {
        self.shared.library.id_to_token(id.0)
    }

    /// The ids of `text`.
    ///
    /// # Errors
    /// [`Error::Request`] if the library refuses the text, or if it holds a token that the checkpoint names and
    /// `tokenizer.json` lacks: `transformers` would give it an id that no model was trained with.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<TokenId>> {
        if let Some(token) = self.shared.absent.iter().find(|token| text.contains(token.as_str())) {
            return Err(Error::Request(format!(
                "the prompt holds {token:?}, which {TOKENIZER_CONFIG_FILE} or a file beside it names as a token and {} lacks; \
                 save the tokenizer again with transformers, or remove it from the text",
                self.path().display()
            )));
        }
        let encoding = self.ask("encode a text", || {
            self.shared.library.encode_fast(text, special == Special::AsConfigured)
        })?;
        Ok(encoding.get_ids().iter().copied().map(TokenId).collect())
    }

    /// The text of `tokens`; ids that the vocabulary does not have are left out, as are special tokens if asked.
    ///
    /// # Errors
    /// [`Error::Request`] if the library refuses the tokens.
    pub fn decode(&self, tokens: &[TokenId], skip_special: bool) -> Result<String> {
        self.ask("decode tokens", || self.shared.library.decode(bytemuck::cast_slice(tokens), skip_special))
    }

    /// The ids of a part of a text: `is_plain` if no added token is recognised in it. A part that `continues` the text is
    /// encoded after a new line, so that nothing is added to its beginning.
    pub(super) fn encode_part(&self, part: &str, continues: bool, is_plain: bool) -> Result<Vec<TokenId>> {
        let encode =
            |text: &str| if is_plain { self.encode_plain(text) } else { self.encode(text, Special::None) };
        if !continues {
            return encode(part);
        }
        let ids = encode(&format!("\n{part}"))?;
        let line = self.encode("\n", Special::None)?;
        let ids = match ids.strip_prefix(line.as_slice()) {
            Some(rest) => rest.to_vec(),
            None => encode(part)?,
        };
        if is_plain && self.id_of(part).is_some_and(|id| ids.contains(&id)) {
            let message = format!(
                "the control token {part:?} cannot be plain text: the tokenizer makes it of its letters"
            );
            return Err(Error::Request(message));
        }
        Ok(ids)
    }

    /// The ids of a text in which no added token is recognised.
    fn encode_plain(&self, text: &str) -> Result<Vec<TokenId>> {
        let library = &self.shared.library;
        self.ask("encode a text", || {
            let mut normalized = NormalizedString::from(text);
            if let Some(normalizer) = library.get_normalizer() {
                normalizer.normalize(&mut normalized)?;
            }
            let mut pieces = PreTokenizedString::from(normalized.get());
            if let Some(splitter) = library.get_pre_tokenizer() {
                splitter.pre_tokenize(&mut pieces)?;
            }
            let mut ids = Vec::new();
            for (piece, ..) in pieces.get_splits(OffsetReferential::Original, OffsetType::Byte) {
                ids.extend(library.get_model().tokenize(piece)?.into_iter().map(|token| TokenId(token.id)));
            }
            Ok(ids)
        })
    }

    /// The special tokens, and the other added tokens that a template writes; `literals` are its texts.
    pub(super) fn control_tokens(&self, literals: &str) -> Vec<String> {
        let is_written = |token: &str| match &self.shared.control_tokens {
            Some(listed) => listed.iter().any(|listed| listed == token),
            // A template writes white space as ordinary text.
            None => !token.trim().is_empty() && literals.contains(token),
        };
        let added = self.shared.library.get_added_tokens_decoder().into_values();
        added.filter(|token| token.special || is_written(&token.content)).map(|token| token.content).collect()
    }

    /// The library's answer.
    fn ask<T>(&self, action: &str, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
        contain(work)
            .and_then(|answer| answer.map_err(|error| tokenizer_fault::explain_text(&error.to_string())))
            .map_err(|message| {
                Error::Request(format!("{}: cannot {action}: {message}", self.path().display()))
            })
    }

    fn tokens_by_id(&self) -> BTreeMap<u32, String> {
        self.shared.library.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect()
    }

    fn added_ids(&self) -> BTreeSet<u32> {
        self.shared.library.get_added_tokens_decoder().keys().copied().collect()
    }
}

/// What `transformers` does to a `tokenizer.json` after reading it.
fn configure(
    mut library: tokenizers::Tokenizer,
    config: &TokenizerConfig,
    warnings: &mut Vec<String>,
) -> std::result::Result<tokenizers::Tokenizer, tokenizers::Error> {
    // A prompt is never cut or filled up, whatever the file was saved with.
    library.with_padding(None);
    library.with_truncation(None)?;
    library.set_encode_special_tokens(config.split_special_tokens);
    if let Some(dropout) = clear_dropout(&mut library) {
        warnings
            .push(format!("dropout {dropout} would draw the tokens of a text at random; it is not applied"));
    }

    let known = library.get_added_tokens_decoder();
    let differs = |(id, token): &(&u32, &AddedToken)| known.get(id) != Some(token);
    let declared: Vec<AddedToken> =
        config.added_tokens.iter().filter(differs).map(|(_, token)| token.clone()).collect();
    if !declared.is_empty() {
        library.add_tokens(declared)?;
    }

    // A named token is special even where `tokenizer.json` forgot to say so. One that no model knows (some
    // configurations name a padding token of their own) is not added: its id would lie outside the embedding.
    let known = library.get_added_tokens_decoder();
    let unmarked = |token: &&String| {
        library.token_to_id(token).is_some_and(|id| !known.get(&id).is_some_and(|token| token.special))
    };
    let named: Vec<AddedToken> = config
        .named_tokens
        .values()
        .filter(unmarked)
        .map(|token| AddedToken::from(token.as_str(), true))
        .collect();
    if !named.is_empty() {
        library.add_special_tokens(named)?;
    }
    Ok(library)
}

/// Makes the same text the same tokens always. Returns the share of merges that would have been left out.
fn clear_dropout(library: &mut tokenizers::Tokenizer) -> Option<f32> {
    let ModelWrapper::BPE(model) = library.get_model() else { return None };
    let dropout = model.dropout.filter(|dropout| *dropout > 0.0)?;
    let mut model = model.clone();
    model.dropout = None;
    library.with_model(model);
    Some(dropout)
}

/// Says which added tokens of the file have other ids in the library than they claim.
fn misplaced_tokens(file: &[u8], library: &tokenizers::Tokenizer) -> Option<String> {
    #[derive(Deserialize)]
    struct File {
        added_tokens: Vec<Claim>,
    }
    #[derive(Deserialize)]
    struct Claim {
        id: u32,
        content: String,
    }
    let File { added_tokens } = serde_json::from_slice(file).ok()?;
    let differs = |claim: &&Claim| library.token_to_id(&claim.content) != Some(claim.id);
    let mut misplaced = added_tokens.iter().filter(differs);
    let Claim { id, content } = misplaced.next()?;
    let given = library.token_to_id(content).map_or("none".to_owned(), |id| id.to_string());
    let others = misplaced.count();
    let more = if others > 0 { format!(" (and {others} more tokens)") } else { String::new() };
    Some(format!(
        "the added token {content:?} claims the id {id} and has {given}{more}; the model may not know it"
    ))
}

fn vocabulary_of(library: &tokenizers::Tokenizer) -> Vocabulary {
    let len = library.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
    let added = library.get_added_tokens_decoder();
    Vocabulary::new(
        len,
        added.iter().filter(|(_, token)| token.special).map(|(id, _)| TokenId(*id)).collect(),
    )
}

/// Checks that both models mean the same by every id: the contrast compares them id by id.
///
/// An id may carry different names if both sides hold it as an added token: families give the reserved slots of a
/// base model names when they post-train it. Special flags and templates may differ.
///
/// # Errors
/// [`Error::File`] naming the first id that differs, or that one side lacks.
pub fn check_same_vocabulary(expert: &Tokenizer, amateur: &Tokenizer) -> Result<()> {
    let (expert_tokens, amateur_tokens) = (expert.tokens_by_id(), amateur.tokens_by_id());
    if expert_tokens == amateur_tokens {
        return Ok(());
    }
    let (expert_added, amateur_added) = (expert.added_ids(), amateur.added_ids());
    let renamed = |id: &u32| {
        expert_added.contains(id)
            && amateur_added.contains(id)
            && expert_tokens.contains_key(id)
            && amateur_tokens.contains_key(id)
    };
    let ids: BTreeSet<u32> = expert_tokens.keys().chain(amateur_tokens.keys()).copied().collect();
    let differing =
        ids.into_iter().find(|id| expert_tokens.get(id) != amateur_tokens.get(id) && !renamed(id));
    match differing {
        None => Ok(()),
        Some(id) => {
            let name =
                |token: Option<&String>| token.map_or("no token".to_owned(), |token| format!("{token:?}"));
            Err(Error::file(
                amateur.path(),
                format!(
                    "id {id} is {} here and {} in the expert's {}; expert and amateur must share one vocabulary",
                    name(amateur_tokens.get(&id)),
                    name(expert_tokens.get(&id)),
                    expert.path().display()
                ),
            ))
        }
    }
}

/// Bytes of the longest token of a Unigram model. The library keeps them in a tree and frees it by recursion, which a longer
/// token would overflow the stack with.
const LONGEST_UNIGRAM_TOKEN: usize = 4096;

/// Bytes of the longest token of a file with a Unigram model, whose vocabulary is a list of tokens and scores.
fn longest_unigram_token(file: &[u8]) -> Option<usize> {
    #[derive(Deserialize)]
    struct File<'a> {
        #[serde(borrow)]
        model: Model<'a>,
    }
    #[derive(Deserialize)]
    struct Model<'a> {
        #[serde(borrow)]
        vocab: &'a RawValue,
    }
    let File { model } = serde_json::from_slice(file).ok()?;
    let tokens: Vec<(String, IgnoredAny)> = serde_json::from_str(model.vocab.get()).ok()?;
    tokens.iter().map(|(token, _)| token.len()).max()
}
