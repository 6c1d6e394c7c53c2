//! Checks of a mixture's operations: the choice of branches, the grouped products, and the weighted sums.

use std::fmt::{self, Display, Formatter};

use super::comparison::{Check, Comparison, relative_error};
use super::rows::{begin, check, is_padding, scattered};
use crate::device::cpu;
use crate::device::inspect::Inspect;
use crate::device::{Batch, Choice, Device, GroupedRows, Precision, RoutingShape, Span};
use crate::error::Result;

/// A mixture of two products: from `[rows, inner]` to `[places, outputs]`, then to `[places, inner]`.
#[derive(Clone, Copy)]
struct Case {
    rows: usize,
    branches: usize,
    active: usize,
    inner: usize,
    outputs: usize,
    who: Who,
}

impl Display for Case {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { rows, branches, active, inner, outputs, who } = self;
        let who = match who {
            Who::Any => "any",
            Who::First => "the first",
            Who::Last => "the last",
        };
        write!(out, "{rows} rows through {who} {active} of {branches} branches, {inner} to {outputs} wide")
    }
}

/// The branches that rows go through.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    /// Any branches.
    Any,
    /// Every row goes through the first branches.
    First,
    /// Every row goes through the last branches.
    Last,
}

/// All checks of a mixture's operations.
///
/// # Errors
/// If a device has too little memory.
pub fn checks<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for (rows, branches, active) in
        [(1, 1, 1), (9, 2, 1), (5, 3, 3), (33, 31, 8), (7, 32, 2), (6, 33, 5), (300, 128, 8), (3, 160, 10)]
    {
        checks.extend(route(on, rows, RoutingShape { branches, active, normalized: rows % 2 == 1 })?);
    }
    checks.push(route_alone(on)?);
    let case = |rows, (branches, active), (inner, outputs), who| Case {
        rows,
        branches,
        active,
        inner,
        outputs,
        who,
    };
    for case in [
        case(1, (1, 1), (8, 1), Who::Any),
        case(1, (4, 2), (64, 64), Who::Any),
        case(15, (1, 1), (72, 65), Who::Any),
        case(16, (2, 1), (56, 63), Who::First),
        case(17, (1, 1), (136, 129), Who::Any),
        case(17, (3, 1), (328, 30), Who::First),
        case(63, (1, 1), (64, 127), Who::Any),
        case(2, (2, 1), (2048, 16), Who::Any),
        case(64, (3, 1), (24, 128), Who::First),
        case(65, (2, 2), (72, 136), Who::Any),
        case(3, (128, 8), (80, 24), Who::Any),
        case(40, (128, 8), (16, 40), Who::Any),
        case(150, (5, 2), (8, 16), Who::Last),
        case(20, (6, 3), (7, 5), Who::Any),
        case(21, (33, 1), (33, 3), Who::Last),
        // So many outputs that the kernels take wider tiles than for small products.
        case(151, (2, 2), (48, 128 * on.device.multiprocessors()), Who::Any),
        // A tile of one row after two full ones.
        case(161, (5, 1), (64, 40), Who::First),
        case(161, (5, 1), (48, 260 * on.device.multiprocessors()), Who::First),
    ] {
        checks.extend(products(on, case)?);
    }
    checks.push(padding(on)?);
    checks.push(one_row_of_nan(on)?);
    for branches in [1, 8] {
        checks.push(alone(on, branches)?);
    }
    Ok(checks)
}

/// The choices of both devices for given logits, in a step with the padding of a given batch.
struct Routed<D: Inspect> {
    steps: (D::Step, cpu::Step),
    routings: (D::Routing, cpu::Routing),
}

