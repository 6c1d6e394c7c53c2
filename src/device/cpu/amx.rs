//! AMX: products of bf16 weights with f32 activations, which are split exactly into three bf16 parts, or rounded to one.
//!
//! A tile product sums in f32, in the order of columns, and treats subnormal numbers as zero. It is written in inline
//! assembly, because Rust's intrinsics for it are not stable.

use std::arch::asm;
use std::arch::x86_64::{
    __cpuid_count, __m512, __m512i, _CMP_ORD_Q, _mm512_add_epi32, _mm512_and_si512, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_loadu_ps, _mm512_mask_add_epi32, _mm512_or_si512,
    _mm512_permutex2var_ps, _mm512_set1_epi32, _mm512_setr_epi32, _mm512_setzero_si512, _mm512_shuffle_i32x4,
    _mm512_srli_epi32, _mm512_storeu_si512, _mm512_sub_ps, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use super::tile::{SIDE, Tile};
use super::tiles::{DEPTH, OUTPUTS, STEP};

/// bf16 parts of an activation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// The nearest bf16.
    Rounded,
    /// Three parts of 8 bits, which hold an f32's 24-bit mantissa.
    Exact,
}

impl Parts {
    fn count(self) -> usize {
        match self {
            Self::Rounded => 1,
            Self::Exact => 3,
        }
    }
}

const ZEROS: [f32; DEPTH] = [0.0; DEPTH];
/// Steps of [`Amx::multiply_zeros`] with one time.
const ZERO_STEPS: usize = 1024;

/// Proof that the process may use the tiles.
#[derive(Debug, Clone, Copy)]
pub struct Amx(());

/// Products of [`OUTPUTS`] outputs and [`SIDE`] rows: `[STEP, outputs, rows]`.
#[repr(C, align(64))]
pub struct Products([[[f32; SIDE]; SIDE]; STEP]);

#[expect(clippy::unused_self, reason = "`self` is the proof that these may be called")]
impl Amx {
    /// Asks the processor for the feature and the system for permission.
    pub fn detect() -> Option<Self> {
        const AMX_BF16: u32 = 1 << 22;
        const AMX_TILE: u32 = 1 << 24;
        if !is_x86_feature_detected!("avx512f") {
            return None;
        }
        let features = __cpuid_count(7, 0).edx;
        let there = features & AMX_BF16 != 0 && features & AMX_TILE != 0;
        (there && request_tile_data()).then_some(Self(()))
    }

    /// Tiles that hold one block of rows.
    pub fn tiles(columns: usize, parts: Parts) -> usize {
        columns.div_ceil(DEPTH) * parts.count()
    }

    /// Packs up to [`SIDE`] rows of `columns` activations: `[columns / DEPTH, parts]` tiles, each `[DEPTH / 2, SIDE,
    /// 2]`. Missing rows and columns are zero.
    pub fn pack<'a>(
        self,
        row: impl Fn(usize) -> &'a [f32],
        rows: usize,
        columns: usize,
        parts: Parts,
        out: &mut [Tile],
    ) {
        debug_assert!(rows <= SIDE && out.len() == Self::tiles(columns, parts));
        let sources: [&[f32]; SIDE] =
            std::array::from_fn(|r| if r < rows { &row(r)[..columns] } else { &[] });
        for (index, tiles) in out.chunks_exact_mut(parts.count()).enumerate() {
            let first = index * DEPTH;
            if first + DEPTH <= columns {
                let block =
                    sources.map(|row| row.get(first..).and_then(<[f32]>::first_chunk).unwrap_or(&ZEROS));
                // SAFETY: `detect` found AVX-512F.
                unsafe { split(block, parts, tiles) }
                continue;
            }
            let mut ends = [ZEROS; SIDE];
            for (end, source) in ends.iter_mut().zip(sources) {
                let rest = source.get(first..).unwrap_or(&[]);
                end[..rest.len()].copy_from_slice(rest);
            }
            // SAFETY: `detect` found AVX-512F.
            unsafe { split(ends.each_ref(), parts, tiles) }
        }
    }

    /// Multiplies a panel of weights with the packed rows, and prefetches the weights that lie `ahead`.
    pub fn multiply(self, panel: &[Tile], packed: &[Tile], parts: Parts, ahead: Ahead, sums: &mut Products) {
        let steps = packed.len() / parts.count();
        assert!(steps > 0 && panel.len() == steps * STEP);
        // SAFETY: the tiles read lie within `panel` and `packed`, by the line above; the process may use tiles, and
        // every caller runs inside `Self::configured`.
        unsafe {
            match parts {
                Parts::Rounded => multiply_rounded(panel.as_ptr(), packed.as_ptr(), steps, ahead, sums),
                Parts::Exact => multiply_exact(panel.as_ptr(), packed.as_ptr(), steps, ahead, sums),
            }
        }
    }

    /// Operations of [`Amx::multiply_zeros`] with one time.
    pub const OPERATIONS: usize = ZERO_STEPS * 4 * 2 * SIDE * SIDE * DEPTH;

    /// Multiplies tiles that stay in the registers, as fast as the machine can.
    pub fn multiply_zeros(self, times: usize) {
        if times == 0 {
            return;
        }
        // SAFETY: the tiles are configured and free; nothing else is used.
        self.configured(|| unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "tilezero tmm4",
                "tilezero tmm5",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm5",
                "tdpbf16ps tmm1, tmm4, tmm5",
                "tdpbf16ps tmm2, tmm4, tmm5",
                "tdpbf16ps tmm3, tmm4, tmm5",
                "dec {steps}",
                "jnz 2b",
                steps = inout(reg) times * ZERO_STEPS => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem),
            );
        });
    }

    /// Runs `work` with this thread's tiles configured.
    pub fn configured<T>(self, work: impl FnOnce() -> T) -> T {
        let shapes = Shapes {
            palette: 1,
            start: 0,
            reserved: [0; 14],
            bytes: [64; 8],
            unused: [0; 8],
            rows: [16; 8],
            rest: [0; 8],
        };
        // SAFETY: a valid configuration of palette 1; all tiles are free between calls of `multiply`.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly)) }
        let result = work();
        // SAFETY: releases the tiles, so that the system need not save them.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
        result
    }
}

