//! Files that cannot be run are one error, which names the file and the line.

use std::fs;
use std::path::Path;

use codit::device::simt::code::Ptx;
use codit::device::simt::runtime::Memory;

use super::{HEAD, ONE_WARP, Run, load, probe};
use crate::random::Random;

#[test]
fn what_is_not_implemented_or_malformed_is_named_with_its_line() {
    for (line, message) in [
        (
            "frobnicate.u32 %r2, %r3;",
            "the instruction 'frobnicate.u32' is not implemented: kernels/simt/ptx/decoders.cpp",
        ),
        ("add.sideways.u32 %r2, %r3, %r4;", "'.sideways' of 'add.sideways.u32' is not implemented"),
        ("add.pred %p1, %p2, %p3;", "'add.pred' is not implemented for its types"),
        ("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f1}, %d1, %d2;", "'wgmma.mma_async"),
        ("add.u32 %r2, %r3;", "'add.u32' takes 3 operands, not 2"),
        ("add.u32 %r2, %d3, %r4;", "a register that cannot hold a .u32"),
        ("add.u64 %d2, %r3, %d4;", "a register that cannot hold a .u64"),
        ("add.f32 %f2, %f3, 1;", "a number of this kind cannot be of type .f32"),
        ("add.u32 5, %r3, %r4;", "a destination must be a register"),
        ("add.u32 %r2, %r3, %r999;", "'%r999' is not declared"),
        ("mov.u32 %r2, %smid;", "'%smid' is not declared, or is a special register that is not implemented"),
        ("@%r2 bra end;", "expected a predicate after '@'"),
        ("bra nowhere;", "there is no label 'nowhere'"),
        ("add.u32 %r2, %r3, %r4", "expected"),
        ("add.u32 %r2, %r3, 0xfg;", "'0xfg' is not a number"),
        ("ld.global.u32 %r2, [%h1];", "an address has 32 or 64 bits"),
        ("call (%r2), function;", "'call' of a function is not implemented"),
        (".reg .b3 %x;", "expected a type such as .b32, not '.b3'"),
        ("mov.u32 %r2, \"text\";", "expected an operand"),
    ] {
        let text = probe(line);
        let number = text.lines().position(|each| each == line).unwrap() + 1;
        let error = load(&text).unwrap_err();
        assert!(error.contains(message), "{line}: {error}");
        // What is missing at the end of a line shows at the next word.
        let is_named = [number, number + 1].iter().any(|line| error.contains(&format!("probe.ptx:{line}: ")));
        assert!(is_named, "{line}: {error}");
    }
    for (text, message) in [
        (String::new(), "a file of PTX begins with .version"),
        ("hello".to_owned(), "a file of PTX begins with .version, not 'hello'"),
        (format!("{HEAD}.func f() {{ ret; }}"), "functions that are called are not implemented"),
        (format!("{HEAD}/* no end"), "this comment has no end"),
        (probe("ret;").replace("ret;\n}", "ret;"), "the kernel probe has no end"),
        (format!("{0}{1}", probe("ret;"), probe("ret;").replace(HEAD, "")), "the kernel probe too"),
    ] {
        let error = load(&text).unwrap_err();
        assert!(error.contains(message) && error.contains("probe.ptx:"), "{error}");
    }
}

#[test]
fn a_folder_without_ptx_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = Ptx::load(folder.path()).unwrap_err();
    assert!(error.contains("there is no file of PTX"), "{error}");
    let missing = Ptx::load(Path::new("/no/such/folder")).unwrap_err();
    assert!(missing.contains("/no/such/folder: No such file"), "{missing}");
    fs::create_dir(folder.path().join("folder.ptx")).unwrap();
    let error = Ptx::load(folder.path()).unwrap_err();
    assert!(error.contains("folder.ptx"), "{error}");
}

