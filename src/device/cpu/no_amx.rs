//! The twin of `amx.rs` where there are no such tiles.

pub const SIDE: usize = 16;
pub const OUTPUTS: usize = 4 * SIDE;

#[derive(Debug, Clone, Copy)]
pub enum Amx {}

#[derive(Clone, Copy)]
pub struct Tile;

impl Tile {
    pub const ZERO: Self = Self;
}

pub struct Products;

impl Amx {
    pub fn detect() -> Option<Self> {
        None
    }

    pub fn tiles(_: usize) -> usize {
        0
    }

    pub fn pack<'a>(self, _: impl Fn(usize) -> &'a [f32], _: usize, _: usize, _: &mut [Tile]) {}

    pub fn multiply(self, _: &[u8], _: usize, _: &[Tile], _: &mut Products) {}

    pub fn configured<T>(self, work: impl FnOnce() -> T) -> T {
        work()
    }
}

impl Products {
    pub fn new() -> Self {
        Self
    }

    pub fn by_row(&self, _: Amx, _: usize) -> [[f32; SIDE]; SIDE] {
        [[0.0; SIDE]; SIDE]
    }
}
