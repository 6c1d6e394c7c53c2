//! The method of `contrast.rs` over rows of logits: the same tokens as its reference, reading each row of logits a
//! few times in vectors and doing exact arithmetic on the head alone.

use std::cell::Cell;

use super::isa::Kernel;
use super::math::{LANES, array, dot, exp_f64};
use super::simd::Simd;
use super::{PARALLEL, Path, Tensor, Weight, matmul};
use crate::contrast::{Contrast, GUMBEL_MAX, LogProbabilities, Noise, RowFault, Sampled, Vocabulary};
use crate::device::{Projections, RowResult, SampleRow};
use crate::ids::TokenId;

thread_local! {
    /// Room for a head, kept from one row to the next.
    static HEAD: Cell<Head> = const { Cell::new(Head::new()) };
}

/// See [`crate::device::Device::contrast_sample`].
pub fn contrast_sample(
    path: Path<'_>,
    rows: &[SampleRow],
    vocabulary: &Vocabulary,
    expert: &Tensor,
    amateur: Option<&Tensor>,
) -> Vec<Option<RowResult>> {
    sample_rows(path, rows, vocabulary, expert, |index, row| match amateur {
        Some(logits) if row.contrast.needs_amateur() => Amateur::Logits(&logits.row(index)[..vocabulary.len]),
        _ => Amateur::Unread,
    })
}

/// See [`crate::device::Device::settle`].
pub fn settle(
    path: Path<'_>,
    rows: &[SampleRow],
    vocabulary: &Vocabulary,
    expert: &Tensor,
    kept: &mut Tensor,
) -> Vec<Option<RowResult>> {
    let settled = sample_rows(path, rows, vocabulary, expert, |_, row| match row.kept {
        Some(_) => Amateur::Deferred,
        None => Amateur::Unread,
    });
    let places = rows.iter().zip(&settled).map(|(row, result)| row.kept.filter(|_| result.is_none()));
    for (index, place) in places.enumerate() {
        if let Some(place) = place {
            kept.row_mut(place as usize)[..vocabulary.len]
                .copy_from_slice(&expert.row(index)[..vocabulary.len]);
        }
    }
    settled
}

/// See [`crate::device::Device::contrast_sample_hidden`]. Rows for which a few logits do not do are given all of theirs, by
/// one product for all such rows; which these are depends on each row alone.
pub fn contrast_sample_hidden(
    path: Path<'_>,
    rows: &[SampleRow],
    vocabulary: &Vocabulary,
    expert: &Tensor,
    (hidden, head): (&Tensor, &Weight),
    logits: &mut Tensor,
) -> (Vec<Option<RowResult>>, Projections) {
    let hidden_row = |index| Projected { hidden: hidden.row(index), projection: head, logits: None };
    let mut sampled = sample_rows(path, rows, vocabulary, expert, |index, row| {
        if row.contrast.needs_amateur() { Amateur::Projected(hidden_row(index)) } else { Amateur::Unread }
    });
    let heads = rows.iter().zip(&sampled).filter(|(row, _)| row.contrast.needs_amateur());
    let gathered = heads.filter_map(|(_, result)| result.and_then(Result::ok)).map(|s| s.head as usize).sum();
    let left: Vec<usize> = (0..rows.len()).filter(|&row| sampled[row].is_none()).collect();
    if !left.is_empty() {
        matmul::matmul(path, rows.len(), hidden, head, None, logits);
        let all = sample_rows(path, rows, vocabulary, expert, |index, _| match sampled[index] {
            None => {
                let logits = Some(&logits.row(index)[..vocabulary.len]);
                Amateur::Projected(Projected { logits, ..hidden_row(index) })
            }
            Some(_) => Amateur::Done,
        });
        for &row in &left {
            sampled[row] = all[row];
        }
    }
    let full = if left.is_empty() { 0 } else { rows.len() };
    (sampled, Projections { gathered, full })
}

/// What each row draws; `None` where the amateur's part must be known in full.
fn sample_rows<'a>(
    path: Path<'_>,
    rows: &[SampleRow],
    vocabulary: &Vocabulary,
    expert: &Tensor,
    amateur: impl Fn(usize, &SampleRow) -> Amateur<'a> + Sync,
) -> Vec<Option<RowResult>> {
    let sample = |(index, row): (usize, &SampleRow)| {
        let amateur = amateur(index, row);
        // What is settled now was not kept before.
        let kept = row.kept.filter(|_| !matches!(amateur, Amateur::Deferred));
        let mut head = HEAD.take();
        let sampled = path.isa.run(Row {
            sample: row,
            vocabulary,
            expert: &expert.row(kept.map_or(index, |kept| kept as usize))[..vocabulary.len],
            amateur,
            head: &mut head,
        });
        HEAD.set(head);
        sampled
    };
    if rows.len() * vocabulary.len < PARALLEL {
        rows.iter().enumerate().map(sample).collect()
    } else {
        let mut sampled = vec![None; rows.len()];
        let places = sampled.iter_mut().zip(rows.iter().enumerate());
        path.pool.for_each(places, |(place, row)| *place = sample(row));
        sampled
    }
}

