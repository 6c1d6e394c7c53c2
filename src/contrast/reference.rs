//! The f64 reference of the method. Every device is tested against it.

use super::noise::Noise;
use super::params::Contrast;
use super::sampled::{LogProbabilities, RowFault, Sampled};
use super::vocabulary::Vocabulary;
use crate::ids::TokenId;

/// The exact distribution of a row's next token.
#[derive(Debug, Clone)]
pub struct Distribution {
    /// The plausible set, ascending.
    pub tokens: Vec<TokenId>,
    /// `s`, up to a constant of the row, one value per token of the plausible set.
    pub s: Vec<f64>,
    /// `log_softmax(s)`: before temperature and before top-k, top-p, min-p.
    pub scores: Vec<f64>,
    /// `p`: after temperature, top-k, top-p and min-p. At temperature 0 the best token has probability 1.
    pub probabilities: Vec<f64>,
    /// `l_e`, the expert's log-probabilities.
    pub expert: Vec<f64>,
    /// `l_a`, the amateur's log-probabilities, if it has a say.
    pub amateur: Option<Vec<f64>>,
}

impl Distribution {
    /// The distribution of one row. `expert` and `amateur` are logits, `[vocabulary or more]`. Without an amateur,
    /// the parameters must not need one.
    ///
    /// # Errors
    /// [`RowFault`] if the row has no next token.
    pub fn new(
        contrast: &Contrast,
        vocabulary: &Vocabulary,
        expert: &[f32],
        amateur: Option<&[f32]>,
    ) -> std::result::Result<Self, RowFault> {
        let l_e = log_softmax(&expert[..vocabulary.len])?;
        let best = l_e.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let floor = contrast.alpha.ln() + best;
        let is_plausible = |v: &usize| l_e[*v] >= floor && l_e[*v] > f64::NEG_INFINITY;
        let candidates: Vec<usize> = (0..vocabulary.len).filter(is_plausible).collect();
        let amateur = amateur.filter(|_| contrast.needs_amateur());
        let l_a = amateur.map(|logits| masked_log_softmax(&logits[..vocabulary.len])).transpose()?;
        let s: Vec<f64> = match &l_a {
            None => candidates.iter().map(|&v| l_e[v]).collect(),
            Some(l_a) => contrasted(contrast, vocabulary, &candidates, &l_e, l_a),
        };
        let s = match s[..] {
            // The only candidate is drawn whatever its score is.
            [only] if !only.is_finite() => vec![0.0],
            _ if s.iter().any(|s| !s.is_finite()) => return Err(RowFault::Overflow),
            _ => s,
        };
        let of_candidates = |l: &[f64]| candidates.iter().map(|&v| l[v]).collect();
        Ok(Self {
            tokens: candidates.iter().map(|&v| TokenId(v as u32)).collect(),
            scores: normalized(&s),
            probabilities: truncated(contrast, &s),
            s,
            expert: of_candidates(&l_e),
            amateur: l_a.as_deref().map(of_candidates),
        })
    }

    /// The token that `noise` draws at `position`.
    pub fn sample(&self, noise: &Noise, position: u32) -> Sampled {
        let mut best = (f64::NEG_INFINITY, 0);
        for (index, (&token, &p)) in self.tokens.iter().zip(&self.probabilities).enumerate() {
            let perturbed = p.ln() + noise.gumbel(position, token);
            if p > 0.0 && perturbed > best.0 {
                best = (perturbed, index);
            }
        }
        Sampled {
            token: self.tokens[best.1],
            score: self.scores[best.1] as f32,
            num_candidates: self.tokens.len() as u32,
            log_probabilities: Some(LogProbabilities {
                expert: self.expert[best.1] as f32,
                amateur: self.amateur.as_ref().map(|l_a| l_a[best.1] as f32),
            }),
        }
    }
}

fn contrasted(
    contrast: &Contrast,
    vocabulary: &Vocabulary,
    candidates: &[usize],
    l_e: &[f64],
    l_a: &[f64],
) -> Vec<f64> {
    let least = candidates.iter().map(|&v| l_a[v]).filter(|l| l.is_finite()).fold(f64::INFINITY, f64::min);
    let masked = if least.is_finite() { least } else { 0.0 };
    let score = |&v: &usize| {
        let special = vocabulary.is_special(TokenId(v as u32));
        let beta = if special { contrast.special_beta() } else { contrast.beta };
        l_e[v] - beta * if l_a[v].is_finite() { l_a[v] } else { masked }
    };
    candidates.iter().map(score).collect()
}

/// The same, if every logit may be masked: then every token's log-probability is `-inf`.
fn masked_log_softmax(logits: &[f32]) -> std::result::Result<Vec<f64>, RowFault> {
    match log_softmax(logits) {
        Err(RowFault::AllMasked) => Ok(vec![f64::NEG_INFINITY; logits.len()]),
        l => l,
    }
}

fn log_softmax(logits: &[f32]) -> std::result::Result<Vec<f64>, RowFault> {
    if logits.iter().any(|z| z.is_nan() || *z == f32::INFINITY) {
        return Err(RowFault::NotANumber);
    }
    if logits.iter().all(|z| *z == f32::NEG_INFINITY) {
        return Err(RowFault::AllMasked);
    }
    Ok(normalized(&logits.iter().map(|&z| f64::from(z)).collect::<Vec<_>>()))
}

/// `x - logsumexp(x)`
fn normalized(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = x.iter().map(|v| (v - max).exp()).sum();
    x.iter().map(|v| v - max - sum.ln()).collect()
}

/// `softmax(s / temperature)`, cut by top-k, then top-p, then min-p, and normalized again.
fn truncated(contrast: &Contrast, s: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..s.len()).collect();
    order.sort_by(|&a, &b| s[b].total_cmp(&s[a]).then(a.cmp(&b)));
    let mut p = vec![0.0; s.len()];
    if contrast.temperature == 0.0 {
        p[order[0]] = 1.0;
        return p;
    }
    if contrast.top_k > 0 {
        order.truncate(contrast.top_k as usize);
    }
    let weight = |v: usize| ((s[v] - s[order[0]]) / contrast.temperature).exp();
    let total: f64 = order.iter().map(|&v| weight(v)).sum();
    let mut before = 0.0;
    for &v in &order {
        let share = weight(v) / total;
        if before < contrast.top_p && weight(v) >= contrast.min_p {
            p[v] = share;
        }
        before += share;
    }
    let kept: f64 = p.iter().sum();
    p.iter().map(|share| share / kept).collect()
}
