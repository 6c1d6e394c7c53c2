//! A sequence: what a request becomes, and what its completion is made of.

use std::sync::Arc;

use crate::contrast::{Contrast, LogProbabilities, Noise, RowFault, Sampled};
use crate::device::{Decision, PerKind};
use crate::engine::kv_cache::block_table::BlockTable;
use crate::engine::stop_text::StopText;
use crate::ids::{BlockId, SeqId, TokenId};

/// A prompt and its response, from the request's arrival to its end.
#[derive(Debug)]
pub struct Sequence {
    /// Its number in the scheduler. Older sequences have lower numbers.
    pub id: SeqId,
    /// The request that it answers.
    pub request: RequestIdentity,
    /// How its tokens are drawn and when it ends.
    pub params: SamplingParams,
    /// The score of each token of the response.
    pub scores: Vec<f32>,
    /// Both models' log-probabilities of each token of the response, if the request asked for them; else empty.
    pub log_probabilities: Vec<LogProbabilities>,
    /// The prompt, then the response as far as it is known.
    pub(super) tokens: Vec<TokenId>,
    pub(super) prompt_len: usize,
    /// Positions in each model's plane of the cache once all planned steps have run. The amateur has fewer where it is
    /// deferred, and none where the request does not need it.
    pub(super) num_computed: PerModel<usize>,
    pub(super) blocks: BlockTable,
    pub(super) state: State,
    /// The number of the first plan whose results are this sequence's. Results of earlier plans are discarded: they were
    /// planned before it was preempted or before it was known to wait for the amateur.
    pub(super) first_valid_plan: u64,
    /// The row that holds its logits while it waits for the amateur. No other running sequence has this row.
    pub(super) deferred_row: u32,
    /// Texts that end it, beside its stop tokens.
    pub(super) stop_text: Option<StopText>,
}

/// Names a request in its completion. It changes no token: the noise is keyed by [`SamplingParams::noise`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestIdentity {
    /// The request's id.
    pub id: String,
    /// Which of several samples of one prompt this is.
    pub sample: u32,
    /// The caller's own tag.
    pub tag: usize,
}

/// How a sequence's tokens are drawn and when it ends.
#[derive(Debug, Clone)]
pub struct SamplingParams {
    /// The method's parameters. They must not need an amateur where there is none.
    pub contrast: Contrast,
    /// The noise of its draws.
    pub noise: Noise,
    /// Tokens that end it.
    pub stop_tokens: Arc<[TokenId]>,
    /// Ends it at this length, prompt and response. The cache must be able to hold it.
    pub max_len: usize,
    /// Whether [`Sequence::log_probabilities`] are wanted.
    pub log_probabilities: bool,
}

/// One value for each model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerModel<T> {
    /// The expert's.
    pub expert: T,
    /// The amateur's.
    pub amateur: T,
}

/// What is known of a sequence's next token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// All planned tokens are known.
    Ready,
    /// Steps in flight draw the next tokens.
    InFlight {
        /// How many.
        tokens: usize,
        /// Which output of the last of these steps draws the last token.
        source_output: u32,
    },
    /// The expert left the next token to the amateur, whose step is not planned yet.
    AwaitsAmateur,
    /// No token follows.
    Ended(End),
}

/// How a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A stop token or a stop text.
    Stop,
    /// Its full length.
    Length,
    /// A row of logits without a next token.
    Fault(RowFault),
}

impl SamplingParams {
    /// Whether the amateur's logits change a token, so that it has to read the sequence too.
    pub fn needs_amateur(&self) -> bool {
        self.contrast.needs_amateur()
    }

    /// Whether the expert alone decides a token that is its only candidate. Log-probabilities take both models.
    pub fn expert_may_decide(&self) -> bool {
        !self.log_probabilities
    }
}

impl Sequence {
    /// A sequence that has not begun. The prompt must not be empty, and shorter than [`SamplingParams::max_len`].
    pub fn new(request: RequestIdentity, prompt: Vec<TokenId>, params: SamplingParams) -> Self {
        debug_assert!(!prompt.is_empty() && prompt.len() < params.max_len);
        Self {
            id: SeqId(0),
            request,
            params,
            scores: Vec::new(),
            log_probabilities: Vec::new(),
            prompt_len: prompt.len(),
            tokens: prompt,
            num_computed: PerModel::default(),
            blocks: BlockTable::default(),
            state: State::Ready,
            first_valid_plan: 0,
            deferred_row: 0,
            stop_text: None,
        }
    }

    /// A sequence of `num_tokens` tokens for a warm-up step. All of its `num_blocks` blocks are block 0.
    pub(super) fn for_warm_up(number: usize, num_tokens: usize, num_blocks: usize) -> Self {
        let params = SamplingParams {
            contrast: Contrast::default(),
            noise: Noise::new(0, "", 0),
            stop_tokens: Arc::default(),
            max_len: num_tokens + 1,
            // So that the step computes all of the amateur's logits, beside those of the candidates.
            log_probabilities: true,
        };
        let mut sequence = Self::new(RequestIdentity::default(), vec![TokenId(0); num_tokens], params);
        (sequence.id, sequence.deferred_row) = (SeqId(number as u64), number as u32);
        sequence.blocks.ids = PerKind::of(|_| vec![BlockId(0); num_blocks]);
        sequence
    }