/// The tokens that may be drawn.
#[derive(Default)]
struct Head {
    /// Ascending.
    ids: Vec<u32>,
    /// `s` of each, up to a constant of the row.
    s: Vec<f64>,
    /// The amateur's logit of each.
    amateur: Vec<f32>,
    /// The largest logit of each [`CHUNK`] of the row read last.
    peaks: Vec<f32>,
    /// A row of the amateur's output projection.
    projection: Vec<f32>,
}

impl Head {
    const fn new() -> Self {
        Self {
            ids: Vec::new(),
            s: Vec::new(),
            amateur: Vec::new(),
            peaks: Vec::new(),
            projection: Vec::new(),
        }
    }
}

/// What is known of the amateur's logits.
#[derive(Clone, Copy)]
enum Amateur<'a> {
    /// They play no part.
    Unread,
    /// They are not there yet: only a head of one can be sampled.
    Deferred,
    /// All of them.
    Logits(&'a [f32]),
    /// Those of the head can be computed.
    Projected(Projected<'a>),
    /// The row has been sampled before.
    Done,
}

/// What the amateur's logits come from.
#[derive(Clone, Copy)]
struct Projected<'a> {
    hidden: &'a [f32],
    projection: &'a Weight,
    /// All of them, once they are there.
    logits: Option<&'a [f32]>,
}

struct Row<'a> {
    sample: &'a SampleRow,
    vocabulary: &'a Vocabulary,
    expert: &'a [f32],
    amateur: Amateur<'a>,
    head: &'a mut Head,
}

impl Kernel for Row<'_> {
    type Output = Option<RowResult>;

    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Output {
        self.draw::<S>().transpose()
    }
}

impl Row<'_> {
    /// `None` where the amateur's logits must be known in full.
    #[inline(always)]
    fn draw<S: Simd>(self) -> Result<Option<Sampled>, RowFault> {
        let Self { sample, vocabulary, expert, amateur, head } = self;
        let contrast = sample.contrast;
        if matches!(amateur, Amateur::Done) {
            return Ok(None);
        }
        let peak = peak::<S>(expert, &mut head.peaks)?;
        collect_head(expert, peak, contrast.alpha.ln(), head);
        let is_special = |id: u32| vocabulary.is_special(TokenId(id));
        let two_betas = contrast.special_token_beta.is_some() && head.ids.iter().any(|&id| is_special(id));
        let beta_of =
            |id: u32| if two_betas && is_special(id) { contrast.special_beta() } else { contrast.beta };
        match amateur {
            Amateur::Deferred if head.ids.len() > 1 || sample.log_probabilities => return Ok(None),
            Amateur::Unread | Amateur::Deferred | Amateur::Done => {}
            Amateur::Logits(logits) => subtract::<S>(logits, two_betas, beta_of, head)?,
            Amateur::Projected(Projected { hidden, projection, logits }) => {
                let is_large = head.ids.len() * LARGE_HEAD > vocabulary.len;
                let needs_all = is_large || two_betas;
                match logits {
                    None if needs_all || sample.log_probabilities => return Ok(None),
                    Some(logits) if needs_all => subtract::<S>(logits, two_betas, beta_of, head)?,
                    // The same numbers whether or not all logits are there.
                    _ => subtract_projected::<S>(hidden, projection, beta_of, head)?,
                }
            }
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
            match cut::<S>(&contrast, &head.s, head.s[best]) {
                None => draw.from(0..head.ids.len()),
                Some(kept) => draw.from(kept.into_iter().map(|index| index as usize)),
            }
        };
        let normalizer = sum_exp::<S>(&head.s, head.s[best], 1.0).ln();
        let token = TokenId(head.ids[chosen]);
        let score = (head.s[chosen] - head.s[best] - normalizer) as f32;
        let size = head.ids.len() as u32;
        let mut log_probability = |logits| log_probability::<S>(logits, token, &mut head.peaks);
        let log_probabilities = sample.log_probabilities.then(|| LogProbabilities {
            expert: log_probability(expert),
            amateur: match amateur {
                Amateur::Logits(logits) | Amateur::Projected(Projected { logits: Some(logits), .. }) => {
                    Some(log_probability(logits))
                }
                _ => None,
            },
        });
        Ok(Some(Sampled { token, score, head: size, log_probabilities }))
    }
}

/// A head is large where it is more than one in so many of the vocabulary: then one pass over the whole projection, for
/// all such rows at once, costs less than a row's own reading of parts of it.
const LARGE_HEAD: usize = 32;

/// Logits that share a maximum in [`Head::peaks`].
const CHUNK: usize = 8 * LANES;

