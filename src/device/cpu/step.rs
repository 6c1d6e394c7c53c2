//! The current step, and what it samples.

use std::collections::VecDeque;
use std::time::Instant;

use crate::contrast::Vocabulary;
use crate::device::trace::Trace;
use crate::device::types::batch::{Batch, RowResult, SampleRow};
use crate::device::types::logits::Projections;
use crate::ids::TokenId;

/// See [`crate::device::Device::Step`].
pub struct Step {
    /// The batch of the current step.
    pub batch: Batch,
    /// `[outputs]`: how each output is sampled.
    pub samples: Vec<SampleRow>,
    /// The ids that may be sampled.
    pub vocabulary: Vocabulary,
    /// The results of the current step so far.
    pub results: Vec<RowResult>,
    /// Which of the amateur's logits were computed last.
    pub projections: Projections,
    /// The times at which steps began and ended.
    pub trace: Trace<Instant>,
    /// `[outputs]`: the tokens that the previous step sampled; `None` where an output awaits the amateur.
    sampled_before: Vec<Option<TokenId>>,
    /// Results that are not collected yet, oldest step first.
    submitted: VecDeque<Vec<RowResult>>,
}

impl Step {
    /// Before the first step.
    pub fn new(vocabulary: Vocabulary) -> Self {
        Self {
            batch: Batch::default(),
            samples: Vec::new(),
            vocabulary,
            results: Vec::new(),
            projections: Projections::default(),
            trace: Trace::off(),
            sampled_before: Vec::new(),
            submitted: VecDeque::new(),
        }
    }

    /// See [`crate::device::Device::prepare`].
    pub fn prepare(&mut self, batch: &Batch, samples: &[SampleRow]) {
        self.trace.begin(Instant::now);
        self.batch.clone_from(batch);
        self.samples.clear();
        self.samples.extend_from_slice(samples);
        self.results.clear();
        for pending in &batch.pending_tokens {
            if let Some(token) = self.sampled_before[pending.source_output as usize] {
                self.batch.tokens[pending.index as usize] = token;
            } else if let Some(output) =
                batch.logits_indices.iter().position(|output| *output == pending.index)
            {
                // The row's result is discarded. It is computed with any token, as if it did not need the amateur.
                self.samples[output].deferred_row = None;
            }
        }
    }

    /// See [`crate::device::Device::submit`].
    pub fn submit(&mut self) {
        let token = |result: &RowResult| match result {
            RowResult::Sampled(sampled) => Some(sampled.token),
            // The scheduler discards what it planned after a fault; until then the row needs a token that exists.
            RowResult::Fault(_) => Some(TokenId(0)),
            RowResult::AwaitsAmateur => None,
        };
        self.sampled_before = self.results.iter().map(token).collect();
        self.submitted.push_back(std::mem::take(&mut self.results));
        self.trace.end(Instant::now);
    }

    /// See [`crate::device::Device::collect`].
    pub fn collect(&mut self) -> Vec<RowResult> {
        self.submitted.pop_front().unwrap_or_default()
    }
}
