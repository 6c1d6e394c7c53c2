//! Matrices of the layers, rounded to e4m3 while they are loaded.

use rayon::prelude::*;

use super::random_weight;
use crate::device::gpu::buffers::Weight;
use crate::device::gpu::device::GpuDevice;
use crate::device::gpu::runtime::GpuRuntime;
use crate::device::number::e4m3::E4m3;
use crate::device::number::quantize;
use crate::device::{Dtype, TensorView};
use crate::error::{Error, Result};

/// Inputs of a tensor-core step: the unit of the reordering.
const STEP: usize = 16;

/// Joins `parts` along the rows, with a scale per row.
pub fn rounded<R: GpuRuntime>(on: &GpuDevice<R>, parts: &[TensorView]) -> Result<Weight<R>> {
    let Some(first) = parts.first() else {
        return Err(Error::Device("a weight of no parts".to_owned()));
    };
    let columns = first.shape.iter().skip(1).product::<usize>();
    let rows = parts.iter().map(|part| part.shape.first().copied().unwrap_or(1)).sum();
    let weight = allocate(on, rows, columns)?;
    let (mut numbers, mut scales) = (Vec::with_capacity(rows * columns), Vec::with_capacity(rows));
    for part in parts {
        let (of_part, scales_of_part) =
            quantize::quantize_matrix(part, |pieces, round| pieces.into_par_iter().for_each(round));
        numbers.extend(of_part);
        scales.extend(scales_of_part);
    }
    if columns.is_multiple_of(STEP) {
        numbers.as_chunks_mut().0.iter_mut().for_each(deal);
    }
    fill(on, &weight.memory, bytemuck::cast_slice(&numbers))?;
    if let Some(memory) = &weight.scales {
        fill(on, memory, bytemuck::cast_slice(&scales))?;
    }
    Ok(weight)
}

/// A matrix of random numbers: see [`crate::device::WeightSource::Random`].
pub fn random<R: GpuRuntime>(on: &GpuDevice<R>, shape: &[usize], seed: u64) -> Result<Weight<R>> {
    let columns = shape.last().copied().unwrap_or(1);
    let weight = allocate(on, shape.iter().product::<usize>() / columns.max(1), columns)?;
    let scale = random_weight::random_e4m3(on, shape, seed, &weight.memory);
    if let Some(memory) = &weight.scales {
        fill(on, memory, bytemuck::cast_slice(&vec![scale; weight.rows]))?;
    }
    Ok(weight)
}

fn allocate<R: GpuRuntime>(on: &GpuDevice<R>, rows: usize, columns: usize) -> Result<Weight<R>> {
    let (memory, scales) = (on.allocate(rows * columns)?, on.allocate(rows * size_of::<f32>())?);
    Ok(Weight { memory, scales: Some(scales), dtype: Dtype::F8E4m3, rows, columns })
}

fn fill<R: GpuRuntime>(on: &GpuDevice<R>, memory: &R::Memory, bytes: &[u8]) -> Result<()> {
    on.runtime().fill(on.current_role(), memory, bytes.len(), &mut |offset, piece| {
        piece.copy_from_slice(&bytes[offset..][..piece.len()]);
    })
}

/// Orders a step's inputs as `E4m3Weights` of `kernels/grouped_matmul/weights.cuh` widens them: each group of four
/// holds two neighbours of the lower eight between two of the upper.
fn deal(step: &mut [E4m3; STEP]) {
    let inputs = *step;
    for (to, place) in step.iter_mut().zip(0..) {
        let (pair, half, second) = (place / 4, place % 2, place % 4 / 2);
        *to = inputs[half * STEP / 2 + 2 * pair + second];
    }
}