impl<D: Inspect> Routed<D> {
    fn new(on: &Comparison<'_, D>, batch: &Batch, logits: &[f32], shape: RoutingShape) -> Result<Self> {
        let rows = batch.tokens.len();
        let steps = begin(on, batch, &[])?;
        let mut routings = (on.device.routing(rows, shape)?, on.cpu.routing(rows, shape)?);
        let logits = on.tensors_of(logits, shape.branches, Precision::Single)?;
        on.device.route(&steps.0, &logits.0, &mut routings.0);
        on.cpu.route(&steps.1, &logits.1, &mut routings.1);
        Ok(Self { steps, routings })
    }

    /// Multiplies `x` by the branches' weights on both devices. The output has `places` rows.
    fn product(
        &self,
        on: &Comparison<'_, D>,
        places: usize,
        rows: GroupedRows,
        x: &(D::Tensor, cpu::Tensor),
        w: &(D::Weight, cpu::Weight),
        width: usize,
    ) -> Result<(D::Tensor, cpu::Tensor)> {
        let mut out = on.outputs(places, width, Precision::Working)?;
        on.device.grouped_matmul(&self.steps.0, &self.routings.0, rows, &x.0, &w.0, &mut out.0);
        on.cpu.grouped_matmul(&self.steps.1, &self.routings.1, rows, &x.1, &w.1, &mut out.1);
        Ok(out)
    }

    fn sum(
        &self,
        on: &Comparison<'_, D>,
        rows: usize,
        x: &(D::Tensor, cpu::Tensor),
        width: usize,
    ) -> Result<(D::Tensor, cpu::Tensor)> {
        let mut out = on.outputs(rows, width, Precision::Working)?;
        on.device.weighted_sum(&self.steps.0, &self.routings.0, &x.0, &mut out.0);
        on.cpu.weighted_sum(&self.steps.1, &self.routings.1, &x.1, &mut out.1);
        Ok(out)
    }
}

/// A batch of `rows` rows without padding.
fn full<D: Inspect>(on: &mut Comparison<'_, D>, rows: usize) -> Batch {
    let mut batch = scattered(on, rows);
    batch.spans = (0..rows).map(|row| Span { tokens: row..row + 1, blocks: row..row + 1 }).collect();
    batch.blocks = (0..rows as u32).map(crate::ids::BlockId).collect();
    batch
}

/// Compares branches and weights for logits that tie, are infinite, are all equal or are NaN. Each branch that
/// differs counts as one difference. Weights are f32 in every format.
fn route<D: Inspect>(on: &mut Comparison<'_, D>, rows: usize, shape: RoutingShape) -> Result<Vec<Check>> {
    let RoutingShape { branches, active, .. } = shape;
    let mut logits: Vec<f32> = on.numbers.take(rows * branches).iter().map(|x| x * 8.0).collect();
    for (row, logits) in logits.chunks_exact_mut(branches).enumerate() {
        let any = on.numbers.below(branches);
        match row % 8 {
            2 => logits.iter_mut().for_each(|x| *x = x.round() / 4.0),
            3 => logits.fill(-3.0),
            4 => logits[any] = f32::NEG_INFINITY,
            5 => logits[any] = 1000.0,
            6 => logits[any] = f32::NAN,
            7 => logits.iter_mut().for_each(|x| *x = if *x > 0.0 { 0.0 } else { -0.0 }),
            _ => {}
        }
    }
    let batch = scattered(on, rows);
    let routed = Routed::new(on, &batch, &logits, shape)?;
    let found = on.device.choices(rows, &routed.routings.0);
    let expected = on.cpu.choices(rows, &routed.routings.1);
    let written = |visit: &usize| !is_padding(visit / active);
    let pick = |choices: &[Choice]| -> Vec<Choice> {
        (0..choices.len()).filter(written).map(|visit| choices[visit]).collect()
    };
    let (found, expected) = (pick(&found), pick(&expected));
    let differ = |(a, b): &(&Choice, &Choice)| a.branch != b.branch || a.weight.is_nan() != b.weight.is_nan();
    let differences = found.iter().zip(&expected).filter(differ).count() + expected.len() - found.len();
    let weights = |choices: &[Choice]| -> Vec<f32> {
        choices.iter().map(|choice| choice.weight).filter(|weight| !weight.is_nan()).collect()
    };
    let sum = if shape.normalized { "to sum 1" } else { "of all branches" };
    let case = format!("{rows} rows, {active} of {branches} branches, weights {sum}");
    let error = relative_error(&weights(&found), &weights(&expected));
    Ok(vec![
        Check::counted("route", format!("branches, {case}"), differences),
        Check::measured("route", format!("weights, {case}"), error, 1e-6),
    ])
}

