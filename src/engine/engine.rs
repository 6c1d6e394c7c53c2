//! The engine: text in, text out.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::config::{EngineConfig, Windows};
use super::pair::source::Model;
use super::preparer::Preparer;
use super::request::{Completion, Finish, Request};
use super::sequence::{End, RequestIdentity, SamplingParams, Sequence};
use super::step_loop::{Stats, StepLoop};
use super::stop_text::StopText;
use crate::checkpoint::Checkpoint;
use crate::contrast::Noise;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ids::{SeqId, TokenId};
use crate::model::spec::stop_tokens;
use crate::text::{Conversation, Text, Tokenizer, check_same_vocabulary};

/// Decodes requests with a pair of models, many at once. See the [crate's example](crate).
pub struct Engine<D: Device> {
    steps: StepLoop<D>,
    preparer: Preparer,
    finished: VecDeque<Completion>,
    stop_tokens: Arc<[TokenId]>,
}

impl<D: Device> Engine<D> {
    /// Loads a pair onto `device`. Without an amateur, only requests that do not need one can be served.
    ///
    /// # Errors
    /// A checkpoint that cannot be used, vocabularies that differ, settings that contradict each other, or too
    /// little memory.
    pub fn load(
        device: D,
        expert: &Checkpoint,
        amateur: Option<&Checkpoint>,
        config: &EngineConfig,
    ) -> Result<Self> {
        let (text, stop_tokens) = load_text(expert, amateur)?;
        Self::load_with(device, text, stop_tokens, expert, amateur, config)
    }

    /// As [`Engine::load`], with the text work and the stop tokens of [`load_text`].
    ///
    /// # Errors
    /// Those of [`Engine::load`].
    pub(super) fn load_with(
        device: D,
        text: Text,
        stop_tokens: Arc<[TokenId]>,
        expert: &Checkpoint,
        amateur: Option<&Checkpoint>,
        config: &EngineConfig,
    ) -> Result<Self> {
        let (expert, amateur) = (Model::Stored(expert), amateur.map(Model::Stored));
        let steps = StepLoop::load(device, expert, amateur, text.tokenizer().vocabulary(), config)?;
        let mut text = text;
        let windows = steps.windows();
        text.set_longest_prompt(windows.expert.max(windows.both));
        Ok(Self { steps, preparer: Preparer::new(text), finished: VecDeque::new(), stop_tokens })
    }

    /// Queues a request. The returned id can be used to cancel it.
    ///
    /// # Errors
    /// [`Error::Request`] for a prompt that is empty, too long or cannot be rendered; [`Error::Setting`] for parameters out of
    /// range. The engine is unchanged.
    pub fn submit(&mut self, request: Request) -> Result<SeqId> {
        request.contrast.validate()?;
        if request.contrast.needs_amateur() && !self.steps.has_amateur() {
            return Err(Error::Setting("beta over 0 needs an amateur; load one or set beta to 0".to_owned()));
        }
        let stop_tokens = self.stop_tokens(&request)?;
        let prompt = self.preparer.token_ids(request.prompt)?;
        let window = self.windows().of(&request.contrast);
        self.check(&prompt, window)?;
        let params = SamplingParams {
            contrast: request.contrast,
            noise: Noise::new(request.seed, &request.id, request.sample),
            stop_tokens,
            max_len: prompt.len().saturating_add(request.max_tokens.max(1)).min(window),
            log_probabilities: request.log_probabilities,
        };
        let identity = RequestIdentity { id: request.id, sample: request.sample, tag: request.tag };
        let mut sequence = Sequence::new(identity, prompt, params);
        if !request.stop.is_empty() {
            let decoder = self.text().tokenizer().detokenizer(true);
            sequence.stop_text = Some(StopText::new(request.stop.into(), decoder));
        }
        Ok(self.steps.add(sequence))
    }

    /// Checks what a request asks for beside its prompt, for those who want to know before they have one.
    ///
    /// # Errors
    /// [`Error::Setting`] naming what is out of range.
    pub fn check_settings(&self, request: &Request) -> Result<()> {
        request.contrast.validate()?;
        self.stop_tokens(request).map(drop)
    }

