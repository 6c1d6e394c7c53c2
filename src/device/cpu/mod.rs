//! The CPU device: multithreaded and vectorized. It reads weights in their own dtype and computes in f32.
//!
//! A row's numbers never depend on its batch: the order of every sum is fixed by the model's shapes alone. The number
//! of rows, their cut into tiles and the number of threads do not matter.

// The functions that an `isa::Kernel` calls must be inlined, so that they are compiled for its instruction set.
#![allow(clippy::inline_always)]

#[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), path = "no_amx.rs")]
mod amx;
mod arena;
mod attention;
mod buffer;
mod by_panels;
mod cache;
mod device;
mod elementwise;
mod inspect;
mod isa;
mod math;
mod matmul;
mod panels;
mod path;
mod peak;
mod pool;
mod rope;
mod routing;
mod sample;
mod simd;
mod step;
mod task;
mod tensor;
mod threading;
mod tile;
mod tiles;
mod weight;

use std::ops::Range;

use super::{
    Activation, AmateurLogits, AttentionShape, Batch, CacheLayer, CacheShape, Capacity, Delta, Device,
    DeviceInfo, Dtype, ExpertLogits, GroupedRows, HeadNorms, Heads, LayerKind, MemoryInfo, Norm, PerKind,
    Precision, Role, RoutingShape, RowResult, SampleRow, WeightKind, WeightSize, WeightSource,
};
use crate::contrast::Vocabulary;
use crate::error::Result;
use crate::ids::BlockId;
use buffer::Buffer;
pub use cache::Cache;
pub use device::Cpu;
use elementwise::{AddNorm, Gated};
pub use isa::{ISA_VARIABLE, Isa};
use path::PARALLEL;
pub use pool::ThreadPool;
pub use rope::Rope;
use rope::Rotate;
pub use routing::Routing;
use sample::Sampler;
pub use step::Step;
pub use tensor::Tensor;
pub use weight::Weight;

/// The cache's default size.
const CACHE_BYTES: usize = 4 << 30;

impl Device for Cpu {
    type Weight = Weight;
    type Tensor = Tensor;
    type Rope = Rope;
    type Cache = Cache;
    type Routing = Routing;
    type Step = Step;

    fn info(&self) -> &DeviceInfo {
        self.role_info()
    }

    fn role(&self, role: Role) -> Self {
        self.in_role(role)
    }

    fn load(&self, source: WeightSource<'_>, kind: WeightKind) -> Result<Weight> {
        let to = match kind {
            WeightKind::LayerMatrix => self.info().format.weights,
            WeightKind::Other if self.info().format.weights == Dtype::Bf16 => Dtype::Bf16,
            WeightKind::Other => Dtype::F32,
        };
        match source {
            WeightSource::Stored(parts) => self.load_stored(parts, to),
            WeightSource::Random { shape, seed } => Weight::random(shape, seed, to, self.common.layout()),
        }
    }

    fn weight_size(&self, weight: &Weight) -> WeightSize {
        WeightSize { rows: weight.rows, columns: weight.columns, bytes: weight.bytes() }
    }

    fn tensor(&self, rows: usize, width: usize, _: Precision) -> Result<Tensor> {
        Ok(Tensor { data: Buffer::zeroed(rows, width, "activations")?, width })
    }

    fn rope(&self, inverse_frequencies: &[f32], scale: f32) -> Result<Rope> {
        Ok(Rope::new(inverse_frequencies, scale))
    }

    fn cache(&self, shape: CacheShape) -> Result<Cache> {
        let cache = Cache::new(shape, self.info().format.cache)?;
        if let Ok(mut caches) = self.common.populating.lock() {
            caches.extend(cache.populating());
        }
        Ok(cache)
    }

    fn block_bytes(&self, shape: CacheShape) -> PerKind<usize> {
        cache::block_bytes(shape, self.info().format.cache)
    }

    fn routing(&self, _: usize, shape: RoutingShape) -> Result<Routing> {
        Ok(Routing::new(shape))
    }

    fn memory_info(&self) -> Result<Option<MemoryInfo>> {
        Ok(None)
    }

    fn default_cache_bytes(&self) -> Result<usize> {
        Ok(CACHE_BYTES)
    }

    fn step(&self, _: Capacity, _: PerKind<usize>, vocabulary: &Vocabulary) -> Result<Step> {
        Ok(Step::new(vocabulary.clone()))
    }

    fn prepare(&self, step: &mut Step, batch: &Batch, rows: &[SampleRow]) {
        step.prepare(batch, rows);
    }

    fn join<A: Send, B: Send>(
        &self,
        a: impl FnOnce(&Self) -> A + Send,
        b: impl FnOnce(&Self) -> B + Send,
    ) -> (A, B) {
        self.common.pool.join(|| a(self), || b(self))
    }

    fn submit(&self, step: &mut Step) {
        step.submit();
    }

