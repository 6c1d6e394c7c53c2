//! What a device does: a dozen fused operations, each worth a kernel, over its own buffers.
//!
//! Shapes are in brackets. A batch has `tokens` rows of activations, made of ragged *spans*: a span is a run of
//! consecutive tokens of one sequence, a prefill chunk or a single decode token alike.

use std::ops::Range;

use crate::checkpoint::Bytes;
use crate::contrast::{Contrast, Noise, RowFault, Sampled, Vocabulary};
use crate::error::Result;
use crate::ids::{BlockId, TokenId};

pub mod cpu;
pub mod simt;

/// Number format of a checkpoint's tensor, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// bfloat16
    Bf16,
    /// IEEE half
    F16,
    /// IEEE single
    F32,
}

impl Dtype {
    /// Bytes an element.
    pub fn size(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// A checkpoint's tensor, where it lies in the mapped file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TensorView {
    /// Its name in the checkpoint, for messages.
    pub name: String,
    /// Its number format.
    pub dtype: Dtype,
    /// Row-major.
    pub shape: Vec<usize>,
    /// The file.
    pub file: Bytes,
    /// Where in the file; as long as dtype and shape say.
    pub range: Range<usize>,
}

impl TensorView {
    /// The tensor's bytes. They need not be aligned.
    pub fn bytes(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }
}

/// One step's tokens, the same for both models.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// `[tokens]`, spans one after the other.
    pub tokens: Vec<TokenId>,
    /// `[tokens]`: each token's position in its sequence.
    pub positions: Vec<u32>,
    /// Where each sequence's tokens lie.
    pub spans: Vec<Span>,
    /// The sequences' block tables, one after the other; [`Span::blocks`] says which part is whose.
    pub blocks: Vec<BlockId>,
}

/// A run of consecutive tokens of one sequence within a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Indices into [`Batch::tokens`]. The first token's position is the number of tokens already in the cache.
    pub tokens: Range<usize>,
    /// Indices into [`Batch::blocks`]: enough blocks for all positions up to the span's last.
    pub blocks: Range<usize>,
}

/// How a model's query, key and value projections are laid out, and how its positions are rotated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key/value heads; divides `query`.
    pub key_value: usize,
    /// Width of a head.
    pub dim: usize,
}

impl Heads {
    /// Width of the joined q|k|v projection.
    pub fn qkv_width(&self) -> usize {
        (self.query + 2 * self.key_value) * self.dim
    }

    /// Width of the attention's output.
    pub fn query_width(&self) -> usize {
        self.query * self.dim
    }
}

/// Shape of one model's plane of the paged cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Layers that hold keys and values.
    pub layers: usize,
    /// Key/value heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens a block.
    pub block_size: usize,
    /// Blocks in the pool.
    pub blocks: usize,
}

/// The gate's activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`
    Silu,
    /// The tanh approximation of GELU.
    GeluTanh,
}

/// A root-mean-square norm: `x / rms(x) * weight`, or `* (1 + weight)` where `unit_offset`.
pub struct Norm<W> {
    /// `[width]`
    pub weight: W,
    /// Added to the mean square.
    pub epsilon: f32,
    /// Gemma's form.
    pub unit_offset: bool,
}

/// A row to sample: whose parameters and whose noise.
#[derive(Debug, Clone, Copy)]
pub struct SampleRow<'a> {
    /// The request's parameters.
    pub contrast: &'a Contrast,
    /// The request's noise.
    pub noise: Noise,
    /// The position that the drawn token will take in its sequence.
    pub position: u32,
}

