//! Whether a device computes what the CPU device computes: each operation over random, edge and poisoned inputs.
//!
//! The tests run these checks on the kernels' stand-in on the host, `codit doctor` runs them on the GPU.

use crate::checkpoint::Bytes;
use crate::device::cpu::{self, Cpu};
use crate::device::{Device, Dtype, Precision, TensorView};
use crate::error::Result;

pub mod attention;
pub mod candidates;
pub mod matmul;
pub mod mixture;
pub mod pair;
pub mod rows;
pub mod sample;
pub mod settle;

/// One comparison.
#[derive(Debug, Clone)]
pub struct Check {
    /// The operation, as [`Device`] calls it.
    pub operation: &'static str,
    /// Shapes and what is special about the inputs.
    pub case: String,
    /// `||x - reference|| / ||reference||`, or a count of differences.
    pub error: f64,
    /// The largest error that passes.
    pub bound: f64,
}

impl Check {
    /// Whether the device is right. A NaN is not.
    pub fn passes(&self) -> bool {
        self.error <= self.bound
    }
}

/// Two devices that are given the same inputs: the one in question, and the CPU.
pub struct Comparison<'a, D: Device> {
    /// The device in question.
    pub device: &'a D,
    /// The reference.
    pub cpu: &'a Cpu,
    /// Where inputs come from.
    pub numbers: Numbers,
}

impl<D: Device> Comparison<'_, D> {
    /// The largest relative error of an operation's outputs: 5e-3 where they are bf16, 1e-6 where f32.
    pub fn bound(&self) -> f64 {
        if self.device.dtype() == Dtype::F32 { 1e-6 } else { 5e-3 }
    }

    /// The same numbers in -1..1 on both devices, as they are after rounding to the device's format.
    pub fn tensors(
        &mut self,
        rows: usize,
        width: usize,
        precision: Precision,
    ) -> Result<(D::Tensor, cpu::Tensor)> {
        let values = self.numbers.take(rows * width);
        self.tensors_of(&values, width, precision)
    }

    /// `values`, `[rows, width]`, on both devices, as they are after rounding to the device's format.
    pub fn tensors_of(
        &self,
        values: &[f32],
        width: usize,
        precision: Precision,
    ) -> Result<(D::Tensor, cpu::Tensor)> {
        let rows = values.len() / width;
        let mut here = self.device.tensor(rows, width, precision)?;
        self.device.upload(values, &mut here);
        let mut there = self.cpu.tensor(rows, width, precision)?;
        self.cpu.upload(&self.device.download(rows, &here), &mut there);
        Ok((here, there))
    }

    /// Outputs on both devices, the device's full of NaN so that what is not written shows.
    pub fn outputs(
        &self,
        rows: usize,
        width: usize,
        precision: Precision,
    ) -> Result<(D::Tensor, cpu::Tensor)> {
        let mut here = self.device.tensor(rows, width, precision)?;
        self.device.upload(&vec![f32::NAN; rows * width], &mut here);
        Ok((here, self.cpu.tensor(rows, width, precision)?))
    }

    /// A weight of random numbers in -1..1 in the device's format, on both devices.
    pub fn weights(&mut self, shape: &[usize]) -> Result<(D::Weight, cpu::Weight)> {
        let values = self.numbers.take(shape.iter().product());
        self.weights_of(&values, shape)
    }

    /// A weight of `values` rounded to the device's format, on both devices.
    pub fn weights_of(&self, values: &[f32], shape: &[usize]) -> Result<(D::Weight, cpu::Weight)> {
        let views = self.views(values, shape);
        Ok((self.device.weight(&views)?, self.cpu.weight(&views)?))
    }

    /// A layer's matrix of random numbers in -1..1, on both devices. With three dimensions it is as many matrices as the
    /// first says, one below the other.
    pub fn matrices(&mut self, shape: &[usize]) -> Result<(D::Weight, cpu::Weight)> {
        let values = self.numbers.take(shape.iter().product());
        let views = self.views(&values, shape);
        Ok((self.device.matrix(&views)?, self.cpu.matrix(&views)?))
    }

    /// `values` as a checkpoint holds them, in the device's format.
    fn views(&self, values: &[f32], shape: &[usize]) -> Vec<TensorView> {
        views(self.device.dtype(), values, shape)
    }

    /// Compares the first `rows` rows of an output.
    pub fn check(
        &self,
        operation: &'static str,
        case: impl Into<String>,
        rows: usize,
        (here, there): (&D::Tensor, &cpu::Tensor),
    ) -> Check {
        let (found, expected) = (self.device.download(rows, here), self.cpu.download(rows, there));
        Check { operation, case: case.into(), error: relative_error(&found, &expected), bound: self.bound() }
    }
}

/// `values` as a checkpoint in the format of a device whose activations are `dtype` holds them.
fn views(dtype: Dtype, values: &[f32], shape: &[usize]) -> Vec<TensorView> {
    let bytes: Vec<u8> = match dtype {
        Dtype::F32 => bytemuck::cast_slice(values).to_vec(),
        _ => values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
    };
    let dtype = if dtype == Dtype::F32 { Dtype::F32 } else { Dtype::Bf16 };
    let (matrices, shape) = if let [matrices, rows, columns] = *shape {
        (matrices, vec![rows, columns])
    } else {
        (1, shape.to_vec())
    };
    let (each, file) = (bytes.len() / matrices, Bytes::Owned(bytes.into()));
    let view = |index| TensorView {
        name: "doctor".to_owned(),
        dtype,
        shape: shape.clone(),
        range: index * each..(index + 1) * each,
        file: file.clone(),
    };
    (0..matrices).map(view).collect()
}

/// A family of checks.
pub type Checks<D> = fn(&mut Comparison<'_, D>) -> Result<Vec<Check>>;

/// All families, by name.
pub fn all<D: Device>() -> Vec<(&'static str, Checks<D>)> {
    vec![
        ("rows", rows::checks::<D>),
        ("matmul", matmul::checks::<D>),
        ("attention", attention::checks::<D>),
        ("mixture", mixture::checks::<D>),
        ("contrast_sample", sample::checks::<D>),
        ("gathered heads", candidates::checks::<D>),
        ("settle", settle::checks::<D>),
    ]
}

/// `||x - reference|| / ||reference||`
pub fn relative_error(x: &[f32], reference: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let difference: f64 = x.iter().zip(reference).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = reference.iter().map(|b| square(f64::from(*b))).sum();
    if x.len() == reference.len() { (difference / norm.max(f64::MIN_POSITIVE)).sqrt() } else { f64::NAN }
}

/// Random numbers (splitmix64; Steele, Lea and Flood 2014).
#[derive(Debug, Clone)]
pub struct Numbers(pub u64);

impl Numbers {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// `0..end`
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end.max(1) as u64) as usize
    }

    /// `-1..1`
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// `count` numbers in `-1..1`.
    pub fn take(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.uniform()).collect()
    }

    /// One of `choices`, which must not be empty.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}