/// Checks that a row's choices do not change if other rows are routed with it.
fn route_alone<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Check> {
    let (rows, shape) = (70, RoutingShape { branches: 128, active: 8, normalized: true });
    let logits = on.numbers.take(rows * shape.branches);
    let batches = (full(on, 1), full(on, rows));
    let alone = Routed::new(on, &batches.0, &logits[..shape.branches], shape)?;
    let among = Routed::new(on, &batches.1, &logits, shape)?;
    let (alone, among) = (on.device.choices(1, &alone.routings.0), on.device.choices(1, &among.routings.0));
    let differences = usize::from(alone != among);
    Ok(Check::counted("route", format!("a row alone and of {rows}"), differences))
}

/// Logits that choose the branches that `case.who` names.
fn logits_for<D: Inspect>(on: &mut Comparison<'_, D>, case: Case) -> Vec<f32> {
    let Case { rows, branches, active, who, .. } = case;
    let mut logits = on.numbers.take(rows * branches);
    for logits in logits.chunks_exact_mut(branches) {
        match who {
            Who::Any => {}
            Who::First => logits[..active].iter_mut().for_each(|x| *x += 4.0),
            Who::Last => logits[branches - active..].iter_mut().for_each(|x| *x += 4.0),
        }
    }
    logits
}

/// Checks the first product, the second product and the sum. Both devices get the same inputs for each of them.
fn products<D: Inspect>(on: &mut Comparison<'_, D>, case: Case) -> Result<Vec<Check>> {
    let Case { rows, branches, active, inner, outputs, .. } = case;
    let logits = logits_for(on, case);
    let batch = full(on, rows);
    let shape = RoutingShape { branches, active, normalized: true };
    let routed = Routed::new(on, &batch, &logits, shape)?;
    let places = rows * active;

    let x = on.tensors(rows, inner, Precision::Working)?;
    let w = on.matrices(&[branches, outputs, inner])?;
    let up = routed.product(on, places, GroupedRows::OfRow, &x, &w, outputs)?;
    let name = |what| format!("{what}, {case}");
    let check = on.check("grouped_matmul", name("of rows"), places, (&up.0, &up.1));
    let mut checks = vec![Check { bound: on.bound_of_products(on.device.info().dtype, inner), ..check }];

    let x = on.tensors(places, outputs, Precision::Working)?;
    let w = on.matrices(&[branches, inner, outputs])?;
    let down = routed.product(on, places, GroupedRows::OfPlace, &x, &w, inner)?;
    let check = on.check("grouped_matmul", name("of places"), places, (&down.0, &down.1));
    checks.push(Check { bound: on.bound_of_products(on.device.info().dtype, outputs), ..check });

    let x = on.tensors(places, inner, Precision::Working)?;
    let sum = routed.sum(on, rows, &x, inner)?;
    checks.push(on.check("weighted_sum", case.to_string(), rows, (&sum.0, &sum.1)));
    Ok(checks)
}

/// Computes a whole mixture without its activation, `[rows, inner]`, on both devices.
fn mixture<D: Inspect>(
    on: &mut Comparison<'_, D>,
    batch: &Batch,
    case: Case,
    (logits, x): (&[f32], &[f32]),
    weights: &Weights<D>,
) -> Result<(D::Tensor, cpu::Tensor)> {
    let Case { rows, branches, active, inner, outputs, .. } = case;
    let routed = Routed::new(on, batch, logits, RoutingShape { branches, active, normalized: false })?;
    let x = on.tensors_of(x, inner, Precision::Working)?;
    let up = routed.product(on, rows * active, GroupedRows::OfRow, &x, &weights.up, outputs)?;
    let down = routed.product(on, rows * active, GroupedRows::OfPlace, &up, &weights.down, inner)?;
    routed.sum(on, rows, &down, inner)
}

