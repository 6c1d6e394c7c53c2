//! Attention of each token over its sequence's cached keys and values, summed in the order of positions: neither the
//! other tokens of the batch nor the size of a block change a number.

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use super::isa::Kernel;
use super::math::{LANES, exp, max, mul_add, sum};
use super::{Cache, Path, Tensor};
use crate::device::{Batch, Heads, Span};
use crate::ids::BlockId;

thread_local! {
    /// Room for one group's products, kept from one token to the next.
    static WEIGHTS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

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
pub fn attention(path: Path, batch: &Batch, shape: Shape, qkv: &Tensor, cache: &Cache, out: &mut Tensor) {
    let spans: Vec<&Span> =
        batch.spans.iter().flat_map(|span| span.tokens.clone().map(move |_| span)).collect();
    let (heads, width) = (shape.heads, out.width);
    let group = heads.query / heads.key_value * heads.dim;
    let tokens = out.rows_mut(batch.tokens.len());
    // Cut by token and by key/value head: a task is one group of query heads.
    let tasks = tokens.par_chunks_exact_mut(width).enumerate().flat_map(|(token, out)| {
        out[..heads.query_width()]
            .par_chunks_exact_mut(group)
            .enumerate()
            .map(move |(head, out)| (token, head, out))
    });
    tasks.for_each(|(token, head, out)| {
        let mut weights = WEIGHTS.take();
        path.isa.run(Group {
            shape,
            keys: Keys {
                cache,
                layer: shape.layer,
                head,
                blocks: &batch.blocks[spans[token].blocks.clone()],
            },
            position: batch.positions[token] as usize,
            queries: &qkv.row(token)[head * group..][..group],
            weights: &mut weights,
            out,
        });
        WEIGHTS.set(weights);
    });
}

/// One key/value head of one sequence.
struct Keys<'a> {
    cache: &'a Cache,
    layer: usize,
    head: usize,
    blocks: &'a [BlockId],
}

/// The query heads of one token that share a key/value head.
struct Group<'a> {
    shape: Shape,
    keys: Keys<'a>,
    position: usize,
    /// `[group, dim]`
    queries: &'a [f32],
    weights: &'a mut Vec<f32>,
    /// `[group, dim]`
    out: &'a mut [f32],
}

impl Kernel for Group<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let first = self.shape.window.map_or(0, |window| (self.position + 1).saturating_sub(window));
        let seen = first..self.position + 1;
        let dim = self.shape.heads.dim;
        let group = self.queries.len() / dim;
        self.weights.clear();
        self.weights.resize(group * seen.len(), 0.0);
        for (query, weights) in self.queries.chunks_exact(dim).zip(self.weights.chunks_exact_mut(seen.len()))
        {
            self.keys.products::<FMA>(query, seen.clone(), weights);
            softmax::<FMA>(weights, self.shape.scale);
        }
        for (weights, out) in self.weights.chunks_exact(seen.len()).zip(self.out.chunks_exact_mut(dim)) {
            self.keys.weighted::<FMA>(weights, seen.clone(), out);
        }
    }
}

impl Keys<'_> {
    /// `seen` cut by blocks: each block, and which of its slots.
    #[inline(always)]
    fn runs(&self, seen: Range<usize>) -> impl Iterator<Item = (BlockId, Range<usize>)> {
        let size = self.cache.block_size();
        (seen.start / size..seen.end.div_ceil(size)).map(move |index| {
            let first = index * size;
            (self.blocks[index], seen.start.saturating_sub(first)..size.min(seen.end - first))
        })
    }

    /// The query times each key of `seen`.
    #[inline(always)]
    fn products<const FMA: bool>(&self, query: &[f32], seen: Range<usize>, mut out: &mut [f32]) {
        let size = self.cache.block_size();
        for (block, slots) in self.runs(seen) {
            let keys = self.cache.keys(self.layer, block, self.head);
            let (now, later) = out.split_at_mut(slots.len());
            out = later;
            if slots.len() == LANES && size == LANES {
                now.copy_from_slice(&products_of_lanes::<FMA>(query, keys));
                continue;
            }
            for (&q, keys) in query.iter().zip(keys.chunks_exact(size)) {
                for (product, key) in now.iter_mut().zip(&keys[slots.clone()]) {
                    *product = mul_add::<FMA>(q, *key, *product);
                }
            }
        }
    }

    /// The values of `seen`, weighted and summed.
    #[inline(always)]
    fn weighted<const FMA: bool>(&self, mut weights: &[f32], seen: Range<usize>, out: &mut [f32]) {
        out.fill(0.0);
        for (block, slots) in self.runs(seen) {
            let values = self.cache.values(self.layer, block, self.head);
            let (now, later) = weights.split_at(slots.len());
            weights = later;
            for (at, columns) in out.chunks_mut(4 * LANES).enumerate() {
                let rows = values.chunks_exact(self.cache.head_dim()).skip(slots.start);
                let width = columns.len();
                let rows = now.iter().zip(rows.map(|row| &row[at * 4 * LANES..][..width]));
                match <&mut [f32; 4 * LANES]>::try_from(&mut *columns) {
                    Ok(columns) => weigh::<FMA>(rows, columns),
                    Err(_) => rows.for_each(|(weight, row)| {
                        columns
                            .iter_mut()
                            .zip(row)
                            .for_each(|(sum, v)| *sum = mul_add::<FMA>(*weight, *v, *sum));
                    }),
                }
            }
        }
    }
}

/// A whole block of [`LANES`] keys, `[dim, LANES]`, in one register.
#[inline(always)]
fn products_of_lanes<const FMA: bool>(query: &[f32], keys: &[f32]) -> [f32; LANES] {
    let mut products = [0.0; LANES];
    for (&q, keys) in query.iter().zip(keys.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            products[lane] = mul_add::<FMA>(q, keys[lane], products[lane]);
        }
    }
    products
}

/// Sums kept in registers over a run of rows.
#[inline(always)]
fn weigh<'a, const FMA: bool>(rows: impl Iterator<Item = (&'a f32, &'a [f32])>, out: &mut [f32; 4 * LANES]) {
    let mut sums = *out;
    for (weight, row) in rows {
        let Some(row) = row.first_chunk::<{ 4 * LANES }>() else { continue };
        for lane in 0..4 * LANES {
            sums[lane] = mul_add::<FMA>(*weight, row[lane], sums[lane]);
        }
    }
    *out = sums;
}

/// In place, of the scaled products.
#[inline(always)]
fn softmax<const FMA: bool>(products: &mut [f32], scale: f32) {
    products.iter_mut().for_each(|p| *p *= scale);
    let max = max(products);
    products.iter_mut().for_each(|p| *p = exp::<FMA>(*p - max));
    let inverse = 1.0 / sum(products);
    products.iter_mut().for_each(|p| *p *= inverse);
}
