//! Tests the GPU code on machines without a GPU. Error messages name the missing part. All GPU code except the
//! hardware runs on replacements of NVIDIA's driver and cuBLASLt (`tests/stand_in`), which refuse the calls that
//! NVIDIA's libraries would refuse.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::program::{Workplace, message, records, sorted_lines, succeed, synth};

/// The folder that `build/nvcc.rs` and `build/simt.rs` write to.
const BUILT: &str = env!("OUT_DIR");

/// The folder of both libraries. They are built once.
pub fn stand_in() -> &'static Path {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stand-in");
        std::fs::create_dir_all(&folder).unwrap();
        build_stand_in(&folder);
        folder
    });
    &BUILT
}

fn build_stand_in(folder: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let build = |library: &str, source: &str, rest: &[&str]| {
        let mut command = Command::new(&compiler);
        command.args(["-std=c++17", "-O3", "-shared", "-fPIC", "-I"]).arg(root.join("kernels/simt"));
        command.arg(root.join("tests/stand_in").join(source)).args(rest);
        // Another run of the tests may be using the library.
        let built = folder.join(format!("{library}.{}", std::process::id()));
        assert!(command.arg("-o").arg(&built).status().unwrap().success(), "{source}");
        std::fs::rename(built, folder.join(library)).unwrap();
    };
    let kernels = format!("{BUILT}/libcodit_simt.a");
    let whole = ["-Wl,--whole-archive", &kernels, "-Wl,--no-whole-archive", "-pthread"];
    build("libcuda.so", "driver.cpp", &whole);
    let driver = folder.join("libcuda.so").display().to_string();
    build("libcublasLt.so.13", "cublaslt.cpp", &[&driver, "-Wl,-rpath,$ORIGIN"]);
}

pub fn has_kernels() -> bool {
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
    let input = place.instructions(9);
    let usual = "gathered-candidates,shared-prefixes";
    // With log-probabilities, all of the amateur's logits are needed in addition to the logits of the candidates.
    let all: [(_, _, _, &[&str]); 4] = [
        ("bfloat16", "auto", usual, &[]),
        ("float32", "auto", usual, &["--log-probabilities"]),
        ("float32", "auto", DEFERRED, &[]),
        ("fp8", "fp8", usual, &[]),
    ];
    for (index, (dtype, cache, shortcuts, more)) in all.into_iter().enumerate() {
        let with = |device| {
            let method = ["--seed", "1", "--max-tokens", "16", "--dtype", dtype, "--device", device];
            let sizes = ["--max-num-seqs", "5", "--max-num-batched-tokens", "24", "--kv-cache-dtype", cache];
            let rest = ["--gpu-memory-utilization", "0.25", "--shortcuts", shortcuts];
            [method.as_slice(), &sizes, &rest, more].concat()
        };
        let (simt, cuda) = (place.path(&format!("simt-{index}")), place.path(&format!("cuda-{index}")));
        succeed(&input, &simt, &with("simt"));
        let mut command = synth(&input, &cuda, &with("cuda"));
        let result =
            command.args(["--profile-steps", "0:5"]).env("LD_LIBRARY_PATH", stand_in()).output().unwrap();
        let said = message(&result);
        assert!(result.status.success(), "{said}");
        assert_eq!(sorted_lines(&simt), sorted_lines(&cuda), "{said}");
        assert!(!said.contains("refused") && !said.contains("are left"), "{said}");
        assert!(count(&said, 0, "replays") > 4, "{said}");
        assert!(count(&said, 0, "early") > 100, "{said}");
        assert_eq!(count(&said, 0, "searches"), 0, "algorithms are chosen at load: {said}");
        let (bytes, may_use) = (count(&said, 0, "bytes"), (1 << 30) / 4);
        assert!(bytes <= may_use && bytes > may_use / 2, "{said}");
    }
}

