//! A row's candidates (the plausible set): the tokens that can be drawn, and their scores.

use super::reduce::{CHUNK, log_sum_exp, peak};
use crate::contrast::RowFault;
use crate::device::cpu::math::{dot, nearest_bf16};
use crate::device::cpu::simd::Simd;
use crate::device::cpu::weight::Weight;

/// A row has many candidates if they are more than one in this many tokens of the vocabulary. One product with the
/// whole LM head, for all such rows at once, then costs less than reading the candidates' rows of the LM head for
/// each row.
pub const MANY_CANDIDATES: usize = 32;

/// The tokens that can be drawn from a row.
#[derive(Default)]
pub struct Candidates {
    /// Token ids, ascending.
    pub ids: Vec<u32>,
    /// The score `s` of each, up to a constant of the row.
    pub s: Vec<f64>,
    /// The amateur's logit of each.
    amateur: Vec<f32>,
    /// The largest logit of each [`CHUNK`] of the row read last.
    pub peaks: Vec<f32>,
    /// The row of the amateur's LM head for one candidate.
    lm_head_row: Vec<f32>,
    /// The amateur's last hidden state, rounded as products with the LM head round it.
    rounded: Vec<f32>,
}

impl Candidates {
    /// No candidates.
    pub const fn new() -> Self {
        Self {
            ids: Vec::new(),
            s: Vec::new(),
            amateur: Vec::new(),
            peaks: Vec::new(),
            lm_head_row: Vec::new(),
            rounded: Vec::new(),
        }
    }
}

/// Collects the tokens whose logits are at least `peak + ln_alpha`; their scores do not include the amateur yet.
#[inline(always)]
pub fn collect_candidates(logits: &[f32], peak: f32, ln_alpha: f64, candidates: &mut Candidates) {
    let peak = f64::from(peak);
    // Rounding must not lose a token here; the exact comparison follows.
    let floor = ((peak + ln_alpha) as f32).next_down();
    candidates.ids.clear();
    candidates.s.clear();
    for (index, chunk) in logits.chunks(CHUNK).enumerate() {
        if candidates.peaks[index] < floor {
            continue;
        }
        // Every token is written and kept only if it is a candidate, so there is no branch to mispredict.
        let mut kept = candidates.ids.len();
        candidates.ids.resize(kept + chunk.len(), 0);
        candidates.s.resize(kept + chunk.len(), 0.0);
        for (lane, &z) in chunk.iter().enumerate() {
            let below = f64::from(z) - peak;
            (candidates.ids[kept], candidates.s[kept]) = ((index * CHUNK + lane) as u32, below);
            kept += usize::from(below >= ln_alpha && z > f32::NEG_INFINITY);
        }
        candidates.ids.truncate(kept);
        candidates.s.truncate(kept);
    }
}

/// Computes `s -= beta * l_a` from all of the amateur's logits.
#[inline(always)]
pub fn subtract<S: Simd>(
    logits: &[f32],
    two_betas: bool,
    beta_of: impl Fn(u32) -> f64,
    candidates: &mut Candidates,
) -> Result<(), RowFault> {
    let peak = match peak::<S>(logits, &mut candidates.peaks) {
        Ok(peak) => f64::from(peak),
        Err(RowFault::AllMasked) => return Ok(()),
        Err(fault) => return Err(fault),
    };
    // With one beta, the amateur's normalizer is the same for all candidates and cancels.
    let zero = if two_betas { peak + log_sum_exp::<S>(logits, peak) } else { peak };
    candidates.amateur.clear();
    candidates.amateur.extend(candidates.ids.iter().map(|&id| logits[id as usize]));
    subtract_from_candidates(zero, beta_of, candidates);
    Ok(())
}

/// Computes `s -= beta * l_a` from the candidates' logits alone. The largest of them stands in for the normalizer,
/// which cancels.
#[inline(always)]
pub fn subtract_projected<S: Simd>(
    hidden: &[f32],
    lm_head: &Weight,
    beta_of: impl Fn(u32) -> f64,
    candidates: &mut Candidates,
) -> Result<(), RowFault> {
    let hidden = if lm_head.rounds_rows() {
        candidates.rounded.clear();
        candidates.rounded.extend(hidden.iter().map(|x| f32::from_bits(nearest_bf16(*x))));
        &candidates.rounded
    } else {
        hidden
    };
    candidates.lm_head_row.resize(hidden.len(), 0.0);
    candidates.amateur.clear();
    for &id in &candidates.ids {
        lm_head.read_row(id as usize, &mut candidates.lm_head_row);
        candidates.amateur.push(dot::<S>(hidden, &candidates.lm_head_row));
    }
    let zero = candidates.amateur.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if candidates.amateur.iter().any(|z| z.is_nan() || *z == f32::INFINITY) {
        return Err(RowFault::NotANumber);
    }
    if zero > f32::NEG_INFINITY {
        subtract_from_candidates(f64::from(zero), beta_of, candidates);
    }
    Ok(())
}

/// Computes `s -= beta * (amateur - zero)`. A token that the amateur masks counts as the least likely of the others.
#[inline(always)]
fn subtract_from_candidates(zero: f64, beta_of: impl Fn(u32) -> f64, candidates: &mut Candidates) {
    let (mut least, mut masks) = (f64::INFINITY, false);
    for ((&id, s), &z) in candidates.ids.iter().zip(&mut candidates.s).zip(&candidates.amateur) {
        let l_a = f64::from(z) - zero;
        if l_a.is_finite() {
            *s -= beta_of(id) * l_a;
            least = least.min(l_a);
        } else {
            masks = true;
        }
    }
    if masks {
        let masked = if least.is_finite() { least } else { 0.0 };
        for ((&id, s), &z) in candidates.ids.iter().zip(&mut candidates.s).zip(&candidates.amateur) {
            if z == f32::NEG_INFINITY {
                *s -= beta_of(id) * masked;
            }
        }
    }
}
