//! The CPU device, operation by operation, against naive f64 versions.

use codit::checkpoint::Bytes;
use codit::device::cpu::Cpu;
use codit::device::{Batch, Device, Dtype, TensorView};
use codit::ids::TokenId;
use half::{bf16, f16};

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
}

/// A checkpoint tensor of `values`, rounded to `dtype`, starting at an odd address where `skew` says so.
fn view(dtype: Dtype, shape: &[usize], values: &[f32], skew: usize) -> TensorView {
    assert_eq!(shape.iter().product::<usize>(), values.len());
    let mut bytes = vec![0xff; skew];
    for &value in values {
        match dtype {
            Dtype::Bf16 => bytes.extend(bf16::from_f32(value).to_le_bytes()),
            Dtype::F16 => bytes.extend(f16::from_f32(value).to_le_bytes()),
            Dtype::F32 => bytes.extend(value.to_le_bytes()),
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

/// What is left of `values` in `dtype`.
fn rounded(dtype: Dtype, values: &[f32]) -> Vec<f64> {
    let round = |value: f32| match dtype {
        Dtype::Bf16 => bf16::from_f32(value).to_f64(),
        Dtype::F16 => f16::from_f32(value).to_f64(),
        Dtype::F32 => f64::from(value),
    };
    values.iter().map(|&value| round(value)).collect()
}

/// The trait has no upload: rows are embedded from a table of themselves.
fn upload(cpu: &Cpu, rows: usize, width: usize, values: &[f32]) -> <Cpu as Device>::Tensor {
    let mut tensor = cpu.tensor(rows, width).unwrap();
    let table = cpu.weight(&[view(Dtype::F32, &[rows, width], values, 0)]).unwrap();
    let tokens = (0..rows as u32).map(TokenId).collect();
    cpu.embed(&Batch { tokens, ..Batch::default() }, &table, 1.0, &mut tensor);
    tensor
}

#[test]
fn matmul_agrees_with_f64() {
    let cpu = Cpu::new(Some(2)).unwrap();
    let mut numbers = Numbers(1);
    for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F32] {
        for (rows, k, parts) in
            [(1, 7, vec![3]), (1, 64, vec![64, 16]), (17, 100, vec![33, 1, 70]), (40, 96, vec![129])]
        {
            let n: usize = parts.iter().sum();
            let (x, w, b) = (numbers.take(rows * k), numbers.take(n * k), numbers.take(n));
            let mut views = vec![];
            let mut first = 0;
            for (index, part) in parts.iter().enumerate() {
                views.push(view(dtype, &[*part, k], &w[first * k..][..part * k], index + 1));
                first += part;
            }
            let weight = cpu.weight(&views).unwrap();
            let bias = cpu.weight(&[view(dtype, &[n], &b, 1)]).unwrap();
            let input = upload(&cpu, rows, k, &x);
            let mut out = cpu.tensor(rows, n).unwrap();
            cpu.matmul(rows, &input, &weight, Some(&bias), &mut out);
            let (found, w, b) = (cpu.download(rows, &out), rounded(dtype, &w), rounded(dtype, &b));
            for row in 0..rows {
                for column in 0..n {
                    let dot: f64 = (0..k).map(|i| f64::from(x[row * k + i]) * w[column * k + i]).sum();
                    let (found, expected) = (f64::from(found[row * n + column]), dot + b[column]);
                    assert!((found - expected).abs() < 1e-5, "{dtype:?} {rows}x{k}x{n}: {found} {expected}");
                }
            }
        }
    }
}
