//! AMX: products of bf16 weights, read in place by tiles of 16 rows x 32 columns, with f32 activations that are split
//! exactly into three bf16 parts.
//!
//! A tile product sums in f32, in the order of columns; it takes subnormal numbers for zero. The intrinsics are not
//! stable in Rust, inline assembly is.

use std::arch::asm;
use std::arch::x86_64::{
    __cpuid_count, __m512i, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_loadu_ps,
    _mm512_or_si512, _mm512_permutex2var_ps, _mm512_set1_epi32, _mm512_setr_epi32, _mm512_setzero_si512,
    _mm512_shuffle_i32x4, _mm512_srli_epi32, _mm512_storeu_si512, _mm512_sub_ps, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

/// Rows of a tile: outputs of a weight tile, batch rows of an activation tile.
pub const SIDE: usize = 16;
/// Columns of a weight tile.
const DEPTH: usize = 32;
/// Outputs of one call of [`Amx::multiply`].
pub const OUTPUTS: usize = 4 * SIDE;
/// bf16 parts of an f32: 3 x 8 bits are its 24.
const PARTS: usize = 3;

/// Proof that the process may use the tiles.
#[derive(Debug, Clone, Copy)]
pub struct Amx(());

/// One KB, as the tile registers load it.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Tile([[u32; SIDE]; SIDE]);

impl Tile {
    /// Nothing.
    pub const ZERO: Self = Self([[0; SIDE]; SIDE]);
}

/// Products of [`OUTPUTS`] outputs and [`SIDE`] rows: `[4, outputs, rows]`.
#[repr(C, align(64))]
pub struct Products([[[f32; SIDE]; SIDE]; 4]);

#[expect(clippy::unused_self, reason = "`self` is the proof that these may be called")]
impl Amx {
    /// Asks the processor and the system.
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
    pub fn tiles(columns: usize) -> usize {
        columns.div_ceil(DEPTH) * PARTS
    }

    /// Packs up to [`SIDE`] rows of `columns` activations: `[columns / DEPTH, PARTS]` tiles, each
    /// `[DEPTH / 2, SIDE, 2]`; what is missing is zero.
    pub fn pack<'a>(self, row: impl Fn(usize) -> &'a [f32], rows: usize, columns: usize, out: &mut [Tile]) {
        debug_assert!(rows <= SIDE && out.len() == Self::tiles(columns));
        let sources: [&[f32]; SIDE] =
            std::array::from_fn(|r| if r < rows { &row(r)[..columns] } else { &[] });
        for (index, tiles) in out.chunks_exact_mut(PARTS).enumerate() {
            let first = index * DEPTH;
            let mut ends = [[0.0; DEPTH]; SIDE];
            if first + DEPTH > columns {
                for (end, source) in ends.iter_mut().zip(sources) {
                    let rest = source.get(first..).unwrap_or(&[]);
                    end[..rest.len()].copy_from_slice(rest);
                }
            }
            let block = std::array::from_fn(|r| {
                sources[r].get(first..).and_then(<[f32]>::first_chunk).unwrap_or(&ends[r])
            });
            // SAFETY: `detect` found AVX-512F.
            unsafe { split(block, tiles) }
        }
    }

    /// `weights[OUTPUTS, columns]` (bf16, rows `stride` bytes apart) times the packed rows; `columns` is a multiple
    /// of [`DEPTH`].
    pub fn multiply(self, weights: &[u8], stride: usize, packed: &[Tile], out: &mut Products) {
        let steps = packed.len() / PARTS;
        assert!(steps > 0 && stride >= steps * DEPTH * 2);
        assert!(weights.len() >= (OUTPUTS - 1) * stride + steps * DEPTH * 2);
        // SAFETY: the tiles read lie within `weights` and `packed`, by the lines above; the process may use tiles,
        // and `Self::configured` is around every call.
        unsafe { multiply(weights.as_ptr(), stride, packed.as_ptr(), steps, out) }
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
        // SAFETY: gives the tiles back, so that the system need not save them.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
        result
    }
}

impl Products {
    /// Zeros.
    pub fn new() -> Self {
        Self([[[0.0; SIDE]; SIDE]; 4])
    }

    /// Turns the products of one of the four tiles to `[rows, outputs]`.
    pub fn by_row(&self, _: Amx, tile: usize) -> [[f32; SIDE]; SIDE] {
        // SAFETY: `Amx` proves AVX-512F.
        unsafe { transpose_array(&self.0[tile]) }
    }
}

/// What `ldtilecfg` reads: for each tile its bytes a row and its rows.
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

/// Linux hands out the tiles' 8 KB of state on request only.
fn request_tile_data() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let result: i64;
    // SAFETY: a system call that touches no memory of ours.
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

