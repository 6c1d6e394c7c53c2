//! The CPU: multithreaded and vectorized, weights read in their own dtype, arithmetic in f32.
//!
//! A row's numbers never depend on its batch: every sum has an order of its own, fixed by the shapes of the model
//! alone, whatever the number of rows, the way they are cut into tiles and the number of threads.

// What an `isa::Kernel` calls must be compiled for its instruction set, so be part of it.
#![allow(clippy::inline_always)]

#[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), path = "no_amx.rs")]
mod amx;
mod arena;
mod attention;
mod buffer;
mod cache;
mod elementwise;
mod isa;
mod math;
mod matmul;
mod pool;
mod rope;
mod routing;
mod sample;
mod simd;
mod step;
mod tiles;
mod weight;

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::{
    Activation, AttentionShape, Batch, CacheShape, Choice, Delta, Device, Dtype, Format, GroupedRows,
    HeadNorms, Heads, Lane, MemoryInfo, Norm, Precision, Projections, RoutingShape, RowResult, SampleRow,
    StepRoom, TensorView, WeightSize,
};
use crate::error::Result;
use crate::ids::BlockId;
use amx::Amx;
use arena::Arena;
use buffer::{Buffer, Populating};
pub use cache::Cache;
use elementwise::{AddNorm, Gated};
pub use isa::Isa;
pub use pool::ThreadPool;
pub use rope::Rope;
use rope::Rotate;
pub use routing::Routing;
pub use step::Step;
pub use weight::Weight;

/// The CPU device. Both lanes are one but for their formats.
pub struct Cpu {
    common: Arc<Common>,
    lane: Lane,
    /// The expert's and the amateur's.
    formats: [Format; 2],
}

struct Common {
    pool: ThreadPool,
    isa: Isa,
    amx: Option<Amx>,
    weights: Arena,
    /// Caches whose pages are made ready while weights are loaded, as many bytes of the one as of the other.
    populating: Mutex<Vec<Populating>>,
}

/// What of the machine is used.
#[derive(Clone, Copy)]
struct Path<'a> {
    pool: &'a ThreadPool,
    isa: Isa,
    amx: Option<Amx>,
}

/// Elements (of weights, cache, activations) from which threads are worth waking for one pass over them.
const PARALLEL: usize = 1 << 16;
/// Logits that are held at once: more would leave the caches before they are sampled.
const LOGITS_BYTES: usize = 64 << 20;
/// Tokens a step: more would leave the caches from one operation to the next.
const BATCHED_TOKENS: usize = 256;
/// See [`Device::alone`]: threads that share a model's operations wait for each other after each. `cargo bench --bench cpu`
/// with a pair prints both steps.
const ALONE: f64 = 1.15;
/// See [`Device::row_cost`], with AMX, by steps of 1 and of 16 rows, and without, by the product `gate_up avx512` of as many;
/// the same bench prints all of them.
const ROW_COST: (f64, f64) = (0.03, 0.4);
/// The cache's default size.
const CACHE_BYTES: usize = 4 << 30;

/// Activations `[rows, width]`, row-major.
pub struct Tensor {
    data: Buffer,
    width: usize,
}

impl Tensor {
    fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.width..][..self.width]
    }

    fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.width..][..self.width]
    }

    fn rows_mut(&mut self, rows: usize) -> &mut [f32] {
        &mut self.data[..rows * self.width]
    }
}

impl Common {
    fn path(&self) -> Path<'_> {
        Path { pool: &self.pool, isa: self.isa, amx: self.amx }
    }

    /// Where weights are laid out in tiles, if they are.
    fn arena(&self) -> Option<&Arena> {
        self.amx.map(|_| &self.weights)
    }
}

impl Cpu {
    /// A device of `threads` threads; without a number, as many as the process may use.
    ///
    /// # Errors
    /// If the system refuses the threads.
    pub fn new(threads: Option<usize>) -> Result<Self> {
        Self::with_path(threads, Isa::detect(), Amx::detect())
    }

    /// As [`Cpu::new`] without AMX and with at most `isa`: for tests, which compare the paths.
    ///
    /// # Errors
    /// As [`Cpu::new`].
    pub fn limited(threads: Option<usize>, isa: Isa) -> Result<Self> {
        Self::with_path(threads, isa.min(Isa::detect()), None)
    }

    fn with_path(threads: Option<usize>, isa: Isa, amx: Option<Amx>) -> Result<Self> {
        let threads =
            threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
        let (weights, populating) = (Arena::default(), Mutex::default());
        let common = Common { pool: ThreadPool::new(threads)?, isa, amx, weights, populating };
        Ok(Self { common: Arc::new(common), lane: Lane::Expert, formats: [Format::of(Dtype::F32); 2] })
    }

