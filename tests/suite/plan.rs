//! `codit plan` and `codit bench`: shapes that are built in, amounts of memory, and figures that cannot be.

use std::fs;
use std::process::{Command, Output};

use codit::pairs::PAIRS;
use serde_json::{Value, json};

/// Runs codit without a network.
fn codit(arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_codit"));
    command.args(arguments).env("HF_HOME", home.path()).env("HF_ENDPOINT", "http://127.0.0.1:1");
    command.output().unwrap()
}

fn refused(arguments: &[&str]) -> String {
    let output = codit(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    said
}

#[test]
fn every_pair_is_planned_without_a_network() {
    for pair in PAIRS {
        let output = codit(&["plan", "--pair", pair.name, "--gpu-memory", "640GiB", "--gpus", "1"]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {}", pair.name, String::from_utf8_lossy(&output.stderr));
        assert!(said.contains(&format!("{}: from the built-in shape {}", pair.name, pair.shape)), "{said}");
        assert!(said.contains("both: the sum, and "), "{said}");
    }
    let plan = codit(&["plan", "--pair", "llama-3.1-8b", "--gpu-memory", "80GiB", "--json"]);
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(plan["shapes_from"], "built-in shape");
    let of_shape = codit(&["plan", "--shape", "llama-3.1-8b", "--gpu-memory", "80GiB", "--json"]);
    let of_shape: Value = serde_json::from_slice(&of_shape.stdout).unwrap();
    assert_eq!(plan["weights_bytes"], of_shape["weights_bytes"]);
}

#[test]
fn a_number_of_bytes_that_nobody_means_is_refused() {
    let said = refused(&["plan", "--shape", "smollm2-135m", "--gpu-memory", "24"]);
    assert!(said.contains("24 bytes; write 24GiB"), "{said}");
    let said = refused(&["synth", "in.jsonl", "-o", "out.jsonl", "--kv-cache-memory", "4096"]);
    assert!(said.contains("4096 bytes; write 4096MiB"), "{said}");
}

/// A configuration that asks for more than can be counted, and one that asks for more than any machine has.
#[test]
fn models_larger_than_any_machine_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let write = |branches: u64, width: u64| {
        let config = json!({
            "architectures": ["Qwen3MoeForCausalLM"], "vocab_size": 1000, "hidden_size": width, "intermediate_size": 64,
            "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64,
            "max_position_embeddings": 4096, "num_experts": branches, "num_experts_per_tok": 8,
            "moe_intermediate_size": width
        });
        fs::write(&path, config.to_string()).unwrap();
    };
    let shape = path.to_str().unwrap();
    write(1024, 1 << 24);
    for command in ["plan", "bench"] {
        let said = refused(&[command, "--shape", shape]);
        assert!(
            said.contains("config.json: hidden_size and the other sizes make a model of 3.5e18"),
            "{said}"
        );
    }
    write(1024, 1 << 16);
    let said = refused(&["bench", "--shape", shape, "--device", "cpu"]);
    assert!(said.contains("the bench needs ") && said.contains("GiB are available"), "{said}");
    assert_eq!(codit(&["plan", "--shape", shape, "--gpu-memory", "80GiB"]).status.code(), Some(1));
    let rows = [
        "bench",
        "--device",
        "cpu",
        "--rows",
        "1000000",
        "--input-len",
        "4000000",
        "--output-len",
        "4000000",
    ];
    let said = refused(&rows);
    assert!(said.contains("the bench needs "), "{said}");
}

#[test]
fn more_threads_than_help_are_refused() {
    let said = refused(&["doctor", "--device", "cpu", "--threads", "9999"]);
    assert!(
        said.contains("threads is 9999, but this machine has ") && said.contains("the most is "),
        "{said}"
    );
}

#[test]
fn a_wrong_instruction_set_is_an_error_on_every_device() {
    for device in ["cpu", "simt", "auto"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_codit"));
        let output =
            command.args(["bench", "--device", device]).env("CODIT_CPU_ISA", "avx9").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("CODIT_CPU_ISA is \"avx9\"; it must be one of baseline"), "{said}");
    }
    for command in ["synth", "bench", "doctor"] {
        let output = codit(&[command, "--help"]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("CODIT_CPU_ISA"), "{command}");
    }
}
