//! Sequences in a cache, and the attention that a device or an f64 reference computes over them.

use std::ops::Range;

use crate::contrast::Vocabulary;
use crate::device::cpu;
use crate::device::inspect::Inspect;
use crate::device::number::quantize;
use crate::device::{
    AttentionShape, Batch, CacheLayer, CacheShape, Capacity, Device, Dtype, Heads, LayerKind, PerKind,
    Precision, Span,
};
use crate::doctor::comparison::{Comparison, describe_heads};
use crate::error::Result;
use crate::ids::{BlockId, TokenId};

/// Layers of the cache. The checks use the last one.
const LAYERS: usize = 2;
/// Number of blocks in the pool that no sequence holds, and of rows in a step that belong to no span.
const SPARE: usize = 3;
/// Contexts longer than this are compared with an f64 reference.
const LONG: usize = 2048;

/// A sequence and a range of its positions.
pub type Piece = (usize, Range<usize>);

/// Number of tokens of all pieces together.
pub fn tokens_of(pieces: &[Piece]) -> usize {
    pieces.iter().map(|(_, positions)| positions.len()).sum()
}

/// Sequences in a cache, whose blocks are in random order.
pub struct Case {
    pub heads: Heads,
    block_size: usize,
    window: Option<usize>,
    pub contexts: Vec<usize>,
    /// Block table of each sequence.
    tables: Vec<Vec<BlockId>>,
    /// A block that no sequence holds.
    spare: BlockId,
    /// Number of blocks in the pool.
    blocks: usize,
    /// Queries, keys and values of each sequence as they are in the cache, one row of `qkv_width` per position.
    stored: Vec<Vec<Vec<f32>>>,
}

impl Case {
    pub fn new<D: Inspect>(
        on: &mut Comparison<'_, D>,
        heads: Heads,
        block_size: usize,
        window: Option<usize>,
        rows: &[(usize, usize)],
    ) -> Self {
        let contexts: Vec<usize> = rows.iter().map(|(context, _)| *context).collect();
        let held: usize = contexts.iter().map(|context| context.div_ceil(block_size)).sum();
        let blocks = held + SPARE;
        let mut ids: Vec<BlockId> = (0..blocks as u32).map(BlockId).collect();
        for at in (1..blocks).rev() {
            ids.swap(at, on.numbers.below(at + 1));
        }
        let tables =
            contexts.iter().map(|context| ids.split_off(ids.len() - context.div_ceil(block_size))).collect();
        Self { heads, block_size, window, contexts, tables, spare: ids[0], blocks, stored: Vec::new() }
    }

    pub fn shape(&self) -> CacheShape {
        CacheShape {
            layers: PerKind::of(|kind| if kind == self.layer().kind { LAYERS } else { 0 }),
            heads: self.heads.key_value,
            group: self.heads.query / self.heads.key_value,
            head_dim: self.heads.dim,
            block_size: self.block_size,
            blocks: PerKind::of(|_| self.blocks),
        }
    }

    /// The layer that is checked.
    pub fn layer(&self) -> CacheLayer {
        let kind = if self.window.is_some() { LayerKind::Windowed } else { LayerKind::Full };
        CacheLayer { kind, index: LAYERS - 1 }
    }

    /// A span's table for layers with a window. Blocks behind the window of its first token are replaced by one that no
    /// sequence holds, and that may hold NaN.
    pub fn windowed_table(&self, sequence: usize, first_position: usize) -> Vec<BlockId> {
        let first_seen = self.window.map_or(0, |window| (first_position + 1).saturating_sub(window));
        let mut table = self.tables[sequence].clone();
        table[..first_seen / self.block_size].fill(self.spare);
        table
    }

    /// The longest context.
    pub fn longest(&self) -> usize {
        self.contexts.iter().copied().max().unwrap_or(0)
    }

    /// Whether the CPU's rounding error would show. The CPU sums in the order of positions.
    pub fn is_long(&self) -> bool {
        self.window.is_none() && self.longest() > LONG
    }

    /// The name of a check of `rows`, `(context, tokens)`.
    pub fn name(&self, about: &str, rows: &[(usize, usize)]) -> String {
        let (heads, block_size) = (describe_heads(self.heads), self.block_size);
        let window = self.window.map_or(String::new(), |window| format!(", window {window}"));
        let rows: Vec<_> =
            rows.iter().map(|(context, tokens)| format!("{tokens} of context {context}")).collect();
        let rows = rows.join(", ");
        format!("{about}: {heads}, blocks of {block_size}{window}, tokens {rows}")
    }

    /// Attention without a window in f64, `[tokens, query_width]`, for the queries `[tokens, qkv_width]`.
    pub fn reference(&self, pieces: &[Piece], queries: &[f32]) -> Vec<f32> {
        let Heads { query, key_value, dim } = self.heads;
        let scale = (dim as f64).sqrt().recip();
        let tokens =
            pieces.iter().flat_map(|(sequence, positions)| positions.clone().map(|at| (*sequence, at)));
        let mut out = Vec::new();
        for ((sequence, position), queries) in tokens.zip(queries.chunks_exact(self.heads.qkv_width())) {
            for head in 0..query {
                let seen = 0..=position;
                let row = |at: usize, first: usize| {
                    &self.stored[sequence][at][first + head / (query / key_value) * dim..][..dim]
                };
                let product = |key: &[f32]| -> f64 {
                    let pairs = queries[head * dim..][..dim].iter().zip(key);
                    scale * pairs.map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()
                };
                let products: Vec<f64> = seen.clone().map(|at| product(row(at, query * dim))).collect();
                let max = products.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = products.iter().map(|product| (product - max).exp()).collect();
                let total: f64 = weights.iter().sum();
                out.extend((0..dim).map(|column| {
                    let values = seen.clone().map(|at| f64::from(row(at, (query + key_value) * dim)[column]));
                    (values.zip(&weights).map(|(value, weight)| value * weight).sum::<f64>() / total) as f32
                }));
            }
        }
        out
    }

