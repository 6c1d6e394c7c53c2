//! A device that is a [`GpuRuntime`] and our kernels: the geometry and the arguments of every launch, once, for the GPU
//! and for its stand-in on the host.

use std::ops::Range;
use std::sync::Arc;

use super::{
    Activation, AttentionShape, Batch, CacheShape, Choice, Delta, Device, Dtype, Format, GroupedRows,
    HeadNorms, Heads, MemoryInfo, Norm, Precision, Projections, RoutingShape, RowResult, SampleRow,
    StepCapacity, TensorView, WeightSize,
};
use crate::device::number::convert::convert;
use crate::error::{Error, Result};
use crate::ids::BlockId;

mod abi;
mod inputs;
pub mod ledger;
mod ops;
mod padding;
pub mod runtime;
mod sections;

pub use inputs::Step;
use ops::grouped_matmul::Groups;
pub use ops::mixture::Routing;
use ops::{attention, grouped_matmul, matrix, mixture, random_weight, rows, sample};
pub use padding::bucket;
use padding::buckets;
use runtime::{GpuRuntime, Matmul, Role};

/// Tokens a step: enough that weights are read for many rows, few enough that decoding rows do not wait long.
pub const BATCHED_TOKENS: usize = 2048;

/// What a launcher is made with.
#[derive(Debug, Clone, Copy)]
pub struct GpuConfig {
    /// The expert's and the amateur's. Weights are [`Dtype::Bf16`], [`Dtype::F32`] or [`Dtype::F8E4m3`], the cache is as
    /// activations are ([`Format::working`]) or [`Dtype::F8E4m3`].
    pub formats: [Format; 2],
    /// Part of the runtime's memory that may be used in all, `0..=1`.
    pub memory_utilization: f64,
    /// Whether a row's bits must depend on nothing but the row: one algorithm for products of any number of rows, one
    /// attention kernel for prompts and decoding.
    pub is_deterministic: bool,
}

/// Both models in bfloat16, in nine tenths of the memory.
impl Default for GpuConfig {
    fn default() -> Self {
        Self { memory_utilization: 0.9, ..Self::of(Format::of(Dtype::Bf16)) }
    }
}

impl GpuConfig {
    /// Both models in one format, in all of the memory.
    pub fn of(format: Format) -> Self {
        Self { formats: [format; 2], memory_utilization: 1.0, is_deterministic: false }
    }
}

/// The device.
pub struct GpuDevice<R> {
    runtime: Arc<R>,
    role: Role,
    config: GpuConfig,
}

/// A vector, or a matrix `[rows, columns]`.
pub struct Weight<R: GpuRuntime> {
    memory: R::Memory,
    /// `[rows]` f32, of a matrix of e4m3.
    scales: Option<R::Memory>,
    dtype: Dtype,
    rows: usize,
    columns: usize,
}

/// Activations `[rows, width]`.
pub struct Tensor<R: GpuRuntime> {
    memory: R::Memory,
    width: usize,
    dtype: Dtype,
}

/// A rotary embedding's frequencies, `[head_dim / 2]` f32.
pub struct Rope<R: GpuRuntime> {
    memory: R::Memory,
    scale: f32,
}

/// Keys and values, `[layers, blocks, 2, heads, block_size, head_dim]` in the stream's format: a block's keys, then its
/// values.
pub struct Cache<R: GpuRuntime> {
    memory: R::Memory,
    /// `[layers, blocks, 2, heads, block_size]` f32, where the format has a scale for each row.
    scales: Option<R::Memory>,
    shape: CacheShape,
    dtype: Dtype,
    /// What attention's splits leave for one another.
    partials: R::Memory,
}

impl<R: GpuRuntime> Cache<R> {
    /// Keys and values.
    pub fn memory(&self) -> &R::Memory {
        &self.memory
    }

    /// Their scales.
    pub fn scales(&self) -> Option<&R::Memory> {
        self.scales.as_ref()
    }

