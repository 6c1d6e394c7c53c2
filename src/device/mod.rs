//! The `Device` trait: fused operations, each worth a kernel, over the device's own buffers.
//!
//! Shapes are in brackets. A batch has `tokens` rows of activations, made of ragged *spans*. A span is a run of
//! consecutive tokens of one sequence: a prefill chunk or a single decode token.

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
pub use types::attention::{AttentionShape, CacheLayer, CacheShape, Heads, LayerKind, PerKind};
pub use types::batch::{Batch, Capacity, Decision, PendingToken, RowResult, SampleRow, Span};
pub use types::logits::{AmateurLogits, ExpertLogits, Projections, Unprojected};
pub use types::norm::{Activation, HeadNorms, Norm, NormScope};
pub use types::pass::Pass;
pub use types::role::Role;
pub use types::routing::{Choice, GroupedRows, RoutingShape};
pub use types::tensor::TensorView;
pub use types::weight::{WeightKind, WeightSource};

/// The input that a block adds to the residual: its activations, and the norm that is applied to them first, if there
/// is one.
pub type Delta<'a, D> = (&'a <D as Device>::Tensor, Option<&'a Norm<<D as Device>::Weight>>);

/// A device: it holds weights, activations and caches, and runs the operations over them.
///
/// Operations are queued in order and may run later. [`Device::collect`] reports their failures.
pub trait Device: Sized + Send + Sync + 'static {
    /// A vector, a matrix `[out, in]`, or several matrices joined along `out`.
    type Weight: Send + Sync;
    /// Activations `[rows, width]`. The rows are allocated once; a step uses the first of them.
    type Tensor: Send + Sync;
    /// A rotary embedding's frequencies.
    type Rope: Send + Sync;
    /// One model's plane of the paged KV cache.
    type Cache: Send;
    /// The branches of a mixture that each row uses, and the places of these visits.
    type Routing: Send + Sync;
    /// The current step as the operations see it, and the results of earlier steps until they are collected.
    type Step: Send + Sync;

    /// The properties of the device, and the settings that suit it.
    fn info(&self) -> &DeviceInfo;
    /// The same device in the role of one model. Memory that is allocated and work that is queued there belong to
    /// that model.
    #[must_use]
    fn role(&self, role: Role) -> Self;

    /// Loads a weight.
    ///
    /// # Errors
    /// Tensors that cannot be joined, or too little memory.
    fn load(&self, source: WeightSource<'_>, kind: WeightKind) -> Result<Self::Weight>;
    /// Rows, columns (1 for a vector) and bytes of a weight.
    fn weight_size(&self, weight: &Self::Weight) -> WeightSize;
    /// Allocates activations `[rows, width]`.
    fn tensor(&self, rows: usize, width: usize, precision: Precision) -> Result<Self::Tensor>;
    /// Allocates logits `[rows, width]` in [`Precision::Single`]. Logits that [`Device::matmul`] writes there can be
    /// sampled, even if each model has its own memory.
    fn logits(&self, rows: usize, width: usize) -> Result<Self::Tensor> {
        self.tensor(rows, width, Precision::Single)
    }
    /// Loads rotary frequencies, `[head_dim / 2]`. Sine and cosine are multiplied by `scale` (yarn's attention
    /// factor).
    fn rope(&self, inverse_frequencies: &[f32], scale: f32) -> Result<Self::Rope>;
    /// Allocates a cache of the given shape.
    fn cache(&self, shape: CacheShape) -> Result<Self::Cache>;
    /// Bytes that [`Device::cache`] takes for one block of each kind.
    fn block_bytes(&self, shape: CacheShape) -> PerKind<usize>;
    /// Allocates the routing of `rows` rows.
    fn routing(&self, rows: usize, shape: RoutingShape) -> Result<Self::Routing>;
    /// Allocates steps of at most `capacity` that sample from `vocabulary`. Their block tables of each kind together
    /// have at most `table_blocks` entries.
    fn step(
        &self,
        capacity: Capacity,
        table_blocks: PerKind<usize>,
        vocabulary: &Vocabulary,
    ) -> Result<Self::Step>;

    /// The memory of this role; `None` if the device uses the system's memory.
    ///
    /// # Errors
    /// [`Error::Device`] if the device does not answer.
    fn memory_info(&self) -> Result<Option<MemoryInfo>>;
    /// Bytes of this role's memory that the cache may take by default, once everything else is allocated.
    ///
    /// # Errors
    /// Those of [`Device::memory_info`].
    fn default_cache_bytes(&self) -> Result<usize>;
    /// Numbers of tokens up to `most` that a warm-up should run, twice each, before it asks for
    /// [`Device::default_cache_bytes`]. In the first run of a size the device chooses algorithms; in the second it
    /// may record the step.
    fn warm_up_sizes(&self, _most: usize) -> Vec<usize> {
        Vec::new()
    }
    /// Tells a profiler that waits for it, such as `nsys profile --capture-range=cudaProfilerApi`, to begin or to end
    /// once the queued work is done.
    ///
    /// # Errors
    /// If there is no profiler.
    fn profile(&self, _is_on: bool) -> Result<()> {
        Err(Error::Setting(info::NO_PROFILER.to_owned()))
    }

    /// Makes `batch` the current step. Row `i` of its outputs will be sampled as `rows[i]` says. A row whose token
    /// should come from an output that the previous step left to the amateur has no token: its result is discarded,
    /// and its result and its position in the cache hold arbitrary values.
    fn prepare(&self, step: &mut Self::Step, batch: &Batch, rows: &[SampleRow]);
    /// Queues the work of the current step: that of `forward`, then that of `sample`. `forward` uses each model's own
    /// memory only. Both depend on nothing but the step, its pass and `models`, which is always the same, so a device
    /// may replay what it recorded for an earlier step of the same shape and pass.
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
    /// Runs `a` in the expert's role and `b` in the amateur's, concurrently if that is faster.
    fn join<A: Send, B: Send>(
        &self,
        a: impl FnOnce(&Self) -> A + Send,
        b: impl FnOnce(&Self) -> B + Send,
    ) -> (A, B);
    /// Ends the current step and starts the transfer of its results to the host.
    fn submit(&self, step: &mut Self::Step);
    /// Waits for the oldest step that is submitted and not collected; returns one result per output.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed. Everything computed since the last collection is then invalid, and the
    /// device must not be used any more.
    fn collect(&self, step: &mut Self::Step) -> Result<Vec<RowResult>>;

    /// Rows of activations of the current step: its tokens, and the device's padding.
    fn rows(&self, step: &Self::Step) -> usize;
    /// Outputs of the current step, padding included.
    fn outputs(&self, step: &Self::Step) -> usize;

    /// `out[tokens, width] = table[tokens] * scale`
    fn embed(&self, step: &Self::Step, table: &Self::Weight, scale: f32, out: &mut Self::Tensor);
    /// `residual += norm(delta)` if there is a delta, then `out = norm(residual)`. Each norm is optional. `[rows,
    /// width]`.
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
    /// In `qkv[tokens, qkv_width]`: normalizes queries and keys if there are norms, rotates both by their positions
    /// (halves convention), and writes keys and values to the cache's `layer`.
    #[allow(clippy::too_many_arguments)]
    fn rope_store(
        &self,
        step: &Self::Step,
        heads: Heads,
        norms: Option<&HeadNorms<Self::Weight>>,
        rope: &Self::Rope,
        layer: CacheLayer,
        qkv: &mut Self::Tensor,
        cache: &mut Self::Cache,
    );
    /// Causal attention of every token over its sequence's cached keys and values. Reads queries from `qkv[tokens,
    /// qkv_width]` and writes `out[tokens, query_width]`.
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
    /// Chooses for each row of the step the branches with the greatest `logits[rows, branches]`, greatest first, the
    /// lowest branch among equals. Their weights are a softmax. A NaN makes the weights of its own row NaN.
    fn route(&self, step: &Self::Step, logits: &Self::Tensor, routing: &mut Self::Routing);
    /// `out[place, n] = x[.., k] * w[branch, n, k]^T` for every place, with its branch and the row of `x` that `rows`
    /// selects. `w` joins the branches' matrices; each of its parts belongs to one branch.
    fn grouped_matmul(
        &self,
        step: &Self::Step,
        routing: &Self::Routing,
        rows: GroupedRows,
        x: &Self::Tensor,
        w: &Self::Weight,
        out: &mut Self::Tensor,
    );
    /// `out[row, width]`: the sum over the row's places of `x[place, width]` times the place's weight, in the order
    /// of the row's choices.
    fn weighted_sum(
        &self,
        step: &Self::Step,
        routing: &Self::Routing,
        x: &Self::Tensor,
        out: &mut Self::Tensor,
    );
    /// `out[outputs.len(), width] = x[step.outputs[outputs]]`
    fn gather(&self, step: &Self::Step, outputs: Range<usize>, x: &Self::Tensor, out: &mut Self::Tensor);
    /// Samples the step's `outputs` from the logits of both models, in the expert's role. A faulty row affects no
    /// other row.
    fn sample(
        &self,
        step: &mut Self::Step,
        outputs: Range<usize>,
        expert: ExpertLogits<'_, Self::Tensor>,
        amateur: AmateurLogits<'_, Self::Tensor, Self::Weight>,
    );
    /// Copies one of the cache's blocks of a kind to another.
    fn copy_block(&self, cache: &mut Self::Cache, kind: LayerKind, from: BlockId, to: BlockId);
}
