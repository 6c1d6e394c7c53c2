//! Weights. Matrices are laid out once, in the order in which their products read them.

use half::bf16;

use super::arena::Arena;
use super::math::f16_to_f32;
use super::panels::{Bf16Step, E4m3Step, F16Step, F32Step, Panels};
use super::pool::ThreadPool;
use super::tile::Tile;
use super::tiles::{DEPTH, Matrix};
use crate::checkpoint::Bytes;
use crate::device::number::e4m3::E4m3;
use crate::device::number::quantize;
use crate::device::{Dtype, TensorView};
use crate::error::{Error, Result};

/// A vector or a matrix `[rows, columns]`, possibly of several parts joined along the rows. A vector is also held as
/// f32, which takes a few KB.
pub struct Weight {
    /// The matrices, top to bottom; a vector is a matrix of one column.
    pub parts: Vec<Part>,
    /// Rows of all parts together.
    pub rows: usize,
    /// Columns of every part.
    pub columns: usize,
    /// The elements of a vector.
    vector: Vec<f32>,
}

/// One checkpoint tensor as a matrix.
pub struct Part {
    pub source: Source,
    /// The row of the joined matrix at which this part begins.
    pub first: usize,
    /// Rows of this part.
    pub rows: usize,
    /// Whether rows are rounded to bf16 before they are multiplied with it.
    pub rounds_rows: bool,
    /// `[rows]`: the scale of each row, if the matrix was rounded to e4m3; otherwise empty.
    pub scales: Vec<f32>,
}

/// Where the numbers of a part are.
pub enum Source {
    /// A vector, or a matrix without columns, in the mapped file.
    File(TensorView),
    /// Tiles of bf16, which represents every e4m3 number.
    Tiles(Matrix),
    Bf16(Panels<Bf16Step>),
    F16(Panels<F16Step>),
    F32(Panels<F32Step>),
    /// Numbers that were rounded.
    E4m3(Panels<E4m3Step>),
}

/// How matrices are laid out.
#[derive(Clone, Copy)]
pub struct Layout<'a> {
    pub arena: &'a Arena,
    /// The threads that round them.
    pub pool: &'a ThreadPool,
    /// Whether bf16 matrices become tiles.
    pub tiles: bool,
}

impl Weight {
    /// Joins the matrices or vectors `parts` along the rows. `to` is [`Dtype::F8E4m3`] or [`Dtype::Bf16`], to which
    /// matrices are rounded; with others they stay as they are stored.
    pub fn new(parts: &[TensorView], to: Dtype, layout: Layout<'_>) -> Result<Self> {
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
            let view = &if to == Dtype::Bf16 { in_bf16(view) } else { view.clone() };
            let (source, scales) = if to == Dtype::F8E4m3 {
                Source::rounded(view, layout, columns)?
            } else {
                (Source::stored(view, layout, columns)?, Vec::new())
            };
            let rounds_rows = to == Dtype::Bf16;
            weight.parts.push(Part { source, first: weight.rows, rows, rounds_rows, scales });
            weight.rows += rows;
        }
        if columns == 1 {
            let mut vector = vec![0.0; weight.rows];
            vector.iter_mut().enumerate().for_each(|(row, x)| weight.read_row(row, std::slice::from_mut(x)));
            weight.vector = vector;
        }
        Ok(weight)
    }

    /// Bytes of all parts.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.rows * self.columns * part.dtype().size()).sum()
    }

    /// A weight of random numbers drawn from `seed`; `to` as in [`Weight::new`].
    pub fn random(shape: &[usize], seed: u64, to: Dtype, layout: Layout<'_>) -> Result<Self> {
        let count: usize = shape.iter().product();
        let (bound, offset) = match shape {
            [_, .., columns] => ((3.0 / *columns as f32).sqrt(), 0.0),
            _ => (0.0, 1.0),
        };
        let value = |index: usize| offset + bound * uniform(seed, index as u64);
        let bytes: Vec<u8> = (0..count).flat_map(|i| bf16::from_f32(value(i)).to_le_bytes()).collect();
        let (matrices, shape) = if let [matrices, shape @ ..] = shape
            && shape.len() > 1
        {
            (*matrices, shape)
        } else {
            (1, shape)
        };
        let (each, file) = (bytes.len() / matrices.max(1), Bytes::Owned(bytes.into()));
        let view = |index: usize| TensorView {
            name: "random".to_owned(),
            dtype: Dtype::Bf16,
            shape: shape.to_vec(),
            file: file.clone(),
            range: index * each..(index + 1) * each,
        };
        Self::new(&(0..matrices).map(view).collect::<Vec<_>>(), to, layout)
    }

    /// Whether rows are rounded to bf16 before they are multiplied with it.
    pub fn rounds_rows(&self) -> bool {
        self.parts.iter().any(|part| part.rounds_rows)
    }

    /// The elements of a vector.
    pub fn vector(&self) -> &[f32] {
        &self.vector
    }

    /// Reads row `row` as f32; zeros if there is no such row.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        let part = self.parts.iter().find(|part| (part.first..part.first + part.rows).contains(&row));
        debug_assert!(part.is_some(), "no row {row} among {}", self.rows);
        match part {
            Some(part) => {
                part.read_row(row - part.first, out);
                if let Some(scale) = part.scales.get(row - part.first) {
                    for x in out {
                        *x *= scale;
                    }
                }
            }
            None => out.fill(0.0),
        }
    }
}

