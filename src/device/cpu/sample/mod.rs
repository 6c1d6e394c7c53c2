//! Sampling on the CPU by the method of `contrast/`. It draws the same tokens as the reference. It reads each row of
//! logits a few times in vectors and computes exactly (in f64) for the candidates alone.

mod candidates;
mod draw;
mod reduce;

use std::cell::Cell;

use super::isa::Kernel;
use super::matmul;
use super::path::{PARALLEL, Path};
use super::simd::Simd;
use super::tensor::Tensor;
use super::weight::Weight;
use crate::contrast::{LogProbabilities, RowFault, Sampled, Vocabulary};
use crate::device::types::batch::{Decision, RowResult, SampleRow};
use crate::device::types::logits::{AmateurLogits, ExpertLogits, Projections, Unprojected};
use crate::ids::TokenId;
use candidates::{Candidates, MANY_CANDIDATES, collect_candidates, subtract, subtract_projected};
use draw::{Draw, cut};
use reduce::{log_probability, lowest_best, peak, sum_exp};

thread_local! {
    /// A row's candidates; the memory is reused by the next row.
    static CANDIDATES: Cell<Candidates> = const { Cell::new(Candidates::new()) };
}

/// Samples rows that draw from one vocabulary.
#[derive(Clone, Copy)]
pub struct Sampler<'a> {
    pub path: Path<'a>,
    pub rows: &'a [SampleRow],
    pub vocabulary: &'a Vocabulary,
}

impl Sampler<'_> {
    /// See [`crate::device::Device::sample`].
    pub fn sample(
        self,
        expert: ExpertLogits<'_, Tensor>,
        amateur: AmateurLogits<'_, Tensor, Weight>,
    ) -> (Vec<RowResult>, Projections) {
        let (decisions, projections) = match amateur {
            AmateurLogits::Unneeded => (self.decide(expert, |_, _| Amateur::Unread), Projections::default()),
            AmateurLogits::Computed(logits) => (self.decide_by_both(expert, logits), Projections::default()),
            AmateurLogits::Later { deferred_logits } => {
                (self.decide_by_expert(expert, deferred_logits), Projections::default())
            }
            AmateurLogits::Unprojected(amateur) => self.decide_by_candidates(expert, amateur),
        };
        let result = |decision: Option<Decision>| decision.map_or(RowResult::AwaitsAmateur, RowResult::from);
        (decisions.into_iter().map(result).collect(), projections)
    }

    /// Decides by all logits of both models.
    fn decide_by_both(self, expert: ExpertLogits<'_, Tensor>, amateur: &Tensor) -> Vec<Option<Decision>> {
        self.decide(expert, |index, row| {
            if row.contrast.needs_amateur() {
                Amateur::Logits(&amateur.row(index)[..self.vocabulary.len])
            } else {
                Amateur::Unread
            }
        })
    }

    /// Decides what the expert can decide alone, before the amateur's logits exist. Copies the expert's logits of the
    /// rows that await the amateur.
    fn decide_by_expert(
        self,
        expert: ExpertLogits<'_, Tensor>,
        deferred_logits: &mut Tensor,
    ) -> Vec<Option<Decision>> {
        let decisions = self.decide(expert, |_, row| match row.deferred_row {
            Some(_) => Amateur::Deferred,
            None => Amateur::Unread,
        });
        for (index, (row, decision)) in self.rows.iter().zip(&decisions).enumerate() {
            if let (Some(deferred_row), None) = (row.deferred_row, decision) {
                deferred_logits.row_mut(deferred_row as usize)[..self.vocabulary.len]
                    .copy_from_slice(self.expert_row(expert, index));
            }
        }
        decisions
    }

    /// Decides by the amateur's logits of the candidates. Rows that need all of the amateur's logits get them by one
    /// product for all such rows. Which rows these are depends on each row alone.
    fn decide_by_candidates(
        self,
        expert: ExpertLogits<'_, Tensor>,
        Unprojected { hidden, lm_head, logits }: Unprojected<'_, Tensor, Weight>,
    ) -> (Vec<Option<Decision>>, Projections) {
        let rows = self.rows;
        let hidden_row = |index| Projected { hidden: hidden.row(index), lm_head, logits: None };
        let mut decisions = self.decide(expert, |index, row| {
            if row.contrast.needs_amateur() { Amateur::Projected(hidden_row(index)) } else { Amateur::Unread }
        });
        let decided = rows.iter().zip(&decisions).filter(|(row, _)| row.contrast.needs_amateur());
        let sampled = decided.filter_map(|(_, decision)| decision.and_then(Result::ok));
        let gathered = sampled.map(|sampled| sampled.num_candidates as usize).sum();
        let left: Vec<usize> = (0..rows.len()).filter(|&row| decisions[row].is_none()).collect();
        if !left.is_empty() {
            matmul::matmul(self.path, rows.len(), hidden, lm_head, None, logits);
            let all = self.decide(expert, |index, _| match decisions[index] {
                None => {
                    let logits = Some(&logits.row(index)[..self.vocabulary.len]);
                    Amateur::Projected(Projected { logits, ..hidden_row(index) })
                }
                Some(_) => Amateur::Done,
            });
            for &row in &left {
                decisions[row] = all[row];
            }
        }
        let full = if left.is_empty() { 0 } else { rows.len() };
        (decisions, Projections { gathered, full })
    }

    /// Decides each row; `None` for a row that needs all of the amateur's logits.
    fn decide<'a>(
        self,
        expert: ExpertLogits<'_, Tensor>,
        amateur: impl Fn(usize, &SampleRow) -> Amateur<'a> + Sync,
    ) -> Vec<Option<Decision>> {
        let decide = |(index, row): (usize, &SampleRow)| {
            let mut candidates = CANDIDATES.take();
            let decision = self.path.isa.run(Row {
                sample: row,
                vocabulary: self.vocabulary,
                expert: self.expert_row(expert, index),
                amateur: amateur(index, row),
                candidates: &mut candidates,
            });
            CANDIDATES.set(candidates);
            decision
        };
        if self.rows.len() * self.vocabulary.len < PARALLEL {
            self.rows.iter().enumerate().map(decide).collect()
        } else {
            let mut decisions = vec![None; self.rows.len()];
            let places = decisions.iter_mut().zip(self.rows.iter().enumerate());
            self.path.pool.for_each(places, |(place, row)| *place = decide(row));
            decisions
        }
    }

    /// The expert's logits of a row.
    fn expert_row(self, expert: ExpertLogits<'_, Tensor>, index: usize) -> &[f32] {
        let row = match expert {
            ExpertLogits::Computed(logits) => logits.row(index),
            ExpertLogits::Deferred(logits) => {
                logits.row(self.rows[index].deferred_row.map_or(index, |row| row as usize))
            }
        };
        &row[..self.vocabulary.len]
    }
}

