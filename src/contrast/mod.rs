//! The method (CoDIT, arXiv 2604.13538): its parameters, its noise, and the f64 reference that every device is
//! tested against.
//!
//! With logits `z_e`, `z_a` of expert and amateur, `l = log_softmax(z)`:
//!
//! ```text
//! head = { v : l_e(v) >= ln(alpha) + max l_e }
//! s(v) = l_e(v) - beta * l_a(v)                for v in head, -inf elsewhere
//! p    = softmax(s / temperature), then top-k, top-p, min-p
//! next = argmax ln p(v) + gumbel(v)            that is, a draw from p; at temperature 0 argmax s, lowest id on a tie
//! ```
//!
//! Where the method is silent: a token that the expert masks (`-inf`) is never in the head; one that the amateur
//! masks counts as the least likely of the head's others, so that no `-inf - (-inf)` can arise; a NaN or `+inf`
//! anywhere in a row that is read is that row's fault ([`RowFault`]).

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::ids::TokenId;

/// The parameters of the method and of sampling, the same for every token of a request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Contrast {
    /// Plausibility constraint, `0..=1`: a token is in the head if the expert finds it at least `alpha` times as
    /// likely as its favourite.
    pub alpha: f64,
    /// Weight of the amateur's log-probability, `>= 0`.
    pub beta: f64,
    /// `beta` for special tokens (an amateur that never saw a stop token makes contrast favour stopping).
    pub special_token_beta: Option<f64>,
    /// `>= 0`; 0 takes the best score.
    pub temperature: f64,
    /// Keeps the smallest set of likeliest tokens whose probabilities reach this, `0 < top_p <= 1`.
    pub top_p: f64,
    /// Keeps this many of the likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps tokens at least this times as likely as the likeliest, `0..=1`.
    pub min_p: f64,
}

impl Default for Contrast {
    fn default() -> Self {
        Self {
            alpha: 0.01,
            beta: 1.0,
            special_token_beta: None,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
        }
    }
}

impl Contrast {
    /// Plain sampling from the expert: the paper's baseline. The amateur is not run.
    pub fn direct() -> Self {
        Self { alpha: 0.0, beta: 0.0, ..Self::default() }
    }

    /// The other common spelling of contrast, `(1 + guidance) z_e - guidance z_a` sampled at `temperature` (CFG;
    /// O'Brien and Lewis 2023): `beta = guidance / (1 + guidance)` at `temperature / (1 + guidance)`.
    #[must_use]
    pub fn with_guidance(self, guidance: f64) -> Self {
        Self { beta: guidance / (1.0 + guidance), temperature: self.temperature / (1.0 + guidance), ..self }
    }

    /// `beta` for special tokens.
    pub fn special_beta(&self) -> f64 {
        self.special_token_beta.unwrap_or(self.beta)
    }

    /// Whether any token's score depends on the amateur.
    pub fn needs_amateur(&self) -> bool {
        self.beta != 0.0 || self.special_beta() != 0.0
    }

    /// # Errors
    /// [`Error::Setting`] naming the parameter that is out of range.
    pub fn validate(&self) -> Result<()> {
        let checks = [
            ("alpha", self.alpha, (0.0..=1.0).contains(&self.alpha), "between 0 and 1"),
            ("beta", self.beta, self.beta >= 0.0, "0 or more"),
            ("special-token-beta", self.special_beta(), self.special_beta() >= 0.0, "0 or more"),
            ("temperature", self.temperature, self.temperature >= 0.0, "0 or more"),
            ("top-p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "over 0 and at most 1"),
            ("min-p", self.min_p, (0.0..=1.0).contains(&self.min_p), "between 0 and 1"),
        ];
        match checks.into_iter().find(|(_, value, in_range, _)| !in_range || !value.is_finite()) {
            Some((name, value, _, range)) => {
                Err(Error::Setting(format!("{name} is {value}; it must be {range}")))
            }
            None => Ok(()),
        }
    }
}

/// Which ids may be sampled, and which of them are special.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {
    /// Ids at and above this are padding of the models' embeddings, or not in them, and never sampled.
    pub len: usize,
    /// Special tokens, ascending.
    pub special: Vec<TokenId>,
}

