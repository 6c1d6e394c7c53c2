use codit::device::cpu::Cpu;
use codit::device::inspect::Inspect;
use codit::device::number::quantize;
use codit::device::{Device, Dtype, Format, TensorView};

use super::{Numbers, bits, close, devices, instruction_sets, rounded, tensor, upload, view};
use crate::step::begin_forward;

/// Cuts `values[n, k]` into matrices of `parts` rows, each with a different misalignment.
fn parts(dtype: Dtype, parts: &[usize], k: usize, values: &[f32]) -> Vec<TensorView> {
    let mut rest = values;
    let cut = |(index, &rows): (usize, &usize)| {
        let (now, later) = rest.split_at(rows * k);
        rest = later;
        view(dtype, &[rows, k], now, index + 1)
    };
    parts.iter().enumerate().map(cut).collect()
}

fn product(x: &[f32], w: &[f64], b: &[f64], k: usize) -> Vec<f64> {
    let row = |x: &[f32]| -> Vec<f64> {
        let dot = |w: &[f64]| x.iter().zip(w).map(|(x, w)| f64::from(*x) * w).sum::<f64>();
        w.chunks(k).zip(b).map(|(w, b)| dot(w) + b).collect()
    };
    x.chunks(k).flat_map(row).collect()
}

#[test]
fn agrees_with_f64() {
    let mut numbers = Numbers(1);
    let shapes: [(usize, usize, &[usize]); 8] = [
        (1, 7, &[3]),
        (1, 64, &[64, 16]),
        (17, 100, &[33, 1, 70]),
        (40, 96, &[129]),
        (3, 1, &[2, 2]),
        (300, 32, &[64, 65]),
        (50, 608, &[64, 70]),
        (10, 608, &[64, 70]),
    ];
    for (path, cpu) in devices() {
        for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F32] {
            for (rows, k, outputs) in shapes {
                let n: usize = outputs.iter().sum();
                let (x, w, b) = (numbers.take(rows * k), numbers.take(n * k), numbers.take(n));
                let weight = cpu.weight(&parts(dtype, outputs, k, &w)).unwrap();
                let bias = cpu.weight(&[view(dtype, &[n], &b, 1)]).unwrap();
                let input = upload(&cpu, k, &x);
                let mut out = tensor(&cpu, rows, n);
                let w = rounded(dtype, &w);
                for (bias, b) in [(None, vec![0.0; n]), (Some(&bias), rounded(dtype, &b))] {
                    cpu.matmul(rows, &input, &weight, bias, &mut out);
                    let what = format!("{path} {dtype:?} {rows} x {k} x {outputs:?}");
                    close(&what, &cpu.download(rows, &out), &product(&x, &w, &b, k), 4e-6);
                }
            }
        }
    }
}

/// Each output has a scale; the numbers may be stored in any format.
#[test]
fn rounded_matrices_agree_with_f64() {
    let mut numbers = Numbers(2);
    for (path, cpu) in devices() {
        let cpu = cpu.with_formats([Format::of(Dtype::F8E4m3); 2]);
        for (dtype, rows, k, outputs) in
            [(Dtype::Bf16, 3, 100, &[33, 70][..]), (Dtype::F16, 40, 64, &[64, 1]), (Dtype::F32, 1, 7, &[65])]
        {
            let n: usize = outputs.iter().sum();
            let (x, w, b) = (numbers.take(rows * k), numbers.take(n * k), numbers.take(n));
            let weight = cpu.matrix(&parts(dtype, outputs, k, &w)).unwrap();
            let bias = cpu.weight(&[view(dtype, &[n], &b, 1)]).unwrap();
            let mut out = tensor(&cpu, rows, n);
            cpu.matmul(rows, &upload(&cpu, k, &x), &weight, Some(&bias), &mut out);
            let stored: Vec<f32> = rounded(dtype, &w).iter().map(|x| *x as f32).collect();
            let w: Vec<f64> = stored.chunks(k).flat_map(quantize::rounded).map(f64::from).collect();
            let what = format!("{path} {dtype:?} {rows} x {k} x {outputs:?}");
            close(&what, &cpu.download(rows, &out), &product(&x, &w, &rounded(dtype, &b), k), 4e-6);
        }
    }
}

