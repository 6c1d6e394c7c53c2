//! `ld` and `st` in every state space, and what they refuse.

use super::{B16, B32, B64, ONE_WARP, Run, check, integers, results};

#[test]
fn loads_extend_by_zeros_or_the_sign() {
    let rows: Vec<[u64; 1]> = integers().into_iter().map(|x| [x]).collect();
    let load = |kind: &str| format!("ld.global.{kind} {{0}}, [%d0]");
    // The source is not used, since the loads read its memory.
    check(&load("u8"), B32, [B64], &rows, |[x]| x & 0xff);
    check(&load("s8"), B32, [B64], &rows, |[x]| u64::from(i32::from(x as i8) as u32));
    check(&load("s8"), B16, [B64], &rows, |[x]| u64::from(i16::from(x as i8) as u16));
    check(&load("u16"), B64, [B64], &rows, |[x]| x & 0xffff);
    check(&load("s16"), B64, [B64], &rows, |[x]| i64::from(x as i16) as u64);
    check(&load("s32"), B64, [B64], &rows, |[x]| i64::from(x as i32) as u64);
    check(&load("u32"), B32, [B64], &rows, |[x]| x & 0xffff_ffff);
    check("ld.global.nc.L1::no_allocate.L2::128B.b64 {0}, [%d0]", B64, [B64], &rows, |[x]| x);
    check("ld.relaxed.gpu.global.b64 {0}, [%d0]", B64, [B64], &rows, |[x]| x);
    check("ld.b64 {0}, [%d0]", B64, [B64], &rows, |[x]| x);
}

#[test]
fn vectors_of_every_kind_are_moved_whole() {
    let input: Vec<u8> = (0..=255).chain(0..=255).collect();
    for (kind, names, bytes) in [
        ("v2.u8", "%h1, %h2", 2),
        ("v4.u8", "%h1, %h2, %h3, %h4", 4),
        ("v2.b16", "%h1, %h2", 4),
        ("v4.u16", "%h1, %h2, %h3, %h4", 8),
        ("v2.f32", "%f1, %f2", 8),
        ("v4.u32", "%r11, %r12, %r13, %r14", 16),
        ("v2.b64", "%d11, %d12", 16),
        ("v2.f64", "%g1, %g2", 16),
    ] {
        for space in ["global", "shared", "local"] {
            // Through the space and out again.
            let own = match space {
                "shared" => "mov.u32 %r20, dynamic;\nmad.lo.u32 %r20, %r1, 16, %r20;\n",
                "local" => ".local .align 16 .b8 mine[16];\nmov.u64 %d20, mine;\n",
                _ => "",
            };
            let place = match space {
                "shared" => "%r20",
                "local" => "%d20",
                _ => "%d1",
            };
            let body = format!(
                "{own}mul.wide.u32 %d2, %r1, {bytes};\nadd.s64 %d0, %d0, %d2;\nadd.s64 %d1, %d1, %d2;\n\
                 ld.global.{kind} {{{names}}}, [%d0];\nst.{space}.{kind} [{place}], {{{names}}};\n\
                 ld.{space}.{kind} {{{names}}}, [{place}];\nst.global.{kind} [%d1], {{{names}}};"
            );
            let run = Run { shared_bytes: 512, ..ONE_WARP };
            assert_eq!(
                run.probe::<u8, u8>(&body, &input, 32 * bytes),
                input[..32 * bytes],
                "{kind}, {space}"
            );
        }
    }
}

#[test]
fn shared_and_local_memory_begin_as_nan_and_constants_as_written() {
    let body = "mov.u32 %r2, dynamic;\nld.shared.u32 %r3, [%r2+12];\n.local .align 4 .b8 mine[8];\n\
                ld.local.u32 %r4, [mine+4];\nst.global.v2.u32 [%d1], {%r3, %r4};";
    let run = Run { threads: 1, shared_bytes: 16, ..ONE_WARP };
    assert_eq!(run.probe::<u64, u32>(body, &[0], 2), [u32::MAX; 2]);

    let text = super::probe("mov.u64 %d2, table;\nld.const.u32 %r3, [%d2+4];\nld.global.u16 %h1, [more+2];\ncvt.u32.u16 %r4, %h1;\nst.global.v2.u32 [%d1], {%r3, %r4};")
        .replace(".visible", ".const .align 4 .u32 table[3] = {5, 0x80000001, -1};\n.global .align 4 .b8 more[4] = {1, 2, 3, 4};\n.visible");
    let mut out = codit::device::simt::runtime::Memory::new(8).unwrap();
    Run { threads: 1, ..ONE_WARP }.on(&super::load(&text).unwrap(), &[0_u64], &mut out).unwrap();
    assert_eq!(out.as_slice::<u32>(), [0x8000_0001, 0x0403]);
}