    pub fn batch(&self, pieces: &[Piece]) -> Batch {
        let mut batch = Batch::default();
        for (sequence, positions) in pieces {
            let (first_token, first_block) = (batch.tokens.len(), batch.blocks.len());
            batch.tokens.extend(positions.clone().map(|_| TokenId(0)));
            batch.positions.extend(positions.clone().map(|position| position as u32));
            batch.blocks.extend(&self.tables[*sequence]);
            batch.windowed_blocks.extend(self.windowed_table(*sequence, positions.start));
            batch.spans.push(Span {
                tokens: first_token..batch.tokens.len(),
                blocks: first_block..batch.blocks.len(),
            });
        }
        batch
    }

    /// Prepares a step of `batch` that has spare room.
    pub fn begin<X: Device>(&self, device: &X, batch: &Batch) -> Result<X::Step> {
        let vocabulary = Vocabulary::new(1, Vec::new());
        let capacity = Capacity {
            max_num_seqs: batch.spans.len() + SPARE,
            max_num_batched_tokens: batch.tokens.len() + SPARE,
            block_size: self.block_size,
        };
        let mut step = device.step(capacity, PerKind::of(|_| batch.blocks.len()), &vocabulary)?;
        device.prepare(&mut step, batch, &[]);
        Ok(step)
    }

    /// Writes keys and values unchanged: all rotation angles are zero.
    pub fn store<X: Device>(
        &self,
        device: &X,
        batch: &Batch,
        qkv: &mut X::Tensor,
        cache: &mut X::Cache,
    ) -> Result<()> {
        let step = self.begin(device, batch)?;
        let rope = device.rope(&vec![0.0; self.heads.dim / 2], 1.0)?;
        device.rope_store(&step, self.heads, None, &rope, self.layer(), qkv, cache);
        Ok(())
    }

    /// Writes NaN to every slot of the pool.
    pub fn poison<D: Inspect>(&self, on: &Comparison<'_, D>, cache: &mut D::Cache) -> Result<()> {
        let tokens = self.blocks * self.block_size;
        let batch = Batch {
            tokens: vec![TokenId(0); tokens],
            positions: (0..tokens as u32).collect(),
            blocks: (0..self.blocks as u32).map(BlockId).collect(),
            windowed_blocks: (0..self.blocks as u32).map(BlockId).collect(),
            spans: vec![Span { tokens: 0..tokens, blocks: 0..self.blocks }],
            ..Batch::default()
        };
        let mut qkv = on.device.tensor(tokens + SPARE, self.heads.qkv_width(), Precision::Working)?;
        on.device.upload(&vec![f32::NAN; tokens * self.heads.qkv_width()], &mut qkv);
        self.store(on.device, &batch, &mut qkv, cache)
    }

    /// Writes random keys and values at every position of every sequence.
    pub fn fill<D: Inspect>(
        &mut self,
        on: &mut Comparison<'_, D>,
        caches: &mut (D::Cache, cpu::Cache),
    ) -> Result<()> {
        let pieces: Vec<Piece> = self.contexts.iter().map(|context| 0..*context).enumerate().collect();
        let batch = self.batch(&pieces);
        let (mut here, mut there) =
            on.tensors(batch.tokens.len(), self.heads.qkv_width(), Precision::Working)?;
        let rows = on.cpu.download(batch.tokens.len(), &there);
        let mut rows = rows.chunks_exact(self.heads.qkv_width()).map(<[f32]>::to_vec);
        self.stored = self.contexts.iter().map(|context| rows.by_ref().take(*context).collect()).collect();
        if on.device.info().format.cache == Dtype::F8E4m3 {
            let query_width = self.heads.query_width();
            for head in
                self.stored.iter_mut().flatten().flat_map(|row| row[query_width..].chunks_mut(self.heads.dim))
            {
                head.copy_from_slice(&quantize::rounded(head));
            }
        }
        self.store(on.device, &batch, &mut here, &mut caches.0)?;
        self.store(on.cpu, &batch, &mut there, &mut caches.1)
    }

    /// Random queries for the tokens of `pieces`, `[tokens, qkv_width]`. The columns of keys and values hold NaN,
    /// because attention reads keys and values from the cache.
    pub fn queries<D: Inspect>(&self, on: &mut Comparison<'_, D>, pieces: &[Piece]) -> Vec<f32> {
        let mut queries = vec![f32::NAN; tokens_of(pieces) * self.heads.qkv_width()];
        for row in queries.chunks_exact_mut(self.heads.qkv_width()) {
            row[..self.heads.query_width()].fill_with(|| 2.0 * on.numbers.uniform());
        }
        queries
    }

    /// Runs attention for the tokens of `pieces`, `[tokens, query_width]`.
    pub fn run<X: Inspect>(
        &self,
        device: &X,
        cache: &X::Cache,
        pieces: &[Piece],
        queries: &X::Tensor,
    ) -> Result<Vec<f32>> {
        let batch = self.batch(pieces);
        let step = self.begin(device, &batch)?;
        let (rows, width) = (batch.tokens.len(), self.heads.query_width());
        let mut out = device.tensor(rows + SPARE, width, Precision::Working)?;
        device.upload(&vec![f32::NAN; (rows + SPARE) * width], &mut out);
        let scale = (self.heads.dim as f32).sqrt().recip();
        let (heads, window) = (self.heads, self.window);
        let shape = AttentionShape { heads, scale, window, layer: self.layer() };
        device.attention(&step, shape, queries, cache, &mut out);
        Ok(device.download(rows, &out))
    }
}
