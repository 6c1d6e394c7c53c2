//! The parameters of the method.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, number};

/// The parameters of the method and of sampling, the same for every token of a request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Contrast {
    /// Plausibility constraint, `0..=1`: a token is in the plausible set if the expert finds it at least `alpha`
    /// times as likely as its most likely token.
    pub alpha: f64,
    /// Weight of the amateur's log-probability, `>= 0`.
    pub beta: f64,
    /// `beta` for special tokens (an amateur that never saw a stop token makes contrast favour stopping).
    pub special_token_beta: Option<f64>,
    /// Temperature, `>= 0`; 0 takes the token with the best score.
    pub temperature: f64,
    /// Keeps the smallest set of most likely tokens whose probabilities reach this sum, `0 < top_p <= 1`.
    pub top_p: f64,
    /// Keeps this many of the most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps tokens that are at least this many times as likely as the most likely one, `0..=1`.
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
                Err(Error::Setting(format!("{name} is {}; it must be {range}", number(value))))
            }
            None => Ok(()),
        }
    }
}
