//! `codit plan`, `doctor` and `bench` as a user runs them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use codit::doctor::Check;
use codit::doctor::verdict::Finding;
use serde_json::Value;

use crate::program::Workplace;

fn codit(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_codit")).args(arguments).output().unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = codit(arguments);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_version_says_what_the_program_was_built_with() {
    let output = codit(&["--version"]);
    let said = String::from_utf8_lossy(&output.stdout);
    let built = said.strip_prefix(concat!("codit ", env!("CARGO_PKG_VERSION"), " (")).unwrap();
    let architectures = codit::device::cuda::architectures();
    assert_eq!(built.contains("no cuda: built without nvcc"), architectures.is_empty(), "{said}");
    assert!(architectures.iter().all(|name| built.contains(&format!("sm_{name}"))), "{said}");
}

/// The shape has 8,030,261,248 parameters. A token has 2 (keys, values) x 32 layers x 8 heads x 128 numbers. Every
/// number takes two bytes.
#[test]
fn the_plan_of_llama_is_what_its_config_says() {
    let plan = json(&["plan", "--shape", "llama-3.1-8b", "--gpu-memory", "80GiB", "--json"]);
    let weights = plan["weights_bytes"][0].as_u64().unwrap();
    assert!((16_060_522_496..16_060_522_496 + (1 << 20)).contains(&weights), "{weights}");
    let token = plan["cache_bytes_per_token"].as_f64().unwrap();
    let exact = 2.0 * 2.0 * 32.0 * 8.0 * 128.0 * 2.0;
    assert!((exact..exact * 1.1).contains(&token), "{token}");
    let (fixed, usable) = (plan["fixed_bytes"].as_f64().unwrap(), plan["usable_bytes"].as_f64().unwrap());
    let placements = plan["placements"].as_array().unwrap();
    let together = &placements[0];
    let tokens = together["cache_tokens"].as_f64().unwrap();
    assert!(fixed + tokens * token <= usable && fixed + (tokens + 32.0) * token > usable);
    // With one GPU per model, the weights leave more memory for each model's part of the cache.
    let split = placements.iter().find(|fit| fit["placement"] == "split").unwrap();
    assert!(split["gpus"] == 2 && split["replicas"] == 1, "{split}");
    let gained = split["cache_tokens"].as_f64().unwrap() / tokens;
    assert!((2.5..3.5).contains(&gained), "{gained}");
}