#[test]
fn static_shared_memory_lies_before_the_dynamic() {
    let body = ".shared .align 4 .b8 fixed[20];\nmov.u32 %r2, fixed;\nmov.u32 %r3, dynamic;\nst.shared.u32 [fixed+16], 9;\n\
                ld.shared.u32 %r4, [%r2+16];\nst.global.v4.u32 [%d1], {%r2, %r3, %r4, %r4};";
    let run = Run { threads: 1, shared_bytes: 4, ..ONE_WARP };
    assert_eq!(run.probe::<u64, u32>(body, &[0], 4), [0, 128, 9, 9]);
}

#[test]
fn an_access_outside_of_its_space_or_misaligned_is_a_fault_that_names_thread_and_line() {
    let run = Run { blocks: 2, threads: 64, shared_bytes: 64, ..ONE_WARP };
    for (instruction, message) in [
        ("ld.global.u32 %r3, [%d0+512]", "global address 0x"),
        ("ld.global.u32 %r3, [%d0+2]", "which is no multiple of 4"),
        ("ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%d0+8]", "which is no multiple of 16"),
        ("st.global.u32 [%d1+1024], %r3", "in no allocation"),
        ("st.global.u8 [%d1+-1], %h1", "in no allocation"),
        ("ld.global.u32 %r3, [0]", "global address 0x0, which is in no allocation"),
        ("ld.shared.u32 %r3, [dynamic+64]", "shared address 0x40, past the 64 bytes there"),
        ("ld.shared.u32 %r3, [dynamic+62]", "shared address 0x3e, which is no multiple of 4"),
        ("st.shared.v2.u32 [dynamic+60], {%r3, %r3}", "which is no multiple of 8"),
        ("st.shared.u64 [dynamic+-8], %d3", "past the 64 bytes there"),
        ("ld.local.u32 %r3, [8]", "local address 0x8, past the 0 bytes there"),
        ("ld.param.u32 %r3, [in+20]", "param address 0x14, past the 20 bytes there"),
        ("ld.u32 %r3, [%d9]", "past the 64 bytes there"),
        ("atom.shared.add.u32 %r3, [dynamic+64], 1", "past the 64 bytes there"),
        ("red.global.add.u32 [%d1+1024], 1", "in no allocation"),
    ] {
        let body = format!(
            "mov.u32 %r2, %ctaid.x;\nmad.lo.u32 %r2, %r2, 64, %r1;\nsetp.eq.u32 %p1, %r2, 69;\nmov.u64 %d9, 0x4000000000000400;\n\
             @%p1 {instruction};"
        );
        let found = run.fault(&body);
        assert!(found.starts_with("probe, block (1, 0, 0), thread (5, 0, 0), probe.ptx:"), "{found}");
        assert!(found.contains(message), "{instruction}: {found}");
        let line = super::probe(&body).lines().position(|line| line.contains(instruction)).unwrap() + 1;
        assert!(found.contains(&format!("probe.ptx:{line}: ")), "{line}: {found}");
    }
}

#[test]
fn parameters_lie_in_their_order_at_their_alignment() {
    let text = format!(
        "{}.visible .entry probe(.param .u64 in, .param .align 8 .b8 both[12])\n{{\n{}ld.param.u64 %d1, [both];\n\
         mov.b64 %d3, both;\nld.param.u32 %r0, [%d3+8];\nst.global.u32 [%d1], %r0;\nret;\n}}\n",
        super::HEAD,
        super::REGISTERS
    );
    let mut out = codit::device::simt::runtime::Memory::new(4).unwrap();
    Run { threads: 1, number: 7, ..ONE_WARP }.on(&super::load(&text).unwrap(), &[0_u64], &mut out).unwrap();
    assert_eq!(out.as_slice::<u32>(), [7]);
}

#[test]
fn hints_change_nothing() {
    let text = "createpolicy.fractional.L2::evict_last.b64 %d9, 0f3F800000;\nprefetch.global.L2 [%d0];\nfence.acq_rel.gpu;\n\
                membar.gl;\ngriddepcontrol.wait;\ngriddepcontrol.launch_dependents;\nnanosleep.u32 20;\n\
                ld.global.L2::cache_hint.b64 {0}, [%d0], %d9";
    assert_eq!(results(text, B64, [B64], &[[3], [4]]), [3, 4]);
}
