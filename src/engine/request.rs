//! Requests and completions.

use serde_json::{Map, Value};

use super::sequence::RequestIdentity;
use crate::contrast::{Contrast, LogProbabilities};
use crate::error::{Error, Result};
use crate::ids::TokenId;
use crate::text::{Conversation, Text};

/// Asks for one response.
#[derive(Debug, Clone)]
pub struct Request {
    /// Names the request in its [`Completion`] and keys its noise: requests that differ in nothing else but the tag and have equal
    /// ids get the same response.
    pub id: String,
    /// What the response answers.
    pub prompt: Prompt,
    /// The method's parameters.
    pub contrast: Contrast,
    /// Keys the noise, together with `id` and `sample`.
    pub seed: u64,
    /// Which of several samples of one prompt this is.
    pub sample: u32,
    /// Ends the response after this many tokens.
    pub max_tokens: usize,
    /// Whether the response continues past stop tokens, for measurements.
    pub ignore_eos: bool,
    /// Texts that end the response. It is cut before the first of them in [`Completion::text`]; the tokens and the scores are
    /// all that were generated, up to the token that completes the stop text. Special tokens are not part of the text, so a
    /// stop text that is the name of a special token is that stop token.
    pub stop: Vec<String>,
    /// Tokens that end the response, beside the model's own, also where `ignore_eos` is set.
    pub stop_token_ids: Vec<TokenId>,
    /// Whether to report [`Completion::log_probabilities`].
    pub log_probabilities: bool,
    /// A number for the caller, which the [`Completion`] returns. It changes nothing.
    pub tag: usize,
}

/// A prompt in one of its forms.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// A conversation, rendered by the expert's chat template.
    Chat(Conversation),
    /// Text without a template. The special tokens that the tokenizer's configuration asks for are added.
    Text(String),
    /// Token ids.
    Tokens(Vec<TokenId>),
    /// The reason why there is no prompt. The request fails with it, so that it is reported like every other.
    Refused(String),
}

impl Prompt {
    /// The prompt's token ids. The chat template gets `variables`.
    ///
    /// # Errors
    /// As [`Text::prompt_ids`] and [`Text::prompt_ids_of_text`].
    pub fn into_ids(self, text: &Text, variables: &Map<String, Value>) -> Result<Vec<TokenId>> {
        match self {
            Self::Chat(conversation) => text.prompt_ids(&conversation, variables),
            Self::Text(plain) => text.prompt_ids_of_text(&plain),
            Self::Tokens(tokens) => Ok(tokens),
            Self::Refused(message) => Err(Error::Request(message)),
        }
    }

    /// The prompt as text, special tokens included, and as the token ids that [`Prompt::into_ids`] gives.
    ///
    /// # Errors
    /// Those of [`Prompt::into_ids`].
    pub fn render(self, text: &Text, variables: &Map<String, Value>) -> Result<(String, Vec<TokenId>)> {
        match self {
            Self::Chat(conversation) => text.render(&conversation, variables),
            Self::Text(plain) => text.render_text(&plain),
            Self::Tokens(tokens) => Ok((text.tokenizer().decode(&tokens, false)?, tokens)),
            Self::Refused(message) => Err(Error::Request(message)),
        }
    }

    /// How many token ids it has; `None` as long as it is text.
    pub(super) fn num_tokens(&self) -> Option<usize> {
        if let Self::Tokens(tokens) = self { Some(tokens.len()) } else { None }
    }
}

impl Request {
    /// A chat of one instruction with the method's default parameters, seed 0 and at most 4,096 tokens.
    pub fn new(id: impl Into<String>, instruction: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            prompt: Prompt::Chat(Conversation::of_instruction(instruction)),
            contrast: Contrast::default(),
            seed: 0,
            sample: 0,
            max_tokens: 4096,
            ignore_eos: false,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            log_probabilities: false,
            tag: 0,
        }
    }

    pub(super) fn identity(&self) -> RequestIdentity {
        RequestIdentity { id: self.id.clone(), sample: self.sample, tag: self.tag }
    }
}

/// Why a response ended.
#[derive(Debug)]
pub enum Finish {
    /// A stop token or a stop text.
    Stop,
    /// `max_tokens` or the end of the context.
    Length,
    /// A call of [`Engine::cancel`](crate::engine::Engine::cancel).
    Cancelled,
    /// A failure of this request alone.
    Failed(Error),
}

/// A finished request.
#[derive(Debug)]
pub struct Completion {
    /// The request's id.
    pub id: String,
    /// The request's sample number.
    pub sample: u32,
    /// The request's tag.
    pub tag: usize,
    /// Tokens of the prompt; 0 if the request failed before its prompt was tokenized.
    pub prompt_tokens: usize,
    /// The response, without special tokens, up to the first stop text.
    pub text: String,
    /// The generated tokens, the stop token or the tokens of the stop text included.
    pub tokens: Vec<TokenId>,
    /// `log_softmax(s)` of each generated token.
    pub scores: Vec<f32>,
    /// Both models' log-probabilities of each generated token, if the request asked for them; else empty.
    pub log_probabilities: Vec<LogProbabilities>,
    /// Why it ended.
    pub finish: Finish,
}

impl Completion {
    /// The completion of a request that has no response.
    pub(super) fn without_text(request: RequestIdentity, prompt_tokens: usize, finish: Finish) -> Self {
        let RequestIdentity { id, sample, tag } = request;
        let (tokens, scores, log_probabilities) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            id,
            sample,
            tag,
            prompt_tokens,
            text: String::new(),
            tokens,
            scores,
            log_probabilities,
            finish,
        }
    }

    /// Tokens of the response, the stop token included.
    pub fn response_tokens(&self) -> usize {
        self.tokens.len()
    }
}
