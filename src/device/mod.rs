//! What a device does: a dozen fused operations, each worth a kernel, over its own buffers.
//!
//! Shapes are in brackets. A batch has `tokens` rows of activations, made of ragged *spans*: a span is a run of
//! consecutive tokens of one sequence, a prefill chunk or a single decode token alike.

use std::ops::Range;

use crate::checkpoint::Bytes;
use crate::contrast::{Contrast, Noise, RowFault, Sampled, Vocabulary};
use crate::error::{Error, Result};
use crate::ids::{BlockId, TokenId};

pub mod cpu;
pub mod cuda;
pub mod gpu;
pub mod number;
pub mod simt;

/// Number format of a tensor, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// bfloat16
    Bf16,
    /// IEEE half
    F16,
    /// IEEE single
    F32,
    /// [`number::e4m3::E4m3`], a scale for each row: what a device makes of others.
    F8E4m3,
}

/// In what numbers a model is kept on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Of the layers' matrices.
    pub weights: Dtype,
    /// Of keys and values.
    pub cache: Dtype,
}

impl Format {
    /// All in `dtype`.
    pub fn of(dtype: Dtype) -> Self {
        Self { weights: dtype, cache: dtype }
    }

    /// Of activations and of what has no format of its own: embeddings, the head, norms, biases.
    pub fn working(self) -> Dtype {
        if self.weights == Dtype::F32 { Dtype::F32 } else { Dtype::Bf16 }
    }
}

/// One of the two models' places on a device: an order of execution (a CUDA stream), memory, and number formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The expert's, and that of everything which belongs to both models.
    Expert,
    /// The amateur's.
    Amateur,
}

impl Dtype {
    /// What checkpoints and settings call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::F8E4m3 => "fp8",
        }
    }

    /// Bytes an element.
    pub fn size(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
            Self::F8E4m3 => 1,
        }
    }

    /// Bytes of a row of `width` elements, with its scale where it has one.
    pub fn row_bytes(self, width: usize) -> usize {
        width * self.size() + if self == Self::F8E4m3 { size_of::<f32>() } else { 0 }
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
    /// Tokens that the step before sampled and the host may not know yet: `tokens` holds anything in their place. Where that
    /// step could leave them to the amateur, each is a span of its own, which samples.
    pub fed: Vec<Fed>,
    /// `[tokens]`: each token's position in its sequence.
    pub positions: Vec<u32>,
    /// Where each sequence's tokens lie.
    pub spans: Vec<Span>,
    /// The sequences' block tables, one after the other; [`Span::blocks`] says which part is whose.
    pub blocks: Vec<BlockId>,
    /// `[samples]`: indices into `tokens` whose logits are wanted, one for each row that samples.
    pub outputs: Vec<u32>,
}

/// A token that comes from the step before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Which of [`Batch::tokens`].
    pub token: u32,
    /// Which of the earlier step's [`Batch::outputs`] drew it.
    pub output: u32,
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

/// What of attention is the same in every step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Query and key/value heads.
    pub heads: Heads,
    /// Of the products of queries and keys.
    pub scale: f32,
    /// How many positions a token sees, its own included; all where `None`.
    pub window: Option<usize>,
    /// The cache's layer.
    pub layer: usize,
}

/// Shape of one model's plane of the paged cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Layers that hold keys and values.
    pub layers: usize,
    /// Key/value heads.
    pub heads: usize,
    /// Query heads that share a key/value head.
    pub group: usize,
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

/// What a norm of queries and keys takes as one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormScope {
    /// Each head: weights `[head_dim]`, one for all query heads and one for all key heads.
    Head,
    /// All heads together: weights `[query_heads * head_dim]` and `[key_value_heads * head_dim]`.
    Projection,
}

/// The norms of queries and keys before their rotation.
pub struct HeadNorms<W> {
    /// What each norms.
    pub scope: NormScope,
    /// Of queries.
    pub query: Norm<W>,
    /// Of keys.
    pub key: Norm<W>,
}

