//! The two devices of a check: their inputs, their outputs, and how much the outputs may differ.

use std::any::Any;
use std::borrow::Cow;

use crate::checkpoint::Bytes;
use crate::device::cpu::{self, Cpu, Isa};
use crate::device::inspect::Inspect;
use crate::device::{Device, Dtype, Heads, Precision, TensorView};
use crate::error::Result;

/// The result of one comparison.
#[derive(Debug, Clone)]
pub struct Check {
    /// The operation, as [`Device`] calls it.
    pub operation: &'static str,
    /// The shapes and the special properties of the inputs.
    pub case: String,
    /// `||x - reference|| / ||reference||`, or the measure that the case names; 0 if nothing is measured.
    pub error: f64,
    /// The largest error that passes; 0 if nothing is measured.
    pub bound: f64,
    /// Count of numbers, rows or tokens that are not exactly as required. The check passes only if it is 0.
    pub differences: usize,
    /// The device's error, if the check ended with one.
    pub refusal: Option<String>,
}

impl Check {
    /// Checks that the device ended with an error.
    pub fn refused(operation: &'static str, refusal: String) -> Self {
        let case = "not all of its checks ended".to_owned();
        Self { operation, case, error: f64::INFINITY, bound: 0.0, differences: 0, refusal: Some(refusal) }
    }

    /// This check, as one in which the device failed.
    #[must_use]
    pub fn refused_with(self, refusal: String) -> Self {
        Self { error: f64::INFINITY, refusal: Some(refusal), ..self }
    }

    /// A check that measures an error.
    pub fn measured(operation: &'static str, case: impl Into<String>, error: f64, bound: f64) -> Self {
        Self { operation, case: case.into(), error, bound, differences: 0, refusal: None }
    }

    /// A check that counts differences.
    pub fn counted(operation: &'static str, case: impl Into<String>, differences: usize) -> Self {
        Self { operation, case: case.into(), error: 0.0, bound: 0.0, differences, refusal: None }
    }

    /// Whether the device is right. A check whose error is NaN fails.
    pub fn passes(&self) -> bool {
        self.error <= self.bound && self.differences == 0
    }

    /// Whether the check measures an error; otherwise it only counts.
    pub fn is_measured(&self) -> bool {
        self.bound > 0.0
    }
}

/// `device` as the CPU device, if it is one.
pub fn as_cpu<D: Inspect>(device: &D) -> Option<&Cpu> {
    (device as &dyn Any).downcast_ref()
}

/// Two devices that get the same inputs: the device under test and the CPU.
pub struct Comparison<'a, D: Inspect> {
    /// The device under test.
    pub device: &'a D,
    /// The reference.
    pub cpu: &'a Cpu,
    /// The source of the inputs.
    pub numbers: Numbers,
    /// Whether the device gets a wrong number in each input, as if it misread one. The checks must notice it.
    pub has_fault: bool,
}

impl<'a, D: Inspect> Comparison<'a, D> {
    /// A comparison whose inputs are determined by `seed`.
    pub fn new(device: &'a D, cpu: &'a Cpu, seed: u64) -> Self {
        Self { device, cpu, numbers: Numbers(seed), has_fault: false }
    }

