//! The engine: requests, one pool of blocks, the scheduler, the pair, and the step loop.
//!
//! ```text
//! Request ─► Scheduler::plan ─► Pair::submit (expert ∥ amateur, contrast_sample)
//!            Pair::collect ─► Scheduler::commit ─► Completion
//! ```
//!
//! A device with a queue of its own runs one step while the host plans the next and takes in the one before.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::checkpoint::Checkpoint;
use crate::contrast::{Contrast, Noise};
use crate::device::{Capacity, Device, Role};
use crate::error::{Error, Result};
use crate::ids::{SeqId, TokenId};
use crate::model::spec::{Spec, stop_tokens};
use crate::text::{Message, Text, Tokenizer, check_same_vocabulary};

mod any;
#[doc(hidden)] // For the program's `plan`.
pub mod footprint;
#[doc(hidden)] // For the tests, as are those below.
pub mod kv_cache;
mod pair;
mod preparer;
mod replicas;
mod request;
#[doc(hidden)]
pub mod scheduler;
#[doc(hidden)]
pub mod sequence;
#[doc(hidden)]
pub mod step;
#[doc(hidden)]
pub mod step_loop;

pub use any::{AnyEngine, DeviceChoice};
use footprint::Footprint;
pub use pair::memory::PairConfig;
pub use pair::source::Model;
pub use preparer::Preparer;
pub use replicas::{Replicas, Stepped};
pub use request::{Completion, Finish, Prompt, Request};
use sequence::{End, RequestIdentity, SamplingParams, Sequence};
pub use step_loop::Stats;
use step_loop::StepLoop;

/// How much the engine may do and hold at once. None of it changes a response.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Sequences that run at once.
    pub max_num_seqs: usize,
    /// Tokens a step, prefill chunks and decode rows together; by default as suits the device, and `max_num_seqs` if
    /// that is more.
    pub max_num_batched_tokens: Option<usize>,
    /// Longest sequence, prompt and response; by default what both models and the cache can hold. (This one
    /// bounds responses too.)
    pub max_model_len: Option<usize>,
    /// Bytes of the paged cache, both models' planes together; by default what the device has to give.
    pub kv_cache_memory: Option<usize>,
    /// Tokens a block.
    pub block_size: usize,
    /// Whether a step is queued before the results of the one before are known, so that the device never waits for
    /// the host; a response's end is then known one step late. By default as suits the device.
    pub async_scheduling: Option<bool>,
    /// What is left out of the work of two models; by default as suits the device.
    pub shortcuts: Option<Shortcuts>,
    /// Steps, counted from 0, for which a profiler that waits is told to begin and to end, by [`Device::profile`].
    pub profile_steps: Option<Range<u64>>,
}

/// Work that need not be done. None of it changes a token; the gathered head changes the last bits of scores, as its sums
/// have another order, and on a GPU so do the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortcuts {
    /// Of the amateur's logits those of the head suffice.
    pub gathered_candidates: bool,
    /// A token that is the whole head needs no amateur, whose pass over it waits until a row needs contrast.
    pub deferred_amateur: Deferred,
    /// Tokens that begin several sequences are computed once.
    pub shared_prefixes: bool,
}

/// When the amateur is deferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deferred {
    /// At no time.
    Never,
    /// As long as so many tokens are forced that what is saved of the amateur's work makes up for models that run one after
    /// the other.
    WhereItPays,
    /// At all times.
    Always,
}

impl Shortcuts {
    /// Every token takes both models, in full.
    pub const NONE: Self =
        Self { gathered_candidates: false, deferred_amateur: Deferred::Never, shared_prefixes: false };

    /// Those that are faster on `device`.
    pub fn of<D: Device>(device: &D) -> Self {
        let deferred_amateur =
            if device.info().solo_slowdown.is_some() { Deferred::WhereItPays } else { Deferred::Never };
        let gathered_candidates = device.info().gathers_candidates;
        Self { gathered_candidates, deferred_amateur, shared_prefixes: true }
    }

    /// What they are called.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let Self { gathered_candidates, deferred_amateur, shared_prefixes } = *self;
        let all = [
            (gathered_candidates, "gathered-candidates"),
            (deferred_amateur == Deferred::WhereItPays, "deferred-amateur"),
            (deferred_amateur == Deferred::Always, "always-deferred-amateur"),
            (shared_prefixes, "shared-prefixes"),
        ];
        all.into_iter().filter_map(|(is_on, name)| is_on.then_some(name)).collect()
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_num_seqs: 256,
            max_num_batched_tokens: None,
            max_model_len: None,
            kv_cache_memory: None,
            block_size: 16,
            async_scheduling: None,
            shortcuts: None,
            profile_steps: None,
        }
    }
}

