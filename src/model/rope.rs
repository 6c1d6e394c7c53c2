//! Rotary position embeddings (Su et al. 2021): computes the frequencies that a checkpoint asks for, as transformers does.

use std::f64::consts::TAU;
use std::ops::RangeInclusive;

use serde_json::json;

use super::json_reader::JsonReader;
use crate::error::Result;

/// The rotation of a head: pair `i` of a token at position `p` turns by `p * inverse_frequencies[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// `[head_dim / 2]`, radians per position.
    pub inverse_frequencies: Vec<f32>,
    /// The factor that multiplies sines and cosines.
    pub scale: f32,
    /// The context length that the scaling is made for, if it states one.
    pub(super) reach: Option<usize>,
    /// The context length beyond which transformers uses other frequencies, if there is one.
    pub(super) limit: Option<usize>,
}

/// A rotation as config.json describes it.
struct Parameters {
    theta: f64,
    scaling: Scaling,
}

/// A scaling of the frequencies `theta^(-2i / head_dim)`.
enum Scaling {
    Default,
    /// Divides by `factor` (position interpolation, Chen et al. 2023).
    Linear {
        factor: f64,
    },
    /// Grows theta with the length of a sequence that is longer than `limit` positions. Up to there it changes nothing.
    Dynamic {
        limit: usize,
    },
    /// Divides wavelengths over `original / low` by `factor`, leaves those under `original / high`, and
    /// interpolates in between (Llama 3.1).
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    Yarn(Yarn),
    /// Divides each pair's frequency by its own factor (Ding et al. 2024). Sequences longer than `limit` positions have
    /// other factors, which are not supported.
    LongRope {
        short_factors: Vec<f64>,
        attention_factor: f64,
        limit: usize,
    },
    /// Divides by `factor` and rotates the first `pairs` pairs only.
    Proportional {
        factor: f64,
        pairs: usize,
    },
}

/// Divides the frequencies of pairs that turn fewer than `slow` times over `original` positions by `factor`, leaves those
/// that turn more than `fast` times, interpolates in between, and multiplies sines and cosines by `attention_factor`
/// (Peng et al. 2023).
struct Yarn {
    factor: f64,
    original: f64,
    fast: f64,
    slow: f64,
    /// Whether the ends of the interpolation are rounded outwards to whole pairs.
    truncate: bool,
    attention_factor: f64,
}

const SUPPORTED: &str =
    "one of the supported types: default, linear, llama3, yarn, dynamic, longrope, proportional";

/// An object of config.json that describes a rotation, and what it leaves to other places.
struct Source<'a> {
    config: &'a JsonReader,
    /// `None` if there is no such object.
    object: Option<&'a JsonReader>,
    /// Theta, where the object has none.
    theta: f64,
    /// Whether the original context length in `config`, beside the object, counts before that within it.
    prefers_outer_length: bool,
    /// Where `truncate` is: transformers reads it from the outermost object, even if rotations differ by layer.
    truncate: Option<&'a JsonReader>,
    head_dim: usize,
}

impl Rope {
    /// The rotation of a model with one for all layers: `rope_scaling` or else `rope_parameters`, or that of
    /// `full_attention` within it.
    pub(super) fn read(config: &JsonReader, head_dim: usize, default_theta: f64) -> Result<Self> {
        let given = match config.object("rope_scaling")?.filter(|scaling| !scaling.is_empty()) {
            Some(given) => Some(given),
            None => config.object("rope_parameters")?,
        };
        let nested = given.as_ref().map(|given| given.object("full_attention")).transpose()?.flatten();
        let object = nested.as_ref().or(given.as_ref());
        let theta = theta(config, "rope_theta", default_theta)?;
        Source { config, object, theta, prefers_outer_length: true, truncate: object, head_dim }.rope()
    }

    /// The rotation with this theta and no scaling.
    pub(super) fn unscaled(theta: f64, head_dim: usize) -> Self {
        Parameters { theta, scaling: Scaling::Default }.rope(head_dim)
    }

    /// The rotation of layers that see all positions, in families whose layers with a window have another one:
    /// `full_attention` within `rope_parameters`, with the fields of `rope_scaling` in their places.
    pub(super) fn read_full(config: &JsonReader, head_dim: usize, default_theta: f64) -> Result<Self> {
        let parameters = config.object("rope_parameters")?;
        let nested = parameters.as_ref().map(|given| given.object("full_attention")).transpose()?.flatten();
        let scaling = match (config.object("rope_scaling")?, &nested) {
            (Some(scaling), Some(nested)) => Some(scaling.or_fields_of(nested)),
            // As in transformers, the kind counts under its newer name only.
            (Some(scaling), None) => Some(scaling.or_defaults(json!({"rope_type": "default"}))),
            (None, _) => None,
        };
        let object = scaling.as_ref().or(nested.as_ref());
        let (theta, truncate) = (theta(config, "rope_theta", default_theta)?, parameters.as_ref());
        Source { config, object, theta, prefers_outer_length: false, truncate, head_dim }.rope()
    }

