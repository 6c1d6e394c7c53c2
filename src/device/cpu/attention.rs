//! Attention of each token over its sequence's cached keys and values. Sums are in the order of positions, so the
//! other tokens of the batch and the size of a block change no number.

use std::cell::Cell;
use std::ops::Range;

use super::cache::Cache;
use super::cache::{Element, Page, Pages};
use super::isa::Kernel;
use super::math::{exp, max, sum};
use super::path::{PARALLEL, Path};
use super::simd::Simd;
use super::simd::{LANES, mul_add};
use super::tensor::Tensor;
use crate::device::{AttentionShape, Batch, Span};
use crate::ids::BlockId;

thread_local! {
    /// The products of one group; the memory is reused by the next token.
    static WEIGHTS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// See [`crate::device::Device::attention`].
pub fn attention(
    path: Path<'_>,
    batch: &Batch,
    shape: AttentionShape,
    qkv: &Tensor,
    cache: &Cache,
    out: &mut Tensor,
) {
    let kind = shape.layer.kind;
    match cache {
        Cache::F32(pages) => attend(path, batch, shape, qkv, &pages[kind], out),
        Cache::E4m3(pages) => attend(path, batch, shape, qkv, &pages[kind], out),
    }
}

fn attend<E: Element>(
    path: Path<'_>,
    batch: &Batch,
    shape: AttentionShape,
    qkv: &Tensor,
    cache: &Pages<E>,
    out: &mut Tensor,
) {
    let spans: Vec<&Span> =
        batch.spans.iter().flat_map(|span| span.tokens.clone().map(move |_| span)).collect();
    let (heads, width) = (shape.heads, out.width);
    let group = heads.query / heads.key_value * heads.dim;
    let attend = |token: usize, head: usize, out: &mut [f32]| {
        let mut weights = WEIGHTS.take();
        path.isa.run(Group {
            shape,
            keys: Keys {
                cache,
                layer: shape.layer.index,
                head,
                blocks: batch.table(shape.layer.kind, spans[token]),
            },
            position: batch.positions[token] as usize,
            queries: &qkv.row(token)[head * group..][..group],
            weights: &mut weights,
            out,
        });
        WEIGHTS.set(weights);
    };
    // The work is cut by token and by key/value head: a task is one group of query heads.
    let tokens = out.rows_mut(batch.tokens.len()).chunks_exact_mut(width).enumerate();
    let groups = tokens.flat_map(|(token, out)| {
        let groups = out[..heads.query_width()].chunks_exact_mut(group).enumerate();
        groups.map(move |(head, out)| (token, head, out))
    });
    let seen: usize = batch.positions.iter().map(|position| *position as usize + 1).sum();
    if seen * heads.key_value * heads.dim < PARALLEL {
        groups.for_each(|(token, head, out)| attend(token, head, out));
    } else {
        path.pool.for_each(groups, |(token, head, out)| attend(token, head, out));
    }
}

/// One key/value head of one sequence.
struct Keys<'a, E> {
    cache: &'a Pages<E>,
    layer: usize,
    head: usize,
    blocks: &'a [BlockId],
}

/// The query heads of one token that share a key/value head.
struct Group<'a, E> {
    shape: AttentionShape,
    keys: Keys<'a, E>,
    position: usize,
    /// `[group, dim]`
    queries: &'a [f32],
    weights: &'a mut Vec<f32>,
    /// `[group, dim]`
    out: &'a mut [f32],
}

impl<E: Element> Kernel for Group<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self) {
        let heads = self.queries.len() / self.shape.heads.dim;
        for first in (0..heads).step_by(4) {
            match heads - first {
                1 => self.heads::<S, 1>(first),
                2 => self.heads::<S, 2>(first),
                3 => self.heads::<S, 3>(first),
                _ => self.heads::<S, 4>(first),
            }
        }
    }
}