/// The streams' work runs in many orders, all within what was asked for. A lost wait for the stream on which rows that
/// decode are beside those that prefill would show.
#[test]
fn the_machine_gives_the_same_in_every_order_that_is_allowed() {
    if !has_kernels() {
        return;
    }
    let place = Workplace::new();
    let input = place.instructions(6);
    let [expert, amateur] = place.embedded_pair(heads_of_64);
    let method = ["--seed", "1", "--max-tokens", "8", "--ignore-eos", "--kv-cache-memory", "8MiB"];
    let sizes = ["--max-num-seqs", "3", "--max-num-batched-tokens", "24"];
    let models = ["--expert", &expert, "--amateur", &amateur, "--dtype", "bfloat16"];
    let arguments = |device| [&method[..], &sizes, &models, &["--device", device]].concat();
    let simt = place.path("simt");
    succeed(&input, &simt, &arguments("simt"));
    let run = |name: &str, variable: &str, value: &str| {
        let mut command = synth(&input, &place.path(name), &arguments("cuda"));
        let result = command.env("LD_LIBRARY_PATH", stand_in()).env(variable, value).output().unwrap();
        let said = message(&result);
        assert!(!said.contains("refused"), "{said}");
        (sorted_lines(&place.path(name)), said)
    };
    let simt = sorted_lines(&simt);
    for seed in ["2", "3", "4"] {
        let (lines, said) = run(&format!("seed-{seed}"), "STAND_IN_SEED", seed);
        assert_eq!(lines, simt, "{said}");
    }
    let expert_aside = "1";
    assert_ne!(run("lost", "STAND_IN_LOSES", expert_aside).0, simt, "the wait is needed");
    // Kernels whose machine code does not wait are launched one after another.
    let (lines, said) = run("older", "STAND_IN_CODE", "80");
    assert_eq!((lines, count(&said, 0, "early")), (simt, 0), "{said}");
}

/// Cuts the queries, keys and values of a model into half as many heads, for which there are tensor-core kernels. The
/// model has as many weights as before; it writes nonsense.
fn heads_of_64(_: &str, fields: &mut Value) {
    for (field, value) in [("head_dim", 64), ("num_attention_heads", 3), ("num_key_value_heads", 1)] {
        fields[field] = json!(value);
    }
}

/// Each kernel waits for the one ahead of it, because there is no other way to make one.
#[test]
fn every_kernel_begins_with_the_wait() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let mut folders = vec![folder.clone()];
    let mut makers = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read_to_string(&path).unwrap().contains("__global__") {
                makers.push(path);
            }
        }
    }
    let prelude = folder.join("prelude.cuh");
    assert_eq!(makers, std::slice::from_ref(&prelude));
    let text = std::fs::read_to_string(prelude).unwrap();
    let kernel = text.split("__global__").nth(1).unwrap();
    let wait = kernel.find("begin_kernel();").unwrap();
    assert!(wait < kernel.find("_body(p);").unwrap() && text.matches("__global__").count() == 1);
}

/// Each weight uses one algorithm, which does not split its sums, and responses do not depend on any capacity.
#[test]
fn a_deterministic_machine_multiplies_any_number_of_rows_alike() {
    if !has_kernels() {
        return;
    }
    let place = Workplace::new();
    let input = place.instructions(3);
    let run = |name: &str, batched_tokens: &str, arguments: &[&str], serves: bool| {
        let method = ["--seed", "1", "--max-tokens", "6", "--device", "cuda", "--kv-cache-memory", "8MiB"];
        let sizes = ["--max-num-seqs", "3", "--max-num-batched-tokens", batched_tokens];
        let mut command = synth(&input, &place.path(name), &[&method[..], &sizes, arguments].concat());
        command.env("LD_LIBRARY_PATH", stand_in()).env("STAND_IN_CUTS", "1");
        if !serves {
            command.env("STAND_IN_SERVES_NONE", "1");
        }
        let result = command.output().unwrap();
        let said = message(&result);
        assert!(result.status.success() && !said.contains("refused"), "{said}");
        let line = said.lines().find(|line| line.starts_with("stand-in cuBLASLt: ")).unwrap();
        let numbers = line.split(' ').filter_map(|word| word.parse().ok());
        (sorted_lines(&place.path(name)), numbers.collect::<Vec<usize>>())
    };
    let (free, counts) = run("free", "8", &[], true);
    assert!(counts[0] > 1 && counts[1] > 0, "{counts:?}");
    assert_ne!(free, run("free-too", "3", &[], true).0, "they would be the same in any case");
    // Where no algorithm serves all rows, the own product does.
    for (serves, algorithms) in [(true, 1), (false, 0)] {
        let (some, counts) = run(&format!("some-{serves}"), "8", &["--deterministic"], serves);
        assert_eq!(counts, [algorithms, 0]);
        let arguments = ["--deterministic", "--shortcuts", "gathered-candidates"];
        let (others, counts) = run(&format!("others-{serves}"), "3", &arguments, serves);
        assert_eq!(counts, [algorithms, 0]);
        assert_eq!(some, others);
    }
}