/// The part of the amateur's logits that is available.
#[derive(Clone, Copy)]
enum Amateur<'a> {
    /// The amateur has no say.
    Unread,
    /// None yet: only a single candidate can be drawn.
    Deferred,
    /// All logits of the row.
    Logits(&'a [f32]),
    /// The logits of the candidates can be computed.
    Projected(Projected<'a>),
    /// The row is decided already.
    Done,
}

/// The factors of the amateur's logits.
#[derive(Clone, Copy)]
struct Projected<'a> {
    hidden: &'a [f32],
    lm_head: &'a Weight,
    /// All logits of the row, once they are computed.
    logits: Option<&'a [f32]>,
}

struct Row<'a> {
    sample: &'a SampleRow,
    vocabulary: &'a Vocabulary,
    expert: &'a [f32],
    amateur: Amateur<'a>,
    candidates: &'a mut Candidates,
}

impl Kernel for Row<'_> {
    type Output = Option<Decision>;

    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Output {
        self.draw::<S>().transpose()
    }
}

impl Row<'_> {
    /// Decides the row; `None` if it needs all of the amateur's logits.
    #[inline(always)]
    fn draw<S: Simd>(self) -> Result<Option<Sampled>, RowFault> {
        let Self { sample, vocabulary, expert, amateur, candidates } = self;
        let contrast = sample.contrast;
        if matches!(amateur, Amateur::Done) {
            return Ok(None);
        }
        let peak = peak::<S>(expert, &mut candidates.peaks)?;
        collect_candidates(expert, peak, contrast.alpha.ln(), candidates);
        let is_special = |id: u32| vocabulary.is_special(TokenId(id));
        let two_betas =
            contrast.special_token_beta.is_some() && candidates.ids.iter().any(|&id| is_special(id));
        let beta_of =
            |id: u32| if two_betas && is_special(id) { contrast.special_beta() } else { contrast.beta };
        match amateur {
            Amateur::Deferred if candidates.ids.len() > 1 || sample.log_probabilities => return Ok(None),
            Amateur::Unread | Amateur::Deferred | Amateur::Done => {}
            Amateur::Logits(logits) => subtract::<S>(logits, two_betas, beta_of, candidates)?,
            Amateur::Projected(Projected { hidden, lm_head, logits }) => {
                let are_many = candidates.ids.len() * MANY_CANDIDATES > vocabulary.len;
                let needs_all = are_many || two_betas;
                match logits {
                    None if needs_all || sample.log_probabilities => return Ok(None),
                    Some(logits) if needs_all => subtract::<S>(logits, two_betas, beta_of, candidates)?,
                    // This gives the same numbers whether or not all logits are there.
                    _ => subtract_projected::<S>(hidden, lm_head, beta_of, candidates)?,
                }
            }
        }
        let best = lowest_best(&candidates.s);
        let chosen = if contrast.temperature == 0.0 {
            best
        } else {
            let draw = Draw {
                noise: sample.noise,
                position: sample.position,
                candidates,
                best,
                temperature: contrast.temperature,
            };
            match cut::<S>(&contrast, &candidates.s, candidates.s[best]) {
                None => draw.from(0..candidates.ids.len()),
                Some(kept) => draw.from(kept.into_iter().map(|index| index as usize)),
            }
        };
        let normalizer = sum_exp::<S>(&candidates.s, candidates.s[best], 1.0).ln();
        let token = TokenId(candidates.ids[chosen]);
        let num_candidates = candidates.ids.len() as u32;
        let score = match num_candidates {
            // This holds even where beta is so large that the score itself is infinite.
            1 => 0.0,
            _ => (candidates.s[chosen] - candidates.s[best] - normalizer) as f32,
        };
        if !score.is_finite() {
            return Err(RowFault::Overflow);
        }
        let mut log_probability = |logits| log_probability::<S>(logits, token, &mut candidates.peaks);
        let log_probabilities = sample.log_probabilities.then(|| LogProbabilities {
            expert: log_probability(expert),
            amateur: match amateur {
                Amateur::Logits(logits) | Amateur::Projected(Projected { logits: Some(logits), .. }) => {
                    Some(log_probability(logits))
                }
                _ => None,
            },
        });
        Ok(Some(Sampled { token, score, num_candidates, log_probabilities }))
    }
}