    /// The tokens of the response, the stop token included.
    pub fn response(&self) -> &[TokenId] {
        &self.tokens[self.prompt_len..]
    }

    /// How it ended; `None` if it was cancelled before its end.
    pub fn end(&self) -> Option<End> {
        match self.state {
            State::Ended(end) => Some(end),
            State::Ready | State::InFlight { .. } | State::AwaitsAmateur => None,
        }
    }

    /// Tokens that are planned and not known yet.
    pub(super) fn num_in_flight(&self) -> usize {
        match self.state {
            State::Ready | State::Ended(_) => 0,
            State::InFlight { tokens, .. } => tokens,
            State::AwaitsAmateur => 1,
        }
    }

    /// Tokens, known and in flight.
    pub(super) fn len(&self) -> usize {
        self.tokens.len() + self.num_in_flight()
    }

    /// Positions that the next step may compute: none if the token in flight will be the last one, or waits for the amateur.
    pub(super) fn num_pending(&self) -> usize {
        if self.len() < self.params.max_len && !self.awaits_amateur() {
            self.len() - self.num_computed.expert
        } else {
            0
        }
    }

    /// Whether only its last token is not computed yet, so that the next step draws another.
    pub(super) fn is_decoding(&self) -> bool {
        self.num_pending() == 1
    }

    /// The first position that a model has still to compute.
    pub(super) fn next_position(&self) -> usize {
        self.num_computed.expert - self.lag()
    }

    /// Positions that the amateur is behind the expert; 0 if the request does not need it.
    pub(super) fn lag(&self) -> usize {
        if self.params.needs_amateur() { self.num_computed.expert - self.num_computed.amateur } else { 0 }
    }

    /// Whether its next token waits for the amateur, whose step is not planned yet.
    pub(super) fn awaits_amateur(&self) -> bool {
        self.state == State::AwaitsAmateur
    }

    /// Whether a step in flight draws its next token or leaves it to the amateur.
    pub(super) fn is_in_flight(&self) -> bool {
        matches!(self.state, State::InFlight { .. })
    }

    /// Whether the expert alone would have left to the amateur this token, which both models drew.
    pub(super) fn would_await_amateur(&self, sampled: &Sampled) -> bool {
        self.params.needs_amateur() && !(self.params.expert_may_decide() && sampled.num_candidates == 1)
    }

    /// Records that output `source_output` of a planned step draws another token.
    pub(super) fn expect_token(&mut self, source_output: u32) {
        self.state = State::InFlight { tokens: self.num_in_flight() + 1, source_output };
    }

    /// Records that output `source_output` of the amateur's planned step draws the token that waits for it.
    pub(super) fn expect_awaited_token(&mut self, source_output: u32) {
        self.state = State::InFlight { tokens: 1, source_output };
    }

    /// Makes its next token, which follows `num_computed` positions, wait for the amateur. Plans before `first_valid_plan` took
    /// the token to be known, so their results are dropped.
    pub(super) fn wait_for_amateur(&mut self, num_computed: usize, first_valid_plan: u64) {
        self.num_computed.expert = num_computed;
        (self.state, self.first_valid_plan) = (State::AwaitsAmateur, first_valid_plan);
    }

    /// Forgets the cache and the tokens in flight. Plans from number `first_valid_plan` on begin with the known tokens.
    pub(super) fn begin_anew(&mut self, first_valid_plan: u64) {
        (self.num_computed, self.blocks) = (PerModel::default(), BlockTable::default());
        (self.state, self.first_valid_plan) = (State::Ready, first_valid_plan);
    }

    /// Takes the token or the fault of the oldest step in flight. Returns true if the sequence ends by it.
    pub(super) fn take(&mut self, decision: Decision) -> bool {
        self.state = match self.state {
            State::InFlight { tokens, source_output } if tokens > 1 => {
                State::InFlight { tokens: tokens - 1, source_output }
            }
            _ => State::Ready,
        };
        let end = match decision {
            Ok(sampled) => self.append(&sampled),
            Err(fault) => Some(End::Fault(fault)),
        };
        end.inspect(|end| self.state = State::Ended(*end)).is_some()
    }

    fn append(&mut self, sampled: &Sampled) -> Option<End> {
        self.tokens.push(sampled.token);
        self.scores.push(sampled.score);
        if self.params.log_probabilities {
            self.log_probabilities.extend(sampled.log_probabilities);
        }
        let has_stop_text = self.stop_text.as_mut().is_some_and(|stop_text| stop_text.push(sampled.token));
        if has_stop_text || self.params.stop_tokens.contains(&sampled.token) {
            Some(End::Stop)
        } else {
            (self.tokens.len() >= self.params.max_len).then_some(End::Length)
        }
    }
}
