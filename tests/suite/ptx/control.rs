//! Branches, loops, barriers and the order of warps.

use std::fmt::Write as _;

use super::{ONE_WARP, Run, SEEDS};

fn store(body: &str) -> String {
    format!("{body}\nmul.wide.u32 %d2, %r1, 4;\nadd.s64 %d1, %d1, %d2;\nst.global.u32 [%d1], %r50;")
}

#[test]
fn lanes_diverge_in_loops_and_meet_again() {
    // Collatz: each lane counts its own steps, and all of them vote after the loop.
    let body = store(
        "add.u32 %r2, %r1, 1;\nmov.u32 %r50, 0;\nnext:\nsetp.le.u32 %p1, %r2, 1;\n@%p1 bra done;\nadd.u32 %r50, %r50, 1;\n\
         and.b32 %r3, %r2, 1;\nsetp.eq.u32 %p2, %r3, 0;\n@%p2 bra even;\nmad.lo.u32 %r2, %r2, 3, 1;\nbra.uni next;\neven:\n\
         shr.u32 %r2, %r2, 1;\nbra next;\ndone:\nsetp.gt.u32 %p3, %r50, 100;\nvote.sync.ballot.b32 %r4, %p3, -1;\n\
         popc.b32 %r4, %r4;\nmad.lo.u32 %r50, %r4, 1000, %r50;",
    );
    let steps = |start: u32| {
        std::iter::successors(Some(start), |&x| (x > 1).then(|| if x % 2 == 0 { x / 2 } else { 3 * x + 1 }))
            .count() as u32
            - 1
    };
    let long = (1..=32).filter(|&start| steps(start) > 100).count() as u32;
    for seed in SEEDS {
        let found: Vec<u32> = Run { seed, ..ONE_WARP }.probe(&body, &[0_u64], 32);
        assert!(found.into_iter().eq((1..=32).map(|start| long * 1000 + steps(start))));
    }
}

#[test]
fn an_indexed_branch_takes_each_lane_to_its_target() {
    let body = store(
        "rem.u32 %r2, %r1, 3;\nlist: .branchtargets zero, one, two;\nbrx.idx %r2, list;\nzero:\nmov.u32 %r50, 10;\nbra end;\n\
         one:\nmov.u32 %r50, 11;\nbra end;\ntwo:\nmov.u32 %r50, 12;\nend:",
    );
    for seed in SEEDS {
        let found: Vec<u32> = Run { seed, ..ONE_WARP }.probe(&body, &[0_u64], 32);
        assert!(found.into_iter().eq((0..32).map(|lane| 10 + lane % 3)));
    }
    let beyond = ONE_WARP.fault("list: .branchtargets end;\nbrx.idx %r1, list;\nend:");
    assert!(beyond.contains("index 1 of 1 targets"), "{beyond}");
}

#[test]
fn special_registers_say_where_a_thread_is() {
    let names = ["tid.x", "ntid.x", "ctaid.x", "nctaid.x", "laneid", "warpid", "lanemask_lt", "nctaid.y"];
    let mut body = "mov.u32 %r2, %ctaid.x;\nmad.lo.u32 %r3, %r2, 40, %r1;\nmul.wide.u32 %d2, %r3, 32;\nadd.s64 %d1, %d1, %d2;\n".to_owned();
    for (at, name) in names.iter().enumerate() {
        writeln!(body, "mov.u32 %r5, %{name};\nst.global.u32 [%d1+{}], %r5;", 4 * at).unwrap();
    }
    let found: Vec<[u32; 8]> =
        Run { blocks: 3, threads: 40, seed: 1, ..ONE_WARP }.probe(&body, &[0_u64], 120);
    for (at, found) in (0..120).zip(found) {
        let (block, thread) = (at / 40, at % 40);
        assert_eq!(found, [thread, 40, block, 3, thread % 32, thread / 32, (1 << (thread % 32)) - 1, 1]);
    }
}

/// Each thread writes a number and reads that of a thread of another warp. Without the barrier some order of warps shows
/// NaN.
fn exchange(barrier: &str, seed: u64) -> bool {
    let body = store(&format!(
        "mov.u32 %r2, dynamic;\nmad.lo.u32 %r3, %r1, 4, %r2;\nst.shared.u32 [%r3], %r1;\n{barrier}\nxor.b32 %r4, %r1, 96;\n\
         mad.lo.u32 %r3, %r4, 4, %r2;\nld.shared.u32 %r50, [%r3];"
    ));
    let run = Run { threads: 128, shared_bytes: 512, seed, ..ONE_WARP };
    run.probe::<u64, u32>(&body, &[0], 128).into_iter().eq((0..128).map(|thread| thread ^ 0x60))
}

