//! The method of `contrast.rs` over rows of logits: the same tokens as its reference, reading each row of logits a
//! few times in vectors and doing exact arithmetic on the head alone.

use std::cell::Cell;

use rayon::prelude::*;

use super::isa::Kernel;
use super::math::exp_f64;
use super::simd::Simd;
use super::{PARALLEL, Path, Tensor};
use crate::contrast::{Contrast, GUMBEL_MAX, Noise, RowFault, Sampled, Vocabulary};
use crate::device::SampleRow;
use crate::ids::TokenId;

thread_local! {
    /// Room for a head, kept from one row to the next.
    static HEAD: Cell<Head> = const { Cell::new(Head { ids: Vec::new(), s: Vec::new(), peaks: Vec::new() }) };
}

/// See [`crate::device::Device::contrast_sample`].
pub fn contrast_sample(
    path: Path,
    rows: &[SampleRow<'_>],
    vocabulary: &Vocabulary,
    expert: &Tensor,
    amateur: Option<&Tensor>,
) -> Vec<Result<Sampled, RowFault>> {
    let sample = |(index, row): (usize, &SampleRow<'_>)| {
        let mut head = HEAD.take();
        let sampled = path.isa.run(Row {
            sample: row,
            vocabulary,
            expert: &expert.row(index)[..vocabulary.len],
            amateur: amateur
                .filter(|_| row.contrast.needs_amateur())
                .map(|logits| &logits.row(index)[..vocabulary.len]),
            head: &mut head,
        });
        HEAD.set(head);
        sampled
    };
    if rows.len() * vocabulary.len < PARALLEL {
        rows.iter().enumerate().map(sample).collect()
    } else {
        rows.par_iter().enumerate().map(sample).collect()
    }
}

/// The tokens that may be drawn.
#[derive(Default)]
struct Head {
    /// Ascending.
    ids: Vec<u32>,
    /// `s` of each, up to a constant of the row.
    s: Vec<f64>,
    /// The largest logit of each [`CHUNK`] of the row read last.
    peaks: Vec<f32>,
}

struct Row<'a> {
    sample: &'a SampleRow<'a>,
    vocabulary: &'a Vocabulary,
    expert: &'a [f32],
    amateur: Option<&'a [f32]>,
    head: &'a mut Head,
}

impl Kernel for Row<'_> {
    type Output = Result<Sampled, RowFault>;

    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Output {
        let Self { sample, vocabulary, expert, amateur, head } = self;
        let contrast = sample.contrast;
        let peak = peak(expert, &mut head.peaks)?;
        collect_head(expert, peak, contrast.alpha.ln(), head);
        if let Some(amateur) = amateur {
            subtract::<S>(contrast, vocabulary, amateur, head)?;
        }
        let best = lowest_best(&head.s);
        let chosen = if contrast.temperature == 0.0 {
            best
        } else {
            let draw = Draw {
                noise: sample.noise,
                position: sample.position,
                head,
                best,
                temperature: contrast.temperature,
            };
            match cut::<S>(contrast, &head.s, head.s[best]) {
                None => draw.from(0..head.ids.len()),
                Some(kept) => draw.from(kept.into_iter().map(|index| index as usize)),
            }
        };
        let normalizer = sum_exp::<S>(&head.s, head.s[best], 1.0).ln();
        Ok(Sampled {
            token: TokenId(head.ids[chosen]),
            score: (head.s[chosen] - head.s[best] - normalizer) as f32,
            head: head.ids.len() as u32,
        })
    }
}

/// Logits that share a maximum in [`Head::peaks`].
const CHUNK: usize = 64;

