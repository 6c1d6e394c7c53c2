//! Checks of matrix products.

use super::comparison::{Check, Comparison, as_cpu, describe_precision, norm};
use crate::device::inspect::Inspect;
use crate::device::{Device, Dtype, Precision};
use crate::error::Result;

/// All checks of matrix products.
///
/// # Errors
/// If a device has too little memory.
pub fn checks<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for shape in [
        (1, 64, 64),
        (1, 1, 16),
        (2, 65, 1040),
        (15, 63, 48),
        (16, 3, 576),
        (17, 130, 80),
        (33, 128, 128),
        (64, 72, 272),
        (65, 129, 64),
        (127, 65, 96),
        (128, 131, 208),
        (129, 70, 144),
        (130, 257, 144),
        (151, 33, 336),
        // Rows that are not a whole number of 16-byte chunks.
        (3, 40, 8),
        (20, 7, 7),
        (5, 9, 1000),
    ] {
        for dtype in stored(on.device) {
            checks.extend(products(on, *dtype, shape)?);
        }
    }
    // Our own kernels compute the products of e4m3.
    if on.device.info().is_deterministic || on.device.info().format.weights == Dtype::F8E4m3 {
        for dtype in stored(on.device) {
            for shape in filling(on.device.multiprocessors()) {
                checks.extend(products(on, *dtype, shape)?);
            }
            checks.push(alone(on, *dtype)?);
        }
    }
    Ok(checks)
}

/// Products of so many outputs that our own kernels take their wider tiles, which a device of this many multiprocessors
/// has no use for in small products.
fn filling(multiprocessors: usize) -> [(usize, usize, usize); 3] {
    [(48, 129 * multiprocessors, 80), (65, 256 * multiprocessors + 3, 64), (151, 303 * multiprocessors, 48)]
}

/// The formats in which matrices are stored. The CPU multiplies each format in its own way; other devices have one
/// format.
fn stored<D: Inspect>(device: &D) -> &'static [Dtype] {
    match (as_cpu(device), device.info().dtype) {
        (Some(_), _) => &[Dtype::F32, Dtype::Bf16, Dtype::F16],
        (None, Dtype::F32) => &[Dtype::F32],
        (None, _) => &[Dtype::Bf16],
    }
}

/// Checks products with a matrix that is stored as `dtype`: with a bias and without, with outputs in the device's
/// format and in f32.
fn products<D: Inspect>(
    on: &mut Comparison<'_, D>,
    dtype: Dtype,
    (rows, outputs, inputs): (usize, usize, usize),
) -> Result<Vec<Check>> {
    let x = on.tensors(rows, inputs, Precision::Working)?;
    let (w, bias) = (on.matrices_in(dtype, &[outputs, inputs])?, on.weights(&[outputs])?);
    let tiles = on.device.tile(rows, &w.0);
    let tiles = tiles.map_or_else(String::new, |[rows, outputs]| format!(", tiles of {rows} x {outputs}"));
    let mut checks = Vec::new();
    for precision in [Precision::Working, Precision::Single] {
        for (here, there) in [(None, None), (Some(&bias.0), Some(&bias.1))] {
            let mut out = on.outputs(rows + 1, outputs, precision)?;
            on.device.matmul(rows, &x.0, &w.0, here, &mut out.0);
            on.cpu.matmul(rows, &x.1, &w.1, there, &mut out.1);
            let bias = if here.is_some() { " and a bias" } else { "" };
            let (stored, precision) = (dtype.name(), describe_precision(precision));
            let case = format!("{rows} x {inputs} x {outputs}{bias}, stored as {stored}, {precision}{tiles}");
            let check = on.check("matmul", case, rows, (&out.0, &out.1));
            let bound =
                on.bound_of_products(dtype, inputs) * cancellation(&on.cpu.download(rows, &out.1), inputs);
            checks.push(Check { bound, ..check });
        }
    }
    Ok(checks)
}

/// How much smaller sums of `terms` products of random numbers in -1..1 are than such sums usually are; at least 1. Their
/// rounding errors are not smaller: a sum of few outputs may cancel.
fn cancellation(sums: &[f32], terms: usize) -> f64 {
    let usual = (sums.len() * terms) as f64 / 9.0;
    (usual.sqrt() / norm(sums)).max(1.0)
}

/// Checks that each row of a product has the same bits alone and among other rows.
fn alone<D: Inspect>(on: &mut Comparison<'_, D>, dtype: Dtype) -> Result<Check> {
    let (rows, outputs, inputs) = (151, 70, 208);
    let w = on.matrices_in(dtype, &[outputs, inputs])?;
    let values = on.numbers.take(rows * inputs);
    let product = |rows: &[f32]| -> Result<Vec<f32>> {
        let count = rows.len() / inputs;
        let (x, _) = on.tensors_of(rows, inputs, Precision::Working)?;
        let (mut out, _) = on.outputs(count, outputs, Precision::Single)?;
        on.device.matmul(count, &x, &w.0, None, &mut out);
        Ok(on.device.download(count, &out))
    };
    let mut differences = 0;
    let alone = values.chunks(inputs).map(product).collect::<Result<Vec<_>>>()?.concat();
    let counts = [5, 15, 17, 60, 65, 128, rows];
    for count in counts {
        let among = product(&values[..count * inputs])?;
        differences += among.iter().zip(&alone).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    }
    let stored = dtype.name();
    let counts = counts.map(|count| count.to_string()).join(", ");
    let case = format!("rows alone and among {counts}, stored as {stored}");
    Ok(Check::counted("matmul", case, differences))
}
