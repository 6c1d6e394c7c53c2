//! The step at hand and what it samples.

use std::collections::VecDeque;

use crate::contrast::Vocabulary;
use crate::device::{Batch, Projections, RowResult, SampleRow};
use crate::ids::TokenId;

/// See [`crate::device::Device::Step`].
pub struct Step {
    /// The step at hand.
    pub batch: Batch,
    /// `[outputs]`
    pub samples: Vec<SampleRow>,
    /// The ids that may be sampled.
    pub vocabulary: Vocabulary,
    /// Of the step at hand, so far; none where the amateur must have its say first.
    pub results: Vec<Option<RowResult>>,
    /// What was computed of the amateur's logits last.
    pub projections: Projections,
    /// `[outputs]`: what the step before sampled, if it did.
    fed: Vec<Option<TokenId>>,
    finished: VecDeque<Vec<Option<RowResult>>>,
}

impl Step {
    /// No step yet.
    pub fn new(vocabulary: Vocabulary) -> Self {
        Self {
            batch: Batch::default(),
            samples: Vec::new(),
            vocabulary,
            results: Vec::new(),
            projections: Projections::default(),
            fed: Vec::new(),
            finished: VecDeque::new(),
        }
    }

    /// See [`crate::device::Device::begin`].
    pub fn begin(&mut self, batch: &Batch, samples: &[SampleRow]) {
        self.batch.clone_from(batch);
        self.samples.clear();
        self.samples.extend_from_slice(samples);
        self.results.clear();
        for pending in &batch.pending_tokens {
            if let Some(token) = self.fed[pending.source_output as usize] {
                self.batch.tokens[pending.index as usize] = token;
            } else if let Some(output) =
                batch.logits_indices.iter().position(|output| *output == pending.index)
            {
                // In vain: computed with any token, as if it did not need the amateur.
                self.samples[output].deferred_row = None;
            }
        }
    }

    /// See [`crate::device::Device::finish`].
    pub fn finish(&mut self) {
        // What is planned on a fault is discarded; until then it needs a token that exists.
        let token = |result: &Option<RowResult>| {
            result.map(|result| result.map_or(TokenId(0), |sampled| sampled.token))
        };
        self.fed = self.results.iter().map(token).collect();
        self.finished.push_back(std::mem::take(&mut self.results));
    }

    /// See [`crate::device::Device::collect_settled`].
    pub fn collect(&mut self) -> Vec<Option<RowResult>> {
        self.finished.pop_front().unwrap_or_default()
    }
}