/// The largest logit of a row that has no fault, and of each of its chunks.
#[inline(always)]
fn peak(logits: &[f32], peaks: &mut Vec<f32>) -> Result<f32, RowFault> {
    peaks.clear();
    let (mut lowest, mut highest) = (i32::MAX, i32::MIN);
    let (chunks, rest) = logits.as_chunks::<CHUNK>();
    for chunk in chunks {
        let keys = chunk.map(key);
        let peak = keys.into_iter().fold(i32::MIN, i32::max);
        (lowest, highest) = (keys.into_iter().fold(lowest, i32::min), highest.max(peak));
        peaks.push(unkey(peak));
    }
    if !rest.is_empty() {
        let peak = rest.iter().fold(i32::MIN, |peak, z| peak.max(key(*z)));
        (lowest, highest) = (rest.iter().fold(lowest, |low, z| low.min(key(*z))), highest.max(peak));
        peaks.push(unkey(peak));
    }
    // NaNs of either sign lie beyond the infinities.
    if highest >= key(f32::INFINITY) || lowest < key(f32::NEG_INFINITY) {
        Err(RowFault::NotANumber)
    } else if highest <= key(f32::NEG_INFINITY) {
        Err(RowFault::AllMasked)
    } else {
        Ok(unkey(highest))
    }
}

/// An integer that orders as the float does.
#[inline(always)]
fn key(x: f32) -> i32 {
    let bits = x.to_bits().cast_signed();
    bits ^ ((bits >> 31) & i32::MAX)
}

/// The float of a key.
#[inline(always)]
fn unkey(key: i32) -> f32 {
    f32::from_bits((key ^ ((key >> 31) & i32::MAX)).cast_unsigned())
}

/// The tokens whose logits are at most `-ln_alpha` below the peak, with `s` as if there were no amateur.
#[inline(always)]
fn collect_head(logits: &[f32], peak: f32, ln_alpha: f64, head: &mut Head) {
    let peak = f64::from(peak);
    // Rounding must not lose a token here; the exact comparison follows.
    let floor = ((peak + ln_alpha) as f32).next_down();
    head.ids.clear();
    head.s.clear();
    for (index, chunk) in logits.chunks(CHUNK).enumerate() {
        if head.peaks[index] < floor {
            continue;
        }
        for (lane, &z) in chunk.iter().enumerate() {
            let below = f64::from(z) - peak;
            if below >= ln_alpha && z > f32::NEG_INFINITY {
                head.ids.push((index * CHUNK + lane) as u32);
                head.s.push(below);
            }
        }
    }
}

/// `s -= beta * l_a`
#[inline(always)]
fn subtract<S: Simd>(
    contrast: &Contrast,
    vocabulary: &Vocabulary,
    amateur: &[f32],
    head: &mut Head,
) -> Result<(), RowFault> {
    let peak = match peak(amateur, &mut head.peaks) {
        Ok(peak) => f64::from(peak),
        Err(RowFault::AllMasked) => return Ok(()),
        Err(fault) => return Err(fault),
    };
    let is_special = |id: u32| vocabulary.is_special(TokenId(id));
    let two_betas = contrast.special_token_beta.is_some() && head.ids.iter().any(|&id| is_special(id));
    // With one beta the amateur's normalizer is the same for all, and cancels.
    let zero = if two_betas { peak + log_sum_exp::<S>(amateur, peak) } else { peak };
    let l_a = |id: u32| f64::from(amateur[id as usize]) - zero;
    let least = head.ids.iter().map(|&id| l_a(id)).filter(|l| l.is_finite()).fold(f64::INFINITY, f64::min);
    let masked = if least.is_finite() { least } else { 0.0 };
    for (&id, s) in head.ids.iter().zip(&mut head.s) {
        let beta = if two_betas && is_special(id) { contrast.special_beta() } else { contrast.beta };
        let l_a = l_a(id);
        *s -= beta * if l_a.is_finite() { l_a } else { masked };
    }
    Ok(())
}

/// `ln sum exp(z - peak)`
#[inline(always)]
fn log_sum_exp<S: Simd>(logits: &[f32], peak: f64) -> f64 {
    lane_sum(logits, |&z| exp_f64::<S>(f64::from(z) - peak)).ln()
}

/// `sum exp((s - best) / temperature)`
#[inline(always)]
fn sum_exp<S: Simd>(s: &[f64], best: f64, temperature: f64) -> f64 {
    lane_sum(s, |s| exp_f64::<S>((s - best) / temperature))
}

/// `sum f(x)`, in 16 partial sums.
#[inline(always)]
fn lane_sum<T>(x: &[T], f: impl Fn(&T) -> f64) -> f64 {
    let mut sums = [0.0; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for lane in 0..16 {
            sums[lane] += f(&chunk[lane]);
        }
    }
    rest.iter().map(f).chain(sums).sum()
}

