//! A tile of a bf16 matrix, as the tile registers load it.

use bytemuck::{Pod, Zeroable};

/// Rows of a tile: outputs of a weight tile, batch rows of an activation tile.
pub const SIDE: usize = 16;

/// A tile of 1 KB, as the tile registers load it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Tile(pub [[u32; SIDE]; SIDE]);
