//! Checks of [`Device::sample`](crate::device::Device::sample) with the logits of both models, against the f64
//! reference of `contrast/`.
//!
//! The checks count rows whose token, number of candidates, score or log-probabilities differ from the reference.

use super::comparison::{Check, Comparison, Numbers};
use crate::contrast::{Contrast, Distribution, LogProbabilities, Noise, RowFault, Sampled, Vocabulary};
use crate::device::inspect::Inspect;
use crate::device::{
    AmateurLogits, Batch, Capacity, Decision, ExpertLogits, PerKind, Precision, RowResult, SampleRow, Span,
};
use crate::error::{Error, Result};
use crate::ids::{BlockId, TokenId};

const OPERATION: &str = "sample";
/// If the winner leads by less than this, rounding may decide the token.
const MARGIN: f64 = 1e-5;
/// Allowed error of scores and log-probabilities, relative to their size or to 1, whichever is larger.
const TOLERANCE: f64 = 1e-4;
/// Number of draws that [`checks`] counts. It is small because each draw takes 0.1 ms on the SIMT runtime.
const DRAWS: usize = 1 << 17;

/// All checks of sampling with the logits of both models.
pub fn checks<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Vec<Check>> {
    let mut checks = vec![faults(on)?, draws(on, DRAWS)?];
    // A tile of the kernel has 512 tokens, and eight tiles fill a block.
    let small = [1, 2, 31, 32, 33, 255, 256, 257, 511, 512, 513, 1000];
    let large = [4095, 4096, 4097, 32_000];
    let full = [151_936, 262_144];
    let sizes = small.map(|len| (len, 384)).into_iter().chain(large.map(|len| (len, 48)));
    for (len, rows) in sizes.chain(full.map(|len| (len, 8))) {
        checks.push(random_rows(on, len, rows)?);
    }
    for len in [100, 5000] {
        checks.push(alone(on, len)?);
    }
    Ok(checks)
}

/// Rows to sample: logits `[rows, width]` of both models. The models' widths may differ, and the columns after the
/// vocabulary hold NaN.
pub(super) struct Rows {
    pub(super) vocabulary: Vocabulary,
    pub(super) samples: Vec<SampleRow>,
    pub(super) expert: (usize, Vec<f32>),
    pub(super) amateur: (usize, Vec<f32>),
}

impl Rows {
    pub(super) fn random(numbers: &mut Numbers, len: usize, rows: usize) -> Self {
        let special = (0..5).map(|_| TokenId(numbers.below(len) as u32)).collect();
        // Some widths keep rows aligned to 16 bytes and some do not.
        let widths = [len + numbers.one_of(&[0, 3, 8]), len + numbers.one_of(&[0, 1, 4])];
        let mut logits = [Vec::new(), Vec::new()];
        let mut samples = Vec::new();
        for row in 0..rows {
            let contrast = random_contrast(numbers);
            // Without the amateur, equal logits have exactly equal scores.
            let ties = !contrast.needs_amateur();
            for (logits, width) in logits.iter_mut().zip(widths) {
                logits.extend(random_logits(numbers, len, ties));
                logits.extend(vec![f32::NAN; width - len]);
            }
            let noise = Noise::new(numbers.bits(), "doctor", row as u32);
            let position = numbers.below(1 << 20) as u32;
            samples.push(SampleRow {
                contrast,
                noise,
                position,
                log_probabilities: true,
                deferred_row: None,
            });
        }
        let [expert, amateur] = logits;
        Self {
            vocabulary: Vocabulary::new(len, special),
            samples,
            expert: (widths[0], expert),
            amateur: (widths[1], amateur),
        }
    }

    pub(super) fn expert(&self, row: usize) -> &[f32] {
        &self.expert.1[row * self.expert.0..][..self.expert.0]
    }

    pub(super) fn amateur(&self, row: usize) -> &[f32] {
        &self.amateur.1[row * self.amateur.0..][..self.amateur.0]
    }

    /// A copy of some of the rows.
    fn only(&self, rows: std::ops::Range<usize>) -> Self {
        Self {
            vocabulary: self.vocabulary.clone(),
            samples: self.samples[rows.clone()].to_vec(),
            expert: (self.expert.0, rows.clone().flat_map(|row| self.expert(row)).copied().collect()),
            amateur: (self.amateur.0, rows.flat_map(|row| self.amateur(row)).copied().collect()),
        }
    }