    /// Where the kernels find the keys and values of a layer, and their scales; 0 where there are none.
    fn addresses(&self, runtime: &R, layer: usize) -> [u64; 2] {
        let CacheShape { blocks, heads, block_size, head_dim, .. } = self.shape;
        let rows = layer * blocks * 2 * heads * block_size;
        let scales =
            self.scales.as_ref().map(|scales| runtime.address(scales) + (rows * size_of::<f32>()) as u64);
        [runtime.address(&self.memory) + (rows * head_dim * self.dtype.size()) as u64, scales.unwrap_or(0)]
    }
}

impl<R: GpuRuntime> GpuDevice<R> {
    /// A device over `runtime`.
    pub fn new(runtime: R, config: GpuConfig) -> Self {
        Self { runtime: Arc::new(runtime), role: Role::Expert, config }
    }

    /// The runtime.
    pub fn runtime(&self) -> &R {
        &self.runtime
    }

    /// Queues a kernel on this launcher's stream.
    fn launch(&self, launch: &runtime::Launch, parameters: &impl bytemuck::NoUninit) {
        self.runtime.launch(self.role, launch, bytemuck::bytes_of(parameters));
    }

    fn address(&self, memory: &R::Memory) -> u64 {
        self.runtime.address(memory)
    }

    /// Memory of this launcher's stream.
    fn allocate(&self, bytes: usize) -> Result<R::Memory> {
        self.runtime.allocate(self.role, bytes)
    }

    /// The kernel of this launcher's dtype.
    fn kernel(&self, bf16: &'static str, f32: &'static str) -> &'static str {
        if self.dtype() == Dtype::F32 { f32 } else { bf16 }
    }

    /// The kernel of this launcher's dtype for `cache`: one of its own format, or of e4m3.
    fn cache_kernel(
        &self,
        cache: &Cache<R>,
        own: [&'static str; 2],
        e4m3: [&'static str; 2],
    ) -> &'static str {
        let [bf16, f32] = if cache.dtype == Dtype::F8E4m3 { e4m3 } else { own };
        self.kernel(bf16, f32)
    }
}

impl<R: GpuRuntime> Device for GpuDevice<R> {
    type Weight = Weight<R>;
    type Tensor = Tensor<R>;
    type Rope = Rope<R>;
    type Cache = Cache<R>;
    type Routing = Routing<R>;
    type Step = Step<R>;
    type Mark = R::Mark;

    fn describe(&self) -> String {
        self.runtime.describe()
    }

    fn role(&self, role: Role) -> Self {
        Self { runtime: Arc::clone(&self.runtime), role, config: self.config }
    }

    fn is_split(&self) -> bool {
        self.runtime.is_split()
    }

    fn dtype(&self) -> Dtype {
        self.format().working()
    }

    fn format(&self) -> Format {
        self.config.formats[self.role as usize]
    }

    fn is_deterministic(&self) -> bool {
        self.config.is_deterministic
    }

    fn weight(&self, parts: &[TensorView]) -> Result<Weight<R>> {
        let Some(first) = parts.first() else {
            return Err(Error::Device("a weight of no parts".to_owned()));
        };
        let columns = first.shape.get(1..).unwrap_or(&[]).iter().product::<usize>();
        let rows = parts.iter().map(|part| part.shape.first().copied().unwrap_or(1)).sum::<usize>();
        let dtype = self.dtype();
        let bytes = rows * columns * dtype.size();
        let memory = self.allocate(bytes)?;
        self.runtime.fill(self.role, &memory, bytes, &mut |offset, piece| {
            let mut begin = 0;
            let end = offset + piece.len();
            for part in parts {
                let elements = part.bytes().len() / part.dtype.size();
                let place = begin..begin + elements * dtype.size();
                let shared = place.start.max(offset)..place.end.min(end);
                if shared.start < shared.end {
                    let first = (shared.start - begin) / dtype.size() * part.dtype.size();
                    let target = &mut piece[shared.start - offset..shared.end - offset];
                    convert(&part.bytes()[first..], part.dtype, target, dtype);
                }
                begin = place.end;
            }
        })?;
        Ok(Weight { memory, scales: None, dtype, rows, columns })
    }

