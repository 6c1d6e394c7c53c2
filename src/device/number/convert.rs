//! Converts between number formats.

use half::{bf16, f16};

use super::dtype::Dtype;
use super::e4m3::E4m3;

/// Converts little-endian numbers from format `source` to format `target`, with rounding, as many as `to` holds.
/// Equal formats are copied.
pub fn convert(from: &[u8], source: Dtype, to: &mut [u8], target: Dtype) {
    if source == target {
        let bytes = to.len().min(from.len());
        return to[..bytes].copy_from_slice(&from[..bytes]);
    }
    let pairs = from.chunks_exact(source.size()).zip(to.chunks_exact_mut(target.size()));
    for (from, to) in pairs {
        let value = match source {
            Dtype::Bf16 => bf16::from_le_bytes([from[0], from[1]]).to_f32(),
            Dtype::F16 => f16::from_le_bytes([from[0], from[1]]).to_f32(),
            Dtype::F32 => f32::from_le_bytes([from[0], from[1], from[2], from[3]]),
            Dtype::F8E4m3 => E4m3(from[0]).to_f32(),
        };
        match target {
            Dtype::Bf16 => to.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
            Dtype::F16 => to.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
            Dtype::F32 => to.copy_from_slice(&value.to_le_bytes()),
            Dtype::F8E4m3 => to.copy_from_slice(&[E4m3::from_f32(value).0]),
        }
    }
}
