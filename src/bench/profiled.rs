//! A device that notes when each operation began and ended, and counts what it moves and computes.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::device::{
    Activation, AttentionShape, Batch, CacheShape, Choice, Delta, Device, Dtype, Format, GroupedRows,
    HeadNorms, Heads, MemoryInfo, Norm, Precision, Projections, Role, RoutingShape, RowResult, SampleRow,
    StepCapacity, TensorView, WeightSize,
};
use crate::error::Result;
use crate::ids::BlockId;

/// The device. One lane rests while the other runs, so that operations do not overlap.
pub struct Profiled<D: Device> {
    inner: D,
    entries: Arc<Mutex<Vec<Entry<D::Mark>>>>,
    routings: Arc<Mutex<Vec<Vec<Choice>>>>,
}

/// One operation that ran.
pub struct Entry<M> {
    /// As [`Device`] calls it.
    pub operation: &'static str,
    /// Before and after.
    pub marks: [M; 2],
    /// The fewest bytes that it must move: each input once, each output once.
    pub bytes: usize,
    /// Multiplications and additions of matrix products and attention.
    pub operations: usize,
}

/// A step, and how long its sequences are.
pub struct Step<S> {
    inner: S,
    /// Of each span, the positions that its last token may see.
    contexts: Vec<usize>,
    /// Of each token, the positions that it may see.
    seen: Vec<usize>,
}

/// A routing, and which branches it leads to.
pub struct Routing<R> {
    inner: R,
    shape: RoutingShape,
    /// Branches that some row goes through.
    visited: usize,
}

impl<D: Device> Profiled<D> {
    /// Around `inner`.
    pub fn new(inner: D) -> Self {
        Self { inner, entries: Arc::default(), routings: Arc::default() }
    }

    /// What it noted since the last call.
    pub fn take_entries(&self) -> Vec<Entry<D::Mark>> {
        self.entries.lock().map(|mut entries| std::mem::take(&mut *entries)).unwrap_or_default()
    }

    /// What every routing chose since the last call, each `[tokens, active]`.
    pub fn take_routings(&self) -> Vec<Vec<Choice>> {
        self.routings.lock().map(|mut routings| std::mem::take(&mut *routings)).unwrap_or_default()
    }

    fn note<T>(
        &self,
        operation: &'static str,
        bytes: usize,
        operations: usize,
        run: impl FnOnce(&D) -> T,
    ) -> T {
        let before = self.inner.mark();
        let result = run(&self.inner);
        self.add(Entry { operation, marks: [before, self.inner.mark()], bytes, operations });
        result
    }

    fn add(&self, entry: Entry<D::Mark>) {
        if let Ok(mut entries) = self.entries.lock() {
            entries.push(entry);
        }
    }

    /// Bytes of an activation.
    fn size(&self) -> usize {
        self.inner.dtype().size()
    }
}

const SINGLE: usize = size_of::<f32>();

impl<D: Device> Device for Profiled<D> {
    type Weight = D::Weight;
    type Tensor = D::Tensor;
    type Rope = D::Rope;
    type Cache = D::Cache;
    type Routing = Routing<D::Routing>;
    type Step = Step<D::Step>;
    type Mark = D::Mark;

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn role(&self, lane: Role) -> Self {
        Self {
            inner: self.inner.role(lane),
            entries: Arc::clone(&self.entries),
            routings: Arc::clone(&self.routings),
        }
    }

    fn is_split(&self) -> bool {
        self.inner.is_split()
    }

    fn dtype(&self) -> Dtype {
        self.inner.dtype()
    }

    fn format(&self) -> Format {
        self.inner.format()
    }

    fn is_deterministic(&self) -> bool {
        self.inner.is_deterministic()
    }

    fn weight(&self, parts: &[TensorView]) -> Result<D::Weight> {
        self.inner.weight(parts)
    }

    fn random_weight(&self, shape: &[usize], seed: u64) -> Result<D::Weight> {
        self.inner.random_weight(shape, seed)
    }

    fn matrix(&self, parts: &[TensorView]) -> Result<D::Weight> {
        self.inner.matrix(parts)
    }

    fn random_matrix(&self, shape: &[usize], seed: u64) -> Result<D::Weight> {
        self.inner.random_matrix(shape, seed)
    }

    fn tensor(&self, rows: usize, width: usize, precision: Precision) -> Result<D::Tensor> {
        self.inner.tensor(rows, width, precision)
    }

    fn rope(&self, inverse_frequencies: &[f32], scale: f32) -> Result<D::Rope> {
        self.inner.rope(inverse_frequencies, scale)
    }

    fn cache(&self, shape: CacheShape) -> Result<D::Cache> {
        self.inner.cache(shape)
    }