/// What a block adds to the residual: the activations, and the norm that they are given first where there is one.
pub type Delta<'a, D> = (&'a <D as Device>::Tensor, Option<&'a Norm<<D as Device>::Weight>>);

/// How the rows of a step go through a mixture: each through `active` of its `branches` MLPs (which papers call experts, a
/// word that belongs to the better model of the pair here).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutingShape {
    /// MLPs to choose from.
    pub branches: usize,
    /// MLPs that a row goes through, at most `branches`.
    pub active: usize,
    /// Whether the weights of a row's choices sum to one; else they are their parts of the softmax over all branches.
    pub normalized: bool,
}

/// A branch that a row goes through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Which.
    pub branch: u32,
    /// Its part of the row's sum.
    pub weight: f32,
}

/// Which rows a grouped product reads: a *place* is a row's visit to one of its branches, and places lie in the order of
/// the branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupedRows {
    /// The activations of the place's row.
    OfRow,
    /// The place's own activations.
    OfPlace,
}

/// A row to sample: whose parameters and whose noise.
#[derive(Debug, Clone, Copy)]
pub struct SampleRow {
    /// The request's parameters.
    pub contrast: Contrast,
    /// The request's noise.
    pub noise: Noise,
    /// The position that the drawn token will take in its sequence.
    pub position: u32,
    /// Whether [`Sampled::log_probabilities`] is wanted.
    pub log_probabilities: bool,
    /// Which row of the kept logits is this one's, where the amateur is deferred: see [`Device::settle`].
    pub kept: Option<u32>,
}

/// How much a [`Device::Step`] makes room for.
#[derive(Debug, Clone, Copy)]
pub struct StepRoom<'a> {
    /// Tokens of the largest batch.
    pub tokens: usize,
    /// Spans of the largest batch, and rows that sample.
    pub sequences: usize,
    /// Blocks of the pool.
    pub blocks: usize,
    /// Tokens a block.
    pub block_size: usize,
    /// The ids that may be sampled.
    pub vocabulary: &'a Vocabulary,
}

/// How much memory a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Bytes that nobody holds.
    pub free: usize,
    /// Bytes in all.
    pub total: usize,
}

/// How large a weight is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightSize {
    /// Outputs.
    pub rows: usize,
    /// Inputs; 1 for a vector.
    pub columns: usize,
    /// Bytes that are read where all of it is.
    pub bytes: usize,
}

/// In what numbers a tensor is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// The device's own for activations.
    Working,
    /// f32: sums over layers, and logits.
    Single,
}

/// What a [`Device::contrast_sample_hidden`] computed of the amateur's logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Projections {
    /// Logits that were computed one by one.
    pub gathered: usize,
    /// Rows whose logits were all computed.
    pub full: usize,
}

fn no_profiler() -> Error {
    Error::Setting("this device cannot be profiled by step; --device cuda can".to_owned())
}

/// What a row's sampling gave.
pub type RowResult = std::result::Result<Sampled, RowFault>;