    fn random_weight(&self, shape: &[usize], seed: u64) -> Result<Weight<R>> {
        let columns = if shape.len() > 1 { shape[shape.len() - 1] } else { 1 };
        let rows = shape.iter().product::<usize>() / columns.max(1);
        let memory = self.allocate(rows * columns * self.dtype().size())?;
        random_weight::random_weight(self, shape, seed, &memory);
        Ok(Weight { memory, scales: None, dtype: self.dtype(), rows, columns })
    }

    fn matrix(&self, parts: &[TensorView]) -> Result<Weight<R>> {
        match self.format().weights {
            Dtype::F8E4m3 => matrix::rounded(self, parts),
            _ => self.weight(parts),
        }
    }

    fn random_matrix(&self, shape: &[usize], seed: u64) -> Result<Weight<R>> {
        match self.format().weights {
            Dtype::F8E4m3 => matrix::random(self, shape, seed),
            _ => self.random_weight(shape, seed),
        }
    }

    fn tensor(&self, rows: usize, width: usize, precision: Precision) -> Result<Tensor<R>> {
        let dtype = match precision {
            Precision::Working => self.dtype(),
            Precision::Single => Dtype::F32,
        };
        Ok(Tensor { memory: self.allocate(rows * width * dtype.size())?, width, dtype })
    }

    fn rope(&self, inverse_frequencies: &[f32], scale: f32) -> Result<Rope<R>> {
        let memory = self.allocate(size_of_val(inverse_frequencies))?;
        self.runtime.write(self.role, &memory, bytemuck::cast_slice(inverse_frequencies));
        Ok(Rope { memory, scale })
    }

    fn cache(&self, shape: CacheShape) -> Result<Cache<R>> {
        let dtype = self.format().cache;
        attention::check(shape, self.format())?;
        let rows = shape.blocks * rows_a_block(shape);
        let scales = dtype.row_bytes(0) * rows;
        Ok(Cache {
            memory: self.allocate(rows * shape.head_dim * dtype.size())?,
            scales: (scales > 0).then(|| self.allocate(scales)).transpose()?,
            shape,
            dtype,
            partials: self.allocate(attention::partial_bytes(shape) * shape.blocks)?,
        })
    }

    fn block_bytes(&self, shape: CacheShape) -> usize {
        rows_a_block(shape) * self.format().cache.row_bytes(shape.head_dim) + attention::partial_bytes(shape)
    }

    fn routing(&self, rows: usize, shape: RoutingShape) -> Result<Routing<R>> {
        Routing::new(self, rows, shape)
    }

    fn memory_info(&self) -> Result<Option<MemoryInfo>> {
        self.runtime.memory_info(self.role).map(Some)
    }

    fn default_cache_bytes(&self) -> Result<usize> {
        let memory = self.runtime.memory_info(self.role)?;
        let used = memory.total - memory.free;
        let may_use = (memory.total as f64 * self.config.memory_utilization) as usize;
        Ok(may_use.saturating_sub(used + self.runtime.recording_bytes(self.role)))
    }

    fn warm_up_sizes(&self, most: usize) -> Vec<usize> {
        if self.runtime.warms_up() { buckets(most) } else { Vec::new() }
    }

    fn logits_bytes(&self) -> usize {
        usize::MAX
    }

    fn default_batched_tokens(&self) -> usize {
        BATCHED_TOKENS
    }

    fn runs_ahead(&self) -> bool {
        self.runtime.runs_ahead()
    }

    fn profile(&self, is_on: bool) -> Result<()> {
        self.runtime.profile(is_on)
    }