    fn block_bytes(&self, shape: CacheShape) -> usize {
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

    fn logits_bytes(&self) -> usize {
        self.inner.logits_bytes()
    }

    fn default_batched_tokens(&self) -> usize {
        self.inner.default_batched_tokens()
    }

    fn runs_ahead(&self) -> bool {
        false
    }

    fn step(&self, room: StepCapacity<'_>) -> Result<Self::Step> {
        Ok(Step { inner: self.inner.step(room)?, contexts: Vec::new(), seen: Vec::new() })
    }

    fn begin(&self, step: &mut Self::Step, batch: &Batch, rows: &[SampleRow]) {
        step.seen = batch.positions.iter().map(|position| *position as usize + 1).collect();
        step.contexts = batch.spans.iter().map(|span| step.seen[span.tokens.end - 1]).collect();
        self.inner.begin(&mut step.inner, batch, rows);
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

    fn finish(&self, step: &mut Self::Step) {
        self.inner.finish(&mut step.inner);
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
        let bytes = self.rows(step) * self.width(out) * (self.size() + SINGLE);
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
        let bytes = rows * self.width(out) * (SINGLE + self.size() + added);
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
        layer: usize,
        qkv: &mut D::Tensor,
        cache: &mut D::Cache,
    ) {
        let activations = (heads.qkv_width() + heads.query_width()) * self.size();
        let stored = 2 * heads.key_value * self.format().cache.row_bytes(heads.dim);
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
        let cached = sum(&step.contexts) * 2 * heads.key_value * self.format().cache.row_bytes(heads.dim);
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
        // Rows after the step's own tokens are padding.
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
        let bytes = step.seen.len() * (routing.shape.active + 1) * self.width(out) * self.size();
        self.note("weighted_sum", bytes, 0, |d| d.weighted_sum(&step.inner, &routing.inner, x, out));
    }

    fn gather(&self, step: &Self::Step, outputs: Range<usize>, x: &D::Tensor, out: &mut D::Tensor) {
        let bytes = 2 * outputs.len() * self.width(x) * self.size();
        self.note("gather", bytes, 0, |d| d.gather(&step.inner, outputs, x, out));
    }

    fn contrast_sample(
        &self,
        step: &mut Self::Step,
        outputs: Range<usize>,
        expert: &D::Tensor,
        amateur: Option<&D::Tensor>,
    ) {
        let widths = self.width(expert) + amateur.map_or(0, |amateur| self.width(amateur));
        self.note("contrast_sample", outputs.len() * widths * SINGLE, 0, |d| {
            d.contrast_sample(&mut step.inner, outputs, expert, amateur);
        });
    }

    fn settle(
        &self,
        step: &mut Self::Step,
        outputs: Range<usize>,
        expert: &D::Tensor,
        deferred_logits: &mut D::Tensor,
    ) {
        self.note("settle", outputs.len() * self.width(expert) * SINGLE, 0, |d| {
            d.settle(&mut step.inner, outputs, expert, deferred_logits);
        });
    }

    fn collect_settled(&self, step: &mut Self::Step) -> Result<Vec<Option<RowResult>>> {
        self.inner.collect_settled(&mut step.inner)
    }

    fn copy_block(&self, cache: &mut D::Cache, from: BlockId, to: BlockId) {
        self.inner.copy_block(cache, from, to);
    }

    fn solo_slowdown(&self) -> Option<f64> {
        self.inner.solo_slowdown()
    }

    fn row_cost(&self) -> f64 {
        self.inner.row_cost()
    }

    fn gathers(&self) -> bool {
        self.inner.gathers()
    }

    fn contrast_sample_hidden(
        &self,
        step: &mut Self::Step,
        outputs: Range<usize>,
        expert: &D::Tensor,
        amateur: (&D::Tensor, &D::Weight),
        logits: &mut D::Tensor,
    ) {
        let (rows, head, before) = (outputs.len(), self.weight_size(amateur.1), self.inner.mark());
        self.inner.contrast_sample_hidden(&mut step.inner, outputs, expert, amateur, logits);
        let marks = [before, self.inner.mark()];
        let Projections { gathered, full } = self.inner.projections(&step.inner);
        // Of the head the rows that were gathered, or all of it; logits that are written are read again.
        let read = if full > 0 { head.bytes } else { gathered * head.columns * self.size() };
        let logits = (rows * self.width(expert) + 2 * full * head.rows) * SINGLE;
        let bytes = rows * head.columns * self.size() + read + logits;
        let operations = 2 * head.columns * (gathered + full * head.rows);
        self.add(Entry { operation: "contrast_sample", marks, bytes, operations });
    }

    fn projections(&self, step: &Self::Step) -> Projections {
        self.inner.projections(&step.inner)
    }

    fn weight_size(&self, weight: &D::Weight) -> WeightSize {
        self.inner.weight_size(weight)
    }

    fn width(&self, x: &D::Tensor) -> usize {
        self.inner.width(x)
    }

    fn copy(&self, rows: usize, x: &D::Tensor, out: &mut D::Tensor) {
        let bytes = 2 * rows * self.width(x) * SINGLE;
        self.note("copy", bytes, 0, |d| d.copy(rows, x, out));
    }

    fn mark(&self) -> D::Mark {
        self.inner.mark()
    }

    fn seconds(&self, from: &D::Mark, to: &D::Mark) -> Result<f64> {
        self.inner.seconds(from, to)
    }

    fn upload(&self, values: &[f32], x: &mut D::Tensor) {
        self.inner.upload(values, x);
    }

    fn download(&self, rows: usize, x: &D::Tensor) -> Vec<f32> {
        self.inner.download(rows, x)
    }

    fn choices(&self, rows: usize, routing: &Self::Routing) -> Vec<Choice> {
        self.inner.choices(rows, &routing.inner)
    }
}
