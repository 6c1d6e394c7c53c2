//! Checks of matrix products.

use super::{Check, Comparison};
use crate::device::inspect::Inspect;
use crate::device::{Device, Dtype, Precision};
use crate::error::Result;

/// All of them.
///
/// # Errors
/// Where a device has no memory.
pub fn checks<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for (rows, outputs, inputs) in [
        (1, 64, 64),
        (1, 1, 16),
        (2, 65, 1040),
        (15, 63, 48),
        (16, 3, 576),
        (17, 130, 80),
        (33, 128, 128),
        (64, 72, 272),
        (65, 129, 64),
        (130, 257, 144),
        // Rows that are not made of 16-byte chunks.
        (3, 40, 8),
        (20, 7, 7),
        (5, 9, 1000),
    ] {
        checks.extend(products(on, rows, outputs, inputs)?);
    }
    // Products of e4m3 are our own kernels'.
    if on.device.info().is_deterministic || on.device.info().format.weights == Dtype::F8E4m3 {
        checks.push(alone(on)?);
    }
    Ok(checks)
}

/// With a bias and without, in the device's format and in f32.
fn products<D: Inspect>(
    on: &mut Comparison<'_, D>,
    rows: usize,
    outputs: usize,
    inputs: usize,
) -> Result<Vec<Check>> {
    let x = on.tensors(rows, inputs, Precision::Working)?;
    let (w, bias) = (on.matrices(&[outputs, inputs])?, on.weights(&[outputs])?);
    let mut checks = Vec::new();
    for precision in [Precision::Working, Precision::Single] {
        for (here, there) in [(None, None), (Some(&bias.0), Some(&bias.1))] {
            let mut out = on.outputs(rows + 1, outputs, precision)?;
            on.device.matmul(rows, &x.0, &w.0, here, &mut out.0);
            on.cpu.matmul(rows, &x.1, &w.1, there, &mut out.1);
            let bias = if here.is_some() { " and a bias" } else { "" };
            let case = format!("{rows} x {inputs} x {outputs}{bias}, {precision:?}");
            checks.push(on.check("matmul", case, rows, (&out.0, &out.1)));
        }
    }
    Ok(checks)
}

/// Rows of products of any height, bit for bit as each alone.
fn alone<D: Inspect>(on: &mut Comparison<'_, D>) -> Result<Check> {
    let (rows, outputs, inputs) = (140, 70, 208);
    let w = on.matrices(&[outputs, inputs])?;
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
    for count in [5, 60, rows] {
        let among = product(&values[..count * inputs])?;
        differences += among.iter().zip(&alone).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    }
    let case = format!("numbers of rows of 5, 60 and {rows} that differ from those of the rows alone");
    Ok(Check { operation: "matmul", case, error: differences as f64, bound: 0.0 })
}
