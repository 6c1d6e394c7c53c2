//! One source, compiled for several instruction sets. The machine's best is chosen at run time; [`ISA_VARIABLE`] lowers it.

use std::env;
use std::ffi::OsStr;

use super::amx::Amx;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Double, Portable, Simd};
use crate::error::{Error, Result};

/// The environment variable that caps the instruction set of the CPU device.
pub const ISA_VARIABLE: &str = "CODIT_CPU_ISA";

/// An instruction set, lowest first. A machine that has one has all lower ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Portable code that sums in f64. It is no real instruction set; the others are compared with it.
    Reference,
    /// The features that every x86-64 machine has.
    Baseline,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512, and its products of bf16 pairs.
    Avx512Bf16,
    /// AVX-512 with products of bf16 pairs, and AMX tiles of bf16 for matrix products.
    Amx,
}

/// A computation to be compiled for every [`Isa`].
pub trait Kernel {
    /// The result.
    type Output;
    /// Computes. It and everything it calls must be `#[inline(always)]`.
    fn run<S: Simd>(self) -> Self::Output;
}

impl Isa {
    /// The instruction sets that a machine may have, lowest first.
    pub const ALL: [Self; 5] = [Self::Baseline, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Amx];

    /// The name in [`ISA_VARIABLE`] and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Baseline => "baseline",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512_bf16",
            Self::Amx => "amx",
        }
    }

    /// The instruction sets that this machine has, lowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        let best = Self::detect();
        Self::ALL.into_iter().filter(move |isa| *isa <= best)
    }

    /// The machine's best, or the cap that [`ISA_VARIABLE`] sets where that is lower.
    ///
    /// # Errors
    /// [`Error::Setting`] where the variable names no instruction set.
    pub fn chosen() -> Result<Self> {
        let cap = env::var_os(ISA_VARIABLE).filter(|value| !value.is_empty());
        let cap = cap.map(|value| Self::parse(&value)).transpose()?;
        Ok(cap.map_or(Self::detect(), |cap| cap.min(Self::detect())))
    }

    fn parse(value: &OsStr) -> Result<Self> {
        Self::ALL.into_iter().find(|isa| value == isa.name()).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            let value = value.to_string_lossy();
            Error::Setting(format!("{ISA_VARIABLE} is {value:?}; it must be one of {names}, or unset"))
        })
    }

    /// The machine's best instruction set.
    pub fn detect() -> Self {
        match Self::detect_vectors() {
            Self::Avx512Bf16 if Amx::detect().is_some() => Self::Amx,
            vectors => vectors,
        }
    }

    /// The machine's best instruction set other than AMX.
    fn detect_vectors() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            let avx512_bf16 = is_x86_feature_detected!("avx512bf16");
            match (avx2, avx512, avx512_bf16) {
                (true, true, true) => return Self::Avx512Bf16,
                (true, true, false) => return Self::Avx512,
                (true, false, _) => return Self::Avx2,
                _ => {}
            }
        }
        Self::Baseline
    }

    /// Runs `kernel` as compiled for this instruction set.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            // SAFETY: `detect` found these features.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 | Self::Amx => unsafe { avx512_bf16(kernel) },
            // SAFETY: `detect` found these features.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { avx512(kernel) },
            // SAFETY: `detect` found these features.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2(kernel) },
            Self::Reference => kernel.run::<Double>(),
            _ => kernel.run::<Portable>(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn avx512_bf16<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx512<true>>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx512<false>>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx2>()
}
