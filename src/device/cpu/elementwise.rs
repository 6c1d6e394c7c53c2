//! Operations on one row: norms, the residual, the gate.

use super::isa::Kernel;
use super::math::{dot, exp};
use super::simd::Simd;
use super::simd::mul_add;
use super::weight::Weight;
use crate::device::{Activation, Norm};

/// `residual += norm(delta)` if there is a delta, then `out = norm(residual)`.
pub struct AddNorm<'a> {
    /// `[width]`, and its norm if it has one.
    pub delta: Option<(&'a [f32], Option<&'a Norm<Weight>>)>,
    /// `[width]`
    pub residual: &'a mut [f32],
    /// The norm of the output, `[width]`.
    pub norm: Option<&'a Norm<Weight>>,
    /// `[width]`
    pub out: &'a mut [f32],
}

impl Kernel for AddNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { delta, residual, norm, out } = self;
        match delta {
            Some((delta, Some(norm))) => {
                out.copy_from_slice(delta);
                rms_norm::<S>(out, norm);
                add(residual, out);
            }
            Some((delta, None)) => add(residual, delta),
            None => {}
        }
        out.copy_from_slice(residual);
        if let Some(norm) = norm {
            rms_norm::<S>(out, norm);
        }
    }
}

#[inline(always)]
fn add(sum: &mut [f32], x: &[f32]) {
    sum.iter_mut().zip(x).for_each(|(a, b)| *a += b);
}

/// `x = norm(x)`
#[inline(always)]
pub fn rms_norm<S: Simd>(x: &mut [f32], norm: &Norm<Weight>) {
    let scale = 1.0 / (dot::<S>(x, x) / x.len() as f32 + norm.epsilon).sqrt();
    let offset = if norm.unit_offset { 1.0 } else { 0.0 };
    for (x, weight) in x.iter_mut().zip(norm.weight.vector()) {
        *x = *x * scale * (weight + offset);
    }
}

/// `out = activation(gate) * up`
pub struct Gated<'a> {
    /// The activation of the gate.
    pub activation: Activation,
    /// `[width]`
    pub gate: &'a [f32],
    /// `[width]`
    pub up: &'a [f32],
    /// `[width]`
    pub out: &'a mut [f32],
}

impl Kernel for Gated<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let elements = self.out.iter_mut().zip(self.gate).zip(self.up);
        match self.activation {
            Activation::Silu => elements.for_each(|((out, x), up)| *out = x / (1.0 + exp::<S>(-x)) * up),
            Activation::GeluTanh => elements.for_each(|((out, x), up)| *out = gelu_tanh::<S>(*x) * up),
        }
    }
}

/// `0.5 x (1 + tanh y)`, which is `x * sigmoid(2 y)`.
#[inline(always)]
fn gelu_tanh<S: Simd>(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
    let y = SQRT_2_OVER_PI * mul_add::<S>(0.044_715 * x * x, x, x);
    x / (1.0 + exp::<S>(-2.0 * y))
}