#[test]
fn a_missing_barrier_shows() {
    for seed in SEEDS {
        assert!(exchange("bar.sync 0;", seed));
        assert!(exchange("barrier.cta.sync.aligned 1, 128;", seed));
        assert!(!exchange("", seed));
    }
}

#[test]
fn lanes_that_rely_on_lockstep_show_under_some_seed() {
    let body = |barrier: &str| {
        store(&format!(
            "mov.u32 %r2, dynamic;\nmad.lo.u32 %r3, %r1, 4, %r2;\nst.shared.u32 [%r3], %r1;\n{barrier}\nxor.b32 %r4, %r1, 1;\n\
             mad.lo.u32 %r3, %r4, 4, %r2;\nld.shared.u32 %r50, [%r3];"
        ))
    };
    let is_right = |barrier: &str, seed: u64| {
        let run = Run { shared_bytes: 128, seed, ..ONE_WARP };
        run.probe::<u64, u32>(&body(barrier), &[0], 32).into_iter().eq((0..32).map(|lane| lane ^ 1))
    };
    assert!((0..100).all(|seed| is_right("bar.warp.sync -1;", seed)));
    assert!((0..100).any(|seed| !is_right("", seed)));
}

#[test]
fn a_barrier_that_some_threads_do_not_reach_is_a_fault() {
    let run = Run { threads: 64, ..ONE_WARP };
    for (body, message) in [
        ("setp.eq.u32 %p1, %r1, 5;\n@%p1 ret;\nbar.sync 0;", "waits for lane 5, which has exited"),
        (
            "setp.eq.u32 %p1, %r1, 5;\n@%p1 bra other;\nbar.sync 0;\nret;\nother:\nbar.sync 0;",
            "which waits at line",
        ),
        ("setp.lt.u32 %p1, %r1, 32;\n@%p1 ret;\nbar.sync 0;", "waits for warp 0, which has exited"),
        (
            "setp.lt.u32 %p1, %r1, 32;\n@%p1 bra other;\nbar.sync 0;\nret;\nother:\nbar.sync 1;",
            "which waits at line",
        ),
        ("bar.sync 0, 32;", "another number of threads"),
        ("trap;", "trap"),
        ("next:\nbra next;", "jumps and no end"),
        (
            "mov.u32 %r2, %r1;\nnext:\nadd.u32 %r2, %r2, 1;\nand.b32 %r3, %r2, 1;\nsetp.eq.u32 %p1, %r3, 0;\n@%p1 bra next;\n\
             bra.uni next;",
            "jumps and no end",
        ),
    ] {
        for seed in [0, 1] {
            let found = Run { seed, ..run }.fault(body);
            assert!(found.contains(message), "{body}\n{found}");
        }
    }
}

#[test]
fn names_in_braces_hide_those_outside() {
    let body = store(
        "mov.u32 %r50, 1;\n{\n.reg .b32 %r50;\nmov.u32 %r50, 7;\nadd.u32 %r2, %r50, 0;\n}\nadd.u32 %r50, %r50, %r2;",
    );
    assert_eq!(ONE_WARP.probe::<u64, u32>(&body, &[0], 32), [8; 32]);
}

#[test]
fn values_survive_where_many_are_needed_at_once() {
    // Sixty values that are all written before any is read, in a loop that runs five times.
    let mut body = "mov.u32 %r50, 0;\nmov.u32 %r2, 0;\nnext:\n".to_owned();
    let at = |i: u32| if i < 20 { 3 + i } else { 11 + i };
    for i in 0..40 {
        writeln!(body, "mad.lo.u32 %r{}, %r1, {i}, %r2;", if at(i) == 50 { 79 } else { at(i) }).unwrap();
    }
    for i in 0..40 {
        writeln!(body, "mad.lo.u32 %r50, %r{}, {}, %r50;", if at(i) == 50 { 79 } else { at(i) }, i + 1)
            .unwrap();
    }
    body += "add.u32 %r2, %r2, 1;\nsetp.lt.u32 %p1, %r2, 5;\n@%p1 bra next;";
    let expected = (0..32_u32)
        .map(|lane| (0..5).flat_map(|round| (0..40).map(move |i| (lane * i + round) * (i + 1))).sum::<u32>());
    assert!(ONE_WARP.probe::<u64, u32>(&store(&body), &[0], 32).into_iter().eq(expected));
}