    fn step(&self, room: StepCapacity<'_>) -> Result<Step<R>> {
        Step::new(&self.runtime, room, self.config.is_deterministic)
    }

    fn begin(&self, step: &mut Step<R>, batch: &Batch, rows: &[SampleRow]) {
        step.begin(&self.runtime, batch, rows);
    }

    fn run(&self, step: &mut Step<R>, variant: u32, record: impl FnMut(&Self, &mut Step<R>)) {
        let mut record = record;
        match step.replay_key(variant) {
            Some(key) => self.runtime.replay(key, &mut || record(self, step)),
            None => record(self, step),
        }
    }

    fn join<A: Send, B: Send>(
        &self,
        a: impl FnOnce(&Self) -> A + Send,
        b: impl FnOnce(&Self) -> B + Send,
    ) -> (A, B) {
        self.runtime.fork();
        let both = (a(&self.role(Role::Expert)), b(&self.role(Role::Amateur)));
        self.runtime.join();
        both
    }

    fn finish(&self, step: &mut Step<R>) {
        step.finish(&self.runtime);
    }

    fn collect(&self, step: &mut Step<R>) -> Result<Vec<RowResult>> {
        Ok(step.collect(&self.runtime)?.into_iter().flatten().collect())
    }

    fn rows(&self, step: &Step<R>) -> usize {
        step.tokens
    }

    fn outputs(&self, step: &Step<R>) -> usize {
        step.outputs
    }

    fn embed(&self, step: &Step<R>, table: &Weight<R>, scale: f32, out: &mut Tensor<R>) {
        rows::embed(self, step, table, scale, out);
    }

    fn rms_norm(
        &self,
        rows: usize,
        delta: Option<Delta<'_, Self>>,
        residual: &mut Tensor<R>,
        norm: Option<&Norm<Weight<R>>>,
        out: &mut Tensor<R>,
    ) {
        rows::rms_norm(self, rows, delta, residual, norm, out);
    }

    fn matmul(
        &self,
        rows: usize,
        x: &Tensor<R>,
        w: &Weight<R>,
        bias: Option<&Weight<R>>,
        out: &mut Tensor<R>,
    ) {
        if w.dtype == Dtype::F8E4m3 {
            return grouped_matmul::grouped_matmul(self, Groups::one(rows), x, w, bias, out);
        }
        let matmul = Matmul {
            rows,
            outputs: w.rows,
            inputs: w.columns,
            dtype: x.dtype,
            out_dtype: out.dtype,
            x: self.address(&x.memory),
            weight: self.address(&w.memory),
            bias: bias.map(|bias| self.address(&bias.memory)),
            out: self.address(&out.memory),
        };
        self.runtime.matmul(self.role, &matmul);
    }

    fn rope_store(
        &self,
        step: &Step<R>,
        heads: Heads,
        norms: Option<&HeadNorms<Weight<R>>>,
        rope: &Rope<R>,
        layer: usize,
        qkv: &mut Tensor<R>,
        cache: &mut Cache<R>,
    ) {
        rows::rope_store(self, step, heads, norms, rope, layer, qkv, cache);
    }

    fn attention(
        &self,
        step: &Step<R>,
        shape: AttentionShape,
        qkv: &Tensor<R>,
        cache: &Cache<R>,
        out: &mut Tensor<R>,
    ) {
        attention::attention(self, step, shape, qkv, cache, out);
    }

    fn gated(&self, rows: usize, width: usize, activation: Activation, x: &Tensor<R>, out: &mut Tensor<R>) {
        rows::gated(self, rows, width, activation, x, out);
    }

    fn route(&self, step: &Step<R>, logits: &Tensor<R>, routing: &mut Routing<R>) {
        mixture::route(self, step, logits, routing);
    }

    fn grouped_matmul(
        &self,
        step: &Step<R>,
        routing: &Routing<R>,
        rows: GroupedRows,
        x: &Tensor<R>,
        w: &Weight<R>,
        out: &mut Tensor<R>,
    ) {
        grouped_matmul::grouped_matmul(self, routing.groups(self, step, rows), x, w, None, out);
    }

