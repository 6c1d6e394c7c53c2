use codit::device::inspect::Inspect;
use codit::device::{
    Activation, Batch, CacheLayer, CacheShape, Device, Dtype, HeadNorms, Heads, Norm, NormScope, PerKind,
};
use codit::error::Error;
use codit::ids::TokenId;

use super::{Numbers, Weight, close, devices, rounded, tensor, upload, view};
use crate::step::begin_forward;

fn norm(cpu: &codit::device::cpu::Cpu, weight: &[f32], unit_offset: bool) -> Norm<Weight> {
    let weight = cpu.weight(&[view(Dtype::Bf16, &[weight.len()], weight, 1)]).unwrap();
    Norm { weight, epsilon: 1e-5, unit_offset }
}

fn naive_norm(x: &[f64], weight: &[f32], unit_offset: bool) -> Vec<f64> {
    let rms = (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + 1e-5).sqrt();
    let offset = if unit_offset { 1.0 } else { 0.0 };
    x.iter().zip(rounded(Dtype::Bf16, weight)).map(|(x, w)| x / rms * (w + offset)).collect()
}

#[test]
fn rms_norm_adds_and_norms() {
    let mut numbers = Numbers(10);
    for (path, cpu) in devices() {
        for (rows, width) in [(1, 1), (3, 50), (130, 576)] {
            let (x, delta, weight) =
                (numbers.take(rows * width), numbers.take(rows * width), numbers.take(width));
            for unit_offset in [false, true] {
                let norm = norm(&cpu, &weight, unit_offset);
                let (mut residual, added) = (upload(&cpu, width, &x), upload(&cpu, width, &delta));
                let mut out = tensor(&cpu, rows, width);
                cpu.rms_norm(rows, None, &mut residual, Some(&norm), &mut out);
                let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
                let expected = |x: &[f64]| {
                    x.chunks(width).flat_map(|x| naive_norm(x, &weight, unit_offset)).collect::<Vec<_>>()
                };
                close(path, &cpu.download(rows, &out), &expected(&x), 1e-5);

                cpu.rms_norm(rows, Some((&added, None)), &mut residual, Some(&norm), &mut out);
                let x: Vec<f64> = x.iter().zip(&delta).map(|(x, d)| x + f64::from(*d)).collect();
                close(path, &cpu.download(rows, &residual), &x, 1e-6);
                close(path, &cpu.download(rows, &out), &expected(&x), 1e-5);

                cpu.rms_norm(rows, Some((&added, Some(&norm))), &mut residual, None, &mut out);
                let delta: Vec<f64> = delta.iter().map(|&d| f64::from(d)).collect();
                let x: Vec<f64> = x.iter().zip(expected(&delta)).map(|(x, d)| x + d).collect();
                close(path, &cpu.download(rows, &residual), &x, 1e-5);
                assert_eq!(cpu.download(rows, &out), cpu.download(rows, &residual));
            }
        }
    }
}

#[test]
fn gate() {
    let mut numbers = Numbers(11);
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let gelu =
        |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh());
    for (path, cpu) in devices() {
        for (rows, width) in [(1, 5), (2, 100), (50, 1536)] {
            let mut x: Vec<f32> = numbers.take(rows * 2 * width).iter().map(|x| x * 20.0).collect();
            x[..4].copy_from_slice(&[-1000.0, 1000.0, -0.0, 1e-30]);
            let input = upload(&cpu, 2 * width, &x);
            let mut out = tensor(&cpu, rows, width);
            for activation in [Activation::Silu, Activation::GeluTanh] {
                cpu.gated(rows, width, activation, &input, &mut out);
                let one = |x: f32, up: f32| {
                    f64::from(up)
                        * if activation == Activation::Silu { silu(x.into()) } else { gelu(x.into()) }
                };
                let row = |x: &[f32]| (0..width).map(|i| one(x[i], x[width + i])).collect::<Vec<_>>();
                let expected: Vec<f64> = x.chunks(2 * width).flat_map(row).collect();
                close(path, &cpu.download(rows, &out), &expected, 2e-6);
            }
        }
    }
}

#[test]
fn embed_scales_and_gather_picks() {
    let mut numbers = Numbers(12);
    let table = numbers.take(10 * 33);
    for (path, cpu) in devices() {
        for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F32] {
            let weight = cpu.weight(&[view(dtype, &[10, 33], &table, 1)]).unwrap();
            let tokens = [9, 0, 3, 3].map(TokenId).to_vec();
            let mut rows = tensor(&cpu, 4, 33);
            let step =
                begin_forward(&cpu, 1, &Batch { tokens, logits_indices: vec![2, 0], ..Batch::default() });
            cpu.embed(&step, &weight, 1.5, &mut rows);
            let row = |token: usize| {
                rounded(dtype, &table)[token * 33..][..33].iter().map(|x| x * 1.5).collect::<Vec<_>>()
            };
            close(path, &cpu.download(4, &rows), &[row(9), row(0), row(3), row(3)].concat(), 1e-6);
            let mut picked = tensor(&cpu, 2, 33);
            cpu.gather(&step, 0..2, &rows, &mut picked);
            close(path, &cpu.download(2, &picked), &[row(3), row(9)].concat(), 1e-6);
            cpu.gather(&step, 1..2, &rows, &mut picked);
            close(path, &cpu.download(1, &picked), &row(9), 1e-6);
        }
    }
}

