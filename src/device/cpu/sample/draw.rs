//! Draws a token from a row's candidates.

use super::candidates::Candidates;
use crate::contrast::{Contrast, GUMBEL_MAX, Noise};
use crate::device::cpu::math::exp_f64;
use crate::device::cpu::simd::Simd;
use crate::ids::TokenId;

/// The candidates that top-k, top-p and min-p keep, as indices; `None` if there is nothing to cut.
#[inline(always)]
pub fn cut<S: Simd>(contrast: &Contrast, s: &[f64], best: f64) -> Option<Vec<u32>> {
    if contrast.top_k == 0 && contrast.top_p >= 1.0 && contrast.min_p == 0.0 {
        return None;
    }
    let weights: Vec<f64> = s.iter().map(|s| exp_f64::<S>((s - best) / contrast.temperature)).collect();
    let likelier = |a: &u32, b: &u32| s[*b as usize].total_cmp(&s[*a as usize]).then(a.cmp(b));
    let mut order: Vec<u32> = (0..s.len() as u32).collect();
    let keep = contrast.top_k as usize;
    if keep > 0 && keep < order.len() {
        order.select_nth_unstable_by(keep, likelier);
        order.truncate(keep);
    }
    let total: f64 = order.iter().map(|&index| weights[index as usize]).sum();
    if contrast.min_p > 0.0 {
        // The cut tokens are the last in order, so the sums before the others do not change.
        order.retain(|&index| weights[index as usize] >= contrast.min_p);
    }
    if contrast.top_p < 1.0 {
        cut_by_share(&mut order, contrast.top_p, likelier, |index| weights[index as usize] / total);
    }
    Some(order)
}

/// Keeps the tokens before which the probabilities sum to less than `top_p`. It narrows the range instead of sorting
/// all tokens.
#[inline(always)]
fn cut_by_share(
    order: &mut Vec<u32>,
    top_p: f64,
    likelier: impl Fn(&u32, &u32) -> std::cmp::Ordering,
    share: impl Fn(u32) -> f64,
) {
    let (mut start, mut end, mut before) = (0, order.len(), 0.0);
    while end - start > 64 {
        let half = (end - start) / 2;
        order[start..end].select_nth_unstable_by(half, &likelier);
        let upper: f64 = order[start..start + half].iter().map(|&index| share(index)).sum();
        if before + upper < top_p {
            before += upper;
            start += half;
        } else {
            end = start + half;
        }
    }
    order[start..end].sort_unstable_by(&likelier);
    while start < end && before < top_p {
        before += share(order[start]);
        start += 1;
    }
    order.truncate(start);
}

/// A draw by Gumbel-max: the candidate with the largest `s / temperature + gumbel`, the lowest id among equals.
pub struct Draw<'a> {
    pub noise: Noise,
    pub position: u32,
    pub candidates: &'a Candidates,
    /// Index of the largest `s`.
    pub best: usize,
    pub temperature: f64,
}

impl Draw<'_> {
    /// Draws from a subset of the candidates that contains the best one.
    #[inline(always)]
    pub fn from(&self, kept: impl Iterator<Item = usize>) -> usize {
        let gumbel = |index: usize| self.noise.gumbel(self.position, TokenId(self.candidates.ids[index]));
        let top = self.candidates.s[self.best];
        let mut winner = (gumbel(self.best), self.best);
        let mut bits = (u32::MAX, [[0; 16]; 4]);
        for index in kept {
            let value = (self.candidates.s[index] - top) / self.temperature;
            if value + GUMBEL_MAX < winner.0 {
                continue;
            }
            let id = self.candidates.ids[index];
            if bits.0 != id / 64 {
                bits = (id / 64, self.noise.bits_of_64(self.position, id / 64));
            }
            if value + gumbel_bound(bits.1[id as usize % 4][id as usize / 4 % 16]) < winner.0 {
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

/// An upper bound of the Gumbel draw of these bits, without a logarithm: `-ln(-ln u) <= -ln(1 - u)`, and the leading
/// zeros of `1 - u` bound its logarithm.
#[inline(always)]
fn gumbel_bound(bits: u32) -> f64 {
    const ROUNDING: f64 = 1e-9;
    f64::from((!bits).leading_zeros() + 1) * std::f64::consts::LN_2 + ROUNDING
}