#[test]
fn parts_may_differ_in_dtype() {
    let mut numbers = Numbers(2);
    let (k, rows) = (64, 5);
    let (x, w) = (numbers.take(rows * k), numbers.take(96 * k));
    let (first, second) = w.split_at(64 * k);
    for (path, cpu) in devices() {
        let weight = cpu
            .weight(&[view(Dtype::Bf16, &[64, k], first, 0), view(Dtype::F32, &[32, k], second, 0)])
            .unwrap();
        let mut out = tensor(&cpu, rows, 96);
        cpu.matmul(rows, &upload(&cpu, k, &x), &weight, None, &mut out);
        let w = [rounded(Dtype::Bf16, first), rounded(Dtype::F32, second)].concat();
        close(path, &cpu.download(rows, &out), &product(&x, &w, &[0.0; 96], k), 2e-6);
    }
}

/// The activations have very different sizes. Splitting them must not lose anything that f32 holds.
#[test]
fn activations_keep_their_24_bits() {
    let mut numbers = Numbers(3);
    let k = 64;
    let x: Vec<f32> = (0..k).map(|i| numbers.next() * 2f32.powi(20 - i)).collect();
    for (path, cpu) in devices() {
        for column in 0..k as usize {
            let mut w = vec![0.0; 64 * k as usize];
            w[column] = 1.0;
            let weight = cpu.weight(&[view(Dtype::Bf16, &[64, k as usize], &w, 0)]).unwrap();
            let mut out = tensor(&cpu, 1, 64);
            cpu.matmul(1, &upload(&cpu, k as usize, &x), &weight, None, &mut out);
            assert_eq!(cpu.download(1, &out)[0].to_bits(), x[column].to_bits(), "{path} {column}");
        }
    }
}

#[test]
fn special_halves_are_read() {
    let values = [0.0, -0.0, 1.0, -2.5, 65504.0, 6.1e-5, 5.96e-8, -3e-6, f32::INFINITY, f32::NEG_INFINITY];
    for (path, cpu) in devices() {
        let vector =
            cpu.weight(&[view(Dtype::F16, &[values.len(), 2], &values.map(|v| [v, v]).concat(), 1)]).unwrap();
        let tokens = (0..values.len() as u32).map(codit::ids::TokenId).collect();
        let mut out = tensor(&cpu, values.len(), 2);
        let step = begin_forward(&cpu, 1, &codit::device::Batch { tokens, ..Default::default() });
        cpu.embed(&step, &vector, 1.0, &mut out);
        for (found, value) in cpu.download(values.len(), &out).chunks(2).zip(values) {
            assert_eq!(found[1].to_bits(), half::f16::from_f32(value).to_f32().to_bits(), "{path} {value}");
        }
    }
}

#[test]
fn a_fault_stays_in_its_row() {
    let mut numbers = Numbers(4);
    let (k, n) = (96, 70);
    let w = numbers.take(n * k);
    for (path, cpu) in devices() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0x7f80_0001)] {
            let mut x = numbers.take(20 * k);
            x[7 * k + 5] = bad;
            let weight = cpu.weight(&[view(Dtype::Bf16, &[n, k], &w, 0)]).unwrap();
            let mut out = tensor(&cpu, 20, n);
            cpu.matmul(20, &upload(&cpu, k, &x), &weight, None, &mut out);
            for (row, values) in cpu.download(20, &out).chunks(n).enumerate() {
                assert!(values.iter().all(|v| v.is_finite() == (row != 7)), "{path} {bad} row {row}");
            }
        }
    }
}

/// Rows are rounded to the nearest bf16, ties to even, and so are weights that are stored in other numbers.
#[test]
fn products_in_bf16_agree_with_f64() {
    let mut numbers = Numbers(7);
    for (path, cpu) in devices() {
        let cpu = cpu.with_formats([Format::of(Dtype::Bf16); 2]);
        for (dtype, rows, k, outputs) in [
            (Dtype::Bf16, 1, 608, &[64][..]),
            (Dtype::Bf16, 33, 75, &[100, 50]),
            (Dtype::F16, 5, 160, &[65]),
            (Dtype::F32, 16, 96, &[129]),
            (Dtype::F32, 3, 7, &[2]),
        ] {
            let n: usize = outputs.iter().sum();
            let (x, w, b) = (numbers.take(rows * k), numbers.take(n * k), numbers.take(n));
            let weight = cpu.matrix(&parts(dtype, outputs, k, &w)).unwrap();
            let bias = cpu.weight(&[view(dtype, &[n], &b, 1)]).unwrap();
            let mut out = tensor(&cpu, rows, n);
            cpu.matmul(rows, &upload(&cpu, k, &x), &weight, Some(&bias), &mut out);
            let x: Vec<f32> = rounded(Dtype::Bf16, &x).iter().map(|x| *x as f32).collect();
            let stored: Vec<f32> = rounded(dtype, &w).iter().map(|w| *w as f32).collect();
            let expected = product(&x, &rounded(Dtype::Bf16, &stored), &rounded(dtype, &b), k);
            let what = format!("{path} {dtype:?} {rows} x {k} x {outputs:?}");
            close(&what, &cpu.download(rows, &out), &expected, 4e-6);
        }
    }
}

