//! `ldmatrix`, `stmatrix` and `mma`.

use std::fmt::Write as _;

use half::{bf16, f16};

use super::{ONE_WARP, Run};
use crate::random::Random;

#[test]
fn ldmatrix_gives_each_lane_two_neighbours_of_a_row_or_of_a_column() {
    let input: Vec<u16> = (0..256).map(|i| i * 7 + 1).collect();
    for matrices in [1_usize, 2, 4] {
        for is_transposed in [false, true] {
            let registers = (0..matrices).map(|i| format!("%r{}", 20 + i)).collect::<Vec<_>>().join(", ");
            let shape = format!("x{matrices}{}", if is_transposed { ".trans" } else { "" });
            // Lane i copies 16 bytes to row (5 i) mod 32 and passes that place.
            let mut body = format!(
                "mul.lo.u32 %r2, %r1, 5;\nand.b32 %r2, %r2, 31;\nmul.lo.u32 %r2, %r2, 16;\nmov.u32 %r3, dynamic;\nadd.u32 %r2, %r2, %r3;\n\
                 mul.wide.u32 %d2, %r1, 16;\nadd.s64 %d0, %d0, %d2;\nld.global.v4.u32 {{%r4, %r5, %r6, %r7}}, [%d0];\n\
                 st.shared.v4.u32 [%r2], {{%r4, %r5, %r6, %r7}};\nbar.warp.sync -1;\n\
                 ldmatrix.sync.aligned.m8n8.{shape}.shared.b16 {{{registers}}}, [%r2];\n\
                 mul.wide.u32 %d2, %r1, {};\nadd.s64 %d1, %d1, %d2;\n",
                4 * matrices
            );
            for i in 0..matrices {
                writeln!(body, "st.global.u32 [%d1+{}], %r{};", 4 * i, 20 + i).unwrap();
            }
            let run = Run { shared_bytes: 512, seed: 1, ..ONE_WARP };
            let found: Vec<u32> = run.probe(&body, &input, 32 * matrices);
            let at =
                |matrix: usize, row: usize, column: usize| u32::from(input[64 * matrix + 8 * row + column]);
            for lane in 0..32 {
                for matrix in 0..matrices {
                    let (row, column) = (lane / 4, lane % 4 * 2);
                    let [low, high] = if is_transposed {
                        [at(matrix, column, row), at(matrix, column + 1, row)]
                    } else {
                        [at(matrix, row, column), at(matrix, row, column + 1)]
                    };
                    assert_eq!(found[lane * matrices + matrix], low | high << 16, "{shape}, lane {lane}");
                }
            }
        }
    }
}

#[test]
fn stmatrix_writes_what_ldmatrix_reads() {
    for shape in ["x4", "x4.trans"] {
        let body = format!(
            "mul.lo.u32 %r2, %r1, 16;\nmov.u32 %r3, dynamic;\nadd.u32 %r2, %r2, %r3;\nmul.wide.u32 %d2, %r1, 16;\nadd.s64 %d0, %d0, %d2;\n\
             add.s64 %d1, %d1, %d2;\nld.global.v4.u32 {{%r4, %r5, %r6, %r7}}, [%d0];\n\
             stmatrix.sync.aligned.m8n8.{shape}.shared.b16 [%r2], {{%r4, %r5, %r6, %r7}};\nbar.warp.sync -1;\n\
             ldmatrix.sync.aligned.m8n8.{shape}.shared.b16 {{%r8, %r9, %r10, %r11}}, [%r2];\n\
             st.global.v4.u32 [%d1], {{%r8, %r9, %r10, %r11}};"
        );
        let input: Vec<u32> = (0..128).map(|i| i * 0x0101_0007).collect();
        assert_eq!(Run { shared_bytes: 512, ..ONE_WARP }.probe::<u32, u32>(&body, &input, 128), input);
    }
}

/// A shape and an element type of `mma`, with the places of the elements as the manual's figures give them: for lane l
/// and element i, (row, column).
struct Product {
    name: &'static str,
    k: usize,
    bits: u32,
    code: fn(f32) -> u32,
    a: fn(usize, usize) -> (usize, usize),
    b: fn(usize, usize) -> (usize, usize),
}

