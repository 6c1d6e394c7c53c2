//! Operations on one row: norms, the residual, the gate.

use super::Weight;
use crate::device::{Activation, Norm};

/// Partial sums of a row; their number fixes the order of every sum.
pub const LANES: usize = 16;

/// `a += b`
pub fn add(a: &mut [f32], b: &[f32]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
}

/// `out = norm(x)`
pub fn rms_norm(x: &[f32], norm: &Norm<Weight>, out: &mut [f32]) {
    let scale = inverse_rms(x, norm.epsilon);
    let offset = if norm.unit_offset { 1.0 } else { 0.0 };
    for ((out, x), weight) in out.iter_mut().zip(x).zip(norm.weight.vector()) {
        *out = x * scale * (weight + offset);
    }
}

/// `x = norm(x)`
pub fn rms_norm_in_place(x: &mut [f32], norm: &Norm<Weight>) {
    let scale = inverse_rms(x, norm.epsilon);
    let offset = if norm.unit_offset { 1.0 } else { 0.0 };
    for (x, weight) in x.iter_mut().zip(norm.weight.vector()) {
        *x = *x * scale * (weight + offset);
    }
}

fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt()
}

/// `sum x * y`, lane by lane, then the lanes in a tree.
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    for ((lane, x), y) in lanes.iter_mut().zip(x_rest).zip(y_rest) {
        *lane += x * y;
    }
    tree(lanes)
}

/// The sum of the lanes, halves first.
pub fn tree(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// `out = activation(gate) * up`
pub fn gated(activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    let rows = out.iter_mut().zip(gate).zip(up);
    match activation {
        Activation::Silu => rows.for_each(|((out, x), up)| *out = x / (1.0 + (-x).exp()) * up),
        Activation::GeluTanh => rows.for_each(|((out, x), up)| *out = gelu_tanh(*x) * up),
    }
}

fn gelu_tanh(x: f32) -> f32 {
    let inner =
        std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2 * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}