impl Products {
    /// Products of zero.
    pub fn new() -> Self {
        Self([[[0.0; SIDE]; SIDE]; STEP])
    }

    /// Transposes the products to `[rows, outputs]`.
    pub fn by_row(&self, _: Amx, out: &mut [[f32; OUTPUTS]; SIDE]) {
        for (tile, products) in self.0.iter().enumerate() {
            // SAFETY: `Amx` proves AVX-512F.
            unsafe { transpose_to(products, tile * SIDE, out) }
        }
    }
}

/// Weights to prefetch. The hardware prefetcher alone does not keep the memory busy while tiles are multiplied.
#[derive(Clone, Copy)]
pub struct Ahead {
    start: *const Tile,
    /// Quarters of a tile that are prefetched with each weight tile.
    quarters: usize,
}

impl Ahead {
    /// The prefetch distance, in tiles.
    const DISTANCE: usize = 24;

    /// The prefetches of row block `block` of `blocks`: together they prefetch as much as the panel,
    /// [`Ahead::DISTANCE`] tiles on.
    pub fn share(panel: &[Tile], block: usize, blocks: usize) -> Self {
        let quarters = 4_usize.div_ceil(blocks);
        let quarters = if block * quarters < 4 { quarters } else { 0 };
        let start = Self::DISTANCE + panel.len() * block * quarters / 4;
        Self { start: panel.as_ptr().wrapping_add(start), quarters }
    }
}

/// The configuration that `ldtilecfg` reads: bytes per row and rows of each tile.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    bytes: [u16; 8],
    unused: [u16; 8],
    rows: [u8; 8],
    rest: [u8; 8],
}

/// Asks Linux for the tiles' 8 KB of state, which it provides on request only.
fn request_tile_data() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let result: i64;
    // SAFETY: a system call that touches none of this process's memory.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Prefetches, then multiplies a weight tile by the parts of the activations. Interleaved, neither waits for the other.
macro_rules! weight_tile {
    ($place:literal, $sums:literal, $($part:literal),+) => {
        concat!(
            "mov {left}, {quarters}\n",
            "test {left}, {left}\n",
            "jz 4f\n",
            "3:\n",
            "prefetcht1 [{ahead}]\n",
            "prefetcht1 [{ahead} + 64]\n",
            "prefetcht1 [{ahead} + 128]\n",
            "prefetcht1 [{ahead} + 192]\n",
            "add {ahead}, 256\n",
            "dec {left}\n",
            "jnz 3b\n",
            "4:\n",
            "tileloadd tmm7, [{w} + {line} + ",
            $place,
            "]\n",
            $("tdpbf16ps ", $sums, ", tmm7, ", $part, "\n",)+
        )
    };
}