/// A device: where weights, activations and caches live, and the operations over them.
pub trait Device: Send + Sync + 'static {
    /// A vector, a matrix `[out, in]`, or several matrices joined along `out`, in the checkpoint's dtype.
    type Weight: Send + Sync;
    /// Activations `[rows, width]`; room for `rows` is allocated once, a step uses the first of them.
    type Tensor: Send + Sync;
    /// A rotary embedding's frequencies.
    type Rope: Send + Sync;
    /// One model's plane of the paged KV cache.
    type Cache: Send;

    /// Brings `parts` to the device, joined along their first dimension (q|k|v, gate|up).
    fn weight(&self, parts: &[TensorView]) -> Result<Self::Weight>;
    /// Room for activations `[rows, width]`.
    fn tensor(&self, rows: usize, width: usize) -> Result<Self::Tensor>;
    /// Rotary frequencies, `[head_dim / 2]`; sine and cosine are multiplied by `scale` (yarn's attention factor).
    fn rope(&self, inverse_frequencies: &[f32], scale: f32) -> Result<Self::Rope>;
    /// A cache of the given shape.
    fn cache(&self, shape: CacheShape) -> Result<Self::Cache>;
    /// Bytes that [`Device::cache`] takes for one block of this shape.
    fn block_bytes(&self, shape: CacheShape) -> usize;
    /// Runs both, at once where that is faster.
    fn join<A: Send, B: Send>(&self, a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send) -> (A, B);

    /// `out[tokens, width] = table[batch.tokens] * scale`
    fn embed(&self, batch: &Batch, table: &Self::Weight, scale: f32, out: &mut Self::Tensor);
    /// `residual += delta` where there is one, then `out = norm(residual)`; `[rows, width]`.
    fn rms_norm(
        &self,
        rows: usize,
        delta: Option<&Self::Tensor>,
        residual: &mut Self::Tensor,
        norm: &Norm<Self::Weight>,
        out: &mut Self::Tensor,
    );
    /// `out[rows, n] = x[rows, k] * w[n, k]^T + bias[n]`
    fn matmul(
        &self,
        rows: usize,
        x: &Self::Tensor,
        w: &Self::Weight,
        bias: Option<&Self::Weight>,
        out: &mut Self::Tensor,
    );
    /// In `qkv[tokens, qkv_width]`: norms each query and key head where norms are given, rotates queries and keys
    /// by their positions (halves convention), and writes keys and values to the cache's `layer`.
    #[allow(clippy::too_many_arguments, clippy::type_complexity)]
    fn rope_store(
        &self,
        batch: &Batch,
        heads: Heads,
        norms: Option<(&Norm<Self::Weight>, &Norm<Self::Weight>)>,
        rope: &Self::Rope,
        layer: usize,
        qkv: &mut Self::Tensor,
        cache: &mut Self::Cache,
    );
    /// Causal attention of every token over its sequence's cached keys and values, the last `window` positions of
    /// them where given; reads queries from `qkv[tokens, qkv_width]`, writes `out[tokens, query_width]`.
    #[allow(clippy::too_many_arguments)]
    fn attention(
        &self,
        batch: &Batch,
        heads: Heads,
        scale: f32,
        window: Option<usize>,
        layer: usize,
        qkv: &Self::Tensor,
        cache: &Self::Cache,
        out: &mut Self::Tensor,
    );
    /// `out[rows, width] = activation(x[rows, ..width]) * x[rows, width..]`
    fn gated(
        &self,
        rows: usize,
        width: usize,
        activation: Activation,
        x: &Self::Tensor,
        out: &mut Self::Tensor,
    );
    /// `out[rows.len(), width] = x[rows]`
    fn gather(&self, rows: &[u32], x: &Self::Tensor, out: &mut Self::Tensor);
    /// Samples row `i` of the logits `[rows, vocabulary or more]` by `rows[i]`. A row's fault is its own.
    fn contrast_sample(
        &self,
        rows: &[SampleRow<'_>],
        vocabulary: &Vocabulary,
        expert: &Self::Tensor,
        amateur: Option<&Self::Tensor>,
    ) -> Vec<std::result::Result<Sampled, RowFault>>;
    /// The first `rows` rows of `x`, row by row, as f32.
    fn download(&self, rows: usize, x: &Self::Tensor) -> Vec<f32>;
}
