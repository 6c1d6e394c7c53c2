//! `cp.async`.

use std::fmt::Write as _;

use super::{ONE_WARP, Run};

const NAN: u32 = u32::MAX;

/// Three groups of one copy each; what a thread sees of them after waits for all but 3, 2, 1 and 0 of the groups.
fn seen(seed: u64) -> [[u32; 3]; 4] {
    let mut body = "mov.u32 %r2, dynamic;\nmov.u32 %r3, 0;\n\
                    st.shared.v4.u32 [%r2], {%r3, %r3, %r3, %r3};\nst.shared.v4.u32 [%r2+16], {%r3, %r3, %r3, %r3};\n\
                    st.shared.v4.u32 [%r2+32], {%r3, %r3, %r3, %r3};\n"
        .to_owned();
    for group in 0..3 {
        let at = 16 * group;
        writeln!(body, "cp.async.cg.shared.global [%r2+{at}], [%d0+{at}], 16;\ncp.async.commit_group;")
            .unwrap();
    }
    for pending in (0..4).rev() {
        writeln!(body, "cp.async.wait_group {pending};").unwrap();
        for group in 0..3 {
            let at = 12 * (3 - pending) + 4 * group;
            writeln!(body, "ld.shared.u32 %r4, [%r2+{}];\nst.global.u32 [%d1+{at}], %r4;", 16 * group)
                .unwrap();
        }
    }
    let run = Run { threads: 1, shared_bytes: 48, seed, ..ONE_WARP };
    let words: Vec<u32> = run.probe(&body, &(0..12).map(|i| 100 + i).collect::<Vec<u32>>(), 12);
    std::array::from_fn(|wait| std::array::from_fn(|group| words[3 * wait + group]))
}

#[test]
fn a_copy_lands_at_the_wait_for_its_group_and_its_place_holds_nan_until_then() {
    let [a, b, c] = [100, 104, 108];
    assert_eq!(seen(0), [[NAN; 3], [a, NAN, NAN], [a, b, NAN], [a, b, c]]);
    let mut early = 0;
    for seed in 1..30 {
        for (groups, seen) in seen(seed).into_iter().enumerate() {
            for (group, (found, whole)) in seen.into_iter().zip([a, b, c]).enumerate() {
                early += usize::from(group >= groups && found == whole);
                assert!(found == whole || (group >= groups && found == NAN));
            }
        }
    }
    assert!((30..150).contains(&early), "about half of 174 are early, not {early}");
}

#[test]
fn bytes_beyond_the_source_are_zeros() {
    for (instruction, expected) in [
        ("cp.async.cg.shared.global [%r2], [%d0], 16, 0", [0, 0, 0, 0]),
        ("cp.async.cg.shared.global [%r2], [%d0], 16, 6", [0x0302_0100, 0x0504, 0, 0]),
        ("cp.async.ca.shared.global.L2::128B [%r2], [%d0], 8", [0x0302_0100, 0x0706_0504, NAN, NAN]),
        ("cp.async.ca.shared.global [%r2], [%d0+4], 4, 4", [0x0706_0504, NAN, NAN, NAN]),
    ] {
        let body = format!(
            "mov.u32 %r2, dynamic;\n{instruction};\ncp.async.wait_all;\nld.shared.v4.u32 {{%r3, %r4, %r5, %r6}}, [%r2];\n\
             st.global.v4.u32 [%d1], {{%r3, %r4, %r5, %r6}};"
        );
        let run = Run { threads: 1, shared_bytes: 16, ..ONE_WARP };
        assert_eq!(run.probe::<u8, u32>(&body, &(0..16).collect::<Vec<u8>>(), 4), expected, "{instruction}");
    }
}

#[test]
fn a_copy_from_or_to_a_wrong_place_is_a_fault() {
    let run = Run { threads: 1, shared_bytes: 32, ..ONE_WARP };
    for (instruction, message) in [
        ("cp.async.cg.shared.global [%r2+8], [%d0], 16", "no multiple of 16"),
        ("cp.async.cg.shared.global [%r2], [%d0+8], 16", "no multiple of 16"),
        ("cp.async.cg.shared.global [%r2+32], [%d0], 16", "past the 32 bytes there"),
        ("cp.async.cg.shared.global [%r2], [%d0+512], 16", "in no allocation"),
        ("cp.async.cg.shared.global [%r2], [%d0+4096], 16", "in no allocation"),
        ("cp.async.cg.shared.global [%r2], [%d0], 16, 17", "of 16 bytes from 17"),
    ] {
        let found = run.fault(&format!("mov.u32 %r2, dynamic;\n{instruction};"));
        assert!(found.contains(message), "{instruction}: {found}");
    }
}
