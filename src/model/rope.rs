//! Rotary position embeddings (Su et al. 2021): the frequencies that a checkpoint asks for.

use std::f64::consts::TAU;

use super::fields::Fields;
use crate::error::Result;

/// How a head's dimensions are rotated: pair `i` of a token at position `p` by `p * inverse_frequencies[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// `[head_dim / 2]`, radians a position.
    pub inverse_frequencies: Vec<f32>,
}

/// What a scaling does to `theta^(-2i / head_dim)`.
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
}

const SUPPORTED: &str = "one of the supported types: default, linear, llama3";
const THETA: f64 = 10_000.0;

impl Rope {
    /// The rotation that config.json asks for in either of its dialects: `rope_parameters`, or `rope_theta` next to
    /// `rope_scaling`.
    pub(super) fn read(config: &Fields, head_dim: usize) -> Result<Self> {
        let thetas = 1.0..=1e12;
        let outer = config.number_or("rope_theta", &thetas, THETA)?;
        whole_head(config)?;
        let (theta, scaling) = match config.object("rope_scaling")?.or(config.object("rope_parameters")?) {
            None => (outer, Scaling::Default),
            Some(rope) => {
                whole_head(&rope)?;
                (rope.number_or("rope_theta", &thetas, outer)?, Scaling::read(&rope)?)
            }
        };
        let frequency = |pair: usize| scaling.apply(theta.powf(-2.0 * pair as f64 / head_dim as f64)) as f32;
        Ok(Self { inverse_frequencies: (0..head_dim / 2).map(frequency).collect() })
    }
}

/// Some models rotate only a part of each head; none of those here does.
fn whole_head(fields: &Fields) -> Result<()> {
    let field = "partial_rotary_factor";
    if fields.number_or(field, &(0.0..=1.0), 1.0)? < 1.0 {
        return Err(fields.unexpected(field, "1: rotation of a part of the head is not supported"));
    }
    Ok(())
}

impl Scaling {
    fn read(rope: &Fields) -> Result<Self> {
        let field = if rope.get("rope_type").is_some() { "rope_type" } else { "type" };
        let factor = || rope.number("factor", &(1.0..=1e6));
        match rope.text(field)?.unwrap_or("default") {
            "default" => Ok(Self::Default),
            "linear" => Ok(Self::Linear { factor: factor()? }),
            "llama3" => {
                let low = rope.number("low_freq_factor", &(1e-6..=1e6))?;
                let high = rope.number("high_freq_factor", &(1e-6..=1e6))?;
                if low >= high {
                    return Err(rope.unexpected("high_freq_factor", "greater than low_freq_factor"));
                }
                let original = rope.number("original_max_position_embeddings", &(1.0..=1e9))?;
                Ok(Self::Llama3 { factor: factor()?, low, high, original })
            }
            _ => Err(rope.unexpected(field, SUPPORTED)),
        }
    }

    fn apply(&self, frequency: f64) -> f64 {
        match *self {
            Self::Default => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low, high, original } => {
                let rotations = original * frequency / TAU;
                let kept = ((rotations - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }
    }
}
