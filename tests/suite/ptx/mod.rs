//! Tests the interpreter of PTX (`kernels/simt/ptx`) instruction by instruction against the PTX ISA, with small kernels
//! written here. What an instruction should give is computed in Rust, from the manual.

mod arithmetic;
mod atomics;
mod bits;
mod collectives;
mod comparisons;
mod control;
mod conversions;
mod copies;
mod floats;
mod kernels;
mod matrices;
mod memory;
mod refusals;

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use bytemuck::{NoUninit, Pod};
use codit::device::simt::code::{Code, Ptx};
use codit::device::simt::runtime::{Launch, Memory};

use crate::random::Random;

/// Index order, and orders in which warps, lanes and copies take other turns.
const SEEDS: [u64; 5] = [0, 1, 2, 3, 4];

/// What begins every file.
const HEAD: &str =
    ".version 8.6\n.target sm_90\n.address_size 64\n.extern .shared .align 128 .b8 dynamic[];\n";
/// The registers that a probe's body may use.
const REGISTERS: &str = ".reg .pred %p<20>;\n.reg .b16 %h<20>;\n.reg .b32 %r<80>;\n.reg .b64 %d<40>;\n.reg .f32 %f<40>;\n\
                         .reg .f64 %g<20>;\n";

/// A kernel `probe` whose parameters are the addresses `in` and `out` and a number. Its body finds the addresses in %d0
/// and %d1, the number in %r0 and %tid.x in %r1.
fn probe(body: &str) -> String {
    format!(
        "{HEAD}.visible .entry probe(.param .u64 in, .param .u64 out, .param .u32 number)\n{{\n{REGISTERS}\
         ld.param.u64 %d0, [in];\nld.param.u64 %d1, [out];\nld.param.u32 %r0, [number];\nmov.u32 %r1, %tid.x;\n\
         {body}\nret;\n}}\n"
    )
}

/// The folder's only file has this text.
fn load(text: &str) -> Result<Code, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("probe.ptx"), text).unwrap();
    Ptx::load(folder.path()).map(|ptx| Code::Ptx(Arc::new(ptx)))
}

#[derive(Clone, Copy, NoUninit)]
#[repr(C)]
struct Params {
    input: u64,
    out: u64,
    number: u32,
    padding: u32,
}

/// A launch of a probe.
#[derive(Clone, Copy)]
struct Run {
    blocks: u32,
    threads: u32,
    shared_bytes: usize,
    number: u32,
    seed: u64,
}

const ONE_WARP: Run = Run { blocks: 1, threads: 32, shared_bytes: 0, number: 0, seed: 0 };

impl Run {
    /// Runs the probe, which writes to `out`.
    fn on<I: NoUninit>(self, code: &Code, input: &[I], out: &mut Memory) -> Result<(), String> {
        let input = Memory::of(input).unwrap();
        let params = Params { input: input.address(), out: out.address(), number: self.number, padding: 0 };
        let Self { blocks, threads, shared_bytes, seed, .. } = self;
        let launch =
            Launch { kernel: "probe", grid: [blocks, 1, 1], block: [threads, 1, 1], shared_bytes, seed };
        // SAFETY: the interpreter refuses accesses outside of its memory, and `out` is borrowed exclusively.
        unsafe { launch.run_bytes(code, &bytemuck::bytes_of(&params)[..20]) }
    }

    /// Runs the probe with this body; returns `out[count]`, whose bytes are 0xFF before.
    fn probe<I: NoUninit, O: Pod>(self, body: &str, input: &[I], count: usize) -> Vec<O> {
        let code = load(&probe(body)).unwrap();
        let mut out = Memory::new(count * size_of::<O>()).unwrap();
        self.on(&code, input, &mut out).unwrap();
        out.as_slice().to_vec()
    }

    /// The message of the fault that ends the probe.
    fn fault(self, body: &str) -> String {
        let code = load(&probe(body)).unwrap();
        self.on(&code, &[0_u64; 64], &mut Memory::new(1024).unwrap()).unwrap_err()
    }
}

/// Where an operand lies: a register of so many bits, or a predicate.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Register {
    Predicate,
    B16,
    B32,
    B64,
}

use Register::{B16, B32, B64, Predicate};

impl Register {
    fn name(self, number: usize) -> String {
        let kind = match self {
            Predicate => "p",
            B16 => "h",
            B32 => "r",
            B64 => "d",
        };
        format!("%{kind}{number}")
    }

    /// Loads it from the address in %d0 and an offset.
    fn load(self, number: usize, offset: usize) -> String {
        let name = self.name(number);
        match self {
            Predicate => {
                format!("ld.global.b32 %r70, [%d0+{offset}];\nsetp.ne.b32 {name}, %r70, 0;\n")
            }
            B16 => format!("ld.global.b16 {name}, [%d0+{offset}];\n"),
            B32 => format!("ld.global.b32 {name}, [%d0+{offset}];\n"),
            B64 => format!("ld.global.b64 {name}, [%d0+{offset}];\n"),
        }
    }

