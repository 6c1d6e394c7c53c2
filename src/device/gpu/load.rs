//! Loads weights onto the GPU.

use super::buffers::Weight;
use super::device::GpuDevice;
use super::ops::{matrix, random_weight};
use super::runtime::GpuRuntime;
use crate::device::number::convert::convert;
use crate::device::number::dtype::Dtype;
use crate::device::types::tensor::TensorView;
use crate::device::types::weight::{WeightKind, WeightSource};
use crate::error::{Error, Result};

/// See [`crate::device::Device::load`].
pub fn load<R: GpuRuntime>(
    on: &GpuDevice<R>,
    source: WeightSource<'_>,
    kind: WeightKind,
) -> Result<Weight<R>> {
    let is_e4m3 = kind == WeightKind::LayerMatrix && on.role_info().format.weights == Dtype::F8E4m3;
    match source {
        WeightSource::Stored(parts) if is_e4m3 => matrix::rounded(on, parts),
        WeightSource::Stored(parts) => stored(on, parts),
        WeightSource::Random { shape, seed } if is_e4m3 => matrix::random(on, shape, seed),
        WeightSource::Random { shape, seed } => random(on, shape, seed),
    }
}

/// Joins `parts` in the number format of activations.
fn stored<R: GpuRuntime>(on: &GpuDevice<R>, parts: &[TensorView]) -> Result<Weight<R>> {
    let Some(first) = parts.first() else {
        return Err(Error::Device("a weight of no parts".to_owned()));
    };
    let columns = first.shape.get(1..).unwrap_or(&[]).iter().product::<usize>();
    let rows = parts.iter().map(|part| part.shape.first().copied().unwrap_or(1)).sum::<usize>();
    let dtype = on.role_info().dtype;
    let bytes = rows * columns * dtype.size();
    let memory = on.allocate(bytes)?;
    on.runtime().fill(on.current_role(), &memory, bytes, &mut |offset, piece| {
        let mut begin = 0;
        let end = offset + piece.len();
        for part in parts {
            let elements = part.bytes().len() / part.dtype.size();
            let place = begin..begin + elements * dtype.size();
            let shared = place.start.max(offset)..place.end.min(end);
            if shared.start < shared.end {
                let first = (shared.start - begin) / dtype.size() * part.dtype.size();
                let target = &mut piece[shared.start - offset..shared.end - offset];
                convert(&part.bytes()[first..], part.dtype, target, dtype);
            }
            begin = place.end;
        }
    })?;
    Ok(Weight { memory, scales: None, dtype, rows, columns })
}

/// Random numbers that the GPU draws, in the number format of activations.
fn random<R: GpuRuntime>(on: &GpuDevice<R>, shape: &[usize], seed: u64) -> Result<Weight<R>> {
    let dtype = on.role_info().dtype;
    let columns = if shape.len() > 1 { shape[shape.len() - 1] } else { 1 };
    let rows = shape.iter().product::<usize>() / columns.max(1);
    let memory = on.allocate(rows * columns * dtype.size())?;
    random_weight::random_weight(on, shape, seed, &memory);
    Ok(Weight { memory, scales: None, dtype, rows, columns })
}