    /// The rotation of layers with a window, in such families: `sliding_attention` within `rope_parameters`, or an
    /// unscaled one with the theta of `rope_local_base_freq`.
    pub(super) fn read_sliding(config: &JsonReader, head_dim: usize, default_theta: f64) -> Result<Self> {
        let parameters = config.object("rope_parameters")?;
        let nested =
            parameters.as_ref().map(|given| given.object("sliding_attention")).transpose()?.flatten();
        let theta = theta(config, "rope_local_base_freq", default_theta)?;
        let (object, truncate) = (nested.as_ref(), parameters.as_ref());
        Source { config, object, theta, prefers_outer_length: false, truncate, head_dim }.rope()
    }
}

impl Parameters {
    fn rope(&self, head_dim: usize) -> Rope {
        let frequency = |pair| self.scaling.frequency(pair, self.theta, head_dim) as f32;
        let (mut reach, mut limit, mut scale) = (None, None, 1.0);
        match &self.scaling {
            Scaling::Yarn(yarn) => {
                (reach, scale) = (Some((yarn.original * yarn.factor) as usize), yarn.attention_factor);
            }
            Scaling::Dynamic { limit: length } => limit = Some(*length),
            Scaling::LongRope { attention_factor, limit: length, .. } => {
                (limit, scale) = (Some(*length), *attention_factor);
            }
            _ => {}
        }
        let inverse_frequencies = (0..head_dim / 2).map(frequency).collect();
        Rope { inverse_frequencies, scale: scale as f32, reach, limit }
    }
}

fn theta(fields: &JsonReader, field: &str, default: f64) -> Result<f64> {
    fields.number_or(field, &(1.0..=1e12), default)
}

const FACTORS: RangeInclusive<f64> = 1e-6..=1e6;
const POSITIVE: RangeInclusive<f64> = 1e-6..=1e6;
const FINITE: RangeInclusive<f64> = -1e6..=1e6;
const POSITIONS: RangeInclusive<f64> = 1.0..=1e9;
/// The field with the share of each head that is rotated.
const SHARE: &str = "partial_rotary_factor";

