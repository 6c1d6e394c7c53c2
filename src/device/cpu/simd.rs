//! Sixteen f32 lanes, in whichever registers an instruction set has.

/// Partial sums of a row. Their number fixes the order of every sum.
pub const LANES: usize = 16;

/// Sixteen f32s.
type Array = [f32; LANES];

/// Two bf16s for each lane, the first in the lower half.
pub type Pairs = [u32; LANES];

#[inline(always)]
fn lower(pair: u32) -> f32 {
    f32::from_bits(pair << 16)
}

#[inline(always)]
fn upper(pair: u32) -> f32 {
    f32::from_bits(pair & 0xffff_0000)
}

/// Arithmetic on [`LANES`] lanes. All implementations with [`Simd::FMA`] give the same bits.
pub trait Simd: Copy {
    /// Whether [`Simd::mul_add`] rounds once.
    const FMA: bool;
    /// Whether the registers suffice for a block of 4 x 6 sums.
    const WIDE: bool;
    /// The lanes.
    type Lanes: Copy;

    /// `x` in every lane.
    fn splat(x: f32) -> Self::Lanes;
    /// Loads from memory.
    fn load(x: &Array) -> Self::Lanes;
    /// Stores to memory.
    fn store(x: Self::Lanes, out: &mut Array);
    /// `a + b`
    fn add(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// `a * b + c`
    fn mul_add(a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes;
    /// `a` where `a > b`, otherwise `b`, so `b` where either is NaN.
    fn max(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// The lower and the upper bf16 of each pair.
    #[inline(always)]
    fn widen(pairs: &Pairs) -> [Self::Lanes; 2] {
        [Self::load(&pairs.map(lower)), Self::load(&pairs.map(upper))]
    }
    /// `pairs . x + sums`, where `x` is a pair of bf16. The order of the two products is that of the instruction set.
    #[inline(always)]
    fn dot(pairs: &Pairs, x: u32, sums: Self::Lanes) -> Self::Lanes {
        let [low, high] = Self::widen(pairs);
        Self::mul_add(Self::splat(upper(x)), high, Self::mul_add(Self::splat(lower(x)), low, sums))
    }
    /// Prefetches the cache line of `x`'s first element, if there is one.
    fn prefetch<T>(x: Option<&T>);
    /// Prefetches the cache line at an address, whatever is there, for a use that is near.
    fn prefetch_near<T>(address: *const T);
}

/// The implementation for every machine: arrays, which the compiler vectorizes.
#[derive(Clone, Copy)]
pub struct Portable;

impl Simd for Portable {
    const FMA: bool = cfg!(target_arch = "aarch64");
    const WIDE: bool = false;
    type Lanes = Array;

    #[inline(always)]
    fn splat(x: f32) -> Array {
        [x; LANES]
    }

    #[inline(always)]
    fn load(x: &Array) -> Array {
        *x
    }

    #[inline(always)]
    fn store(x: Array, out: &mut Array) {
        *out = x;
    }

    #[inline(always)]
    fn add(a: Array, b: Array) -> Array {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn mul_add(a: Array, b: Array, c: Array) -> Array {
        std::array::from_fn(|lane| mul_add::<Self>(a[lane], b[lane], c[lane]))
    }

    #[inline(always)]
    fn max(a: Array, b: Array) -> Array {
        std::array::from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn prefetch<T>(_: Option<&T>) {}

    #[inline(always)]
    fn prefetch_near<T>(_: *const T) {}
}

/// Like [`Portable`], with sums in f64, for comparisons.
#[derive(Clone, Copy)]
pub struct Double;

impl Simd for Double {
    const FMA: bool = Portable::FMA;
    const WIDE: bool = false;
    type Lanes = [f64; LANES];

    #[inline(always)]
    fn splat(x: f32) -> Self::Lanes {
        [f64::from(x); LANES]
    }

    #[inline(always)]
    fn load(x: &Array) -> Self::Lanes {
        x.map(f64::from)
    }

    #[inline(always)]
    fn store(x: Self::Lanes, out: &mut Array) {
        *out = x.map(|x| x as f32);
    }

    #[inline(always)]
    fn add(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn mul_add(a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline(always)]
    fn max(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn prefetch<T>(_: Option<&T>) {}

    #[inline(always)]
    fn prefetch_near<T>(_: *const T) {}
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

/// Only [`super::isa::Isa::run`] calls the functions below; it proves the features.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, __m512bh, __m512i, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, _mm256_add_ps,
        _mm256_and_si256, _mm256_castsi256_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
        _mm256_max_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_slli_epi32, _mm256_storeu_ps, _mm512_add_ps,
        _mm512_and_si512, _mm512_castsi512_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_loadu_si512, _mm512_max_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_slli_epi32,
        _mm512_storeu_ps,
    };
    use std::mem::transmute;

    use super::{Array, Pairs, Simd, lower, upper};

    /// The upper half of a pair.
    const UPPER: i32 = 0xffff_0000_u32.cast_signed();

    #[inline(always)]
    fn prefetch<T>(x: Option<&T>) {
        if let Some(x) = x {
            // SAFETY: every x86-64 machine has SSE; a prefetch reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(x).cast()) }
        }
    }

    #[inline(always)]
    fn prefetch_near<T>(address: *const T) {
        // SAFETY: every x86-64 machine has SSE; a prefetch reads nothing, so its address may be any.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    /// One register of AVX-512F. `BF16`: with the products of bf16 pairs.
    #[derive(Clone, Copy)]
    pub struct Avx512<const BF16: bool>;

    impl<const BF16: bool> Simd for Avx512<BF16> {
        const FMA: bool = true;
        const WIDE: bool = true;
        type Lanes = __m512;

        #[inline(always)]
        fn splat(x: f32) -> __m512 {
            // SAFETY: `Isa::run` found AVX-512F.
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        fn load(x: &Array) -> __m512 {
            // SAFETY: as above; 16 floats are there.
            unsafe { _mm512_loadu_ps(x.as_ptr()) }
        }

        #[inline(always)]
        fn store(x: __m512, out: &mut Array) {
            // SAFETY: as above; there is room for 16 floats.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) }
        }

        #[inline(always)]
        fn add(a: __m512, b: __m512) -> __m512 {
            // SAFETY: `Isa::run` found AVX-512F.
            unsafe { _mm512_add_ps(a, b) }
        }

        #[inline(always)]
        fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: `Isa::run` found AVX-512F.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn max(a: __m512, b: __m512) -> __m512 {
            // SAFETY: `Isa::run` found AVX-512F.
            unsafe { _mm512_max_ps(a, b) }
        }

        #[inline(always)]
        fn widen(pairs: &Pairs) -> [__m512; 2] {
            // SAFETY: `Isa::run` found AVX-512F; 16 words are there.
            unsafe {
                let pairs: __m512i = _mm512_loadu_si512(pairs.as_ptr().cast());
                let high = _mm512_and_si512(pairs, _mm512_set1_epi32(UPPER));
                [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(high)]
            }
        }

        #[inline(always)]
        fn dot(pairs: &Pairs, x: u32, sums: __m512) -> __m512 {
            if BF16 {
                // SAFETY: `Isa::run` found AVX-512 BF16; 16 words are there. The types hold the same bits.
                return unsafe {
                    let pairs: __m512bh = transmute(_mm512_loadu_si512(pairs.as_ptr().cast()));
                    let x: __m512bh = transmute(_mm512_set1_epi32(x.cast_signed()));
                    _mm512_dpbf16_ps(sums, pairs, x)
                };
            }
            let [low, high] = Self::widen(pairs);
            Self::mul_add(Self::splat(upper(x)), high, Self::mul_add(Self::splat(lower(x)), low, sums))
        }

        #[inline(always)]
        fn prefetch<T>(x: Option<&T>) {
            prefetch(x);
        }

        #[inline(always)]
        fn prefetch_near<T>(address: *const T) {
            prefetch_near(address);
        }
    }

    /// Two registers of AVX.
    #[derive(Clone, Copy)]
    pub struct Avx2;

    impl Simd for Avx2 {
        const FMA: bool = true;
        const WIDE: bool = false;
        type Lanes = [__m256; 2];

        #[inline(always)]
        fn splat(x: f32) -> [__m256; 2] {
            // SAFETY: `Isa::run` found AVX.
            unsafe { [_mm256_set1_ps(x); 2] }
        }

        #[inline(always)]
        fn load(x: &Array) -> [__m256; 2] {
            // SAFETY: as above; 16 floats are there.
            unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
        }

        #[inline(always)]
        fn store(x: [__m256; 2], out: &mut Array) {
            // SAFETY: as above; there is room for 16 floats.
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), x[0]);
                _mm256_storeu_ps(out.as_mut_ptr().add(8), x[1]);
            }
        }

        #[inline(always)]
        fn add(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: `Isa::run` found AVX.
            unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn mul_add(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: `Isa::run` found FMA.
            unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
        }

        #[inline(always)]
        fn max(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            // SAFETY: `Isa::run` found AVX.
            unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn widen(pairs: &Pairs) -> [[__m256; 2]; 2] {
            // SAFETY: `Isa::run` found AVX2; 16 words are there.
            unsafe {
                let (a, b) = (
                    _mm256_loadu_si256(pairs.as_ptr().cast()),
                    _mm256_loadu_si256(pairs.as_ptr().add(8).cast()),
                );
                let upper = _mm256_set1_epi32(UPPER);
                let low = [_mm256_slli_epi32::<16>(a), _mm256_slli_epi32::<16>(b)];
                let high = [_mm256_and_si256(a, upper), _mm256_and_si256(b, upper)];
                [
                    [_mm256_castsi256_ps(low[0]), _mm256_castsi256_ps(low[1])],
                    [_mm256_castsi256_ps(high[0]), _mm256_castsi256_ps(high[1])],
                ]
            }
        }

        #[inline(always)]
        fn prefetch<T>(x: Option<&T>) {
            prefetch(x);
        }

        #[inline(always)]
        fn prefetch_near<T>(address: *const T) {
            prefetch_near(address);
        }
    }
}

/// `a * b + c`
#[inline(always)]
pub fn mul_add<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `a * b + c`
#[inline(always)]
pub fn mul_add_f64<S: Simd>(a: f64, b: f64, c: f64) -> f64 {
    if S::FMA { a.mul_add(b, c) } else { a * b + c }
}