    /// Stores it to the address in %d1, with zeros above.
    fn store(self, number: usize) -> String {
        let name = self.name(number);
        let widened = match self {
            Predicate => format!("selp.b64 %d30, 1, 0, {name};\n"),
            B16 => format!("cvt.u64.u16 %d30, {name};\n"),
            B32 => format!("cvt.u64.u32 %d30, {name};\n"),
            B64 => format!("mov.b64 %d30, {name};\n"),
        };
        widened + "st.global.b64 [%d1], %d30;\n"
    }
}

/// What `instruction` gives for each row of operands. `{0}` stands for its destination and `{1}` on for its sources.
fn results<const N: usize>(
    instruction: &str,
    to: Register,
    from: [Register; N],
    rows: &[[u64; N]],
) -> Vec<u64> {
    // A thread for each row, whose operands take 8 bytes each.
    let mut body = format!(
        "mov.u32 %r2, %ctaid.x;\nmad.lo.u32 %r3, %r2, 32, %r1;\nmul.wide.u32 %d2, %r3, {};\nadd.s64 %d0, %d0, %d2;\n\
         mul.wide.u32 %d2, %r3, 8;\nadd.s64 %d1, %d1, %d2;\n",
        8 * N
    );
    let mut text = instruction.replace("{0}", &to.name(11));
    for (at, register) in from.into_iter().enumerate() {
        body += &register.load(at + 12, 8 * at);
        text = text.replace(&format!("{{{}}}", at + 1), &register.name(at + 12));
    }
    write!(body, "{text};\n{}", to.store(11)).unwrap();
    let blocks = rows.len().div_ceil(32);
    let mut operands = rows.to_vec();
    operands.resize(blocks * 32, [0; N]);
    let run = Run { blocks: blocks as u32, ..ONE_WARP };
    let mut found = run.probe(&body, operands.as_flattened(), blocks * 32);
    found.truncate(rows.len());
    found
}

/// Fails where `instruction` differs from `expected`, which gets the operands of a row.
fn check<const N: usize>(
    instruction: &str,
    to: Register,
    from: [Register; N],
    rows: &[[u64; N]],
    expected: impl Fn([u64; N]) -> u64,
) {
    for (row, found) in rows.iter().zip(results(instruction, to, from, rows)) {
        let expected = expected(*row);
        assert_eq!(found, expected, "{instruction} of {row:x?}: {found:#x}, not {expected:#x}");
    }
}

/// A function of one number, and its name in PTX.
type Unary<T> = (&'static str, fn(T) -> T);
/// The same of two.
type Binary<T> = (&'static str, fn(T, T) -> T);

/// All pairs of some numbers.
fn pairs(values: &[u64]) -> Vec<[u64; 2]> {
    values.iter().flat_map(|&a| values.iter().map(move |&b| [a, b])).collect()
}

/// All triples of some numbers.
fn triples(values: &[u64]) -> Vec<[u64; 3]> {
    pairs(values).into_iter().flat_map(|[a, b]| values.iter().map(move |&c| [a, b, c])).collect()
}

/// Integers at the edges of every width, and random ones.
fn integers() -> Vec<u64> {
    let mut random = Random::new(1);
    let mut values = vec![0, 1, 2, 3, 7, 31, 32, 33, 0xff];
    for bits in [8, 15, 16, 31, 32, 63] {
        values.extend([(1 << bits) - 1, 1 << bits, (1 << bits) + 1]);
    }
    values.extend([u64::MAX, u64::MAX - 1, 0xffff_ffff_8000_0000]);
    values.extend((0..6).map(|_| u64::from(random.bits()) << 32 | u64::from(random.bits())));
    values
}

/// The bits of single numbers: zeros, subnormals, the largest, infinities, NaN and random ones.
fn singles() -> Vec<u64> {
    let mut random = Random::new(2);
    let mut values: Vec<f32> = vec![0.0, 1e-45, 1e-40, f32::MIN_POSITIVE, 0.5, 1.0, 1.5, 3.0, 1e10, f32::MAX];
    values.extend((0..6).map(|_| (random.bits() as f32 / 1e9 - 2.0) * 1.7));
    values.extend([f32::INFINITY, f32::NAN]);
    values.iter().flat_map(|x| [x.to_bits(), (-x).to_bits()]).map(u64::from).collect()
}

/// The same of doubles.
fn doubles() -> Vec<u64> {
    let mut random = Random::new(3);
    let mut values: Vec<f64> = vec![0.0, 5e-324, 1e-310, f64::MIN_POSITIVE, 0.5, 1.0, 3.0, 1e100, f64::MAX];
    values.extend((0..6).map(|_| f64::from(random.bits()) / 1e9 - 2.0));
    values.extend([f64::INFINITY, f64::NAN]);
    values.iter().flat_map(|x| [x.to_bits(), (-x).to_bits()]).collect()
}

fn f32_of(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// The bits of an f32 as the GPU leaves them: it has one NaN.
fn bits_of(x: f32) -> u64 {
    u64::from(if x.is_nan() { 0x7fff_ffff } else { x.to_bits() })
}