/// The longest sequence, prompt and response, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Of those that the expert alone reads.
    pub expert: usize,
    /// Of those that both models read.
    pub both: usize,
}

impl Windows {
    /// That of a request with these parameters.
    pub fn of(self, contrast: &Contrast) -> usize {
        if contrast.needs_amateur() { self.both } else { self.expert }
    }

    /// The lesser of each.
    fn min(self, other: Self) -> Self {
        Self { expert: self.expert.min(other.expert), both: self.both.min(other.both) }
    }
}

/// Decodes requests with a pair of models, many at once. See the [crate's example](crate).
pub struct Engine<D: Device> {
    steps: StepLoop<D>,
    preparer: Preparer,
    finished: VecDeque<Completion>,
    stop: Arc<[TokenId]>,
}

impl<D: Device> Engine<D> {
    /// Loads a pair onto `device`. Without an amateur only requests that do not need one can be served.
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
        let (text, stop) = load_text(expert, amateur)?;
        Self::load_with(device, text, stop, expert, amateur, config)
    }

    fn load_with(
        device: D,
        text: Text,
        stop: Arc<[TokenId]>,
        expert: &Checkpoint,
        amateur: Option<&Checkpoint>,
        config: &EngineConfig,
    ) -> Result<Self> {
        let (expert, amateur) = (Model::Stored(expert), amateur.map(Model::Stored));
        Ok(Self {
            steps: StepLoop::load(device, expert, amateur, text.tokenizer().vocabulary(), config)?,
            preparer: Preparer::new(text),
            finished: VecDeque::new(),
            stop,
        })
    }

    /// Queues a request; the returned id serves to cancel it.
    ///
    /// # Errors
    /// [`Error::Request`] for a prompt that is empty, too long or not renderable, [`Error::Setting`] for parameters
    /// out of range. The engine is as it was.
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
            stop_tokens: if request.ignore_eos { Arc::default() } else { Arc::clone(&self.stop) },
            max_len: prompt.len().saturating_add(request.max_tokens.max(1)).min(window),
            log_probabilities: request.log_probabilities,
        };
        let identity = RequestIdentity { id: request.id, sample: request.sample, tag: request.tag };
        Ok(self.steps.add(Sequence::new(identity, prompt, params)))
    }

    /// Drops a request. It still yields a [`Completion`], without text. False if it has ended before.
    pub fn cancel(&mut self, seq: SeqId) -> bool {
        let Some(sequence) = self.steps.cancel(seq) else { return false };
        let RequestIdentity { id, tag, .. } = sequence.request;
        self.finished.push_back(Completion::without_text(id, tag, Finish::Cancelled));
        true
    }

    /// One step of both models for everything that runs. Completions are then had from [`Engine::finished`].
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed or blocks were lost: the engine must not go on.
    pub fn step(&mut self) -> Result<()> {
        for ended in self.steps.step()? {
            let completion = self.complete(ended)?;
            self.finished.push_back(completion);
        }
        Ok(())
    }

    /// A request that has finished by now, if any.
    pub fn finished(&mut self) -> Option<Completion> {
        self.finished.pop_front()
    }

    /// Sends the youngest running sequence back to wait; its cache is recomputed and its response is the same.
    pub fn preempt_youngest(&mut self) -> bool {
        self.steps.preempt_youngest()
    }

    /// Sequences that run or wait.
    pub fn pending(&self) -> usize {
        self.steps.pending()
    }

    /// How long sequences may be.
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

    /// What the chat template is given beside the conversation, such as `enable_thinking`.
    pub fn set_template_variables(&mut self, variables: Map<String, Value>) {
        self.preparer.set_template_variables(variables);
    }

    /// Tokenizer and chat template of the expert.
    pub fn text(&self) -> &Text {
        self.preparer.text()
    }

    /// Does the text work of requests, on any thread: see [`Preparer`].
    pub fn preparer(&self) -> &Preparer {
        &self.preparer
    }

    /// The token ids that a conversation becomes.
    ///
    /// # Errors
    /// [`Error::Request`] if there is no chat template or it refuses the conversation.
    pub fn chat_ids(&self, messages: &[Message]) -> Result<Vec<TokenId>> {
        self.preparer.chat_ids(messages)
    }

    /// Counts and load.
    pub fn stats(&self) -> Stats {
        self.steps.stats()
    }

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
        let Sequence { request: RequestIdentity { id, tag, .. }, scores, log_probabilities, .. } = sequence;
        Ok(Completion { id, tag, text, tokens, scores, log_probabilities, finish })
    }
}