/// The weights of a [`mixture`].
struct Weights<D: Inspect> {
    /// `[branches, outputs, inner]`
    up: (D::Weight, cpu::Weight),
    /// `[branches, inner, outputs]`
    down: (D::Weight, cpu::Weight),
}

impl<D: Inspect> Weights<D> {
    fn new(on: &mut Comparison<'_, D>, case: Case) -> Result<Self> {
        let Case { branches, inner, outputs, .. } = case;
        Ok(Self {
            up: on.matrices(&[branches, outputs, inner])?,
            down: on.matrices(&[branches, inner, outputs])?,
        })
    }
}

/// Checks padding rows with NaN activations and NaN logits: the device must not write them, and they must not change
/// other rows.
fn padding<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Check> {
    let case = Case { rows: 22, branches: 4, active: 2, inner: 72, outputs: 40, who: Who::Any };
    let (batch, weights) = (scattered(on, case.rows), Weights::new(on, case)?);
    let (mut logits, mut x) = (logits_for(on, case), on.numbers.take(case.rows * case.inner));
    for row in (0..case.rows).filter(|row| is_padding(*row)) {
        logits[row * case.branches..][..case.branches].fill(f32::NAN);
        x[row * case.inner..][..case.inner].fill(f32::NAN);
    }
    let out = mixture(on, &batch, case, (&logits, &x), &weights)?;
    let (name, written) = (format!("rows of padding, {case}"), |row| !is_padding(row));
    Ok(check(on, ("weighted_sum", name), (case.rows, 0..case.inner), written, (&out.0, &out.1)))
}

/// Checks that a NaN among a row's logits makes that row NaN and changes no other row.
fn one_row_of_nan<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Check> {
    let case = Case { rows: 19, branches: 3, active: 2, inner: 64, outputs: 24, who: Who::Any };
    let (batch, weights) = (full(on, case.rows), Weights::new(on, case)?);
    let (mut logits, x) = (logits_for(on, case), on.numbers.take(case.rows * case.inner));
    logits[7 * case.branches + 2] = f32::NAN;
    let out = mixture(on, &batch, case, (&logits, &x), &weights)?;
    let name = format!("a NaN among the logits, {case}");
    Ok(check(on, ("weighted_sum", name), (case.rows, 0..case.inner), |row| row != 7, (&out.0, &out.1)))
}

/// Counts the numbers of a row that change if the mixture also computes other rows. There are enough of them to make
/// the kernels use higher tiles.
fn alone<D: Inspect>(on: &mut Comparison<'_, D>, branches: usize) -> Result<Check> {
    let active = branches.min(2);
    let case = Case { rows: 17 * branches, branches, active, inner: 136, outputs: 72, who: Who::Any };
    let weights = Weights::new(on, case)?;
    let (logits, x) = (logits_for(on, case), on.numbers.take(case.rows * case.inner));
    let mut of = |rows: usize| -> Result<Vec<f32>> {
        let batch = full(on, rows);
        let inputs = (&logits[..rows * branches], &x[..rows * case.inner]);
        let out = mixture(on, &batch, Case { rows, ..case }, inputs, &weights)?;
        Ok(on.device.download(1, &out.0))
    };
    let (alone, among) = (of(1)?, of(case.rows)?);
    let differ = |(a, b): &(&f32, &f32)| a.to_bits() != b.to_bits() || a.is_nan();
    let differences = alone.iter().zip(&among).filter(differ).count();
    let case = format!("a row alone and of {}, {branches} branches", case.rows);
    Ok(Check::counted("grouped_matmul", case, differences))
}