const DEFERRED: &str = "always-deferred-amateur,shared-prefixes";

/// Shortcuts without gathered candidates, so that all of the amateur's logits are computed, as a split pair always
/// does.
const SMALL: [&str; 12] = [
    "--seed",
    "1",
    "--max-tokens",
    "9",
    "--max-num-seqs",
    "2",
    "--max-num-batched-tokens",
    "8",
    "--kv-cache-memory",
    "8MiB",
    "--shortcuts",
    "shared-prefixes",
];

/// Tests two pairs of GPUs that take requests from one queue, a pair that is split because it does not fit on one
/// GPU, and a GPU that breaks down.
#[test]
fn several_gpus_give_what_one_gives() {
    if !has_kernels() {
        return;
    }
    let place = Workplace::new();
    let input = place.instructions(6);
    let simt = place.path("simt");
    succeed(&input, &simt, &[&SMALL[..], &["--device", "simt"]].concat());
    let cuda = |name: &str, arguments: &[&str]| {
        let mut command =
            synth(&input, &place.path(name), &[&SMALL[..], &["--device", "cuda"], arguments].concat());
        command.env("LD_LIBRARY_PATH", stand_in());
        command
    };
    let run_as = |expected: &Path, name: &str, arguments: &[&str]| {
        let result = cuda(name, arguments).output().unwrap();
        let said = message(&result);
        assert!(result.status.success(), "{said}");
        assert!(!said.contains("refused") && !said.contains("are left"), "{said}");
        assert_eq!(sorted_lines(expected), sorted_lines(&place.path(name)), "{said}");
        said
    };
    let run = |name: &str, arguments: &[&str]| run_as(&simt, name, arguments);
    let said = run("pairs", &["--devices", "0,2,1,3", "--placement", "split"]);
    for gpu in 0..4 {
        assert!(count(&said, gpu, "launches") > 100 && count(&said, gpu, "copies") > 4, "{said}");
    }
    // The expert's GPU replays the graphs of both GPUs of a pair.
    assert!(count(&said, 0, "replays") > 2 && count(&said, 1, "replays") > 2, "{said}");

    let said = run("auto", &["--devices", "3,1", "--gpu-memory-utilization", "0.08"]);
    assert!(said.contains("2 GPUs, expert and amateur on one each: 1 replica of the pair"), "{said}");
    assert!(count(&said, 3, "copies") > 4 && count(&said, 1, "copies") > 4, "{said}");

    let deferred = place.path("simt-deferred");
    succeed(&input, &deferred, &[&SMALL[..], &["--device", "simt", "--shortcuts", DEFERRED]].concat());
    let arguments = ["--devices", "2,0", "--placement", "split", "--shortcuts", DEFERRED];
    let said = run_as(&deferred, "deferred", &arguments);
    assert!(count(&said, 2, "copies") > 4, "{said}");

    let breaking = cuda("broken", &["--devices", "0,1"]).env("STAND_IN_BREAKS", "1:2").output().unwrap();
    let said = message(&breaking);
    assert_eq!(breaking.status.code(), Some(1), "{said}");
    assert!(said.contains("codit: error: CUDA could not launch a graph"), "{said}");
    assert!(records(&place.path("broken")).len() < 6, "it broke too late to test anything");
}