    /// The device with other formats for expert and amateur. What is not [`Dtype::F8E4m3`] stays as without them, weights as
    /// they are stored and the cache in f32.
    #[must_use]
    pub fn with_formats(self, formats: [Format; 2]) -> Self {
        let own = |dtype| if dtype == Dtype::F8E4m3 { dtype } else { Dtype::F32 };
        let formats = formats.map(|format| Format { weights: own(format.weights), cache: own(format.cache) });
        Self { formats, ..self }
    }

    /// See [`Weight::new`]; meanwhile pages of the caches are made ready.
    fn load(&self, parts: &[TensorView], to: Dtype) -> Result<Weight> {
        let bytes = parts.iter().map(|part| part.range.len()).sum();
        let load = || Weight::new(parts, to, self.common.arena());
        self.common.pool.join(load, || self.populate(bytes)).0
    }

    /// Makes `bytes` of the caches ready, of each the same.
    fn populate(&self, bytes: usize) {
        let Ok(mut caches) = self.common.populating.lock() else { return };
        let each = bytes / caches.len().max(1);
        caches.iter_mut().for_each(|cache| cache.advance(each));
    }

    /// Runs `row` over the first `rows` rows of `out`, `elements` of work in all.
    fn each_row(
        &self,
        rows: usize,
        elements: usize,
        out: &mut Tensor,
        row: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let width = out.width.max(1);
        let out = out.rows_mut(rows);
        if elements < PARALLEL {
            out.chunks_exact_mut(width).enumerate().for_each(|(index, out)| row(index, out));
        } else {
            self.common
                .pool
                .for_each(out.chunks_exact_mut(width).enumerate(), |(index, out)| row(index, out));
        }
    }
}

impl Device for Cpu {
    type Weight = Weight;
    type Tensor = Tensor;
    type Rope = Rope;
    type Cache = Cache;
    type Routing = Routing;
    type Step = Step;
    type Mark = Instant;

    fn describe(&self) -> String {
        let amx = if self.common.amx.is_some() { " and AMX" } else { "" };
        format!("CPU, {} threads, {:?}{amx}", self.common.pool.threads(), self.common.isa)
    }

    fn lane(&self, lane: Lane) -> Self {
        Self { common: Arc::clone(&self.common), lane, formats: self.formats }
    }

    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn format(&self) -> Format {
        self.formats[self.lane as usize]
    }

    fn is_deterministic(&self) -> bool {
        true
    }

    fn weight(&self, parts: &[TensorView]) -> Result<Weight> {
        self.load(parts, Dtype::F32)
    }

    fn random_weight(&self, shape: &[usize], seed: u64) -> Result<Weight> {
        Weight::random(shape, seed, Dtype::F32, self.common.arena())
    }

    fn matrix(&self, parts: &[TensorView]) -> Result<Weight> {
        self.load(parts, self.format().weights)
    }

    fn random_matrix(&self, shape: &[usize], seed: u64) -> Result<Weight> {
        Weight::random(shape, seed, self.format().weights, self.common.arena())
    }

    fn tensor(&self, rows: usize, width: usize, _: Precision) -> Result<Tensor> {
        Ok(Tensor { data: Buffer::zeroed(rows, width, "activations")?, width })
    }

    fn rope(&self, inverse_frequencies: &[f32], scale: f32) -> Result<Rope> {
        Ok(Rope::new(inverse_frequencies, scale))
    }

    fn cache(&self, shape: CacheShape) -> Result<Cache> {
        let cache = Cache::new(shape, self.format().cache)?;
        if let Ok(mut caches) = self.common.populating.lock() {
            caches.push(cache.populating());
        }
        Ok(cache)
    }