/// Small whole numbers, whose sums are exact in every format: -4 to 4.
fn e4m3(x: f32) -> u32 {
    let code = [0x00, 0x38, 0x40, 0x44, 0x48][x.abs() as usize];
    code | if x < 0.0 { 0x80 } else { 0 }
}

fn e5m2(x: f32) -> u32 {
    let code = [0x00, 0x3c, 0x40, 0x42, 0x44][x.abs() as usize];
    code | if x < 0.0 { 0x80 } else { 0 }
}

fn products() -> Vec<Product> {
    let to_bf16: fn(f32) -> u32 = |x| u32::from(bf16::from_f32(x).to_bits());
    let to_f16: fn(f32) -> u32 = |x| u32::from(f16::from_f32(x).to_bits());
    // m16n8k16, 16 bits. Row: groupID for ai where 0 <= i < 2 or 4 <= i < 6, else groupID + 8.
    let a16: fn(usize, usize) -> (usize, usize) = |l, i| {
        let row = if i < 2 || (4..6).contains(&i) { l >> 2 } else { (l >> 2) + 8 };
        (row, (l % 4) * 2 + (i & 1) + if i < 4 { 0 } else { 8 })
    };
    let b16: fn(usize, usize) -> (usize, usize) =
        |l, i| ((l % 4) * 2 + (i & 1) + if i < 2 { 0 } else { 8 }, l >> 2);
    // m16n8k8, 16 bits.
    let a8: fn(usize, usize) -> (usize, usize) =
        |l, i| (if i < 2 { l >> 2 } else { (l >> 2) + 8 }, (l % 4) * 2 + (i & 1));
    let b8: fn(usize, usize) -> (usize, usize) = |l, i| ((l % 4) * 2 + i, l >> 2);
    // m16n8k32, 8 bits.
    let a32: fn(usize, usize) -> (usize, usize) = |l, i| {
        let row = if i < 4 || (8..12).contains(&i) { l >> 2 } else { (l >> 2) + 8 };
        (row, (l % 4) * 4 + (i & 3) + if i < 8 { 0 } else { 16 })
    };
    let b32: fn(usize, usize) -> (usize, usize) =
        |l, i| ((l % 4) * 4 + (i & 3) + if i < 4 { 0 } else { 16 }, l >> 2);
    // m16n8k8 and m16n8k4, tf32.
    let a_tf32: fn(usize, usize) -> (usize, usize) =
        |l, i| (if i == 0 || i == 2 { l >> 2 } else { (l >> 2) + 8 }, l % 4 + if i < 2 { 0 } else { 4 });
    let b_tf32: fn(usize, usize) -> (usize, usize) = |l, i| (l % 4 + 4 * i, l >> 2);
    vec![
        Product {
            name: "m16n8k16.row.col.f32.bf16.bf16.f32",
            k: 16,
            bits: 16,
            code: to_bf16,
            a: a16,
            b: b16,
        },
        Product { name: "m16n8k16.row.col.f32.f16.f16.f32", k: 16, bits: 16, code: to_f16, a: a16, b: b16 },
        Product { name: "m16n8k8.row.col.f32.bf16.bf16.f32", k: 8, bits: 16, code: to_bf16, a: a8, b: b8 },
        Product { name: "m16n8k8.row.col.f32.f16.f16.f32", k: 8, bits: 16, code: to_f16, a: a8, b: b8 },
        Product { name: "m16n8k32.row.col.f32.e4m3.e4m3.f32", k: 32, bits: 8, code: e4m3, a: a32, b: b32 },
        Product { name: "m16n8k32.row.col.f32.e5m2.e5m2.f32", k: 32, bits: 8, code: e5m2, a: a32, b: b32 },
        Product {
            name: "m16n8k8.row.col.f32.tf32.tf32.f32",
            k: 8,
            bits: 32,
            code: f32::to_bits,
            a: a_tf32,
            b: b_tf32,
        },
        Product {
            name: "m16n8k4.row.col.f32.tf32.tf32.f32",
            k: 4,
            bits: 32,
            code: f32::to_bits,
            a: a_tf32,
            b: b_tf32,
        },
    ]
}