/// Each of the layers' 6,979,321,856 weights takes a byte, and each of their 1,376,256 outputs has a scale. A token
/// has 32 layers x 8 heads x 2 rows in the cache; each row takes one byte per number and one scale.
#[test]
fn the_plan_knows_each_models_format() {
    let plan = |formats: &[&str]| {
        json(&[&["plan", "--shape", "llama-3.1-8b", "--gpu-memory", "80GiB", "--json"], formats].concat())
    };
    let weights = |plan: &Value, at: usize| plan["weights_bytes"][at].as_u64().unwrap();
    let stored = plan(&[]);
    let rounded = plan(&["--amateur-dtype", "fp8", "--kv-cache-dtype", "fp8"]);
    assert_eq!(weights(&rounded, 0), weights(&stored, 0));
    let saved = 6_979_321_856 - 4 * 32 * (6144 + 4096 + 28_672 + 4096);
    assert_eq!(weights(&stored, 1) - weights(&rounded, 1), saved);
    let token = |plan: &Value| plan["cache_bytes_per_token"].as_f64().unwrap();
    let saved = 2.0 * f64::from(2 * 32 * 8 * (2 * 128 - (128 + 4)));
    assert!((token(&stored) - token(&rounded) - saved).abs() < 1.0);

    let output =
        codit(&["plan", "--shape", "llama-3.1-8b", "--dtype", "float32", "--kv-cache-dtype", "bfloat16"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("it may be auto or fp8"));
}

/// The deferred logits are f32 logits of 128,256 tokens for each of 256 rows.
#[test]
fn the_plan_counts_the_deferred_logits() {
    let fixed = |more: &[&str]| {
        let plan =
            json(&[&["plan", "--shape", "llama-3.1-8b", "--gpu-memory", "80GiB", "--json"], more].concat());
        plan["fixed_bytes"].as_u64().unwrap()
    };
    assert_eq!(fixed(&["--shortcuts", "deferred-amateur"]) - fixed(&[]), 256 * 128_256 * 4);
}

/// The parameter counts that the models' publishers give.
#[test]
fn shapes_have_the_parameters_of_the_models_they_are_named_after() {
    for (shape, parameters) in [
        ("gemma-3-270m", 268_098_176),
        ("gemma-3-1b", 999_885_952),
        ("olmo-3-7b", 7_298_011_136),
        ("llama-3.2-1b", 1_235_814_400),
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen3-0.6b", 596_049_920),
    ] {
        let plan = json(&["plan", "--shape", shape, "--gpu-memory", "80GiB", "--json"]);
        let weights = plan["weights_bytes"][0].as_u64().unwrap();
        // The weights also include rotary frequencies and alignment.
        assert!((2 * parameters..2 * parameters + (1 << 20)).contains(&weights), "{shape}: {weights}");
    }
}

/// A file is read under its own name, whatever lies beside it.
#[test]
fn a_shape_may_be_a_file_of_any_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("embedded/expert");
    let place = Workplace::new();
    let mut config: Value = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    place.write("config.json", &config.to_string());
    config["num_hidden_layers"] = 2.into();
    let file = place.write("two layers.json", &config.to_string());
    let layers = |path: &Path| codit::bench::shapes::find(path.to_str().unwrap()).unwrap().layers.len();
    assert_eq!((layers(&file), layers(&place.path("config.json")), layers(&place.path(""))), (2, 4, 4));
}