    fn block_bytes(&self, shape: CacheShape) -> usize {
        cache::block_bytes(shape, self.format().cache)
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

    fn logits_bytes(&self) -> usize {
        LOGITS_BYTES
    }

    fn default_batched_tokens(&self) -> usize {
        BATCHED_TOKENS
    }

    fn runs_ahead(&self) -> bool {
        false
    }

    fn step(&self, room: StepRoom<'_>) -> Result<Step> {
        Ok(Step::new(room.vocabulary.clone()))
    }

    fn begin(&self, step: &mut Step, batch: &Batch, rows: &[SampleRow]) {
        step.begin(batch, rows);
    }

    fn join<A: Send, B: Send>(
        &self,
        a: impl FnOnce(&Self) -> A + Send,
        b: impl FnOnce(&Self) -> B + Send,
    ) -> (A, B) {
        self.common.pool.join(|| a(self), || b(self))
    }

    fn finish(&self, step: &mut Step) {
        step.finish();
    }

    fn collect(&self, step: &mut Step) -> Result<Vec<RowResult>> {
        Ok(step.collect().into_iter().flatten().collect())
    }

    fn settle(&self, step: &mut Step, outputs: Range<usize>, expert: &Tensor, kept: &mut Tensor) {
        let (rows, vocabulary) = (&step.samples[outputs], &step.vocabulary);
        step.results.extend(sample::settle(self.common.path(), rows, vocabulary, expert, kept));
    }

    fn collect_settled(&self, step: &mut Step) -> Result<Vec<Option<RowResult>>> {
        Ok(step.collect())
    }

    fn copy_block(&self, cache: &mut Cache, from: BlockId, to: BlockId) {
        cache.copy_block(from, to);
    }

    fn rows(&self, step: &Step) -> usize {
        step.batch.tokens.len()
    }

    fn outputs(&self, step: &Step) -> usize {
        step.batch.outputs.len()
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
        layer: usize,
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
        let x = matmul::Rows { tensor: x, sources };
        matmul::grouped_matmul(self.common.path(), routing.offsets(), x, w, out);
    }

    fn weighted_sum(&self, step: &Step, routing: &Routing, x: &Tensor, out: &mut Tensor) {
        let rows = self.rows(step);
        self.each_row(rows, rows * out.width, out, |row, out| {
            self.common.isa.run(routing.weighted_row(row, x, out));
        });
    }

    fn gather(&self, step: &Step, outputs: Range<usize>, x: &Tensor, out: &mut Tensor) {
        for (to, &from) in step.batch.outputs[outputs].iter().enumerate() {
            out.row_mut(to).copy_from_slice(x.row(from as usize));
        }
    }

    fn contrast_sample(
        &self,
        step: &mut Step,
        outputs: Range<usize>,
        expert: &Tensor,
        amateur: Option<&Tensor>,
    ) {
        let (rows, vocabulary) = (&step.samples[outputs], &step.vocabulary);
        let sampled = sample::contrast_sample(self.common.path(), rows, vocabulary, expert, amateur);
        step.results.extend(sampled);
    }

    fn alone(&self) -> Option<f64> {
        Some(if self.common.pool.threads() > 1 { ALONE } else { 1.0 })
    }

    fn row_cost(&self) -> f64 {
        if self.common.amx.is_some() { ROW_COST.0 } else { ROW_COST.1 }
    }

    fn gathers(&self) -> bool {
        true
    }

    fn contrast_sample_hidden(
        &self,
        step: &mut Step,
        outputs: Range<usize>,
        expert: &Tensor,
        (hidden, head): (&Tensor, &Weight),
        logits: &mut Tensor,
    ) {
        let (rows, vocabulary) = (&step.samples[outputs], &step.vocabulary);
        let amateur = (hidden, head);
        let path = self.common.path();
        let (sampled, projections) =
            sample::contrast_sample_hidden(path, rows, vocabulary, expert, amateur, logits);
        step.results.extend(sampled);
        step.projections = projections;
    }

    fn projections(&self, step: &Step) -> Projections {
        step.projections
    }

    fn weight_size(&self, weight: &Weight) -> WeightSize {
        WeightSize { rows: weight.rows, columns: weight.columns, bytes: weight.bytes() }
    }

    fn width(&self, x: &Tensor) -> usize {
        x.width
    }

    fn copy(&self, rows: usize, x: &Tensor, out: &mut Tensor) {
        self.each_row(rows, rows * x.width, out, |row, out| out.copy_from_slice(x.row(row)));
    }

    fn mark(&self) -> Instant {
        Instant::now()
    }

    fn seconds(&self, from: &Instant, to: &Instant) -> Result<f64> {
        Ok(to.duration_since(*from).as_secs_f64())
    }

    fn upload(&self, values: &[f32], x: &mut Tensor) {
        x.data[..values.len()].copy_from_slice(values);
    }

    fn download(&self, rows: usize, x: &Tensor) -> Vec<f32> {
        x.data[..rows * x.width].to_vec()
    }

    fn choices(&self, rows: usize, routing: &Routing) -> Vec<Choice> {
        let choices = routing.choices();
        choices[..choices.len().min(rows * routing.active())].to_vec()
    }
}
