//! One model's plane of the paged KV cache. Each block, layer and head has keys `[head_dim, block_size]`, transposed
//! so that a query is multiplied with the keys of a block in SIMD lanes, and values `[block_size, head_dim]`. Layers
//! with a window have blocks of their own.

use bytemuck::Pod;

use super::buffer::{Buffer, Populating};
use super::simd::LANES;
use super::simd::Simd;
use super::tensor::Tensor;
use crate::device::number::e4m3::E4m3;
use crate::device::number::quantize;
use crate::device::{Batch, CacheLayer, CacheShape, Dtype, Heads, LayerKind, PerKind};
use crate::error::Result;
use crate::ids::BlockId;

/// Keys and values, in numbers of one format.
pub enum Cache {
    /// f32, without scales.
    F32(PerKind<Pages<f32>>),
    /// e4m3, with a scale for each token and head, separate for keys and values.
    E4m3(PerKind<Pages<E4m3>>),
}

/// A number of the cache. Its value is the number times its scale.
pub trait Element: Pod + Send + Sync {
    /// Whether there are scales; otherwise every scale is 1.
    const IS_SCALED: bool;

    /// The scale of a row.
    fn scale(row: &[f32]) -> f32;
    /// `x` in units of its row's scale.
    fn round(x: f32, scale: f32) -> Self;
    /// The number as f32, without its scale.
    fn widen(self) -> f32;
    /// The numbers as f32 lanes, without their scales.
    fn load<S: Simd>(x: &[Self; LANES]) -> S::Lanes;
}

impl Element for f32 {
    const IS_SCALED: bool = false;

    fn scale(_: &[f32]) -> f32 {
        1.0
    }

    fn round(x: f32, _: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn load<S: Simd>(x: &[f32; LANES]) -> S::Lanes {
        S::load(x)
    }
}

impl Element for E4m3 {
    const IS_SCALED: bool = true;

    fn scale(row: &[f32]) -> f32 {
        quantize::scale(row)
    }

    fn round(x: f32, scale: f32) -> E4m3 {
        quantize::scaled(x, scale)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn load<S: Simd>(x: &[E4m3; LANES]) -> S::Lanes {
        S::load(&x.map(E4m3::to_f32))
    }
}

/// The blocks of one kind.
pub struct Pages<E> {
    data: Buffer<E>,
    /// For each block, layer and head the scales of the keys `[block_size]` and of the values `[block_size]`; empty
    /// if the numbers have no scales.
    scales: Buffer,
    /// Layers of this kind.
    layers: usize,
    shape: CacheShape,
}

/// The keys or the values of one head in a block, with their scales; the scales are empty if the numbers have none.
pub struct Page<'a, E> {
    /// Keys `[head_dim, block_size]` or values `[block_size, head_dim]`.
    pub numbers: &'a [E],
    /// `[block_size]`
    pub scales: &'a [f32],
}

/// Bytes of one block of each kind, over all layers of the kind.
pub fn block_bytes(shape: CacheShape, dtype: Dtype) -> PerKind<usize> {
    let layer = 2 * shape.heads * shape.block_size * dtype.row_bytes(shape.head_dim);
    PerKind::of(|kind| shape.layers[kind] * layer)
}

impl Cache {
    /// An empty cache: of e4m3 if `dtype` is that, otherwise of f32. The system provides its pages when they are
    /// first written.
    pub fn new(shape: CacheShape, dtype: Dtype) -> Result<Self> {
        match dtype {
            Dtype::F8E4m3 => Pages::both(shape).map(Self::E4m3),
            _ => Pages::both(shape).map(Self::F32),
        }
    }

    /// See `Buffer::populating`, for each kind that has layers.
    pub fn populating(&self) -> Vec<Populating> {
        match self {
            Self::F32(pages) => Pages::populating(pages),
            Self::E4m3(pages) => Pages::populating(pages),
        }
    }

    /// Writes the keys and values of `qkv[tokens, qkv_width]` at the tokens' positions.
    pub fn store(&mut self, batch: &Batch, heads: Heads, layer: CacheLayer, qkv: &Tensor) {
        match self {
            Self::F32(pages) => pages[layer.kind].store(batch, heads, layer, qkv),
            Self::E4m3(pages) => pages[layer.kind].store(batch, heads, layer, qkv),
        }
    }