#[test]
fn a_pair_that_does_not_fit_is_said_to() {
    let output = codit(&["plan", "--shape", "qwen3-32b", "--gpu-memory", "80GiB"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("does not fit"));
    let plan = ["plan", "--shape", "qwen3-32b", "--gpu-memory", "80GiB", "--gpus", "4", "--json"];
    let plan = json(&plan);
    let fits = plan["placements"].as_array().unwrap().iter();
    let fits: Vec<_> = fits.filter(|fit| fit["cache_tokens"].as_u64() > Some(0)).collect();
    assert_eq!(fits.len(), 2, "{fits:?}");
    assert!(fits.iter().all(|fit| fit["placement"] == "split"));
    assert_eq!(fits[1]["replicas"], 2);
    let output = codit(&["plan", "--shape", "qwen4"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("known shapes: gemma-3-270m"));
}

#[test]
fn where_no_memory_is_left_the_plan_says_why() {
    let prompts = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/prompts.jsonl");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let arguments = ["synth", prompts, "-o", out.to_str().unwrap(), "--device", "simt"];
    let output = codit(&[&arguments[..], &["--gpu-memory-utilization", "1e-9"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["no memory is left for the cache", "weights GiB", "expert", "amateur"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!out.exists());
}

/// The smallest golden pair, decoded on the CPU and through the kernels.
#[test]
fn the_bench_counts_what_a_step_does() {
    let shape = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models/llama-gqa8-shards/expert");
    for device in ["cpu", "simt"] {
        let report = json(&[
            "bench",
            "--shape",
            shape.to_str().unwrap(),
            "--device",
            device,
            "--rows",
            "2",
            "--input-len",
            "5",
            "--output-len",
            "32",
            "--json",
        ]);
        for name in ["bandwidth", "matmul_rate", "tokens_per_second", "decode_floor_seconds"] {
            assert!(report[name].as_f64().unwrap() > 0.0, "{device}: {name} in {report}");
        }
        let operations = report["operations"].as_array().unwrap();
        let of = |name: &str| operations.iter().find(|operation| operation["name"] == name).unwrap();
        for name in ["embed", "rms_norm", "matmul", "rope_store", "attention", "gated", "contrast_sample"] {
            assert!(of(name)["bytes"].as_u64().unwrap() > 0, "{device}: {name}");
        }
        // Each of the two models calls each of these operations once per layer.
        assert_eq!(of("attention")["calls"], of("rope_store")["calls"]);
    }
}

/// The families of checks, in the order of the report.
const FAMILIES: [&str; 8] = [
    "rows",
    "matmul",
    "attention",
    "mixture",
    "contrast_sample",
    "gathered candidates",
    "decided by the expert",
    "golden pair",
];

/// Each check of the report, with its name.
fn findings(report: &Value) -> Vec<(&str, &Value)> {
    let checks = report["checks"].as_array().unwrap().iter();
    checks.map(|finding| (finding["name"].as_str().unwrap(), finding)).collect()
}

#[test]
fn the_doctor_passes_a_healthy_cpu() {
    for formats in [&[][..], &["--dtype", "fp8", "--kv-cache-dtype", "fp8"]] {
        let output = codit(&[&["doctor", "--device", "cpu"], formats].concat());
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let first = said.lines().next().unwrap();
        assert!(first.starts_with("CPU, ") && first.contains("instruction set "), "{said}");
        let last = said.lines().last().unwrap();
        assert!(last.starts_with("passed: all ") && last.contains("computes what it should"), "{said}");
        for family in FAMILIES {
            assert!(said.lines().any(|line| line.starts_with(family)), "{family}: {said}");
        }
    }
    let report = json(&["doctor", "--device", "cpu", "--json"]);
    assert_eq!(report["passed"], true);
    assert!(report["verdict"].as_str().unwrap().starts_with("passed: all "), "{report}");
    assert!(report["device"].as_str().unwrap().contains(report["instruction_set"].as_str().unwrap()));
    let findings = findings(&report);
    // In float32 and in bfloat16.
    assert!(findings.iter().map(|(name, _)| *name).eq(FAMILIES.into_iter().chain(FAMILIES)), "{report}");
    for (name, finding) in findings {
        assert_eq!((&finding["passed"], &finding["failed"]), (&Value::from(true), &Value::from(0)), "{name}");
        assert_eq!(
            (&finding["differences"], &finding["failures"]),
            (&Value::from(0), &Value::from(vec![0; 0]))
        );
        assert!(finding["checks"].as_u64() > Some(0), "{name}");
        let numbers = [&finding["worst_error"], &finding["bound"]].map(Value::as_f64);
        match numbers {
            // The device is not compared with itself, so something is rounded differently.
            [Some(error), Some(bound)] => assert!(error <= bound && error > 0.0 || name == "contrast_sample"),
            _ => assert!(
                ["gathered candidates", "decided by the expert"].contains(&name),
                "{name}: {numbers:?}"
            ),
        }
    }
    for name in ["bytes_per_second", "matmul_operations_per_second"] {
        assert!(report["ceilings"][0][name].as_f64().unwrap() > 0.0, "{name}");
    }
}

/// The device misreads one number of each input. Every family of checks and nearly every check notices this, and the
/// messages are readable.
#[test]
fn the_doctor_fails_a_device_with_a_fault() {
    let faulty = ["doctor", "--device", "cpu", "--plant-fault"];
    let output = codit(&faulty);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap();
    for part in ["FAILED: ", " of ", "write no dataset with it", "Run this again", "--json"] {
        assert!(last.contains(part), "{part}: {last}");
    }
    let output = codit(&[&faulty[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["passed"], false);
    assert!(report["verdict"].as_str().unwrap().starts_with("FAILED: "), "{report}");
    let count = |finding: &Value, what: &str| finding[what].as_u64().unwrap();
    let (mut checks, mut failed) = (0, 0);
    for (name, finding) in findings(&report) {
        assert_eq!(finding["passed"], false, "{name} did not notice");
        assert!(last.contains(name), "{name}: {last}");
        checks += count(finding, "checks");
        failed += count(finding, "failed");
        let failures = finding["failures"].as_array().unwrap();
        assert_eq!(failures.len() as u64, count(finding, "failed"), "{name}");
        for failure in failures {
            let case = failure["case"].as_str().unwrap();
            let debug = ["{", "}", "[", "Some(", "None", "Bf16", "Working"];
            assert!(!debug.iter().any(|part| case.contains(part)), "{case}");
            let wrong =
                failure["error"].as_f64().is_none_or(|error| error > failure["bound"].as_f64().unwrap());
            assert!(wrong || count(failure, "differences") > 0, "{failure}");
        }
    }
    assert!(failed * 10 > checks * 9, "{failed} of {checks}");
}

/// A device that ends a family of checks with an error fails that family, in its own words.
#[test]
fn an_error_of_a_device_is_a_finding() {
    let refusal = "CUDA could not launch a kernel: CUDA_ERROR_ILLEGAL_ADDRESS";
    let checks = [Check::counted("matmul", "1 row", 0), Check::refused("matmul", refusal.to_owned())];
    let finding = Finding::new("a device", "bf16", "matmul", &checks);
    assert!(!finding.passed && finding.failed == 1 && finding.checks == 2);
    assert_eq!(finding.failures[0].what(), refusal);
    assert_eq!(serde_json::to_value(&finding).unwrap()["failures"][0]["refusal"], refusal);
}

#[test]
fn without_a_gpu_the_gpu_is_refused_with_a_reason() {
    let output = Command::new(env!("CARGO_BIN_EXE_codit"))
        .args(["doctor", "--device", "cuda"])
        .env("CUDA_VISIBLE_DEVICES", "")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("codit: error:"), "{output:?}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// The embedded pair runs over instructions with a common beginning. Each shortcut saves its own kind of work and
/// changes no token.
#[test]
fn the_ablation_counts_what_each_shortcut_saves() {
    let prompts = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/prompts.jsonl");
    let report = json(&[
        "bench",
        "--ablation",
        "--input",
        prompts,
        "--rows",
        "6",
        "--output-len",
        "32",
        "--device",
        "cpu",
        "--json",
    ]);
    let settings = report["settings"].as_array().unwrap();
    let with = |name: &str| {
        let names = |setting: &&serde_json::Value| {
            let names = setting["shortcuts"].as_array().unwrap();
            if name == "none" { names.is_empty() } else { names.len() == 1 && names[0] == name }
        };
        settings.iter().find(names).unwrap()
    };
    let count = |name: &str, what: &str| with(name)[what].as_u64().unwrap();
    for setting in settings {
        assert_eq!(setting["same_responses"], 1.0, "{setting}");
        assert!(setting["speed_up"].as_f64().unwrap() > 0.0, "{setting}");
    }
    for name in crate::shortcuts::ALL.names() {
        assert!(
            settings.iter().any(|setting| setting["shortcuts"] == serde_json::json!([name])),
            "{name} alone"
        );
    }
    assert_eq!(with("none")["predicted_speed_up"], 1.0);
    assert!(count("gathered-candidates", "bytes") < count("none", "bytes"));
    assert!(count("gathered-candidates", "operations") < count("none", "operations"));
    assert!(count("always-deferred-amateur", "amateur_steps") < count("none", "amateur_steps"));
    let (all, left) = (count("none", "expert_tokens"), count("shared-prefixes", "expert_tokens"));
    assert_eq!(left + count("shared-prefixes", "shared_tokens"), all);
}

#[test]
fn a_pair_is_measured_on_instructions_and_a_shape_on_random_tokens() {
    let refused = |arguments: &[&str], part: &str| {
        let output = codit(&[&["bench"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(part), "{part}: {said}");
    };
    refused(&["--pair", "qwen3-0.6b"], "--input");
    refused(&["--input", "examples/prompts.jsonl", "--rows", "1000", "--device", "cpu"], "--rows 24");
    refused(&["--input", "examples/prompts.jsonl", "--shape", "qwen3-8b"], "--shape");
}

/// A reader may close the pipe before all output is written.
#[test]
fn a_reader_that_goes_is_no_failure() {
    use std::process::Stdio;
    for arguments in [&["pairs"][..], &["plan", "--gpus", "4"]] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_codit"));
        let mut program =
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(program.stdout.take());
        let output = program.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