    /// The tokens that end a request's response.
    ///
    /// # Errors
    /// [`Error::Setting`] for a stop text that is empty or a token that the vocabulary does not have.
    fn stop_tokens(&self, request: &Request) -> Result<Arc<[TokenId]>> {
        let tokenizer = self.text().tokenizer();
        if request.stop.iter().any(String::is_empty) {
            return Err(Error::Setting(
                "a stop text is empty; it would end every response at once".to_owned(),
            ));
        }
        if let Some(token) =
            request.stop_token_ids.iter().find(|token| token.index() >= tokenizer.vocabulary().len)
        {
            let len = tokenizer.vocabulary().len;
            return Err(Error::Setting(format!(
                "stop token {} is not below {len}, the size of the vocabulary",
                token.0
            )));
        }
        let own: &[TokenId] = if request.ignore_eos { &[] } else { &self.stop_tokens };
        let named = request.stop.iter().filter_map(|stop| tokenizer.id_of(stop));
        let special: Vec<TokenId> = named.filter(|token| tokenizer.vocabulary().is_special(*token)).collect();
        if special.is_empty() && request.stop_token_ids.is_empty() {
            return Ok(if request.ignore_eos { Arc::default() } else { Arc::clone(&self.stop_tokens) });
        }
        Ok(own.iter().chain(&request.stop_token_ids).chain(&special).copied().collect())
    }

    /// Cancels a request. It still yields a [`Completion`], without text. False if it has ended before.
    pub fn cancel(&mut self, seq: SeqId) -> bool {
        let Some(sequence) = self.steps.cancel(seq) else { return false };
        let Sequence { request, prompt_len, .. } = sequence;
        self.finished.push_back(Completion::without_text(request, prompt_len, Finish::Cancelled));
        true
    }

    /// Runs one step of both models for all running sequences. [`Engine::finished`] returns the completions.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed or blocks were lost. The engine must not be used any more.
    pub fn step(&mut self) -> Result<()> {
        for ended in self.steps.step()? {
            let completion = self.complete(ended)?;
            self.finished.push_back(completion);
        }
        Ok(())
    }

    /// The next completion that is ready.
    pub fn finished(&mut self) -> Option<Completion> {
        self.finished.pop_front()
    }

    /// Preempts the youngest running sequence: it waits and is computed again later, with the same response. False if none runs.
    pub fn preempt_youngest(&mut self) -> bool {
        self.steps.preempt_youngest()
    }

    /// Sequences that run or wait.
    pub fn pending(&self) -> usize {
        self.steps.pending()
    }

    /// The context limits.
    pub fn windows(&self) -> Windows {
        self.steps.windows()
    }

    /// The device.
    pub fn device(&self) -> &D {
        self.steps.device()
    }

    /// Sequences that run at once.
    pub fn max_num_seqs(&self) -> usize {
        self.steps.max_num_seqs()
    }

    /// Sets whether control tokens in a conversation are plain text: see [`Text::set_sanitize_control_tokens`].
    pub fn set_sanitize_control_tokens(&mut self, sanitize: bool) {
        self.preparer.set_sanitize_control_tokens(sanitize);
    }

    /// Sets the variables that the chat template gets beside the conversation, such as `enable_thinking`.
    pub fn set_template_variables(&mut self, variables: Map<String, Value>) {
        self.preparer.set_template_variables(variables);
    }

    /// The expert's tokenizer and chat template.
    pub fn text(&self) -> &Text {
        self.preparer.text()
    }

    /// What turns prompts into token ids. It can be used on any thread.
    pub fn preparer(&self) -> &Preparer {
        &self.preparer
    }

    /// The token ids that a conversation becomes.
    ///
    /// # Errors
    /// [`Error::Request`] if there is no chat template or it refuses the conversation.
    pub fn chat_ids(&self, conversation: &Conversation) -> Result<Vec<TokenId>> {
        self.preparer.chat_ids(conversation)
    }

    /// Lowers the context limits.
    pub(super) fn limit_windows(&mut self, windows: Windows) {
        self.steps.limit_windows(windows);
    }

    /// Counts and load.
    pub fn stats(&self) -> Stats {
        self.steps.stats()
    }

