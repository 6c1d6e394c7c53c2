//! The buffers of a GPU: weights, activations, the cache.

use super::runtime::GpuRuntime;
use crate::device::number::dtype::Dtype;
use crate::device::types::attention::{CacheLayer, CacheShape, LayerKind, PerKind};

/// A vector, or a matrix `[rows, columns]`.
pub struct Weight<R: GpuRuntime> {
    pub(super) memory: R::Memory,
    /// `[rows]` f32, if the matrix is e4m3.
    pub(super) scales: Option<R::Memory>,
    pub(super) dtype: Dtype,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// Activations `[rows, width]`.
pub struct Tensor<R: GpuRuntime> {
    pub(super) memory: R::Memory,
    /// A copy in the expert's memory, for logits that the amateur's GPU computes.
    pub(super) peer: Option<R::Memory>,
    pub(super) width: usize,
    pub(super) dtype: Dtype,
}

impl<R: GpuRuntime> Tensor<R> {
    /// Bytes of the first `rows` rows.
    pub(super) fn bytes(&self, rows: usize) -> usize {
        rows * self.width * self.dtype.size()
    }
}

/// A rotary embedding's frequencies, `[head_dim / 2]` f32.
pub struct Rope<R: GpuRuntime> {
    pub(super) memory: R::Memory,
    pub(super) scale: f32,
}

/// Results of attention that is split over a context, until the last split of a row and head is there.
pub struct Partials<R: GpuRuntime> {
    /// `[rows and splits, query heads, head_dim + 4]` f32
    pub(super) results: R::Memory,
    /// `[rows and splits, key/value heads and parts of their groups]` u32: 0 between launches.
    pub(super) counters: R::Memory,
    /// The most rows times splits of a launch.
    pub(super) capacity: usize,
}

/// A model's plane of the cache.
pub struct Cache<R: GpuRuntime> {
    pub(super) blocks: PerKind<Blocks<R>>,
    pub(super) shape: CacheShape,
    pub(super) dtype: Dtype,
    pub(super) partials: Partials<R>,
}

/// Keys and values of the layers of one kind, `[layers, blocks, 2, heads, block_size, head_dim]` in the model's cache
/// format. A block holds its keys, then its values.
pub struct Blocks<R: GpuRuntime> {
    pub(super) memory: R::Memory,
    /// `[layers, blocks, 2, heads, block_size]` f32, if the format has a scale per row.
    pub(super) scales: Option<R::Memory>,
}

impl<R: GpuRuntime> Cache<R> {
    /// Keys and values of the layers of a kind.
    pub fn memory(&self, kind: LayerKind) -> &R::Memory {
        &self.blocks[kind].memory
    }

    /// Their scales.
    pub fn scales(&self, kind: LayerKind) -> Option<&R::Memory> {
        self.blocks[kind].scales.as_ref()
    }

    /// The addresses of a layer's keys and values and of their scales; 0 if there are none.
    pub(super) fn addresses(&self, runtime: &R, layer: CacheLayer) -> [u64; 2] {
        let CacheShape { blocks, head_dim, .. } = self.shape;
        let Blocks { memory, scales } = &self.blocks[layer.kind];
        let rows = layer.index * blocks[layer.kind] * rows_per_layer(self.shape);
        let scales = scales.as_ref().map(|scales| runtime.address(scales) + (rows * size_of::<f32>()) as u64);
        [runtime.address(memory) + (rows * head_dim * self.dtype.size()) as u64, scales.unwrap_or(0)]
    }
}

/// Rows of keys and values of one layer in a block.
pub(super) fn rows_per_layer(shape: CacheShape) -> usize {
    2 * shape.heads * shape.block_size
}
