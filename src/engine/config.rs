//! The settings of the engine and of its parts.

use std::ops::Range;

use crate::contrast::Contrast;
use crate::device::{Capacity, Device, PerKind};
use crate::engine::kv_cache::division::Division;
use crate::engine::kv_cache::window::Window;
use crate::engine::scheduler::cost::Deferral;
use crate::error::{Error, Result};
use crate::model::spec::Spec;

/// Positions that the amateur may be behind a row that decodes: its step over them should cost little more than over one.
pub(in crate::engine) const MAX_LAG: usize = 64;

/// How much the engine may do and hold at once. None of these settings changes a response, except that `max_model_len` bounds
/// its length.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Sequences that run at once.
    pub max_num_seqs: usize,
    /// Tokens per step, prefill chunks and decode rows together. By default what suits the device, or `max_num_seqs` if that is
    /// more.
    pub max_num_batched_tokens: Option<usize>,
    /// Tokens of the longest sequence, prompt and response. By default what both models and the cache can hold. Where layers
    /// have a window, the cache is divided between them and the others for sequences of this length.
    pub max_model_len: Option<usize>,
    /// Bytes of the paged KV cache, both models' planes together. By default what the device has left.
    pub kv_cache_memory: Option<usize>,
    /// Tokens per block of the cache.
    pub block_size: usize,
    /// Whether a step is submitted before the results of the step before are known, so that the device never waits for the host.
    /// The end of a response is then known one step late. By default what suits the device.
    pub async_scheduling: Option<bool>,
    /// Which work is skipped. By default what suits the device.
    pub shortcuts: Option<Shortcuts>,
    /// Steps, counted from 0, at whose start and end [`Device::profile`] switches a waiting profiler on and off.
    pub profile_steps: Option<Range<u64>>,
}

/// Work that can be skipped. No shortcut changes a token. Gathered candidates change the last bits of scores, because their sums
/// have another order; on a GPU the other shortcuts do too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortcuts {
    /// The amateur's logits are computed for the candidates alone.
    pub gathered_candidates: bool,
    /// A token that is the only candidate needs no amateur, so the amateur's pass over it waits until a row needs the amateur.
    pub deferred_amateur: Deferred,
    /// Tokens with which several sequences begin are computed once.
    pub shared_prefixes: bool,
}

/// When the amateur is deferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deferred {
    /// Never.
    Never,
    /// While the expert decides so many tokens that the saved work of the amateur outweighs running the models one after the
    /// other.
    WhereItPays,
    /// Always.
    Always,
}

impl Shortcuts {
    /// Every token takes both models, in full.
    pub const NONE: Self =
        Self { gathered_candidates: false, deferred_amateur: Deferred::Never, shared_prefixes: false };

    /// The shortcuts that make `device` faster.
    pub fn of<D: Device>(device: &D) -> Self {
        let deferred_amateur =
            if device.info().solo_slowdown.is_some() { Deferred::WhereItPays } else { Deferred::Never };
        let gathered_candidates = device.info().gathers_candidates;
        Self { gathered_candidates, deferred_amateur, shared_prefixes: true }
    }

    /// The names of those that are on, as the program spells them.
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

impl EngineConfig {
    /// Tokens of a long prompt and its response.
    pub const USUAL_LEN: usize = 4096;

    /// The settings of the pair. A step takes `default_batched_tokens` tokens if the configuration does not say how many.
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
        let &Self { kv_cache_memory, max_model_len, .. } = self;
        Ok(PairConfig { capacity, kv_cache_memory, max_model_len, shortcuts })
    }

    /// The context limits of models that can read `context` and of a cache of `cache_tokens` tokens.
    pub(super) fn windows(&self, context: Windows, cache_tokens: usize) -> Result<Windows> {
        let both = self.window(context.both, cache_tokens)?;
        Ok(Windows { both, expert: self.window(context.expert, cache_tokens)? })
    }

    /// One context limit: `max_model_len`, or as much as the models and the cache hold.
    fn window(&self, context_length: usize, cache_tokens: usize) -> Result<usize> {
        if context_length < 2 {
            return Err(Error::Setting(format!(
                "the models read at most {context_length} token (max_position_embeddings of config.json), and a prompt and \
                 a response take at least 2"
            )));
        }
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

/// The longest sequence, prompt and response, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// The limit of sequences that the expert alone reads.
    pub expert: usize,
    /// The limit of sequences that both models read.
    pub both: usize,
}

impl Windows {
    /// The limit of a request with these parameters.
    pub fn of(self, contrast: &Contrast) -> usize {
        if contrast.needs_amateur() { self.both } else { self.expert }
    }

    /// The lower limit of each kind.
    pub(super) fn min(self, other: Self) -> Self {
        Self { expert: self.expert.min(other.expert), both: self.both.min(other.both) }
    }
}

/// How much a pair makes room for.
#[derive(Debug, Clone, Copy)]
pub struct PairConfig {
    /// What the device makes room for too.
    pub capacity: Capacity,
    /// Bytes of the cache. By default what the device has left.
    pub kv_cache_memory: Option<usize>,
    /// The longest sequence, prompt and response. By default what the models and the cache hold.
    pub max_model_len: Option<usize>,
    /// Work that is skipped.
    pub shortcuts: Shortcuts,
}

impl PairConfig {
    /// How the cache of a pair is divided.
    pub fn division(&self, expert: &Spec, amateur: Option<&Spec>) -> Division {
        let specs = || [Some(expert), amateur].into_iter().flatten();
        let max_lag = if self.defers(amateur.is_some()) { MAX_LAG } else { 0 };
        let context = specs().map(|spec| spec.context_length).min().unwrap_or(0);
        Division {
            window: specs().filter_map(Spec::longest_window).max().map(|len| Window { len, max_lag }),
            capacity: self.capacity,
            max_model_len: self.max_model_len,
            long_len: context.min(EngineConfig::USUAL_LEN),
        }
    }

    /// Whether the amateur may be deferred.
    pub fn defers(&self, has_amateur: bool) -> bool {
        has_amateur && self.shortcuts.deferred_amateur != Deferred::Never
    }
}

/// The settings of the scheduler.
#[derive(Debug, Clone, Copy)]
pub struct SchedulerConfig {
    /// The limits of a step.
    pub capacity: Capacity,
    /// Blocks in the pool of each kind.
    pub num_blocks: PerKind<usize>,
    /// The window of the pair, if layers have one.
    pub window: Option<Window>,
    /// Whether sequences share cached blocks.
    pub shared_prefixes: bool,
    /// How the amateur is deferred; `None` if it never is.
    pub deferral: Option<Deferral>,
}

impl SchedulerConfig {
    /// Whether the pools hold a sequence of so many tokens.
    pub fn holds(&self, num_tokens: usize) -> bool {
        let (blocks, block_size) = (self.blocks_for(num_tokens), self.capacity.block_size);
        let seen = self.window.map_or(0, |window| window.blocks(1, 0, block_size).min(blocks));
        blocks <= self.num_blocks.full && seen <= self.num_blocks.windowed
    }

    /// Blocks that hold so many tokens of a sequence.
    pub fn blocks_for(&self, num_tokens: usize) -> usize {
        num_tokens.div_ceil(self.capacity.block_size)
    }
}
