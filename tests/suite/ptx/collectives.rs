//! Shuffles, votes, matches and reductions, and what a warp's lanes may not do.

use super::{ONE_WARP, Run, SEEDS};

/// A body that ends with the store of %r50 of each thread.
fn each_thread(body: &str) -> String {
    format!("{body}\nmul.wide.u32 %d2, %r1, 4;\nadd.s64 %d1, %d1, %d2;\nst.global.u32 [%d1], %r50;")
}

fn found(body: &str, seed: u64) -> Vec<u32> {
    Run { seed, ..ONE_WARP }.probe(&each_thread(body), &[0_u64], 32)
}

/// The source lane and the predicate, by the manual's pseudo-code.
fn source(mode: &str, lane: i32, b: i32, c: i32) -> (i32, bool) {
    let (bval, cval, segments) = (b & 31, c & 31, c >> 8 & 31);
    let max_lane = (lane & segments) | (cval & !segments);
    let min_lane = lane & segments;
    let (j, is_inside) = match mode {
        "up" => (lane - bval, lane - bval >= max_lane),
        "down" => (lane + bval, lane + bval <= max_lane),
        "bfly" => (lane ^ bval, lane ^ bval <= max_lane),
        _ => (min_lane | (bval & !segments), min_lane | (bval & !segments) <= max_lane),
    };
    if is_inside { (j, true) } else { (lane, false) }
}

#[test]
fn shuffles_follow_the_manual() {
    for mode in ["up", "down", "bfly", "idx"] {
        for width in [32, 16, 8, 4, 2, 1] {
            // CUDA's operand: the segments in the upper bits, and the clamp.
            let c = (32 - width) << 8 | if mode == "up" { 0 } else { 31 };
            for b in [0, 1, 2, 3, 7, 15, 16, 31, 33] {
                let body = format!(
                    "mul.lo.u32 %r3, %r1, 3;\nadd.u32 %r3, %r3, 5;\n\
                     shfl.sync.{mode}.b32 %r4|%p1, %r3, {b}, {c}, -1;\nselp.u32 %r5, 1000, 0, %p1;\nadd.u32 %r50, %r4, %r5;"
                );
                let seed = SEEDS[b as usize % SEEDS.len()];
                let expected = (0..32).map(|lane| {
                    let (from, is_inside) = source(mode, lane, b, c);
                    (3 * from + 5 + if is_inside { 1000 } else { 0 }) as u32
                });
                assert!(found(&body, seed).into_iter().eq(expected), "{mode} by {b} of {width}");
            }
        }
    }
}

#[test]
fn groups_of_lanes_act_apart_and_meet_though_they_diverged() {
    // Odd lanes come last and by another path; both halves use their own mask at the same instruction.
    let body = "and.b32 %r2, %r1, 1;\nsetp.eq.u32 %p1, %r2, 1;\nmov.u32 %r3, 0x55555555;\n@%p1 mov.u32 %r3, 0xaaaaaaaa;\n\
                mov.u32 %r4, %r1;\n@!%p1 bra even;\nmul.lo.u32 %r4, %r4, 10;\neven:\nshr.u32 %r5, %r1, 1;\n\
                setp.lt.u32 %p2, %r1, 5;\nvote.sync.ballot.b32 %r6, %p2, %r3;\nshfl.sync.bfly.b32 %r7, %r4, 2, 31, %r3;\n\
                mad.lo.u32 %r50, %r6, 1000, %r7;";
    for seed in SEEDS {
        let expected = (0..32_u32).map(|lane| {
            let ballot = if lane % 2 == 1 { 0b01010 } else { 0b10101 };
            ballot * 1000 + (lane ^ 2) * if lane % 2 == 1 { 10 } else { 1 }
        });
        assert!(found(body, seed).into_iter().eq(expected));
    }
}