/// The tensor with its numbers rounded to bf16, if it is a matrix of others.
fn in_bf16(view: &TensorView) -> TensorView {
    let rounded: Vec<u8> = match view.dtype {
        Dtype::F32 if view.shape.len() > 1 => bf16_bytes(view.bytes(), f32::from_le_bytes),
        Dtype::F16 if view.shape.len() > 1 => {
            bf16_bytes(view.bytes(), |half| f16_to_f32(u16::from_le_bytes(half)))
        }
        _ => return view.clone(),
    };
    view.file.forget(view.range.clone());
    TensorView {
        dtype: Dtype::Bf16,
        range: 0..rounded.len(),
        file: Bytes::Owned(rounded.into()),
        ..view.clone()
    }
}

fn bf16_bytes<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<u8> {
    let (numbers, _) = bytes.as_chunks::<N>();
    numbers.iter().flat_map(|bytes| bf16::from_f32(number(*bytes)).to_le_bytes()).collect()
}

impl Source {
    fn stored(view: &TensorView, Layout { arena, tiles, .. }: Layout<'_>, columns: usize) -> Result<Self> {
        if view.shape.len() < 2 || columns == 0 {
            return Ok(Self::File(view.clone()));
        }
        let bytes = view.bytes();
        let matrix = match view.dtype {
            Dtype::Bf16 if tiles => Self::Tiles(Matrix::new(arena, bytes, columns)?),
            Dtype::Bf16 => Self::Bf16(Panels::new(arena, bytes, columns)?),
            Dtype::F16 => Self::F16(Panels::new(arena, bytes, columns)?),
            Dtype::F32 => Self::F32(Panels::new(arena, bytes, columns)?),
            Dtype::F8E4m3 => Self::E4m3(Panels::new(arena, bytes, columns)?),
        };
        view.file.forget(view.range.clone());
        Ok(matrix)
    }

    /// Rounds a matrix; also returns the scale of each row.
    fn rounded(
        view: &TensorView,
        Layout { arena, pool, tiles }: Layout<'_>,
        columns: usize,
    ) -> Result<(Self, Vec<f32>)> {
        let (numbers, scales) =
            quantize::quantize_matrix(view, |pieces, round| pool.for_each(pieces.into_iter(), round));
        view.file.forget(view.range.clone());
        if !tiles {
            return Ok((Self::E4m3(Panels::new(arena, bytemuck::cast_slice(&numbers), columns)?), scales));
        }
        let widened: Vec<bf16> = numbers.iter().map(|x| bf16::from_f32(x.to_f32())).collect();
        Ok((Self::Tiles(Matrix::new(arena, bytemuck::cast_slice(&widened), columns)?), scales))
    }
}

impl Part {
    fn dtype(&self) -> Dtype {
        match &self.source {
            Source::File(view) => view.dtype,
            Source::Tiles(_) | Source::Bf16(_) => Dtype::Bf16,
            Source::F16(_) => Dtype::F16,
            Source::F32(_) => Dtype::F32,
            Source::E4m3(_) => Dtype::F8E4m3,
        }
    }

    /// The tiles of the rows from `first` on, if the part is laid out in tiles.
    pub fn panel(&self, first: usize) -> Option<&[Tile]> {
        match &self.source {
            Source::Tiles(matrix) => Some(matrix.panel(first)),
            _ => None,
        }
    }

    /// Reads row `row` of this part as f32, in units of its scale if it has one. `out` is as long as a row.
    #[inline(always)]
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        let bf16 = |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16);
        let view = match &self.source {
            Source::File(view) => view,
            Source::Tiles(matrix) => {
                return out
                    .chunks_mut(DEPTH)
                    .zip(matrix.row(row))
                    .for_each(|(out, bytes)| unpack(bytes, out, bf16));
            }
            Source::Bf16(matrix) => return matrix.read_row(row, out),
            Source::F16(matrix) => return matrix.read_row(row, out),
            Source::F32(matrix) => return matrix.read_row(row, out),
            Source::E4m3(matrix) => return matrix.read_row(row, out),
        };
        let row_bytes = out.len() * view.dtype.size();
        let bytes = &view.bytes()[row * row_bytes..][..row_bytes];
        match view.dtype {
            Dtype::Bf16 => unpack(bytes, out, bf16),
            Dtype::F16 => unpack(bytes, out, |b| f16_to_f32(u16::from_le_bytes(b))),
            Dtype::F32 => unpack(bytes, out, f32::from_le_bytes),
            Dtype::F8E4m3 => unpack(bytes, out, |[byte]| E4m3(byte).to_f32()),
        }
    }
}

#[inline(always)]
fn unpack<const N: usize>(bytes: &[u8], out: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
    let (elements, _) = bytes.as_chunks::<N>();
    for (out, element) in out.iter_mut().zip(elements) {
        *out = convert(*element);
    }
}

/// A number in `-1..1` that depends on `seed` and `index` alone (the finalizer of splitmix64).
fn uniform(seed: u64, index: u64) -> f32 {
    let mut z = seed.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}
