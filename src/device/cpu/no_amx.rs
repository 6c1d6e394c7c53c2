//! The twin of `amx.rs` where there are no such tiles.

#![allow(clippy::unused_self, reason = "the twin's signatures")]

use super::tile::{SIDE, Tile};
use super::tiles::OUTPUTS;

#[derive(Debug, Clone, Copy)]
pub enum Amx {}

pub struct Products;

pub struct Ahead;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    Rounded,
    Exact,
}

impl Amx {
    pub fn detect() -> Option<Self> {
        None
    }

    pub fn tiles(_: usize, _: Parts) -> usize {
        0
    }

    pub fn pack<'a>(self, _: impl Fn(usize) -> &'a [f32], _: usize, _: usize, _: Parts, _: &mut [Tile]) {}

    pub fn multiply(self, _: &[Tile], _: &[Tile], _: Parts, _: Ahead, _: &mut Products) {}

    pub const OPERATIONS: usize = 0;

    pub fn multiply_zeros(self, _: usize) {}

    pub fn configured<T>(self, work: impl FnOnce() -> T) -> T {
        work()
    }
}

impl Products {
    pub fn new() -> Self {
        Self
    }

    pub fn by_row(&self, _: Amx, _: &mut [[f32; OUTPUTS]; SIDE]) {}
}

impl Ahead {
    pub fn share(_: &[Tile], _: usize, _: usize) -> Self {
        Self
    }
}
