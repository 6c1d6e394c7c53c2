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
        Ok(Self {
            steps: StepLoop::load(device, expert, amateur, text.tokenizer().vocabulary(), config)?,
            preparer: Preparer::new(text),
            finished: VecDeque::new(),
            stop_tokens,
        })
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
        let prompt = self.preparer.token_ids(request.prompt)?;
        let window = self.windows().of(&request.contrast);
        self.check(&prompt, window)?;
        let params = SamplingParams {
            contrast: request.contrast,
            noise: Noise::new(request.seed, &request.id, request.sample),
            stop_tokens: if request.ignore_eos { Arc::default() } else { Arc::clone(&self.stop_tokens) },
            max_len: prompt.len().saturating_add(request.max_tokens.max(1)).min(window),
            log_probabilities: request.log_probabilities,
        };
        let identity = RequestIdentity { id: request.id, sample: request.sample, tag: request.tag };
        Ok(self.steps.add(Sequence::new(identity, prompt, params)))
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
        let finish = match sequence.end() {
            Some(End::Stop) => Finish::Stop,
            Some(End::Length) => Finish::Length,
            Some(End::Fault(fault)) => {
                let place = sequence.response().len();
                Finish::Failed(Error::Request(format!("{fault} at token {place} of the response")))
            }
            None => Finish::Cancelled,
        };
        let text = self.text().tokenizer().decode(sequence.response(), true)?;
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
    Ok((text, stop_tokens(expert)?.into()))
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