impl Source<'_> {
    fn rope(&self) -> Result<Rope> {
        let Some(object) = self.object else {
            return Ok(Parameters { theta: self.theta, scaling: Scaling::Default }.rope(self.head_dim));
        };
        let theta = theta(object, "rope_theta", self.theta)?;
        Ok(Parameters { theta, scaling: self.scaling(object)? }.rope(self.head_dim))
    }

    fn scaling(&self, object: &JsonReader) -> Result<Scaling> {
        let field = if object.get("rope_type").is_some() { "rope_type" } else { "type" };
        let name = object.text(field)?.unwrap_or("default");
        let factor = || object.number("factor", &FACTORS);
        if name == "proportional" {
            let pairs = (self.share(object)? * self.head_dim as f64 / 2.0) as usize;
            return Ok(Scaling::Proportional { factor: object.number_or("factor", &FACTORS, 1.0)?, pairs });
        }
        if name != "default" {
            // The default rotates whole heads: transformers ignores the share there.
            self.check_whole_head(object, name)?;
        }
        Ok(match name {
            "default" => Scaling::Default,
            "linear" => Scaling::Linear { factor: factor()? },
            "dynamic" => {
                factor()?;
                Scaling::Dynamic { limit: self.positions()? as usize }
            }
            "llama3" => Scaling::Llama3 {
                low: object.number("low_freq_factor", &POSITIVE)?,
                high: object.number("high_freq_factor", &POSITIVE)?,
                original: self.original_length(object)?,
                factor: factor()?,
            },
            "yarn" => Scaling::Yarn(self.yarn(object)?),
            "longrope" => self.long_rope(object)?,
            _ => return Err(object.unexpected(field, SUPPORTED)),
        })
    }

    /// The share of each head that is rotated.
    fn share(&self, object: &JsonReader) -> Result<f64> {
        let shares = 0.0..=1.0;
        object.number_or(SHARE, &shares, self.config.number_or(SHARE, &shares, 1.0)?)
    }

    /// Refuses to scale the rotation of a part of each head, for which transformers fails too.
    fn check_whole_head(&self, object: &JsonReader, name: &str) -> Result<()> {
        let share = self.share(object)?;
        if (share * self.head_dim as f64) as usize == self.head_dim {
            return Ok(());
        }
        let message =
            format!("is {share}; rotation of a part of the head is not supported with rope_type {name}");
        let holder = if object.get(SHARE).is_some() { object } else { self.config };
        Err(holder.error(SHARE, &message))
    }

    fn positions(&self) -> Result<f64> {
        self.config.number("max_position_embeddings", &POSITIONS)
    }

    /// The context length before it was scaled.
    fn original_length(&self, object: &JsonReader) -> Result<f64> {
        let field = "original_max_position_embeddings";
        if self.prefers_outer_length && self.config.get(field).is_some() {
            return self.config.number(field, &POSITIONS);
        }
        object.number_or(field, &POSITIONS, self.positions()?)
    }

    fn yarn(&self, object: &JsonReader) -> Result<Yarn> {
        let original = self.original_length(object)?;
        let factor = if object.is_null("factor") {
            self.positions()? / original
        } else {
            object.number("factor", &FACTORS)?
        };
        // DeepSeek's form: separate scales for the products and for their softmax. Zero counts as absent.
        let scale = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
        let weight = |field| object.number_or(field, &FINITE, 0.0);
        let (weight, of_all) = (weight("mscale")?, weight("mscale_all_dim")?);
        let by_weights =
            if weight != 0.0 && of_all != 0.0 { scale(weight) / scale(of_all) } else { scale(1.0) };
        let turns = |field, default: f64| {
            let turns = object.number_or(field, &(0.0..=1e6), default)?;
            Ok(if turns == 0.0 { default } else { turns })
        };
        let truncate = self.truncate.filter(|fields| fields.get("truncate").is_some());
        Ok(Yarn {
            factor,
            original,
            fast: turns("beta_fast", 32.0)?,
            slow: turns("beta_slow", 1.0)?,
            truncate: truncate.map_or(Ok(true), |fields| fields.flag("truncate"))?,
            attention_factor: object.number_or("attention_factor", &FINITE, by_weights)?,
        })
    }

    fn long_rope(&self, object: &JsonReader) -> Result<Scaling> {
        let (pairs, positive) = (self.head_dim / 2, |x: &f64| POSITIVE.contains(x));
        let expected = format!("a list of {pairs} numbers over 0, as rope_type longrope needs");
        let factors = |field| {
            let read = |value: &serde_json::Value| {
                let numbers = value.as_array().filter(|numbers| numbers.len() == pairs)?;
                numbers.iter().map(|number| number.as_f64().filter(positive)).collect::<Option<Vec<_>>>()
            };
            object.optional(field, &expected, read)?.ok_or_else(|| object.unexpected(field, &expected))
        };
        let (short_factors, _) = (factors("short_factor")?, factors("long_factor")?);
        let original = self.original_length(object)?;
        let factor = object.number_or("factor", &FACTORS, self.positions()? / original)?;
        let by_length = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.max(2.0).ln()).sqrt() };
        let attention_factor = object.number_or("attention_factor", &FINITE, by_length)?;
        Ok(Scaling::LongRope { short_factors, attention_factor, limit: original as usize })
    }
}

impl Scaling {
    /// The frequency of a pair, radians per position.
    fn frequency(&self, pair: usize, theta: f64, head_dim: usize) -> f64 {
        let frequency = theta.powf(-2.0 * pair as f64 / head_dim as f64);
        let (factor, unscaled) = match self {
            Self::Default | Self::Dynamic { .. } => return frequency,
            Self::LongRope { short_factors, .. } => {
                return frequency / short_factors.get(pair).copied().unwrap_or(1.0);
            }
            Self::Proportional { factor, pairs } => {
                return if pair < *pairs { frequency / factor } else { 0.0 };
            }
            Self::Linear { factor } => (factor, 0.0),
            Self::Llama3 { factor, low, high, original } => {
                let turns = original * frequency / TAU;
                let unscaled = match turns {
                    turns if turns < *low => 0.0,
                    turns if turns > *high => 1.0,
                    turns => (turns - low) / (high - low),
                };
                (factor, unscaled)
            }
            Self::Yarn(yarn) => (&yarn.factor, 1.0 - yarn.interpolated(pair, theta, head_dim)),
        };
        (1.0 - unscaled) * frequency / factor + unscaled * frequency
    }
}

impl Yarn {
    /// The weight of the scaled frequency (divided by `factor`) in the interpolation of a pair, `0..=1`.
    fn interpolated(&self, pair: usize, theta: f64, head_dim: usize) -> f64 {
        let dim = head_dim as f64;
        // The (fractional) index of the pair that turns this many times.
        let turning = |turns: f64| dim * (self.original / (turns * TAU)).ln() / (2.0 * theta.ln());
        let (mut first, mut last) = (turning(self.fast), turning(self.slow));
        if self.truncate {
            (first, last) = (first.floor(), last.ceil());
        }
        (first, last) = (first.max(0.0), last.min(dim - 1.0));
        let length = if last - first == 0.0 { 0.001 } else { last - first };
        ((pair as f64 - first) / length).clamp(0.0, 1.0)
    }
}