/// The doctor's report over the stand-in with a planted fault; `only` names families.
fn doctor(fault: &str, only: &str) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_codit"));
    command.args(["doctor", "--device", "cuda", "--dtype", "bfloat16", "--deterministic", "--json"]);
    command.args(["--only", only]).env("LD_LIBRARY_PATH", stand_in()).env("STAND_IN_FAULT", fault);
    let result = command.output().unwrap();
    assert_eq!(result.status.code(), Some(1), "{fault}: {result:?}");
    serde_json::from_slice(&result.stdout).unwrap_or_else(|error| panic!("{fault}: {error}: {result:?}"))
}

/// The only failure of a family.
fn failure<'a>(report: &'a Value, family: &str) -> &'a Value {
    let finding = report["checks"].as_array().unwrap().iter().find(|finding| finding["name"] == family);
    let failures = finding.unwrap_or_else(|| panic!("{family}: {report}"))["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 1, "{report}");
    &failures[0]
}

/// An operation that the device refuses is named, once, and the families after it are checked.
#[test]
fn a_refused_operation_fails_its_own_family_alone() {
    if !has_kernels() {
        return;
    }
    for (fault, family, operation, refusal) in [
        ("launch:gated_bf16", "rows", "gated", "CUDA could not launch gated_bf16"),
        ("product:17", "matmul", "matmul", "cuBLASLt could not multiply [17, 80] and [130, 80]^T"),
    ] {
        let report = doctor(fault, "rows,matmul");
        let failure = failure(&report, family);
        assert_eq!(failure["operation"], operation, "{report}");
        assert!(failure["refusal"].as_str().unwrap().starts_with(refusal), "{report}");
        for finding in report["checks"].as_array().unwrap() {
            assert_eq!(finding["passed"], finding["name"] != family, "{report}");
        }
    }
}

/// After an access to memory that is not there CUDA answers no call of the process. Each family names the kernel, and the
/// others are said not to have been checked.
#[test]
fn a_lost_device_is_said_once() {
    if !has_kernels() {
        return;
    }
    for (family, kernel) in [
        ("rows", "rope_store_bf16"),
        ("matmul", "grouped_matmul_16x64_bf16"),
        ("attention", "attention_prefill_64_bf16"),
        ("mixture", "route_choose"),
        ("contrast_sample", "contrast_tiles"),
        ("gathered candidates", "contrast_project_bf16"),
        ("decided by the expert", "contrast_sample"),
        ("golden pair", "embed_bf16"),
    ] {
        let only = format!("{},decided-by-the-expert,golden-pair", family.replace(' ', "-"));
        let report = doctor(&format!("kernel:{kernel}"), &only);
        let refusal = failure(&report, family)["refusal"].as_str().unwrap();
        assert!(refusal.contains("CUDA_ERROR_ILLEGAL_ADDRESS") && refusal.contains(kernel), "{report}");
        let findings = report["checks"].as_array().unwrap();
        let failed: Vec<_> = findings.iter().filter(|finding| finding["passed"] == false).collect();
        assert_eq!(failed.len(), 1, "{report}");
        let left = report["not_checked"].as_array().unwrap();
        for rest in ["decided by the expert", "golden pair"] {
            let is_left =
                left.iter().any(|name| name.as_str().unwrap().starts_with(&format!("{rest} with ")));
            let is_checked = findings.iter().any(|finding| finding["name"] == rest);
            assert!(is_left != is_checked, "{rest}: {report}");
        }
        assert!(report["verdict"].as_str().unwrap().contains("; not checked: "), "{report}");
    }
}

/// The number before `what` in the line that the stand-in prints about a GPU when it is closed.
fn count(said: &str, gpu: usize, what: &str) -> usize {
    let line = said.lines().rfind(|line| line.starts_with(&format!("stand-in driver: GPU {gpu}: ")));
    let words: Vec<&str> = line.unwrap().split([' ', ',', ';']).filter(|word| !word.is_empty()).collect();
    let place = words.iter().position(|word| *word == what).unwrap();
    words[place - 1].parse().unwrap()
}
