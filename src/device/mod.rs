//! What a device does: a dozen fused operations, each worth a kernel, over its own buffers.
//!
//! Shapes are in brackets. A batch has `tokens` rows of activations, made of ragged *spans*: a span is a run of
//! consecutive tokens of one sequence, a prefill chunk or a single decode token alike.

use std::ops::Range;

use crate::contrast::Vocabulary;
use crate::error::{Error, Result};
use crate::ids::BlockId;

pub mod cpu;
pub mod cuda;
pub mod gpu;
#[doc(hidden)] // Its types are found here.
pub mod info;
#[doc(hidden)] // For the program's `bench` and `doctor`, and for the tests.
pub mod inspect;
#[doc(hidden)] // For the tests.
pub mod number;
#[doc(hidden)] // For the tests, and for the program's `--device simt`: the GPU's kernels on the host.
pub mod simt;
mod trace;
#[doc(hidden)] // Its types are found here.
pub mod types;

pub use info::{DeviceInfo, MemoryInfo, Precision, WeightSize};
pub use number::dtype::{Dtype, Format};
pub use types::attention::{AttentionShape, CacheShape, Heads};
pub use types::batch::{Batch, Capacity, Decision, PendingToken, RowResult, SampleRow, Span};
pub use types::logits::{AmateurLogits, ExpertLogits, Projections, Unprojected};
pub use types::norm::{Activation, HeadNorms, Norm, NormScope};
pub use types::pass::Pass;
pub use types::role::Role;
pub use types::routing::{Choice, GroupedRows, RoutingShape};
pub use types::tensor::TensorView;
pub use types::weight::{WeightKind, WeightSource};

/// What a block adds to the residual: the activations, and the norm that they are given first where there is one.
pub type Delta<'a, D> = (&'a <D as Device>::Tensor, Option<&'a Norm<<D as Device>::Weight>>);

/// A device: where weights, activations and caches live, and the operations over them.
///
/// Operations are queued in order and may run later; their failures are reported by [`Device::collect`].
pub trait Device: Sized + Send + Sync + 'static {
    /// A vector, a matrix `[out, in]`, or several matrices joined along `out`.
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

    /// What the device is, and how it is best used.
    fn info(&self) -> &DeviceInfo;
    /// The same device as one of the models sees it. What is allocated, loaded and queued there is that model's.
    #[must_use]
    fn role(&self, role: Role) -> Self;

    /// Brings a weight to the device.
    ///
    /// # Errors
    /// Tensors that cannot be joined, or too little memory.
    fn load(&self, source: WeightSource<'_>, kind: WeightKind) -> Result<Self::Weight>;
    /// Rows, columns (1 for a vector) and bytes of a weight.
    fn weight_size(&self, weight: &Self::Weight) -> WeightSize;
    /// Room for activations `[rows, width]`.
    fn tensor(&self, rows: usize, width: usize, precision: Precision) -> Result<Self::Tensor>;
    /// Room for logits `[rows, width]` in [`Precision::Single`]. What [`Device::matmul`] writes there can be sampled from,
    /// even where the models have memory apart.
    fn logits(&self, rows: usize, width: usize) -> Result<Self::Tensor> {
        self.tensor(rows, width, Precision::Single)
    }
    /// Rotary frequencies, `[head_dim / 2]`; sine and cosine are multiplied by `scale` (yarn's attention factor).
    fn rope(&self, inverse_frequencies: &[f32], scale: f32) -> Result<Self::Rope>;
    /// A cache of the given shape.
    fn cache(&self, shape: CacheShape) -> Result<Self::Cache>;
    /// Bytes that [`Device::cache`] takes for one block of this shape.
    fn block_bytes(&self, shape: CacheShape) -> usize;
    /// Room for the routing of `rows` rows.
    fn routing(&self, rows: usize, shape: RoutingShape) -> Result<Self::Routing>;
    /// Room for steps of at most `capacity`, whose block tables together have at most `table_blocks` entries, and which
    /// sample from `vocabulary`.
    fn step(&self, capacity: Capacity, table_blocks: usize, vocabulary: &Vocabulary) -> Result<Self::Step>;

    /// The memory of this role, where the device has memory of its own; `None` where it is the system's.
    ///
    /// # Errors
    /// [`Error::Device`] if the device does not answer.
    fn memory_info(&self) -> Result<Option<MemoryInfo>>;
    /// Bytes that the cache may take of this role's memory by default, once everything else is there.
    ///
    /// # Errors
    /// Those of [`Device::memory_info`].
    fn default_cache_bytes(&self) -> Result<usize>;
    /// Sizes of batches, in tokens up to `most`, each of which is to be run twice before [`Device::default_cache_bytes`]
    /// is asked: in the first run of a size the device chooses how to compute it, in the second it may record it.
    fn warm_up_sizes(&self, _most: usize) -> Vec<usize> {
        Vec::new()
    }
    /// Lets a profiler that waits for it, such as `nsys profile --capture-range=cudaProfilerApi`, begin or end once what
    /// is queued is done.
    ///
    /// # Errors
    /// Where there is no profiler.
    fn profile(&self, _is_on: bool) -> Result<()> {
        Err(Error::Setting(info::NO_PROFILER.to_owned()))
    }

    /// Makes `batch` the step at hand; row `i` of its outputs will be sampled by `rows[i]`. A row whose token should come
    /// from an output that the step before left to the amateur is in vain: nothing of it is kept, and its result, and what
    /// the cache then holds at its position, are anything.
    fn prepare(&self, step: &mut Self::Step, batch: &Batch, rows: &[SampleRow]);
    /// Queues the work of the step at hand: what `forward` queues, then what `sample` queues. `forward` uses each model's own
    /// memory alone. Both depend on nothing but the step, its pass and `models`, which are always the same, so a device may
    /// replay what it recorded for an earlier step of the same shape and pass.
    fn run<M>(
        &self,
        step: &mut Self::Step,
        _pass: Pass,
        models: &mut M,
        mut forward: impl FnMut(&Self, &mut Self::Step, &mut M),
        mut sample: impl FnMut(&Self, &mut Self::Step, &mut M),
    ) {
        forward(self, step, models);
        sample(self, step, models);
    }
    /// Runs both, at once where that is faster: `a` in the expert's role, `b` in the amateur's.
    fn join<A: Send, B: Send>(
        &self,
        a: impl FnOnce(&Self) -> A + Send,
        b: impl FnOnce(&Self) -> B + Send,
    ) -> (A, B);
    /// Ends the step at hand: its results are on their way to the host.
    fn submit(&self, step: &mut Self::Step);
    /// The results of the oldest step that was submitted and not collected, one for each of its outputs; waits for them.
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
    /// Samples the step's `outputs` from the logits of both models, in the expert's role. A row's fault is its own.
    fn sample(
        &self,
        step: &mut Self::Step,
        outputs: Range<usize>,
        expert: ExpertLogits<'_, Self::Tensor>,
        amateur: AmateurLogits<'_, Self::Tensor, Self::Weight>,
    );
    /// Copies a block of the cache into another.
    fn copy_block(&self, cache: &mut Self::Cache, from: BlockId, to: BlockId);
}
