//! Rows of numbers rounded to e4m3, with one f32 scale per row. A value is its number times the scale of its row.

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

/// Some rows of a matrix, as stored, and the numbers and the scales that they get.
pub type Piece<'a> = (&'a [u8], &'a mut [E4m3], &'a mut [f32]);

/// Rounds each row of a matrix: numbers `[rows, columns]` and scales `[rows]`. `on_threads` calls the function that it is given
/// with every piece.
pub fn quantize_matrix(
    matrix: &TensorView,
    on_threads: impl FnOnce(Vec<Piece<'_>>, &(dyn Fn(Piece<'_>) + Sync)),
) -> (Vec<E4m3>, Vec<f32>) {
    let columns = matrix.shape.iter().skip(1).product::<usize>().max(1);
    let row_bytes = columns * matrix.dtype.size();
    let count = matrix.bytes().len() / row_bytes;
    let (mut numbers, mut scales) = (vec![E4m3(0); count * columns], vec![0.0; count]);
    let rows = PIECE.div_ceil(columns);
    let stored = matrix.bytes().chunks(rows * row_bytes);
    let rounded = numbers.chunks_mut(rows * columns).zip(scales.chunks_mut(rows));
    let pieces = stored.zip(rounded).map(|(stored, (numbers, scales))| (stored, numbers, scales)).collect();
    on_threads(pieces, &|(stored, numbers, scales): Piece<'_>| {
        let mut row = vec![0.0; columns];
        let numbers = numbers.chunks_exact_mut(columns);
        for ((stored, numbers), scale) in stored.chunks_exact(row_bytes).zip(numbers).zip(scales) {
            convert(stored, matrix.dtype, bytemuck::cast_slice_mut(&mut row), Dtype::F32);
            *scale = quantize(&row, numbers);
        }
    });
    (numbers, scales)
}

/// Numbers that are worth a thread's while.
const PIECE: usize = 1 << 16;

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