    fn collect(&self, step: &mut Step) -> Result<Vec<RowResult>> {
        Ok(step.collect())
    }

    fn rows(&self, step: &Step) -> usize {
        step.batch.tokens.len()
    }

    fn outputs(&self, step: &Step) -> usize {
        step.batch.logits_indices.len()
    }

    fn embed(&self, step: &Step, table: &Weight, scale: f32, out: &mut Tensor) {
        let tokens = &step.batch.tokens;
        self.each_row(tokens.len(), tokens.len() * out.width, out, |row, out| {
            table.read_row(tokens[row].index(), out);
            for x in out {
                *x *= scale;
            }
        });
    }

    fn rms_norm(
        &self,
        rows: usize,
        delta: Option<Delta<'_, Self>>,
        residual: &mut Tensor,
        norm: Option<&Norm<Weight>>,
        out: &mut Tensor,
    ) {
        let work = rows * out.width;
        let one = |row: usize, residual: &mut [f32], out: &mut [f32]| {
            let delta = delta.map(|(delta, norm)| (delta.row(row), norm));
            self.common.isa.run(AddNorm { delta, residual, norm, out });
        };
        let (width, residual_width) = (out.width.max(1), residual.width.max(1));
        let (out, residual) = (out.rows_mut(rows), residual.rows_mut(rows));
        let pairs = residual.chunks_exact_mut(residual_width).zip(out.chunks_exact_mut(width)).enumerate();
        if work < PARALLEL {
            pairs.for_each(|(row, (residual, out))| one(row, residual, out));
        } else {
            self.common.pool.for_each(pairs, |(row, (residual, out))| one(row, residual, out));
        }
    }

    fn matmul(&self, rows: usize, x: &Tensor, w: &Weight, bias: Option<&Weight>, out: &mut Tensor) {
        matmul::matmul(self.common.path(), rows, x, w, bias, out);
    }

    fn rope_store(
        &self,
        step: &Step,
        heads: Heads,
        norms: Option<&HeadNorms<Weight>>,
        rope: &Rope,
        layer: CacheLayer,
        qkv: &mut Tensor,
        cache: &mut Cache,
    ) {
        let positions = &step.batch.positions;
        self.each_row(positions.len(), positions.len() * qkv.width, qkv, |row, qkv| {
            self.common.isa.run(Rotate { rope, position: positions[row], heads, norms, qkv });
        });
        cache.store(&step.batch, heads, layer, qkv);
    }

    fn attention(&self, step: &Step, shape: AttentionShape, qkv: &Tensor, cache: &Cache, out: &mut Tensor) {
        attention::attention(self.common.path(), &step.batch, shape, qkv, cache, out);
    }

    fn gated(&self, rows: usize, width: usize, activation: Activation, x: &Tensor, out: &mut Tensor) {
        self.each_row(rows, rows * width, out, |row, out| {
            let (gate, up) = x.row(row).split_at(width);
            self.common.isa.run(Gated { activation, gate, up, out: &mut out[..width] });
        });
    }

    fn route(&self, step: &Step, logits: &Tensor, routing: &mut Routing) {
        routing.route(&self.common.pool, self.rows(step), logits);
    }

    fn grouped_matmul(
        &self,
        _: &Step,
        routing: &Routing,
        rows: GroupedRows,
        x: &Tensor,
        w: &Weight,
        out: &mut Tensor,
    ) {
        let sources = (rows == GroupedRows::OfRow).then(|| routing.sources());
        let x = task::Rows { tensor: x, sources };
        matmul::grouped_matmul(self.common.path(), routing.offsets(), x, w, out);
    }

    fn weighted_sum(&self, step: &Step, routing: &Routing, x: &Tensor, out: &mut Tensor) {
        let rows = self.rows(step);
        self.each_row(rows, rows * out.width, out, |row, out| {
            self.common.isa.run(routing.weighted_row(row, x, out));
        });
    }

    fn gather(&self, step: &Step, outputs: Range<usize>, x: &Tensor, out: &mut Tensor) {
        for (to, &from) in step.batch.logits_indices[outputs].iter().enumerate() {
            out.row_mut(to).copy_from_slice(x.row(from as usize));
        }
    }

    fn sample(
        &self,
        step: &mut Step,
        outputs: Range<usize>,
        expert: ExpertLogits<'_, Tensor>,
        amateur: AmateurLogits<'_, Tensor, Weight>,
    ) {
        let (rows, vocabulary) = (&step.samples[outputs], &step.vocabulary);
        let sampler = Sampler { path: self.common.path(), rows, vocabulary };
        let (results, projections) = sampler.sample(expert, amateur);
        step.results.extend(results);
        step.projections = projections;
    }

    fn copy_block(&self, cache: &mut Cache, kind: LayerKind, from: BlockId, to: BlockId) {
        cache.copy_block(kind, from, to);
    }
}