    /// Copies block `from` of a kind to block `to`, in all layers of the kind.
    pub fn copy_block(&mut self, kind: LayerKind, from: BlockId, to: BlockId) {
        match self {
            Self::F32(pages) => pages[kind].copy_block(from, to),
            Self::E4m3(pages) => pages[kind].copy_block(from, to),
        }
    }
}

impl<E: Element> Pages<E> {
    fn both(shape: CacheShape) -> Result<PerKind<Self>> {
        Ok(PerKind {
            full: Self::new(shape, LayerKind::Full)?,
            windowed: Self::new(shape, LayerKind::Windowed)?,
        })
    }

    fn new(shape: CacheShape, kind: LayerKind) -> Result<Self> {
        let (heads, what) = (
            shape.layers[kind].saturating_mul(shape.blocks[kind]).saturating_mul(2 * shape.heads),
            "one model's KV cache (lower kv-cache-memory)",
        );
        let scales = if E::IS_SCALED { shape.block_size } else { 0 };
        Ok(Self {
            data: Buffer::zeroed(heads, shape.block_size * shape.head_dim, what)?,
            scales: Buffer::zeroed(heads, scales, what)?,
            layers: shape.layers[kind],
            shape,
        })
    }

    fn populating(pages: &PerKind<Self>) -> Vec<Populating> {
        let pages = LayerKind::ALL.map(|kind| &pages[kind]);
        pages.into_iter().filter(|pages| pages.layers > 0).map(|pages| pages.data.populating()).collect()
    }

    /// Tokens per block.
    pub fn block_size(&self) -> usize {
        self.shape.block_size
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.shape.head_dim
    }

    /// `head`'s keys in `block`; `layer` counts the layers of this kind.
    pub fn keys(&self, layer: usize, block: BlockId, head: usize) -> Page<'_, E> {
        self.page(self.index(layer, block, 0, head))
    }

    /// `head`'s values in `block`; `layer` counts the layers of this kind.
    pub fn values(&self, layer: usize, block: BlockId, head: usize) -> Page<'_, E> {
        self.page(self.index(layer, block, 1, head))
    }

    fn page(&self, index: usize) -> Page<'_, E> {
        let CacheShape { block_size, head_dim, .. } = self.shape;
        let scales = if E::IS_SCALED { &self.scales[index * block_size..][..block_size] } else { &[] };
        Page { numbers: &self.data[index * block_size * head_dim..][..block_size * head_dim], scales }
    }

    fn store(&mut self, batch: &Batch, heads: Heads, layer: CacheLayer, qkv: &Tensor) {
        let CacheShape { block_size, head_dim, .. } = self.shape;
        for span in &batch.spans {
            let blocks = batch.table(layer.kind, span);
            for token in span.tokens.clone() {
                let position = batch.positions[token] as usize;
                let (block, slot) = (blocks[position / block_size], position % block_size);
                let (_, key_value) = qkv.row(token)[..heads.qkv_width()].split_at(heads.query_width());
                for (at, row) in key_value.chunks_exact(head_dim).enumerate() {
                    let (plane, head) = (at / heads.key_value, at % heads.key_value);
                    let index = self.index(layer.index, block, plane, head);
                    let scale = E::scale(row);
                    if E::IS_SCALED {
                        self.scales[index * block_size + slot] = scale;
                    }
                    let page = &mut self.data[index * block_size * head_dim..][..block_size * head_dim];
                    // A key is a column of its page, a value is a row.
                    let (first, step) = if plane == 0 { (slot, block_size) } else { (slot * head_dim, 1) };
                    let places = page[first..].iter_mut().step_by(step);
                    places.zip(row).for_each(|(to, from)| *to = E::round(*from, scale));
                }
            }
        }
    }

    /// See [`Cache::copy_block`].
    fn copy_block(&mut self, from: BlockId, to: BlockId) {
        let heads = self.layers * 2 * self.shape.heads;
        let (numbers, scales) =
            (heads * self.shape.block_size * self.shape.head_dim, heads * self.shape.block_size);
        let copied = |size: usize| from.index() * size..(from.index() + 1) * size;
        self.data.copy_within(copied(numbers), to.index() * numbers);
        if E::IS_SCALED {
            self.scales.copy_within(copied(scales), to.index() * scales);
        }
    }

    fn index(&self, layer: usize, block: BlockId, plane: usize, head: usize) -> usize {
        let block = block.index() * self.layers + layer;
        (block * 2 + plane) * self.shape.heads + head
    }
}
