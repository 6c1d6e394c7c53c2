//! Rotary position embedding in the halves convention, with the norms of query and key heads.

use std::sync::OnceLock;

use super::elementwise::rms_norm;
use super::isa::Kernel;
use super::simd::Simd;
use super::weight::Weight;
use crate::device::{HeadNorms, Heads, NormScope};

/// Positions per page of the table.
const PAGE: usize = 64;
/// The largest table, in bytes. Later positions are computed each time they are used.
const TABLE_BYTES: usize = 4 << 20;

/// Sines and cosines, tabulated when a position first occurs.
pub struct Rope {
    inverse_frequencies: Vec<f32>,
    scale: f32,
    pages: Vec<OnceLock<Box<[f32]>>>,
}

impl Rope {
    /// Frequencies `[head_dim / 2]`; sine and cosine are multiplied by `scale`.
    pub fn new(inverse_frequencies: &[f32], scale: f32) -> Self {
        let page_bytes = PAGE * inverse_frequencies.len().max(1) * 2 * size_of::<f32>();
        let mut pages = Vec::new();
        pages.resize_with(TABLE_BYTES / page_bytes, OnceLock::new);
        Self { inverse_frequencies: inverse_frequencies.to_vec(), scale, pages }
    }

    /// `[2, head_dim / 2]`: the cosines and the sines of a position.
    fn angles<'a>(&'a self, position: u32, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        let width = 2 * self.inverse_frequencies.len();
        let (page, row) = (position as usize / PAGE, position as usize % PAGE);
        if let Some(cell) = self.pages.get(page) {
            return &cell.get_or_init(|| self.page(page))[row * width..][..width];
        }
        scratch.resize(width, 0.0);
        self.compute(position, scratch);
        scratch
    }

    fn page(&self, page: usize) -> Box<[f32]> {
        let width = 2 * self.inverse_frequencies.len();
        let mut table = vec![0.0; PAGE * width];
        for (row, angles) in table.chunks_exact_mut(width.max(1)).enumerate() {
            self.compute((page * PAGE + row) as u32, angles);
        }
        table.into()
    }

    /// Computes in f32 throughout, as transformers does.
    fn compute(&self, position: u32, angles: &mut [f32]) {
        let (cosines, sines) = angles.split_at_mut(self.inverse_frequencies.len());
        for ((cosine, sine), frequency) in cosines.iter_mut().zip(sines).zip(&self.inverse_frequencies) {
            let angle = position as f32 * frequency;
            (*cosine, *sine) = (angle.cos() * self.scale, angle.sin() * self.scale);
        }
    }
}

/// Normalizes (if there are norms) and rotates the queries and keys of one token.
pub struct Rotate<'a> {
    /// The frequencies.
    pub rope: &'a Rope,
    /// The token's position.
    pub position: u32,
    /// The layout of `qkv`.
    pub heads: Heads,
    /// The norms of queries and keys.
    pub norms: Option<&'a HeadNorms<Weight>>,
    /// `[qkv_width]`
    pub qkv: &'a mut [f32],
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let mut scratch = vec![];
        let angles = self.rope.angles(self.position, &mut scratch);
        let (queries, rest) = self.qkv.split_at_mut(self.heads.query_width());
        let keys = &mut rest[..self.heads.key_value * self.heads.dim];
        if let Some(HeadNorms { scope, query, key }) = self.norms {
            for (part, norm) in [(&mut *queries, query), (&mut *keys, key)] {
                let spanned = match scope {
                    NormScope::Head => self.heads.dim,
                    NormScope::Projection => part.len(),
                };
                part.chunks_exact_mut(spanned).for_each(|row| rms_norm::<S>(row, norm));
            }
        }
        for part in [queries, keys] {
            part.chunks_exact_mut(self.heads.dim).for_each(|head| rotate(head, angles));
        }
    }
}

/// Rotates the pairs `(i, i + dim / 2)` of a head.
#[inline(always)]
fn rotate(head: &mut [f32], angles: &[f32]) {
    let (cosines, sines) = angles.split_at(angles.len() / 2);
    let (first, second) = head.split_at_mut(angles.len() / 2);
    for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
        (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
    }
}
