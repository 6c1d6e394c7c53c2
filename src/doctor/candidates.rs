//! Checks [`Device::sample`](crate::device::Device::sample) when it computes the amateur's logits itself. The f64
//! reference of `contrast/` gets logits that are computed in f64 from the same hidden states and the same `lm_head`.

use std::ops::Range;

use super::comparison::{Check, Comparison, as_cpu, views};
use super::sample::{agrees, count, decisions, decoding, random_contrast, random_logits, step, words};
use crate::contrast::{Contrast, Distribution, Noise, RowFault, Vocabulary};
use crate::device::inspect::Inspect;
use crate::device::{
    AmateurLogits, Decision, Dtype, ExpertLogits, Precision, Projections, SampleRow, Unprojected,
};
use crate::error::Result;
use crate::ids::TokenId;

const OPERATION: &str = "sample";

/// All checks of sampling that computes the amateur's logits.
pub fn checks<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Vec<Check>> {
    let mut checks = vec![faults(on)?, alone(on)?, each_way(on)?];
    // Some widths fill whole 16-byte accesses and some do not; some are smaller than the accesses of a warp and some
    // are larger.
    for (len, width, rows) in [(1, 8, 4), (500, 24, 48), (3000, 50, 32), (3000, 300, 24), (40_000, 64, 8)] {
        let rows = Rows::random(on, len, width, rows);
        let wrong = rows.differences(&rows.sample(on)?.0);
        checks.push(check(format!("{} rows of {len} tokens, {width} wide", rows.samples.len()), wrong));
    }
    Ok(checks)
}

/// Rows to sample: the expert's logits `[rows, vocabulary.len]`, the amateur's hidden states `[rows, width]`, and
/// `projection`, which is the amateur's `lm_head`, `[vocabulary.len + PADDING, width]`. Hidden states and `lm_head`
/// are rounded to the device's format.
struct Rows {
    vocabulary: Vocabulary,
    samples: Vec<SampleRow>,
    expert: Vec<f32>,
    width: usize,
    hidden: Vec<f32>,
    projection: Vec<f32>,
}

/// Number of rows of the `lm_head` that belong to no token. They hold NaN.
const PADDING: usize = 3;

impl Rows {
    /// Random rows in which the amateur masks a few tokens: their first weight is negative infinity, and the first
    /// input of every row is 1.
    fn random<D: Inspect>(on: &mut Comparison<'_, D>, len: usize, width: usize, count: usize) -> Self {
        let is_f32 = on.device.info().dtype == Dtype::F32 && !on.rounds_rows();
        let round = |x: f32| if is_f32 { x } else { half::bf16::from_f32(x).to_f32() };
        let numbers = &mut on.numbers;
        let (mut samples, mut expert) = (Vec::new(), Vec::new());
        for row in 0..count {
            let contrast = random_contrast(numbers);
            expert.extend(random_logits(numbers, len, !contrast.needs_amateur()));
            samples.push(SampleRow {
                contrast,
                noise: Noise::new(numbers.bits(), "doctor", row as u32),
                position: numbers.below(1 << 20) as u32,
                log_probabilities: numbers.below(4) == 0,
                deferred_row: None,
            });
        }
        let mut hidden: Vec<f32> = (0..count * width).map(|_| round(4.0 * numbers.uniform())).collect();
        hidden.iter_mut().step_by(width).for_each(|one| *one = 1.0);
        let mut projection: Vec<f32> = (0..len * width).map(|_| round(numbers.uniform())).collect();
        for mask in projection.iter_mut().step_by(width).filter(|_| numbers.below(20) == 0) {
            *mask = f32::NEG_INFINITY;
        }
        projection.extend(vec![f32::NAN; PADDING * width]);
        let special = (0..5).map(|_| TokenId(numbers.below(len) as u32)).collect();
        Self { vocabulary: Vocabulary::new(len, special), samples, expert, width, hidden, projection }
    }

