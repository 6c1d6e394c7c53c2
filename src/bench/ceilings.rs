//! Measures the highest rates of a device: how fast it copies and how fast it multiplies matrices.

use crate::device::inspect::Inspect;
use crate::device::{Precision, WeightKind, WeightSource};
use crate::doctor::Numbers;
use crate::error::Result;

/// The highest rates of a device, as measured.
#[derive(Debug, Clone, Copy)]
pub struct Ceilings {
    /// Bytes per second, read and written, of a large copy.
    pub bandwidth: f64,
    /// Multiplications and additions per second of a large matrix product in the device's number format.
    pub matmul_rate: f64,
}

/// The measurement stops at the first size whose run takes longer than this, in seconds.
const LONG_ENOUGH: f64 = 0.01;
const REPEATS: usize = 7;
/// Side lengths of the matrices. A copy has `side / 16` rows.
const SIDES: [usize; 6] = [256, 512, 1024, 2048, 4096, 8192];
/// Width of a row of the copy in f32 numbers: 64 KiB.
const COPY_WIDTH: usize = 16_384;

impl Ceilings {
    /// Measures the ceilings of `device`.
    ///
    /// # Errors
    /// If the device fails or has too little memory.
    pub fn measure<D: Inspect>(device: &D) -> Result<Self> {
        Ok(Self {
            bandwidth: rate(|side| copy(device, side / 16))?,
            matmul_rate: rate(|side| matmul(device, side))?,
        })
    }

    /// The least time in seconds in which the device can move `bytes` bytes and do `operations` operations.
    #[must_use]
    pub fn floor(&self, bytes: usize, operations: usize) -> f64 {
        (bytes as f64 / self.bandwidth).max(operations as f64 / self.matmul_rate)
    }
}

/// Work per second, at the smallest size whose run is long enough to be timed, or else at the largest size.
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

/// Bytes and seconds of a copy of `rows` rows of 64 KiB.
fn copy<D: Inspect>(device: &D, rows: usize) -> Result<(f64, f64)> {
    let from = random(device, rows, COPY_WIDTH, Precision::Single)?;
    let mut to = device.tensor(rows, COPY_WIDTH, Precision::Single)?;
    let seconds = median_seconds(device, || device.copy(rows, &from, &mut to))?;
    Ok(((2 * rows * COPY_WIDTH * size_of::<f32>()) as f64, seconds))
}

/// Operations and seconds of a product of two square matrices.
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

/// The median seconds of several runs, after one run that is not measured.
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
