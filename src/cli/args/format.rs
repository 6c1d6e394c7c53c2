//! The choice of number formats.

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use codit::device::{Device, DeviceInfo, Dtype, Format, Role};
use codit::error::{Error, Result};

/// In what numbers each model is kept.
#[derive(clap::Args, Clone)]
pub struct FormatArgs {
    /// Number format of the weights, and of the numbers that they are multiplied with: auto is bfloat16 on a GPU, and on a CPU
    /// that multiplies bfloat16 for checkpoints that store it, otherwise float32; fp8 rounds the layers' matrices to e4m3 with
    /// one scale per output
    #[arg(long, value_enum, default_value_t = WeightsName::Auto)]
    dtype: WeightsName,
    /// Number format of the amateur's weights [default: that of --dtype]
    #[arg(long, value_enum)]
    amateur_dtype: Option<WeightsName>,
    /// Number format of both models' keys and values: auto is that of the activations; fp8 is e4m3 with one scale per token and
    /// head
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
    /// The expert's and the amateur's on a GPU.
    ///
    /// # Errors
    /// Where there are no kernels for the two together.
    pub fn formats(&self) -> Result<[Format; 2]> {
        self.formats_where([Dtype::Bf16; 2])
    }

    /// The expert's and the amateur's where `auto` means these formats of the weights.
    ///
    /// # Errors
    /// Those of [`FormatArgs::formats`].
    pub fn formats_where(&self, auto: [Dtype; 2]) -> Result<[Format; 2]> {
        let expert = self.format(self.dtype, auto[0], "dtype")?;
        let amateur = match self.amateur_dtype {
            Some(dtype) => self.format(dtype, auto[1], "amateur-dtype")?,
            None => self.format(self.dtype, auto[1], "dtype")?,
        };
        Ok([expert, amateur])
    }

    fn format(&self, weights: WeightsName, auto: Dtype, flag: &str) -> Result<Format> {
        let weights = match weights {
            WeightsName::Auto => auto,
            WeightsName::Bfloat16 => Dtype::Bf16,
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

    /// Whether the user chose a format.
    pub fn are_given(&self) -> bool {
        self.dtype != WeightsName::Auto
            || self.amateur_dtype.is_some()
            || self.kv_cache_dtype != CacheName::Auto
    }

    /// The flags in every combination that the CPU multiplies in its own way.
    pub fn each_of_cpu() -> [Self; 2] {
        [WeightsName::Float32, WeightsName::Bfloat16].map(|dtype| Self {
            dtype,
            amateur_dtype: None,
            kv_cache_dtype: CacheName::Auto,
        })
    }

    /// The flags in every combination that has kernels of its own.
    pub fn each() -> [Self; 4] {
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

/// What a manifest says of a device's formats: they change responses. What is as it was in versions without the setting is
/// unset.
pub fn settings<D: Device>(device: &D) -> Map<String, Value> {
    let [expert, amateur] = [Role::Expert, Role::Amateur].map(|role| {
        let device = device.role(role);
        (device.info().format.weights, device.info().format.cache == Dtype::F8E4m3)
    });
    let has_fp8_cache = expert.1 || amateur.1;
    [
        ("dtype", Some(expert.0.name())),
        ("amateur_dtype", (amateur.0 != expert.0).then(|| amateur.0.name())),
        ("kv_cache_dtype", has_fp8_cache.then(|| Dtype::F8E4m3.name())),
    ]
    .map(|(name, format)| (name.to_owned(), json!(format)))
    .into_iter()
    .collect()
}

/// In a line for people.
pub fn describe(info: &DeviceInfo) -> String {
    let cache = if info.format.cache == Dtype::F8E4m3 { Dtype::F8E4m3 } else { info.dtype };
    describe_mode(Format { cache, ..info.format }, info.is_deterministic)
}

/// In a line for people, where only the choice is known.
pub fn describe_mode(format: Format, is_deterministic: bool) -> String {
    let deterministic = if is_deterministic { ", deterministic" } else { "" };
    format!("weights {}, cache {}{deterministic}", format.weights.name(), format.cache.name())
}
