//! Tests each operation of the CPU device against a naive f64 version, with every instruction set that this machine
//! has and with the doctor's reference.

mod attention;
mod elementwise;
#[cfg(feature = "cli")]
mod isa;
mod matmul;
mod pool;
mod sample;

use codit::checkpoint::Bytes;
use codit::device::cpu::{Cpu, Isa};
use codit::device::inspect::Inspect;
use codit::device::{Device, Dtype, Precision, TensorView};
use half::{bf16, f16};

type Tensor = <Cpu as Device>::Tensor;
type Weight = <Cpu as Device>::Weight;

/// The doctor's reference, then every instruction set of this machine.
pub fn instruction_sets() -> impl Iterator<Item = Isa> {
    [Isa::Reference].into_iter().chain(Isa::available())
}

/// A CPU device for each of these instruction sets.
fn devices() -> Vec<(&'static str, Cpu)> {
    instruction_sets().map(|isa| (isa.name(), Cpu::limited(Some(2), isa).unwrap())).collect()
}

/// Small deterministic numbers in -1..1.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn take(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }

    fn below(&mut self, end: usize) -> usize {
        (f64::midpoint(f64::from(self.next()), 1.0) * end as f64) as usize % end
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// A checkpoint tensor of `values`, rounded to `dtype`, `skew` bytes into its file.
fn view(dtype: Dtype, shape: &[usize], values: &[f32], skew: usize) -> TensorView {
    assert_eq!(shape.iter().product::<usize>(), values.len());
    // The bytes around the tensor are NaN, so reads outside the tensor show.
    let mut bytes = vec![0xff; skew];
    for &value in values {
        match dtype {
            Dtype::Bf16 => bytes.extend(bf16::from_f32(value).to_le_bytes()),
            Dtype::F16 => bytes.extend(f16::from_f32(value).to_le_bytes()),
            Dtype::F32 => bytes.extend(value.to_le_bytes()),
            Dtype::F8E4m3 => unreachable!("no checkpoint has it"),
        }
    }
    let range = skew..bytes.len();
    bytes.extend([0xff; 64]);
    TensorView {
        name: "test".to_owned(),
        dtype,
        shape: shape.to_vec(),
        file: Bytes::Static(bytes.leak()),
        range,
    }
}

/// `values` rounded to `dtype`.
fn rounded(dtype: Dtype, values: &[f32]) -> Vec<f64> {
    let round = |value: f32| match dtype {
        Dtype::Bf16 => bf16::from_f32(value).to_f64(),
        Dtype::F16 => f16::from_f32(value).to_f64(),
        Dtype::F32 => f64::from(value),
        Dtype::F8E4m3 => unreachable!("no checkpoint has it"),
    };
    values.iter().map(|&value| round(value)).collect()
}

fn tensor(cpu: &Cpu, rows: usize, width: usize) -> Tensor {
    cpu.tensor(rows, width, Precision::Single).unwrap()
}

fn upload(cpu: &Cpu, width: usize, values: &[f32]) -> Tensor {
    let mut tensor = tensor(cpu, values.len() / width, width);
    cpu.upload(values, &mut tensor);
    tensor
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        assert!(error <= tolerance * (1.0 + expected.abs()), "{what} at {index}: {found} is not {expected}");
    }
}