#[test]
fn votes_matches_and_reductions() {
    for agree in [0_u32, u32::MAX, 1, 0x8000_0001] {
        let body = |vote: &str| {
            format!(
                "mov.u32 %r2, {agree};\nshr.u32 %r2, %r2, %r1;\nand.b32 %r2, %r2, 1;\nsetp.eq.u32 %p1, %r2, 1;\n{vote}"
            )
        };
        for (name, expected) in
            [("all", agree == u32::MAX), ("any", agree != 0), ("uni", agree == 0 || agree == u32::MAX)]
        {
            let vote = body(&format!("vote.sync.{name}.pred %p2, %p1, -1;\nselp.u32 %r50, 1, 0, %p2;"));
            assert_eq!(found(&vote, 1), [u32::from(expected); 32], "{name} of {agree:x}");
        }
        assert_eq!(found(&body("vote.sync.ballot.b32 %r50, !%p1, -1;"), 2), [!agree; 32]);
    }
    let thirds = "rem.u32 %r2, %r1, 3;\n";
    let same: Vec<u32> = (0..32)
        .map(|lane| (0..32).filter(|other| other % 3 == lane % 3).fold(0, |made, other| made | 1 << other))
        .collect();
    assert_eq!(found(&format!("{thirds}match.any.sync.b32 %r50, %r2, -1;"), 3), same);
    assert_eq!(found(&format!("{thirds}cvt.u64.u32 %d9, %r2;\nmatch.any.sync.b64 %r50, %d9, -1;"), 3), same);
    assert_eq!(found(&format!("{thirds}match.all.sync.b32 %r50|%p1, %r2, -1;"), 3), [0; 32]);
    assert_eq!(
        found("mov.u32 %r2, 4;\nmatch.all.sync.b32 %r3|%p1, %r2, -1;\nselp.u32 %r50, %r3, 7, %p1;", 0),
        [u32::MAX; 32]
    );
    let reduce = |operation: &str| {
        found(&format!("sub.u32 %r2, %r1, 3;\nredux.sync.{operation} %r50, %r2, -1;"), 1)[9]
    };
    assert_eq!(reduce("add.s32"), 400);
    assert_eq!(
        [reduce("min.s32"), reduce("min.u32"), reduce("max.s32"), reduce("max.u32")],
        [-3_i32 as u32, 0, 28, u32::MAX]
    );
    assert_eq!(
        [reduce("and.b32"), reduce("or.b32"), reduce("xor.b32")],
        [0, u32::MAX, (0..32_u32).fold(0, |made, lane| made ^ lane.wrapping_sub(3))]
    );
    assert_eq!(
        found("setp.lt.u32 %p1, %r1, 4;\nmov.u32 %r50, 1;\n@%p1 activemask.b32 %r50;", 0)[..5],
        [15, 15, 15, 15, 1]
    );
    let elected = found("elect.sync %r2|%p1, -1;\nselp.u32 %r50, %r2, 99, %p1;", 5);
    let chosen: Vec<usize> = (0..32).filter(|&lane| elected[lane] != 99).collect();
    assert!(chosen.len() == 1 && elected[chosen[0]] as usize == chosen[0]);
}

#[test]
fn a_collective_without_all_of_its_lanes_is_a_fault() {
    for (body, message) in [
        (
            "setp.eq.u32 %p1, %r1, 5;\n@%p1 ret;\nvote.sync.any.pred %p2, %p1, -1;",
            "waits for lane 5, which has exited",
        ),
        (
            "setp.eq.u32 %p1, %r1, 5;\n@%p1 bar.sync 0;\nshfl.sync.idx.b32 %r2, %r1, 0, 31, -1;",
            "which waits at line",
        ),
        (
            "setp.eq.u32 %p1, %r1, 5;\n@%p1 bra other;\nbar.warp.sync -1;\nret;\nother:\nbar.warp.sync -1;",
            "which waits at line",
        ),
        ("bar.warp.sync 0xfffffffe;", "of which this lane is none"),
        (
            "setp.eq.u32 %p1, %r1, 5;\nmov.u32 %r2, -1;\n@%p1 mov.u32 %r2, 0x60;\nbar.warp.sync %r2;",
            "but of 00000060 for lane 5",
        ),
        ("shfl.sync.idx.b32 %r2, %r1, 9, 31, 0xff;", "of which this lane is none"),
        (
            "setp.lt.u32 %p1, %r1, 8;\n@%p1 shfl.sync.idx.b32 %r2, %r1, 9, 31, 0xff;",
            "reads from lane 9, which is not in the mask",
        ),
        // .aligned asks for all lanes of the warp.
        (
            "mov.u32 %r2, dynamic;\nsetp.eq.u32 %p1, %r1, 5;\n@%p1 ret;\nldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r3}, [%r2];",
            "which has exited",
        ),
    ] {
        for seed in SEEDS {
            let found = Run { shared_bytes: 16, seed, ..ONE_WARP }.fault(body);
            assert!(
                found.starts_with("probe, block (0, 0, 0), thread (") && found.contains("probe.ptx:"),
                "{found}"
            );
            assert!(found.contains(message), "{body}\n{found}");
        }
    }
    let short = Run { threads: 16, ..ONE_WARP }.fault("bar.warp.sync -1;");
    assert!(short.contains("names lane 16, which is not in the warp"), "{short}");
}
