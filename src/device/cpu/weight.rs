//! Weights where they lie in the mapped file.

use half::{bf16, f16};

use crate::device::{Dtype, TensorView};
use crate::error::{Error, Result};

/// A vector or a matrix `[rows, columns]`, perhaps of several parts joined along the rows. Matrices are never
/// copied; a vector, a few KB, is also held as f32.
pub struct Weight {
    /// The matrices, top to bottom; a vector is a matrix of one column.
    pub parts: Vec<Part>,
    /// Of all parts together.
    pub rows: usize,
    /// Of every part.
    pub columns: usize,
    /// The elements of a vector.
    vector: Vec<f32>,
}

/// One checkpoint tensor as a matrix.
pub struct Part {
    view: TensorView,
    /// The first of the joined matrix's rows that is this part's.
    pub first: usize,
    /// Rows of this part.
    pub rows: usize,
}

impl Weight {
    /// The matrices or vectors `parts`, one below the other.
    pub fn new(parts: &[TensorView]) -> Result<Self> {
        let Some(front) = parts.first() else {
            return Err(Error::Device("a weight of no parts".to_owned()));
        };
        let columns = front.shape.get(1..).unwrap_or(&[]).iter().product();
        let mut weight = Self { parts: vec![], rows: 0, columns, vector: vec![] };
        for view in parts {
            let rows = view.shape.first().copied().unwrap_or(1);
            let bytes = rows.checked_mul(columns).and_then(|n| n.checked_mul(view.dtype.size()));
            let fits = view.shape.get(1..).unwrap_or(&[]) == front.shape.get(1..).unwrap_or(&[]);
            let there = view.file.get(view.range.clone()).map(<[u8]>::len);
            if !fits || bytes.is_none() || bytes != there {
                return Err(Error::Device(format!(
                    "{}: shape {:?} does not fit its {there:?} bytes or cannot be joined to {}, {:?}",
                    view.name, view.shape, front.name, front.shape
                )));
            }
            weight.parts.push(Part { view: view.clone(), first: weight.rows, rows });
            weight.rows += rows;
        }
        if columns == 1 {
            let mut vector = vec![0.0; weight.rows];
            vector.iter_mut().enumerate().for_each(|(row, x)| weight.read_row(row, std::slice::from_mut(x)));
            weight.vector = vector;
        }
        Ok(weight)
    }

    /// The elements of a vector.
    pub fn vector(&self) -> &[f32] {
        &self.vector
    }

    /// Row `row` as f32; zeros where there is no such row.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        let part = self.parts.iter().find(|part| (part.first..part.first + part.rows).contains(&row));
        debug_assert!(part.is_some(), "no row {row} among {}", self.rows);
        match part {
            Some(part) => part.read_row(row - part.first, out),
            None => out.fill(0.0),
        }
    }
}

impl Part {
    /// Row `row` of this part as f32; `out` is as long as a row.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        let bytes = out.len() * self.view.dtype.size();
        unpack(self.view.dtype, &self.view.bytes()[row * bytes..][..bytes], out);
    }
}

/// Little-endian `bytes` as f32.
fn unpack(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        Dtype::Bf16 => unpack_each(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
        Dtype::F16 => unpack_each(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::F32 => unpack_each(bytes, out, f32::from_le_bytes),
    }
}

#[inline]
fn unpack_each<const N: usize>(bytes: &[u8], out: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
    let (elements, _) = bytes.as_chunks::<N>();
    for (out, element) in out.iter_mut().zip(elements) {
        *out = convert(*element);
    }
}