#[cfg(feature = "cli")]
#[test]
fn the_program_says_which_variable_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("broken.ptx"), format!("{HEAD}.visible .entry f()\n{{\nfrobnicate;\n}}\n"))
        .unwrap();
    let broken = folder.path().to_str().unwrap();
    for (variables, message) in [
        (&[("CODIT_SIMT", "gpu")][..], "CODIT_SIMT is gpu; it must be host or ptx"),
        (&[("CODIT_SIMT", "ptx")], "CODIT_PTX must name a folder that kernels/ptx.sh made"),
        (&[("CODIT_SIMT", "ptx"), ("CODIT_PTX", "/no/such/folder")], "/no/such/folder: No such file"),
        (
            &[("CODIT_SIMT", "ptx"), ("CODIT_PTX", broken)],
            "broken.ptx:7: the instruction 'frobnicate' is not implemented",
        ),
    ] {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_codit"));
        program.args(["doctor", "--device", "simt"]).env_remove("CODIT_PTX").envs(variables.iter().copied());
        let output = program.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_launch_that_cannot_be_is_refused() {
    let code = load(&probe("ret;").replace("number)", "number)\n.maxntid 64, 1, 1")).unwrap();
    let run = |run: Run| run.on(&code, &[0_u64], &mut Memory::new(8).unwrap()).unwrap_err();
    assert!(
        run(Run { threads: 65, ..ONE_WARP }).contains("more threads a block than its KERNEL line allows")
    );
    assert!(run(Run { blocks: 0, ..ONE_WARP }).contains("a grid of this shape cannot be"));
    assert!(
        run(Run { shared_bytes: 1 << 20, ..ONE_WARP }).contains("more shared memory than any device has")
    );
    let other = load(&probe("ret;").replace(".entry probe", ".entry another")).unwrap();
    let error = ONE_WARP.on(&other, &[0_u64], &mut Memory::new(8).unwrap()).unwrap_err();
    assert!(error.contains("probe: no file of PTX has a kernel of this name"), "{error}");
    let more = load(&probe("ret;").replace(".param .u32 number", ".param .u64 number")).unwrap();
    let error = ONE_WARP.on(&more, &[0_u64], &mut Memory::new(8).unwrap()).unwrap_err();
    assert!(error.contains("its parameters have another size (20 bytes of parameters of 24"), "{error}");
}

/// Damaged text is an error or runs; it never ends the process.
#[test]
fn damaged_files_are_refused_or_run() {
    let text = probe(
        "mov.b64 {%r2, %r3}, %d0;\n@!%p1 bra end;\nld.global.v2.u32 {%r2, %r3}, [%d0+8];\nst.shared.f32 [%r2+-4], 0f3F800000;\n\
         setp.lt.and.u32 %p1|%p2, %r1, %r2, !%p3;\nshfl.sync.idx.b32 %r4|%p1, %r5, 0, 31, -1;\nlist: .branchtargets end, end;\n\
         brx.idx %r1, list;\nend:\nbar.sync 0;",
    );
    let mut random = Random::new(6);
    let pieces = [
        ";",
        "{",
        "}",
        "[",
        "]",
        ",",
        "%r1",
        "%p0",
        "0",
        "-",
        ".u32",
        "@",
        "bra",
        "\"",
        "/*",
        "0xffffffffffffffff",
        "<",
        ":",
        "|",
        "\0",
        "é",
    ];
    for _ in 0..400 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..random.within(1, 4) {
            let at = random.within(0, bytes.len() - 1);
            let end = random.within(at, (at + 12).min(bytes.len()));
            let piece = pieces[random.within(0, pieces.len() - 1)].as_bytes();
            bytes.splice(at..end, piece.iter().copied());
        }
        if random.once_in(4) {
            bytes.truncate(random.within(0, bytes.len()));
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("probe.ptx"), bytes).unwrap();
        if let Err(error) = Ptx::load(folder.path()) {
            assert!(error.contains("probe.ptx:"), "{error}");
        }
    }
}
