//! What a device does: a dozen fused operations, each worth a kernel, over its own buffers.
//!
//! Shapes are in brackets. A batch has `tokens` rows of activations, made of ragged *spans*: a span is a run of
//! consecutive tokens of one sequence, a prefill chunk or a single decode token alike.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::ids::BlockId;

pub mod cpu;
pub mod cuda;
pub mod gpu;
#[doc(hidden)] // Its types are found here.
pub mod info;
#[doc(hidden)] // For the tests.
pub mod number;
#[doc(hidden)] // For the tests, and for the program's `--device simt`: the GPU's kernels on the host.
pub mod simt;
#[doc(hidden)] // Its types are found here.
pub mod types;

pub use info::{MemoryInfo, Precision, Projections, WeightSize};
pub use number::dtype::{Dtype, Format};
pub use types::attention::{AttentionShape, CacheShape, Heads};
pub use types::batch::{Batch, PendingToken, RowResult, SampleRow, Span, StepCapacity};
pub use types::norm::{Activation, HeadNorms, Norm, NormScope};
pub use types::role::Role;
pub use types::routing::{Choice, GroupedRows, RoutingShape};
pub use types::tensor::TensorView;

/// What a block adds to the residual: the activations, and the norm that they are given first where there is one.
pub type Delta<'a, D> = (&'a <D as Device>::Tensor, Option<&'a Norm<<D as Device>::Weight>>);

fn no_profiler() -> Error {
    Error::Setting("this device cannot be profiled by step; --device cuda can".to_owned())
}

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
    fn role(&self, role: Role) -> Self;
    /// Whether the streams have memory apart, such as that of two GPUs: then only [`Device::copy`] brings a tensor of one to
    /// the other, and not within [`Device::run`].
    fn is_split(&self) -> bool {
        false
    }
    /// Number format of activations.
    fn dtype(&self) -> Dtype;
    /// Number formats of this stream's weights and cache.
    fn format(&self) -> Format;
    /// Whether the numbers of a token are the same, bit for bit, whatever else is in the steps that compute its sequence and
    /// however the sequence is cut into them.
    fn is_deterministic(&self) -> bool;
    /// Brings `parts` to the device, joined along their first dimension (q|k|v, gate|up).
    fn weight(&self, parts: &[TensorView]) -> Result<Self::Weight>;
    /// A weight of `shape` made on the device, for measurements: a vector of ones, or a matrix (with three dimensions, as
    /// many as the first says, one below the other) of uniform numbers with variance `1 / columns`, drawn by `seed`.
    fn random_weight(&self, shape: &[usize], seed: u64) -> Result<Self::Weight>;
    /// As [`Device::weight`], of matrices of the layers: they are kept in this stream's [`Format::weights`].
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
    /// The memory of a stream of a device that has its own; `None` where it is the system's.
    ///
    /// # Errors
    /// [`Error::Device`] if the device does not answer.
    fn memory_info(&self) -> Result<Option<MemoryInfo>>;
    /// Bytes that the cache may take of this stream's memory by default, once everything else is there.
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
    fn step(&self, room: StepCapacity<'_>) -> Result<Self::Step>;
    /// Makes `batch` the step at hand; row `i` of its outputs will be sampled by `rows[i]`. A row whose token should come
    /// from an output that the step before left to the amateur is in vain: nothing of it is kept, and its result, and what
    /// the cache then holds at its position, are anything.
    fn begin(&self, step: &mut Self::Step, batch: &Batch, rows: &[SampleRow]);
    /// Queues what `record` queues for the step at hand. `record` depends on nothing but the step and
    /// the variant, so a device may replay what it recorded for a step of the same shape.
    fn run(&self, step: &mut Self::Step, _variant: u32, mut record: impl FnMut(&Self, &mut Self::Step)) {
        record(self, step);
    }
    /// Runs both, at once where that is faster: `a` on the expert's stream, `b` on the amateur's.
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
    /// [`Error::Device`] if the device failed: nothing that it computed since the last
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
    /// Samples the step's `outputs` from their logits `[outputs.len(), vocabulary or more]`, on the expert's stream and
    /// from its memory; those of the expert lie in row [`SampleRow::deferred_row`] where there is one. A row's fault is its own.
    fn contrast_sample(
        &self,
        step: &mut Self::Step,
        outputs: Range<usize>,
        expert: &Self::Tensor,
        amateur: Option<&Self::Tensor>,
    );

    /// How many times longer a step of one model takes alone than its part of a step of both side by side, where that has
    /// been measured.
    fn solo_slowdown(&self) -> Option<f64> {
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
    /// whose head is one token. The logits of the others go to their rows of `deferred_logits[rows, vocabulary or more]`, and
    /// [`Device::collect_settled`] has no result of them.
    fn settle(
        &self,
        step: &mut Self::Step,
        outputs: Range<usize>,
        expert: &Self::Tensor,
        deferred_logits: &mut Self::Tensor,
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
    /// `out = x`, the first `rows` rows; `out` may be the other stream's.
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
