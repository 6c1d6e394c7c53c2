//! One model's plane of the paged KV cache: f32, for each block, layer and head the keys `[head_dim, block_size]`,
//! turned so that a query meets a block of them lane by lane, and the values `[block_size, head_dim]`.

use super::Tensor;
use super::buffer::{Buffer, Populating};
use crate::device::{Batch, CacheShape, Heads};
use crate::error::Result;
use crate::ids::BlockId;

/// Keys and values.
pub struct Cache {
    data: Buffer,
    shape: CacheShape,
}

/// Bytes of one block over all layers.
pub fn block_bytes(shape: CacheShape) -> usize {
    shape.layers * floats(shape) * size_of::<f32>()
}

/// Floats of one block in one layer.
fn floats(shape: CacheShape) -> usize {
    2 * shape.heads * shape.block_size * shape.head_dim
}

impl Cache {
    /// An empty cache; its pages are taken from the system as they are first written.
    pub fn new(shape: CacheShape) -> Result<Self> {
        let blocks = shape.layers.saturating_mul(shape.blocks);
        Ok(Self { data: Buffer::zeroed(blocks, floats(shape), "the KV cache")?, shape })
    }

    /// See [`Buffer::populating`].
    pub fn populating(&self) -> Populating {
        self.data.populating()
    }

    /// Tokens a block.
    pub fn block_size(&self) -> usize {
        self.shape.block_size
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.shape.head_dim
    }

    /// `head`'s keys in `block`, `[head_dim, block_size]`.
    pub fn keys(&self, layer: usize, block: BlockId, head: usize) -> &[f32] {
        &self.data[self.start(layer, block, 0, head)..][..self.head_floats()]
    }

    /// `head`'s values in `block`, `[block_size, head_dim]`.
    pub fn values(&self, layer: usize, block: BlockId, head: usize) -> &[f32] {
        &self.data[self.start(layer, block, 1, head)..][..self.head_floats()]
    }

    /// Writes the keys and values of `qkv[tokens, qkv_width]` to the places of their positions.
    pub fn store(&mut self, batch: &Batch, heads: Heads, layer: usize, qkv: &Tensor) {
        for span in &batch.spans {
            let blocks = &batch.blocks[span.blocks.clone()];
            for token in span.tokens.clone() {
                let position = batch.positions[token] as usize;
                let (block, slot) =
                    (blocks[position / self.shape.block_size], position % self.shape.block_size);
                let (_, key_value) = qkv.row(token)[..heads.qkv_width()].split_at(heads.query_width());
                let (keys, values) = key_value.split_at(heads.key_value * heads.dim);
                for (head, row) in keys.chunks_exact(heads.dim).enumerate() {
                    let start = self.start(layer, block, 0, head) + slot;
                    let column = self.data[start..].iter_mut().step_by(self.shape.block_size);
                    column.zip(row).for_each(|(to, from)| *to = *from);
                }
                for (head, row) in values.chunks_exact(heads.dim).enumerate() {
                    let start = self.start(layer, block, 1, head) + slot * heads.dim;
                    self.data[start..][..heads.dim].copy_from_slice(row);
                }
            }
        }
    }

    /// Makes `to` what `from` is, in all layers.
    pub fn copy_block(&mut self, from: BlockId, to: BlockId) {
        let floats = self.shape.layers * floats(self.shape);
        let from = from.index() * floats;
        self.data.copy_within(from..from + floats, to.index() * floats);
    }

    fn head_floats(&self) -> usize {
        self.shape.block_size * self.shape.head_dim
    }

    fn start(&self, layer: usize, block: BlockId, plane: usize, head: usize) -> usize {
        let block = block.index() * self.shape.layers + layer;
        ((block * 2 + plane) * self.shape.heads + head) * self.head_floats()
    }
}