    /// # Errors
    /// [`Error::Request`] for a prompt that is empty, leaves no room in the window, or has tokens that a model does not know.
    fn check(&self, prompt: &[TokenId], window: usize) -> Result<()> {
        if prompt.is_empty() {
            return Err(Error::Request("the prompt has no tokens".to_owned()));
        }
        if prompt.len() >= window {
            let found = prompt.len();
            let message =
                format!("the prompt has {found} tokens, which leaves no room in the window of {window}");
            return Err(Error::Request(message));
        }
        match prompt.iter().find(|token| token.index() >= self.steps.known_ids()) {
            Some(token) => {
                let name = self.text().tokenizer().token_of(*token);
                let name = name.map_or_else(|| "padding".to_owned(), |name| format!("{name:?}"));
                let message =
                    format!("the prompt has token {} ({name}), which the models do not know", token.0);
                Err(Error::Request(message))
            }
            None => Ok(()),
        }
    }

    /// Decodes the text of a sequence that has ended.
    fn complete(&self, sequence: Sequence) -> Result<Completion> {
        let mut finish = match sequence.end() {
            Some(End::Stop) => Finish::Stop,
            Some(End::Length) => Finish::Length,
            Some(End::Fault(fault)) => {
                let place = sequence.response().len();
                Finish::Failed(Error::Request(format!("{fault} at token {place} of the response")))
            }
            None => Finish::Cancelled,
        };
        let mut text = self.text().tokenizer().decode(sequence.response(), true)?;
        if let Some(stop) = sequence.stop_text.as_ref().and_then(|stop_text| stop_text.first(&text)) {
            text.truncate(stop);
            if matches!(finish, Finish::Length) {
                finish = Finish::Stop;
            }
        }
        let tokens = sequence.response().to_vec();
        let Sequence { request, prompt_len: prompt_tokens, scores, log_probabilities, .. } = sequence;
        let RequestIdentity { id, sample, tag } = request;
        Ok(Completion { id, sample, tag, prompt_tokens, text, tokens, scores, log_probabilities, finish })
    }
}

/// The expert's tokenizer and template, and its stop tokens.
///
/// # Errors
/// Files that cannot be used, or vocabularies that differ.
pub(super) fn load_text(expert: &Checkpoint, amateur: Option<&Checkpoint>) -> Result<(Text, Arc<[TokenId]>)> {
    let text = Text::load(expert)?;
    if let Some(amateur) = amateur {
        check_same_vocabulary(text.tokenizer(), &Tokenizer::load(amateur)?)?;
    }
    let stop_tokens = stop_tokens(expert)?;
    check_stop_tokens(&text, &stop_tokens);
    Ok((text, stop_tokens.into()))
}

/// Warns of stop tokens that never come, and of an end of the text that is none of them.
fn check_stop_tokens(text: &Text, stop_tokens: &[TokenId]) {
    let tokenizer = text.tokenizer();
    let len = tokenizer.vocabulary().len;
    if stop_tokens.is_empty() {
        text.warn("the expert names no stop token (eos_token_id); responses end at max-tokens".to_owned());
    }
    for token in stop_tokens.iter().filter(|token| token.index() >= len) {
        text.warn(format!(
            "the expert's stop token {} is not below {len}, the size of the vocabulary",
            token.0
        ));
    }
    if let Some(end) = tokenizer.end_of_text().filter(|end| !stop_tokens.contains(end)) {
        let name = tokenizer.token_of(end).unwrap_or_default();
        text.warn(format!(
            "the tokenizer's eos_token {name:?} ({}) is not among the expert's stop tokens {:?}; --stop-token-ids {} adds it",
            end.0,
            stop_tokens.iter().map(|token| token.0).collect::<Vec<_>>(),
            end.0
        ));
    }
}

/// Completions as they finish. Ends when nothing is left to do. Errors are those of [`Engine::step`].
impl<D: Device> Iterator for Engine<D> {
    type Item = Result<Completion>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.finished.is_empty() && !self.steps.is_idle() {
            if let Err(error) = self.step() {
                return Some(Err(error));
            }
        }
        self.finished().map(Ok)
    }
}
