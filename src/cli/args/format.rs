//! The choice of number formats.

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use codit::device::{Device, DeviceInfo, Dtype, Format, Role};
use codit::error::{Error, Result};

/// In what numbers each model is kept.
#[derive(clap::Args, Clone)]
pub struct FormatArgs {
    /// Number format of the weights: auto is bfloat16 on a GPU, and as stored on the CPU; fp8 rounds the layers' matrices to
    /// e4m3 with one scale per output and keeps everything else in bfloat16; float32 also makes a GPU compute in f32, as the
    /// CPU always does
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
    /// The expert's and the amateur's.
    ///
    /// # Errors
    /// Where there are no kernels for the two together.
    pub fn formats(&self) -> Result<[Format; 2]> {
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
        (weights(device.info()), device.info().format.cache == Dtype::F8E4m3)
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
    format!("weights {}, cache {}", weights(info).name(), cache.name())
}

/// The CPU, which keeps weights as they are stored, goes by what it computes in.
fn weights(info: &DeviceInfo) -> Dtype {
    if info.format.weights == Dtype::F8E4m3 { Dtype::F8E4m3 } else { info.dtype }
}
