//! Matrices of bf16 as AMX reads them: tiles of 16 rows x 64 bytes, in the order of the products.

use super::arena::{Arena, Piece};
use super::tile::{SIDE, Tile};
use crate::error::Result;

/// Columns of a weight tile.
pub const DEPTH: usize = 32;
/// Weight tiles of a step: they are multiplied with the same activation tile.
pub const STEP: usize = 4;
/// Outputs of a panel.
pub const OUTPUTS: usize = STEP * SIDE;

/// A matrix `[rows, columns]` as panels of [`OUTPUTS`] rows, a panel as steps of [`DEPTH`] columns, a step as
/// [`STEP`] tiles. Missing rows and columns are zero.
pub struct Matrix {
    tiles: Piece,
    /// Tiles of a panel.
    panel: usize,
}

impl Matrix {
    /// Lays out a row-major matrix, given its `bytes`.
    pub fn new(arena: &Arena, bytes: &[u8], columns: usize) -> Result<Self> {
        let (panel, stride) = (columns.div_ceil(DEPTH) * STEP, 2 * columns);
        let panels = bytes.len().div_ceil(OUTPUTS * stride);
        let mut matrix = Self { tiles: arena.take(panels * panel)?, panel };
        for (tiles, bytes) in matrix.tiles.chunks_exact_mut(panel).zip(bytes.chunks(OUTPUTS * stride)) {
            for (row, bytes) in bytes.chunks_exact(stride).enumerate() {
                let pieces = tiles[row / SIDE..].iter_mut().step_by(STEP).zip(bytes.chunks(2 * DEPTH));
                for (tile, piece) in pieces {
                    bytemuck::bytes_of_mut(&mut tile.0[row % SIDE])[..piece.len()].copy_from_slice(piece);
                }
            }
        }
        Ok(matrix)
    }

    /// The tiles of the rows from `first`, a multiple of [`OUTPUTS`].
    pub fn panel(&self, first: usize) -> &[Tile] {
        &self.tiles[first / OUTPUTS * self.panel..][..self.panel]
    }

    /// The bytes of a row, [`DEPTH`] columns at a time.
    pub fn row(&self, row: usize) -> impl Iterator<Item = &[u8; 2 * DEPTH]> {
        let tiles = self.panel(row)[row % OUTPUTS / SIDE..].iter().step_by(STEP);
        tiles.map(move |tile| bytemuck::cast_ref(&tile.0[row % SIDE]))
    }
}