    /// Samples the rows on the device.
    fn sample<D: Inspect>(&self, on: &Comparison<'_, D>) -> Result<Vec<Decision>> {
        let (device, rows) = (on.device, self.samples.len());
        let mut step = step(device, rows, &self.vocabulary)?;
        let upload = |(width, logits): &(usize, Vec<f32>)| {
            let mut tensor = device.tensor(rows, *width, Precision::Single)?;
            device.upload(&on.given(logits), &mut tensor);
            Ok::<_, Error>(tensor)
        };
        let (expert, amateur) = (upload(&self.expert)?, upload(&self.amateur)?);
        sample_step(device, &mut step, &self.samples, &expert, &amateur)
    }

    /// Number of rows that differ from the reference.
    fn differences(&self, found: &[Decision]) -> usize {
        let differs = |row: usize| {
            let sample = &self.samples[row];
            let amateur = Some(self.amateur(row));
            let expected = Distribution::new(&sample.contrast, &self.vocabulary, self.expert(row), amateur);
            match (&found[row], expected) {
                (Ok(found), Ok(expected)) => !agrees(found, &expected, sample),
                (Err(found), Err(expected)) => *found != expected,
                _ => true,
            }
        };
        (0..self.samples.len()).filter(|row| differs(*row)).count() + self.samples.len().abs_diff(found.len())
    }
}

/// A step with room for `rows` decoding sequences.
pub(super) fn step<D: Inspect>(device: &D, rows: usize, vocabulary: &Vocabulary) -> Result<D::Step> {
    let capacity = Capacity { max_num_seqs: rows, max_num_batched_tokens: rows, block_size: 1 };
    device.step(capacity, PerKind::only_full(rows), vocabulary)
}

/// A batch of `rows` sequences with one token each. Every token has an output to sample.
pub(super) fn decoding(rows: usize) -> Batch {
    Batch {
        tokens: vec![TokenId(0); rows],
        pending_tokens: Vec::new(),
        positions: vec![0; rows],
        spans: (0..rows).map(|row| Span { tokens: row..row + 1, blocks: row..row + 1 }).collect(),
        blocks: (0..rows as u32).map(BlockId).collect(),
        windowed_blocks: Vec::new(),
        logits_indices: (0..rows as u32).collect(),
    }
}

/// The decisions of `results`. It is an error if a row awaits the amateur.
pub(super) fn decisions(results: Vec<RowResult>) -> Result<Vec<Decision>> {
    let decisions: Option<Vec<_>> = results.into_iter().map(RowResult::decision).collect();
    decisions.ok_or_else(|| Error::Device("a row awaits the amateur, which was there".to_owned()))
}

fn sample_step<D: Inspect>(
    device: &D,
    step: &mut D::Step,
    samples: &[SampleRow],
    expert: &D::Tensor,
    amateur: &D::Tensor,
) -> Result<Vec<Decision>> {
    let rows = samples.len();
    device.prepare(step, &decoding(rows), samples);
    device.sample(step, 0..rows, ExpertLogits::Computed(expert), AmateurLogits::Computed(amateur));
    device.submit(step);
    decisions(device.collect(step)?)
}

pub(super) fn random_contrast(numbers: &mut Numbers) -> Contrast {
    let (alpha, beta, special_token_beta) = match numbers.below(4) {
        // The expert alone: the kernels skip the amateur's logits.
        0 => (0.0, 0.0, None),
        _ => (
            numbers.one_of(&[0.0, 1e-6, 0.01, 0.1, 0.5, 1.0]),
            numbers.one_of(&[0.0, 0.3, 1.0, 2.0]),
            numbers.one_of(&[None, None, Some(0.0), Some(0.5)]),
        ),
    };
    Contrast {
        alpha,
        beta,
        special_token_beta,
        temperature: numbers.one_of(&[0.0, 0.3, 1.0, 1.0, 2.5]),
        // No shares that a few equal tokens add up to: rounding would decide whether they reach it.
        top_p: numbers.one_of(&[1.0, 1.0, 1.0, 0.93, 0.47, 0.01]),
        top_k: numbers.one_of(&[0, 0, 0, 1, 7, 100]),
        min_p: numbers.one_of(&[0.0, 0.0, 0.0, 0.05, 1.0]),
    }
}

/// Logits with peaks, ties and masks. In some rows every token is masked.
pub(super) fn random_logits(numbers: &mut Numbers, len: usize, ties: bool) -> Vec<f32> {
    let spread = numbers.one_of(&[1.0, 5.0, 15.0]);
    let masks = numbers.one_of(&[0.0, 0.0, 0.3]);
    if numbers.below(50) == 0 {
        return vec![f32::NEG_INFINITY; len];
    }
    let one = |numbers: &mut Numbers| {
        let sum: f32 = (0..4).map(|_| numbers.uniform()).sum();
        let logit = if ties { (sum * spread * 2.0).round() / 2.0 } else { sum * spread };
        if numbers.uniform().abs() < masks { f32::NEG_INFINITY } else { logit }
    };
    (0..len).map(|_| one(numbers)).collect()
}

