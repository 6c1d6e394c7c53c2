//! The CPU: multithreaded and vectorized, weights read in their own dtype, arithmetic in f32.
//!
//! A row's numbers never depend on its batch: every sum has an order of its own, fixed by the shapes of the model
//! alone, whatever the number of rows, the way they are cut into tiles and the number of threads.

mod attention;
mod buffer;
mod cache;
mod elementwise;
mod matmul;
mod rope;
mod sample;
mod weight;

use rayon::ThreadPool;

use super::{Activation, Batch, CacheShape, Device, Heads, Norm, SampleRow, TensorView};
use crate::contrast::{RowFault, Sampled, Vocabulary};
use crate::error::{Error, Result};
use buffer::Buffer;
pub use cache::Cache;
pub use rope::Rope;
pub use weight::Weight;

/// The CPU device.
pub struct Cpu {
    pool: ThreadPool,
}

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

impl Cpu {
    /// A device of `threads` threads; without a number, as many as the process may use.
    ///
    /// # Errors
    /// If the system refuses the threads.
    pub fn new(threads: Option<usize>) -> Result<Self> {
        let threads =
            threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1).max(1);
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("codit-cpu-{index}"))
            .build()
            .map(|pool| Self { pool })
            .map_err(|error| Error::Device(format!("cannot start {threads} threads: {error}")))
    }
}

impl Device for Cpu {
    type Weight = Weight;
    type Tensor = Tensor;
    type Rope = Rope;
    type Cache = Cache;

    fn weight(&self, parts: &[TensorView]) -> Result<Weight> {
        Weight::new(parts)
    }

    fn tensor(&self, rows: usize, width: usize) -> Result<Tensor> {
        Ok(Tensor { data: Buffer::zeroed(rows, width, "activations")?, width })
    }

    fn rope(&self, inverse_frequencies: &[f32], scale: f32) -> Result<Rope> {
        Ok(Rope::new(inverse_frequencies, scale))
    }

    fn cache(&self, shape: CacheShape) -> Result<Cache> {
        Cache::new(shape)
    }

    fn block_bytes(&self, shape: CacheShape) -> usize {
        cache::block_bytes(shape)
    }

    fn join<A: Send, B: Send>(&self, a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send) -> (A, B) {
        self.pool.join(a, b)
    }

    fn embed(&self, batch: &Batch, table: &Weight, scale: f32, out: &mut Tensor) {
        for (row, token) in batch.tokens.iter().enumerate() {
            let out = out.row_mut(row);
            table.read_row(token.index(), out);
            out.iter_mut().for_each(|x| *x *= scale);
        }
    }

    fn rms_norm(
        &self,
        rows: usize,
        delta: Option<&Tensor>,
        residual: &mut Tensor,
        norm: &Norm<Weight>,
        out: &mut Tensor,
    ) {
        for row in 0..rows {
            if let Some(delta) = delta {
                elementwise::add(residual.row_mut(row), delta.row(row));
            }
            elementwise::rms_norm(residual.row(row), norm, out.row_mut(row));
        }
    }

    fn matmul(&self, rows: usize, x: &Tensor, w: &Weight, bias: Option<&Weight>, out: &mut Tensor) {
        self.pool.install(|| matmul::matmul(rows, x, w, bias, out));
    }

    fn rope_store(
        &self,
        batch: &Batch,
        heads: Heads,
        norms: Option<(&Norm<Weight>, &Norm<Weight>)>,
        rope: &Rope,
        layer: usize,
        qkv: &mut Tensor,
        cache: &mut Cache,
    ) {
        for (row, &position) in batch.positions.iter().enumerate() {
            rope.apply(position, heads, norms, qkv.row_mut(row));
        }
        cache.store(batch, heads, layer, qkv);
    }

    fn attention(
        &self,
        batch: &Batch,
        heads: Heads,
        scale: f32,
        window: Option<usize>,
        layer: usize,
        qkv: &Tensor,
        cache: &Cache,
        out: &mut Tensor,
    ) {
        let shape = attention::Shape { heads, scale, window, layer };
        self.pool.install(|| attention::attention(batch, shape, qkv, cache, out));
    }

    fn gated(&self, rows: usize, width: usize, activation: Activation, x: &Tensor, out: &mut Tensor) {
        for row in 0..rows {
            let (gate, up) = x.row(row).split_at(width);
            elementwise::gated(activation, gate, up, &mut out.row_mut(row)[..width]);
        }
    }

    fn gather(&self, rows: &[u32], x: &Tensor, out: &mut Tensor) {
        for (to, &from) in rows.iter().enumerate() {
            out.row_mut(to).copy_from_slice(x.row(from as usize));
        }
    }

    fn contrast_sample(
        &self,
        rows: &[SampleRow<'_>],
        vocabulary: &Vocabulary,
        expert: &Tensor,
        amateur: Option<&Tensor>,
    ) -> Vec<std::result::Result<Sampled, RowFault>> {
        self.pool.install(|| sample::contrast_sample(rows, vocabulary, expert, amateur))
    }

    fn download(&self, rows: usize, x: &Tensor) -> Vec<f32> {
        x.data[..rows * x.width].to_vec()
    }
}