impl Vocabulary {
    /// A vocabulary of `len` tokens of which `special` (in any order) are special.
    pub fn new(len: usize, mut special: Vec<TokenId>) -> Self {
        special.sort_unstable();
        special.dedup();
        Self { len, special }
    }

    /// What of it has a row in embeddings of `rows` rows. Only special tokens may have none, such as the place of an image
    /// that a model without vision was trained without: a prompt must not hold them, and they are never sampled.
    ///
    /// # Errors
    /// The first id without a row that is not special.
    pub fn within(&self, rows: usize) -> std::result::Result<Self, TokenId> {
        let mut beyond = (rows..self.len).map(|id| TokenId(id as u32));
        match beyond.find(|id| !self.is_special(*id)) {
            Some(id) => Err(id),
            None => Ok(Self {
                len: self.len.min(rows),
                special: self.special.iter().copied().filter(|id| id.index() < rows).collect(),
            }),
        }
    }

    /// Whether `token` is special.
    pub fn is_special(&self, token: TokenId) -> bool {
        self.special.binary_search(&token).is_ok()
    }
}

/// Why a row of logits has no next token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowFault {
    /// A NaN or `+inf` among the logits.
    #[error("a logit is NaN or infinite")]
    NotANumber,
    /// Every token is masked.
    #[error("every token is masked")]
    AllMasked,
}

/// What a row's sampling gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampled {
    /// The next token.
    pub token: TokenId,
    /// `log_softmax(s)` at the token: before temperature and before top-k, top-p, min-p.
    pub score: f32,
    /// |head|; 1 is a forced token.
    pub head: u32,
    /// What the models think of it: always there where the row asked for it.
    pub log_probabilities: Option<LogProbabilities>,
}

/// What the models think of a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogProbabilities {
    /// `l_e`
    pub expert: f32,
    /// `l_a`, `-inf` where the amateur masks the token; `None` where the amateur has no say in the row.
    pub amateur: Option<f32>,
}

/// The noise of one sample of one record. It depends on nothing else, so that a record's text does not either.
///
/// Philox4x32-10 (Salmon et al. 2011) with the seed as key and `(token / 4, position, record)` as counter; the
/// draw's word `token % 4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noise {
    key: [u32; 2],
    record: [u32; 2],
}

impl Noise {
    /// The noise of sample number `sample` of the record called `record_id`.
    pub fn new(seed: u64, record_id: &str, sample: u32) -> Self {
        let hash = Sha256::new().chain_update(record_id).chain_update(sample.to_le_bytes()).finalize();
        let word = |at: usize| u32::from_le_bytes([hash[at], hash[at + 1], hash[at + 2], hash[at + 3]]);
        Self { key: [seed as u32, (seed >> 32) as u32], record: [word(0), word(4)] }
    }

    /// The key, and the two words of the counter that stand for the record.
    pub fn words(&self) -> [[u32; 2]; 2] {
        [self.key, self.record]
    }

    /// The 32 random bits of `token` as a candidate for `position` (counted from the start of the sequence).
    pub fn bits(&self, position: u32, token: TokenId) -> u32 {
        philox4x32_10([token.0 / 4, position, self.record[0], self.record[1]], self.key)[token.index() % 4]
    }

    /// The bits of the 64 tokens from `64 * index`, those of token `t` at `[t % 4][t / 4 % 16]`: sixteen blocks of
    /// Philox side by side, for vector registers.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "to be compiled for its caller's instruction set")]
    pub fn bits_of_64(&self, position: u32, index: u32) -> [[u32; 16]; 4] {
        let first = std::array::from_fn(|lane| 16 * index + lane as u32);
        let mut counter = [first, [position; 16], [self.record[0]; 16], [self.record[1]; 16]];
        let mut key = self.key;
        for _ in 0..10 {
            let mut next = [[0; 16]; 4];
            for lane in 0..16 {
                let first = u64::from(PHILOX_MULTIPLIERS[0]) * u64::from(counter[0][lane]);
                let second = u64::from(PHILOX_MULTIPLIERS[1]) * u64::from(counter[2][lane]);
                next[0][lane] = (second >> 32) as u32 ^ counter[1][lane] ^ key[0];
                next[1][lane] = second as u32;
                next[2][lane] = (first >> 32) as u32 ^ counter[3][lane] ^ key[1];
                next[3][lane] = first as u32;
            }
            counter = next;
            key = [key[0].wrapping_add(PHILOX_KEY_STEP[0]), key[1].wrapping_add(PHILOX_KEY_STEP[1])];
        }
        counter
    }

