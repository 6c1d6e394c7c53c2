//! A device made of a [`GpuRuntime`] and the project's kernels. The geometry and the arguments of every launch are
//! defined once, for the GPU and for its stand-in on the host.

use std::ops::Range;

use super::{
    Activation, AmateurLogits, AttentionShape, Batch, CacheLayer, CacheShape, Capacity, Delta, Device,
    DeviceInfo, Dtype, ExpertLogits, GroupedRows, HeadNorms, Heads, LayerKind, MemoryInfo, Norm, Pass,
    PerKind, Precision, RoutingShape, RowResult, SampleRow, WeightKind, WeightSize, WeightSource,
};
use crate::contrast::Vocabulary;
use crate::error::{Error, Result};
use crate::ids::BlockId;

mod abi;
mod buffers;
mod device;
mod inputs;
mod inspect;
pub mod ledger;
mod load;
mod ops;
mod padding;
pub mod runtime;
mod sections;

pub use buffers::{Blocks, Cache, Rope, Tensor, Weight};
pub use device::{BATCHED_TOKENS, GpuConfig, GpuDevice};
pub use inputs::Step;
use ops::grouped_matmul::Groups;
pub use ops::mixture::Routing;
pub use ops::tile;
use ops::{attention, grouped_matmul, mixture, rows, sample};
use padding::buckets;
pub use padding::{SPLIT, bucket, context_bucket};
use runtime::{GpuRuntime, Matmul, Role, Stream};

impl<R: GpuRuntime> Device for GpuDevice<R> {
    type Weight = Weight<R>;
    type Tensor = Tensor<R>;
    type Rope = Rope<R>;
    type Cache = Cache<R>;
    type Routing = Routing<R>;
    type Step = Step<R>;

    fn info(&self) -> &DeviceInfo {
        self.role_info()
    }

    fn role(&self, role: Role) -> Self {
        self.in_role(role)
    }

    fn load(&self, source: WeightSource<'_>, kind: WeightKind) -> Result<Weight<R>> {
        load::load(self, source, kind)
    }

    fn weight_size(&self, weight: &Weight<R>) -> WeightSize {
        let &Weight { rows, columns, dtype, .. } = weight;
        WeightSize { rows, columns, bytes: rows * dtype.row_bytes(columns) }
    }

    fn tensor(&self, rows: usize, width: usize, precision: Precision) -> Result<Tensor<R>> {
        let dtype = match precision {
            Precision::Working => self.info().dtype,
            Precision::Single => Dtype::F32,
        };
        Ok(Tensor { memory: self.allocate(rows * width * dtype.size())?, peer: None, width, dtype })
    }

    fn logits(&self, rows: usize, width: usize) -> Result<Tensor<R>> {
        let is_apart = self.current_role() == Role::Amateur && self.runtime().is_split();
        let peer = || self.runtime().allocate(Role::Expert, rows * width * Dtype::F32.size());
        let peer = is_apart.then(peer).transpose()?;
        Ok(Tensor { peer, ..self.tensor(rows, width, Precision::Single)? })
    }

    fn rope(&self, inverse_frequencies: &[f32], scale: f32) -> Result<Rope<R>> {
        let memory = self.allocate(size_of_val(inverse_frequencies))?;
        self.runtime().write(self.current_role(), &memory, bytemuck::cast_slice(inverse_frequencies));
        Ok(Rope { memory, scale })
    }

    fn cache(&self, shape: CacheShape) -> Result<Cache<R>> {
        let dtype = self.info().format.cache;
        attention::check(shape, self.info().format)?;
        let blocks = |kind| {
            let rows = shape.layers[kind] * shape.blocks[kind] * buffers::rows_per_layer(shape);
            let scales = dtype.row_bytes(0) * rows;
            Ok::<_, Error>(Blocks {
                memory: self.allocate(rows * shape.head_dim * dtype.size())?,
                scales: (scales > 0).then(|| self.allocate(scales)).transpose()?,
            })
        };
        Ok(Cache {
            blocks: PerKind { full: blocks(LayerKind::Full)?, windowed: blocks(LayerKind::Windowed)? },
            shape,
            dtype,
            partials: attention::partials(self, shape)?,
        })
    }

