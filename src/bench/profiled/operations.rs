//! Runs each operation on the inner device, records its time, and counts its bytes and its arithmetic.

use std::ops::Range;

use super::sampling::Sampling;
use super::{Entry, Profiled, Routing, SINGLE, Step};
use crate::contrast::Vocabulary;
use crate::device::inspect::Inspect;
use crate::device::{
    Activation, AmateurLogits, AttentionShape, Batch, CacheLayer, CacheShape, Capacity, Delta, Device,
    DeviceInfo, ExpertLogits, GroupedRows, HeadNorms, Heads, LayerKind, MemoryInfo, Norm, PerKind, Precision,
    Role, RoutingShape, RowResult, SampleRow, WeightKind, WeightSize, WeightSource,
};
use crate::error::Result;
use crate::ids::BlockId;

impl<D: Inspect> Device for Profiled<D> {
    type Weight = D::Weight;
    type Tensor = D::Tensor;
    type Rope = D::Rope;
    type Cache = D::Cache;
    type Routing = Routing<D::Routing>;
    type Step = Step<D::Step>;

    fn info(&self) -> &DeviceInfo {
        self.role_info()
    }

    fn role(&self, role: Role) -> Self {
        self.in_role(role)
    }

    fn load(&self, source: WeightSource<'_>, kind: WeightKind) -> Result<D::Weight> {
        self.inner.load(source, kind)
    }

    fn weight_size(&self, weight: &D::Weight) -> WeightSize {
        self.inner.weight_size(weight)
    }

    fn tensor(&self, rows: usize, width: usize, precision: Precision) -> Result<D::Tensor> {
        self.inner.tensor(rows, width, precision)
    }

    fn logits(&self, rows: usize, width: usize) -> Result<D::Tensor> {
        self.inner.logits(rows, width)
    }

    fn rope(&self, inverse_frequencies: &[f32], scale: f32) -> Result<D::Rope> {
        self.inner.rope(inverse_frequencies, scale)
    }

    fn cache(&self, shape: CacheShape) -> Result<D::Cache> {
        self.inner.cache(shape)
    }

    fn block_bytes(&self, shape: CacheShape) -> PerKind<usize> {
        self.inner.block_bytes(shape)
    }

    fn routing(&self, rows: usize, shape: RoutingShape) -> Result<Self::Routing> {
        Ok(Routing { inner: self.inner.routing(rows, shape)?, shape, visited: 0 })
    }

    fn memory_info(&self) -> Result<Option<MemoryInfo>> {
        self.inner.memory_info()
    }

    fn default_cache_bytes(&self) -> Result<usize> {
        self.inner.default_cache_bytes()
    }

    fn warm_up_sizes(&self, most: usize) -> Vec<usize> {
        self.inner.warm_up_sizes(most)
    }

    fn step(
        &self,
        capacity: Capacity,
        table_blocks: PerKind<usize>,
        vocabulary: &Vocabulary,
    ) -> Result<Self::Step> {
        let inner = self.inner.step(capacity, table_blocks, vocabulary)?;
        Ok(Step { inner, contexts: Vec::new(), seen: Vec::new() })
    }

    fn prepare(&self, step: &mut Self::Step, batch: &Batch, rows: &[SampleRow]) {
        step.seen = batch.positions.iter().map(|position| *position as usize + 1).collect();
        step.contexts = batch.spans.iter().map(|span| step.seen[span.tokens.end - 1]).collect();
        self.inner.prepare(&mut step.inner, batch, rows);
    }

    fn join<A: Send, B: Send>(
        &self,
        a: impl FnOnce(&Self) -> A + Send,
        b: impl FnOnce(&Self) -> B + Send,
    ) -> (A, B) {
        let (a, ()) = self.inner.join(|_| a(&self.role(Role::Expert)), |_| ());
        let ((), b) = self.inner.join(|_| (), |_| b(&self.role(Role::Amateur)));
        (a, b)
    }

    fn submit(&self, step: &mut Self::Step) {
        self.inner.submit(&mut step.inner);
    }

    fn collect(&self, step: &mut Self::Step) -> Result<Vec<RowResult>> {
        self.inner.collect(&mut step.inner)
    }

    fn rows(&self, step: &Self::Step) -> usize {
        self.inner.rows(&step.inner)
    }

    fn outputs(&self, step: &Self::Step) -> usize {
        self.inner.outputs(&step.inner)
    }

    fn embed(&self, step: &Self::Step, table: &D::Weight, scale: f32, out: &mut D::Tensor) {
        let bytes = self.rows(step) * self.inner.width(out) * (self.size() + SINGLE);
        self.note("embed", bytes, 0, |d| d.embed(&step.inner, table, scale, out));
    }

    fn rms_norm(
        &self,
        rows: usize,
        delta: Option<Delta<'_, D>>,
        residual: &mut D::Tensor,
        norm: Option<&Norm<D::Weight>>,
        out: &mut D::Tensor,
    ) {
        let added = if delta.is_some() { self.size() + SINGLE } else { 0 };
        let bytes = rows * self.inner.width(out) * (SINGLE + self.size() + added);
        self.note("rms_norm", bytes, 0, |d| d.rms_norm(rows, delta, residual, norm, out));
    }

