//! The GPU where there is none: what is missing is said; and all of it but the metal is run, over a driver and a cuBLASLt
//! that stand in for NVIDIA's (`tests/stand_in`) and refuse what those would.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::program::{Workplace, message, sorted_lines, succeed, synth};

/// What `build/nvcc.rs` and `build/simt.rs` left.
const BUILT: &str = env!("OUT_DIR");

/// Builds both libraries in `folder`.
fn build_stand_in(folder: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let build = |library: &str, source: &str, rest: &[&str]| {
        let mut command = Command::new(&compiler);
        command.args(["-std=c++17", "-O2", "-shared", "-fPIC", "-I"]).arg(root.join("kernels/simt"));
        command.arg(root.join("tests/stand_in").join(source)).args(rest);
        let status = command.arg("-o").arg(folder.join(library)).status();
        assert!(status.unwrap().success(), "{source}");
    };
    let kernels = format!("{BUILT}/libcodit_simt.a");
    let whole = ["-Wl,--whole-archive", &kernels, "-Wl,--no-whole-archive", "-pthread"];
    build("libcuda.so", "driver.cpp", &whole);
    let driver = folder.join("libcuda.so").display().to_string();
    build("libcublasLt.so.13", "cublaslt.cpp", &[&driver, "-Wl,-rpath,$ORIGIN"]);
}

fn has_kernels() -> bool {
    PathBuf::from(BUILT).join("ptxas.txt").exists()
}

#[test]
fn what_is_missing_is_said_plainly() {
    if Path::new("/dev/nvidiactl").exists() {
        return;
    }
    let place = Workplace::new();
    let (input, output) = (place.instructions(1), place.path("out.jsonl"));
    let result = synth(&input, &output, &["--device", "cuda"]).output().unwrap();
    let said = message(&result);
    assert_eq!(result.status.code(), Some(1), "{said}");
    assert!(said.starts_with("codit: error: ") && said.trim_end().lines().count() == 1, "{said}");
    let (no_driver, no_kernels) = ("no NVIDIA driver", "kernels/toolchain.sh");
    assert!(said.contains(if has_kernels() { no_driver } else { no_kernels }), "{said}");
}

#[test]
fn the_machine_gives_what_simt_gives_and_replays_its_steps() {
    if !has_kernels() {
        return;
    }
    let place = Workplace::new();
    build_stand_in(&place.path(""));
    let input = place.instructions(9);
    for (dtype, cache) in [("bfloat16", "auto"), ("float32", "auto"), ("fp8", "fp8")] {
        let with = |device| {
            let method = ["--seed", "1", "--max-tokens", "16", "--dtype", dtype, "--device", device];
            let sizes = ["--max-num-seqs", "5", "--max-num-batched-tokens", "24", "--kv-cache-dtype", cache];
            [method.as_slice(), &sizes, &["--gpu-memory-utilization", "0.25"]].concat()
        };
        let (simt, cuda) = (place.path(&format!("simt-{dtype}")), place.path(&format!("cuda-{dtype}")));
        succeed(&input, &simt, &with("simt"));
        let mut command = synth(&input, &cuda, &with("cuda"));
        let result =
            command.args(["--profile-steps", "0:5"]).env("LD_LIBRARY_PATH", place.path("")).output().unwrap();
        let said = message(&result);
        assert!(result.status.success(), "{said}");
        assert_eq!(sorted_lines(&simt), sorted_lines(&cuda), "{said}");
        assert!(!said.contains("refused") && !said.contains("are left"), "{said}");
        let counts = said.lines().find_map(|line| line.strip_prefix("stand-in driver: ")).unwrap();
        let count = |at: usize| counts.split_whitespace().nth(at).unwrap().parse::<usize>().unwrap();
        let (replays, searches, bytes) = (count(2), count(4), count(6));
        assert!(replays > 4, "{counts}");
        assert_eq!(searches, 0, "algorithms are chosen at load: {counts}");
        let may_use = (1 << 30) / 4;
        assert!(bytes <= may_use && bytes > may_use / 2, "{counts}");
    }
}