/// Whether `found` is a correct result for the row `sample`.
pub(super) fn agrees(found: &Sampled, reference: &Distribution, sample: &SampleRow) -> bool {
    let &SampleRow { contrast, noise, position, .. } = sample;
    let (contrast, noise) = (&contrast, &noise);
    let expected = reference.sample(noise, position);
    // Rounding does not change the order of equal scores of equal logits.
    let is_certain = margin(contrast, reference, noise, position) > MARGIN
        || (contrast.temperature == 0.0 && !contrast.needs_amateur());
    if is_certain && found.token != expected.token {
        return false;
    }
    let Ok(index) = reference.tokens.binary_search(&found.token) else { return false };
    let models = LogProbabilities {
        expert: reference.expert[index] as f32,
        amateur: reference.amateur.as_ref().map(|l_a| l_a[index] as f32),
    };
    let is_close = |found: f32, expected: f32| {
        found.total_cmp(&expected).is_eq()
            || f64::from((found - expected).abs()) <= TOLERANCE * f64::from(expected.abs()).max(1.0)
    };
    reference.probabilities[index] > 0.0
        && found.num_candidates == expected.num_candidates
        && is_close(found.score, reference.scores[index] as f32)
        && (!sample.log_probabilities
            || found.log_probabilities.is_some_and(|found| {
                let both = found.amateur.zip(models.amateur);
                is_close(found.expert, models.expert)
                    && found.amateur.is_some() == models.amateur.is_some()
                    && both.is_none_or(|(found, expected)| is_close(found, expected))
            }))
}

/// The lead of the winner over the runner-up.
fn margin(contrast: &Contrast, reference: &Distribution, noise: &Noise, position: u32) -> f64 {
    let (mut first, mut second) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    for (index, &token) in reference.tokens.iter().enumerate() {
        let value = if contrast.temperature == 0.0 {
            reference.s[index]
        } else {
            reference.probabilities[index].ln() + noise.gumbel(position, token)
        };
        if value > first {
            (first, second) = (value, first);
        } else if value > second {
            second = value;
        }
    }
    first - second
}

fn random_rows<D: Inspect>(on: &mut Comparison<'_, D>, len: usize, rows: usize) -> Result<Check> {
    let mut wrong = 0;
    for _ in 0..2 {
        let rows = Rows::random(&mut on.numbers, len, rows / 2);
        wrong += rows.differences(&rows.sample(on)?);
    }
    Ok(count(format!("{rows} random rows of {len} tokens"), wrong))
}

/// Checks NaN, infinities and overflows in a few rows. Only these rows may fail, and padding columns must not be read.
fn faults<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Check> {
    let (len, count_of_rows) = (1300, 15);
    let mut rows = Rows::random(&mut on.numbers, len, count_of_rows);
    let (default, direct) = (Contrast::default(), Contrast::direct());
    for (row, sample) in rows.samples.iter_mut().enumerate() {
        sample.contrast = if row < 10 { default } else { direct };
    }
    // The scores of all candidates but one are infinite; of a single candidate that does not matter.
    rows.samples[8].contrast = Contrast { alpha: 0.0, beta: 1e308, ..default };
    rows.samples[9].contrast = Contrast { alpha: 1.0, beta: 1e308, ..default };
    let ((e, expert), (a, amateur)) = (&mut rows.expert, &mut rows.amateur);
    for row in 0..count_of_rows {
        expert[row * *e..][..len].fill_with(|| on.numbers.uniform());
        amateur[row * *a..][..len].fill_with(|| on.numbers.uniform());
    }
    for row in [1, 11] {
        expert[row * *e + 5] = f32::NAN;
        expert[(row + 1) * *e + len - 1] = f32::INFINITY;
        expert[(row + 2) * *e..][..len].fill(f32::NEG_INFINITY);
    }
    amateur[4 * *a + 700] = f32::NAN;
    amateur[5 * *a] = f32::INFINITY;
    amateur[6 * *a..][..len].fill(f32::NEG_INFINITY);
    amateur[7 * *a..][..len - 1].fill(f32::NEG_INFINITY);
    // Both models have a fault; the expert's fault is reported.
    amateur[3 * *a] = f32::NAN;
    // This row does not use the amateur.
    amateur[10 * *a] = f32::NAN;
    let found = rows.sample(on)?;
    let expected = [1, 2, 3, 4, 5, 8, 11, 12, 13].map(|row| match row {
        3 | 13 => (row, RowFault::AllMasked),
        8 => (row, RowFault::Overflow),
        _ => (row, RowFault::NotANumber),
    });
    let missed = expected.iter().filter(|(row, fault)| found[*row] != Err(*fault)).count();
    Ok(count("NaN, infinities and masks".to_owned(), missed + rows.differences(&found)))
}