    fn matmul(
        &self,
        rows: usize,
        x: &D::Tensor,
        w: &D::Weight,
        bias: Option<&D::Weight>,
        out: &mut D::Tensor,
    ) {
        let weight = self.weight_size(w);
        let bytes = weight.bytes + rows * (weight.rows + weight.columns) * self.size();
        let operations = 2 * rows * weight.rows * weight.columns;
        self.note("matmul", bytes, operations, |d| d.matmul(rows, x, w, bias, out));
    }

    fn rope_store(
        &self,
        step: &Self::Step,
        heads: Heads,
        norms: Option<&HeadNorms<D::Weight>>,
        rope: &D::Rope,
        layer: CacheLayer,
        qkv: &mut D::Tensor,
        cache: &mut D::Cache,
    ) {
        let activations = (heads.qkv_width() + heads.query_width()) * self.size();
        let stored = 2 * heads.key_value * self.info().format.cache.row_bytes(heads.dim);
        let bytes = self.rows(step) * (activations + stored);
        self.note("rope_store", bytes, 0, |d| {
            d.rope_store(&step.inner, heads, norms, rope, layer, qkv, cache);
        });
    }

    fn attention(
        &self,
        step: &Self::Step,
        shape: AttentionShape,
        qkv: &D::Tensor,
        cache: &D::Cache,
        out: &mut D::Tensor,
    ) {
        let AttentionShape { heads, window, .. } = shape;
        let sum = |seen: &[usize]| -> usize {
            seen.iter().map(|seen| window.map_or(*seen, |window| window.min(*seen))).sum()
        };
        let cached =
            sum(&step.contexts) * 2 * heads.key_value * self.info().format.cache.row_bytes(heads.dim);
        let bytes = cached + 2 * self.rows(step) * heads.query_width() * self.size();
        let operations = 4 * sum(&step.seen) * heads.query_width();
        self.note("attention", bytes, operations, |d| {
            d.attention(&step.inner, shape, qkv, cache, out);
        });
    }

    fn gated(&self, rows: usize, width: usize, activation: Activation, x: &D::Tensor, out: &mut D::Tensor) {
        let bytes = 3 * rows * width * self.size();
        self.note("gated", bytes, 0, |d| d.gated(rows, width, activation, x, out));
    }

    fn route(&self, step: &Self::Step, logits: &D::Tensor, routing: &mut Self::Routing) {
        let (rows, RoutingShape { branches, active, .. }) = (self.rows(step), routing.shape);
        let bytes = rows * (branches + 4 * active) * SINGLE;
        self.note("route", bytes, 0, |d| d.route(&step.inner, logits, &mut routing.inner));
        // The rows after the step's own tokens are padding.
        let choices = self.inner.choices(step.seen.len(), &routing.inner);
        let mut visited: Vec<u32> = choices.iter().map(|choice| choice.branch).collect();
        visited.sort_unstable();
        visited.dedup();
        routing.visited = visited.len();
        if let Ok(mut routings) = self.routings.lock() {
            routings.push(choices);
        }
    }

    fn grouped_matmul(
        &self,
        step: &Self::Step,
        routing: &Self::Routing,
        rows: GroupedRows,
        x: &D::Tensor,
        w: &D::Weight,
        out: &mut D::Tensor,
    ) {
        let (weight, RoutingShape { branches, active, .. }) = (self.weight_size(w), routing.shape);
        let (outputs, places) = (weight.rows / branches, step.seen.len() * active);
        let read = if rows == GroupedRows::OfRow { step.seen.len() } else { places };
        let bytes = weight.bytes / branches * routing.visited
            + (read * weight.columns + places * outputs) * self.size();
        let operations = 2 * places * outputs * weight.columns;
        self.note("grouped_matmul", bytes, operations, |d| {
            d.grouped_matmul(&step.inner, &routing.inner, rows, x, w, out);
        });
    }

    fn weighted_sum(&self, step: &Self::Step, routing: &Self::Routing, x: &D::Tensor, out: &mut D::Tensor) {
        let bytes = step.seen.len() * (routing.shape.active + 1) * self.inner.width(out) * self.size();
        self.note("weighted_sum", bytes, 0, |d| d.weighted_sum(&step.inner, &routing.inner, x, out));
    }

    fn gather(&self, step: &Self::Step, outputs: Range<usize>, x: &D::Tensor, out: &mut D::Tensor) {
        let bytes = 2 * outputs.len() * self.inner.width(x) * self.size();
        self.note("gather", bytes, 0, |d| d.gather(&step.inner, outputs, x, out));
    }

    fn sample(
        &self,
        step: &mut Self::Step,
        outputs: Range<usize>,
        expert: ExpertLogits<'_, D::Tensor>,
        amateur: AmateurLogits<'_, D::Tensor, D::Weight>,
    ) {
        let sampling = Sampling::of(&self.inner, outputs.len(), &expert, &amateur);
        let before = self.inner.mark();
        self.inner.sample(&mut step.inner, outputs, expert, amateur);
        let marks = [before, self.inner.mark()];
        let work = sampling.work(|| self.inner.projections(&step.inner));
        self.add(Entry { operation: sampling.name(), marks, work });
    }

    fn copy_block(&self, cache: &mut D::Cache, kind: LayerKind, from: BlockId, to: BlockId) {
        self.inner.copy_block(cache, kind, from, to);
    }
}
