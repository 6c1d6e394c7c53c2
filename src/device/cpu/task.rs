//! The part of a product that one thread computes, and the rows and outputs of the whole.

use std::ops::Range;

use super::tensor::Tensor;
use super::weight::Part;

/// The rows of a product.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// `[any, columns]`
    pub tensor: &'a Tensor,
    /// The row of `tensor` for each row of the product; if `None`, row `i` is row `i`.
    pub sources: Option<&'a [u32]>,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [f32] {
        self.tensor.row(self.sources.map_or(row, |sources| sources[row] as usize))
    }
}

/// The part of a product that one thread computes at a time: some outputs of some rows.
pub struct Task<'a> {
    pub part: &'a Part,
    /// Rows of the weight's part, at most [`OUTPUTS`].
    pub outputs: Range<usize>,
    /// The column of `target` for the first output.
    pub column: usize,
    pub columns: usize,
    /// The bias of these outputs.
    pub bias: Option<&'a [f32]>,
    /// Rows of the batch, at most [`ROWS`].
    pub rows: Range<usize>,
    pub target: &'a Columns,
}

impl Task<'_> {
    /// Writes `values`, the sums of consecutive outputs; the first is the task's output number `at`.
    #[inline(always)]
    pub fn write(&self, row: usize, at: usize, values: &[f32]) {
        // SAFETY: every column belongs to one task.
        let out = unsafe { self.target.row(row, self.column + at, values.len()) };
        out.copy_from_slice(values);
        if let Some(scales) = self.part.scales.get(self.outputs.start + at..) {
            out.iter_mut().zip(scales).for_each(|(out, scale)| *out *= scale);
        }
        if let Some(bias) = self.bias {
            out.iter_mut().zip(&bias[at..]).for_each(|(out, bias)| *out += bias);
        }
    }
}

/// The output of a product. Each task writes its own columns.
pub struct Columns {
    start: *mut f32,
    len: usize,
    width: usize,
}

// SAFETY: tasks write disjoint columns, and nothing reads them before all tasks end.
unsafe impl Sync for Columns {}

impl Columns {
    pub fn of(out: &mut Tensor) -> Self {
        Self { start: out.data.as_mut_ptr(), len: out.data.len(), width: out.width }
    }

    /// # Safety
    /// No other thread may use these elements.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps threads apart")]
    unsafe fn row(&self, row: usize, first: usize, count: usize) -> &mut [f32] {
        let at = row * self.width + first;
        assert!(first + count <= self.width && at + count <= self.len);
        // SAFETY: the range lies inside the buffer, and only the caller uses it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), count) }
    }
}
