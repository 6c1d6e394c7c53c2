//! ldmatrix and mma.

use half::bf16;

use super::{Probe, SEEDS};
use crate::random::Random;

#[test]
fn ldmatrix_deals_rows_or_columns_to_lanes() {
    let matrices: Vec<u16> = (0..4 * 64).map(|i| (i as u16).wrapping_mul(257).wrapping_add(1)).collect();
    for seed in SEEDS {
        for count in [2_usize, 4] {
            for transposed in [false, true] {
                let probe = Probe {
                    shared_bytes: 512,
                    args: [count as u32, u32::from(transposed), 0, 0],
                    ..Probe::new("probe_ldmatrix", 32)
                };
                let found: Vec<[u32; 4]> = probe.run(seed, &matrices, 32);
                for (lane, registers) in found.into_iter().enumerate() {
                    for (matrix, register) in registers.into_iter().enumerate().take(count) {
                        let element = |j: usize| {
                            let (row, column) = (lane / 4, lane % 4 * 2 + j);
                            let (row, column) = if transposed { (column, row) } else { (row, column) };
                            u32::from(matrices[matrix * 64 + row * 8 + column])
                        };
                        assert_eq!(register, element(0) | element(1) << 16);
                    }
                }
            }
        }
    }
}

const M: usize = 16;
const N: usize = 8;
const K: usize = 16;

/// `c[M, N] + a[M, K] * b[K, N]`, in f64.
fn product(a: &[bf16], b: &[bf16], c: &[f32]) -> Vec<f64> {
    let element = |i: usize| {
        let (row, column) = (i / N, i % N);
        (0..K).map(|k| a[row * K + k].to_f64() * b[k * N + column].to_f64()).sum::<f64>() + f64::from(c[i])
    };
    (0..M * N).map(element).collect()
}

/// The product by each kernel that computes it.
fn products(seed: u64, a: &[bf16], b: &[bf16], c: &[f32]) -> [Vec<f32>; 3] {
    let b_by_columns: Vec<bf16> = (0..N * K).map(|i| b[i % K * N + i / K]).collect();
    [("probe_mma", b, 0), ("probe_ldmatrix_mma", b, 0), ("probe_ldmatrix_mma", &b_by_columns, 1)].map(
        |(kernel, b, by_columns)| {
            let input: Vec<u16> = a.iter().chain(b).map(|x| x.to_bits()).collect();
            let mut out = codit::device::simt::runtime::Memory::of(c).unwrap();
            let probe = Probe { shared_bytes: 768, args: [by_columns, 0, 0, 0], ..Probe::new(kernel, 32) };
            probe.run_on(seed, &input, &mut out).unwrap();
            out.as_slice().to_vec()
        },
    )
}

#[test]
fn mma_is_the_matrix_product() {
    let mut random = Random::new(4);
    for seed in 0..20 {
        // Sums of small integers are exact in any order.
        let mut small =
            |n: usize| (0..n).map(|_| bf16::from_f32(random.within(0, 64) as f32 - 32.0)).collect();
        let (a, b): (Vec<_>, Vec<_>) = (small(M * K), small(K * N));
        let c: Vec<f32> = (0..M * N).map(|i| i as f32).collect();
        for found in products(seed, &a, &b, &c) {
            assert!(found.iter().map(|&x| f64::from(x)).eq(product(&a, &b, &c)));
        }

        let mut real = |n: usize| (0..n).map(|_| bf16::from_f32(random.bits() as f32 / 2e9 - 1.0)).collect();
        let (a, b): (Vec<_>, Vec<_>) = (real(M * K), real(K * N));
        for found in products(seed, &a, &b, &c) {
            for (found, expected) in found.into_iter().zip(product(&a, &b, &c)) {
                assert!((f64::from(found) - expected).abs() < 1e-4, "{found} for {expected}");
            }
        }
    }
}

#[test]
fn every_element_of_a_and_b_has_its_own_place() {
    let (mut a, mut b) = ([bf16::ZERO; M * K], [bf16::ZERO; K * N]);
    let c = [0.0; M * N];
    let rising = |n: usize| (0..n).map(|i| bf16::from_f32(1.0 + i as f32)).collect::<Vec<_>>();
    for i in 0..M * K {
        a[i] = bf16::ONE;
        let full = rising(K * N);
        for found in products(0, &a, &full, &c) {
            assert!(found.iter().map(|&x| f64::from(x)).eq(product(&a, &full, &c)), "a[{i}]");
        }
        a[i] = bf16::ZERO;
    }
    for i in 0..K * N {
        b[i] = bf16::ONE;
        let full = rising(M * K);
        for found in products(0, &full, &b, &c) {
            assert!(found.iter().map(|&x| f64::from(x)).eq(product(&full, &b, &c)), "b[{i}]");
        }
        b[i] = bf16::ZERO;
    }
}