    /// The values that the device gets for `values`: the same ones, except that a planted fault replaces the last
    /// finite number.
    pub fn given<'v>(&self, values: &'v [f32]) -> Cow<'v, [f32]> {
        let place = values.iter().rposition(|x| x.is_finite()).filter(|_| self.has_fault);
        let Some(place) = place else { return Cow::Borrowed(values) };
        let mut values = values.to_vec();
        values[place] = WRONG;
        Cow::Owned(values)
    }

    /// Whether the device leaves padding rows unchanged. The CPU does not pad steps: each row of a batch is a token.
    pub fn skips_padding(&self) -> bool {
        as_cpu(self.device).is_none()
    }

    /// The largest relative error that an operation's outputs may have: 1e-6 on an f32 device, otherwise 5e-3.
    pub fn bound(&self) -> f64 {
        if self.device.info().dtype == Dtype::F32 { 1e-6 } else { 5e-3 }
    }

    /// Whether the CPU rounds activations where they enter a product.
    pub fn rounds_rows(&self) -> bool {
        self.device.info().format.weights == Dtype::Bf16
    }

    /// The largest relative error that sums may have if they add `chain` terms one after the other.
    /// [`Comparison::bound`] covers [`CHAIN`] terms. With more terms, the rounding error grows as the square root of
    /// their number.
    pub fn bound_of_sums(&self, chain: usize) -> f64 {
        self.bound() * (chain as f64 / CHAIN as f64).sqrt().max(1.0)
    }

    /// The largest relative error that products may have with a matrix of `columns` columns that is stored as
    /// `dtype`.
    pub fn bound_of_products(&self, dtype: Dtype, columns: usize) -> f64 {
        let has_tiles = as_cpu(self.device).is_some_and(|cpu| cpu.isa() == Isa::Amx);
        let is_tiled = dtype == Dtype::Bf16 || self.device.info().format.weights == Dtype::F8E4m3;
        // AMX tiles add pairs of columns, in three parts each. Other paths sum in 16 SIMD lanes or in 16 pieces.
        self.bound_of_sums(if has_tiles && is_tiled { columns * 3 / 2 } else { CHAIN })
    }

    /// The same random numbers in -1..1 on both devices, rounded to the device's format.
    pub fn tensors(
        &mut self,
        rows: usize,
        width: usize,
        precision: Precision,
    ) -> Result<(D::Tensor, cpu::Tensor)> {
        let values = self.numbers.take(rows * width);
        self.tensors_of(&values, width, precision)
    }

    /// `values`, `[rows, width]`, on both devices, rounded to the device's format.
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
        if self.has_fault {
            self.device.upload(&self.given(values), &mut here);
        }
        Ok((here, there))
    }

    /// Outputs on both devices. The device's output is filled with NaN, so that numbers it does not write show.
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

    /// A weight of random numbers in -1..1 on both devices, rounded to the device's format.
    pub fn weights(&mut self, shape: &[usize]) -> Result<(D::Weight, cpu::Weight)> {
        let values = self.numbers.take(shape.iter().product());
        self.weights_of(&values, shape)
    }

    /// A weight of `values` on both devices, rounded to the device's format.
    pub fn weights_of(&self, values: &[f32], shape: &[usize]) -> Result<(D::Weight, cpu::Weight)> {
        let given = self.views(&self.given(values), shape);
        Ok((self.device.weight(&given)?, self.cpu.weight(&self.views(values, shape))?))
    }

    /// A layer's matrix of random numbers in -1..1 on both devices, in the device's format. A shape `[matrices, rows,
    /// columns]` stacks several matrices on top of each other.
    pub fn matrices(&mut self, shape: &[usize]) -> Result<(D::Weight, cpu::Weight)> {
        self.matrices_in(self.device.info().dtype, shape)
    }

    /// As [`Comparison::matrices`], from a checkpoint that stores them as `dtype`.
    pub fn matrices_in(&mut self, dtype: Dtype, shape: &[usize]) -> Result<(D::Weight, cpu::Weight)> {
        let values = self.numbers.take(shape.iter().product());
        let given = views(dtype, &self.given(&values), shape);
        Ok((self.device.matrix(&given)?, self.cpu.matrix(&views(dtype, &values, shape))?))
    }

    /// `values` as a checkpoint stores them, in the device's format.
    fn views(&self, values: &[f32], shape: &[usize]) -> Vec<TensorView> {
        views(self.device.info().dtype, values, shape)
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
        Check::measured(operation, case, relative_error(&found, &expected), self.bound())
    }
}

/// The number that a planted fault writes.
const WRONG: f32 = 100.0;

/// Number of terms that a sum adds one after the other. Kernels cut contexts into pieces of this many positions.
pub(crate) const CHAIN: usize = 256;

/// `values` as a checkpoint stores them in `dtype`. Checkpoints do not store e4m3, so bf16 takes its place.
pub(crate) fn views(dtype: Dtype, values: &[f32], shape: &[usize]) -> Vec<TensorView> {
    let dtype = if dtype == Dtype::F8E4m3 { Dtype::Bf16 } else { dtype };
    let bytes: Vec<u8> = match dtype {
        Dtype::F32 => bytemuck::cast_slice(values).to_vec(),
        Dtype::F16 => values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
    };
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

/// Describes heads in words.
pub(crate) fn describe_heads(heads: Heads) -> String {
    format!("{} query and {} key/value heads of {}", heads.query, heads.key_value, heads.dim)
}

/// Describes a tensor's number format in words.
pub(crate) fn describe_precision(precision: Precision) -> &'static str {
    match precision {
        Precision::Working => "as activations",
        Precision::Single => "in f32",
    }
}

/// `||x - reference|| / ||reference||`
pub fn relative_error(x: &[f32], reference: &[f32]) -> f64 {
    let difference =
        x.iter().zip(reference).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>();
    if x.len() == reference.len() { difference.sqrt() / norm(reference) } else { f64::NAN }
}

/// The Euclidean norm; never zero.
pub fn norm(values: &[f32]) -> f64 {
    values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().max(f64::MIN_POSITIVE).sqrt()
}

/// A generator of random numbers (splitmix64; Steele, Lea and Flood 2014).
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

    /// A random integer in `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end.max(1) as u64) as usize
    }

    /// A random number in `-1..1`.
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// `count` random numbers in `-1..1`.
    pub fn take(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.uniform()).collect()
    }

    /// A random element of `choices`, which must not be empty.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}
