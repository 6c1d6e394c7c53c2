//! Products with panels: in exact f32, or of activations that are rounded to bf16.
//!
//! A sum has the order of columns, whatever the number of rows, so a row's bits do not depend on its batch.

use std::marker::PhantomData;
use std::ops::Range;

use super::isa::Kernel;
use super::math::{array, nearest_bf16};
use super::panels::{Bf16Step, Panels, Step};
use super::simd::{LANES, Simd};
use super::task::{Rows, Task};
use super::weight::Source;

/// Steps whose products are summed by themselves, because the rounding errors of a long sum grow with its length.
const BLOCK: usize = 16;
/// Steps from those that are multiplied to those that are prefetched. The hardware prefetcher alone does not keep the
/// memory busy.
const AHEAD: usize = 4 * BLOCK;

/// The outputs of a task.
pub struct ByPanels<'a> {
    pub task: Task<'a>,
    pub x: Rows<'a>,
    /// The task's rows, rounded; for matrices that are multiplied with rounded rows.
    pub rounded: Option<RoundedRows<'a>>,
}

/// Rows of bf16 pairs. A missing last column is zero.
#[derive(Clone, Copy)]
pub struct RoundedRows<'a> {
    /// `[rows, pairs]`
    pub numbers: &'a [u32],
    pub pairs: usize,
    /// The number of the first row.
    pub first: usize,
}

/// Rounds a row to bf16 pairs.
pub struct Round<'a> {
    pub row: &'a [f32],
    pub out: &'a mut [u32],
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (pairs, rest) = self.row.as_chunks::<2>();
        for (out, pair) in self.out.iter_mut().zip(pairs) {
            *out = nearest_bf16(pair[0]) >> 16 | nearest_bf16(pair[1]);
        }
        if let ([last], Some(out)) = (rest, self.out.last_mut()) {
            *out = nearest_bf16(*last) >> 16;
        }
    }
}

impl Kernel for ByPanels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (task, x) = (&self.task, self.x);
        match (&task.part.source, self.rounded) {
            (Source::Bf16(matrix), Some(rounded)) => outputs::<S, _>(task, matrix, rounded),
            (Source::Bf16(matrix), None) => outputs::<S, _>(task, matrix, Exact::of(task, x)),
            (Source::F16(matrix), _) => outputs::<S, _>(task, matrix, Exact::of(task, x)),
            (Source::F32(matrix), _) => outputs::<S, _>(task, matrix, Exact::of(task, x)),
            (Source::E4m3(matrix), _) => outputs::<S, _>(task, matrix, Exact::of(task, x)),
            (Source::File(_) | Source::Tiles(_), _) => debug_assert!(false, "it has no panels"),
        }
    }
}

/// Rows of activations, and how they are multiplied with a panel.
trait Activations: Copy {
    type Weights: Step;
    /// One column or more of a row.
    type Element;

    fn row(&self, row: usize) -> &[Self::Element];
    /// The elements of the steps `block`.
    fn cut(row: &[Self::Element], block: Range<usize>) -> &[Self::Element];
    /// `x[R, block] * panels[P, block, LANES]`
    fn multiply<S: Simd, const R: usize, const P: usize>(
        panels: [&[Self::Weights]; P],
        ahead: [*const Self::Weights; P],
        x: [&[Self::Element]; R],
    ) -> [[S::Lanes; P]; R];
}

/// f32, which are multiplied as they are with numbers of any format.
struct Exact<'a, T> {
    rows: Rows<'a>,
    columns: usize,
    of: PhantomData<T>,
}

impl<'a, T> Exact<'a, T> {
    fn of(task: &Task<'_>, rows: Rows<'a>) -> Self {
        Self { rows, columns: task.columns, of: PhantomData }
    }
}

impl<T> Clone for Exact<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Exact<'_, T> {}

impl<T: Step> Activations for Exact<'_, T> {
    type Weights = T;
    type Element = f32;

    #[inline(always)]
    fn row(&self, row: usize) -> &[f32] {
        &self.rows.row(row)[..self.columns]
    }

    #[inline(always)]
    fn cut(row: &[f32], block: Range<usize>) -> &[f32] {
        &row[2 * block.start..row.len().min(2 * block.end)]
    }

    #[inline(always)]
    fn multiply<S: Simd, const R: usize, const P: usize>(
        panels: [&[T]; P],
        ahead: [*const T; P],
        x: [&[f32]; R],
    ) -> [[S::Lanes; P]; R] {
        let (pairs, rest) = (x.map(|x| x.as_chunks::<2>().0), x.map(|x| x.as_chunks::<2>().1));
        let steps = pairs[0].len();
        let (pairs, whole) = (pairs.map(|x| &x[..steps]), panels.map(|panel| &panel[..steps]));
        let mut sums = [[S::splat(0.0); P]; R];
        for step in 0..steps {
            let mut weights = [[S::splat(0.0); 2]; P];
            for p in 0..P {
                S::prefetch_near(ahead[p].wrapping_add(step));
                weights[p] = whole[p][step].widen::<S>();
            }
            for r in 0..R {
                let [first, second] = pairs[r][step];
                let x = [S::splat(first), S::splat(second)];
                for p in 0..P {
                    sums[r][p] = S::mul_add(x[0], weights[p][0], sums[r][p]);
                    sums[r][p] = S::mul_add(x[1], weights[p][1], sums[r][p]);
                }
            }
        }
        if !rest[0].is_empty() {
            for r in 0..R {
                for p in 0..P {
                    let [weights, _] = panels[p][steps].widen::<S>();
                    sums[r][p] = S::mul_add(S::splat(rest[r][0]), weights, sums[r][p]);
                }
            }
        }
        sums
    }
}