    fn block_bytes(&self, shape: CacheShape) -> PerKind<usize> {
        let layer = buffers::rows_per_layer(shape) * self.info().format.cache.row_bytes(shape.head_dim);
        let mut bytes = PerKind::of(|kind| shape.layers[kind] * layer);
        bytes.full += attention::scratch_bytes(shape);
        bytes
    }

    fn routing(&self, rows: usize, shape: RoutingShape) -> Result<Routing<R>> {
        Routing::new(self, rows, shape)
    }

    fn memory_info(&self) -> Result<Option<MemoryInfo>> {
        self.runtime().memory_info(self.current_role()).map(Some)
    }

    fn default_cache_bytes(&self) -> Result<usize> {
        let memory = self.runtime().memory_info(self.current_role())?;
        let used = memory.total - memory.free;
        let may_use = (memory.total as f64 * self.config().memory_utilization) as usize;
        Ok(may_use.saturating_sub(used + self.runtime().recording_bytes(self.current_role())))
    }

    fn warm_up_sizes(&self, most: usize) -> Vec<usize> {
        if self.runtime().warms_up() { buckets(most) } else { Vec::new() }
    }

    fn profile(&self, is_on: bool) -> Result<()> {
        self.runtime().profile(is_on)
    }

    fn step(
        &self,
        capacity: Capacity,
        table_blocks: PerKind<usize>,
        vocabulary: &Vocabulary,
    ) -> Result<Step<R>> {
        Step::new(self.runtime(), capacity, table_blocks, vocabulary, self.config().is_deterministic)
    }

    fn prepare(&self, step: &mut Step<R>, batch: &Batch, rows: &[SampleRow]) {
        step.trace.begin(|| self.runtime().mark(Role::Expert));
        step.prepare(self.runtime(), batch, rows);
    }

    fn run<M>(
        &self,
        step: &mut Step<R>,
        pass: Pass,
        models: &mut M,
        mut forward: impl FnMut(&Self, &mut Step<R>, &mut M),
        mut sample: impl FnMut(&Self, &mut Step<R>, &mut M),
    ) {
        // Logits that are copied from one GPU to the other cannot be recorded.
        let copies_logits = self.runtime().is_split() && pass != Pass::ExpertOnly;
        let key = step.replay_key(pass);
        let mut record = || {
            forward(self, step, models);
            if !copies_logits {
                sample(self, step, models);
            }
        };
        match key {
            Some(key) => self.runtime().replay(key, &mut record),
            None => record(),
        }
        if copies_logits {
            sample(self, step, models);
        }
    }

    fn join<A: Send, B: Send>(
        &self,
        a: impl FnOnce(&Self) -> A + Send,
        b: impl FnOnce(&Self) -> B + Send,
    ) -> (A, B) {
        let (expert, amateur) = (Stream::Main(Role::Expert), Stream::Main(Role::Amateur));
        self.runtime().order(expert, amateur);
        let both = (a(&self.role(Role::Expert)), b(&self.role(Role::Amateur)));
        self.runtime().order(amateur, expert);
        both
    }

    fn submit(&self, step: &mut Step<R>) {
        step.submit(self.runtime());
        step.trace.end(|| self.runtime().mark(Role::Expert));
    }

    fn collect(&self, step: &mut Step<R>) -> Result<Vec<RowResult>> {
        step.collect(self.runtime())
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
        if w.dtype == Dtype::F8E4m3 || !self.runtime().matmul(self.current_role(), &matmul) {
            grouped_matmul::grouped_matmul(self, Groups::one(rows), x, w, bias, out);
        }
        if let Some(peer) = &out.peer {
            self.runtime().copy(self.current_role(), &out.memory, peer, out.bytes(rows));
        }
    }

    fn rope_store(
        &self,
        step: &Step<R>,
        heads: Heads,
        norms: Option<&HeadNorms<Weight<R>>>,
        rope: &Rope<R>,
        layer: CacheLayer,
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

    fn sample(
        &self,
        step: &mut Step<R>,
        outputs: Range<usize>,
        expert: ExpertLogits<'_, Tensor<R>>,
        amateur: AmateurLogits<'_, Tensor<R>, Weight<R>>,
    ) {
        sample::sample(self, step, outputs, expert, amateur);
    }

    fn copy_block(&self, cache: &mut Cache<R>, kind: LayerKind, from: BlockId, to: BlockId) {
        rows::copy_block(self, cache, kind, from, to);
    }
}
