//! Measures the highest rates of a device: how fast it moves bytes, and how fast it multiplies.
//!
//! Where the device can say what its machine can do, it is asked. Elsewhere a copy and a matrix product of the device stand
//! for that: on a GPU the product is the vendor's.

use crate::device::inspect::{Inspect, Peaks};
use crate::device::{Precision, WeightKind, WeightSource};
use crate::doctor::Numbers;
use crate::error::Result;

/// The highest rates of a device, as measured.
#[derive(Debug, Clone)]
pub struct Ceilings {
    /// Bytes per second of moving so many bytes, by rising number. The last is the rate of memory.
    bandwidths: Vec<(usize, f64)>,
    /// Multiplications and additions per second in the device's number format.
    pub matmul_rate: f64,
}

/// Bytes that no cache holds, for [`Ceilings::measure`].
pub const OF_MEMORY: usize = 256 << 20;
/// The measurement stops at the first size whose run takes longer than this, in seconds.
const LONG_ENOUGH: f64 = 0.01;
const REPEATS: usize = 7;
/// Side lengths of the matrices.
const SIDES: [usize; 6] = [256, 512, 1024, 2048, 4096, 8192];
/// Rows of the copies. The largest copies 1 GiB: a GPU's cache holds none of it.
const COPIES: [usize; 6] = [512, 1024, 2048, 4096, 8192, 16_384];
/// Width of a row of the copy in f32 numbers: 64 KiB.
const COPY_WIDTH: usize = 16_384;

impl Ceilings {
    /// Measures the ceilings of `device` for steps that read `bytes` of weights and cache.
    ///
    /// # Errors
    /// If the device fails or has too little memory.
    pub fn measure<D: Inspect>(device: &D, bytes: usize) -> Result<Self> {
        if let Some(Peaks { reads, arithmetic }) = device.peaks(bytes)? {
            return Ok(Self { bandwidths: reads, matmul_rate: arithmetic });
        }
        let copied = rate(COPIES, |rows| copy(device, rows))?;
        let matmul_rate = rate(SIDES, |side| matmul(device, side))?;
        Ok(Self { bandwidths: vec![(usize::MAX, copied)], matmul_rate })
    }

    /// Bytes per second of what is read once a step.
    pub fn bandwidth(&self) -> f64 {
        self.bandwidths.last().map_or(f64::NAN, |(_, rate)| *rate)
    }

    /// The least seconds in which an operation's bytes can be moved: from memory what is read once a step, and what is used
    /// again and again, as activations are, from the nearest cache that holds them.
    pub fn moving(&self, work: &Work) -> f64 {
        let cached = self.bandwidths.iter().find(|(bytes, _)| work.bytes <= *bytes);
        let near = cached.map_or(self.bandwidth(), |(_, rate)| *rate);
        work.bytes as f64 / if work.streams { self.bandwidth() } else { near }
    }

    /// The least seconds in which an operation's arithmetic can be done.
    pub fn multiplying(&self, work: &Work) -> f64 {
        work.operations as f64 / self.matmul_rate
    }

    /// The least seconds that an operation takes.
    pub fn floor(&self, work: &Work) -> f64 {
        self.moving(work).max(self.multiplying(work))
    }
}

/// What an operation has to do at least.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Bytes that it must move: each input once, each output once.
    pub bytes: usize,
    /// Multiplications and additions of matrix products and attention.
    pub operations: usize,
    /// Whether most of the bytes are of weights or of the cache, which a step reads once.
    pub streams: bool,
}

/// Work per second, at the smallest size whose run is long enough to be timed, or else at the largest size.
fn rate(sizes: [usize; 6], measure: impl Fn(usize) -> Result<(f64, f64)>) -> Result<f64> {
    let mut rate = 0.0;
    for size in sizes {
        let (work, seconds) = measure(size)?;
        rate = work / seconds;
        if seconds > LONG_ENOUGH {
            break;
        }
    }
    Ok(rate)
}

/// Bytes and seconds of a copy of `rows` rows of 64 KiB, whatever they hold.
fn copy<D: Inspect>(device: &D, rows: usize) -> Result<(f64, f64)> {
    let from = device.tensor(rows, COPY_WIDTH, Precision::Single)?;
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
