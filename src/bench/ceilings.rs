//! What a device can do at most, measured: how fast it copies, and how fast it multiplies matrices.

use crate::device::inspect::Inspect;
use crate::device::{Precision, WeightKind, WeightSource};
use crate::doctor::Numbers;
use crate::error::Result;

/// A device's ceilings.
#[derive(Debug, Clone, Copy)]
pub struct Ceilings {
    /// Bytes a second, read and written, of a large copy.
    pub bandwidth: f64,
    /// Multiplications and additions a second of a large matrix product in the device's number format.
    pub matmul_rate: f64,
}

/// A measurement is taken at the first size that takes this long, in seconds.
const LONG_ENOUGH: f64 = 0.01;
const REPEATS: usize = 7;
/// Sides of the matrices, and 1/16 of the rows of the copy.
const SIDES: [usize; 6] = [256, 512, 1024, 2048, 4096, 8192];
/// Width of a row of the copy: 64 KiB.
const COPY_WIDTH: usize = 16_384;

impl Ceilings {
    /// Measures them.
    ///
    /// # Errors
    /// Where the device fails or has too little memory.
    pub fn measure<D: Inspect>(device: &D) -> Result<Self> {
        Ok(Self {
            bandwidth: rate(|side| copy(device, side / 16))?,
            matmul_rate: rate(|side| matmul(device, side))?,
        })
    }

    /// Seconds that so many bytes and operations take at least.
    #[must_use]
    pub fn floor(&self, bytes: usize, operations: usize) -> f64 {
        (bytes as f64 / self.bandwidth).max(operations as f64 / self.matmul_rate)
    }
}

/// Work done a second, at the smallest size that is long enough to be timed.
fn rate(measure: impl Fn(usize) -> Result<(f64, f64)>) -> Result<f64> {
    let mut rate = 0.0;
    for side in SIDES {
        let (work, seconds) = measure(side)?;
        rate = work / seconds;
        if seconds > LONG_ENOUGH {
            break;
        }
    }
    Ok(rate)
}

/// Bytes and seconds of a copy of `rows * 64 KiB`.
fn copy<D: Inspect>(device: &D, rows: usize) -> Result<(f64, f64)> {
    let from = random(device, rows, COPY_WIDTH, Precision::Single)?;
    let mut to = device.tensor(rows, COPY_WIDTH, Precision::Single)?;
    let seconds = median_seconds(device, || device.copy(rows, &from, &mut to))?;
    Ok(((2 * rows * COPY_WIDTH * size_of::<f32>()) as f64, seconds))
}

/// Operations and seconds of a product of square matrices.
fn matmul<D: Inspect>(device: &D, side: usize) -> Result<(f64, f64)> {
    let x = random(device, side, side, Precision::Working)?;
    let random = WeightSource::Random { shape: &[side, side], seed: 1 };
    let weight = device.load(random, WeightKind::Other)?;
    let mut out = device.tensor(side, side, Precision::Working)?;
    let seconds = median_seconds(device, || device.matmul(side, &x, &weight, None, &mut out))?;
    Ok((2.0 * (side as f64).powi(3), seconds))
}

fn random<D: Inspect>(device: &D, rows: usize, width: usize, precision: Precision) -> Result<D::Tensor> {
    let mut tensor = device.tensor(rows, width, precision)?;
    device.upload(&Numbers(7).take(rows * width), &mut tensor);
    Ok(tensor)
}

/// The median of several runs' seconds, after one that is not counted.
fn median_seconds<D: Inspect>(device: &D, mut run: impl FnMut()) -> Result<f64> {
    run();
    let mut marks = vec![device.mark()];
    for _ in 0..REPEATS {
        run();
        marks.push(device.mark());
    }
    let seconds = marks.windows(2).map(|pair| device.seconds(&pair[0], &pair[1]));
    Ok(median(seconds.collect::<Result<_>>()?))
}

/// The median of `numbers`; NaN if there are none.
pub(super) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