/// The expert's tokenizer and template, and its stop tokens.
fn load_text(expert: &Checkpoint, amateur: Option<&Checkpoint>) -> Result<(Text, Arc<[TokenId]>)> {
    let text = Text::load(expert)?;
    if let Some(amateur) = amateur {
        check_same_vocabulary(text.tokenizer(), &Tokenizer::load(amateur)?)?;
    }
    Ok((text, stop_tokens(expert)?.into()))
}

/// Completions as they finish; the end when nothing is left to do. Errors are those of [`Engine::step`].
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

impl EngineConfig {
    /// How a pair is loaded, where a step takes `default_batched_tokens` unless it is said otherwise.
    ///
    /// # Errors
    /// [`Error::Setting`] for a number out of range.
    pub fn pair_config(&self, default_batched_tokens: usize, shortcuts: Shortcuts) -> Result<PairConfig> {
        let max_num_batched_tokens =
            self.max_num_batched_tokens.unwrap_or(self.max_num_seqs.max(default_batched_tokens));
        let settings = [
            ("max-num-seqs", self.max_num_seqs),
            ("max-num-batched-tokens", max_num_batched_tokens),
            ("block-size", self.block_size),
        ];
        if let Some((name, value)) = settings.into_iter().find(|(_, value)| !(1..=1 << 20).contains(value)) {
            return Err(Error::Setting(format!("{name} is {value}; it must be between 1 and {}", 1 << 20)));
        }
        let capacity =
            Capacity { max_num_seqs: self.max_num_seqs, max_num_batched_tokens, block_size: self.block_size };
        Ok(PairConfig { capacity, kv_cache_memory: self.kv_cache_memory, shortcuts })
    }

    /// Whether a pair fits on `device` with a cache of [`EngineConfig::kv_cache_memory`], or else one that holds a sequence
    /// of [`EngineConfig::max_model_len`] or [`EngineConfig::USUAL_LEN`] tokens, in what may be used there now. An expert
    /// alone does: it cannot be split.
    ///
    /// # Errors
    /// A checkpoint that cannot be used, a number out of range, or a device that does not answer.
    pub fn fits<D: Device>(
        &self,
        device: &D,
        expert: &Checkpoint,
        amateur: Option<&Checkpoint>,
    ) -> Result<bool> {
        if device.memory_info()?.is_none() || amateur.is_none() {
            return Ok(true);
        }
        let shortcuts = self.shortcuts.unwrap_or_else(|| Shortcuts::of(device));
        let pair_config = self.pair_config(device.info().default_batched_tokens, shortcuts)?;
        let [on_expert, on_amateur] = [Role::Expert, Role::Amateur].map(|role| device.role(role));
        let (expert, amateur) = (Spec::open(expert)?, amateur.map(Spec::open).transpose()?);
        let with_format = amateur.as_ref().map(|spec| (spec, on_amateur.info().format));
        let footprint = Footprint::new(
            (&expert, on_expert.info().format),
            with_format,
            &pair_config,
            device.info().is_split,
        )?;
        let bytes = on_expert.default_cache_bytes()?.min(on_amateur.default_cache_bytes()?);
        let window = amateur.iter().fold(expert.context_length, |len, spec| len.min(spec.context_length));
        let tokens = self.max_model_len.unwrap_or(window.min(Self::USUAL_LEN));
        let block: usize = footprint.shares().iter().map(|share| share.block).sum();
        let wanted =
            self.kv_cache_memory.map_or(tokens.div_ceil(self.block_size.max(1)), |bytes| bytes / block);
        Ok(footprint.blocks_in(bytes) >= wanted)
    }

    /// Tokens of a longer prompt and its response, for [`EngineConfig::fits`].
    pub const USUAL_LEN: usize = 4096;

    /// The windows where models can read `context`.
    fn windows(&self, context: Windows, cache_tokens: usize) -> Result<Windows> {
        let both = self.window(context.both, cache_tokens)?;
        Ok(Windows { both, expert: self.window(context.expert, cache_tokens)? })
    }

    /// One of them: as asked, or as much as the models and the cache hold.
    fn window(&self, context_length: usize, cache_tokens: usize) -> Result<usize> {
        let window = self.max_model_len.unwrap_or(context_length.min(cache_tokens));
        let refuse = |what: String| Err(Error::Setting(format!("max-model-len is {window}, but {what}")));
        match window {
            0 | 1 => refuse("a prompt and a response take at least 2".to_owned()),
            _ if window > context_length => {
                refuse(format!("the models read at most {context_length} tokens"))
            }
            _ if window > cache_tokens => refuse(format!(
                "kv-cache-memory holds {cache_tokens} tokens; raise it or lower max-model-len"
            )),
            _ => Ok(window),
        }
    }
}
