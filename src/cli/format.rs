//! The choice of number formats.

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::device::{Dtype, Format};
use crate::error::{Error, Result};

/// In what numbers each model is kept.
#[derive(clap::Args, Clone)]
pub(super) struct FormatArgs {
    /// Numbers of the weights: auto is bfloat16 on a GPU, as stored on the CPU; fp8 rounds the layers' matrices to e4m3 with a
    /// scale an output, and all else is bfloat16. On a GPU activations are bfloat16, or all is float32; the CPU computes in f32
    #[arg(long, value_enum, default_value_t = WeightsName::Auto)]
    dtype: WeightsName,
    /// Those of the amateur's weights [default: as --dtype]
    #[arg(long, value_enum)]
    amateur_dtype: Option<WeightsName>,
    /// Numbers of both models' keys and values: auto is as activations are; fp8 is e4m3 with a scale for each token and head
    #[arg(long, value_enum, default_value_t = CacheName::Auto)]
    kv_cache_dtype: CacheName,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WeightsName {
    Auto,
    Bfloat16,
    Float32,
    Fp8,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CacheName {
    Auto,
    Bfloat16,
    #[value(alias = "fp8_e4m3")]
    Fp8,
}

impl FormatArgs {
    /// The expert's and the amateur's.
    ///
    /// # Errors
    /// Where there are no kernels for the two together.
    pub(super) fn formats(&self) -> Result<[Format; 2]> {
        let expert = self.format(self.dtype, "dtype")?;
        let amateur = self.amateur_dtype.map(|dtype| self.format(dtype, "amateur-dtype")).transpose()?;
        Ok([expert, amateur.unwrap_or(expert)])
    }

    fn format(&self, weights: WeightsName, flag: &str) -> Result<Format> {
        let weights = match weights {
            WeightsName::Auto | WeightsName::Bfloat16 => Dtype::Bf16,
            WeightsName::Float32 => Dtype::F32,
            WeightsName::Fp8 => Dtype::F8E4m3,
        };
        let working = Format::of(weights).working();
        let cache = match self.kv_cache_dtype {
            CacheName::Auto => working,
            CacheName::Bfloat16 => Dtype::Bf16,
            CacheName::Fp8 => Dtype::F8E4m3,
        };
        if cache == Dtype::Bf16 && working == Dtype::F32 {
            return Err(Error::Setting(format!(
                "kv-cache-dtype bfloat16 does not go with {flag} float32; it may be auto or fp8"
            )));
        }
        Ok(Format { weights, cache })
    }

    /// The flags in every combination that has kernels of its own.
    pub(super) fn each() -> [Self; 4] {
        use WeightsName::{Bfloat16, Float32, Fp8};
        [
            (Bfloat16, CacheName::Auto),
            (Float32, CacheName::Auto),
            (Fp8, CacheName::Fp8),
            (Float32, CacheName::Fp8),
        ]
        .map(|(dtype, kv_cache_dtype)| Self { dtype, amateur_dtype: None, kv_cache_dtype })
    }
}

/// What a manifest says of the formats of a run, whose activations are `dtypes`: they change responses. What is as a
/// version without the setting had it is unset.
pub(super) fn settings(settings: &mut Value, formats: [Format; 2], dtypes: [Dtype; 2]) {
    let weights = |side: usize| {
        if formats[side].weights == Dtype::F8E4m3 { Dtype::F8E4m3 } else { dtypes[side] }
    };
    settings["dtype"] = json!(weights(0).name());
    settings["amateur_dtype"] = json!((weights(1) != weights(0)).then(|| weights(1).name()));
    let is_fp8 = formats.iter().any(|format| format.cache == Dtype::F8E4m3);
    settings["kv_cache_dtype"] = json!(is_fp8.then(|| Dtype::F8E4m3.name()));
}

/// In a line for people: weights and cache.
pub(super) fn describe(format: Format, dtype: Dtype) -> String {
    let name = |of: Dtype| if of == Dtype::F8E4m3 { of.name() } else { dtype.name() };
    match (name(format.weights), name(format.cache)) {
        (weights, cache) if weights == cache => weights.to_owned(),
        (weights, cache) => format!("{weights}, cache {cache}"),
    }
}