impl Activations for RoundedRows<'_> {
    type Weights = Bf16Step;
    type Element = u32;

    #[inline(always)]
    fn row(&self, row: usize) -> &[u32] {
        &self.numbers[(row - self.first) * self.pairs..][..self.pairs]
    }

    #[inline(always)]
    fn cut(row: &[u32], block: Range<usize>) -> &[u32] {
        &row[block]
    }

    #[inline(always)]
    fn multiply<S: Simd, const R: usize, const P: usize>(
        panels: [&[Bf16Step]; P],
        ahead: [*const Bf16Step; P],
        x: [&[u32]; R],
    ) -> [[S::Lanes; P]; R] {
        let steps = x[0].len();
        let (x, panels) = (x.map(|x| &x[..steps]), panels.map(|panel| &panel[..steps]));
        let mut sums = [[S::splat(0.0); P]; R];
        for step in 0..steps {
            for ahead in ahead {
                S::prefetch_near(ahead.wrapping_add(step));
            }
            for r in 0..R {
                for p in 0..P {
                    sums[r][p] = S::dot(&panels[p][step].0, x[r][step], sums[r][p]);
                }
            }
        }
        sums
    }
}

/// All rows of the task, in blocks that fit the registers.
#[inline(always)]
fn outputs<S: Simd, X: Activations>(task: &Task<'_>, matrix: &Panels<X::Weights>, x: X) {
    let rows = task.rows.clone();
    let rows = if S::WIDE {
        let rows = blocks::<S, X, 8, 2>(task, matrix, x, rows);
        blocks::<S, X, 4, 4>(task, matrix, x, rows)
    } else {
        blocks::<S, X, 4, 1>(task, matrix, x, rows)
    };
    let rows = blocks::<S, X, 2, 2>(task, matrix, x, rows);
    blocks::<S, X, 1, 4>(task, matrix, x, rows);
}

/// Blocks of `R` rows and `P` panels; returns the rows that are left.
#[inline(always)]
fn blocks<S: Simd, X: Activations, const R: usize, const P: usize>(
    task: &Task<'_>,
    matrix: &Panels<X::Weights>,
    x: X,
    rows: Range<usize>,
) -> Range<usize> {
    let outputs = task.outputs.clone();
    let end = rows.start + rows.len() / R * R;
    for first in outputs.clone().step_by(P * LANES) {
        // A panel that the task lacks is computed as its last, and not written.
        let last = (outputs.end - 1) / LANES;
        let panels: [&[X::Weights]; P] = std::array::from_fn(|p| matrix.panel((first / LANES + p).min(last)));
        for row in (rows.start..end).step_by(R) {
            let sums = products::<S, X, R, P>(panels, std::array::from_fn(|r| x.row(row + r)));
            for (row, sums) in (row..).zip(sums) {
                for (first, sums) in (first..outputs.end).step_by(LANES).zip(sums) {
                    let values = &array::<S>(sums)[..LANES.min(outputs.end - first)];
                    task.write(row, first - outputs.start, values);
                }
            }
        }
    }
    end..rows.end
}

/// `x[R, columns] * panels[P, columns, LANES]`, block by block.
#[inline(always)]
fn products<S: Simd, X: Activations, const R: usize, const P: usize>(
    panels: [&[X::Weights]; P],
    x: [&[X::Element]; R],
) -> [[S::Lanes; P]; R] {
    let steps = panels[0].len();
    let mut sums = [[S::splat(0.0); P]; R];
    for first in (0..steps).step_by(BLOCK) {
        let block = first..steps.min(first + BLOCK);
        // After the end of these panels come the next ones.
        let ahead = first + AHEAD;
        let ahead = if ahead < steps { ahead } else { ahead + (P - 1) * steps };
        let ahead = panels.map(|panel| panel.as_ptr().wrapping_add(ahead));
        let panels = panels.map(|panel| &panel[block.clone()]);
        let products = X::multiply::<S, R, P>(panels, ahead, x.map(|x| X::cut(x, block.clone())));
        for (sums, products) in sums.iter_mut().zip(products) {
            for (sum, product) in sums.iter_mut().zip(products) {
                *sum = S::add(*sum, product);
            }
        }
    }
    sums
}