    /// A draw from the standard Gumbel distribution, `-ln(-ln u)` with `u = (bits + 1/2) / 2^32`; at most
    /// [`GUMBEL_MAX`].
    pub fn gumbel(&self, position: u32, token: TokenId) -> f64 {
        gumbel_of_bits(self.bits(position, token))
    }
}

/// The largest value of [`Noise::gumbel`], `-ln(-ln(1 - 2^-33))`, rounded up.
pub const GUMBEL_MAX: f64 = 22.874;

fn gumbel_of_bits(bits: u32) -> f64 {
    let uniform = (f64::from(bits) + 0.5) / 4_294_967_296.0;
    -(-uniform.ln()).ln()
}

const PHILOX_MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const PHILOX_KEY_STEP: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// One block of Philox4x32-10.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let product = |multiplier: u32, word: u32| u64::from(multiplier) * u64::from(word);
        let first = product(PHILOX_MULTIPLIERS[0], counter[0]);
        let second = product(PHILOX_MULTIPLIERS[1], counter[2]);
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(PHILOX_KEY_STEP[0]), key[1].wrapping_add(PHILOX_KEY_STEP[1])];
    }
    counter
}

/// The exact distribution of a row's next token.
#[derive(Debug, Clone)]
pub struct Distribution {
    /// The head, ascending.
    pub tokens: Vec<TokenId>,
    /// `s`, up to a constant of the row, a value a token of the head.
    pub s: Vec<f64>,
    /// `log_softmax(s)`: before temperature and before top-k, top-p, min-p.
    pub scores: Vec<f64>,
    /// `p`: after temperature, top-k, top-p and min-p. At temperature 0 all of it is on the best token.
    pub probabilities: Vec<f64>,
    /// `l_e`
    pub expert: Vec<f64>,
    /// `l_a`, where the amateur has a say.
    pub amateur: Option<Vec<f64>>,
}

impl Distribution {
    /// The reference of the method for one row: `expert` and `amateur` are logits, `[vocabulary or more]`; without
    /// an amateur, contrast must not need one.
    ///
    /// # Errors
    /// [`RowFault`] where the row has no next token.
    pub fn new(
        contrast: &Contrast,
        vocabulary: &Vocabulary,
        expert: &[f32],
        amateur: Option<&[f32]>,
    ) -> std::result::Result<Self, RowFault> {
        let l_e = log_softmax(&expert[..vocabulary.len])?;
        let best = l_e.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let floor = contrast.alpha.ln() + best;
        let in_head = |v: &usize| l_e[*v] >= floor && l_e[*v] > f64::NEG_INFINITY;
        let head: Vec<usize> = (0..vocabulary.len).filter(in_head).collect();
        let amateur = amateur.filter(|_| contrast.needs_amateur());
        let l_a = amateur.map(|logits| masked_log_softmax(&logits[..vocabulary.len])).transpose()?;
        let s: Vec<f64> = match &l_a {
            None => head.iter().map(|&v| l_e[v]).collect(),
            Some(l_a) => contrasted(contrast, vocabulary, &head, &l_e, l_a),
        };
        let at_head = |l: &[f64]| head.iter().map(|&v| l[v]).collect();
        Ok(Self {
            tokens: head.iter().map(|&v| TokenId(v as u32)).collect(),
            scores: normalized(&s),
            probabilities: truncated(contrast, &s),
            s,
            expert: at_head(&l_e),
            amateur: l_a.as_deref().map(at_head),
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
            head: self.tokens.len() as u32,
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
    head: &[usize],
    l_e: &[f64],
    l_a: &[f64],
) -> Vec<f64> {
    let least = head.iter().map(|&v| l_a[v]).filter(|l| l.is_finite()).fold(f64::INFINITY, f64::min);
    let masked = if least.is_finite() { least } else { 0.0 };
    let score = |&v: &usize| {
        let special = vocabulary.is_special(TokenId(v as u32));
        let beta = if special { contrast.special_beta() } else { contrast.beta };
        l_e[v] - beta * if l_a[v].is_finite() { l_a[v] } else { masked }
    };
    head.iter().map(score).collect()
}

/// The same where every logit may be masked: then every token's is `-inf`.
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