impl<E: Element> Group<'_, E> {
    /// `G` query heads, which share each reading of keys and values.
    #[inline(always)]
    fn heads<S: Simd, const G: usize>(&mut self, first: usize) {
        let dim = self.shape.heads.dim;
        let start = self.shape.window.map_or(0, |window| (self.position + 1).saturating_sub(window));
        let seen = start..self.position + 1;
        self.weights.clear();
        self.weights.resize(G * seen.len(), 0.0);
        let queries = std::array::from_fn(|head| &self.queries[(first + head) * dim..][..dim]);
        self.keys.products::<S, G>(queries, seen.clone(), self.weights);
        let mut inverses = [0.0; G];
        for (inverse, weights) in inverses.iter_mut().zip(self.weights.chunks_exact_mut(seen.len())) {
            *inverse = 1.0 / exponentials::<S>(weights, self.shape.scale);
        }
        let out = &mut self.out[first * dim..][..G * dim];
        let mut column = 0;
        while column + 4 * LANES <= dim {
            self.keys.weighted::<S, G, 4>(self.weights, seen.clone(), &inverses, column, out);
            column += 4 * LANES;
        }
        while column + LANES <= dim {
            self.keys.weighted::<S, G, 1>(self.weights, seen.clone(), &inverses, column, out);
            column += LANES;
        }
        for column in column..dim {
            self.keys.weighted_column::<S>(self.weights, seen.clone(), &inverses, column, out);
        }
    }
}

/// The distance, in blocks, at which keys and values are prefetched.
const AHEAD: usize = 2;

/// The part of a block that a token sees: its slots, and their places among all positions that the token sees.
struct Run {
    block: BlockId,
    slots: Range<usize>,
    at: usize,
    /// The block [`AHEAD`] blocks later, or the number of blocks by which that is beyond the last.
    ahead: Result<BlockId, usize>,
}

impl<E: Element> Keys<'_, E> {
    /// Cuts `seen` by blocks.
    #[inline(always)]
    fn runs(&self, seen: Range<usize>) -> impl Iterator<Item = Run> {
        let size = self.cache.block_size();
        let end = seen.end.div_ceil(size);
        (seen.start / size..end).map(move |index| {
            let first = index * size;
            let slots = seen.start.saturating_sub(first)..size.min(seen.end - first);
            let ahead = index + AHEAD;
            let ahead = if ahead < end { Ok(self.blocks[ahead]) } else { Err(ahead - end) };
            Run { block: self.blocks[index], at: first + slots.start - seen.start, slots, ahead }
        })
    }

    /// `out[G, seen]`: the queries times each key of `seen`, summed in the order of columns.
    #[inline(always)]
    fn products<S: Simd, const G: usize>(&self, queries: [&[f32]; G], seen: Range<usize>, out: &mut [f32]) {
        let (size, count) = (self.cache.block_size(), seen.len());
        let first_block = seen.start / size;
        for Run { block, slots, at, ahead } in self.runs(seen) {
            let Page { numbers: keys, scales } = self.cache.keys(self.layer, block, self.head);
            // The first values follow the last keys.
            let ahead = match ahead {
                Ok(block) => self.cache.keys(self.layer, block, self.head).numbers,
                Err(beyond) => match self.blocks.get(first_block + beyond) {
                    Some(&block) => self.cache.values(self.layer, block, self.head).numbers,
                    None => &[],
                },
            };
            if size % LANES == 0 {
                for first in (slots.start / LANES * LANES..slots.end).step_by(LANES) {
                    let products = products_of_lanes::<S, E, G>(queries, keys, ahead, size, first);
                    let lanes = slots.start.max(first)..slots.end.min(first + LANES);
                    for (head, products) in products.iter().enumerate() {
                        let to = &mut out[head * count + at + lanes.start - slots.start..][..lanes.len()];
                        to.copy_from_slice(&products[lanes.start - first..lanes.end - first]);
                        if E::IS_SCALED {
                            to.iter_mut().zip(&scales[lanes.clone()]).for_each(|(to, scale)| *to *= scale);
                        }
                    }
                }
                continue;
            }
            for (index, slot) in slots.enumerate() {
                for (head, query) in queries.iter().enumerate() {
                    let column = keys[slot..].iter().step_by(size).zip(*query);
                    let product = column.fold(0.0, |sum, (key, q)| mul_add::<S>(*q, key.widen(), sum));
                    out[head * count + at + index] =
                        if E::IS_SCALED { product * scales[slot] } else { product };
                }
            }
        }
    }

    /// `out[G, column..]`: weights and sums [`LANES`] times `C` columns of the values of `seen`, in the order of
    /// positions.
    #[inline(always)]
    fn weighted<S: Simd, const G: usize, const C: usize>(
        &self,
        weights: &[f32],
        seen: Range<usize>,
        inverses: &[f32; G],
        column: usize,
        out: &mut [f32],
    ) {
        let (dim, count) = (self.cache.head_dim(), seen.len());
        let mut sums = [[S::splat(0.0); C]; G];
        for Run { block, slots, at, ahead } in self.runs(seen) {
            let ahead =
                ahead.map_or(&[][..], |block| self.cache.values(self.layer, block, self.head).numbers);
            let weights: [&[f32]; G] =
                std::array::from_fn(|head| &weights[head * count + at..][..slots.len()]);
            let Page { numbers: values, scales } = self.cache.values(self.layer, block, self.head);
            let values = values[slots.start * dim..].chunks_exact(dim).take(slots.len());
            for (index, row) in values.enumerate() {
                let (row, _) = row[column..].as_chunks::<LANES>();
                for lanes in 0..C {
                    prefetch::<S, E>(ahead, index * dim + column + lanes * LANES);
                }
                let Some(row) = row.first_chunk::<C>() else { continue };
                // A loop, because `map` is compiled without the instruction set.
                let mut loaded = [S::splat(0.0); C];
                for (loaded, row) in loaded.iter_mut().zip(row) {
                    *loaded = E::load::<S>(row);
                }
                for head in 0..G {
                    let weight = weights[head][index];
                    let weight =
                        S::splat(if E::IS_SCALED { weight * scales[slots.start + index] } else { weight });
                    for (sum, row) in sums[head].iter_mut().zip(loaded) {
                        *sum = S::mul_add(weight, row, *sum);
                    }
                }
            }
        }
        for head in 0..G {
            let (out, _) = out[head * dim + column..].as_chunks_mut::<LANES>();
            for (out, sums) in out.iter_mut().zip(sums[head]) {
                S::store(sums, out);
                for sum in out {
                    *sum *= inverses[head];
                }
            }
        }
    }

    /// Like [`Keys::weighted`] for one column, with the same sums.
    #[inline(always)]
    fn weighted_column<S: Simd>(
        &self,
        weights: &[f32],
        seen: Range<usize>,
        inverses: &[f32],
        column: usize,
        out: &mut [f32],
    ) {
        let (dim, count) = (self.cache.head_dim(), seen.len());
        for (head, inverse) in inverses.iter().enumerate() {
            let mut sum = 0.0;
            for Run { block, slots, at, .. } in self.runs(seen.clone()) {
                let Page { numbers: values, scales } = self.cache.values(self.layer, block, self.head);
                for (index, slot) in slots.enumerate() {
                    let weight = weights[head * count + at + index];
                    let weight = if E::IS_SCALED { weight * scales[slot] } else { weight };
                    sum = mul_add::<S>(weight, values[slot * dim + column].widen(), sum);
                }
            }
            out[head * dim + column] = sum * inverse;
        }
    }
}