/// The largest logit of a row that has no fault, and of each of its chunks.
#[inline(always)]
fn peak<S: Simd>(logits: &[f32], peaks: &mut Vec<f32>) -> Result<f32, RowFault> {
    peaks.clear();
    let mut highest = f32::NEG_INFINITY;
    // Stays zero until it meets what is not a number times zero.
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
        // Written in any case, kept if in the head: no branch to mispredict.
        let mut kept = head.ids.len();
        head.ids.resize(kept + chunk.len(), 0);
        head.s.resize(kept + chunk.len(), 0.0);
        for (lane, &z) in chunk.iter().enumerate() {
            let below = f64::from(z) - peak;
            (head.ids[kept], head.s[kept]) = ((index * CHUNK + lane) as u32, below);
            kept += usize::from(below >= ln_alpha && z > f32::NEG_INFINITY);
        }
        head.ids.truncate(kept);
        head.s.truncate(kept);
    }
}

/// `s -= beta * l_a`, given all of the amateur's logits.
#[inline(always)]
fn subtract<S: Simd>(
    logits: &[f32],
    two_betas: bool,
    beta_of: impl Fn(u32) -> f64,
    head: &mut Head,
) -> Result<(), RowFault> {
    let peak = match peak::<S>(logits, &mut head.peaks) {
        Ok(peak) => f64::from(peak),
        Err(RowFault::AllMasked) => return Ok(()),
        Err(fault) => return Err(fault),
    };
    // With one beta the amateur's normalizer is the same for all, and cancels.
    let zero = if two_betas { peak + log_sum_exp::<S>(logits, peak) } else { peak };
    head.amateur.clear();
    head.amateur.extend(head.ids.iter().map(|&id| logits[id as usize]));
    subtract_from_head(zero, beta_of, head);
    Ok(())
}

/// `s -= beta * l_a`, where only the head's logits are computed; their largest takes the place of the normalizer, which
/// cancels.
#[inline(always)]
fn subtract_projected<S: Simd>(
    hidden: &[f32],
    projection: &Weight,
    beta_of: impl Fn(u32) -> f64,
    head: &mut Head,
) -> Result<(), RowFault> {
    head.projection.resize(hidden.len(), 0.0);
    head.amateur.clear();
    for &id in &head.ids {
        projection.read_row(id as usize, &mut head.projection);
        head.amateur.push(dot::<S>(hidden, &head.projection));
    }
    let zero = head.amateur.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if head.amateur.iter().any(|z| z.is_nan() || *z == f32::INFINITY) {
        return Err(RowFault::NotANumber);
    }
    if zero > f32::NEG_INFINITY {
        subtract_from_head(f64::from(zero), beta_of, head);
    }
    Ok(())
}

/// `s -= beta * (amateur - zero)`; a token that the amateur masks counts as the least likely of the others.
#[inline(always)]
fn subtract_from_head(zero: f64, beta_of: impl Fn(u32) -> f64, head: &mut Head) {
    let (mut least, mut masks) = (f64::INFINITY, false);
    for ((&id, s), &z) in head.ids.iter().zip(&mut head.s).zip(&head.amateur) {
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
        for ((&id, s), &z) in head.ids.iter().zip(&mut head.s).zip(&head.amateur) {
            if z == f32::NEG_INFINITY {
                *s -= beta_of(id) * masked;
            }
        }
    }
}

/// `ln sum exp(z - peak)`
#[inline(always)]
fn log_sum_exp<S: Simd>(logits: &[f32], peak: f64) -> f64 {
    lane_sum(logits, |&z| exp_f64::<S>(f64::from(z) - peak)).ln()
}

/// `l` of a token, whose row has no NaN; `-inf` if the row masks it.
#[inline(always)]
fn log_probability<S: Simd>(logits: &[f32], token: TokenId, peaks: &mut Vec<f32>) -> f32 {
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

/// What top-k, top-p and min-p leave of the head, as indices into it; `None` where there is nothing to cut.
#[inline(always)]
fn cut<S: Simd>(contrast: &Contrast, s: &[f64], best: f64) -> Option<Vec<u32>> {
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
        // The cut tokens are the last in order and so leave the sums before the others alone.
        order.retain(|&index| weights[index as usize] >= contrast.min_p);
    }
    if contrast.top_p < 1.0 {
        cut_by_share(&mut order, contrast.top_p, likelier, |index| weights[index as usize] / total);
    }
    Some(order)
}

/// Keeps the tokens that have less than `top_p` before them, narrowing down to where that is instead of sorting all.
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
        let mut bits = (u32::MAX, [[0; 16]; 4]);
        for index in kept {
            let value = (self.head.s[index] - top) / self.temperature;
            if value + GUMBEL_MAX < winner.0 {
                continue;
            }
            let id = self.head.ids[index];
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

/// No less than the Gumbel draw of these bits, without a logarithm: `-ln(-ln u) <= -ln(1 - u)`, and the leading zeros
/// of `1 - u` bound its logarithm.
#[inline(always)]
fn gumbel_bound(bits: u32) -> f64 {
    const ROUNDING: f64 = 1e-9;
    f64::from((!bits).leading_zeros() + 1) * std::f64::consts::LN_2 + ROUNDING
}