/// # Safety
/// As in [`Amx::multiply`]; the tiles are configured.
unsafe fn multiply(weights: *const u8, stride: usize, packed: *const Tile, steps: usize, out: &mut Products) {
    // SAFETY: reads `steps` times PARTS packed tiles and 4 x 16 rows of `steps * 64` bytes, `stride` apart, writes
    // `out`, as the caller promises.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{x} + {line}]",
            "tileloadd tmm5, [{x} + {line} + 1024]",
            "tileloadd tmm6, [{x} + {line} + 2048]",
            "tileloadd tmm7, [{w0} + {stride}]",
            "tdpbf16ps tmm0, tmm7, tmm4",
            "tdpbf16ps tmm0, tmm7, tmm5",
            "tdpbf16ps tmm0, tmm7, tmm6",
            "tileloadd tmm7, [{w1} + {stride}]",
            "tdpbf16ps tmm1, tmm7, tmm4",
            "tdpbf16ps tmm1, tmm7, tmm5",
            "tdpbf16ps tmm1, tmm7, tmm6",
            "tileloadd tmm7, [{w2} + {stride}]",
            "tdpbf16ps tmm2, tmm7, tmm4",
            "tdpbf16ps tmm2, tmm7, tmm5",
            "tdpbf16ps tmm2, tmm7, tmm6",
            "tileloadd tmm7, [{w3} + {stride}]",
            "tdpbf16ps tmm3, tmm7, tmm4",
            "tdpbf16ps tmm3, tmm7, tmm5",
            "tdpbf16ps tmm3, tmm7, tmm6",
            "add {w0}, 64",
            "add {w1}, 64",
            "add {w2}, 64",
            "add {w3}, 64",
            "add {x}, 3072",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{out} + {line}], tmm0",
            "tilestored [{out} + {line} + 1024], tmm1",
            "tilestored [{out} + {line} + 2048], tmm2",
            "tilestored [{out} + {line} + 3072], tmm3",
            w0 = inout(reg) weights => _,
            w1 = inout(reg) weights.add(SIDE * stride) => _,
            w2 = inout(reg) weights.add(2 * SIDE * stride) => _,
            w3 = inout(reg) weights.add(3 * SIDE * stride) => _,
            x = inout(reg) packed => _,
            steps = inout(reg) steps => _,
            stride = in(reg) stride,
            line = in(reg) 64_usize,
            out = in(reg) &raw mut out.0,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Splits `block[rows, columns]` into three bf16 parts by cutting mantissas, and pairs neighbouring columns:
/// `tiles[part][column / 2][row]`. The parts of an infinity are infinity and NaN: a fault stays one.
#[target_feature(enable = "avx512f")]
fn split(block: [&[f32; DEPTH]; SIDE], tiles: &mut [Tile]) {
    let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    let mut parts = [[_mm512_setzero_si512(); SIDE]; PARTS];
    for (row, columns) in block.into_iter().enumerate() {
        // SAFETY: a row is 32 floats.
        let halves =
            unsafe { (_mm512_loadu_ps(columns.as_ptr()), _mm512_loadu_ps(columns.as_ptr().add(DEPTH / 2))) };
        let mut evens = _mm512_permutex2var_ps(halves.0, even, halves.1);
        let mut odds = _mm512_permutex2var_ps(halves.0, odd, halves.1);
        for part in &mut parts {
            let cut_evens = _mm512_and_si512(_mm512_castps_si512(evens), upper);
            let cut_odds = _mm512_and_si512(_mm512_castps_si512(odds), upper);
            part[row] = _mm512_or_si512(_mm512_srli_epi32::<16>(cut_evens), cut_odds);
            evens = _mm512_sub_ps(evens, _mm512_castsi512_ps(cut_evens));
            odds = _mm512_sub_ps(odds, _mm512_castsi512_ps(cut_odds));
        }
    }
    for (part, tile) in parts.into_iter().zip(tiles) {
        for (row, to) in transpose(&part).into_iter().zip(&mut tile.0) {
            // SAFETY: a tile's row is 16 words.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), row) }
        }
    }
}

#[target_feature(enable = "avx512f")]
fn transpose_array(from: &[[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
    let mut to = [[0.0; SIDE]; SIDE];
    // SAFETY: a row is 16 floats.
    let rows = std::array::from_fn(|row| unsafe { _mm512_castps_si512(_mm512_loadu_ps(from[row].as_ptr())) });
    for (row, to) in transpose(&rows).into_iter().zip(&mut to) {
        // SAFETY: a row is 16 floats.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), row) }
    }
    to
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