/// Queries and keys are normalized, head by head or all heads together. They are then rotated in f32, as transformers
/// does. Values are unchanged.
#[test]
fn rope_norms_and_rotates() {
    let mut numbers = Numbers(13);
    let heads = Heads { query: 4, key_value: 2, dim: 16 };
    let frequencies: Vec<f32> = (0..8).map(|i| 10_000f32.powf(-f32::from(i as u8) / 8.0)).collect();
    let positions = [0, 1, 63, 64, 5000, 131_071, 40_000_000];
    let (query_weight, key_weight) = (numbers.take(64), numbers.take(32));
    for (path, cpu) in devices() {
        let rope = cpu.rope(&frequencies, 1.25).unwrap();
        let norms = |scope, [query, key]: [usize; 2]| HeadNorms {
            scope,
            query: norm(&cpu, &query_weight[..query], false),
            key: norm(&cpu, &key_weight[..key], true),
        };
        let of_heads = norms(NormScope::Head, [16, 16]);
        let of_projections = norms(NormScope::Projection, [64, 32]);
        let shape = CacheShape {
            layers: PerKind::only_full(1),
            heads: 2,
            group: 2,
            head_dim: 16,
            block_size: 1,
            blocks: PerKind::only_full(1),
        };
        let x = numbers.take(positions.len() * heads.qkv_width());
        for norms in [None, Some(&of_heads), Some(&of_projections)] {
            let mut cache = cpu.cache(shape).unwrap();
            let mut qkv = upload(&cpu, heads.qkv_width(), &x);
            let batch = Batch {
                tokens: vec![TokenId(0); positions.len()],
                positions: positions.to_vec(),
                // There are no spans, so nothing is stored and positions are arbitrary.
                ..Batch::default()
            };
            cpu.rope_store(
                &begin_forward(&cpu, 1, &batch),
                heads,
                norms,
                &rope,
                CacheLayer::full(0),
                &mut qkv,
                &mut cache,
            );
            let mut expected = vec![];
            for (row, &position) in x.chunks(heads.qkv_width()).zip(&positions) {
                let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
                let (queries, rest) = row.split_at(64);
                let (keys, values) = rest.split_at(32);
                let normed = |x: &[f64], weight: &[f32], unit_offset| match norms.map(|norms| norms.scope) {
                    None => x.to_vec(),
                    Some(NormScope::Head) => {
                        x.chunks(16).flat_map(|head| naive_norm(head, &weight[..16], unit_offset)).collect()
                    }
                    Some(NormScope::Projection) => naive_norm(x, weight, unit_offset),
                };
                let heads = [normed(queries, &query_weight, false), normed(keys, &key_weight, true)].concat();
                for normed in heads.chunks(16) {
                    let angle = |i: usize| f64::from(position as f32 * frequencies[i % 8]);
                    let rotated = |i: usize| {
                        let other = if i < 8 { -normed[i + 8] } else { normed[i - 8] };
                        1.25 * (normed[i] * angle(i).cos() + other * angle(i).sin())
                    };
                    expected.extend((0..16).map(rotated));
                }
                expected.extend(values);
            }
            close(path, &cpu.download(positions.len(), &qkv), &expected, 1e-5);
        }
    }
}

#[test]
fn too_large_a_cache_is_an_error() {
    let cpu = codit::device::cpu::Cpu::new(Some(1)).unwrap();
    let shape = CacheShape {
        layers: PerKind::only_full(1000),
        heads: 1000,
        group: 1,
        head_dim: 1000,
        block_size: 1000,
        blocks: PerKind::only_full(1000),
    };
    assert!(matches!(cpu.cache(shape), Err(Error::Device(_))));
    assert!(matches!(
        cpu.cache(CacheShape { blocks: PerKind::only_full(usize::MAX), ..shape }),
        Err(Error::Device(_))
    ));
    let shape = CacheShape {
        layers: PerKind { full: 3, windowed: 2 },
        heads: 5,
        group: 2,
        head_dim: 7,
        block_size: 11,
        blocks: PerKind::of(|_| 13),
    };
    let layer = 2 * 5 * 7 * 11 * 4;
    assert_eq!(cpu.block_bytes(shape), PerKind { full: 3 * layer, windowed: 2 * layer });
}