/// `G` queries times [`LANES`] keys of a block, from slot `first`; `keys[dim, size]`. Meanwhile it prefetches the
/// block `ahead`, whose address the processor cannot predict.
#[inline(always)]
fn products_of_lanes<S: Simd, E: Element, const G: usize>(
    queries: [&[f32]; G],
    keys: &[E],
    ahead: &[E],
    size: usize,
    first: usize,
) -> [[f32; LANES]; G] {
    let mut sums = [S::splat(0.0); G];
    for (column, keys) in keys.chunks_exact(size).enumerate() {
        let Some(keys) = keys[first..].first_chunk() else { continue };
        prefetch::<S, E>(ahead, column * size + first);
        let keys = E::load::<S>(keys);
        for head in 0..G {
            sums[head] = S::mul_add(S::splat(queries[head][column]), keys, sums[head]);
        }
    }
    let mut out = [[0.0; LANES]; G];
    for (out, sums) in out.iter_mut().zip(sums) {
        S::store(sums, out);
    }
    out
}

/// Prefetches the cache line that begins with `numbers[at]`, if one begins there and the number exists.
#[inline(always)]
fn prefetch<S: Simd, E: Element>(numbers: &[E], at: usize) {
    const LINE: usize = 64;
    if LANES * size_of::<E>() >= LINE || (at * size_of::<E>()).is_multiple_of(LINE) {
        S::prefetch(numbers.get(at));
    }
}

/// Computes `exp(scale * x - max)` in place; returns the sum.
#[inline(always)]
fn exponentials<S: Simd>(products: &mut [f32], scale: f32) -> f32 {
    for p in products.iter_mut() {
        *p *= scale;
    }
    let max = max(products);
    for p in products.iter_mut() {
        *p = exp::<S>(*p - max);
    }
    sum(products)
}
