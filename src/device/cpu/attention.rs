//! Attention of each token over its sequence's cached keys and values, in the order of positions.

use rayon::prelude::*;

use super::elementwise::dot;
use super::{Cache, Tensor};
use crate::device::{Batch, Heads, Span};
use crate::ids::BlockId;

/// What does not change from token to token.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Query and key/value heads.
    pub heads: Heads,
    /// Of the products of queries and keys.
    pub scale: f32,
    /// How many positions a token sees, its own included.
    pub window: Option<usize>,
    /// The cache's layer.
    pub layer: usize,
}

/// See [`crate::device::Device::attention`].
pub fn attention(batch: &Batch, shape: Shape, qkv: &Tensor, cache: &Cache, out: &mut Tensor) {
    let width = out.width;
    let spans: Vec<&Span> =
        batch.spans.iter().flat_map(|span| span.tokens.clone().map(move |_| span)).collect();
    out.rows_mut(batch.tokens.len()).par_chunks_exact_mut(width).enumerate().for_each(|(token, out)| {
        let position = batch.positions[token] as usize;
        let blocks = &batch.blocks[spans[token].blocks.clone()];
        let dim = shape.heads.dim;
        let group = shape.heads.query / shape.heads.key_value;
        for head in 0..shape.heads.query {
            let query = &qkv.row(token)[head * dim..][..dim];
            let view = View { cache, layer: shape.layer, head: head / group, blocks, dim };
            attend(shape, &view, position, query, &mut out[head * dim..][..dim]);
        }
    });
}

/// One key/value head of one sequence.
struct View<'a> {
    cache: &'a Cache,
    layer: usize,
    head: usize,
    blocks: &'a [BlockId],
    dim: usize,
}

impl View<'_> {
    fn key(&self, position: usize) -> &[f32] {
        let size = self.cache.block_size();
        let keys = self.cache.keys(self.layer, self.blocks[position / size], self.head);
        &keys[position % size * self.dim..][..self.dim]
    }

    fn value(&self, position: usize) -> &[f32] {
        let size = self.cache.block_size();
        let values = self.cache.values(self.layer, self.blocks[position / size], self.head);
        &values[position % size * self.dim..][..self.dim]
    }
}

fn attend(shape: Shape, view: &View<'_>, position: usize, query: &[f32], out: &mut [f32]) {
    let first = shape.window.map_or(0, |window| (position + 1).saturating_sub(window));
    let mut weights: Vec<f32> = (first..=position).map(|at| dot(query, view.key(at)) * shape.scale).collect();
    let max = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    weights.iter_mut().for_each(|w| *w = (*w - max).exp());
    let sum: f32 = weights.iter().sum();
    out.fill(0.0);
    for (at, weight) in (first..).zip(&weights) {
        out.iter_mut().zip(view.value(at)).for_each(|(out, v)| *out += weight * v);
    }
    out.iter_mut().for_each(|out| *out /= sum);
}
