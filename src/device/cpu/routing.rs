//! Chooses the branches of a mixture for each row, and sums the branches' outputs.

use super::isa::Kernel;
use super::math::exp;
use super::pool::ThreadPool;
use super::simd::mul_add;
use super::simd::{Portable, Simd};
use super::tensor::Tensor;
use crate::device::{Choice, RoutingShape};

/// See [`crate::device::Device::Routing`].
pub struct Routing {
    shape: RoutingShape,
    /// `[rows, active]`
    choices: Vec<Choice>,
    /// `[rows, active]`: the place of each choice in the order of the branches.
    places: Vec<u32>,
    /// `[rows * active]`: the row of each place.
    sources: Vec<u32>,
    /// `[branches + 1]`: the first place of each branch, then the end of the last.
    offsets: Vec<u32>,
}

impl Routing {
    /// A routing of no rows.
    pub fn new(shape: RoutingShape) -> Self {
        let offsets = vec![0; shape.branches + 1];
        Self { shape, choices: Vec::new(), places: Vec::new(), sources: Vec::new(), offsets }
    }

    /// Branches per row.
    pub fn active(&self) -> usize {
        self.shape.active
    }

    /// The choices, `[rows, active]`.
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// `[rows * active]`: the row of each place.
    pub fn sources(&self) -> &[u32] {
        &self.sources
    }

    /// `[branches + 1]`: the first place of each branch, then the end of the last.
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// See [`crate::device::Device::route`].
    pub fn route(&mut self, pool: &ThreadPool, rows: usize, logits: &Tensor) {
        let RoutingShape { branches, active, normalized } = self.shape;
        self.choices.resize(rows * active, Choice { branch: 0, weight: 0.0 });
        let choices = self.choices.chunks_exact_mut(active).enumerate();
        pool.for_each(choices, |(row, choices)| choose(&logits.row(row)[..branches], normalized, choices));
        self.sort(rows);
    }

    /// Sorts the choices by branch, and within a branch by row.
    fn sort(&mut self, rows: usize) {
        self.offsets.fill(0);
        for choice in &self.choices {
            self.offsets[choice.branch as usize + 1] += 1;
        }
        for branch in 0..self.shape.branches {
            self.offsets[branch + 1] += self.offsets[branch];
        }
        let mut next = self.offsets.clone();
        self.places.resize(rows * self.shape.active, 0);
        self.sources.resize(rows * self.shape.active, 0);
        for (visit, choice) in self.choices.iter().enumerate() {
            let place = &mut next[choice.branch as usize];
            self.places[visit] = *place;
            self.sources[*place as usize] = (visit / self.shape.active) as u32;
            *place += 1;
        }
    }

    /// The weighted sum for one row.
    pub fn weighted_row<'a>(&'a self, row: usize, x: &'a Tensor, out: &'a mut [f32]) -> WeightedRow<'a> {
        let visits = row * self.shape.active..(row + 1) * self.shape.active;
        WeightedRow { choices: &self.choices[visits.clone()], places: &self.places[visits], x, out }
    }
}

/// Chooses the branches with the greatest logits, the lowest branch among equals, and their weights. A NaN counts as
/// the greatest logit, so its row's weights become NaN.
fn choose(logits: &[f32], normalized: bool, choices: &mut [Choice]) {
    // Adding zero makes -0 equal to +0.
    let key = |branch: usize| if logits[branch].is_nan() { f32::INFINITY } else { logits[branch] + 0.0 };
    let mut order: Vec<usize> = (0..logits.len()).collect();
    let greatest_first = |a: &usize, b: &usize| key(*b).total_cmp(&key(*a)).then(a.cmp(b));
    order.select_nth_unstable_by(choices.len() - 1, greatest_first);
    order.truncate(choices.len());
    order.sort_unstable_by(greatest_first);

    let power = |branch: usize| exp::<Portable>(key(branch) - key(order[0]));
    let whole: f32 =
        if normalized { order.iter().map(|b| power(*b)).sum() } else { (0..logits.len()).map(power).sum() };
    for (choice, branch) in choices.iter_mut().zip(&order) {
        *choice = Choice { branch: *branch as u32, weight: power(*branch) / whole };
    }
}

/// `out = sum weight * x[place]`, in the order of the choices.
pub struct WeightedRow<'a> {
    /// `[active]`
    choices: &'a [Choice],
    /// `[active]`
    places: &'a [u32],
    /// `[places, width]`
    x: &'a Tensor,
    /// `[width]`
    out: &'a mut [f32],
}

impl Kernel for WeightedRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        self.out.fill(0.0);
        for (choice, place) in self.choices.iter().zip(self.places) {
            for (out, x) in self.out.iter_mut().zip(self.x.row(*place as usize)) {
                *out = mul_add::<S>(choice.weight, *x, *out);
            }
        }
    }
}