#[test]
fn mma_multiplies_fragments_of_every_shape() {
    let mut random = Random::new(5);
    for product in products() {
        let mut whole =
            |count: usize| -> Vec<f32> { (0..count).map(|_| random.within(0, 8) as f32 - 4.0).collect() };
        let (k, per_register) = (product.k, (32 / product.bits) as usize);
        let (a, b, c) = (whole(16 * k), whole(k * 8), whole(16 * 8));
        let registers = [16 * k / 32 / per_register, 8 * k / 32 / per_register, 4];
        let mut words = Vec::new();
        for lane in 0..32 {
            let mut pack = |count: usize, element: &dyn Fn(usize) -> u32| {
                for register in 0..count {
                    let part = |e: usize| element(register * per_register + e) << (product.bits as usize * e);
                    words.push((0..per_register).fold(0, |made, e| made | part(e)));
                }
            };
            pack(registers[0], &|i| {
                let (row, column) = (product.a)(lane, i);
                (product.code)(a[row * k + column])
            });
            pack(registers[1], &|i| {
                let (row, column) = (product.b)(lane, i);
                (product.code)(b[row * 8 + column])
            });
            for i in 0..4 {
                words.push(c[place_of_c(lane, i)].to_bits());
            }
        }
        let found =
            Run { seed: 2, ..ONE_WARP }.probe::<u32, f32>(&body(product.name, registers), &words, 128);
        for lane in 0..32 {
            for i in 0..4 {
                let (row, column) = (place_of_c(lane, i) / 8, place_of_c(lane, i) % 8);
                let sum: f32 = (0..k).map(|inner| a[row * k + inner] * b[inner * 8 + column]).sum();
                assert_eq!(found[4 * lane + i], sum + c[row * 8 + column], "{}, lane {lane}", product.name);
            }
        }
    }
}

/// Row: `groupID` for ci where i < 2, else `groupID` + 8; column: (`threadID_in_group` * 2) + (i & 1).
fn place_of_c(lane: usize, i: usize) -> usize {
    (if i < 2 { lane >> 2 } else { (lane >> 2) + 8 }) * 8 + (lane % 4) * 2 + (i & 1)
}

/// Loads a lane's registers of a, b and c, multiplies, and stores the four of d.
fn body(name: &str, registers: [usize; 3]) -> String {
    let count: usize = registers.iter().sum();
    let mut text = format!("mul.wide.u32 %d2, %r1, {};\nadd.s64 %d0, %d0, %d2;\n", 4 * count);
    let mut lists: [Vec<String>; 3] = Default::default();
    let mut offset = 0;
    for (kind, list) in registers.iter().zip(&mut lists) {
        for _ in 0..*kind {
            let register = if offset / 4 >= count - 4 {
                format!("%f{}", offset / 4)
            } else {
                format!("%r{}", 20 + offset / 4)
            };
            writeln!(text, "ld.global.b32 {register}, [%d0+{offset}];").unwrap();
            list.push(register);
            offset += 4;
        }
    }
    let [a, b, c] = lists.map(|list| list.join(", "));
    text + &format!(
        "mma.sync.aligned.{name} {{%f30, %f31, %f32, %f33}}, {{{a}}}, {{{b}}}, {{{c}}};\nmul.wide.u32 %d2, %r1, 16;\n\
         add.s64 %d1, %d1, %d2;\nst.global.v4.f32 [%d1], {{%f30, %f31, %f32, %f33}};"
    )
}

#[test]
fn a_row_of_a_matrix_is_16_aligned_bytes_of_shared_memory() {
    for (offset, message) in [("8", "no multiple of 16"), ("512", "past the 512 bytes there")] {
        let body = format!(
            "mov.u32 %r2, dynamic;\nadd.u32 %r2, %r2, {offset};\nldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%r3}}, [%r2];"
        );
        let found = Run { shared_bytes: 512, ..ONE_WARP }.fault(&body);
        assert!(found.contains(message), "{found}");
    }
}