/// A device: where weights, activations and caches live, and the operations over them.
///
/// Operations are queued in order and may run later; their failures are reported by [`Device::collect`].
pub trait Device: Sized + Send + Sync + 'static {
    /// A vector, a matrix `[out, in]`, or several matrices joined along `out`, in the checkpoint's dtype.
    type Weight: Send + Sync;
    /// Activations `[rows, width]`; room for `rows` is allocated once, a step uses the first of them.
    type Tensor: Send + Sync;
    /// A rotary embedding's frequencies.
    type Rope: Send + Sync;
    /// One model's plane of the paged KV cache.
    type Cache: Send;
    /// Which branches of a mixture each row goes through, and the places of these visits.
    type Routing: Send + Sync;
    /// The step at hand where the operations find it, and the results of the steps before until they are collected.
    type Step: Send + Sync;
    /// A point in time.
    type Mark: Send;

    /// What it is, in a line for people.
    fn describe(&self) -> String;
    /// The same device as one of the models sees it. What is allocated, loaded and queued there is that model's.
    #[must_use]
    fn lane(&self, lane: Lane) -> Self;
    /// Whether the lanes have memory apart, such as that of two GPUs: then only [`Device::copy`] brings a tensor of one to
    /// the other, and not within [`Device::run`].
    fn is_split(&self) -> bool {
        false
    }
    /// Number format of activations.
    fn dtype(&self) -> Dtype;
    /// Number formats of this lane's weights and cache.
    fn format(&self) -> Format;
    /// Whether the numbers of a token are the same, bit for bit, whatever else is in the steps that compute its sequence and
    /// however the sequence is cut into them.
    fn is_deterministic(&self) -> bool;
    /// Brings `parts` to the device, joined along their first dimension (q|k|v, gate|up).
    fn weight(&self, parts: &[TensorView]) -> Result<Self::Weight>;
    /// A weight of `shape` made on the device, for measurements: a vector of ones, or a matrix (with three dimensions, as
    /// many as the first says, one below the other) of uniform numbers with variance `1 / columns`, drawn by `seed`.
    fn random_weight(&self, shape: &[usize], seed: u64) -> Result<Self::Weight>;
    /// As [`Device::weight`], of matrices of the layers: they are kept in this lane's [`Format::weights`].
    fn matrix(&self, parts: &[TensorView]) -> Result<Self::Weight>;
    /// As [`Device::random_weight`], of matrices of the layers.
    fn random_matrix(&self, shape: &[usize], seed: u64) -> Result<Self::Weight>;
    /// Room for activations `[rows, width]`.
    fn tensor(&self, rows: usize, width: usize, precision: Precision) -> Result<Self::Tensor>;
    /// Rotary frequencies, `[head_dim / 2]`; sine and cosine are multiplied by `scale` (yarn's attention factor).
    fn rope(&self, inverse_frequencies: &[f32], scale: f32) -> Result<Self::Rope>;
    /// A cache of the given shape.
    fn cache(&self, shape: CacheShape) -> Result<Self::Cache>;
    /// Bytes that [`Device::cache`] takes for one block of this shape.
    fn block_bytes(&self, shape: CacheShape) -> usize;
    /// Room for the routing of `rows` rows.
    fn routing(&self, rows: usize, shape: RoutingShape) -> Result<Self::Routing>;
    /// The memory of a lane of a device that has its own; `None` where it is the system's.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the device does not answer.
    fn memory_info(&self) -> Result<Option<MemoryInfo>>;
    /// Bytes that the cache may take of this lane's memory by default, once everything else is there.
    fn default_cache_bytes(&self) -> Result<usize>;
    /// Sizes of batches, in tokens up to `most`, each of which is to be run twice before [`Device::default_cache_bytes`]
    /// is asked: in the first run of a size the device chooses how to compute it, in the second it may record it.
    fn warm_up_sizes(&self, _most: usize) -> Vec<usize> {
        Vec::new()
    }
    /// Bytes of logits, of both models together, that are worth holding at once.
    fn logits_bytes(&self) -> usize;
    /// Tokens a step that keep the device busy.
    fn default_batched_tokens(&self) -> usize;
    /// Whether a step should be queued before the results of the one before are collected.
    fn runs_ahead(&self) -> bool;

    /// Lets a profiler that waits for it, such as `nsys profile --capture-range=cudaProfilerApi`, begin or end once what
    /// is queued is done.
    ///
    /// # Errors
    /// Where there is no profiler.
    fn profile(&self, _is_on: bool) -> Result<()> {
        Err(no_profiler())
    }

    /// Room for steps.
    fn step(&self, room: StepRoom<'_>) -> Result<Self::Step>;
    /// Makes `batch` the step at hand; row `i` of its outputs will be sampled by `rows[i]`. A row whose token should come
    /// from an output that the step before left to the amateur is in vain: nothing of it is kept, and its result, and what
    /// the cache then holds at its position, are anything.
    fn begin(&self, step: &mut Self::Step, batch: &Batch, rows: &[SampleRow]);
    /// Queues what `record` queues for the step at hand. `record` depends on nothing but the step and
    /// the variant, so a device may replay what it recorded for a step of the same shape.
    fn run(&self, step: &mut Self::Step, _variant: u32, mut record: impl FnMut(&Self, &mut Self::Step)) {
        record(self, step);
    }
    /// Runs both, at once where that is faster: `a` on the expert's lane, `b` on the amateur's.
    fn join<A: Send, B: Send>(
        &self,
        a: impl FnOnce(&Self) -> A + Send,
        b: impl FnOnce(&Self) -> B + Send,
    ) -> (A, B);
    /// Ends the step at hand: its results are on their way to the host.
    fn finish(&self, step: &mut Self::Step);
    /// The results of the oldest step that was finished and not collected, a row an output; waits for them.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the device failed: nothing that it computed since the last
    /// collection counts, and it must not be used any more.
    fn collect(&self, step: &mut Self::Step) -> Result<Vec<RowResult>>;

    /// Rows of activations of the step at hand: its tokens, and what a device pads them with.
    fn rows(&self, step: &Self::Step) -> usize;
    /// Outputs of the step at hand, padding included.
    fn outputs(&self, step: &Self::Step) -> usize;

    /// `out[tokens, width] = table[tokens] * scale`
    fn embed(&self, step: &Self::Step, table: &Self::Weight, scale: f32, out: &mut Self::Tensor);
    /// `residual += norm(delta)` where there is one, then `out = norm(residual)`, each by its own norm, or as it is where it
    /// has none; `[rows, width]`.
    fn rms_norm(
        &self,
        rows: usize,
        delta: Option<Delta<'_, Self>>,
        residual: &mut Self::Tensor,
        norm: Option<&Norm<Self::Weight>>,
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
    /// In `qkv[tokens, qkv_width]`: norms queries and keys where norms are given, rotates both by their positions (halves
    /// convention), and writes keys and values to the cache's `layer`.
    #[allow(clippy::too_many_arguments)]
    fn rope_store(
        &self,
        step: &Self::Step,
        heads: Heads,
        norms: Option<&HeadNorms<Self::Weight>>,
        rope: &Self::Rope,
        layer: usize,
        qkv: &mut Self::Tensor,
        cache: &mut Self::Cache,
    );
    /// Causal attention of every token over its sequence's cached keys and values; reads queries from
    /// `qkv[tokens, qkv_width]`, writes `out[tokens, query_width]`.
    fn attention(
        &self,
        step: &Self::Step,
        shape: AttentionShape,
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
    /// Chooses for each of the step's rows the branches of the greatest `logits[rows, branches]`, the lowest of those that
    /// tie, greatest first; their weights are softmax's. A NaN makes the weights of its own row NaN.
    fn route(&self, step: &Self::Step, logits: &Self::Tensor, routing: &mut Self::Routing);
    /// `out[place, n] = x[.., k] * w[branch, n, k]^T` for every place, by its branch and by the row of `x` that `rows` says.
    /// `w` is the branches' matrices, joined; none of the parts that it was joined of is of two branches.
    fn grouped_matmul(
        &self,
        step: &Self::Step,
        routing: &Self::Routing,
        rows: GroupedRows,
        x: &Self::Tensor,
        w: &Self::Weight,
        out: &mut Self::Tensor,
    );
    /// `out[row, width]`: the sum of `x[place, width]` times its weight over the row's places, in the order of its choices.
    fn weighted_sum(
        &self,
        step: &Self::Step,
        routing: &Self::Routing,
        x: &Self::Tensor,
        out: &mut Self::Tensor,
    );
    /// `out[outputs.len(), width] = x[step.outputs[outputs]]`
    fn gather(&self, step: &Self::Step, outputs: Range<usize>, x: &Self::Tensor, out: &mut Self::Tensor);
    /// Samples the step's `outputs` from their logits `[outputs.len(), vocabulary or more]`, on the expert's lane and
    /// from its memory; those of the expert lie in row [`SampleRow::kept`] where there is one. A row's fault is its own.
    fn contrast_sample(
        &self,
        step: &mut Self::Step,
        outputs: Range<usize>,
        expert: &Self::Tensor,
        amateur: Option<&Self::Tensor>,
    );

    /// How many times longer a step of one model takes alone than its part of a step of both side by side, where that has
    /// been measured.
    fn alone(&self) -> Option<f64> {
        None
    }

    /// What the products of a row add to a step, over the reading of the weights.
    fn row_cost(&self) -> f64 {
        0.0
    }

    /// Whether [`Device::contrast_sample_hidden`] costs less than all of the amateur's logits.
    fn gathers(&self) -> bool {
        false
    }
    /// As [`Device::contrast_sample`], before the amateur's logits are there: those of the rows' heads suffice, by its
    /// `hidden` states `[outputs.len(), hidden_size]` and its `head` `[vocab_size, hidden_size]`. `logits` is room for all
    /// of them.
    fn contrast_sample_hidden(
        &self,
        step: &mut Self::Step,
        outputs: Range<usize>,
        expert: &Self::Tensor,
        (hidden, head): (&Self::Tensor, &Self::Weight),
        logits: &mut Self::Tensor,
    ) {
        self.matmul(outputs.len(), hidden, head, None, logits);
        self.contrast_sample(step, outputs, expert, Some(logits));
    }
    /// What the last [`Device::contrast_sample_hidden`] of the step at hand computed; waits for it.
    fn projections(&self, step: &Self::Step) -> Projections {
        Projections { gathered: 0, full: self.outputs(step) }
    }

    /// Samples those of the step's `outputs` that need no amateur: rows that keep nothing, by the expert alone, and rows
    /// whose head is one token. The logits of the others go to their rows of `kept[rows, vocabulary or more]`, and
    /// [`Device::collect_settled`] has no result of them.
    fn settle(
        &self,
        step: &mut Self::Step,
        outputs: Range<usize>,
        expert: &Self::Tensor,
        kept: &mut Self::Tensor,
    );
    /// As [`Device::collect`], of a step whose outputs may have been settled.
    ///
    /// # Errors
    /// Those of [`Device::collect`].
    fn collect_settled(&self, step: &mut Self::Step) -> Result<Vec<Option<RowResult>>>;
    /// Copies a block of the cache into another.
    fn copy_block(&self, cache: &mut Self::Cache, from: BlockId, to: BlockId);

    /// Rows, columns (1 for a vector) and bytes of a weight.
    fn weight_size(&self, weight: &Self::Weight) -> WeightSize;
    /// The width of activations.
    fn width(&self, x: &Self::Tensor) -> usize;
    /// `out = x`, the first `rows` rows; `out` may be the other lane's.
    fn copy(&self, rows: usize, x: &Self::Tensor, out: &mut Self::Tensor);
    /// A point in the order of what is queued.
    fn mark(&self) -> Self::Mark;
    /// Seconds from one mark to a later one; waits for both.
    ///
    /// # Errors
    /// Those of [`Device::collect`].
    fn seconds(&self, from: &Self::Mark, to: &Self::Mark) -> Result<f64>;
    /// Fills the first rows of `x`, row by row.
    fn upload(&self, values: &[f32], x: &mut Self::Tensor);
    /// The first `rows` rows of `x`, row by row, as f32; waits for them.
    fn download(&self, rows: usize, x: &Self::Tensor) -> Vec<f32>;
    /// What was chosen for the first `rows` rows, `[rows, active]`; waits for it. Rows of padding hold anything.
    fn choices(&self, rows: usize, routing: &Self::Routing) -> Vec<Choice>;
}
