//! Rotary position embeddings (Su et al. 2021): computes the frequencies that a checkpoint asks for.

use std::f64::consts::TAU;
use std::ops::RangeInclusive;

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
    /// Divides wavelengths over `original / low` by `factor`, leaves those under `original / high`, and
    /// interpolates in between (Llama 3.1).
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    Yarn(Yarn),
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

const SUPPORTED: &str = "one of the supported types: default, linear, llama3, yarn";
const THETA: f64 = 10_000.0;

impl Rope {
    /// The rotation of layers that see all positions, in either dialect: `rope_parameters`, its own or that of
    /// `full_attention` within it; or `rope_theta` next to `rope_scaling`.
    pub(super) fn read(config: &JsonReader, head_dim: usize) -> Result<Self> {
        Ok(Parameters::read(config)?.rope(head_dim))
    }

    /// The rotation of layers with a window, in families that have a separate one: `sliding_attention` within
    /// `rope_parameters`, or the unscaled one of `rope_local_base_freq`, or else of the theta of all layers.
    pub(super) fn read_sliding(config: &JsonReader, head_dim: usize) -> Result<Self> {
        Ok(Parameters::read_sliding(config)?.rope(head_dim))
    }
}

impl Parameters {
    fn read(config: &JsonReader) -> Result<Self> {
        let theta = theta(config, "rope_theta", THETA)?;
        whole_head(config)?;
        let Some(given) = config.object("rope_scaling")?.or(config.object("rope_parameters")?) else {
            return Ok(Self { theta, scaling: Scaling::Default });
        };
        Self::read_object(config, &given.object("full_attention")?.unwrap_or(given), theta)
    }

    fn read_sliding(config: &JsonReader) -> Result<Self> {
        let theta = theta(config, "rope_local_base_freq", Self::read(config)?.theta)?;
        let given = config.object("rope_parameters")?;
        match given.map(|given| given.object("sliding_attention")).transpose()?.flatten() {
            Some(given) => Self::read_object(config, &given, theta),
            None => Ok(Self { theta, scaling: Scaling::Default }),
        }
    }

    fn read_object(config: &JsonReader, rope: &JsonReader, outer_theta: f64) -> Result<Self> {
        whole_head(rope)?;
        let theta = theta(rope, "rope_theta", outer_theta)?;
        Ok(Self { theta, scaling: Scaling::read(config, rope)? })
    }

    fn rope(&self, head_dim: usize) -> Rope {
        let frequency = |pair| self.scaling.frequency(pair, self.theta, head_dim) as f32;
        let yarn = if let Scaling::Yarn(yarn) = &self.scaling { Some(yarn) } else { None };
        Rope {
            inverse_frequencies: (0..head_dim / 2).map(frequency).collect(),
            scale: yarn.map_or(1.0, |yarn| yarn.attention_factor as f32),
            reach: yarn.map(|yarn| (yarn.original * yarn.factor) as usize),
        }
    }
}

fn theta(fields: &JsonReader, field: &str, default: f64) -> Result<f64> {
    fields.number_or(field, &(1.0..=1e12), default)
}

/// Refuses models that rotate only a part of each head.
fn whole_head(fields: &JsonReader) -> Result<()> {
    let field = "partial_rotary_factor";
    if fields.number_or(field, &(0.0..=1.0), 1.0)? < 1.0 {
        return Err(fields.unexpected(field, "1: rotation of a part of the head is not supported"));
    }
    Ok(())
}

const FACTORS: RangeInclusive<f64> = 1.0..=1e6;
const POSITIVE: RangeInclusive<f64> = 1e-6..=1e6;
const POSITIONS: RangeInclusive<f64> = 1.0..=1e9;

impl Scaling {
    fn read(config: &JsonReader, rope: &JsonReader) -> Result<Self> {
        let field = if rope.get("rope_type").is_some() { "rope_type" } else { "type" };
        let factor = || rope.number("factor", &FACTORS);
        match rope.text(field)?.unwrap_or("default") {
            "default" => Ok(Self::Default),
            "linear" => Ok(Self::Linear { factor: factor()? }),
            "llama3" => {
                let low = rope.number("low_freq_factor", &POSITIVE)?;
                let high = rope.number("high_freq_factor", &POSITIVE)?;
                if low >= high {
                    return Err(rope.unexpected("high_freq_factor", "greater than low_freq_factor"));
                }
                let original = rope.number("original_max_position_embeddings", &POSITIONS)?;
                Ok(Self::Llama3 { factor: factor()?, low, high, original })
            }
            "yarn" => Ok(Self::Yarn(Yarn::read(config, rope)?)),
            _ => Err(rope.unexpected(field, SUPPORTED)),
        }
    }

    /// The frequency of a pair, radians per position.
    fn frequency(&self, pair: usize, theta: f64, head_dim: usize) -> f64 {
        let frequency = theta.powf(-2.0 * pair as f64 / head_dim as f64);
        let (factor, unscaled) = match self {
            Self::Default => return frequency,
            Self::Linear { factor } => (factor, 0.0),
            Self::Llama3 { factor, low, high, original } => {
                let turns = original * frequency / TAU;
                (factor, ((turns - low) / (high - low)).clamp(0.0, 1.0))
            }
            Self::Yarn(yarn) => (&yarn.factor, 1.0 - yarn.interpolated(pair, theta, head_dim)),
        };
        (1.0 - unscaled) * frequency / factor + unscaled * frequency
    }
}

impl Yarn {
    fn read(config: &JsonReader, rope: &JsonReader) -> Result<Self> {
        let positions = config.number("max_position_embeddings", &POSITIONS)?;
        let factor = rope.number("factor", &FACTORS)?;
        // DeepSeek's form: separate scales for the products and for their softmax.
        let scale = |weight: f64| 0.1 * weight * factor.ln() + 1.0;
        let by_weights = match (rope.get("mscale"), rope.get("mscale_all_dim")) {
            (Some(_), Some(_)) => {
                let (weight, of_all) =
                    (rope.number("mscale", &POSITIVE)?, rope.number("mscale_all_dim", &POSITIVE)?);
                scale(weight) / scale(of_all)
            }
            _ => scale(1.0),
        };
        Ok(Self {
            factor,
            original: rope.number_or("original_max_position_embeddings", &POSITIONS, positions)?,
            fast: rope.number_or("beta_fast", &POSITIVE, 32.0)?,
            slow: rope.number_or("beta_slow", &POSITIVE, 1.0)?,
            truncate: rope.get("truncate").is_none() || rope.flag("truncate")?,
            attention_factor: rope.number_or("attention_factor", &POSITIVE, by_weights)?,
        })
    }

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
