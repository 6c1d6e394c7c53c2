//! Rows of numbers rounded to e4m3, with one f32 scale per row. A value is its number times the scale of its row.

use rayon::prelude::*;

use super::convert::convert;
use super::dtype::Dtype;
use super::e4m3::{E4m3, MAX, magnitude_bits};
use crate::device::TensorView;

/// Rounds a row into `to` and returns its scale. A row with a NaN gets a NaN scale, so all of it is NaN.
#[inline]
pub fn quantize(row: &[f32], to: &mut [E4m3]) -> f32 {
    let scale = scale(row);
    to.iter_mut().zip(row).for_each(|(to, x)| *to = scaled(*x, scale));
    scale
}

/// Rounds each row of a matrix: numbers `[rows, columns]` and scales `[rows]`.
pub fn quantize_matrix(matrix: &TensorView) -> (Vec<E4m3>, Vec<f32>) {
    let columns = matrix.shape.iter().skip(1).product::<usize>().max(1);
    let stored = matrix.bytes().par_chunks_exact(columns * matrix.dtype.size());
    let mut numbers = vec![E4m3(0); stored.len() * columns];
    let rows = stored.zip(numbers.par_chunks_exact_mut(columns));
    let round = |row: &mut Vec<f32>, (stored, numbers): (&[u8], &mut [E4m3])| {
        row.resize(columns, 0.0);
        convert(stored, matrix.dtype, bytemuck::cast_slice_mut(row), Dtype::F32);
        quantize(row, numbers)
    };
    let scales = rows.map_init(Vec::new, round).collect();
    (numbers, scales)
}

/// The values of a row after rounding.
pub fn rounded(row: &[f32]) -> Vec<f32> {
    let scale = scale(row);
    row.iter().map(|x| scaled(*x, scale).to_f32() * scale).collect()
}

/// The scale of a row: it maps the row's greatest magnitude to the largest number.
#[inline]
pub fn scale(row: &[f32]) -> f32 {
    f32::from_bits(row.iter().map(|x| magnitude_bits(*x)).max().unwrap_or(0)) / MAX
}

/// `x` in units of the scale of its row.
#[inline]
pub fn scaled(x: f32, scale: f32) -> E4m3 {
    E4m3::from_f32(if scale == 0.0 { 0.0 } else { x / scale })
}