/// What is no number stays so, and what is infinite too.
#[test]
fn rounding_to_bf16_keeps_faults() {
    let k = 40;
    for (path, cpu) in devices() {
        let cpu = cpu.with_formats([Format::of(Dtype::Bf16); 2]);
        let weight = cpu.matrix(&[view(Dtype::Bf16, &[3, k], &vec![1.0; 3 * k], 1)]).unwrap();
        for fault in [
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            f32::from_bits(0x7fff_ffff),
            f32::from_bits(0xffff_ffff),
        ] {
            let mut x = vec![0.5; 2 * k];
            x[k + 33] = fault;
            let mut out = tensor(&cpu, 2, 3);
            cpu.matmul(2, &upload(&cpu, k, &x), &weight, None, &mut out);
            let out = cpu.download(2, &out);
            assert_eq!(out[..3], [20.0; 3], "{path}");
            let same = |x: &f32| if fault.is_nan() { x.is_nan() } else { *x == fault };
            assert!(out[3..].iter().all(same), "{path} {fault}: {out:?}");
        }
    }
}

/// A row gives the same bits alone, with any other rows, and on any number of threads.
#[test]
fn rows_do_not_depend_on_their_batch() {
    let mut numbers = Numbers(5);
    let stored = [(Dtype::Bf16, 608), (Dtype::Bf16, 75), (Dtype::F16, 160), (Dtype::F32, 75)];
    let formats = [Dtype::F32, Dtype::Bf16, Dtype::F8E4m3];
    for ((dtype, k), format) in stored.into_iter().flat_map(|stored| formats.map(|format| (stored, format))) {
        let (n, most) = (150, 300);
        let (x, w) = (numbers.take(most * k), numbers.take(n * k));
        for isa in instruction_sets() {
            let mut whole: Option<Vec<u32>> = None;
            for threads in [1, 2, 4] {
                let cpu = Cpu::limited(Some(threads), isa).unwrap().with_formats([Format::of(format); 2]);
                let weight = cpu.matrix(&parts(dtype, &[100, 50], k, &w)).unwrap();
                let mut out = tensor(&cpu, most, n);
                let mut run = |first: usize, rows: usize| {
                    cpu.matmul(rows, &upload(&cpu, k, &x[first * k..][..rows * k]), &weight, None, &mut out);
                    bits(&cpu.download(rows, &out))
                };
                let all = run(0, most);
                let whole = whole.get_or_insert_with(|| all.clone());
                assert!(*whole == all, "{dtype:?} {format:?} {isa:?} {threads} threads");
                for rows in 1..=40 {
                    let first = rows * 3;
                    assert!(
                        run(first, rows) == whole[first * n..][..rows * n],
                        "{dtype:?} {format:?} {isa:?} {rows} rows"
                    );
                }
            }
        }
    }
}

#[test]
fn ill_fitting_parts_are_refused() {
    let cpu = Cpu::new(Some(1)).unwrap();
    let whole = view(Dtype::Bf16, &[2, 3], &[0.0; 6], 0);
    let narrow = view(Dtype::Bf16, &[2, 2], &[0.0; 4], 0);
    assert!(cpu.weight(&[whole.clone(), narrow]).is_err());
    assert!(cpu.weight(&[TensorView { shape: vec![3, 3], ..whole.clone() }]).is_err());
    assert!(cpu.weight(&[TensorView { range: 4..400, ..whole }]).is_err());
    assert!(cpu.weight(&[]).is_err());
}