/// Checks that a row has the same bits alone, among few rows and among many.
fn alone<D: Inspect>(on: &mut Comparison<'_, D>, len: usize) -> Result<Check> {
    let rows = Rows::random(&mut on.numbers, len, 64);
    let together = rows.sample(on)?;
    let mut wrong = 0;
    for size in [1, 7] {
        for first in (0..if size == 1 { 10 } else { 63 }).step_by(size) {
            let apart = rows.only(first..first + size).sample(on)?;
            let pairs = apart.iter().zip(&together[first..]);
            wrong += pairs.filter(|(apart, together)| words(apart) != words(together)).count();
        }
    }
    Ok(count(format!("rows of {len} tokens alone, among 7 and among 64"), wrong))
}

/// The bits of a result, for exact comparison.
pub(super) fn words(result: &Decision) -> std::result::Result<[u32; 5], RowFault> {
    let bits = |l: Option<f32>| l.unwrap_or(f32::NAN).to_bits();
    result.map(|sampled| {
        let models = sampled.log_probabilities;
        let (expert, amateur) = (models.map(|l| l.expert), models.and_then(|l| l.amateur));
        [sampled.token.0, sampled.num_candidates, sampled.score.to_bits(), bits(expert), bits(amateur)]
    })
}

/// Pearson's chi-square of `draws` draws, in standard deviations above its mean. It is infinite if a draw is missing
/// or if a token was drawn whose probability is zero.
pub fn draws<D: Inspect>(on: &mut Comparison<'_, D>, draws: usize) -> Result<Check> {
    const ROWS: usize = 1 << 13;
    let len = 40;
    let (expert, amateur) = (on.numbers.take(len), on.numbers.take(len));
    let contrast = Contrast { alpha: 0.2, beta: 0.7, temperature: 0.8, ..Contrast::default() };
    let vocabulary = Vocabulary::new(len, Vec::new());
    let mut counts = vec![0_u32; len];
    let mut step = step(on.device, ROWS, &vocabulary)?;
    let (here, _) = on.tensors_of(&expert.repeat(ROWS), len, Precision::Single)?;
    let (there, _) = on.tensors_of(&amateur.repeat(ROWS), len, Precision::Single)?;
    for call in 0..draws.div_ceil(ROWS) as u32 {
        let noise = Noise::new(9, "draws", call);
        let row =
            |position| SampleRow { contrast, noise, position, log_probabilities: false, deferred_row: None };
        let samples: Vec<SampleRow> = (0..ROWS as u32).map(row).collect();
        for result in sample_step(on.device, &mut step, &samples, &here, &there)? {
            if let Some(count) = result.ok().and_then(|sampled| counts.get_mut(sampled.token.index())) {
                *count += 1;
            }
        }
    }
    let drawn: f64 = counts.iter().map(|count| f64::from(*count)).sum();
    let (mut chi_square, mut drawable) = (0.0, 0.0);
    let p = Distribution::new(&contrast, &vocabulary, &expert, Some(&amateur));
    for (token, p) in p.iter().flat_map(|p| p.tokens.iter().zip(&p.probabilities)).filter(|(_, p)| **p > 0.0)
    {
        let found = f64::from(std::mem::take(&mut counts[token.index()]));
        chi_square += (found - drawn * p).powi(2) / (drawn * p);
        drawable += 1.0;
    }
    let freedom: f64 = drawable - 1.0;
    let is_sound = drawn >= draws as f64 && counts.iter().all(|count| *count == 0);
    let error = if is_sound { (chi_square - freedom) / (2.0 * freedom).sqrt() } else { f64::INFINITY };
    // The comparison is false for NaN, so NaN stays NaN.
    let error = if error < 0.0 { 0.0 } else { error };
    let case = format!("chi-square of {draws} draws, in standard deviations over its mean");
    Ok(Check::measured(OPERATION, case, error, 4.0))
}

pub(super) fn count(case: String, wrong: usize) -> Check {
    Check::counted(OPERATION, case, wrong)
}