/// A function that multiplies `steps` steps of a panel by activations of the given parts, each with the offset of its tile.
macro_rules! multiply {
    ($name:ident, $bytes:literal, $($part:literal at $offset:literal),+) => {
        /// # Safety
        /// As in [`Amx::multiply`]; the tiles are configured.
        unsafe fn $name(
            panel: *const Tile,
            packed: *const Tile,
            steps: usize,
            ahead: Ahead,
            sums: &mut Products,
        ) {
            // SAFETY: reads `steps` times the packed tiles of a step and STEP weight tiles, and writes `sums`, as the
            // caller promises. A prefetch reads nothing, so its address may be any.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    $(concat!("tileloadd ", $part, ", [{x} + {line} + ", $offset, "]"),)+
                    weight_tile!("0", "tmm0", $($part),+),
                    weight_tile!("1024", "tmm1", $($part),+),
                    weight_tile!("2048", "tmm2", $($part),+),
                    weight_tile!("3072", "tmm3", $($part),+),
                    concat!("add {x}, ", $bytes),
                    "add {w}, 4096",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{sums} + {line}], tmm0",
                    "tilestored [{sums} + {line} + 1024], tmm1",
                    "tilestored [{sums} + {line} + 2048], tmm2",
                    "tilestored [{sums} + {line} + 3072], tmm3",
                    w = inout(reg) panel => _,
                    x = inout(reg) packed => _,
                    steps = inout(reg) steps => _,
                    ahead = inout(reg) ahead.start => _,
                    quarters = in(reg) ahead.quarters,
                    left = out(reg) _,
                    line = in(reg) 64_usize,
                    sums = in(reg) &raw mut sums.0,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

multiply!(multiply_rounded, "1024", "tmm4" at "0");
multiply!(multiply_exact, "3072", "tmm4" at "0", "tmm5" at "1024", "tmm6" at "2048");

/// Makes the bf16 parts of `block[rows, columns]`, and pairs neighbouring columns: `tiles[part][column / 2][row]`. The
/// exact ones are made by cutting mantissas. An infinity becomes infinity and NaN parts, so a fault stays a fault.
#[target_feature(enable = "avx512f")]
fn split(block: [&[f32; DEPTH]; SIDE], parts: Parts, tiles: &mut [Tile]) {
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    let mut words = [[_mm512_setzero_si512(); SIDE]; 3];
    for (row, columns) in block.into_iter().enumerate() {
        // SAFETY: a row is 32 floats.
        let halves =
            unsafe { (_mm512_loadu_ps(columns.as_ptr()), _mm512_loadu_ps(columns.as_ptr().add(DEPTH / 2))) };
        let mut evens = _mm512_permutex2var_ps(halves.0, even, halves.1);
        let mut odds = _mm512_permutex2var_ps(halves.0, odd, halves.1);
        if parts == Parts::Rounded {
            (evens, odds) = (rounded(evens), rounded(odds));
        }
        for words in &mut words[..parts.count()] {
            let (cut_evens, cut_odds) = (cut(evens), cut(odds));
            words[row] = _mm512_or_si512(_mm512_srli_epi32::<16>(cut_evens), cut_odds);
            evens = _mm512_sub_ps(evens, _mm512_castsi512_ps(cut_evens));
            odds = _mm512_sub_ps(odds, _mm512_castsi512_ps(cut_odds));
        }
    }
    for (words, tile) in words.into_iter().zip(tiles) {
        for (row, to) in transpose(&words).into_iter().zip(&mut tile.0) {
            // SAFETY: a tile's row is 16 words.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), row) }
        }
    }
}

/// The upper halves of the words.
#[target_feature(enable = "avx512f")]
fn cut(x: __m512) -> __m512i {
    _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0xffff_0000_u32.cast_signed()))
}

/// The nearest bf16 in the upper halves, ties to even; the lower halves are to be cut. NaN stays NaN.
#[target_feature(enable = "avx512f")]
fn rounded(x: __m512) -> __m512 {
    let bits = _mm512_castps_si512(x);
    let last = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let half = _mm512_add_epi32(last, _mm512_set1_epi32(0x7fff));
    let is_number = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(x, x);
    _mm512_castsi512_ps(_mm512_mask_add_epi32(bits, is_number, bits, half))
}

/// `out[row][column + output] = from[output][row]`
#[target_feature(enable = "avx512f")]
fn transpose_to(from: &[[f32; SIDE]; SIDE], column: usize, out: &mut [[f32; OUTPUTS]; SIDE]) {
    // SAFETY: a row is 16 floats.
    let rows = std::array::from_fn(|row| unsafe { _mm512_castps_si512(_mm512_loadu_ps(from[row].as_ptr())) });
    for (row, to) in transpose(&rows).into_iter().zip(out) {
        let to = &mut to[column..][..SIDE];
        // SAFETY: a row is 16 floats.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), row) }
    }
}

/// 16 x 16 words: pairs, quads, then the four 128-bit quarters.
#[target_feature(enable = "avx512f")]
fn transpose(r: &[__m512i; SIDE]) -> [__m512i; SIDE] {
    let mut pairs = *r;
    for i in (0..SIDE).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    let mut quads = pairs;
    for i in (0..SIDE).step_by(4) {
        quads[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        quads[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        quads[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        quads[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    // quads[4 b + c] holds, in quarter q, column 4 q + c of rows 4 b .. 4 b + 4.
    let mut out = *r;
    for c in 0..4 {
        let (a, b, d, e) = (quads[c], quads[4 + c], quads[8 + c], quads[12 + c]);
        let low = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(d, e));
        let high = (_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(d, e));
        out[c] = _mm512_shuffle_i32x4::<0x88>(low.0, low.1);
        out[8 + c] = _mm512_shuffle_i32x4::<0xdd>(low.0, low.1);
        out[4 + c] = _mm512_shuffle_i32x4::<0x88>(high.0, high.1);
        out[12 + c] = _mm512_shuffle_i32x4::<0xdd>(high.0, high.1);
    }
    out
}
