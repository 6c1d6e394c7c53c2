//! Reductions over a row of logits or of scores, each in one fixed order.

use crate::contrast::RowFault;
use crate::device::cpu::math::{array, exp_f64};
use crate::device::cpu::simd::{LANES, Simd};
use crate::ids::TokenId;

/// Logits per chunk of [`peak`].
pub const CHUNK: usize = 8 * LANES;

/// The largest logit of a row without a fault, and the largest of each chunk.
#[inline(always)]
pub fn peak<S: Simd>(logits: &[f32], peaks: &mut Vec<f32>) -> Result<f32, RowFault> {
    peaks.clear();
    let mut highest = f32::NEG_INFINITY;
    // The product stays zero until a NaN or an infinity occurs.
    let mut fault = S::splat(0.0);
    for chunk in logits.chunks(CHUNK) {
        let mut peak = S::splat(f32::NEG_INFINITY);
        let mut take = |z: &[f32; LANES]| {
            let z = S::load(z);
            peak = S::max(z, peak);
            fault = S::mul_add(S::max(S::splat(f32::MIN), z), S::splat(0.0), fault);
        };
        let (lanes, rest) = chunk.as_chunks();
        lanes.iter().for_each(&mut take);
        let mut last = [f32::NEG_INFINITY; LANES];
        last[..rest.len()].copy_from_slice(rest);
        if !rest.is_empty() {
            take(&last);
        }
        let peak = array::<S>(peak).into_iter().fold(f32::NEG_INFINITY, f32::max);
        highest = highest.max(peak);
        peaks.push(peak);
    }
    if array::<S>(fault).iter().any(|fault| fault.is_nan()) {
        Err(RowFault::NotANumber)
    } else if highest == f32::NEG_INFINITY {
        Err(RowFault::AllMasked)
    } else {
        Ok(highest)
    }
}

/// `ln sum exp(z - peak)`
#[inline(always)]
pub fn log_sum_exp<S: Simd>(logits: &[f32], peak: f64) -> f64 {
    lane_sum(logits, |&z| exp_f64::<S>(f64::from(z) - peak)).ln()
}

/// The log-probability `l` of a token in a row without NaN; `-inf` if the row masks it.
#[inline(always)]
pub fn log_probability<S: Simd>(logits: &[f32], token: TokenId, peaks: &mut Vec<f32>) -> f32 {
    let logit = logits[token.index()];
    match peak::<S>(logits, peaks) {
        Ok(peak) if logit > f32::NEG_INFINITY => {
            let peak = f64::from(peak);
            (f64::from(logit) - peak - log_sum_exp::<S>(logits, peak)) as f32
        }
        _ => f32::NEG_INFINITY,
    }
}

/// `sum exp((s - best) / temperature)`
#[inline(always)]
pub fn sum_exp<S: Simd>(s: &[f64], best: f64, temperature: f64) -> f64 {
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

/// Index of the largest element, the first among equals.
#[inline(always)]
pub fn lowest_best(s: &[f64]) -> usize {
    let mut lanes = [f64::NEG_INFINITY; LANES];
    let (chunks, rest) = s.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    let best = lanes.iter().chain(rest).copied().fold(f64::NEG_INFINITY, f64::max);
    s.iter().position(|value| *value >= best).unwrap_or(0)
}
