//! The twin of `amx.rs` where there are no such tiles.

#![allow(clippy::unused_self, clippy::ptr_arg, reason = "the twin's signatures")]

use std::marker::PhantomData;

pub const SIDE: usize = 16;
pub const OUTPUTS: usize = 4 * SIDE;
pub const PARTS: usize = 3;
pub const STEP_BYTES: usize = 64;

pub const fn steps(columns: usize) -> usize {
    columns
}

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

    pub fn multiply(self, _: &Panel<'_>, _: &[Tile], _: bool, _: &mut Products) {}

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

pub struct Panel<'a>(PhantomData<&'a [u8]>);

impl<'a> Panel<'a> {
    pub fn in_place(_: &'a [u8], _: usize) -> Self {
        Self(PhantomData)
    }

    pub fn packed(_: &[u8], _: usize, _: std::ops::Range<usize>, _: &'a mut Vec<u8>) -> Self {
        Self(PhantomData)
    }
}