    fn weighted_sum(&self, step: &Step<R>, routing: &Routing<R>, x: &Tensor<R>, out: &mut Tensor<R>) {
        mixture::weighted_sum(self, step, routing, x, out);
    }

    fn gather(&self, step: &Step<R>, outputs: Range<usize>, x: &Tensor<R>, out: &mut Tensor<R>) {
        rows::gather(self, step, outputs, x, out);
    }

    fn contrast_sample(
        &self,
        step: &mut Step<R>,
        outputs: Range<usize>,
        expert: &Tensor<R>,
        amateur: Option<&Tensor<R>>,
    ) {
        sample::contrast_sample(self, step, outputs, expert, amateur);
    }

    fn gathers(&self) -> bool {
        !self.is_split()
    }

    fn contrast_sample_hidden(
        &self,
        step: &mut Step<R>,
        outputs: Range<usize>,
        expert: &Tensor<R>,
        amateur: (&Tensor<R>, &Weight<R>),
        logits: &mut Tensor<R>,
    ) {
        sample::contrast_sample_hidden(self, step, outputs, expert, amateur, logits);
    }

    fn projections(&self, step: &Step<R>) -> Projections {
        step.projections(self)
    }

    fn settle(
        &self,
        step: &mut Step<R>,
        outputs: Range<usize>,
        expert: &Tensor<R>,
        deferred_logits: &mut Tensor<R>,
    ) {
        sample::settle(self, step, outputs, expert, deferred_logits);
    }

    fn collect_settled(&self, step: &mut Step<R>) -> Result<Vec<Option<RowResult>>> {
        step.collect(&self.runtime)
    }

    fn copy_block(&self, cache: &mut Cache<R>, from: BlockId, to: BlockId) {
        rows::copy_block(self, cache, from, to);
    }

    fn weight_size(&self, weight: &Weight<R>) -> WeightSize {
        let &Weight { rows, columns, dtype, .. } = weight;
        WeightSize { rows, columns, bytes: rows * dtype.row_bytes(columns) }
    }

    fn width(&self, x: &Tensor<R>) -> usize {
        x.width
    }

    fn copy(&self, rows: usize, x: &Tensor<R>, out: &mut Tensor<R>) {
        self.runtime.copy(self.role, &x.memory, &out.memory, rows * x.width * x.dtype.size());
    }

    fn mark(&self) -> R::Mark {
        self.runtime.mark(self.role)
    }

    fn seconds(&self, from: &R::Mark, to: &R::Mark) -> Result<f64> {
        self.runtime.seconds(from, to)
    }

    fn upload(&self, values: &[f32], x: &mut Tensor<R>) {
        let mut bytes = vec![0; size_of_val(values) / size_of::<f32>() * x.dtype.size()];
        convert(bytemuck::cast_slice(values), Dtype::F32, &mut bytes, x.dtype);
        self.runtime.write(self.role, &x.memory, &bytes);
    }

    fn download(&self, rows: usize, x: &Tensor<R>) -> Vec<f32> {
        let pending = self.runtime.read(self.role, &x.memory, rows * x.width * x.dtype.size());
        // A failure is reported by `collect`; what is read after one says nothing.
        let bytes = self.runtime.wait(pending).unwrap_or_default();
        let mut values = vec![f32::NAN; rows * x.width];
        convert(&bytes, x.dtype, bytemuck::cast_slice_mut(&mut values), Dtype::F32);
        values
    }

    fn choices(&self, rows: usize, routing: &Routing<R>) -> Vec<Choice> {
        routing.choices(self, rows)
    }
}

/// Rows of keys and values in a block, over all layers.
fn rows_a_block(shape: CacheShape) -> usize {
    shape.layers * 2 * shape.heads * shape.block_size
}