    fn expert(&self, row: usize) -> &[f32] {
        &self.expert[row * self.vocabulary.len..][..self.vocabulary.len]
    }

    fn hidden(&self, row: usize) -> &[f32] {
        &self.hidden[row * self.width..][..self.width]
    }

    fn amateur(&self, row: usize) -> Vec<f32> {
        let hidden = self.hidden(row);
        let logit = |token: &[f32]| -> f64 {
            hidden.iter().zip(token).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        self.projection
            .chunks(self.width)
            .take(self.vocabulary.len)
            .map(|token| logit(token) as f32)
            .collect()
    }

    fn only(&self, rows: Range<usize>) -> Self {
        Self {
            vocabulary: self.vocabulary.clone(),
            samples: self.samples[rows.clone()].to_vec(),
            expert: rows.clone().flat_map(|row| self.expert(row)).copied().collect(),
            width: self.width,
            hidden: rows.flat_map(|row| self.hidden(row)).copied().collect(),
            projection: self.projection.clone(),
        }
    }

    /// Samples the rows on the device. Also returns the number of logits that the device computed.
    fn sample<D: Inspect>(&self, on: &Comparison<'_, D>) -> Result<(Vec<Decision>, Projections)> {
        let device = on.device;
        let (rows, len) = (self.samples.len(), self.vocabulary.len);
        let mut step = step(device, rows, &self.vocabulary)?;
        let mut expert = device.tensor(rows, len, Precision::Single)?;
        device.upload(&on.given(&self.expert), &mut expert);
        let mut hidden = device.tensor(rows, self.width, Precision::Working)?;
        device.upload(&self.hidden, &mut hidden);
        let table = [len + PADDING, self.width];
        let projection = device.weight(&views(device.info().dtype, &self.projection, &table))?;
        let mut logits = device.tensor(rows, len + PADDING, Precision::Single)?;
        device.upload(&vec![f32::NAN; rows * (len + PADDING)], &mut logits);
        device.prepare(&mut step, &decoding(rows), &self.samples);
        let amateur = Unprojected { hidden: &hidden, lm_head: &projection, logits: &mut logits };
        let (expert, amateur) = (ExpertLogits::Computed(&expert), AmateurLogits::Unprojected(amateur));
        device.sample(&mut step, 0..rows, expert, amateur);
        device.submit(&mut step);
        let results = decisions(device.collect(&mut step)?)?;
        Ok((results, device.projections(&step)))
    }

    /// Number of rows that differ from the reference.
    fn differences(&self, found: &[Decision]) -> usize {
        let differs = |row: usize| {
            let sample = &self.samples[row];
            let amateur = Some(self.amateur(row)).filter(|_| sample.contrast.needs_amateur());
            let expected =
                Distribution::new(&sample.contrast, &self.vocabulary, self.expert(row), amateur.as_deref());
            match (&found[row], expected) {
                (Ok(found), Ok(expected)) => !agrees(found, &expected, sample),
                (Err(found), Err(expected)) => *found != expected,
                _ => true,
            }
        };
        (0..self.samples.len()).filter(|row| differs(*row)).count() + self.samples.len().abs_diff(found.len())
    }
}

/// Checks hidden states and logits with NaN in a few rows. Only these rows may fail, in whichever way their logits
/// are computed.
fn faults<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Check> {
    let (len, width, rows_a_kind) = (900, 40, 7);
    let mut rows = Rows::random(on, len, width, 3 * rows_a_kind);
    rows.expert.fill_with(|| 3.0 * on.numbers.uniform());
    // Small plausible sets, large ones, and the whole vocabulary.
    for (row, sample) in rows.samples.iter_mut().enumerate() {
        let alpha = [0.9, 0.1, 0.0][row / rows_a_kind];
        sample.contrast = Contrast { alpha, ..Contrast::default() };
        sample.log_probabilities = row % 2 == 0;
    }
    for kind in 0..3 {
        let row = kind * rows_a_kind;
        rows.hidden[row * width + 5] = f32::NAN;
        rows.expert[(row + 1) * len + 20] = f32::NAN;
        rows.expert[(row + 2) * len..][..len].fill(f32::NEG_INFINITY);
        rows.hidden[(row + 3) * width + width - 1] = f32::INFINITY;
        // Both models have a fault; the expert's fault is reported.
        rows.expert[(row + 4) * len..][..len].fill(f32::NEG_INFINITY);
        rows.hidden[(row + 4) * width] = f32::NAN;
    }
    let found = rows.sample(on)?.0;
    let faults = [RowFault::NotANumber, RowFault::NotANumber, RowFault::AllMasked, RowFault::NotANumber];
    let faults = faults.into_iter().chain([RowFault::AllMasked]).enumerate();
    let missed = faults.flat_map(|(row, fault)| (0..3).map(move |kind| (kind * rows_a_kind + row, fault)));
    let missed = missed.filter(|(row, fault)| found[*row] != Err(*fault)).count();
    Ok(check("NaN, infinities and masks".to_owned(), missed + rows.differences(&found)))
}

/// Checks that a row has the same bits alone, among few rows and among many. No row needs all its logits beforehand,
/// because such logits come from `matmul`, which may give other bits.
fn alone<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Check> {
    let mut rows = Rows::random(on, 2000, 72, 40);
    for sample in &mut rows.samples {
        sample.contrast.alpha = sample.contrast.alpha.max(1e-6);
        sample.log_probabilities = false;
    }
    let together = rows.sample(on)?.0;
    let mut wrong = 0;
    for size in [1, 7] {
        for first in (0..if size == 1 { 10 } else { 33 }).step_by(size) {
            let apart = rows.only(first..first + size).sample(on)?.0;
            let pairs = apart.iter().zip(&together[first..]);
            wrong += pairs.filter(|(apart, together)| words(apart) != words(together)).count();
        }
    }
    Ok(check("rows alone, among 7 and among 40".to_owned(), wrong))
}

/// Checks that the device uses both ways of computing logits. It gathers small plausible sets. It computes all logits
/// for large sets and for sets that contain a special token with a beta of its own. If any row needs all its logits,
/// the CPU computes the logits of all rows with one product.
fn each_way<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Check> {
    let len = 4000;
    let mut rows = Rows::random(on, len, 16, 12);
    rows.vocabulary = Vocabulary::new(len, vec![TokenId(0)]);
    rows.expert.fill(-40.0);
    let mut num_candidates = 0;
    for (row, sample) in rows.samples.iter_mut().enumerate() {
        sample.contrast = Contrast::default();
        sample.log_probabilities = false;
        // The rows of the last two groups have a special beta, but only the first of these groups has a special token
        // in its plausible set.
        let (first, size) = [(1, 100), (1, 4000 - 1), (0, 10), (1, 10)][row / 3];
        if row >= 6 {
            sample.contrast.special_token_beta = Some(0.3);
        }
        rows.expert[row * len + first..][..size].fill_with(|| on.numbers.uniform());
        num_candidates += if (3..9).contains(&row) { 0 } else { size };
    }
    let (found, Projections { gathered, full }) = rows.sample(on)?;
    let full_of_gathering = if as_cpu(on.device).is_some() { 12 } else { 6 };
    let expected =
        if on.device.info().gathers_candidates { (num_candidates, full_of_gathering) } else { (0, 12) };
    let is_other = usize::from((gathered, full) != expected);
    let case = format!(
        "{gathered} logits gathered and {full} rows in full, expected {} and {}",
        expected.0, expected.1
    );
    Ok(check(case, rows.differences(&found) + is_other))
}

fn check(case: String, wrong: usize) -> Check {
    Check { operation: OPERATION, ..count(case, wrong) }
}
