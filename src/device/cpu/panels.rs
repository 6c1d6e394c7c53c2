//! Matrices in the order in which a product reads them, in the numbers in which they are stored.
//!
//! A panel has [`LANES`] outputs, one in each lane of a register, so that no sum runs across lanes. Its columns follow
//! one another in steps of two.

use std::marker::PhantomData;

use bytemuck::Pod;

use super::arena::{Arena, Piece};
use super::math::f16_to_f32;
use super::simd::{LANES, Pairs, Simd};
use super::tile::Tile;
use crate::device::number::e4m3::E4m3;
use crate::error::Result;

/// Two columns of a panel.
pub trait Step: Pod {
    /// A number as it is stored.
    type Number: Pod;

    /// Sets the number of column `column` and output `output`.
    fn set(&mut self, column: usize, output: usize, number: Self::Number);
    /// The number of column `column` and output `output`.
    fn get(&self, column: usize, output: usize) -> f32;
    /// Both columns.
    fn widen<S: Simd>(&self) -> [S::Lanes; 2];
}

/// A matrix `[rows, columns]` as panels of [`LANES`] rows. Missing rows and columns are zero.
pub struct Panels<T> {
    piece: Piece,
    /// Steps of a panel.
    steps: usize,
    of: PhantomData<T>,
}

impl<T: Step> Panels<T> {
    /// Lays out a row-major matrix, given its `bytes`.
    ///
    /// # Errors
    /// If the system refuses the memory.
    pub fn new(arena: &Arena, bytes: &[u8], columns: usize) -> Result<Self> {
        let (number, steps) = (size_of::<T::Number>(), columns.div_ceil(2));
        let panel_bytes = LANES * columns * number;
        let panels = bytes.len().div_ceil(panel_bytes);
        let tiles = (panels * steps * size_of::<T>()).div_ceil(size_of::<Tile>());
        let mut matrix = Self { piece: arena.take(tiles)?, steps, of: PhantomData };
        let all: &mut [T] = bytemuck::cast_slice_mut(&mut matrix.piece);
        for (panel, bytes) in all.chunks_exact_mut(steps).zip(bytes.chunks(panel_bytes)) {
            for (output, row) in bytes.chunks_exact(columns * number).enumerate() {
                for (step, pair) in panel.iter_mut().zip(row.chunks(2 * number)) {
                    for (column, number) in pair.chunks_exact(number).enumerate() {
                        step.set(column, output, bytemuck::pod_read_unaligned(number));
                    }
                }
            }
        }
        Ok(matrix)
    }

    /// The steps of panel `index`.
    #[inline(always)]
    pub fn panel(&self, index: usize) -> &[T] {
        &bytemuck::cast_slice(&self.piece)[index * self.steps..][..self.steps]
    }

    /// Reads row `row` as f32.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        for (step, out) in self.panel(row / LANES).iter().zip(out.chunks_mut(2)) {
            for (column, out) in out.iter_mut().enumerate() {
                *out = step.get(column, row % LANES);
            }
        }
    }
}

/// bf16: the columns of an output lie beside one another.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Bf16Step(pub Pairs);

impl Step for Bf16Step {
    type Number = u16;

    #[inline(always)]
    fn set(&mut self, column: usize, output: usize, number: u16) {
        self.0[output] |= u32::from(number) << (16 * column);
    }

    #[inline(always)]
    fn get(&self, column: usize, output: usize) -> f32 {
        f32::from_bits(self.0[output] >> (16 * column) << 16)
    }

    #[inline(always)]
    fn widen<S: Simd>(&self) -> [S::Lanes; 2] {
        S::widen(&self.0)
    }
}

/// Two columns, one after the other, of numbers that are converted one by one.
macro_rules! columns_of {
    ($name:ident, $number:ty, $convert:expr) => {
        #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(transparent)]
        pub struct $name([[$number; LANES]; 2]);

        impl Step for $name {
            type Number = $number;

            #[inline(always)]
            fn set(&mut self, column: usize, output: usize, number: $number) {
                self.0[column][output] = number;
            }

            #[inline(always)]
            fn get(&self, column: usize, output: usize) -> f32 {
                ($convert)(self.0[column][output])
            }

            #[inline(always)]
            fn widen<S: Simd>(&self) -> [S::Lanes; 2] {
                [S::load(&self.0[0].map($convert)), S::load(&self.0[1].map($convert))]
            }
        }
    };
}

columns_of!(F32Step, f32, |number| number);
columns_of!(F16Step, u16, f16_to_f32);
columns_of!(E4m3Step, E4m3, E4m3::to_f32);
