//! `atom` and `red`.

use super::{ONE_WARP, Run, SEEDS, load, probe};
use codit::device::simt::runtime::Memory;

/// Every thread of 20 blocks updates one number by its index from 1 on; returns what the number is then.
fn total(operation: &str, kind: &str, register: &str, start: u64, seed: u64) -> u64 {
    let widen = match kind {
        "f32" => "cvt.rn.f32.u32 %f1, %r4;",
        "u64" | "s64" | "b64" => "cvt.u64.u32 %d2, %r4;",
        _ => "",
    };
    let body = format!(
        "mov.u32 %r2, %ctaid.x;\nmov.u32 %r3, %ntid.x;\nmad.lo.u32 %r4, %r2, %r3, %r1;\nadd.u32 %r4, %r4, 1;\n{widen}\n\
         red.global.{operation}.{kind} [%d1], {register};"
    );
    let code = load(&probe(&body)).unwrap();
    let mut out = Memory::of(&[start]).unwrap();
    Run { blocks: 20, threads: 64, seed, ..ONE_WARP }.on(&code, &[0_u64], &mut out).unwrap();
    out.as_slice::<u64>()[0]
}

#[test]
fn no_update_is_lost_between_threads_and_blocks() {
    let sum = 1280 * 1281 / 2;
    for seed in SEEDS {
        assert_eq!(total("add", "u32", "%r4", 0, seed), sum);
        assert_eq!(total("add", "u64", "%d2", 1 << 40, seed), sum + (1 << 40));
        assert_eq!(f32::from_bits(total("add", "f32", "%f1", 0, seed) as u32), sum as f32);
        assert_eq!(total("max", "u32", "%r4", 0, seed), 1280);
        assert_eq!(total("min", "u32", "%r4", 5000, seed), 1);
        assert_eq!(total("min", "s32", "%r4", 0xffff_fff0, seed), 0xffff_fff0);
        assert_eq!(total("max", "u64", "%d2", 7, seed), 1280);
        assert_eq!(total("or", "b32", "%r4", 0, seed), 2047);
        assert_eq!(total("and", "b32", "%r4", 0xffff_ffff, seed), 0);
        assert_eq!(total("xor", "b32", "%r4", 0, seed), (1..=1280).fold(0, |made, i| made ^ i));
        // Counts to 9 and starts again: 1280 = 128 * 10. The operand is the limit, the same for all.
        assert_eq!(total("inc", "u32", "9", 0, seed), 0);
        assert_eq!(total("dec", "u32", "9", 0, seed), 0);
    }
}

#[test]
fn an_atomic_returns_what_was_there() {
    // Each thread takes a ticket; together they have all of them.
    let body = "mov.u32 %r2, dynamic;\nsetp.eq.u32 %p1, %r1, 0;\n@%p1 st.shared.u32 [%r2], 0;\nbar.sync 0;\n\
                atom.shared.add.u32 %r3, [%r2], 1;\nmul.wide.u32 %d2, %r1, 4;\nadd.s64 %d1, %d1, %d2;\n\
                st.global.u32 [%d1], %r3;";
    for seed in SEEDS {
        let run = Run { threads: 96, shared_bytes: 4, seed, ..ONE_WARP };
        let mut tickets: Vec<u32> = run.probe(body, &[0_u64], 96);
        tickets.sort_unstable();
        assert!(tickets.into_iter().eq(0..96));
    }
    let swaps = "mov.u32 %r2, dynamic;\nst.shared.u32 [%r2], 5;\natom.shared.cas.b32 %r3, [%r2], 5, 8;\n\
                 atom.shared.cas.b32 %r4, [%r2], 5, 9;\natom.shared.exch.b32 %r5, [%r2], 11;\nld.shared.u32 %r6, [%r2];\n\
                 st.global.v4.u32 [%d1], {%r3, %r4, %r5, %r6};";
    let run = Run { threads: 1, shared_bytes: 4, ..ONE_WARP };
    assert_eq!(run.probe::<u64, u32>(swaps, &[0], 4), [5, 8, 8, 11]);
}