/// Index of the largest, the first of equals.
#[inline(always)]
fn lowest_best(s: &[f64]) -> usize {
    let mut best = 0;
    for (index, value) in s.iter().enumerate() {
        if *value > s[best] {
            best = index;
        }
    }
    best
}

/// What top-k, top-p and min-p leave of the head, as indices into it; `None` where there is nothing to cut.
#[inline(always)]
fn cut<S: Simd>(contrast: &Contrast, s: &[f64], best: f64) -> Option<Vec<u32>> {
    if contrast.top_k == 0 && contrast.top_p >= 1.0 && contrast.min_p == 0.0 {
        return None;
    }
    let weight = |index: u32| exp_f64::<S>((s[index as usize] - best) / contrast.temperature);
    let likelier = |a: &u32, b: &u32| s[*b as usize].total_cmp(&s[*a as usize]).then(a.cmp(b));
    let mut order: Vec<u32> = (0..s.len() as u32).collect();
    let keep = contrast.top_k as usize;
    if keep > 0 && keep < order.len() {
        order.select_nth_unstable_by(keep, likelier);
        order.truncate(keep);
    }
    let total: f64 = order.iter().map(|&index| weight(index)).sum();
    // The cut tokens are the last in order and so leave the sums before the others alone.
    order.retain(|&index| weight(index) >= contrast.min_p);
    if contrast.top_p < 1.0 {
        cut_by_share(&mut order, contrast.top_p, likelier, |index| weight(index) / total);
    }
    Some(order)
}

/// Sorts only as far as the shares reach `top_p`.
fn cut_by_share(
    order: &mut Vec<u32>,
    top_p: f64,
    likelier: impl Fn(&u32, &u32) -> std::cmp::Ordering,
    share: impl Fn(u32) -> f64,
) {
    let (mut sorted, mut before, mut step) = (0, 0.0, 64);
    while sorted < order.len() {
        let rest = &mut order[sorted..];
        let taken = step.min(rest.len());
        if taken < rest.len() {
            rest.select_nth_unstable_by(taken, &likelier);
        }
        rest[..taken].sort_unstable_by(&likelier);
        for _ in 0..taken {
            if before >= top_p {
                order.truncate(sorted);
                return;
            }
            before += share(order[sorted]);
            sorted += 1;
        }
        step *= 4;
    }
}

/// Gumbel-max: the largest `s / temperature + gumbel`, the lowest id of equals.
struct Draw<'a> {
    noise: Noise,
    position: u32,
    head: &'a Head,
    /// Index of the best `s`.
    best: usize,
    temperature: f64,
}

impl Draw<'_> {
    /// From some of the head, its best among them.
    #[inline(always)]
    fn from(&self, kept: impl Iterator<Item = usize>) -> usize {
        let gumbel = |index: usize| self.noise.gumbel(self.position, TokenId(self.head.ids[index]));
        let top = self.head.s[self.best];
        let mut winner = (gumbel(self.best), self.best);
        let mut block = (u32::MAX, [0; 4]);
        for index in kept {
            let value = (self.head.s[index] - top) / self.temperature;
            if value + GUMBEL_MAX < winner.0 {
                continue;
            }
            let id = self.head.ids[index];
            if block.0 != id / 4 {
                block = (id / 4, self.noise.block(self.position, id / 4));
            }
            if value + gumbel_bound(block.1[id as usize % 4]) < winner.0 {
                continue;
            }
            let perturbed = value + gumbel(index);
            if perturbed.total_cmp(&winner.0).then(winner.1.cmp(&index)).is_gt() {
                winner = (perturbed, index);
            }
        }
        winner.1
    }
}

/// No less than the Gumbel draw of these bits, without a logarithm: `-ln(-ln u) <= -ln(1 - u)`, and the leading zeros
/// of `1 - u` bound its logarithm.
#[inline(always)]
fn gumbel_bound(bits: u32) -> f64 {
    const ROUNDING: f64 = 1e-9;
    f64::from((!bits).leading_zeros() + 1) * std::f64::consts::LN_2 + ROUNDING
}
